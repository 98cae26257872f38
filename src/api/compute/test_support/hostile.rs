//! Whatever comes in, at whatever version: an answer below 500, and nothing of a refused request in the store.

use serde_json::{Value, json};

use super::{ADMIN, Bench, DEMO};
use crate::api::compute::aggregates::Aggregates;
use crate::api::compute::availability_zones::AvailabilityZones;
use crate::api::compute::extensions::Extensions;
use crate::api::compute::flavor_access::FlavorAccess;
use crate::api::compute::flavor_extra_specs::FlavorExtraSpecs;
use crate::api::compute::flavors::Flavors;
use crate::api::compute::hosts::Hosts;
use crate::api::compute::hypervisors::Hypervisors;
use crate::api::compute::instance_actions::InstanceActions;
use crate::api::compute::keypairs::Keypairs;
use crate::api::compute::limits::LimitsResource;
use crate::api::compute::quotas::{QuotaClassSets, QuotaSets};
use crate::api::compute::server_admin::ServerAdmin;
use crate::api::compute::server_facts::ServerFacts;
use crate::api::compute::server_groups::ServerGroups;
use crate::api::compute::server_metadata::ServerMetadata;
use crate::api::compute::server_tags::ServerTags;
use crate::api::compute::services::Services;
use crate::api::compute::usage::{TenantUsage, UsageAudit};

/// Versions around the changes of these resources.
const VERSIONS: [u16; 12] = [1, 2, 7, 10, 21, 35, 53, 58, 75, 86, 92, 104];

/// Versions at which bodies change.
const BODY_VERSIONS: [u16; 5] = [1, 11, 55, 86, 104];

/// Path segments that are no good id; percent-encoded where a path needs it.
const IDS: [&str; 12] = [
    "-1",
    "0",
    "99999999999999999999",
    "a%2Fb",
    "%00",
    "%F0%9F%92%A9",
    "null",
    "..",
    "'%20OR%201=1--",
    "enable",
    "7f7f7f7f-0000-4000-8000-000000000000",
    "7f7f7f7f00004000800000000000000g",
];

const QUERIES: [&str; 19] = [
    "limit=99999999999999999999",
    "limit=",
    "limit=%00",
    "marker=",
    "marker=%F0%9F%92%A9&limit=1",
    "user_id=",
    "tenant_id=%00",
    "changes-since=9999-99-99",
    "changes-since=-009999-01-01T00:00:00Z&changes-before=9999-12-31T23:59:59Z",
    "sort_key=id&sort_key=%00",
    "sort_dir=",
    "name=(a%2B)%2B%24",
    "name=(%3F%3Ca",
    "hypervisor_hostname_pattern=%25",
    "with_servers=",
    "is_public=",
    "minRam=-99999999999999999999",
    "minDisk=1e9",
    "%00=%00",
];

/// Bodies that no schema takes, around every key that some schema knows.
fn bodies() -> Vec<Value> {
    let values = [
        Value::Null,
        json!([]),
        json!({}),
        json!(""),
        json!("\u{0}\u{202e}"),
        json!("x".repeat(300)),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(true),
        json!({"name": {}, "id": [], "ram": {}, "tenant": 1}),
        json!([[[[{}]]]]),
    ];
    let keys = [
        "flavor",
        "keypair",
        "extra_specs",
        "addTenantAccess",
        "removeTenantAccess",
        "status",
        "forced_down",
        "host",
        "aggregate",
        "add_host",
        "remove_host",
        "set_metadata",
        "server_group",
        "lock",
        "os-resetState",
        "injectNetworkInfo",
        "metadata",
        "meta",
        "tags",
        "quota_set",
        "\u{0}",
    ];
    let wrapped = keys.iter().flat_map(|key| values.iter().map(move |value| json!({ *key: value })));
    wrapped.chain(values.iter().cloned()).collect()
}

fn bench() -> Bench {
    Bench::new(Flavors::new)
        .add(FlavorAccess::new)
        .add(FlavorExtraSpecs::new)
        .add(Keypairs::new)
        .add(LimitsResource::new)
        .add(Services::new)
        .add(Hypervisors::new)
        .add(AvailabilityZones::new)
        .add(Aggregates::new)
        .add(ServerGroups::new)
        .add(InstanceActions::new)
        .add(Hosts::new)
        .add(QuotaSets::new)
        .add(QuotaClassSets::new)
        .add(ServerAdmin::new)
        .add(ServerFacts::new)
        .add(ServerMetadata::new)
        .add(ServerTags::new)
        .add(TenantUsage::new)
        .add(UsageAudit::new)
        .add(|_| Extensions)
}

