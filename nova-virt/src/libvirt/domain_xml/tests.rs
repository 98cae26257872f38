use nova_core::topology::{PlacedCell, Placement};

use super::*;
use crate::libvirt::read_xml;
use crate::testing::guest_spec;

fn files() -> GuestFiles {
    let folder = Path::new("/var/lib/nova/instances/00000000-0000-4000-8000-000000000001");
    GuestFiles {
        disks: vec![DiskFile { path: folder.join("disk"), format: DiskFormat::Qcow2 }],
        config_drive: Some(folder.join("disk.config")),
        console_log: folder.join("console.log"),
        nvram: folder.join("nvram.fd"),
    }
}

fn domain(guest: &GuestSpec, files: &GuestFiles, options: &LibvirtOptions) -> io::Result<String> {
    let shape = Shape::of(&guest.hardware, guest.vcpus, options).unwrap();
    super::domain(guest, &shape, files, options)
}

fn options() -> LibvirtOptions {
    LibvirtOptions::new("qemu:///system", "/var/lib/nova/instances")
}

#[test]
fn a_guest_reads_as_the_golden_file() {
    let guest = GuestSpec { image_id: Some("image-1".into()), ..guest_spec(1) };
    let xml = domain(&guest, &files(), &options()).unwrap();
    assert_eq!(xml, include_str!("../testdata/guest.xml").trim_end(), "\n{xml}");
}

