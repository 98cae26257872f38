use serde_json::{Value, json};

use super::Aggregates;
use crate::api::compute::availability_zones::AvailabilityZones;
use crate::api::compute::services::Services;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, keys};

async fn bench() -> Bench {
    let bench = Bench::new(Aggregates::new).add(AvailabilityZones::new).add(Services::new);
    bench.service("nova-conductor", "ctl", "internal").await;
    for host in ["h1", "h2"] {
        bench.service("nova-compute", host, "nova").await;
        bench.node(host).await;
    }
    bench
}

async fn made(bench: &Bench, name: &str, zone: Option<&str>) -> i64 {
    let body = json!({"aggregate": {"name": name, "availability_zone": zone}});
    let (status, answer) = bench.call(ADMIN, 1, "POST /os-aggregates", body).await;
    assert_eq!(status, 200, "{answer}");
    answer["aggregate"]["id"].as_i64().unwrap()
}

async fn act(bench: &Bench, id: i64, body: Value) -> Value {
    let (status, answer) = bench.call(ADMIN, 1, &format!("POST /os-aggregates/{id}/action"), body.clone()).await;
    assert_eq!(status, 200, "{body} {answer}");
    answer["aggregate"].clone()
}

async fn refused(bench: &Bench, line: &str, body: Value) -> (u16, String) {
    bench.refused(ADMIN, 81, line, body).await
}

/// Books a server's resources on a host, as a conductor does.
async fn occupy(bench: &Bench, host: &str) {
    let instance = bench.instance(DEMO, Some(host)).await;
    let task = bench.api.store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    let allocation = nova_core::host::Allocation {
        instance_id: instance.id,
        host: host.into(),
        resources: instance.flavor.resources(),
        created_at: bench.now(),
        placement: None,
    };
    let commit = nova_db::TaskCommit { book: Some(nova_db::Booking::of(allocation)), ..nova_db::TaskCommit::of(task) };
    bench.api.store.commit_task(commit).await.unwrap();
}

#[tokio::test]
async fn each_version_and_answer_has_its_keys() {
    let bench = bench().await;
    let (_, made) = bench.call(ADMIN, 40, "POST /os-aggregates", json!({"aggregate": {"name": " x".trim()}})).await;
    let brief = ["availability_zone", "created_at", "deleted", "deleted_at", "id", "name", "updated_at"];
    assert_eq!(keys(&made["aggregate"]), brief);
    assert_eq!(made["aggregate"]["created_at"], "2026-11-22T08:03:11.000000");
    let shown = bench.get(ADMIN, 40, "/os-aggregates/1").await;
    let mut full = vec!["hosts", "metadata"];
    full.extend(brief);
    full.sort_unstable();
    assert_eq!(keys(&shown["aggregate"]), full);
    assert_eq!((shown["aggregate"]["hosts"].clone(), shown["aggregate"]["metadata"].clone()), (json!([]), json!({})));
    let at_41 = bench.get(ADMIN, 41, "/os-aggregates").await;
    assert!(at_41["aggregates"][0]["uuid"].is_string());
    assert!(at_41["aggregates"][0]["updated_at"].is_null());
    let (status, changed) = bench
        .call(ADMIN, 1, "PUT /os-aggregates/1", json!({"aggregate": {"name": "y", "availability_zone": "z"}}))
        .await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["aggregate"];
    assert_eq!((changed["name"].clone(), changed["availability_zone"].clone()), (json!("y"), json!("z")));
    assert_eq!(changed["metadata"], json!({"availability_zone": "z"}));
    assert!(changed["updated_at"].is_string());
    assert_eq!(bench.call(ADMIN, 1, "DELETE /os-aggregates/1", Value::Null).await, (200, Value::Null));
    assert_eq!(refused(&bench, "GET /os-aggregates/1", Value::Null).await.1, "Aggregate 1 could not be found.");
}

