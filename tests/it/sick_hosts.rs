//! Hosts whose hypervisor is gone or hangs, although their agents live.

use std::time::Duration;

use nova_core::ids::HostName;
use nova_core::state::VmState;
use nova_virt::{FakeHypervisor, Operation};
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

/// Longer than a hypervisor may be silent, and the heartbeat after it.
const A_WHILE: Duration = Duration::from_secs(75);

async fn service(cloud: &Cloud, host: &str) -> Value {
    let path = format!("/compute/v2.1/os-services?binary=nova-compute&host={host}");
    let (status, answer) = cloud.call_as_admin("GET", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    answer["services"][0].clone()
}

async fn set_service(cloud: &Cloud, host: &str, change: Value) {
    let path = format!("/compute/v2.1/os-services/{}", service(cloud, host).await["id"].as_str().unwrap());
    let (status, answer) = cloud.call_as_admin("PUT", &path, Some(change)).await;
    assert_eq!(status, 200, "{answer}");
}

async fn boot(cloud: &Cloud) -> (VmState, Option<HostName>) {
    let id = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let server = cloud.get(id).await;
    (server.vm_state, server.host)
}

/// One host of this cloud is the better one by far, and so is chosen while it can be.
async fn cloud() -> Cloud {
    Cloud::start(CloudOptions {
        hosts: 2,
        scheduler: "filter",
        dress: |name, machine, _| {
            let times = if name == "host00" { 16 } else { 1 };
            (machine.memory_mb, machine.vcpus) = (machine.memory_mb * u64::from(times), machine.vcpus * times);
        },
        ..CloudOptions::default()
    })
    .await
}

/// What is done to a hypervisor.
type Deed = fn(&FakeHypervisor);

fn hang(host: &FakeHypervisor) {
    host.hang(Operation::Resources);
}

fn release(host: &FakeHypervisor) {
    host.release(Operation::Resources);
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_hypervisor_hangs_or_fails_is_out_of_scheduling_until_it_answers() {
    let cloud = cloud().await;
    let sick = &cloud.hosts[&HostName::new("host00")];
    let ways: [(&str, Deed, Deed); 2] = [
        ("AUTO: the hypervisor has not answered for 30 seconds", hang, release),
        ("AUTO: the hypervisor fails: ", |host| host.set_available(false), |host| host.set_available(true)),
    ];
    for (reason, hurt, heal) in ways {
        assert_eq!(boot(&cloud).await, (VmState::Active, Some("host00".into())), "{reason}");
        hurt(sick);
        cloud.pass(Duration::from_secs(15)).await;
        assert_eq!(service(&cloud, "host00").await["status"], "enabled", "a moment is none");
        cloud.pass(A_WHILE).await;
        let shown = service(&cloud, "host00").await;
        assert_eq!((&shown["status"], &shown["state"]), (&json!("disabled"), &json!("up")), "{shown}");
        assert!(shown["disabled_reason"].as_str().unwrap().starts_with(reason), "{shown}");
        assert_eq!(service(&cloud, "host01").await["status"], "enabled");
        assert_eq!(boot(&cloud).await, (VmState::Active, Some("host01".into())));
        heal(sick);
        cloud.pass(A_WHILE).await;
        let shown = service(&cloud, "host00").await;
        assert_eq!((&shown["status"], &shown["disabled_reason"]), (&json!("enabled"), &Value::Null), "{shown}");
        assert_eq!(boot(&cloud).await, (VmState::Active, Some("host00".into())));
    }
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_disabled_stays_so_when_the_hypervisor_answers_again() {
    let cloud = cloud().await;
    let [first, second] = ["host00", "host01"].map(|name| cloud.hosts[&HostName::new(name)].clone());
    // Disabled before its hypervisor hangs, and while it does.
    set_service(&cloud, "host00", json!({"status": "disabled", "disabled_reason": "new memory"})).await;
    hang(&first);
    hang(&second);
    cloud.pass(A_WHILE).await;
    assert_eq!(service(&cloud, "host00").await["disabled_reason"], "new memory");
    assert!(service(&cloud, "host01").await["disabled_reason"].as_str().unwrap().starts_with("AUTO: "));
    set_service(&cloud, "host01", json!({"status": "disabled"})).await;
    release(&first);
    release(&second);
    cloud.pass(A_WHILE).await;
    for (host, reason) in [("host00", json!("new memory")), ("host01", Value::Null)] {
        let shown = service(&cloud, host).await;
        assert_eq!((&shown["status"], &shown["disabled_reason"]), (&json!("disabled"), &reason), "{shown}");
    }
    // Put back although its hypervisor hangs again: it is taken out again, and by itself put back.
    set_service(&cloud, "host00", json!({"status": "enabled"})).await;
    hang(&first);
    cloud.pass(A_WHILE).await;
    set_service(&cloud, "host00", json!({"status": "enabled"})).await;
    cloud.pass(Duration::from_secs(15)).await;
    assert_eq!(service(&cloud, "host00").await["status"], "disabled");
    release(&first);
    cloud.pass(A_WHILE).await;
    assert_eq!(service(&cloud, "host00").await["status"], "enabled");
    cloud.stop().await;
}
