//! The metadata service behind the doors of the host's networks, as guests read it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_compute::{Left, MetadataLimits, MetadataServer, MetadataSource};
use nova_core::contracts::BoxError;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{InstanceId, PortId};
use nova_core::metadata::InstanceMetadata;
use serde_json::json;

use super::stage::{Guest, Host, id, ip, network};

/// Knows these servers by their names.
struct Known(BTreeMap<InstanceId, &'static str>);

#[async_trait]
impl MetadataSource for Known {
    async fn metadata(&self, instance: InstanceId, _: PortId) -> Result<Option<InstanceMetadata>, BoxError> {
        let about = self.0.get(&instance).map(|name| {
            let about = json!({"instance_id": instance, "project_id": "p", "name": name, "hostname": name});
            serde_json::from_value(about).unwrap()
        });
        Ok(about)
    }

    async fn set_password(&self, _: InstanceId, _: PortId, _: &str) -> Result<Left, BoxError> {
        Ok(Left::Unknown)
    }
}

fn server(known: &[(u8, &'static str)]) -> MetadataServer {
    let known = Known(known.iter().map(|(number, name)| (id('e', *number), *name)).collect());
    MetadataServer::new(Arc::new(known), Arc::new(SeededEntropy::new(1)), MetadataLimits::default())
}

/// What a guest reads there, with the headers of somebody who would be another.
fn read(guest: &Guest, path: &'static str) -> String {
    let to = SocketAddr::new(ip("169.254.169.254"), 80);
    guest.space.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let victim: InstanceId = id('e', 5);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\nX-Instance-ID: {victim}\r\n\
             X-Forwarded-For: 10.1.0.5\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{} {body}", head.split(' ').nth(1).unwrap())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn each_guest_reads_its_own_documents() {
    let mut host = Host::new("h").await;
    // Two projects with the same range of addresses.
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_network(2, "10.1.0.0/24", "10.1.0.1");
    let one = host.add_guest(1, 5, "10.1.0.5", "one").await;
    let two = host.add_guest(1, 6, "10.1.0.6", "two").await;
    let other = host.add_guest(2, 7, "10.1.0.5", "other").await;
    let server = server(&[(5, "one"), (6, "two"), (7, "other")]);
    server.serve(host.doors().await);
    for (guest, name) in [(&one, "one"), (&two, "two"), (&other, "other")] {
        guest.ask();
        assert_eq!(read(guest, "/latest/meta-data/hostname"), format!("200 {name}"));
    }
    assert_eq!(read(&one, "/openstack/latest/network_data.json"), "200 {}");
    assert_eq!(read(&one, "/latest/meta-data/none").split_once(' ').unwrap().0, "404");
    // The namespace is made anew: so is the door.
    host.wanted.segments.remove(&network(2));
    host.converge().await;
    server.serve(host.doors().await);
    assert_eq!(server.doors().len(), 1);
    assert_eq!(read(&two, "/latest/meta-data/hostname"), "200 two");
}
