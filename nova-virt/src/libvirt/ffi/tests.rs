//! Against libvirt's built-in test driver, which needs no daemon.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::libvirt::connection;

const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a machine of its own: a `test:///` with a file is not shared.
fn open(folder: &tempfile::TempDir) -> Connect {
    connection::start_event_loop().unwrap();
    let file = folder.path().join("node.xml");
    std::fs::write(&file, "<node><cpu><nodes>1</nodes></cpu></node>").unwrap();
    Connect::open(Some(&format!("test://{}", file.display()))).unwrap()
}

fn define(conn: &Connect, name: &str) -> virt::domain::Domain {
    let os = "<os><type>hvm</type></os>";
    conn.define_domain_xml(&format!("<domain type='test'><name>{name}</name><memory>8192</memory>{os}</domain>"))
        .unwrap()
}

fn listen(conn: &Connect) -> (Registration, Receiver<RawEvent>) {
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let sink = move |event| {
        let _ = sender.lock().unwrap().send(event);
    };
    (Registration::new(conn, Box::new(sink)).unwrap(), events)
}

#[test]
fn the_state_of_every_domain_comes_in_one_call() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(&folder);
    assert!(all_domain_states(&conn).unwrap().is_empty());
    let (on, off) = (define(&conn, "on"), define(&conn, "off"));
    on.create().unwrap();
    let mut states = all_domain_states(&conn).unwrap();
    states.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<_> = states.iter().map(|domain| (domain.name.as_str(), domain.state)).collect();
    assert_eq!(found, [("off", sys::VIR_DOMAIN_SHUTOFF), ("on", sys::VIR_DOMAIN_RUNNING)]);
    assert_eq!(states[0].uuid, off.uuid_string().unwrap());
}

#[test]
fn events_come_until_the_registration_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(&folder);
    let (registration, events) = listen(&conn);
    let domain = define(&conn, "guest");
    domain.create().unwrap();
    let expected = [sys::VIR_DOMAIN_EVENT_DEFINED, sys::VIR_DOMAIN_EVENT_STARTED];
    for event in expected {
        let come = events.recv_timeout(PATIENCE).unwrap();
        assert_eq!((come.event, come.uuid), (event, domain.uuid_string().unwrap()));
    }
    drop(registration);
    // The other end is dropped with the registration: no event can come any more.
    assert!(events.recv_timeout(PATIENCE).is_err());
}

#[test]
fn a_panic_in_the_sink_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(&folder);
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let sink = move |event: RawEvent| {
        sender.lock().unwrap().send(event.event).unwrap();
        panic!("on purpose");
    };
    let _registration = Registration::new(&conn, Box::new(sink)).unwrap();
    define(&conn, "guest");
    assert_eq!(events.recv_timeout(PATIENCE), Ok(sys::VIR_DOMAIN_EVENT_DEFINED));
    // The event loop goes on, for everyone else.
    let conn = open(&folder);
    let (_registration, events) = listen(&conn);
    define(&conn, "guest");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().event, sys::VIR_DOMAIN_EVENT_DEFINED);
}
