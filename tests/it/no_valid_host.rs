//! What a server's owner and an administrator read when no host takes it, and what flavors may ask for.

use nova_core::flavor::Flavor;
use nova_core::ids::{FlavorId, ImageId, InstanceId};
use nova_core::state::VmState;
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

async fn flavor(cloud: &Cloud, id: &str, extra_specs: &[(&str, &str)]) {
    let extra_specs = extra_specs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let (id, name) = (FlavorId::new(id), id.to_owned());
    cloud.store.create_flavor(Flavor { id, name, extra_specs, ..cloud.flavor(1, 256) }).await.unwrap();
}

async fn boot(cloud: &Cloud, flavor: &str, hints: Value) -> InstanceId {
    let image = ImageId::generate(&*cloud.entropy);
    let server = json!({"name": "server", "flavorRef": flavor, "imageRef": image, "networks": "none"});
    let body = json!({"server": server, "os:scheduler_hints": hints});
    let (status, answer) = cloud.call("POST", "/compute/v2.1/servers", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    answer["server"]["id"].as_str().unwrap().parse().unwrap()
}

/// The fault as its owner reads it, and as an administrator does.
async fn faults(cloud: &Cloud, id: InstanceId) -> (String, String) {
    let path = format!("/compute/v2.1/servers/{id}");
    let (_, owner) = cloud.call("GET", &path, None).await;
    let (_, admin) = cloud.call_as_admin("GET", &path, None).await;
    assert_eq!(owner["server"]["status"], "ERROR", "{owner}");
    (owner["server"]["fault"].to_string(), admin["server"]["fault"]["details"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_owner_reads_a_summary_and_an_administrator_the_whole() {
    for scheduler in ["random", "availability_zone", "least_load", "filter"] {
        let cloud = Cloud::start(CloudOptions { scheduler, hosts: 2, ..CloudOptions::default() }).await;
        flavor(&cloud, "small", &[]).await;
        flavor(&cloud, "large", &[("resources:MEMORY_MB", "8000")]).await;
        flavor(&cloud, "gpu", &[("resources:CUSTOM_GPU", "1")]).await;
        let body = json!({"server_group": {"name": "apart", "policy": "anti-affinity"}});
        let (_, made) = cloud.call("POST", "/compute/v2.1/os-server-groups", Some(body)).await;
        let group = json!({"group": made["server_group"]["id"]});
        boot(&cloud, "small", group.clone()).await;
        let mut refused = Vec::new();
        for (flavor, hints) in [("large", json!({})), ("large", group.clone()), ("gpu", group)] {
            let id = boot(&cloud, flavor, hints).await;
            let (owner, admin) = faults(&cloud, id).await;
            assert!(owner.contains("No valid host was found. There are not enough hosts available."), "{owner}");
            for secret in ["host0", "memory_mb", "anti-affinity", "GPU", "details"] {
                assert!(!owner.contains(secret), "{scheduler}: {owner}");
            }
            refused.push(admin);
        }
        // Counts by check, the nearest miss, what would fit; with a group, its part beside all of that.
        assert!(refused[0].contains("of 2 host(s), turned away by memory_mb: 2"), "{}", refused[0]);
        for told in &refused[..2] {
            assert!(told.contains("closest was host0") && told.contains("which lacked memory_mb=320"), "{told}");
            assert!(told.contains("there vcpus=1, memory_mb=7680, disk_gb=1 would fit"), "{told}");
        }
        assert!(refused[1].contains("policy anti-affinity, 1 of its members are on 1 host(s)"), "{}", refused[1]);
        assert!(refused[2].contains("none has any CUSTOM_GPU"), "{}", refused[2]);
        cloud.stop().await;
    }
}

/// The scheduler, the booking and the host go by what the extra specs say, the quota by the flavor.
#[tokio::test(start_paused = true)]
async fn extra_specs_override_what_is_taken() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, memory_mb: 1024, ..CloudOptions::default() }).await;
    flavor(&cloud, "shared", &[("resources:VCPU", "0"), ("resources:MEMORY_MB", "128")]).await;
    for _ in 0..4 {
        let id = boot(&cloud, "shared", json!({})).await;
        let server = cloud.get(id).await;
        assert_eq!(server.vm_state, VmState::Active, "512 MiB are enough for four: {:?}", server.fault);
    }
    let booked = cloud.store.list_allocations(None).await.unwrap();
    assert!(booked.iter().all(|held| (held.resources.vcpus, held.resources.memory_mb) == (0, 128)), "{booked:?}");
    let (_, limits) = cloud.call("GET", "/compute/v2.1/limits", None).await;
    let used = &limits["limits"]["absolute"];
    assert_eq!((&used["totalCoresUsed"], &used["totalRAMUsed"]), (&json!(4), &json!(1024)), "{used}");
    cloud.check().await;
    cloud.stop().await;
}
