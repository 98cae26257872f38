//! Guests to test with.

use nova_core::ids::InstanceId;

use crate::{DiskRole, DiskSource, DiskSpec, GuestSpec, Hardware};

/// The instance id number `number`: the same at every call.
#[allow(clippy::expect_used, reason = "the text is made here and is a UUID")]
pub fn instance_id(number: u32) -> InstanceId {
    format!("00000000-0000-4000-8000-{number:012x}").parse().expect("a UUID")
}

/// A small guest with one empty disk, of epoch 1, that is to run.
pub fn guest_spec(number: u32) -> GuestSpec {
    GuestSpec {
        instance: instance_id(number),
        epoch: 1,
        name: format!("instance-{number:08x}"),
        display_name: format!("server {number}"),
        project_id: "project".into(),
        user_id: "user".into(),
        flavor_name: "m1.tiny".into(),
        image_id: None,
        vcpus: 1,
        memory_mb: 64,
        disks: vec![DiskSpec { role: DiskRole::Root, source: DiskSource::Blank, size_gb: 1 }],
        config_drive: None,
        interfaces: Vec::new(),
        running: true,
        held: false,
        placement: None,
        hardware: Hardware::default(),
        volumes: Vec::new(),
        earlier_console: String::new(),
    }
}
