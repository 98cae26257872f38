//! Any JSON as a body, any text as a query: never a 5xx.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::world::{World, server};

/// Keys that bodies have, so that what is drawn gets past the first check.
const KEYS: &[&str] = &[
    "server",
    "name",
    "imageRef",
    "flavorRef",
    "networks",
    "metadata",
    "user_data",
    "min_count",
    "max_count",
    "key_name",
    "security_groups",
    "block_device_mapping_v2",
    "source_type",
    "uuid",
    "availability_zone",
    "personality",
    "tags",
    "description",
    "os:scheduler_hints",
    "group",
    "accessIPv4",
    "accessIPv6",
    "hostname",
    "host",
    "reboot",
    "type",
    "os-stop",
    "os-start",
    "os-getConsoleOutput",
    "length",
    "config_drive",
    "OS-DCF:diskConfig",
    "adminPass",
    "return_reservation_id",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        ".*".prop_map(Value::from),
        prop::sample::select(vec![
            "auto",
            "none",
            "HARD",
            "volume",
            "70a599e0-31e7-49b7-b260-868f441e862b",
            "1",
            "nova:h1"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any_key(), inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![9 => prop::sample::select(KEYS).prop_map(str::to_owned), 1 => ".*"]
}

/// A good body with some keys made strange.
fn strange_server() -> impl Strategy<Value = Value> {
    prop::collection::vec((any_key(), any_json()), 0..4).prop_map(|changes| {
        let mut server: Map<String, Value> = server("vm").as_object().unwrap().clone();
        server.insert("networks".into(), json!("none"));
        server.extend(changes);
        json!({ "server": server })
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_body_breaks_create(
        body in prop_oneof![any_json(), strange_server()],
        minor in 1..=104u16,
        token in prop::sample::select(vec!["demo", "admin"]),
    ) {
        runtime().block_on(async {
            let world = World::new().await;
            let before = world.store.commits();
            let answer = world.call(token, minor, "POST /servers", Some(body.clone())).await;
            prop_assert!(answer.status < 500, "{body}: {}", answer.text);
            if answer.status != 202 {
                prop_assert_eq!(world.store.commits(), before);
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_body_breaks_actions(body in any_json(), minor in 1..=104u16) {
        runtime().block_on(async {
            let world = World::new().await;
            let id = world.create("demo", "vm").await;
            for body in [body.clone(), json!({"reboot": body}), json!({"os-getConsoleOutput": body}), json!({"os-stop": body})] {
                let answer = world.call("demo", minor, &format!("POST /servers/{id}/action"), Some(body.clone())).await;
                prop_assert!(answer.status < 500, "{body}: {}", answer.text);
            }
            let answer = world.call("demo", minor, &format!("PUT /servers/{id}"), Some(json!({"server": body}))).await;
            prop_assert!(answer.status < 500, "{}", answer.text);
            Ok(())
        })?;
    }

    #[test]
    fn no_query_breaks_lists(
        pairs in prop::collection::vec((prop::sample::select(vec!["name", "status", "limit", "marker", "changes-since", "sort_key",
            "sort_dir", "all_tenants", "deleted", "ip", "tags", "flavor", "image", "uuid", "locked", "vm_state"]), ".*"), 0..4),
        minor in 1..=104u16,
    ) {
        runtime().block_on(async {
            let world = World::new().await;
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            for token in ["demo", "admin"] {
                let answer = world.get(token, minor, &format!("/servers/detail?{query}")).await;
                prop_assert!(answer.status < 500, "{query}: {}", answer.text);
            }
            Ok(())
        })?;
    }
}
