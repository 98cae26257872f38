//! The first start and the second.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nova_examples::client::{Client, ClientError};

use crate::support::{Cloud, MICROVERSION, memory_mib};

#[test]
fn the_accounts_are_there_before_the_first_answer() {
    let mut one = Cloud::new("");
    let two = Cloud::started("");
    assert!(!one.clouds_yaml().exists());
    let took = one.start();
    let mode = std::fs::metadata(one.clouds_yaml()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let passwords: Vec<String> =
        [&one, &two].iter().flat_map(|cloud| ["nova", "nova-demo"].map(|name| cloud.account(name).password)).collect();
    for (n, password) in passwords.iter().enumerate() {
        assert!(password.len() >= 16, "a short password");
        assert!(!passwords[n + 1..].contains(password), "a password twice");
        assert!(!one.log().contains(password.as_str()), "a password in the log");
    }
    one.sign_in("nova");
    one.sign_in("nova-demo");
    println!("start to healthy: {} ms; memory: {} MiB", took.as_millis(), memory_mib(one.pid()));
}

#[test]
fn accounts_are_those_of_the_file() {
    let cloud = Cloud::started("");
    let account = cloud.account("nova-demo");
    let wrong = nova_examples::client::Account { password: "wrong".into(), ..account };
    let refused = Client::sign_in(&wrong, MICROVERSION).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 401, .. }), "{refused:?}");
}

#[test]
fn a_second_start_finds_users_images_and_servers() {
    let mut cloud = Cloud::started("");
    let project = cloud.project();
    let began = Instant::now();
    let id = project.boot("kept");
    project.wait_status(&id, "ACTIVE");
    println!("POST to ACTIVE, the first one: {} ms", began.elapsed().as_millis());
    let accounts = std::fs::read(cloud.clouds_yaml()).unwrap();
    assert!(cloud.stop().success(), "SIGTERM ends it without an error");
    cloud.start();
    assert_eq!(std::fs::read(cloud.clouds_yaml()).unwrap(), accounts, "accounts are written once");
    let project = project.again(&cloud);
    let server = project.server(&id);
    assert_eq!((server["status"].as_str(), server["name"].as_str()), (Some("ACTIVE"), Some("kept")));
    assert_eq!(cloud.guests(), [(id.clone(), 1)], "its guest was left alone");
    // The image and the flavor still serve.
    let another = project.boot("another");
    project.wait_status(&another, "ACTIVE");
    cloud.assert_checked();
}
