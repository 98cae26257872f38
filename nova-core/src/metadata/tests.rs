use serde_json::{Value, json};

use super::*;
use crate::entropy::SeededEntropy;
use crate::network::{HostRoute, PortStatus, VifAddress};

const DISK: &str = "d15c0000-0000-4000-8000-000000000001";

/// A server with an address by DHCP and a floating one, and a fixed address of each version on a second network.
fn about() -> InstanceMetadata {
    let address = |text: &str, range: &str, gateway: &str| VifAddress {
        address: text.parse().unwrap(),
        subnet_id: "5b1e0000-0000-4000-8000-000000000001".parse().unwrap(),
        cidr: range.parse().unwrap(),
        gateway: gateway.parse().ok(),
        dns: Vec::new(),
        routes: Vec::new(),
        dhcp: false,
        ipv6_address_mode: None,
        floating: Vec::new(),
    };
    let vif = |port: &str, mac: &str, addresses| Vif {
        port_id: port.parse().unwrap(),
        network_id: "7e700000-0000-4000-8000-000000000001".parse().unwrap(),
        label: "private".into(),
        mtu: 1450,
        mac_address: mac.parse().unwrap(),
        addresses,
        status: PortStatus::Active,
        host: None,
        delete_with_instance: true,
        tag: None,
        asked_as: None,
    };
    let first = VifAddress {
        dhcp: true,
        dns: vec!["9.9.9.9".parse().unwrap()],
        floating: vec!["203.0.113.9".parse().unwrap()],
        ..address("10.0.0.5", "10.0.0.0/24", "10.0.0.1")
    };
    let route = HostRoute { destination: "172.16.0.0/12".parse().unwrap(), nexthop: "192.168.4.2".parse().unwrap() };
    let second = VifAddress {
        dns: vec!["9.9.9.9".parse().unwrap(), "192.168.4.3".parse().unwrap()],
        routes: vec![route],
        ..address("192.168.4.17", "192.168.4.0/22", "192.168.4.1")
    };
    let third = VifAddress {
        ipv6_address_mode: Some("slaac".into()),
        dhcp: true,
        ..address("2001:db8::17", "2001:db8::/64", "2001:db8::1")
    };
    InstanceMetadata {
        instance_id: "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap(),
        number: 255,
        project_id: ProjectId::new("demo"),
        name: "My server".into(),
        hostname: "my-server.novalocal".into(),
        reservation_id: "r-abcd1234".into(),
        launch_index: 1,
        availability_zone: Some("east".into()),
        keys: vec![GuestKey { name: "mine".into(), data: "ssh-ed25519 AAAA me".into() }],
        user_data: Some("I2Nsb3VkLWNvbmZpZwo=".into()),
        metadata: [("role".to_owned(), "web".to_owned())].into(),
        flavor_name: "m1.small".into(),
        image_id: Some("70a599e0-31e7-49b7-b260-868f441e862b".into()),
        security_groups: vec!["default".into(), "web".into()],
        disks: GuestDisk::all(true, 1, true),
        dedicated_cpus: vec![0, 1],
        vifs: vec![
            vif("a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6", "fa:16:3e:00:00:01", vec![first]),
            Vif {
                tag: Some("backup".into()),
                ..vif("b01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6", "fa:16:3e:00:00:02", vec![second, third])
            },
        ],
        tagged_volumes: vec![TaggedVolume { volume_id: DISK.parse().unwrap(), tag: "logs".into() }],
        places: Vec::new(),
        vendor_data: [("cloud".to_owned(), json!("ours"))].into_iter().collect(),
        admin_password: None,
        password: String::new(),
    }
}

fn get(about: &InstanceMetadata, path: &str) -> Option<String> {
    let document = lookup(about, path, &SeededEntropy::new(1))?;
    Some(String::from_utf8(document.body).unwrap())
}

fn get_json(about: &InstanceMetadata, path: &str) -> Value {
    serde_json::from_str(&get(about, path).unwrap()).unwrap()
}

/// Follows every link of a tree, as cloud-init does, and writes down what is there.
fn crawl(about: &InstanceMetadata, path: &str, out: &mut String) {
    let text = get(about, path).unwrap();
    for line in text.lines() {
        let (child, directory) = match line.split_once('=') {
            Some((place, _)) => (format!("{path}{place}/"), true),
            None => (format!("{path}{line}"), line.ends_with('/')),
        };
        if directory {
            crawl(about, &child, out);
        } else {
            let value = get(about, &child).unwrap().replace('\n', " ");
            out.push_str(&format!("{child}: {value}\n"));
        }
    }
}

#[test]
fn the_ec2_tree_is_what_cloud_init_reads() {
    let mut found = String::new();
    crawl(&about(), "/2009-04-04/", &mut found);
    assert_eq!(found, include_str!("golden/ec2.txt"));
    assert_eq!(get(&about(), "/latest/meta-data/public-keys/").unwrap(), "0=mine");
    assert_eq!(get(&about(), "/latest/meta-data/public-keys/0").unwrap(), "openssh-key");
}

