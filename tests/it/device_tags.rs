//! Guests learn where they find the devices that their users gave tags: from the metadata service and from their config drive.

use std::time::Duration;

use nova::metadata::{GuestOptions, MetadataManager};
use nova_core::ids::{ImageId, InstanceId};
use nova_core::metadata::lookup;
use nova_core::state::{Action, VmState};
use nova_virt::{ErrorKind, FakeHypervisor, JournalEntry, Operation};
use serde_json::{Value, json};

use crate::server_volumes::options;
use crate::support::Cloud;

impl Cloud {
    /// `devices` as the server's guest reads them.
    async fn devices(&self, id: InstanceId) -> Value {
        let manager = MetadataManager::new(
            self.store.clone(),
            Some(self.network.clone()),
            self.entropy.clone(),
            GuestOptions::default(),
        );
        let about = manager.get(id).await.unwrap().unwrap();
        let document = lookup(&about, "/openstack/latest/meta_data.json", &*self.entropy).unwrap();
        serde_json::from_slice::<Value>(&document.body).unwrap()["devices"].clone()
    }

    async fn host_of(&self, id: InstanceId) -> &FakeHypervisor {
        &self.hosts[self.get(id).await.host.as_ref().unwrap()]
    }

    /// The same as its config drive has them.
    async fn devices_on_drive(&self, id: InstanceId) -> Value {
        let drive = self.host_of(id).await.spec_of(id).unwrap().config_drive.unwrap();
        let file = &drive.files["openstack/latest/meta_data.json"];
        serde_json::from_slice::<Value>(file).unwrap()["devices"].clone()
    }

    /// A server with a config drive and an interface of that tag.
    async fn tagged(&self, tag: &str) -> InstanceId {
        let network = self.add_network("10.0.0.0/24").await.id;
        let flavor = self.stored_flavor(1, 256).await;
        let server = json!({"name": "server", "flavorRef": flavor.id, "imageRef": ImageId::generate(&*self.entropy),
            "networks": [{"uuid": network, "tag": tag}], "config_drive": true});
        let (status, answer) = self.call("POST", "/compute/v2.1/servers", Some(json!({"server": server}))).await;
        assert_eq!(status, 202, "{answer}");
        self.settle().await;
        let id = answer["server"]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(self.get(id).await.vm_state, VmState::Active);
        id
    }

    async fn attach(&self, id: InstanceId, what: &str, body: Value) {
        let (status, answer) = self.call("POST", &format!("/compute/v2.1/servers/{id}/{what}"), Some(body)).await;
        assert!(matches!(status, 200 | 202), "{status} {answer}");
        self.settle().await;
    }
}

fn asked_where(host: &FakeHypervisor) -> usize {
    let asked = |entry: &&JournalEntry| entry.operation == Operation::Devices;
    host.journal().iter().filter(asked).count()
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_told_where_its_tagged_devices_are() {
    let cloud = Cloud::start(options()).await;
    let id = cloud.tagged("management").await;
    let nic = cloud.ports_of(id).await[0].mac_address;
    let management =
        json!({"type": "nic", "mac": nic, "tags": ["management"], "bus": "pci", "address": "0000:00:03.0"});
    assert_eq!(cloud.devices(id).await, json!([management]));
    assert_eq!(cloud.devices_on_drive(id).await, json!([management]));

    // What is plugged in later is told of too; what has no tag is not.
    let [tagged, plain] = [cloud.add_volume(1).await, cloud.add_volume(1).await];
    for (volume, tag) in [(plain, None), (tagged, Some("logs"))] {
        let mut attachment = json!({"volumeId": volume});
        tag.into_iter().for_each(|tag| attachment["tag"] = json!(tag));
        cloud.attach(id, "os-volume_attachments", json!({"volumeAttachment": attachment})).await;
    }
    let logs = json!({"type": "disk", "serial": tagged, "tags": ["logs"], "bus": "pci", "address": "0000:00:05.0"});
    assert_eq!(cloud.devices(id).await, json!([logs, management]));
    // What takes its place is found where that was, also where the host could not say so at once.
    let (mut tagged, mut logs) = (tagged, logs);
    for heard in [true, false] {
        let other = cloud.add_volume(1).await;
        if !heard {
            cloud.host_of(id).await.fail_next_after_effect(Operation::SwapDisk, 1, ErrorKind::TimedOut);
            cloud.host_of(id).await.fail_next(Operation::SettleSwap, 1, ErrorKind::Unavailable);
        }
        let path = format!("/compute/v2.1/servers/{id}/os-volume_attachments/{tagged}");
        let body = json!({"volumeAttachment": {"volumeId": other}});
        assert_eq!(cloud.call_as_admin("PUT", &path, Some(body)).await.0, 202);
        cloud.settle().await;
        (tagged, logs["serial"]) = (other, json!(other));
        assert_eq!(cloud.devices(id).await, json!([logs, management]), "heard: {heard}");
    }
    let network = cloud.add_network("10.1.0.0/24").await.id;
    cloud.attach(id, "os-interface", json!({"interfaceAttachment": {"net_id": network, "tag": "backup"}})).await;
    let devices = cloud.devices(id).await;
    assert_eq!((&devices[2]["tags"], &devices[2]["address"]), (&json!(["backup"]), &json!("0000:00:06.0")));

    // A host that makes the guest anew has its own places, on the drive as well.
    assert!(cloud.act(id, Action::Rebuild).await);
    cloud.settle().await;
    assert_eq!(cloud.devices_on_drive(id).await, cloud.devices(id).await);
    let before = cloud.devices(id).await;
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.devices(id).await, before, "it runs on, and so do its devices");
    assert_eq!(cloud.action(id, json!({"migrate": null})).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Resized);
    let there = cloud.devices(id).await;
    assert!(there.as_array().unwrap().iter().all(|device| device["bus"] == "pci"), "{there}");
    assert_eq!(cloud.devices_on_drive(id).await, there);

    // What was taken out is told of no more.
    let path = format!("/compute/v2.1/servers/{id}");
    assert_eq!(cloud.action(id, json!({"confirmResize": null})).await.0, 204);
    cloud.settle().await;
    assert_eq!(cloud.call("DELETE", &format!("{path}/os-volume_attachments/{tagged}"), None).await.0, 202);
    cloud.settle().await;
    let left = cloud.devices(id).await;
    assert_eq!(left.as_array().unwrap().iter().map(|device| &device["type"]).collect::<Vec<_>>(), ["nic", "nic"]);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// Nobody asks a driver where the devices of a guest are that is told nothing of them; and a driver that does not know does not
/// keep a server from running.
#[tokio::test(start_paused = true)]
async fn a_guest_without_tags_costs_no_question_and_an_unknown_place_is_none() {
    let cloud = Cloud::start(options()).await;
    let plain = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    assert_eq!(cloud.devices(plain).await, json!([]));
    assert_eq!(cloud.hosts.values().map(|host| asked_where(host)).sum::<usize>(), 0);
    for host in cloud.hosts.values() {
        host.fail_next(Operation::Devices, 1, ErrorKind::Failed);
    }
    let id = cloud.tagged("management").await;
    assert_eq!(asked_where(cloud.host_of(id).await), 1);
    let devices = cloud.devices(id).await;
    assert_eq!((&devices[0]["bus"], &devices[0]["address"]), (&json!("none"), &json!("none")));
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}
