//! SIGTERM finishes what is in hand; SIGHUP takes over what may change.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Cloud, parsed, read_answer, until};

#[test]
fn sigterm_finishes_a_boot_in_hand() {
    let mut cloud = Cloud::started("[fake]\nboot_latency_ms = 1000");
    let project = cloud.project();
    let id = project.boot("in-hand");
    project.wait_task(&id, "spawning");
    assert!(cloud.stop().success());
    assert_eq!(cloud.guests(), [(id.clone(), 1)], "the guest was started before the end");
    cloud.start();
    let project = project.again(&cloud);
    project.wait_status(&id, "ACTIVE");
    assert_eq!(cloud.guests(), [(id.clone(), 1)], "and not a second time");
    cloud.assert_checked();
}

#[test]
fn sigterm_finishes_an_upload_in_hand() {
    const SIZE: usize = 1 << 20;
    let mut cloud = Cloud::started("");
    let demo = cloud.sign_in("nova-demo");
    let body = json!({"name": "slow", "disk_format": "raw", "container_format": "bare"});
    let id = demo.image("POST", "/images", Some(&body)).unwrap().accepted().unwrap().text("/id").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", cloud.port)).unwrap();
    let head = format!(
        "PUT /image/v2/images/{id}/file HTTP/1.1\r\nHost: nova\r\nX-Auth-Token: {}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {SIZE}\r\n\r\n",
        demo.token()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[0; SIZE / 2]).unwrap();
    let status = || demo.image("GET", &format!("/images/{id}"), None).unwrap().text("/status").unwrap();
    until("the upload has begun", || (status() == "saving").then_some(()));
    cloud.signal("TERM");
    until("nobody else is let in", || TcpStream::connect(("127.0.0.1", cloud.port)).err());
    stream.write_all(&[0; SIZE / 2]).unwrap();
    let answer = parsed(&read_answer(&mut stream));
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(cloud.ended().success());
    cloud.start();
    let image = cloud.sign_in("nova-demo").image("GET", &format!("/images/{id}"), None).unwrap().json();
    assert_eq!((image["status"].as_str(), image["size"].as_u64()), (Some("active"), Some(SIZE as u64)));
}

#[test]
fn sighup_takes_over_what_may_change_and_tells_the_rest() {
    let cloud = Cloud::started("[quota]\ninstances = 1");
    let project = cloud.project();
    let first = project.boot("first");
    project.wait_status(&first, "ACTIVE");
    let second = || project.demo.compute("POST", "/servers", Some(&project.request("second"))).unwrap().status;
    assert_eq!(second(), 403, "the quota is one server");
    cloud.configure("[quota]\ninstances = 2\n[DEFAULT]\ndebug = true\n[fake]\nvcpus = 8");
    cloud.signal("HUP");
    until("the log says what needs a restart", || {
        cloud.log().lines().any(|line| line.contains("fake.vcpus") && line.contains("restart")).then_some(())
    });
    assert!(cloud.log().contains("quota.instances"), "and what was taken over");
    assert_eq!(second(), 202, "the new quota holds");
    until("details are logged", || cloud.log().contains("DEBUG").then_some(()));
}

#[test]
fn sighup_with_a_wrong_configuration_changes_nothing() {
    let cloud = Cloud::started("[quota]\ninstances = 1");
    let project = cloud.project();
    cloud.configure("[quota]\ninstances = several");
    cloud.signal("HUP");
    until("the log says what is wrong", || {
        cloud.log().lines().any(|line| line.contains("quota.instances") && line.contains("several")).then_some(())
    });
    project.wait_status(&project.boot("first"), "ACTIVE");
    let second = project.demo.compute("POST", "/servers", Some(&project.request("second"))).unwrap();
    assert_eq!(second.status, 403, "the old quota holds");
}