/// Paths of the resources, `{}` for an id.
const GETS: [&str; 38] = [
    "/flavors",
    "/flavors/detail",
    "/flavors/{}",
    "/flavors/{}/os-extra_specs",
    "/flavors/1/os-extra_specs/{}",
    "/flavors/{}/os-flavor-access",
    "/os-keypairs",
    "/os-keypairs/{}",
    "/limits",
    "/os-services",
    "/os-hypervisors",
    "/os-hypervisors/detail",
    "/os-hypervisors/{}",
    "/os-hypervisors/{}/uptime",
    "/os-hypervisors/{}/search",
    "/os-hypervisors/{}/servers",
    "/os-aggregates",
    "/os-aggregates/{}",
    "/os-server-groups",
    "/os-server-groups/{}",
    "/os-availability-zone",
    "/os-availability-zone/detail",
    "/servers/{}/os-instance-actions",
    "/servers/7f7f7f7f-0000-4000-8000-000000000000/os-instance-actions/{}",
    "/extensions/{}",
    "/os-hosts",
    "/os-hosts/{}",
    "/os-quota-sets/{}",
    "/os-quota-sets/{}/detail",
    "/os-quota-class-sets/{}",
    "/os-simple-tenant-usage",
    "/os-simple-tenant-usage/{}",
    "/os-instance_usage_audit_log/{}",
    "/servers/{}/metadata",
    "/servers/{}/metadata/{}",
    "/servers/{}/tags",
    "/servers/{}/tags/{}",
    "/servers/{}/topology",
];

const WRITES: [&str; 22] = [
    "POST /flavors",
    "PUT /flavors/1",
    "POST /flavors/1/action",
    "POST /flavors/1/os-extra_specs",
    "PUT /flavors/1/os-extra_specs/a",
    "POST /os-keypairs",
    "PUT /os-services/enable",
    "PUT /os-services/force-down",
    "PUT /os-services/7f7f7f7f-0000-4000-8000-000000000000",
    "POST /flavors/%00/action",
    "POST /os-aggregates",
    "PUT /os-aggregates/1",
    "POST /os-aggregates/1/action",
    "POST /os-aggregates/%00/action",
    "POST /os-server-groups",
    "PUT /os-hosts/h",
    "PUT /os-hosts/%00",
    "POST /servers/7f7f7f7f-0000-4000-8000-000000000000/action",
    "POST /servers/7f7f7f7f-0000-4000-8000-000000000000/metadata",
    "PUT /servers/%00/metadata/a",
    "PUT /servers/7f7f7f7f-0000-4000-8000-000000000000/tags",
    "PUT /os-quota-sets/%00",
];

async fn seeded() -> Bench {
    let bench = bench();
    bench.service("nova-compute", "h", "nova").await;
    bench.node("h").await;
    let flavor = json!({"flavor": {"name": "m1", "id": "1", "ram": 1, "vcpus": 1, "disk": 0}});
    assert_eq!(bench.call(ADMIN, 1, "POST /flavors", flavor).await.0, 200);
    bench
}

#[tokio::test]
async fn no_path_and_no_query_makes_the_server_fail() {
    let bench = seeded().await;
    let mut asked = 0;
    for minor in VERSIONS {
        for path in GETS {
            for id in IDS {
                let path = path.replace("{}", id);
                for query in QUERIES.iter().filter(|_| id == IDS[0]).chain(&[""]) {
                    // The status is below 500, which `call` sees to; some of these are good requests.
                    bench.call(ADMIN, minor, &format!("GET {path}?{query}"), Value::Null).await;
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 5_000, "{asked}");
}

#[tokio::test]
async fn no_body_makes_the_server_fail_or_write_half() {
    let bench = seeded().await;
    let before = bench.api.store.commits();
    for minor in BODY_VERSIONS {
        for body in bodies() {
            for line in WRITES {
                // An empty set of extra specs is the one good request among them; it adds nothing.
                let (status, answer) = bench.call(ADMIN, minor, line, body.clone()).await;
                let fine = (400..500).contains(&status) || (status == 200 && body == json!({"extra_specs": {}}));
                assert!(fine, "{line} at 2.{minor}: {status} {answer}");
                let (status, _) = bench.call(DEMO, minor, line, body.clone()).await;
                assert!((400..500).contains(&status), "{line} at 2.{minor} by a member");
            }
        }
        for id in IDS {
            for path in [
                "/flavors/",
                "/flavors/1/os-extra_specs/",
                "/os-keypairs/",
                "/os-services/",
                "/os-aggregates/",
                "/os-server-groups/",
            ] {
                let (status, _) = bench.call(ADMIN, minor, &format!("DELETE {path}{id}"), Value::Null).await;
                assert!((400..500).contains(&status), "DELETE {path}{id} at 2.{minor}: {status}");
            }
        }
    }
    let touched = u64::try_from(BODY_VERSIONS.len()).unwrap();
    assert_eq!(bench.api.store.commits() - before, touched, "only the empty sets were written");
    assert!(bench.told.services.lock().unwrap().is_empty());
}
