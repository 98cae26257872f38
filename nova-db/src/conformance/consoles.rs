//! Leave to open consoles.

use std::sync::Arc;

use nova_core::console::{ConsoleGrant, ConsoleTarget, ConsoleType, token_hash};
use nova_core::ids::{ConsoleGrantId, InstanceId};

use super::fixtures::{Make, at};
use super::races::all_at_once;
use crate::{Kind, Store, StoreError};

fn grant(make: &Make, token: &str, instance: InstanceId) -> ConsoleGrant {
    ConsoleGrant {
        id: ConsoleGrantId::generate(&make.0),
        token_hash: token_hash(token),
        console_type: ConsoleType::Novnc,
        instance_id: instance,
        host: "h1".into(),
        epoch: 3,
        user_id: "user".into(),
        project_id: "p".into(),
        target: ConsoleTarget { host: "10.0.0.1".into(), port: 5900, tls_port: None },
        access_url_base: "http://cloud:6080/vnc_auto.html".into(),
        resumes: None,
        created_at: at(0),
        expires_at: at(60),
    }
}

fn is_none(result: Result<ConsoleGrant, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound { kind: Kind::ConsoleGrant, .. }))
}

/// Read while it lasts, taken once, told apart from others; errors do not name its hash.
pub async fn console_grants_are_taken_once(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (first, second) = (grant(&make, "a", make.instance_id()), grant(&make, "b", make.instance_id()));
    store.add_console_grant(first.clone()).await.unwrap();
    store.add_console_grant(second.clone()).await.unwrap();
    let again = store.add_console_grant(first.clone()).await.unwrap_err();
    assert!(matches!(again, StoreError::Duplicate { kind: Kind::ConsoleGrant, .. }), "{again:?}");
    assert!(!format!("{again:?}").contains(&first.token_hash));
    assert_eq!(store.get_console_grant(&first.token_hash, at(59)).await.unwrap(), first);
    assert_eq!(store.take_console_grant(&first.token_hash, at(59)).await.unwrap(), first);
    let used = store.take_console_grant(&first.token_hash, at(59)).await;
    assert!(!format!("{used:?}").contains(&first.token_hash));
    assert!(is_none(used) && is_none(store.get_console_grant(&first.token_hash, at(1)).await));
    assert!(is_none(store.take_console_grant(&token_hash("forged"), at(1)).await));
    assert_eq!(store.get_console_grant(&second.token_hash, at(1)).await.unwrap(), second);
}

/// One that is over is not found; the rest goes by time, by server and by hash.
pub async fn console_grants_end(store: &Arc<dyn Store>) {
    let make = Make::new();
    let server = make.instance_id();
    let grants = ["a", "b", "c"].map(|token| grant(&make, token, server));
    let late = ConsoleGrant { expires_at: at(600), ..grant(&make, "d", make.instance_id()) };
    for one in grants.iter().chain([&late]) {
        store.add_console_grant(one.clone()).await.unwrap();
    }
    assert!(is_none(store.get_console_grant(&grants[0].token_hash, at(60)).await));
    assert!(is_none(store.take_console_grant(&grants[0].token_hash, at(60)).await));
    assert!(store.get_console_grant(&grants[0].token_hash, at(59)).await.is_ok(), "too late did not use it up");
    store.drop_console_grant(&grants[0].token_hash).await.unwrap();
    store.drop_console_grant(&grants[0].token_hash).await.unwrap();
    assert_eq!(store.drop_console_grants_of(server).await.unwrap(), 2);
    assert_eq!(store.drop_expired_console_grants(at(599)).await.unwrap(), 0);
    assert_eq!(store.drop_expired_console_grants(at(600)).await.unwrap(), 1);
    assert!(is_none(store.get_console_grant(&late.token_hash, at(0)).await));
}

/// Of many who take one grant at once, one gets it.
pub async fn one_takes_a_console_grant(store: &Arc<dyn Store>) {
    let make = Make::new();
    let only = grant(&make, "a", make.instance_id());
    store.add_console_grant(only.clone()).await.unwrap();
    let take = |_: u32| {
        let (store, hash) = (Arc::clone(store), only.token_hash.clone());
        async move { store.take_console_grant(&hash, at(1)).await }
    };
    let results = all_at_once((0..8).collect(), take).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.into_iter().filter(Result::is_err).all(is_none));
}
