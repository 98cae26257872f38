//! Guests with a screen over RFB and one over SPICE.

use nova_virt::testing::guest_spec;
use nova_virt::{ErrorKind, Hypervisor, LibvirtHypervisor, LibvirtOptions, SpiceOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ROOM, folder, options, uri};

#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_guest_has_both_where_the_host_is_told_so() {
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let without = LibvirtHypervisor::new(options(uri(), folder.path())).unwrap();
    let spice = SpiceOptions { listen: "127.0.0.1".into(), agent: true, require_secure: false };
    let own = LibvirtOptions { spice: Some(spice), ..options(uri(), folder.path()) };
    let with = LibvirtHypervisor::new(own).unwrap();
    nova_virt::conformance::the_screen_is_served_over_spice_while_it_runs(&with).await;

    let (earlier, guest) = (guest_spec(0x541), guest_spec(0x542));
    without.spawn(&earlier).await.unwrap();
    assert_eq!(with.spice_endpoint(earlier.instance).await.unwrap_err().kind(), ErrorKind::Unsupported);
    with.spawn(&guest).await.unwrap();
    let rfb = with.vnc_endpoint(guest.instance).await.unwrap();
    let spice = with.spice_endpoint(guest.instance).await.unwrap();
    assert_ne!(Some(rfb.port), spice.port);
    assert_eq!(without.spice_endpoint(guest.instance).await.unwrap_err().kind(), ErrorKind::Unsupported);

    // The main channel's link, answered as SPICE does: its magic, its version, no error.
    let mut screen = TcpStream::connect((spice.host.as_str(), spice.port.unwrap())).await.unwrap();
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let link = [&b"REDQ"[..], &numbers(&[2, 2, 22, 0]), &[1, 0], &numbers(&[1, 0, 18, 0b1001])].concat();
    screen.write_all(&link).await.unwrap();
    let mut answer = [0; 20];
    screen.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"REDQ\x02\0\0\0") && answer.ends_with(&[0; 4]), "{answer:?}");
    for guest in [earlier, guest] {
        with.destroy(guest.instance).await.unwrap();
    }
}
