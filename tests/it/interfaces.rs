//! Interfaces of servers, from the books to the guest and back.

use std::time::Duration;

use nova_core::network::{PortStatus, RequestedInterface, RequestedNetworks};
use nova_core::state::{Action, VmState};
use nova_core::task::Work;
use nova_virt::{ErrorKind, Hypervisor, Operation};

use crate::support::networks::{by, on, these};
use crate::support::{Cloud, CloudOptions};

fn attach(interface: RequestedInterface) -> Work {
    Work::AttachInterface { interface }
}

#[tokio::test(start_paused = true)]
async fn a_server_has_its_interfaces_and_gives_them_back() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let (one, two) = (cloud.add_network("10.0.0.0/24").await, cloud.add_network("10.1.0.0/24").await);
    let mine = cloud.add_port(one.id).await;
    let fixed = RequestedInterface { fixed_ip: Some("10.1.0.77".parse().unwrap()), ..on(two.id) };
    let id = cloud.boot_on(these([on(two.id), by(mine.id), fixed]), cloud.flavor(1, 512)).await;
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    let ports = cloud.ports_of(id).await;
    let spec = cloud.hosts[server.host.as_ref().unwrap()].spec_of(id).unwrap();
    let macs: Vec<_> = spec.interfaces.iter().map(|nic| nic.mac_address.clone()).collect();
    let place = |network, address: Option<&str>| {
        let fits = |port: &&nova_core::network::Port| {
            let has = |text: &str| port.fixed_ips.iter().any(|ip| ip.ip_address.to_string() == text);
            port.network_id == network && address.is_none_or(has) && (address.is_some() || !has("10.1.0.77"))
        };
        ports.iter().find(fits).unwrap().mac_address.to_string()
    };
    assert_eq!(macs, [place(two.id, None), mine.mac_address.to_string(), place(two.id, Some("10.1.0.77"))]);
    assert!(ports.iter().all(|port| port.device_owner == "compute:nova" && port.binding.vif_type == "bridge"));
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    let left = cloud.ports().await;
    assert_eq!((left.len(), left[0].id, left[0].device_id.as_str(), left[0].host.clone()), (1, mine.id, "", None));
    assert_eq!(left[0].status, PortStatus::Down);
    cloud.check().await;
    cloud.stop().await;
}