#[tokio::test]
async fn hosts_and_metadata_are_set_and_schedulers_hear_of_it() {
    let bench = bench().await;
    let id = made(&bench, "fast", Some("west")).await;
    assert_eq!(act(&bench, id, json!({"add_host": {"host": "h2"}})).await["hosts"], json!(["h2"]));
    let metadata = json!({"set_metadata": {"metadata": {"ssd": "true", "cpu": "4"}}});
    act(&bench, id, metadata).await;
    let left = act(&bench, id, json!({"set_metadata": {"metadata": {"cpu": null, "ssd": "false"}}})).await;
    assert_eq!(left["metadata"], json!({"availability_zone": "west", "ssd": "false"}));
    let told = bench.told.aggregates.lock().unwrap().last().unwrap().clone();
    assert_eq!((told.aggregate.metadata["ssd"].as_str(), told.deleted), ("false", false));
    assert!(told.aggregate.hosts.contains(&"h2".into()));
    assert_eq!(act(&bench, id, json!({"remove_host": {"host": "h2"}})).await["hosts"], json!([]));
    bench.call(ADMIN, 1, &format!("DELETE /os-aggregates/{id}"), Value::Null).await;
    assert!(bench.told.aggregates.lock().unwrap().last().unwrap().deleted);
}

#[tokio::test]
async fn zones_come_from_aggregates() {
    let bench = bench().await;
    let id = made(&bench, "a", Some("west")).await;
    act(&bench, id, json!({"add_host": {"host": "h2"}})).await;
    let zones = bench.get(ADMIN, 1, "/os-availability-zone/detail").await;
    let zones = zones["availabilityZoneInfo"].as_array().unwrap();
    assert_eq!(zones.iter().map(|z| z["zoneName"].clone()).collect::<Vec<_>>(), ["internal", "nova", "west"]);
    assert_eq!(keys(&zones[2]["hosts"]), ["h2"]);
    let services = bench.get(ADMIN, 1, "/os-services?host=h2").await;
    assert_eq!(services["services"][0]["zone"], "west");
    let service = bench.get(ADMIN, 53, "/os-services?host=h2").await["services"][0]["id"].clone();
    let line = format!("PUT /os-services/{}", service.as_str().unwrap());
    let (_, put) = bench.call(ADMIN, 53, &line, json!({"status": "disabled"})).await;
    assert_eq!(put["service"]["zone"], "west");
    act(&bench, id, json!({"remove_host": {"host": "h2"}})).await;
    let zones = bench.get(DEMO, 1, "/os-availability-zone").await;
    assert_eq!(zones["availabilityZoneInfo"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_nova_s_words() {
    let bench = bench().await;
    let (west, east) = (made(&bench, "w", Some("west")).await, made(&bench, "e", Some("east")).await);
    let plain = made(&bench, "p", None).await;
    act(&bench, west, json!({"add_host": {"host": "h1"}})).await;
    act(&bench, plain, json!({"add_host": {"host": "h1"}})).await;
    let on = |id: i64, verb: &str| format!("{verb} /os-aggregates/{id}{}", if verb == "POST" { "/action" } else { "" });
    let host = |key: &str, host: &str| json!({key: {"host": host}});
    let other = "One or more hosts already in availability zone(s) ['west']";
    let zone = |zone: Value| json!({"aggregate": {"availability_zone": zone}});
    let cases = [
        (409, on(west, "POST"), host("add_host", "h1"), format!("Aggregate {west} already has host h1.")),
        (
            409,
            on(east, "POST"),
            host("add_host", "h1"),
            format!("Cannot add host to aggregate {east}. Reason: {other}."),
        ),
        (404, on(east, "POST"), host("add_host", "h9"), "Compute host h9 could not be found.".to_owned()),
        (404, on(99, "POST"), host("add_host", "h1"), "Aggregate 99 could not be found.".to_owned()),
        (404, on(east, "POST"), host("remove_host", "h1"), format!("Cannot remove host h1 in aggregate {east}")),
        (404, on(east, "POST"), host("remove_host", "h9"), format!("Cannot remove host h9 in aggregate {east}")),
        (400, on(plain, "PUT"), zone(json!("east")), format!("Cannot update aggregate {plain}. Reason: {other}.")),
        (
            400,
            on(west, "PUT"),
            zone(Value::Null),
            format!(
                "Cannot update aggregate {west}. Reason: Aggregate w does not support empty named availability zone."
            ),
        ),
        (
            400,
            on(west, "POST"),
            json!({"set_metadata": {"metadata": {"availability_zone": null}}}),
            format!(
                "Cannot update metadata of aggregate {west}. Reason: Aggregate w does not support empty named \
                 availability zone."
            ),
        ),
        (
            400,
            on(west, "DELETE"),
            Value::Null,
            format!("Cannot remove host from aggregate {west}. Reason: Host aggregate is not empty."),
        ),
        (409, on(east, "PUT"), json!({"aggregate": {"name": "w"}}), "Aggregate w already exists.".to_owned()),
        (
            409,
            "POST /os-aggregates".to_owned(),
            json!({"aggregate": {"name": "w"}}),
            "Aggregate w already exists.".to_owned(),
        ),
        (404, on(99, "PUT"), json!({"aggregate": {"name": "w9"}}), "Aggregate 99 could not be found.".to_owned()),
        (
            404,
            "GET /os-aggregates/99999999999999999999".to_owned(),
            Value::Null,
            "Aggregate 99999999999999999999 could not be found.".to_owned(),
        ),
        (
            400,
            "GET /os-aggregates/x".to_owned(),
            Value::Null,
            "Invalid input received: id must be an integer".to_owned(),
        ),
    ];
    let told = bench.told.aggregates.lock().unwrap().len();
    for (status, line, body, text) in cases {
        assert_eq!(refused(&bench, &line, body.clone()).await, (status, text), "{line} {body}");
    }
    assert_eq!(bench.told.aggregates.lock().unwrap().len(), told);
}

#[tokio::test]
async fn a_zone_with_servers_stays_as_it_is() {
    let bench = bench().await;
    let id = made(&bench, "w", Some("west")).await;
    act(&bench, id, json!({"add_host": {"host": "h1"}})).await;
    for host in ["h1", "h2"] {
        occupy(&bench, host).await;
    }
    let one = format!("PUT /os-aggregates/{id}");
    let text = "One or more hosts contain instances in this zone.";
    let (status, answer) = refused(&bench, &one, json!({"aggregate": {"availability_zone": "east"}})).await;
    assert_eq!((status, answer), (400, format!("Cannot update aggregate {id}. Reason: {text}")));
    let line = format!("POST /os-aggregates/{id}/action");
    let metadata = json!({"set_metadata": {"metadata": {"availability_zone": "east"}}});
    let (status, answer) = refused(&bench, &line, metadata).await;
    assert_eq!((status, answer), (400, format!("Cannot update metadata of aggregate {id}. Reason: {text}")));
    for (key, host, words) in
        [("add_host", "h2", "from 'nova' to 'west'"), ("remove_host", "h1", "from 'west' to 'nova'")]
    {
        let (status, answer) = refused(&bench, &line, json!({key: {"host": host}})).await;
        assert_eq!(status, 409);
        assert!(answer.contains(words) && answer.contains("already has 1 instance(s)"), "{answer}");
    }
    act(&bench, id, json!({"set_metadata": {"metadata": {"availability_zone": "west", "ssd": "1"}}})).await;
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let bench = bench().await;
    let id = made(&bench, "a", None).await;
    let long = "x".repeat(256);
    let one = format!("PUT /os-aggregates/{id}");
    let action = format!("POST /os-aggregates/{id}/action");
    let images = format!("POST /os-aggregates/{id}/images");
    let image = "70a599e0-31e7-49b7-b260-868f441e862b";
    let cases = [
        ("POST /os-aggregates", json!({"aggregate": {}}), "'name' is a required property"),
        ("POST /os-aggregates", json!({"aggregate": {"name": ""}}), "too short"),
        ("POST /os-aggregates", json!({"aggregate": {"name": long}}), "too long"),
        ("POST /os-aggregates", json!({"aggregate": {"name": " a"}}), "Can not start or end with whitespace"),
        ("POST /os-aggregates", json!({"aggregate": {"name": "b", "availability_zone": ""}}), "too short"),
        ("POST /os-aggregates", json!({"aggregate": {"name": "b", "availability_zone": "a:b"}}), "except :"),
        ("POST /os-aggregates", json!({"aggregate": {"name": "b", "metadata": {}}}), "('metadata' was unexpected)"),
        ("POST /os-aggregates", json!({"aggregate": {"name": "b"}, "x": 1}), "('x' was unexpected)"),
        (one.as_str(), json!({"aggregate": {}}), "does not have enough properties"),
        (one.as_str(), json!({"aggregate": {"hosts": []}}), "does not have enough properties"),
        (action.as_str(), json!({"add_host": {}}), "'host' is a required property"),
        (action.as_str(), json!({"add_host": {"host": "a b"}}), "does not match"),
        (action.as_str(), json!({"add_host": {"host": "h1", "x": 1}}), "('x' was unexpected)"),
        (action.as_str(), json!({"set_metadata": {"metadata": {"k": 1}}}), "is not of type 'string'"),
        (action.as_str(), json!({"set_metadata": {"metadata": {"k/": null}}}), "does not match any of the regexes"),
        (action.as_str(), json!({"set_metadata": {"metadata": []}}), "is not of type 'object'"),
        (action.as_str(), json!({"set_metadata": {}}), "'metadata' is a required property"),
        (action.as_str(), json!({"fly": {}}), "There is no such action: fly"),
        (action.as_str(), json!({}), "Malformed request body"),
        (images.as_str(), json!({"cache": []}), "too short"),
        (images.as_str(), json!({"cache": [{"id": "x"}]}), "is not a 'uuid'"),
        (images.as_str(), json!({"cache": [{"id": image}, {"id": image}]}), "Duplicate images in request"),
    ];
    for (line, body, text) in cases {
        let (status, answer) = refused(&bench, line, body.clone()).await;
        assert!(status == 400 && answer.contains(text), "{line} {body}: {status} {answer}");
    }
    let loose = bench.call_lenient(ADMIN, "POST /os-aggregates", json!({"aggregate": {"name": " b "}, "x": 1})).await;
    assert_eq!((loose.0, loose.1["aggregate"]["name"].clone()), (200, json!("b")));
    let cache = json!({"cache": [{"id": image}]});
    let unknown = format!("Image {image} could not be found.");
    assert_eq!(refused(&bench, &images, cache.clone()).await, (400, unknown));
    assert_eq!(refused(&bench, "POST /os-aggregates/99/images", cache.clone()).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 80, &images, cache).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 102, "GET /os-aggregates?x=1", Value::Null).await.0, 400);
}

#[tokio::test]
async fn all_of_it_is_for_administrators() {
    let bench = bench().await;
    let id = made(&bench, "a", None).await;
    let cases = [
        ("GET /os-aggregates".to_owned(), Value::Null, "os-aggregates:index"),
        ("POST /os-aggregates".to_owned(), json!({"aggregate": {"name": "b"}}), "os-aggregates:create"),
        (format!("GET /os-aggregates/{id}"), Value::Null, "os-aggregates:show"),
        (format!("PUT /os-aggregates/{id}"), json!({"aggregate": {"name": "b"}}), "os-aggregates:update"),
        (format!("DELETE /os-aggregates/{id}"), Value::Null, "os-aggregates:delete"),
        (format!("POST /os-aggregates/{id}/action"), json!({"add_host": {"host": "h1"}}), "os-aggregates:add_host"),
        (
            format!("POST /os-aggregates/{id}/action"),
            json!({"remove_host": {"host": "h1"}}),
            "os-aggregates:remove_host",
        ),
        (
            format!("POST /os-aggregates/{id}/action"),
            json!({"set_metadata": {"metadata": {}}}),
            "os-aggregates:set_metadata",
        ),
    ];
    for (line, body, rule) in cases {
        let text = format!("Policy doesn't allow os_compute_api:{rule} to be performed.");
        assert_eq!(bench.refused(DEMO, 1, &line, body).await, (403, text));
    }
    let images = format!("POST /os-aggregates/{id}/images");
    assert_eq!(bench.refused(DEMO, 81, &images, Value::Null).await.0, 403);
}

/// A deleted compute service takes its host out of all aggregates.
#[tokio::test]
async fn a_host_without_service_is_in_no_aggregate() {
    let bench = bench().await;
    let id = made(&bench, "a", Some("west")).await;
    act(&bench, id, json!({"add_host": {"host": "h1"}})).await;
    let service = bench.get(ADMIN, 53, "/os-services?host=h1").await["services"][0]["id"].clone();
    let line = format!("DELETE /os-services/{}", service.as_str().unwrap());
    assert_eq!(bench.call(ADMIN, 53, &line, Value::Null).await.0, 204);
    assert_eq!(bench.get(ADMIN, 1, &format!("/os-aggregates/{id}")).await["aggregate"]["hosts"], json!([]));
}
