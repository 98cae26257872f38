//! Connections of guests that come while they run.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use nova_compute::linux::namespace::Purpose;
use nova_core::network::SourceNat;

use super::stage::{Host, World, ip, router};

const FLOATING: (&str, &str) = ("203.0.113.50", "10.1.0.5");

/// The guest is here already, its floating address is elsewhere still: what it sends meanwhile must not become the host's.
/// It would stay so for the rest of the connection, and whoever is at the other end would refuse it.
#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_connection_goes_on_where_its_guest_has_come_to() {
    let world = World::new().await;
    let mut host = Host::in_world("h", &world, 11).await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_router(1, &[1], true);
    host.outside(1, SourceNat::Host, &[FLOATING]);
    let guest = host.add_guest(1, 5, FLOATING.1, "web").await;
    guest.ask();
    let (ready, listening) = mpsc::channel();
    let (say, said) = mpsc::channel::<&str>();
    let _server = guest.space.start(move || {
        let listener = TcpListener::bind(("0.0.0.0", 22)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        for words in said {
            // Who has hung up hears nothing.
            if stream.write_all(words.as_bytes()).is_err() {
                break;
            }
        }
    });
    listening.recv().unwrap();
    let outside = world.client.run(|| {
        let stream = TcpStream::connect((FLOATING.0, 22)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    });
    let mut heard = BufReader::new(outside).lines();
    say.send("one\n").unwrap();
    assert_eq!(heard.next().unwrap().unwrap(), "one");
    // As on a host that has never heard of the connection, with the guest on its way.
    host.outside(1, SourceNat::Host, &[]);
    let coming = host.wanted.routers.get_mut(&router(1)).unwrap().outside.as_mut().unwrap();
    coming.coming.insert(ip(FLOATING.0), ip(FLOATING.1));
    host.converge().await;
    let inside = host.namespace(Purpose::Router(router(1)));
    for namespace in [inside.as_str(), host.space.name()] {
        let words = ["netns", "exec", namespace, "conntrack", "-F"];
        assert!(std::process::Command::new("ip").args(words).output().unwrap().status.success());
    }
    let seen = || {
        let words = ["netns", "exec", inside.as_str(), "conntrack", "-L", "-f", "ipv4", "--orig-src", FLOATING.1];
        String::from_utf8(std::process::Command::new("ip").args(words).output().unwrap().stdout).unwrap()
    };
    say.send("two\n").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !seen().contains(FLOATING.0) {
        assert!(std::time::Instant::now() < deadline, "what the guest sends is not its own: {}", seen());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.outside(1, SourceNat::Host, &[FLOATING]);
    host.converge().await;
    assert_eq!(heard.next().unwrap().unwrap(), "two");
}