#[test]
fn slashes_do_not_matter_and_nothing_is_nowhere() {
    let about = about();
    for path in ["/latest/meta-data/hostname", "latest//meta-data/./hostname/", "/ec2/x/../latest/meta-data/hostname"] {
        assert_eq!(get(&about, path).as_deref(), Some("my-server.novalocal"), "{path}");
    }
    let everything = get(&about, "/").unwrap();
    assert_eq!((everything.lines().next(), everything.lines().last()), (Some("1.0"), Some("latest")));
    assert_eq!(lookup(&about, "/ec2", &SeededEntropy::new(1)), Some(versions()));
    for path in [
        "/2031-01-01/meta-data/",
        "/latest/meta-data/none",
        "/latest/meta-data/hostname/more",
        "/latest/meta-data/public-keys/0/_name",
        "/latest/dynamic/instance-identity",
        "/latest/user-data/x",
        "/openstack/2031-01-01",
        "/openstack/latest/meta_data.json/x",
        "/openstack/latest/none",
        "/1.0/meta-data/placement/availability-zone",
    ] {
        assert_eq!(get(&about, path), None, "{path}");
    }
    assert_eq!(lookup(&about, &"/a".repeat(1000), &SeededEntropy::new(1)), None);
}

#[test]
fn the_documents_of_a_version_are_those_that_it_had() {
    let about = about();
    assert_eq!(get(&about, "/openstack/2012-08-10/").unwrap(), "meta_data.json\nuser_data");
    let all = "meta_data.json\nuser_data\npassword\nvendor_data.json\nnetwork_data.json\nvendor_data2.json";
    assert_eq!(get(&about, "/openstack/latest").unwrap(), all);
    assert_eq!(get(&about, "/openstack/2013-04-04/vendor_data.json"), None);
    assert_eq!(get(&about, "/openstack/2013-10-17/network_data.json"), None);
    assert_eq!(get(&about, "/openstack/2012-08-10/password"), None);
    assert_eq!(get(&about, "/openstack/latest/password").as_deref(), Some(""), "the guest left none");
    let left = InstanceMetadata { password: "encrypted".into(), ..about.clone() };
    assert_eq!(get(&left, "/openstack/2013-04-04/password").as_deref(), Some("encrypted"));
    assert!(!config_drive(&left, &SeededEntropy::new(1)).keys().any(|file| file.contains("password")));
    assert!(get(&about, "/openstack").unwrap().ends_with("2025-04-04\nlatest"));
    assert_eq!(get(&about, "/openstack/latest/user_data").unwrap(), "#cloud-config\n");
    assert_eq!(get(&about, "/latest/user-data").unwrap(), "#cloud-config\n");
    assert_eq!(get_json(&about, "/openstack/latest/vendor_data.json"), json!({"cloud": "ours"}));
    assert_eq!(get_json(&about, "/openstack/latest/vendor_data2.json"), json!({"static": {"cloud": "ours"}}));
    let without = InstanceMetadata { user_data: None, ..about };
    assert_eq!(get(&without, "/openstack/latest/user_data"), None);
    assert_eq!(get(&without, "/latest/user-data"), None);
    assert_eq!(get(&without, "/openstack/2012-08-10/").unwrap(), "meta_data.json");
    assert_eq!(get(&without, "/latest").unwrap(), "meta-data/");
}

#[test]
fn meta_data_grows_with_the_versions() {
    let about = about();
    let mut newest = get_json(&about, "/openstack/latest/meta_data.json");
    let seed = newest["random_seed"].take();
    assert_eq!(seed.as_str().map(str::len), Some(684), "512 bytes as base64");
    let expected = json!({
        "uuid": "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6",
        "name": "My server",
        "hostname": "my-server.novalocal",
        "launch_index": 1,
        "availability_zone": "east",
        "meta": {"role": "web"},
        "public_keys": {"mine": "ssh-ed25519 AAAA me"},
        "keys": [{"name": "mine", "type": "ssh", "data": "ssh-ed25519 AAAA me"}],
        "random_seed": null,
        "project_id": "demo",
        "reservation_id": "r-abcd1234",
        "devices": [
            {"type": "disk", "bus": "none", "address": "none", "serial": DISK, "tags": ["logs"]},
            {"type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:02", "tags": ["backup"]},
        ],
        "dedicated_cpus": [0, 1],
    });
    assert_eq!(newest, expected);
    let oldest = get_json(&about, "/openstack/2012-08-10/meta_data.json");
    let keys: Vec<_> = oldest.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["availability_zone", "hostname", "keys", "launch_index", "meta", "name", "public_keys", "uuid"]);
    let bare = InstanceMetadata { keys: Vec::new(), metadata: BTreeMap::new(), ..about };
    let bare = get_json(&bare, "/openstack/latest/meta_data.json");
    assert!(bare.get("public_keys").is_none() && bare.get("meta").is_none());
}

#[test]
fn network_data_is_what_nova_makes_of_it() {
    let expected: Value = serde_json::from_str(include_str!("golden/network_data.json")).unwrap();
    assert_eq!(get_json(&about(), "/openstack/latest/network_data.json"), expected);
    let nothing = InstanceMetadata { vifs: Vec::new(), ..about() };
    assert_eq!(get(&nothing, "/openstack/latest/network_data.json").unwrap(), "{}");
}