/// Nothing said: the project's one network, if there is one; two are one too many. `none` is none.
#[tokio::test(start_paused = true)]
async fn what_is_not_said_is_the_one_network_that_there_is() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let flavor = cloud.flavor(1, 256);
    let before = cloud.boot_on(RequestedNetworks::Unsaid, flavor.clone()).await;
    cloud.settle().await;
    cloud.add_network("10.0.0.0/24").await;
    let unsaid = cloud.boot_on(RequestedNetworks::Unsaid, flavor.clone()).await;
    let auto = cloud.boot_on(RequestedNetworks::Auto, flavor.clone()).await;
    let none = cloud.boot_on(RequestedNetworks::Nothing, flavor.clone()).await;
    cloud.settle().await;
    for (id, count) in [(before, 0), (unsaid, 1), (auto, 1), (none, 0)] {
        assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
        assert_eq!(cloud.ports_of(id).await.len(), count);
    }
    cloud.add_network("10.1.0.0/24").await;
    let torn = cloud.boot_on(RequestedNetworks::Unsaid, flavor).await;
    cloud.settle().await;
    let fault = cloud.get(torn).await.fault.unwrap();
    assert!(fault.message.contains("Multiple possible networks found"), "{}", fault.message);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_fails_the_build_and_leaves_nothing() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let (small, other) = (cloud.add_network("10.0.0.0/30").await, cloud.add_network("10.1.0.0/24").await);
    let first = cloud.boot_on(these([on(small.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let mine = cloud.add_port(other.id).await;
    let wanted = these([by(mine.id), on(other.id), on(small.id)]);
    let second = cloud.boot_on(wanted.clone(), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let server = cloud.get(second).await;
    let fault = server.fault.unwrap();
    let expected = format!(
        "Build of instance {second} aborted: Failed to allocate the network(s) with error No fixed IP addresses \
         available for network: {}, not rescheduling.",
        small.id
    );
    assert_eq!((server.vm_state, server.host, fault.code, fault.message), (VmState::Error, None, 500, expected));
    assert_eq!(cloud.ports_of(second).await, []);
    assert_eq!(cloud.ports().await.len(), 2, "the first server's and the user's own");
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    assert!(cloud.act(first, Action::Delete).await && cloud.act(second, Action::Delete).await);
    cloud.settle().await;
    let third = cloud.boot_on(wanted, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(third).await.vm_state, VmState::Active, "what was given back is there for others");
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_port_and_a_foreign_network_are_not_found() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let foreign = cloud.add_network_of("another".into(), "10.0.0.0/24").await;
    let theirs = cloud.add_port_of("another".into(), foreign.id, String::new()).await;
    let by_port = cloud.boot_on(these([by(theirs.id)]), cloud.flavor(1, 256)).await;
    let by_network = cloud.boot_on(these([on(foreign.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    for (id, text) in [(by_port, theirs.id.to_string()), (by_network, foreign.id.to_string())] {
        let server = cloud.get(id).await;
        let message = server.fault.unwrap().message;
        assert!(
            server.vm_state == VmState::Error && message.contains(&format!("{text} could not be found")),
            "{message}"
        );
    }
    assert_eq!(cloud.ports().await, [theirs], "it is as it was");
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_builds_that_want_one_port_one_gets_it() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let mine = cloud.add_port(network.id).await;
    let wanted = these([by(mine.id), on(network.id)]);
    let one = cloud.boot_on(wanted.clone(), cloud.flavor(1, 256)).await;
    let two = cloud.boot_on(wanted, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let (one, two) = (cloud.get(one).await, cloud.get(two).await);
    let (winner, loser) = if one.vm_state == VmState::Active { (one, two) } else { (two, one) };
    assert_eq!((winner.vm_state, loser.vm_state), (VmState::Active, VmState::Error));
    assert!(loser.fault.unwrap().message.contains(&format!("Port {} is still in use.", mine.id)));
    assert_eq!((cloud.ports_of(winner.id).await.len(), cloud.ports_of(loser.id).await.len()), (2, 0));
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// The interfaces of a build that fails on its host follow it to the next, with the addresses that they have.
#[tokio::test(start_paused = true)]
async fn interfaces_follow_a_build_to_its_next_host() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    for host in cloud.hosts.values().take(2) {
        host.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    }
    let id = cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    for host in cloud.hosts.values() {
        host.fail_next(Operation::Spawn, 9, ErrorKind::Failed);
    }
    let mine = cloud.add_port(network.id).await;
    let nowhere = cloud.boot_on(these([on(network.id), by(mine.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(nowhere).await.vm_state, VmState::Error);
    assert_eq!(cloud.ports_of(nowhere).await, []);
    assert_eq!(cloud.ports().await.len(), 2);
    cloud.check().await;
    cloud.stop().await;
}

/// One transaction more for the ports, no message more; that they work is written later, for many at once.
#[tokio::test(start_paused = true)]
async fn an_interface_costs_a_boot_one_transaction_and_no_message() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    cloud.pass(Duration::from_secs(1)).await;
    let (commits, sent) = (cloud.store.commits(), cloud.bus.counters());
    let id = cloud.boot_on(these([on(network.id), on(network.id)]), cloud.flavor(1, 256)).await;
    let until = async || cloud.get(id).await.vm_state == VmState::Active;
    while !until().await {
        cloud.pass(Duration::from_millis(1)).await;
    }
    assert_eq!(cloud.store.commits() - commits, 4);
    assert!(cloud.ports_of(id).await.iter().all(|port| port.status == PortStatus::Down));
    cloud.pass(Duration::from_millis(150)).await;
    assert!(cloud.ports_of(id).await.iter().all(|port| port.status == PortStatus::Active));
    assert_eq!(cloud.store.commits() - commits, 5, "both in one transaction");
    // The host's report is answered then; nothing else waits for that.
    let after = cloud.bus.counters();
    assert_eq!((after.messages - sent.messages) + (after.replies - sent.replies), 6);
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn interfaces_are_plugged_in_and_out() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let mine = cloud.add_port(network.id).await;
    let id = cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let first = cloud.ports_of(id).await.remove(0);
    let made = cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    cloud.settle().await;
    let port = cloud.ports_of(id).await.into_iter().find(|port| Some(port.id) == made.port_id());
    assert!(port.unwrap().delete_with_device, "made for the server, under the id that was known before");
    // Several at once take turns.
    for work in [attach(by(mine.id)), attach(on(network.id)), Work::DetachInterface { port_id: first.id }] {
        cloud.change_interface(id, work).await.unwrap();
    }
    cloud.settle().await;
    assert!(cloud.now().duration_since(made.created_at).as_secs() < 5, "none waits for a sweep");
    cloud.pass(Duration::from_secs(1)).await;
    let ports = cloud.ports_of(id).await;
    assert!(ports.len() == 3 && ports.iter().all(|port| port.id != first.id), "{ports:#?}");
    cloud.check().await;
    cloud.change_interface(id, Work::DetachInterface { port_id: mine.id }).await.unwrap();
    cloud.settle().await;
    assert_eq!(cloud.store.get_port(mine.id).await.unwrap().device_id, "", "it is the user's, and stays");
    cloud.check().await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    assert_eq!(cloud.ports().await.len(), 1);
    let actions = cloud.store.list_actions(id).await.unwrap();
    assert!(actions.iter().all(|action| action.finished.is_some() && action.message.is_none()), "{actions:#?}");
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_cannot_be_plugged_in_is_given_back() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let mine = cloud.add_port(network.id).await;
    let id = cloud.boot_on(RequestedNetworks::Nothing, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let host = cloud.hosts.values().next().unwrap();
    host.fail_next_after_effect(Operation::AttachInterface, 1, ErrorKind::TimedOut);
    cloud.change_interface(id, attach(by(mine.id))).await.unwrap();
    cloud.settle().await;
    host.fail_next(Operation::AttachInterface, 1, ErrorKind::Failed);
    cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.vm_state, VmState::Active);
    let message = format!("Failed to attach network adapter device to {id}: the hypervisor refused it");
    assert_eq!(server.fault.unwrap().message, message);
    let ports = cloud.ports().await;
    assert_eq!((ports.len(), ports[0].device_id.as_str()), (1, ""));
    cloud.check().await;
    // One that never ends is given up, and taken back when the host goes on.
    host.hang(Operation::AttachInterface);
    cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    cloud.settle().await;
    assert_eq!(cloud.ports().await.len(), 1);
    host.release(Operation::AttachInterface);
    cloud.pass(Duration::from_secs(10)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// An interface that could not be taken back goes when the host compares, and one that was lost comes again; a guest that
/// does not run is left as it is.
#[tokio::test(start_paused = true)]
async fn guests_get_the_interfaces_of_their_ports() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let host = cloud.hosts.values().next().unwrap();
    let count = || host.spec_of(id).unwrap().interfaces.len();
    // The order to unplug it, too, fails as often as it is tried.
    host.fail_next_after_effect(Operation::AttachInterface, 1, ErrorKind::Failed);
    host.fail_next(Operation::DetachInterface, 8, ErrorKind::Failed);
    cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    cloud.settle().await;
    cloud.pass(Duration::from_secs(30)).await;
    assert_eq!((count(), cloud.ports_of(id).await.len()), (2, 1), "one is left");
    cloud.pass(Duration::from_secs(400)).await;
    assert_eq!(count(), 1);
    cloud.check().await;
    let mac = cloud.ports_of(id).await[0].mac_address.to_string();
    host.detach_interface(id, &mac).await.unwrap();
    cloud.pass(Duration::from_secs(400)).await;
    assert_eq!(host.interfaces(id).await.unwrap(), std::slice::from_ref(&mac));
    assert!(cloud.act(id, Action::Stop).await);
    cloud.settle().await;
    host.detach_interface(id, &mac).await.unwrap();
    cloud.pass(Duration::from_secs(400)).await;
    assert_eq!(count(), 0, "it is only told");
    assert!(cloud.act(id, Action::Start).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(400)).await;
    assert_eq!(count(), 1);
    cloud.check().await;
    cloud.stop().await;
}

/// Comparing does not meddle with what is on its way.
#[tokio::test(start_paused = true)]
async fn interfaces_on_their_way_are_not_taken_for_wrong_ones() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let host = cloud.hosts.values().next().unwrap();
    let calls = |operation| host.journal().iter().filter(|entry| entry.operation == operation).count();
    host.hang(Operation::AttachInterface);
    cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    cloud.pass(Duration::from_secs(310)).await;
    assert_eq!(calls(Operation::DetachInterface), 0);
    host.release(Operation::AttachInterface);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(700)).await;
    assert_eq!((cloud.ports_of(id).await.len(), calls(Operation::DetachInterface)), (2, 0));
    cloud.check().await;
    cloud.stop().await;
}

/// Without an address there is no interface, and nothing of it stays.
#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_fails_the_attachment() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let narrow = cloud.add_network("10.0.0.0/30").await;
    let id = cloud.boot_on(these([on(narrow.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    cloud.change_interface(id, attach(on(narrow.id))).await.unwrap();
    cloud.settle().await;
    let fault = cloud.get(id).await.fault.unwrap();
    let why = format!("No fixed IP addresses available for network: {}", narrow.id);
    let message = format!("Failed to attach network adapter device to {id}: {why}");
    assert_eq!((fault.code, fault.message), (400, message));
    assert_eq!(cloud.ports().await.len(), 1);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// What is done to the power state meanwhile overtakes the order, and the interface comes all the same.
#[tokio::test(start_paused = true)]
async fn an_interface_is_plugged_in_while_the_server_stops() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(RequestedNetworks::Nothing, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    for power in [Action::Stop, Action::Start, Action::RebootHard] {
        cloud.change_interface(id, attach(on(network.id))).await.unwrap();
        assert!(cloud.act(id, power).await);
        cloud.settle().await;
    }
    cloud.pass(Duration::from_secs(1)).await;
    assert_eq!(cloud.ports_of(id).await.len(), 3);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ports_of_a_server_that_is_deleted_while_it_is_built_go() {
    for moment in [0, 1, 3, 6, 10, 15, 30] {
        let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
        let network = cloud.add_network("10.0.0.0/24").await;
        let mine = cloud.add_port(network.id).await;
        let id = cloud.boot_on(these([by(mine.id), on(network.id)]), cloud.flavor(1, 256)).await;
        cloud.pass(Duration::from_millis(moment)).await;
        assert!(cloud.act(id, Action::Delete).await);
        cloud.settle().await;
        assert!(cloud.get(id).await.is_deleted());
        let left = cloud.ports().await;
        assert_eq!((left.len(), left[0].device_id.as_str()), (1, ""), "after {moment} ms");
        cloud.check().await;
        cloud.stop().await;
    }
}

/// However many wait for their turn: they follow one another, not one inside the other.
#[tokio::test(start_paused = true)]
async fn hundreds_of_changes_wait_for_one() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let elsewhere = cloud.add_port(network.id).await;
    let id = cloud.boot_on(RequestedNetworks::Nothing, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let host = cloud.hosts.values().next().unwrap();
    host.hang(Operation::AttachInterface);
    cloud.change_interface(id, attach(on(network.id))).await.unwrap();
    // They are younger.
    cloud.pass(Duration::from_millis(10)).await;
    for _ in 0..400 {
        cloud.change_interface(id, Work::DetachInterface { port_id: elsewhere.id }).await.unwrap();
    }
    let now = cloud.now();
    host.release(Operation::AttachInterface);
    cloud.settle().await;
    assert!(cloud.now().duration_since(now).as_secs() < 10, "no sweep was needed for each");
    assert_eq!(cloud.ports_of(id).await.len(), 1);
    cloud.stop().await;
}

/// What a conductor left behind is found by the next, however long ago that was.
#[tokio::test(start_paused = true)]
async fn a_conductor_that_starts_finds_old_orphans() {
    let mut cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(RequestedNetworks::Nothing, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(7200)).await;
    let project = cloud.get(id).await.project_id;
    cloud.add_port_of(project, network.id, id.to_string()).await;
    cloud.pass(Duration::from_secs(900)).await;
    assert_eq!(cloud.ports_of(id).await.len(), 1, "only servers that ended lately are looked at");
    cloud.replace_conductor("next", None).await;
    cloud.pass(Duration::from_secs(5)).await;
    assert!(cloud.ports_of(id).await.is_empty());
    cloud.stop().await;
}
