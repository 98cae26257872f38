//! The conformance suite on every bus, and what RPC adds on top.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use nova_core::entropy::SeededEntropy;
use nova_core::ids::HostName;
use nova_core::rpc::conductor::{Heartbeat, ListAssigned, ListAssignedRequest, Ping};
use nova_core::rpc::{Method, RefusalKind, Role, Sender};
use nova_queue::{
    BusError, Chances, Dispatcher, FaultyBus, HandlerError, MemoryBus, MessageBus, RpcClient, Subscription, testing,
};

#[cfg(feature = "amqp")]
mod amqp;

mod memory {
    use super::*;
    nova_queue::bus_conformance!(Arc::new(MemoryBus::new(testing::clock())));
}

mod faulty_without_faults {
    use super::*;
    nova_queue::bus_conformance!({
        let inner = Arc::new(MemoryBus::new(testing::clock()));
        Arc::new(FaultyBus::new(inner, Chances::default(), Arc::new(SeededEntropy::new(1))))
    });
}

fn client(bus: &Arc<dyn MessageBus>, role: Role) -> RpcClient {
    let sender = Sender { role, host: HostName::new("host1") };
    RpcClient::new(bus.clone(), sender, testing::clock(), Arc::new(SeededEntropy::new(3)))
}

async fn served() -> (Arc<dyn MessageBus>, nova_queue::Serving) {
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(testing::clock()));
    let handler = Dispatcher::new("conductor")
        .method::<Ping, _, _>(|_, ()| async { Ok(()) })
        .method::<ListAssigned, _, _>(|incoming, request| async move {
            assert_eq!(incoming.sender.host, request.host);
            Ok::<_, HandlerError>(Vec::new())
        });
    let serving = bus.serve(Subscription::shared("conductor"), Arc::new(handler)).await.unwrap();
    (bus, serving)
}

#[tokio::test]
async fn typed_calls_carry_request_and_reply() {
    let (bus, _serving) = served().await;
    let request = ListAssignedRequest { host: HostName::new("host1") };
    let reply = client(&bus, Role::Compute).call::<ListAssigned>(&testing::context(), &request).await.unwrap();
    assert!(reply.is_empty());
}

#[tokio::test]
async fn a_sender_that_is_not_declared_is_refused() {
    let (bus, _serving) = served().await;
    let request = ListAssignedRequest { host: HostName::new("host1") };
    assert!(!ListAssigned::SENDERS.contains(&Role::Api));
    let error = client(&bus, Role::Api).call::<ListAssigned>(&testing::context(), &request).await.unwrap_err();
    assert_eq!(error.refusal().map(|r| r.kind), Some(RefusalKind::Forbidden));
}

#[tokio::test]
async fn unknown_methods_versions_and_contents_are_refused() {
    let (bus, _serving) = served().await;
    let context = testing::context();
    let beat = nova_core::rpc::conductor::HeartbeatRequest {
        host: HostName::new("host1"),
        zone: "nova".into(),
        node: None,
        working_on: Vec::new(),
        stats: None,
        disable: None,
        well: true,
    };
    let error = client(&bus, Role::Compute).call::<Heartbeat>(&context, &beat).await.unwrap_err();
    assert_eq!(error.refusal().map(|r| r.kind), Some(RefusalKind::Malformed), "not implemented by this server");
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_times_out() {
    let (bus, _serving) = served().await;
    let chances = Chances { lose: 1000, ..Chances::default() };
    let lossy: Arc<dyn MessageBus> = Arc::new(FaultyBus::new(bus, chances, Arc::new(SeededEntropy::new(1))));
    let error = client(&lossy, Role::Compute).call::<Ping>(&testing::context(), &()).await.unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "{error:?}");
}
