//! Hosts as they were managed once.

use serde_json::{Value, json};

use super::Hosts;
use crate::api::compute::services::Services;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER};

async fn bench() -> Bench {
    let bench = Bench::new(Hosts::new).add(Services::new);
    for (binary, host, zone) in
        [("nova-compute", "h1", "nova"), ("nova-compute", "h2", "nova"), ("nova-conductor", "c1", "internal")]
    {
        bench.service(binary, host, zone).await;
    }
    bench.node("h1").await;
    bench
}

#[tokio::test]
async fn enabled_hosts_are_listed_by_zone() {
    let bench = bench().await;
    let names = |body: &Value| -> Vec<String> {
        let row = |host: &Value| format!("{}/{}/{}", host["host_name"], host["service"], host["zone"]).replace('"', "");
        let mut rows: Vec<String> = body["hosts"].as_array().unwrap().iter().map(row).collect();
        rows.sort();
        rows
    };
    let all = ["c1/conductor/internal", "h1/compute/nova", "h2/compute/nova"];
    assert_eq!(names(&bench.get(ADMIN, 1, "/os-hosts").await), all);
    assert_eq!(names(&bench.get(ADMIN, 42, "/os-hosts?zone=&service=compute").await), all);
    assert_eq!(names(&bench.get(ADMIN, 1, "/os-hosts?zone=internal").await), all[..1]);
    assert_eq!(bench.refused(ADMIN, 43, "GET /os-hosts", Value::Null).await.0, 404);
    assert_eq!(bench.refused(DEMO, 1, "GET /os-hosts", Value::Null).await.0, 403);
    bench.call(ADMIN, 1, "PUT /os-hosts/h2", json!({"status": "disable"})).await;
    assert_eq!(names(&bench.get(ADMIN, 1, "/os-hosts").await), all[..2]);
}

#[tokio::test]
async fn a_host_shows_what_it_has_and_who_takes_it() {
    let bench = bench().await;
    bench.instance(DEMO, Some("h1")).await;
    bench.instance(DEMO, Some("h1")).await;
    bench.instance(OTHER, Some("h1")).await;
    let shown = bench.get(ADMIN, 1, "/os-hosts/h1").await;
    let row = |project: &str, cpu: u64, memory_mb: u64, disk_gb: u64| json!({"resource": {"host": "h1", "project": project, "cpu": cpu, "memory_mb": memory_mb, "disk_gb": disk_gb}});
    assert_eq!(
        shown,
        json!({"host": [
            row("(total)", 8, 16384, 100),
            row("(used_now)", 0, 512, 0),
            row("(used_max)", 6, 1536, 3),
            row("p-demo", 4, 1024, 2),
            row("p-other", 2, 512, 1),
        ]})
    );
    let unknown = bench.refused(ADMIN, 1, "GET /os-hosts/nowhere", Value::Null).await;
    assert_eq!(unknown, (404, "Compute host nowhere could not be found.".to_owned()));
}

#[tokio::test]
async fn a_host_is_taken_out_and_put_back() {
    let bench = bench().await;
    let put = async |body: Value| bench.call(ADMIN, 1, "PUT /os-hosts/h1", body).await;
    assert_eq!(put(json!({"status": "disable"})).await, (200, json!({"host": "h1", "status": "disabled"})));
    let status = async || {
        let services = bench.get(ADMIN, 1, "/os-services?host=h1").await;
        services["services"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "disabled");
    assert_eq!(put(json!({"status": "Enable"})).await.1["status"], "enabled");
    assert_eq!(status().await, "enabled");
    assert_eq!(bench.told.services.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn wrong_bodies_come_before_unknown_hosts_and_the_rest_is_not_offered() {
    let bench = bench().await;
    for body in [json!({}), json!({"status": "off"}), json!({"status": true}), json!({"status": "enable", "x": 1})] {
        assert_eq!(bench.refused(ADMIN, 1, "PUT /os-hosts/nowhere", body.clone()).await.0, 400, "{body}");
    }
    assert_eq!(bench.refused(ADMIN, 1, "PUT /os-hosts/nowhere", json!({"status": "enable"})).await.0, 404);
    // Nothing is done by halves.
    let both = json!({"status": "disable", "maintenance_mode": "enable"});
    assert_eq!(bench.call(ADMIN, 1, "PUT /os-hosts/h1", both).await.0, 501);
    assert!(bench.told.services.lock().unwrap().is_empty());
    for word in ["startup", "shutdown", "reboot"] {
        assert_eq!(bench.call(ADMIN, 1, &format!("GET /os-hosts/h1/{word}"), Value::Null).await.0, 501);
        assert_eq!(bench.refused(ADMIN, 1, &format!("GET /os-hosts/nowhere/{word}"), Value::Null).await.0, 404);
        assert_eq!(bench.refused(DEMO, 1, &format!("GET /os-hosts/h1/{word}"), Value::Null).await.0, 403);
    }
}
