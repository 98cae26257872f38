//! Usage of projects.

use nova_core::state::VmState;
use serde_json::{Value, json};

use super::{TenantUsage, UsageAudit};
use crate::api::compute::test_support::{ADMIN, Bench, Caller, DEMO, OTHER, READER, keys};

/// The clock stands at 2026-11-22T08:03:11.
const DAY: &str = "start=2026-11-22T00:00:00&end=2026-11-23T00:00:00";
const URL: &str = "/os-simple-tenant-usage";

/// A server that was launched that long ago, and ended that long ago.
async fn server(bench: &Bench, owner: Caller, launched: i64, ended: Option<i64>) -> String {
    let id = bench.instance(owner, Some("h1")).await.id.to_string();
    let ago = |seconds: i64| bench.now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
    bench
        .touch(&id, |instance| {
            instance.launched_at = Some(ago(launched));
            if let Some(ended) = ended {
                instance.vm_state = VmState::Deleted;
                instance.terminated_at = Some(ago(ended));
                instance.deleted_at = Some(ago(ended));
            }
        })
        .await;
    id
}

#[tokio::test]
async fn hours_are_counted_within_the_period() {
    let bench = Bench::new(TenantUsage::new);
    let live = server(&bench, DEMO, 7200, None).await;
    let dead = server(&bench, DEMO, 7200, Some(3600)).await;
    // Neither of these ran in it.
    server(&bench, DEMO, 200_000, Some(100_000)).await;
    bench.instance(DEMO, None).await;
    let body = bench.get(DEMO, 1, &format!("{URL}/p-demo?{DAY}")).await["tenant_usage"].clone();
    assert_eq!(body["start"], "2026-11-22T00:00:00.000000");
    assert_eq!(body["stop"], "2026-11-22T08:03:11.000000");
    let totals = ["total_hours", "total_vcpus_usage", "total_memory_mb_usage", "total_local_gb_usage"];
    assert_eq!(totals.map(|key| body[key].as_f64().unwrap()), [3.0, 6.0, 1536.0, 3.0]);
    let of = |id: &str| {
        let servers = body["server_usages"].as_array().unwrap();
        servers.iter().find(|server| server["instance_id"] == id).unwrap().clone()
    };
    assert_eq!(body["server_usages"].as_array().unwrap().len(), 2);
    let live = of(&live);
    assert_eq!((&live["hours"], &live["uptime"], &live["state"]), (&json!(2.0), &json!(7200), &json!("active")));
    assert_eq!((&live["started_at"], &live["ended_at"]), (&json!("2026-11-22T06:03:11.000000"), &Value::Null));
    let dead = of(&dead);
    assert_eq!((&dead["hours"], &dead["uptime"], &dead["state"]), (&json!(1.0), &json!(3600), &json!("terminated")));
    assert_eq!(dead["ended_at"], "2026-11-22T07:03:11.000000");
    let names = [
        "ended_at",
        "flavor",
        "hours",
        "instance_id",
        "local_gb",
        "memory_mb",
        "name",
        "started_at",
        "state",
        "tenant_id",
        "uptime",
        "vcpus",
    ];
    assert_eq!(keys(&dead), names);
}

#[tokio::test]
async fn projects_are_summed_up_and_detailed() {
    let bench = Bench::new(TenantUsage::new);
    server(&bench, DEMO, 3600, None).await;
    server(&bench, OTHER, 3600, None).await;
    server(&bench, OTHER, 3600, None).await;
    let brief = bench.get(ADMIN, 1, &format!("{URL}?{DAY}")).await["tenant_usages"].clone();
    let sums: Vec<_> = brief.as_array().unwrap().iter().map(|usage| usage["total_hours"].clone()).collect();
    assert_eq!(sums, [json!(1.0), json!(2.0)]);
    assert_eq!(
        keys(&brief[0]),
        [
            "start",
            "stop",
            "tenant_id",
            "total_hours",
            "total_local_gb_usage",
            "total_memory_mb_usage",
            "total_vcpus_usage"
        ]
    );
    let detailed = bench.get(ADMIN, 1, &format!("{URL}?{DAY}&detailed=1")).await["tenant_usages"].clone();
    assert_eq!(detailed[1]["server_usages"].as_array().unwrap().len(), 2);
    assert!(
        bench.get(ADMIN, 1, &format!("{URL}?{DAY}&detailed=True")).await["tenant_usages"][0]["server_usages"].is_null()
    );
    assert_eq!(bench.get(ADMIN, 1, &format!("{URL}/p-none?{DAY}")).await, json!({"tenant_usage": {}}));
}

