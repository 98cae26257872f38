//! `nova-demo` against a `nova-all` with the fake driver.

use std::process::Output;

use crate::support::{Cloud, NOVA_DEMO, program};

fn demo(cloud: &Cloud, more: &[&str]) -> (String, String, bool) {
    let mut command = program(NOVA_DEMO);
    command.arg("--state-path").arg(cloud.state()).args(more);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status.success())
}

#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut at = 0;
    for part in parts {
        let found = text[at..].find(part);
        at += found.unwrap_or_else(|| panic!("'{part}' is missing, or not in this order, in:\n{text}"));
    }
}

#[test]
fn it_shows_a_boot_to_the_login_banner_and_finds_it_again() {
    let mut cloud = Cloud::started("");
    let (out, err, good) = demo(&cloud, &[]);
    assert!(good, "{out}{err}");
    let config = format!("export OS_CLIENT_CONFIG_FILE={}", cloud.clouds_yaml().display());
    assert_in_order(
        &out,
        &[
            "image nova-guest uploaded",
            "flavor m1.guest made",
            "key pair demo made",
            "server demo-1 accepted",
            "its password",
            "server demo-1 is ACTIVE",
            "metadata source=config-drive",
            "login:",
            &config,
            "openstack server list",
            "openstack console log show demo-1",
            "openstack server delete demo-1",
        ],
    );
    let key = std::fs::read_to_string(cloud.state().join("demo-key.pem")).unwrap();
    assert!(key.contains("PRIVATE KEY"), "the private key is kept");
    let project_servers = || cloud.sign_in("nova-demo").get("/servers/detail").unwrap().list("servers").unwrap();
    let server = &project_servers()[0];
    assert_eq!((server["key_name"].as_str(), server["config_drive"].as_str()), (Some("demo"), Some("True")));
    let id = server["id"].as_str().unwrap().to_owned();

    assert!(cloud.stop().success());
    cloud.start();
    let (out, err, good) = demo(&cloud, &[]);
    assert!(good, "{out}{err}");
    assert_in_order(&out, &["image nova-guest is there", "server demo-1 found", "ACTIVE", &id, "login:", &config]);
    assert!(!out.contains("accepted"), "no second boot:\n{out}");
    let servers = cloud.sign_in("nova-demo").get("/servers").unwrap().list("servers").unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(cloud.guests(), [(id, 1)]);
}

#[test]
fn an_image_file_is_uploaded_as_what_it_is() {
    let cloud = Cloud::started("");
    let file = cloud.config_file().with_file_name("disk.img");
    std::fs::write(&file, vec![0; 300_000]).unwrap();
    let (out, err, good) = demo(&cloud, &["--image", file.to_str().unwrap(), "--name", "mine"]);
    assert!(good, "{out}{err}");
    assert_in_order(&out, &["image nova-guest uploaded (300.0 kB)", "server mine is ACTIVE", "server delete mine"]);
    let images = cloud.sign_in("nova-demo").image("GET", "/images", None).unwrap().list("images").unwrap();
    assert_eq!((images[0]["disk_format"].as_str(), images[0]["visibility"].as_str()), (Some("raw"), Some("public")));
}

#[test]
fn what_fails_is_named_with_where_to_look() {
    let cloud = Cloud::new("");
    let (_, err, good) = demo(&cloud, &[]);
    assert!(!good);
    assert!(err.contains(cloud.clouds_yaml().to_str().unwrap()), "{err}");
    assert!(err.contains("nova-all.log"), "{err}");
    let (_, err, good) = demo(&cloud, &["--log", "/somewhere/nova.log"]);
    assert!(!good);
    assert!(err.contains("see /somewhere/nova.log") && !err.contains("nova-all.log"), "{err}");

    let mut cloud = Cloud::started("");
    cloud.kill();
    let (_, err, good) = demo(&cloud, &[]);
    assert!(!good);
    assert!(err.contains("signing in") && err.contains(&cloud.url("/identity/v3")), "{err}");

    cloud.start();
    let (_, err, good) = demo(&cloud, &["--image", "/nonexistent/guest.qcow2"]);
    assert!(!good);
    assert!(err.contains("/nonexistent/guest.qcow2"), "{err}");
}
