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
        bridge: "br0".into(),
        tap_name: "tap1".into(),
        mtu: Some(1450),
    };
    let guest = GuestSpec { interfaces: vec![nic], ..guest_spec(1) };
    let xml = domain(&guest, &files(), &options()).unwrap();
    assert!(xml.contains("<mac address=\"fa:16:3e:00:00:01\"/>") && xml.contains("<mtu size=\"1450\"/>"), "{xml}");
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
