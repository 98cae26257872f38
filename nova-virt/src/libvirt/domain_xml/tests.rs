use nova_core::topology::{PlacedCell, Placement};

use super::*;
use crate::libvirt::read_xml;
use crate::testing::guest_spec;

fn files() -> GuestFiles {
    let folder = Path::new("/var/lib/nova/instances/00000000-0000-4000-8000-000000000001");
    GuestFiles {
        disks: vec![folder.join("disk")],
        config_drive: Some(folder.join("disk.config")),
        console_log: folder.join("console.log"),
    }
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
    let read = read_xml::metadata(&metadata(&guest).unwrap()).unwrap();
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
    let files = GuestFiles { disks: vec!["/a\u{1}".into()], ..files() };
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
