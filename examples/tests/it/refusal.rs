//! Starts that cannot succeed: each ends with a reason that names the thing, and an exit code that is not zero.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use sqlx::Connection;

use crate::support::{Cloud, NOVA_ALL, program};

/// Starts it and waits for its end. What it said must be reasons, not a crash.
#[track_caller]
fn refused(cloud: &Cloud, more: &[&str]) -> (String, i32) {
    let mut command = program(NOVA_ALL);
    command.arg("--config-file").arg(cloud.config_file()).args(more);
    reasons(&mut command)
}

#[track_caller]
fn reasons(command: &mut Command) -> (String, i32) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stderr).into_owned();
    let code = status.code().expect("no signal ended it");
    assert_ne!(code, 0, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    (text, code)
}

#[track_caller]
fn assert_tells(text: &str, all: &[&str]) {
    for part in all {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
}

/// The line of the configuration file that holds the text, from 1.
fn line_of(cloud: &Cloud, what: &str) -> usize {
    let text = fs::read_to_string(cloud.config_file()).unwrap();
    text.lines().position(|line| line.contains(what)).unwrap() + 1
}

#[test]
fn an_unknown_option_is_named_with_its_place() {
    let cloud = Cloud::new("[quota]\ninstanses = 3\n");
    let (text, code) = refused(&cloud, &[]);
    assert_eq!(code, 2, "{text}");
    let place = format!("{}:{}", cloud.config_file().display(), line_of(&cloud, "instanses"));
    assert_tells(&text, &[&place, "quota.instanses", "quota.instances"]);
    assert!(!cloud.state().exists(), "nothing was written");
}

#[test]
fn every_bad_value_is_named_at_once() {
    let cloud = Cloud::new("[scheduler]\ndriver = best\n[conductor]\ntask_lease = soon\n");
    let (text, code) = refused(&cloud, &["--set", "quota.cores=many"]);
    assert_eq!(code, 2, "{text}");
    let place = |what| format!("{}:{}", cloud.config_file().display(), line_of(&cloud, what));
    let (driver, lease) = (place("driver = best"), place("task_lease"));
    assert_tells(&text, &[&driver, "scheduler.driver", "least_load", &lease, "conductor.task_lease", "quota.cores"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let (text, _) = reasons(program(NOVA_ALL).args(["--config-file", "/nonexistent/nova.conf"]));
    assert_tells(&text, &["/nonexistent/nova.conf"]);
}

#[test]
fn a_database_of_a_later_program_is_left_alone() {
    let mut cloud = Cloud::started("");
    assert!(cloud.stop().success());
    let database = cloud.state().join("nova.db");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let url = format!("sqlite:{}", database.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("INSERT INTO schema_migrations (version) VALUES (4711)").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let (text, _) = refused(&cloud, &[]);
    assert_tells(&text, &["4711", "newer"]);
}

#[test]
fn a_database_that_cannot_be_reached_is_named() {
    let cloud = Cloud::new("");
    let (text, _) = refused(&cloud, &["--set", "database.connection=sqlite:/nonexistent/folder/nova.db"]);
    assert_tells(&text, &["database", "/nonexistent/folder/nova.db"]);
}

#[test]
fn a_file_that_is_no_database_is_not_used() {
    let cloud = Cloud::new("");
    fs::create_dir_all(cloud.state()).unwrap();
    let file = cloud.state().join("nova.db");
    let content = b"this is a letter, not a database".repeat(100);
    fs::write(&file, &content).unwrap();
    let (text, _) = refused(&cloud, &[]);
    assert_tells(&text, &["database"]);
    assert_eq!(fs::read(&file).unwrap(), content, "it was left as it is");
}

#[test]
fn a_password_in_an_address_is_not_told() {
    let cloud = Cloud::new("");
    let (text, _) = refused(&cloud, &["--set", "database.connection=postgresql://nova:geheim@127.0.0.1:1/nova"]);
    assert_tells(&text, &["database"]);
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cloud = Cloud::new("");
    let (text, _) = refused(&cloud, &["--set", &format!("api.listen={address}")]);
    assert_tells(&text, &["api.listen", &address, "in use"]);
    assert!(!cloud.clouds_yaml().exists(), "nobody was told a password of a cloud that does not serve");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let cloud = Cloud::new("");
    // Not even the superuser makes a folder below a file.
    let below = cloud.config_file().join("state");
    let (text, _) = refused(&cloud, &["--set", &format!("DEFAULT.state_path={}", below.display())]);
    assert_tells(&text, &["DEFAULT.state_path", &below.display().to_string()]);
}

#[test]
fn a_state_folder_has_one_user() {
    let cloud = Cloud::started("");
    let (text, _) = refused(&cloud, &["--set", "api.listen=127.0.0.1:0"]);
    assert_tells(&text, &["DEFAULT.state_path", &cloud.state().display().to_string(), "in use"]);
    // The first one is not disturbed.
    cloud.sign_in("nova");
}

#[test]
fn plumbing_for_the_networks_of_an_outside_neutron_is_refused() {
    let neutron = "[neutron]\nauth_url = http://127.0.0.1:1/v3\nusername = nova\npassword = geheim\n";
    let cloud = Cloud::new(&format!("[network]\nservice = neutron\nplumbing = linux\n{neutron}"));
    let (text, code) = refused(&cloud, &[]);
    assert_eq!(code, 2, "{text}");
    let place = format!("{}:{}", cloud.config_file().display(), line_of(&cloud, "plumbing = linux"));
    assert_tells(&text, &[&place, "network.plumbing", "network.service", "outside Neutron"]);
    assert!(!cloud.state().exists(), "nothing was written");
}
