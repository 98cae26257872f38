//! A password that a guest leaves for its owner, from the socket in its network to the API. In real time: sockets do not wait
//! for a paused clock.

use std::net::{IpAddr, SocketAddr};

use nova_compute::{MetadataLimits, MetadataServer, RpcMetadataSource};
use nova_core::ids::HostName;
use nova_core::network::{PortStatus, RequestedNetworks};
use nova_core::rpc::{Role, Sender};
use nova_queue::RpcClient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Cloud, CloudOptions};

/// What a guest asks, and the answer.
async fn ask(door: SocketAddr, method: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let length = body.len();
    let text = format!(
        "{method} /openstack/latest/password HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The metadata service of a host, with one guest behind the only address that asks.
async fn door(cloud: &Cloud, host: HostName, guest: nova_core::ids::InstanceId) -> (MetadataServer, SocketAddr) {
    let sender = Sender { role: Role::Compute, host };
    let rpc = RpcClient::new(cloud.bus.clone(), sender, cloud.clock.clone(), cloud.entropy.clone());
    let source = std::sync::Arc::new(RpcMetadataSource::new(rpc, cloud.entropy.clone()));
    let server = MetadataServer::new(source, cloud.entropy.clone(), MetadataLimits::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = cloud.ports_of(guest).await[0].id;
    let callers = [(IpAddr::from([127, 0, 0, 1]), (guest, port))].into();
    server.serve(vec![nova_compute::MetadataDoor { name: "only".into(), listener, callers }]);
    (server, address)
}

#[tokio::test]
async fn what_a_guest_leaves_is_its_owners_to_read_and_to_forget() {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
    cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(RequestedNetworks::Auto, cloud.flavor(1, 256)).await;
    cloud.settle().await;
    let own = cloud.get(id).await.host.unwrap();
    let other = cloud.hosts.keys().find(|host| **host != own).unwrap().clone();
    let path = format!("/compute/v2.1/servers/{id}/os-server-password");
    let shown = async || cloud.call("GET", &path, None).await;
    let (_server, guest) = door(&cloud, own, id).await;
    let (_foreign, liar) = door(&cloud, other, id).await;
    assert_eq!(shown().await, (200, json!({"password": ""})));
    assert_eq!(ask(guest, "GET", "").await, (200, String::new()));
    assert_eq!(ask(liar, "POST", "mine").await.0, 404, "a host has its own guests only");
    assert_eq!(ask(guest, "POST", &"x".repeat(1021)).await.0, 400);
    assert_eq!(shown().await, (200, json!({"password": ""})));

    let password = "c2VjcmV0".repeat(100);
    assert_eq!(ask(guest, "POST", &password).await, (200, String::new()));
    assert_eq!(ask(guest, "GET", "").await, (200, password.clone()));
    assert_eq!(shown().await, (200, json!({ "password": password })));
    assert_eq!(ask(guest, "POST", "another").await.0, 409);
    assert_eq!(shown().await, (200, json!({ "password": password })));

    assert_eq!(cloud.call("DELETE", &path, None).await, (204, Value::Null));
    assert_eq!(shown().await, (200, json!({"password": ""})));
    assert_eq!(ask(guest, "POST", "another").await.0, 200, "there is none any more");
    assert_eq!(ask(guest, "GET", "").await, (200, "another".to_owned()));
    assert_eq!(shown().await, (200, json!({"password": "another"})));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while cloud.ports_of(id).await[0].status != PortStatus::Active {
        assert!(std::time::Instant::now() < deadline, "the host does not say that it is plugged");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cloud.check().await;
    cloud.stop().await;
}