#[test]
fn a_screen_over_spice_stands_beside_the_other() {
    let bare = domain(&guest_spec(1), &files(), &options()).unwrap();
    assert!(!bare.contains("spice"), "{bare}");
    let with = |spice| domain(&guest_spec(1), &files(), &LibvirtOptions { spice: Some(spice), ..options() }).unwrap();
    let spice = SpiceOptions { listen: "10.0.0.1".into(), agent: true, require_secure: true };
    let xml = with(spice.clone());
    for part in [
        "<graphics type=\"vnc\" port=\"-1\" autoport=\"yes\" listen=\"127.0.0.1\"/>",
        "<graphics type=\"spice\" port=\"-1\" autoport=\"yes\" listen=\"10.0.0.1\" defaultMode=\"secure\">",
        "<channel type=\"spicevmc\">",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    let xml = with(SpiceOptions { agent: false, require_secure: false, ..spice });
    assert!(xml.contains("listen=\"10.0.0.1\">") && !xml.contains("spicevmc"), "{xml}");
}

#[test]
fn without_interfaces_there_is_no_network_card() {
    let xml = domain(&guest_spec(1), &files(), &options()).unwrap();
    assert!(!xml.contains("<interface"));
    let nic = InterfaceSpec {
        mac_address: "fa:16:3e:00:00:01".into(),
        bridge: Some("br0".into()),
        tap_name: "tap1".into(),
        mtu: Some(1450),
    };
    let guest = GuestSpec { interfaces: vec![nic], ..guest_spec(1) };
    let xml = domain(&guest, &files(), &options()).unwrap();
    assert!(xml.contains("<mac address=\"fa:16:3e:00:00:01\"/>") && xml.contains("<mtu size=\"1450\"/>"), "{xml}");
}

#[test]
fn an_interface_alone_is_what_the_guest_would_have() {
    let nic =
        InterfaceSpec { mac_address: "fa:16:3e:00:00:01".into(), bridge: None, tap_name: "tap1".into(), mtu: None };
    let expected = "<interface type=\"ethernet\"><mac address=\"fa:16:3e:00:00:01\"/><target dev=\"tap1\"/>\
                    <model type=\"virtio\"/><rom enabled=\"no\"/></interface>";
    assert_eq!(interface_alone(&nic).unwrap(), expected);
    let hostile = interface_of("'/><x a=\"").unwrap();
    assert!(!hostile.contains("<x"), "{hostile}");
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "</nova:name></metadata><os/>\"'&<!--]]>\u{0}\u{1b}é\u{ffff}";
    let guest = GuestSpec {
        display_name: hostile.into(),
        project_id: "a&b".into(),
        user_id: "<user>".into(),
        flavor_name: "x\" y='z'".into(),
        ..guest_spec(1)
    };
    let xml = domain(&guest, &files(), &options()).unwrap();
    assert_eq!(xml.matches("<os>").count(), 1, "{xml}");
    assert!(!xml.contains("<!--") && !xml.contains('\0') && !xml.contains('\u{1b}'), "{xml}");
    let read =
        read_xml::metadata(&metadata(&guest, &Shape::of(&guest.hardware, guest.vcpus, &options()).unwrap()).unwrap())
            .unwrap();
    let clean = hostile.replace(['\0', '\u{1b}', '\u{ffff}'], "\u{fffd}");
    assert_eq!(read.display_name, clean);
}

#[test]
fn options_show_in_the_machine() {
    let kvm = LibvirtOptions { virt_type: "kvm".into(), cpu_mode: "host-model".into(), ..options() };
    let xml = domain(&guest_spec(1), &files(), &kvm).unwrap();
    assert!(xml.starts_with("<domain type=\"kvm\">") && xml.contains("<cpu mode=\"host-model\"/>"), "{xml}");
    assert!(!xml.contains("tb-cache"), "translated code is for emulation only");
}

#[test]
fn a_path_that_xml_cant_carry_is_refused() {
    let files = GuestFiles { disks: vec![DiskFile { path: "/a\u{1}".into(), format: DiskFormat::Raw }], ..files() };
    assert!(domain(&guest_spec(1), &files, &options()).is_err());
}

/// Two cells: one pinned, and one that floats in huge pages.
fn placed() -> GuestSpec {
    let pinned = PlacedCell {
        host_cell: 1,
        cpus: [0, 1].into(),
        pins: [(0, 4), (1, 12)].into(),
        memory_mb: 40,
        ..PlacedCell::default()
    };
    let floating = PlacedCell {
        cpus: [2].into(),
        floats: [0, 1, 3].into(),
        memory_mb: 24,
        page_kb: Some(2048),
        ..PlacedCell::default()
    };
    GuestSpec { vcpus: 3, placement: Some(Placement { cells: vec![pinned, floating] }), ..guest_spec(1) }
}

#[test]
fn a_placed_guest_is_pinned_to_its_cpus_cells_and_pages() {
    placed().validate().unwrap();
    let xml = domain(&placed(), &files(), &options()).unwrap();
    assert!(xml.contains(include_str!("../testdata/placement.xml")), "{xml}");
    let cells = "    <numa>\n      <cell id=\"0\" cpus=\"0-1\" memory=\"40\" unit=\"MiB\"/>\n      \
                 <cell id=\"1\" cpus=\"2\" memory=\"24\" unit=\"MiB\"/>\n    </numa>\n  </cpu>";
    assert!(xml.contains(cells) && xml.contains("<model fallback=\"forbid\">qemu64</model>"), "{xml}");
    let kvm = LibvirtOptions { virt_type: "kvm".into(), cpu_mode: "host-model".into(), ..options() };
    assert!(domain(&placed(), &files(), &kvm).unwrap().contains(cells));
    let plain = GuestSpec { placement: None, ..placed() };
    let plain = domain(&plain, &files(), &options()).unwrap();
    assert!(!plain.contains("cputune") && !plain.contains("numa") && !plain.contains("hugepages"), "{plain}");
}

/// The XML of a guest that is asked for with those extra specs (with a colon) and image properties.
fn asked(specs: &[(&str, &str)]) -> String {
    let nic =
        InterfaceSpec { mac_address: "fa:16:3e:00:00:01".into(), bridge: None, tap_name: "tap1".into(), mtu: None };
    let mut guest = GuestSpec { interfaces: vec![nic], vcpus: 4, ..guest_spec(1) };
    for (name, value) in specs {
        let hardware = &mut guest.hardware;
        let into = if name.contains(':') { &mut hardware.extra_specs } else { &mut hardware.image_properties };
        into.insert((*name).to_owned(), (*value).to_owned());
    }
    let xml = domain(&guest, &files(), &options()).unwrap();
    xml.lines().map(str::trim).collect()
}

#[test]
fn what_is_asked_for_is_in_the_machine() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("quota:cpu_shares", "2048"), ("quota:cpu_period", "20000"), ("quota:cpu_quota", "10000")],
            "<cputune><shares>2048</shares><period>20000</period><quota>10000</quota></cputune>",
        ),
        (
            &[("quota:disk_read_iops_sec", "100"), ("quota:disk_write_bytes_sec", "1048576")],
            "<iotune><write_bytes_sec>1048576</write_bytes_sec><read_iops_sec>100</read_iops_sec></iotune>",
        ),
        (&[("quota:disk_total_iops_sec_max", "9")], "<iotune><total_iops_sec_max>9</total_iops_sec_max></iotune>"),
        (
            &[
                ("quota:vif_inbound_average", "10"),
                ("quota:vif_inbound_peak", "20"),
                ("quota:vif_outbound_average", "5"),
            ],
            "<bandwidth><inbound average=\"10\" peak=\"20\"/><outbound average=\"5\"/></bandwidth>",
        ),
        (&[("hw:watchdog_action", "reset")], "<watchdog model=\"i6300esb\" action=\"reset\"/>"),
        (
            &[("hw_rng_model", "virtio"), ("hw_rng:rate_bytes", "64")],
            "<rng model=\"virtio\"><rate bytes=\"64\" period=\"1000\"/>",
        ),
        (&[("hw_disk_bus", "sata")], "<target dev=\"sda\" bus=\"sata\"/>"),
        (&[("hw_disk_bus", "scsi")], "<controller type=\"scsi\" index=\"0\" model=\"virtio-scsi\"/>"),
        (
            &[("hw_disk_bus", "scsi"), ("hw_scsi_model", "lsilogic")],
            "<controller type=\"scsi\" index=\"0\" model=\"lsilogic\"/>",
        ),
        (&[("hw_cdrom_bus", "sata")], "<target dev=\"sda\" bus=\"sata\"/><readonly/>"),
        (&[("hw_vif_model", "e1000")], "<model type=\"e1000\"/>"),
        (&[("hw_machine_type", "q35")], "<type arch=\"x86_64\" machine=\"q35\">hvm</type>"),
        (
            &[("hw_firmware_type", "uefi")],
            "<loader readonly=\"yes\" type=\"pflash\">/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
             <nvram template=\"/usr/share/OVMF/OVMF_VARS_4M.fd\">\
             /var/lib/nova/instances/00000000-0000-4000-8000-000000000001/nvram.fd</nvram>",
        ),
        (
            &[("hw_firmware_type", "uefi"), ("os_secure_boot", "required"), ("hw_machine_type", "q35")],
            "<apic/><smm state=\"on\"/>",
        ),
        (
            &[("hw_firmware_type", "uefi"), ("os_secure_boot", "required"), ("hw_machine_type", "q35")],
            "<loader readonly=\"yes\" type=\"pflash\" secure=\"yes\">/usr/share/OVMF/OVMF_CODE_4M.secboot.fd</loader>",
        ),
        (&[("hw_boot_menu", "true")], "<boot dev=\"hd\"/><bootmenu enable=\"yes\"/>"),
        (&[("hw_pointer_model", "usbtablet")], "<input type=\"tablet\" bus=\"usb\"/>"),
        (&[("hw_video_model", "virtio")], "<video><model type=\"virtio\"/></video>"),
        (&[("hw_video_ram", "8"), ("hw_video:ram_max_mb", "16")], "<video><model type=\"vga\" vram=\"8192\"/></video>"),
        (&[("hw_qemu_guest_agent", "yes")], "<target type=\"virtio\" name=\"org.qemu.guest_agent.0\"/>"),
        (&[("hw:cpu_sockets", "2")], "<topology sockets=\"2\" cores=\"2\" threads=\"1\"/>"),
        (&[("hw_cpu_threads", "2"), ("hw_cpu_cores", "2")], "<topology sockets=\"1\" cores=\"2\" threads=\"2\"/>"),
        (&[("hw:pmu", "false"), ("hw_pmu", "no")], "<pmu state=\"off\"/>"),
        (&[("hw_pmu", "true")], "<pmu state=\"on\"/>"),
        (&[("img_hide_hypervisor_id", "true")], "<kvm><hidden state=\"on\"/></kvm>"),
        (&[("hw:hide_hypervisor_id", "true")], "<kvm><hidden state=\"on\"/></kvm>"),
        (&[("hw:vif_multiqueue_enabled", "true")], "<model type=\"virtio\"/><driver name=\"qemu\" queues=\"4\"/>"),
        (&[("hw_vif_multiqueue_enabled", "yes")], "<driver name=\"qemu\" queues=\"4\"/>"),
        (&[("hw_pointer_model", "usbtablet"), ("hw_input_bus", "virtio")], "<input type=\"tablet\" bus=\"virtio\"/>"),
        (&[("hw_time_hpet", "true")], "<timer name=\"hpet\" present=\"yes\"/>"),
        (&[("os_type", "windows")], "<nova:administrator>Administrator</nova:administrator>"),
    ];
    let plain = asked(&[]);
    for (specs, expected) in cases {
        let xml = asked(specs);
        assert!(xml.contains(expected), "{specs:?}: {xml}");
        assert!(!plain.contains(expected), "it is there unasked: {expected}");
    }
    let old = asked(&[("hw_vif_model", "e1000"), ("hw_vif_multiqueue_enabled", "yes")]);
    assert!(!old.contains("queues"), "it has one: {old}");
    assert!(plain.contains("<rng") && !asked(&[("hw_rng:allowed", "false")]).contains("<rng"));
}
