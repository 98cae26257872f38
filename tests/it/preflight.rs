//! Before a guest is sent while it runs, it is said what is in the way.

use std::time::Duration;

use nova_compute::ComputeOptions;
use nova_core::ids::{HostName, InstanceId};
use nova_core::migration::MigrationStatus;
use nova_core::state::VmState;
use nova_virt::{FakeOptions, Operation};
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

/// Guests see their host's processor. That of host02 can do less than the others'; host01 has an older hypervisor.
fn unlike(name: &str, machine: &mut FakeOptions, _: &mut ComputeOptions) {
    let features: &[&str] = if name == "host02" { &["sse"] } else { &["aes", "sse"] };
    machine.guests_see_cpu = true;
    machine.cpu_features = features.iter().map(|name| (*name).to_owned()).collect();
    if name == "host01" {
        machine.hypervisor_version = 999_000;
    }
}

impl Cloud {
    async fn set_status(&self, host: &HostName, status: &str) {
        let query = nova_db::ServiceQuery::computes([host]);
        let service = self.store.find_services(&query).await.unwrap().remove(0);
        let path = format!("/compute/v2.1/os-services/{}", service.id);
        let (code, answer) = self.call_as_admin("PUT", &path, Some(json!({"status": status}))).await;
        assert_eq!(code, 200, "{answer}");
    }

    /// A server on that host.
    async fn running_on(&self, host: &str) -> InstanceId {
        let others: Vec<&HostName> = self.hosts.keys().filter(|other| other.as_str() != host).collect();
        for other in &others {
            self.set_status(other, "disabled").await;
        }
        let id = self.boot(1, self.flavor(1, 256)).await.unwrap()[0];
        self.settle().await;
        for other in &others {
            self.set_status(other, "enabled").await;
        }
        assert_eq!(self.get(id).await.host.unwrap().as_str(), host);
        id
    }

    /// What the newest action on a server tells administrators, and what its owner.
    async fn told_of_last_action(&self, id: InstanceId) -> (String, String) {
        let path = format!("/compute/v2.1/servers/{id}/os-instance-actions");
        let (_, listed) = self.call_as_admin("GET", &path, None).await;
        let path = format!("{path}/{}", listed["instanceActions"][0]["request_id"].as_str().unwrap());
        let as_admin = self.call_as_admin("GET", &path, None).await.1;
        let as_owner = self.call("GET", &path, None).await.1;
        (as_admin["instanceAction"]["events"].to_string(), as_owner.to_string())
    }

    fn asked(&self, operation: Operation) -> usize {
        let of = |fake: &std::sync::Arc<nova_virt::FakeHypervisor>| {
            fake.journal().iter().filter(|entry| entry.operation == operation).count()
        };
        self.hosts.values().map(of).sum()
    }
}

fn to(host: Option<&str>) -> Value {
    json!({"os-migrateLive": {"host": host, "block_migration": "auto"}})
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_of_a_running_guest_is_said_before_it_is_touched() {
    let cloud = Cloud::start(CloudOptions { dress: unlike, ..CloudOptions::default() }).await;
    let id = cloud.running_on("host00").await;
    let older = "host01: its hypervisor has version 0.999.0, which is older than 1.0.0, on which the guest runs";
    let less = "host02: its processor lacks what the guest may use: aes";
    for (named, reasons) in [(None, vec![older, less]), (Some("host01"), vec![older]), (Some("host02"), vec![less])] {
        let (status, text) = cloud.action(id, to(named)).await;
        assert_eq!(status, 202, "{text}");
        cloud.settle().await;
        let server = cloud.get(id).await;
        assert_eq!((server.vm_state, server.task_state), (VmState::Active, None));
        assert_eq!(server.host.as_ref().unwrap().as_str(), "host00");
        assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Error);
        let fault = server.fault.unwrap();
        assert!(fault.code == 400 && fault.message.starts_with("Migration pre-check error: "), "{}", fault.message);
        let (as_admin, as_owner) = cloud.told_of_last_action(id).await;
        for reason in [older, less] {
            assert_eq!(as_admin.contains(reason), reasons.contains(&reason), "{named:?}: {as_admin}");
        }
        assert!(
            !as_owner.contains("host0") && !fault.message.contains("host0"),
            "tenants are told of hosts: {as_owner}"
        );
        // A record's status and time, and nothing else.
        cloud.pass(Duration::from_secs(1)).await;
    }
    assert_eq!((cloud.asked(Operation::PrepareIncoming), cloud.asked(Operation::LiveMigrate)), (0, 0));
    cloud.check().await;
    cloud.stop().await;
}

/// A candidate that fits is taken, whatever is wrong with the others; and who is off moves anywhere.
#[tokio::test(start_paused = true)]
async fn a_host_that_fits_is_taken() {
    let cloud = Cloud::start(CloudOptions { dress: unlike, ..CloudOptions::default() }).await;
    // The other hosts can do more; one of them is older.
    let id = cloud.running_on("host02").await;
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.host.unwrap().as_str()), (VmState::Active, "host00"), "{:?}", server.fault);
    let cold = cloud.running_on("host00").await;
    assert_eq!(cloud.action(cold, json!({"migrate": {"host": "host02"}})).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.get(cold).await.vm_state, VmState::Resized);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.stop().await;
}
