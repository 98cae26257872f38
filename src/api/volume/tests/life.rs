//! What works.

use nova_core::ids::InstanceId;
use serde_json::{Value, json};

use super::{ADMIN, Bench, DEMO, OTHER, keys};

/// Keys of an answer to a creation, which may have no others (tempest's schemas).
const MADE: [&str; 25] = [
    "attachments",
    "availability_zone",
    "bootable",
    "consistencygroup_id",
    "consumes_quota",
    "created_at",
    "description",
    "encrypted",
    "group_id",
    "id",
    "links",
    "metadata",
    "migration_status",
    "multiattach",
    "name",
    "replication_status",
    "service_uuid",
    "shared_targets",
    "size",
    "snapshot_id",
    "source_volid",
    "status",
    "updated_at",
    "user_id",
    "volume_type",
];

#[tokio::test]
async fn volumes_live_and_die() {
    let bench = Bench::new().await;
    let odd = "na\u{ef}ve \"disk\" <&> \u{1f980}";
    let body = json!({"size": 2, "name": odd, "description": null, "metadata": {"k": "v"}, "imageRef": null});
    let made = bench.done(DEMO, "POST /volumes", json!({ "volume": body }), 202).await;
    let mut expected: Vec<&str> = MADE.to_vec();
    expected.push("volume_type_id");
    expected.sort_unstable();
    assert_eq!(keys(&made["volume"]), expected);
    assert_eq!((&made["volume"]["status"], &made["volume"]["name"]), (&json!("creating"), &json!(odd)));
    let id = made["volume"]["id"].as_str().unwrap();

    let shown = bench.get(DEMO, &format!("/volumes/{id}")).await["volume"].clone();
    assert_eq!(
        (&shown["status"], &shown["bootable"], &shown["size"]),
        (&json!("available"), &json!("false"), &json!(2))
    );
    assert_eq!(shown["os-vol-tenant-attr:tenant_id"], "p-demo");
    assert!(shown.get("os-vol-host-attr:host").is_none());
    assert_eq!(shown["volume_type"], "__DEFAULT__");
    let of_admin = bench.get(ADMIN, &format!("/volumes/{id}")).await;
    assert_eq!(of_admin["volume"]["os-vol-host-attr:host"], "store1@files#pool");

    let changed = json!({"volume": {"name": "other", "metadata": {"a": "b"}}});
    let changed = bench.done(DEMO, &format!("PUT /volumes/{id}"), changed, 200).await;
    assert_eq!((&changed["volume"]["name"], &changed["volume"]["metadata"]), (&json!("other"), &json!({"a": "b"})));
    assert_eq!(bench.act(DEMO, id, json!({"os-set_bootable": {"bootable": true}})).await, 200);
    assert_eq!(bench.act(DEMO, id, json!({"os-extend": {"new_size": 5}})).await, 202);
    let shown = bench.get(DEMO, &format!("/volumes/{id}")).await["volume"].clone();
    assert_eq!((&shown["size"], &shown["bootable"]), (&json!(5), &json!("true")));
    let limits = bench.get(DEMO, "/limits").await["limits"]["absolute"].clone();
    assert_eq!((&limits["totalGigabytesUsed"], &limits["totalVolumesUsed"]), (&json!(5), &json!(1)));

    bench.done(DEMO, &format!("DELETE /volumes/{id}"), Value::Null, 202).await;
    assert_eq!(bench.call(DEMO, &format!("GET /volumes/{id}"), Value::Null).await.0, 404);
    let quota = bench.get(DEMO, "/os-quota-sets/p-demo?usage=True").await["quota_set"].clone();
    assert_eq!((&quota["gigabytes"]["in_use"], &quota["volumes"]["limit"]), (&json!(0), &json!(10)));
}

#[tokio::test]
async fn lists_have_pages_filters_and_an_order() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for (name, size) in [("b", 3), ("a", 1), ("c", 2)] {
        ids.push(bench.volume(DEMO, json!({"size": size, "name": name, "metadata": {"n": name}})).await);
    }
    bench.volume(OTHER, json!({"size": 1, "name": "theirs"})).await;
    let names = async |query: &str| -> Vec<String> {
        let list = bench.get(DEMO, &format!("/volumes/detail{query}")).await;
        list["volumes"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("").await, ["c", "a", "b"]);
    assert_eq!(names("?sort=name:asc").await, ["a", "b", "c"]);
    assert_eq!(names("?sort_key=size&sort_dir=desc").await, ["b", "c", "a"]);
    assert_eq!(names("?name=a").await, ["a"]);
    assert_eq!(names("?name~=b").await, ["b"]);
    assert_eq!(names("?metadata={'n': 'c'}").await, ["c"]);
    assert_eq!(names("?status=error").await, [""; 0]);
    assert_eq!(names("?offset=2").await, ["b"]);
    assert_eq!(names("?all_tenants=1").await, ["c", "a", "b"]);
    let all = bench.get(ADMIN, "/volumes?all_tenants=1&with_count=True&limit=2").await;
    assert_eq!((&all["count"], all["volumes"].as_array().unwrap().len()), (&json!(4), 2));
    let page = bench.get(DEMO, "/volumes?limit=2").await;
    let next = page["volumes_links"][0]["href"].as_str().unwrap();
    assert!(next.ends_with(&format!("/volume/v3/volumes?limit=2&marker={}", ids[1])), "{next}");
    assert_eq!(keys(&page["volumes"][0]), ["id", "links", "name"]);
    assert_eq!(names(&format!("?limit=2&marker={}", ids[1])).await, ["b"]);
    let summary = bench.get(DEMO, "/volumes/summary").await["volume-summary"].clone();
    assert_eq!(summary, json!({"total_count": 3, "total_size": 6, "metadata": {"n": ["c", "a", "b"]}}));
}

