//! Metadata: who asks is known by the port.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nova_compute::MetadataDoor;
use nova_compute::linux::namespace::Purpose;

use super::stage::{Guest, Host, ip, network, port, router};

/// The door where somebody asks, and whom it takes them for.
async fn answered(doors: &[MetadataDoor], within: Duration) -> Option<(String, Option<String>)> {
    use tokio::io::AsyncWriteExt;
    let mut waiting = tokio::task::JoinSet::new();
    for door in doors {
        let listener = tokio::net::TcpListener::from_std(door.listener.try_clone().unwrap()).unwrap();
        let (name, callers) = (door.name.clone(), door.callers.clone());
        waiting.spawn(async move {
            let (mut stream, peer) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            (name, callers.get(&peer.ip()).map(|(_, port)| port.to_string()))
        });
    }
    tokio::time::timeout(within, waiting.join_next()).await.ok()?.map(Result::unwrap)
}

/// Whoever has connected is there by then.
const SOON: Duration = Duration::from_secs(5);

async fn names(host: &Host) -> Vec<String> {
    host.doors().await.into_iter().map(|door| door.name).collect()
}

/// Begins to ask, under that address.
fn ask(guest: &Guest) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(ip("169.254.169.254"), 80);
    guest.space.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(2)))
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_guest_is_known_by_its_port() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let one = host.add_guest(1, 5, "10.1.0.5", "one").await;
    let two = host.add_guest(1, 6, "10.1.0.6", "two").await;
    for (guest, number) in [(&one, 5), (&two, 6)] {
        guest.ask();
        let mut stream = ask(guest).unwrap();
        let doors = host.doors().await;
        assert_eq!(answered(&doors, SOON).await.unwrap().1, Some(port(number).to_string()));
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn nobody_asks_in_the_name_of_another() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let one = host.add_guest(1, 5, "10.1.0.5", "one").await;
    let two = host.add_guest(1, 6, "10.1.0.6", "two").await;
    // Whatever its port may send otherwise.
    host.wanted.segments.get_mut(&network(1)).unwrap().ports.get_mut(&port(6)).unwrap().security = None;
    host.converge().await;
    one.ask();
    two.ask();
    one.space.output("ip", &["link", "set", "eth0", "down"]);
    two.space.output("ip", &["addr", "flush", "dev", "eth0"]);
    two.space.output("ip", &["addr", "add", "10.1.0.5/24", "dev", "eth0"]);
    two.space.output("ip", &["route", "replace", "169.254.169.254", "dev", "eth0"]);
    assert!(two.pings("169.254.169.254"), "it reaches the service, by the foreign address");
    assert_eq!(ask(&two).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(answered(&host.doors().await, Duration::ZERO).await, None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_network_that_is_not_served_asks_over_its_router() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_router(1, &[1], true);
    host.wanted.segments.get_mut(&network(1)).unwrap().serves = false;
    let guest = host.add_guest(1, 5, "10.1.0.5", "one").await;
    guest.space.output("ip", &["addr", "add", "10.1.0.5/24", "dev", "eth0"]);
    guest.space.output("ip", &["route", "add", "default", "via", "10.1.0.1"]);
    let _stream = ask(&guest).unwrap();
    let (name, caller) = answered(&host.doors().await, SOON).await.unwrap();
    assert!(name.starts_with(&host.namespace(Purpose::Router(router(1)))), "{name}");
    assert_eq!(caller, Some(port(5).to_string()));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_door_stays_the_same_while_its_namespace_does() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "one").await;
    guest.ask();
    let before = names(&host).await;
    assert_eq!(before.len(), 1);
    host.converge().await;
    assert_eq!(names(&host).await, before);
    // A copy that somebody serves is the same socket.
    let kept = host.doors().await;
    let _stream = ask(&guest).unwrap();
    assert!(answered(&kept, SOON).await.is_some());

    let name = host.namespace(Purpose::Service(network(1)));
    let status = std::process::Command::new("ip").args(["netns", "del", &name]).status().unwrap();
    assert!(status.success());
    host.converge().await;
    assert_ne!(names(&host).await, before, "another namespace, another door");
    let _stream = ask(&guest).unwrap();
    assert!(answered(&host.doors().await, SOON).await.is_some());
    host.wanted.segments.clear();
    host.converge().await;
    assert_eq!(names(&host).await.len(), 0);
}