#[tokio::test]
async fn pages_came_with_2_40() {
    let bench = Bench::new(TenantUsage::new);
    for _ in 0..3 {
        server(&bench, DEMO, 3600, None).await;
    }
    let first = bench.get(DEMO, 40, &format!("{URL}/p-demo?{DAY}&limit=2")).await;
    let servers = first["tenant_usage"]["server_usages"].as_array().unwrap();
    assert_eq!(servers.len(), 2);
    let last = servers[1]["instance_id"].as_str().unwrap();
    let next = first["tenant_usage_links"][0]["href"].as_str().unwrap();
    assert!(next.contains(&format!("marker={last}")) && next.contains("limit=2"), "{next}");
    let rest = bench.get(DEMO, 40, &format!("{URL}/p-demo?{DAY}&limit=2&marker={last}")).await;
    assert_eq!(rest["tenant_usage"]["server_usages"].as_array().unwrap().len(), 1);
    assert!(rest.get("tenant_usage_links").is_none());
    let all = bench.get(ADMIN, 40, &format!("{URL}?{DAY}&limit=2")).await;
    assert_eq!(all["tenant_usages"][0]["total_hours"], 2.0);
    assert!(all["tenant_usages_links"].is_array());
    for bad in ["limit=x", "limit=-1", "marker=nothing", "marker=7f7f7f7f-0000-4000-8000-000000000000"] {
        assert_eq!(
            bench.refused(DEMO, 40, &format!("GET {URL}/p-demo?{DAY}&{bad}"), Value::Null).await.0,
            400,
            "{bad}"
        );
    }
    let unpaged = bench.get(DEMO, 39, &format!("{URL}/p-demo?{DAY}&limit=2")).await;
    assert_eq!(unpaged["tenant_usage"]["server_usages"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn times_and_callers_are_checked() {
    let bench = Bench::new(TenantUsage::new);
    let refused = async |caller, minor, query: &str| {
        bench.refused(caller, minor, &format!("GET {URL}{query}"), Value::Null).await
    };
    assert_eq!(refused(DEMO, 1, "").await.0, 403);
    assert_eq!(refused(DEMO, 1, "/p-other").await.0, 403);
    bench.get(READER, 1, &format!("{URL}/p-demo?{DAY}")).await;
    let late = refused(ADMIN, 1, "?start=2026-11-22T00:00:00&end=2026-11-21T00:00:00").await;
    assert_eq!(late, (400, "Invalid start time. The start time cannot occur after the end time.".to_owned()));
    let wrong = refused(DEMO, 1, "/p-demo?start=yesterday").await;
    assert_eq!(wrong, (400, "Invalid datetime string: Datetime is in invalid format".to_owned()));
    assert_eq!(refused(ADMIN, 75, &format!("?{DAY}&x=1")).await.0, 400);
    bench.get(ADMIN, 74, &format!("{URL}?{DAY}&x=1")).await;
}

#[tokio::test]
async fn nobody_audits() {
    let bench = Bench::new(UsageAudit::new);
    let url = "/os-instance_usage_audit_log";
    assert_eq!(
        bench.get(ADMIN, 1, url).await["instance_usage_audit_logs"]["overall_status"],
        "ALL hosts done. 0 errors."
    );
    bench.service("nova-compute", "h1", "nova").await;
    bench.service("nova-conductor", "c1", "internal").await;
    let log = json!({
        "period_beginning": "2026-10-01 00:00:00", "period_ending": "2026-11-01 00:00:00", "num_hosts": 1,
        "num_hosts_done": 0, "num_hosts_running": 0, "num_hosts_not_run": 1, "hosts_not_run": ["h1"],
        "total_instances": 0, "total_errors": 0, "overall_status": "0 of 1 hosts done. 0 errors.", "log": {},
    });
    assert_eq!(bench.get(ADMIN, 1, url).await, json!({ "instance_usage_audit_logs": log }));
    let at = bench.get(ADMIN, 1, &format!("{url}/2026-11-15%2010:00:00")).await;
    assert_eq!(at, json!({ "instance_usage_audit_log": log }));
    let wrong = bench.refused(ADMIN, 1, &format!("GET {url}/yesterday"), Value::Null).await;
    assert_eq!(wrong, (400, "Invalid timestamp for date yesterday".to_owned()));
    assert_eq!(bench.refused(DEMO, 1, &format!("GET {url}"), Value::Null).await.0, 403);
}
