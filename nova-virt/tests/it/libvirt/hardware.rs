//! Machines that flavors and images ask for: libvirt takes each, and QEMU starts with it.

use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{ConfigDrive, ErrorKind, GuestSpec, Hypervisor, InterfaceSpec};

use super::{open, run, uri};

type Specs = &'static [(&'static str, &'static str)];

fn asking(number: u32, specs: Specs) -> GuestSpec {
    let mut guest = guest_spec(number);
    for (name, value) in specs {
        let hardware = &mut guest.hardware;
        let into = if name.contains(':') { &mut hardware.extra_specs } else { &mut hardware.image_properties };
        into.insert((*name).to_owned(), (*value).to_owned());
    }
    let files = [("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())].into();
    let nic = InterfaceSpec {
        mac_address: "fa:16:3e:00:05:01".to_owned(),
        bridge: None,
        tap_name: format!("tapv{number:x}"),
        mtu: None,
    };
    GuestSpec { config_drive: Some(ConfigDrive { files }), interfaces: vec![nic], vcpus: 2, ..guest }
}

/// What it is asked for, and a part of what libvirt then says that it has.
const STARTED: &[(Specs, &str)] = &[
    (&[("quota:disk_read_iops_sec", "100"), ("quota:disk_write_bytes_sec", "1048576")], "<read_iops_sec>100<"),
    (&[("quota:disk_total_bytes_sec", "1048576"), ("quota:disk_total_bytes_sec_max", "2097152")], "<total_bytes_sec>"),
    (&[("hw:watchdog_action", "reset")], "<watchdog model='i6300esb' action='reset'>"),
    (&[("hw_rng_model", "virtio"), ("hw_rng:rate_bytes", "64"), ("hw_rng:rate_period", "500")], "period='500'"),
    (&[("hw_disk_bus", "ide")], "bus='ide'"),
    (&[("hw_disk_bus", "sata"), ("hw_cdrom_bus", "sata")], "bus='sata'"),
    (&[("hw_disk_bus", "scsi"), ("hw_cdrom_bus", "scsi")], "model='virtio-scsi'"),
    (&[("hw_disk_bus", "scsi"), ("hw_scsi_model", "lsilogic")], "model='lsilogic'"),
    (&[("hw_machine_type", "q35")], "pc-q35-"),
    (&[("hw_firmware_type", "uefi")], "OVMF_CODE_4M.fd"),
    (&[("hw_firmware_type", "uefi"), ("hw_machine_type", "q35"), ("os_secure_boot", "required")], "secure='yes'"),
    (&[("hw_boot_menu", "true"), ("hw_pointer_model", "usbtablet")], "<bootmenu enable='yes'/>"),
    (&[("hw_video_model", "virtio")], "type='virtio' heads"),
    (&[("hw_video_model", "cirrus"), ("hw_video_ram", "8"), ("hw_video:ram_max_mb", "16")], "vram='8192'"),
    (&[("hw:cpu_cores", "2"), ("hw_time_hpet", "true")], "cores='2'"),
    (&[("hw:pmu", "false"), ("hw:hide_hypervisor_id", "true")], "<hidden state='on'/>"),
    (
        &[("hw:vif_multiqueue_enabled", "true"), ("hw_input_bus", "virtio"), ("hw_pointer_model", "usbtablet")],
        "queues='2'",
    ),
    (&[("hw_qemu_guest_agent", "yes")], "org.qemu.guest_agent.0"),
];

/// What needs more than every host has (control groups, a policing kernel): libvirt takes it, and a host that can't do it
/// says so at the start.
const DEFINED: &[(Specs, &str)] = &[
    (
        &[("quota:cpu_shares", "2048"), ("quota:cpu_period", "20000"), ("quota:cpu_quota", "10000")],
        "<shares>2048</shares>",
    ),
    (&[("hw_vif_model", "e1000"), ("quota:vif_inbound_average", "10")], "<model type='e1000'/>"),
];

#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn machines_are_made_as_they_are_asked_for() {
    let (hypervisor, _kept) = open().await;
    let cases = STARTED.iter().map(|case| (case, true)).chain(DEFINED.iter().map(|case| (case, false)));
    for ((specs, has), running) in cases {
        let guest = GuestSpec { running, ..asking(0x501, specs) };
        let id = guest.instance;
        hypervisor.destroy(id).await.unwrap();
        hypervisor.spawn(&guest).await.unwrap_or_else(|error| panic!("{specs:?}: {error:?}"));
        let state = if running { PowerState::Running } else { PowerState::Shutdown };
        assert_eq!(hypervisor.info(id).await.unwrap().power_state, state, "{specs:?}");
        let xml = run("virsh", &["-c", &uri(), "dumpxml", &id.to_string()]);
        assert!(xml.contains(has), "{specs:?}: {xml}");
    }
    let wrong = asking(0x501, &[("hw_firmware_type", "openfirmware")]);
    hypervisor.destroy(wrong.instance).await.unwrap();
    assert_eq!(hypervisor.spawn(&wrong).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(hypervisor.list().await.unwrap().iter().all(|guest| guest.instance != wrong.instance));
}