#[tokio::test]
async fn snapshots_and_copies() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume, "name": "s", "metadata": {}}});
    let made = bench.done(DEMO, "POST /snapshots", body, 202).await["snapshot"].clone();
    let keys_made =
        ["created_at", "description", "id", "metadata", "name", "size", "status", "updated_at", "volume_id"];
    assert_eq!(keys(&made), keys_made);
    let snapshot = made["id"].as_str().unwrap();
    let shown = bench.get(DEMO, &format!("/snapshots/{snapshot}")).await["snapshot"].clone();
    assert_eq!(shown["status"], "available");
    assert_eq!(shown["os-extended-snapshot-attributes:progress"], "100%");
    let copy = bench.volume(DEMO, json!({"size": 2, "snapshot_id": snapshot})).await;
    let twin = bench.volume(DEMO, json!({"source_volid": copy})).await;
    assert_eq!((bench.status(&copy).await, bench.status(&twin).await), ("available".into(), "available".into()));
    let twin = bench.get(DEMO, &format!("/volumes/{twin}")).await["volume"].clone();
    assert_eq!((&twin["size"], &twin["source_volid"]), (&json!(2), &json!(copy)));

    let (status, key, text) = bench.refused(DEMO, &format!("DELETE /volumes/{volume}"), Value::Null).await;
    assert_eq!((status, key.as_str()), (400, "badRequest"));
    assert!(text.contains("dependent snapshots"), "{text}");
    bench.done(DEMO, &format!("DELETE /volumes/{volume}?cascade=True"), Value::Null, 202).await;
    assert_eq!(bench.call(DEMO, &format!("GET /snapshots/{snapshot}"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn attachments_are_promised_connected_used_and_given_back() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1})).await;
    let server: InstanceId = "00000000-0000-4000-8000-0000000000aa".parse().unwrap();
    let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": server}});
    let made = bench.done(DEMO, "POST /attachments", body.clone(), 200).await["attachment"].clone();
    assert_eq!((&made["status"], &made["connection_info"]), (&json!("reserved"), &json!({})));
    assert_eq!(bench.status(&volume).await, "reserved");
    let taken = bench.refused(DEMO, "POST /attachments", json!({"attachment": {"volume_uuid": volume}})).await;
    assert_eq!(taken.0, 400);
    let path = format!("/attachments/{}", made["id"].as_str().unwrap());
    let early = bench.refused(DEMO, &format!("POST {path}/action"), json!({"os-complete": {}})).await;
    assert_eq!(early.0, 400);

    let connector =
        json!({"attachment": {"connector": {"host": "compute1", "mountpoint": "/dev/vdb", "os_type": "linux"}}});
    let connected = bench.done(DEMO, &format!("PUT {path}"), connector.clone(), 200).await["attachment"].clone();
    assert_eq!(
        (&connected["status"], &connected["connection_info"]["volume_id"]),
        (&json!("attaching"), &json!(volume))
    );
    let again = bench.done(DEMO, &format!("PUT {path}"), connector, 200).await["attachment"].clone();
    assert_eq!(again["connection_info"], connected["connection_info"]);
    let other = json!({"attachment": {"connector": {"host": "compute2"}}});
    assert_eq!(bench.refused(DEMO, &format!("PUT {path}"), other).await.0, 400);
    bench.done(DEMO, &format!("POST {path}/action"), json!({"os-complete": null}), 204).await;
    let shown = bench.get(ADMIN, &format!("/volumes/{volume}")).await["volume"].clone();
    assert_eq!((&shown["status"], &shown["attachments"][0]["server_id"]), (&json!("in-use"), &json!(server)));
    assert_eq!(
        (&shown["attachments"][0]["host_name"], &shown["attachments"][0]["device"]),
        (&json!("compute1"), &json!("/dev/vdb"))
    );
    let users = bench.get(DEMO, &format!("/volumes/{volume}")).await;
    assert_eq!(users["volume"]["attachments"][0]["host_name"], Value::Null);
    assert_eq!(bench.refused(DEMO, &format!("DELETE /volumes/{volume}"), Value::Null).await.0, 400);
    let listed = bench.get(DEMO, &format!("/attachments?instance_id={server}")).await;
    assert_eq!(keys(&listed["attachments"][0]), ["id", "instance", "status", "volume_id"]);

    assert_eq!(bench.act(DEMO, &volume, json!({"os-begin_detaching": {}})).await, 202);
    assert_eq!(bench.status(&volume).await, "detaching");
    assert_eq!(bench.act(DEMO, &volume, json!({"os-roll_detaching": {}})).await, 202);
    assert_eq!(bench.status(&volume).await, "in-use");
    assert_eq!(bench.act(DEMO, &volume, json!({"os-begin_detaching": {}})).await, 202);
    let left = bench.done(DEMO, &format!("DELETE {path}"), Value::Null, 200).await;
    assert_eq!((left, bench.status(&volume).await), (json!({"attachments": []}), "available".into()));
    assert_eq!(bench.call(DEMO, &format!("GET {path}"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_volume_for_several_servers() {
    let bench = Bench::new().await;
    let spec = json!({"volume_type": {"name": "shared", "extra_specs": {"multiattach": "<is> True"}}});
    bench.done(ADMIN, "POST /types", spec, 200).await;
    let volume = bench.volume(DEMO, json!({"size": 1, "volume_type": "shared"})).await;
    let mut paths = Vec::new();
    for number in 1..3 {
        let server = format!("00000000-0000-4000-8000-00000000000{number}");
        let connector = json!({"host": format!("compute{number}")});
        let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": server, "connector": connector}});
        let made = bench.done(DEMO, "POST /attachments", body, 200).await["attachment"].clone();
        let path = format!("/attachments/{}", made["id"].as_str().unwrap());
        bench.done(DEMO, &format!("POST {path}/action"), json!({"os-complete": {}}), 204).await;
        paths.push(path);
    }
    let shown = bench.get(DEMO, &format!("/volumes/{volume}")).await["volume"].clone();
    assert_eq!((&shown["multiattach"], shown["attachments"].as_array().unwrap().len()), (&json!(true), 2));
    bench.done(DEMO, &format!("DELETE {}", paths[0]), Value::Null, 200).await;
    assert_eq!(bench.status(&volume).await, "in-use");
    bench.done(DEMO, &format!("DELETE {}", paths[1]), Value::Null, 200).await;
    assert_eq!(bench.status(&volume).await, "available");
}

#[tokio::test]
async fn volumes_change_hands() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 3})).await;
    let offer = json!({"transfer": {"volume_id": volume, "name": "gift"}});
    let offer = bench.done(DEMO, "POST /volume-transfers", offer, 202).await["transfer"].clone();
    assert_eq!(bench.status(&volume).await, "awaiting-transfer");
    let (id, key) = (offer["id"].as_str().unwrap(), offer["auth_key"].as_str().unwrap());
    let shown = bench.get(DEMO, &format!("/volume-transfers/{id}")).await;
    assert!(shown["transfer"].get("auth_key").is_none());
    let accept = format!("POST /volume-transfers/{id}/accept");
    let wrong = bench.refused(OTHER, &accept, json!({"accept": {"auth_key": "guess"}})).await;
    assert_eq!(wrong.0, 400);
    bench.done(OTHER, &accept, json!({"accept": {"auth_key": key}}), 202).await;
    let theirs = bench.get(OTHER, &format!("/volumes/{volume}")).await["volume"].clone();
    assert_eq!((&theirs["status"], &theirs["os-vol-tenant-attr:tenant_id"]), (&json!("available"), &json!("p-other")));
    assert_eq!(bench.call(DEMO, &format!("GET /volumes/{volume}"), Value::Null).await.0, 404);
    let used = async |caller| bench.get(caller, "/limits").await["limits"]["absolute"]["totalGigabytesUsed"].clone();
    assert_eq!((used(DEMO).await, used(OTHER).await), (json!(0), json!(3)));
    assert_eq!(bench.refused(OTHER, &accept, json!({"accept": {"auth_key": key}})).await.0, 404);
}