#[test]
fn the_drive_has_the_same_documents() {
    let about = InstanceMetadata { admin_password: Some("s3cret".into()), ..about() };
    let drive = config_drive(&about, &SeededEntropy::new(1));
    let document = |path: &str| serde_json::from_slice::<Value>(&drive[path]).unwrap();
    assert_eq!(document("openstack/latest/meta_data.json")["admin_pass"], "s3cret");
    for name in ["network_data.json", "vendor_data.json", "vendor_data2.json"] {
        let path = format!("openstack/latest/{name}");
        assert_eq!(document(&path), get_json(&about, &format!("/{path}")));
    }
    assert_eq!(drive["openstack/2012-08-10/user_data"], b"#cloud-config\n");
    assert!(!drive.contains_key("openstack/2012-08-10/network_data.json"));
    let ec2 = document("ec2/latest/meta-data.json");
    assert_eq!(ec2["public-keys"], json!({"0": {"openssh-key": "ssh-ed25519 AAAA me"}}));
    assert_eq!(ec2["instance-id"], "i-000000ff");
    assert_eq!(drive["ec2/2009-04-04/user-data"], b"#cloud-config\n");
    assert!(!format!("{about:?}").contains("s3cret"));
    let bare = InstanceMetadata { keys: Vec::new(), ..about };
    let bare = config_drive(&bare, &SeededEntropy::new(1));
    assert!(!String::from_utf8_lossy(&bare["ec2/latest/meta-data.json"]).contains("public-keys"));
}

#[test]
fn certificates_are_known_as_such() {
    let key = GuestKey { name: "k".into(), data: "-----BEGIN CERTIFICATE-----\nMII".into() };
    assert_eq!(key.kind(), "x509");
}

#[test]
fn masks_are_those_of_their_prefixes() {
    let mask = |prefix: u8, address: &str| {
        let mut about = about();
        let vif = &mut about.vifs[1];
        vif.addresses.truncate(1);
        vif.addresses[0].address = address.parse().unwrap();
        vif.addresses[0].cidr = crate::network::Cidr::around(address.parse().unwrap(), prefix).unwrap();
        network_data(&about.vifs)["networks"][1]["netmask"].as_str().unwrap().to_owned()
    };
    assert_eq!(mask(0, "10.0.0.1"), "0.0.0.0");
    assert_eq!(mask(32, "10.0.0.1"), "255.255.255.255");
    assert_eq!(mask(0, "2001:db8::1"), "::");
    assert_eq!(mask(52, "2001:db8::1"), "ffff:ffff:ffff:f000::");
}

/// The service knows places from the host; a drive is written before there are any, and gets them afterwards.
#[test]
fn tagged_devices_are_told_where_they_are() {
    let disk = GuestDevice::Volume(DISK.parse().unwrap());
    let nic = GuestDevice::Interface("fa:16:3e:00:00:02".parse().unwrap());
    let untagged = GuestDevice::Interface("fa:16:3e:00:00:01".parse().unwrap());
    let place = |device, bus, address: &str| DevicePlace { device, bus, address: Some(address.into()) };
    let places = vec![
        place(untagged, Some(DeviceBus::Pci), "0000:00:03.0"),
        place(disk, Some(DeviceBus::Scsi), "0:0:0:1"),
        place(nic, None, "0:9"),
    ];
    let known = InstanceMetadata { places: places.clone(), ..about() };
    let expected = json!([
        {"type": "disk", "bus": "scsi", "address": "0:0:0:1", "serial": DISK, "tags": ["logs"]},
        {"type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:02", "tags": ["backup"]},
    ]);
    assert_eq!(get_json(&known, "/openstack/latest/meta_data.json")["devices"], expected);
    assert_eq!(get_json(&known, "/openstack/2015-10-15/meta_data.json").get("devices"), None);

    let before = config_drive(&about(), &SeededEntropy::new(1));
    assert!(tells_of_devices(&before));
    let mut drive = before.clone();
    put_places(&mut drive, &places);
    let parsed = |drive: &BTreeMap<String, Vec<u8>>, path: &str| serde_json::from_slice::<Value>(&drive[path]).unwrap();
    for path in ["openstack/latest/meta_data.json", "openstack/2016-06-30/meta_data.json"] {
        let (mut old, mut new) = (parsed(&before, path), parsed(&drive, path));
        assert_eq!(new["devices"].take(), expected, "{path}");
        old["devices"].take();
        assert_eq!(new, old, "nothing else changes");
    }
    let others = |drive: BTreeMap<String, Vec<u8>>| -> BTreeMap<_, _> {
        drive.into_iter().filter(|(path, _)| !path.ends_with("/meta_data.json")).collect()
    };
    assert_eq!(others(drive), others(before));
    let mut plain = InstanceMetadata { tagged_volumes: Vec::new(), ..about() };
    plain.vifs.iter_mut().for_each(|vif| vif.tag = None);
    assert!(!tells_of_devices(&config_drive(&plain, &SeededEntropy::new(1))));
}
