//! Hosts that run apart from the image service fetch what their orders name, over HTTP, and nothing else. These run in
//! real time: sockets do not wait for a paused clock.

use std::time::Duration;

use jiff::SignedDuration;
use nova::image::GrantKey;
use nova_compute::ComputeOptions;
use nova_core::ids::{ImageId, InstanceId};
use nova_core::image::{ImageMeta, ImageStatus};
use nova_core::instance::Instance;
use nova_core::network::RequestedNetworks;
use nova_core::state::{Action, VmState};
use nova_virt::{DiskRole, DiskSource, FakeOptions, Hypervisor, Operation};
use serde_json::json;

use crate::support::{Cloud, CloudOptions};

fn options(hosts: usize) -> CloudOptions {
    CloudOptions { hosts, fetch_images: true, ..CloudOptions::default() }
}

#[tokio::test]
async fn a_host_fetches_the_image_that_its_order_names() {
    let cloud = Cloud::start(options(1)).await;
    let data: Vec<u8> = (0..5_000_000u32).map(|n| (n % 249) as u8).collect();
    let image = cloud.upload(data.clone()).await;
    let ids = cloud.boot_from(image, 3, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    for id in ids {
        let server = cloud.get(id).await;
        assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    }
    let cached: Vec<_> =
        std::fs::read_dir(cloud.images().cache_of("host00")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(cached.len(), 1, "{cached:?}");
    assert!(std::fs::read(&cached[0]).unwrap() == data);
    // What is in the cache is not fetched again.
    std::fs::remove_file(cloud.images().file_of(image)).unwrap();
    let again = cloud.boot_from(image, 1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    assert_eq!(cloud.get(again[0]).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

/// What a guest said on the host that it left is in its console log on the one that it came to.
#[tokio::test]
async fn a_console_log_comes_along() {
    let cloud = Cloud::start(options(2)).await;
    let image = cloud.upload(vec![7; 1000]).await;
    let id = cloud.boot_from(image, 1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let log = async || {
        let host = cloud.get(id).await.host.unwrap();
        let log = cloud.hosts[&host].console_log(id).await.unwrap();
        (host, String::from_utf8(log).unwrap())
    };
    let (from, said) = log().await;
    assert!(said.contains("boot finished"));
    let (status, text) = cloud.action(id, json!({"migrate": null})).await;
    assert_eq!(status, 202, "{text}");
    cloud.settle().await;
    assert_eq!(cloud.action(id, json!({"confirmResize": null})).await.0, 204);
    cloud.settle().await;
    let (to, then) = log().await;
    assert_ne!(from, to);
    assert!(then.starts_with(&said) && then.len() > said.len(), "{then}");
    // While it runs, what it says where it comes from is the same log.
    let (status, text) = cloud.live_migrate(id).await;
    assert_eq!(status, 202, "{text}");
    cloud.settle().await;
    let (back, last) = log().await;
    assert_eq!((back, last), (from, then));
    cloud.stop().await;
}

/// `POST /os-aggregates/{id}/images` (2.81).
#[tokio::test]
async fn the_hosts_of_an_aggregate_fetch_an_image_ahead_of_its_use() {
    let cloud = Cloud::start(options(3)).await;
    let data = vec![7; 3_000_000];
    let image = cloud.upload(data.clone()).await;
    let name = json!({"aggregate": {"name": "fast"}});
    let (_, made) = cloud.call_as_admin("POST", "/compute/v2.1/os-aggregates", Some(name)).await;
    let path = format!("/compute/v2.1/os-aggregates/{}", made["aggregate"]["id"]);
    for host in ["host00", "host02"] {
        let add = json!({"add_host": {"host": host}});
        let (status, answer) = cloud.call_as_admin("POST", &format!("{path}/action"), Some(add)).await;
        assert_eq!(status, 200, "{answer}");
    }
    let cache = json!({"cache": [{"id": image}]});
    let (status, answer) = cloud.call_as_admin("POST", &format!("{path}/images"), Some(cache)).await;
    assert_eq!(status, 202, "{answer}");
    let cached = |host: &str| {
        let files = std::fs::read_dir(cloud.images().cache_of(host)).into_iter().flatten();
        let files = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_none_or(|e| e != "part"));
        files.map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    for host in ["host00", "host02"] {
        cloud.until(&format!("{host} has the image"), || cached(host) == [data.clone()]).await;
    }
    assert!(cached("host01").is_empty(), "a host that is not of the aggregate");
    cloud.stop().await;
}

#[tokio::test]
async fn an_image_that_is_gone_is_no_reason_to_try_every_host() {
    let cloud = Cloud::start(options(3)).await;
    let image = cloud.upload(vec![7; 1000]).await;
    std::fs::remove_file(cloud.images().file_of(image)).unwrap();
    let ids = cloud.boot_from(image, 1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!(server.vm_state, VmState::Error);
    assert_eq!(server.fault.unwrap().message, format!("Image {image} could not be found."));
    let actions = cloud.store.list_actions(ids[0]).await.unwrap();
    assert_eq!(actions[0].events.len(), 1, "{actions:?}");
    for host in cloud.hosts.values() {
        assert!(host.list().await.unwrap().is_empty());
    }
    cloud.check().await;
    cloud.stop().await;
}

/// A copy of its disk goes the other way, by leave to write that image alone, and the next server boots from it.
#[tokio::test]
async fn a_host_brings_the_image_that_it_made_of_a_server() {
    let cloud = Cloud::start(options(1)).await;
    let base = cloud.upload(vec![7; 1_000_000]).await;
    let id = cloud.boot_from(base, 1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let host = cloud.hosts.values().next().unwrap();
    assert!(host.write_disk(id, DiskRole::Root, "what it became"));
    let path = format!("/compute/v2.1/servers/{id}/action");
    let wanted = json!({"createImage": {"name": "copy"}});
    let (status, answer) = cloud.call("POST", &path, Some(wanted)).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    let copy: ImageId = answer["image_id"].as_str().unwrap().parse().unwrap();
    let image = cloud.store.get_image(copy).await.unwrap();
    assert_eq!((image.status, image.disk_format.as_deref()), (ImageStatus::Active, Some("raw")));
    let data = std::fs::read(cloud.images().file_of(copy)).unwrap();
    assert_eq!(image.size, Some(data.len() as u64));
    assert!(image.os_hash_value.is_some() && image.virtual_size.is_some(), "{image:?}");
    assert_eq!(cloud.copies(), Vec::<std::path::PathBuf>::new());
    let second = cloud.boot_from(copy, 1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let server = cloud.get(second).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    let DiskSource::Image { base, .. } = &host.spec_of(second).unwrap().disks[0].source else { panic!("no image") };
    assert!(std::fs::read(base).unwrap() == data, "it stands on what was made of the first");
    assert!(String::from_utf8_lossy(&data).contains("what it became"));
    cloud.check().await;
    cloud.stop().await;
}

/// Who has leave to write one image can write no other, nor more than it says, nor read.
#[tokio::test]
async fn leave_to_write_is_good_for_one_image_once() {
    let cloud = Cloud::start(options(1)).await;
    let queued = json!({"name": "q", "disk_format": "raw", "container_format": "bare"});
    let (_, image) = cloud.call("POST", "/image/v2/images", Some(queued.clone())).await;
    let (_, other) = cloud.call("POST", "/image/v2/images", Some(queued)).await;
    let key = GrantKey::shared(&*cloud.store, &*cloud.entropy).await.unwrap();
    let id = |image: &serde_json::Value| image["id"].as_str().unwrap().to_owned();
    let until = cloud.now() + SignedDuration::from_hours(1);
    let grant = key.grant_upload(id(&image).parse().unwrap(), 1000, until);
    let small = vec![1; 500];
    assert_eq!(cloud.put_by_grant(&id(&other), &grant, small.clone()).await, 401);
    assert_eq!(cloud.put_by_grant(&id(&image), &grant, vec![1; 2000]).await, 413);
    let reading = key.grant(id(&image).parse().unwrap(), until);
    assert_eq!(cloud.put_by_grant(&id(&image), &reading, small.clone()).await, 401, "leave to read is none to write");
    assert_eq!(cloud.put_by_grant(&id(&image), &grant, small.clone()).await, 204);
    assert_eq!(cloud.put_by_grant(&id(&image), &grant, vec![2; 500]).await, 204, "as if it had come once");
    let stored = std::fs::read(cloud.images().file_of(id(&image).parse().unwrap())).unwrap();
    assert_eq!(stored, small, "what is there stays");
    cloud.stop().await;
}

/// OSSA-2013-012, -2013-029 (row 7): whatever the API has let through, a host fetches no byte of an image that makes a larger disk
/// than its order allows.
#[tokio::test]
async fn a_host_refuses_an_image_that_is_larger_than_the_disk() {
    let cloud = Cloud::start(options(1)).await;
    let data = vec![7; 4096];
    let image = cloud.upload(data.clone()).await;
    let id = cloud.boot_from(image, 1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    let known = cloud.get(id).await.image.unwrap();
    assert_eq!((known.virtual_size, cloud.get(id).await.vm_state), (4096, VmState::Active));
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    let cache = cloud.images().cache_of("host00");
    std::fs::remove_dir_all(&cache).unwrap();
    let fake = cloud.hosts.values().next().unwrap();
    let spawns = || fake.journal().iter().filter(|entry| entry.operation == Operation::Spawn).count();
    let before = spawns();
    let large = cloud.new_instance(InstanceId::generate(&*cloud.entropy), cloud.flavor(1, 256)).await;
    let large = Instance { image: Some(ImageMeta { virtual_size: (1 << 30) + 1, ..known }), ..large };
    let id = cloud.boot_instance(large, RequestedNetworks::Nothing).await;
    cloud.settle().await;
    let server = cloud.get(id).await;
    let fault = server.fault.unwrap();
    let expected =
        "Flavor's disk is too small for requested image. Flavor disk is 1073741824 bytes, image is 1073741825 bytes.";
    assert_eq!((server.vm_state, fault.message.as_str()), (VmState::Error, expected));
    assert_eq!(spawns(), before, "and no guest is tried");
    assert!(!cache.exists(), "not a byte of it was fetched");
    cloud.check().await;
    cloud.stop().await;
}

/// `[image_cache]`: what no guest stands on is removed once it is old enough, and nothing else.
#[tokio::test]
async fn images_that_no_guest_needs_go() {
    let dress = |_: &str, _: &mut FakeOptions, settings: &mut ComputeOptions| {
        settings.image_cache_interval = Some(Duration::from_millis(20));
        settings.image_cache_age = Duration::from_millis(200);
    };
    let cloud = Cloud::start(CloudOptions { dress, ..options(1) }).await;
    let [needed, unneeded] = [cloud.upload(vec![7; 4096]).await, cloud.upload(vec![8; 4096]).await];
    let kept = cloud.boot_from(needed, 1, cloud.flavor(1, 256)).await.unwrap()[0];
    let gone = cloud.boot_from(unneeded, 1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    assert!([kept, gone].iter().all(|id| cloud.hosts.values().any(|host| host.spec_of(*id).is_some())));
    let fake = cloud.hosts.values().next().unwrap();
    let looks = || fake.journal().iter().filter(|entry| entry.operation == Operation::ImagesInUse).count();
    let cached = || std::fs::read_dir(cloud.images().cache_of("host00")).unwrap().count();
    let long = looks() + 20;
    until(|| looks() >= long).await;
    assert_eq!(cached(), 2, "guests stand on both");
    assert!(cloud.act(gone, Action::Delete).await);
    cloud.settle().await;
    until(|| cached() == 1).await;
    let long = looks() + 20;
    until(|| looks() >= long).await;
    assert_eq!(cached(), 1, "the other is in use");
    cloud.check().await;
    cloud.stop().await;
}

/// Waits for what comes in real time.
async fn until(there: impl Fn() -> bool) {
    let waiting = async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}