#[tokio::test]
async fn types_quotas_and_services_are_administrators() {
    let bench = Bench::new().await;
    let fast = json!({"volume_type": {"name": "fast", "os-volume-type-access:is_public": false}});
    let fast = bench.done(ADMIN, "POST /types", fast, 200).await["volume_type"]["id"].as_str().unwrap().to_owned();
    let names = async |caller| -> Vec<String> {
        let list = bench.get(caller, "/types").await["volume_types"].clone();
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(DEMO).await, ["__DEFAULT__"]);
    let access = json!({"addProjectAccess": {"project": "p-demo"}});
    bench.done(ADMIN, &format!("POST /types/{fast}/action"), access, 202).await;
    assert_eq!(names(DEMO).await, ["__DEFAULT__", "fast"]);
    bench
        .done(
            ADMIN,
            &format!("POST /types/{fast}/extra_specs"),
            json!({"extra_specs": {"volume_backend_name": "files"}}),
            200,
        )
        .await;
    assert_eq!(
        bench.get(ADMIN, &format!("/types/{fast}/extra_specs")).await["extra_specs"],
        json!({"volume_backend_name": "files"})
    );
    assert_eq!(bench.get(DEMO, &format!("/types/{fast}/extra_specs")).await["extra_specs"], json!({}));
    let volume = bench.volume(DEMO, json!({"size": 1, "volume_type": "fast"})).await;
    assert_eq!(bench.status(&volume).await, "available");
    assert_eq!(bench.refused(ADMIN, &format!("DELETE /types/{fast}"), Value::Null).await.0, 400);
    assert_eq!(
        bench.act(DEMO, &volume, json!({"os-retype": {"new_type": "__DEFAULT__", "migration_policy": "never"}})).await,
        202
    );
    bench.done(ADMIN, &format!("DELETE /types/{fast}"), Value::Null, 202).await;

    let set = json!({"quota_set": {"volumes": 1, "gigabytes": -1}});
    let set = bench.done(ADMIN, "PUT /os-quota-sets/p-demo", set, 200).await["quota_set"].clone();
    assert_eq!((&set["volumes"], &set["gigabytes"], &set["snapshots"]), (&json!(1), &json!(-1), &json!(10)));
    let (status, key, text) = bench.refused(DEMO, "POST /volumes", json!({"volume": {"size": 1}})).await;
    assert_eq!((status, key.as_str()), (413, "overLimit"));
    assert_eq!(text, "Maximum number of volumes allowed (1) exceeded for quota 'volumes'.");

    let services = bench.get(ADMIN, "/os-services").await["services"].clone();
    assert_eq!((&services[0]["binary"], &services[0]["host"]), (&json!("cinder-volume"), &json!("store1@files")));
    assert_eq!((&services[0]["state"], &services[0]["status"]), (&json!("up"), &json!("enabled")));
    let pools = bench.get(ADMIN, "/scheduler-stats/get_pools?detail=true").await["pools"].clone();
    assert_eq!(
        (&pools[0]["name"], &pools[0]["capabilities"]["provisioned_capacity_gb"]),
        (&json!("store1@files#pool"), &json!(1))
    );
    let zones = bench.get(DEMO, "/os-availability-zone").await;
    assert_eq!(zones, json!({"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": true}}]}));
    let off = json!({"host": "store1@files", "binary": "cinder-volume", "disabled_reason": "repair"});
    bench.done(ADMIN, "PUT /os-services/disable-log-reason", off, 200).await;
    bench.done(ADMIN, "PUT /os-quota-sets/p-demo", json!({"quota_set": {"volumes": 9}}), 200).await;
    let nowhere = bench.volume(DEMO, json!({"size": 1})).await;
    assert_eq!(bench.status(&nowhere).await, "error");
    bench.done(DEMO, &format!("DELETE /volumes/{nowhere}"), Value::Null, 202).await;
    assert_eq!(bench.call(DEMO, &format!("GET /volumes/{nowhere}"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn labels_one_by_one() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1, "metadata": {"a": "1"}})).await;
    let snapshot = json!({"snapshot": {"volume_id": volume, "metadata": {"a": "1"}}});
    let snapshot =
        bench.done(DEMO, "POST /snapshots", snapshot, 202).await["snapshot"]["id"].as_str().unwrap().to_owned();
    for path in [format!("/volumes/{volume}/metadata"), format!("/snapshots/{snapshot}/metadata")] {
        let added = bench.done(DEMO, &format!("POST {path}"), json!({"metadata": {"b": "2"}}), 200).await;
        assert_eq!(added, json!({"metadata": {"a": "1", "b": "2"}}));
        let set = bench.done(DEMO, &format!("PUT {path}/b"), json!({"meta": {"b": "3"}}), 200).await;
        assert_eq!(set, json!({"meta": {"b": "3"}}));
        bench.done(DEMO, &format!("DELETE {path}/a"), Value::Null, 200).await;
        assert_eq!(bench.call(DEMO, &format!("DELETE {path}/a"), Value::Null).await.0, 404);
        assert_eq!(bench.get(DEMO, &path).await, json!({"metadata": {"b": "3"}}));
        let all = bench.done(DEMO, &format!("PUT {path}"), json!({"metadata": {}}), 200).await;
        assert_eq!(all, json!({"metadata": {}}));
    }
}
