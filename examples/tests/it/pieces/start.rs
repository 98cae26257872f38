//! Services that start before what they need, or on what they cannot use.

use std::path::Path;
use std::process::Command;

use super::cloud::{PIECES, Pieces};
use crate::support::{end_of_log, free_port, program, until};

const CONTROL: [&str; 4] = [
    env!("CARGO_BIN_EXE_nova-api"),
    env!("CARGO_BIN_EXE_nova-scheduler"),
    env!("CARGO_BIN_EXE_nova-conductor"),
    env!("CARGO_BIN_EXE_nova-network"),
];
const COMPUTE: &str = env!("CARGO_BIN_EXE_nova-compute");

/// A service with a state folder and a broker that is not there.
fn service(path: &str, state: &Path) -> Command {
    let mut command = program(path);
    let sets = [
        format!("DEFAULT.state_path={}", state.display()),
        "DEFAULT.transport_url=rabbit://guest:guest@127.0.0.1:1/".to_owned(),
        format!("database.connection=sqlite:{}", state.join("nova.db").display()),
        "api.listen=127.0.0.1:0".to_owned(),
    ];
    for set in sets {
        command.args(["--set", &set]);
    }
    command
}

#[test]
fn a_stale_schema_is_refused_by_every_service() {
    let folder = tempfile::tempdir().unwrap();
    for path in CONTROL {
        let done = service(path, folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{path}: {text}");
        assert!(text.contains("nova-manage db sync"), "{path}: {text}");
    }
}

#[test]
fn services_that_would_be_alone_say_so() {
    let folder = tempfile::tempdir().unwrap();
    for (path, option) in
        CONTROL.iter().flat_map(|path| [(*path, "DEFAULT.transport_url"), (*path, "database.connection")])
    {
        let done = service(path, folder.path()).args(["--set", &format!("{option}=memory:")]).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{path}: {text}");
        assert!(text.contains(option), "{path}: {text}");
    }
}

#[test]
fn a_compute_host_reports_a_database_that_it_is_told_of() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = folder.path().join("log");
    let mut command = service(COMPUTE, folder.path());
    command.args(["--set", &format!("health.listen=127.0.0.1:{port}")]);
    command.args(["--set", "database.connection=postgresql://nova:geheim@db/nova"]);
    let mut process = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let told = until("it says so", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().find(|line| line.contains("database.connection")).map(str::to_owned)
    });
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(told.contains("ERROR") && told.contains("command line") && told.contains("remove it"), "{told}");
    assert!(!std::fs::read_to_string(&log).unwrap().contains("geheim"), "a password in the log");
}

/// Waits until the service says in its log what it waits for; it must be alive, and not healthy.
#[track_caller]
fn assert_waits(cloud: &Pieces, name: &str, what: &str) {
    until(&format!("{name} says that it waits: {what}"), || cloud.log(name).contains(what).then_some(()));
    let (status, text) = until("it answers", || cloud.health(name));
    assert_eq!(status, 503, "{name}: {text}");
    assert!(!text.trim().is_empty(), "{name} gives a reason");
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn services_wait_for_what_they_need_and_say_so() {
    let mut cloud = Pieces::new("postgresql", "", PIECES);
    cloud.broker.run("stop");
    cloud.database.run("stop");
    // The hosts come first of all.
    for host in cloud.names("compute") {
        cloud.spawn(&host);
        assert_waits(&cloud, &host, "waiting for RabbitMQ at 127.0.0.1:");
    }
    // The database is waited for before the broker is.
    for name in ["conductor-1", "network-1", "scheduler-1", "volume-1"] {
        cloud.spawn(name);
        assert_waits(&cloud, name, "waiting for the database");
    }
    cloud.spawn("api-1");
    until("the API waits", || cloud.log("api-1").contains("waiting for the database").then_some(()));
    cloud.database.run("start");
    for name in ["conductor-1", "network-1", "scheduler-1", "volume-1"] {
        assert_waits(&cloud, name, "waiting for RabbitMQ at 127.0.0.1:");
    }
    // With a broker and no conductor, a host waits for that.
    cloud.kill("conductor-1");
    cloud.broker.run("start");
    for host in cloud.names("compute") {
        assert_waits(&cloud, &host, "waiting for a conductor");
    }
    cloud.spawn("conductor-1");
    cloud.await_health(PIECES);
    let project = cloud.project();
    for n in 0..2 {
        project.wait_status(&project.boot(&format!("server-{n}")), "ACTIVE");
    }
    assert_eq!(cloud.guests().len(), 2, "{}", end_of_log(&cloud.log("conductor-1"), 5));
    cloud.assert_checked();
}
