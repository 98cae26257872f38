//! Flavors and key pairs.

use std::sync::Arc;

use nova_core::ids::{FlavorId, UserId};
use nova_core::keypair::Keypair;

use super::fixtures::{at, flavor};
use crate::{Kind, Store, StoreError};

/// Create, read, change, list, delete.
pub async fn flavors_live_and_die(store: &Arc<dyn Store>) {
    let mut given = flavor("b");
    given.extra_specs = [("hw:x".to_owned(), "1".to_owned())].into();
    given.access = ["p".into()].into();
    given.rxtx_factor = 0.1;
    let mut made = store.create_flavor(given.clone()).await.unwrap();
    given.generation = 1;
    assert_eq!(made, given);
    store.create_flavor(flavor("a")).await.unwrap();
    made.description = Some("large".into());
    let changed = store.update_flavor(made.clone()).await.unwrap();
    assert_eq!(changed.generation, 2);
    assert_eq!(store.get_flavor(&made.id).await.unwrap(), changed);
    let error = store.update_flavor(made).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Flavor, .. }), "{error:?}");
    let ids: Vec<_> = store.list_flavors().await.unwrap().into_iter().map(|f| f.id.to_string()).collect();
    assert_eq!(ids, ["a", "b"]);
    store.delete_flavor(&changed.id).await.unwrap();
    for error in [store.get_flavor(&changed.id).await.unwrap_err(), store.update_flavor(changed).await.unwrap_err()] {
        assert!(matches!(error, StoreError::NotFound { kind: Kind::Flavor, .. }), "{error:?}");
    }
    assert!(store.delete_flavor(&FlavorId::from("b")).await.is_err());
}

/// Id and name of a flavor are taken once, by name of the field.
pub async fn flavor_names_are_unique(store: &Arc<dyn Store>) {
    let first = store.create_flavor(flavor("1")).await.unwrap();
    let mut second = flavor("2");
    second.name = first.name.clone();
    let error = store.create_flavor(second).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Flavor, field: "name", .. }), "{error:?}");
    let mut same_id = flavor("1");
    same_id.name = "other".into();
    let error = store.create_flavor(same_id).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Flavor, field: "id", .. }), "{error:?}");
    let mut renamed = store.create_flavor(flavor("3")).await.unwrap();
    renamed.name = first.name.clone();
    let error = store.update_flavor(renamed).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Flavor, field: "name", .. }), "{error:?}");
    let mut freed = flavor("4");
    freed.name = first.name;
    store.delete_flavor(&first.id).await.unwrap();
    store.create_flavor(freed).await.unwrap();
}

fn keypair(user: &str, name: &str) -> Keypair {
    Keypair {
        id: 0,
        user_id: UserId::from(user),
        name: name.into(),
        public_key: "ssh-ed25519 AAAA".into(),
        fingerprint: "aa:bb".into(),
        kind: "ssh".into(),
        created_at: at(0),
    }
}

/// Key pairs are a user's own: names are unique to the user, lists are by name.
pub async fn keypairs_belong_to_users(store: &Arc<dyn Store>) {
    let b = store.create_keypair(keypair("u", "b"), None).await.unwrap();
    store.create_keypair(keypair("u", "a"), None).await.unwrap();
    let other = store.create_keypair(keypair("v", "b"), None).await.unwrap();
    assert_eq!((b.id, other.id), (1, 3));
    let user = UserId::from("u");
    assert_eq!(store.get_keypair(&user, "b").await.unwrap(), b);
    let names: Vec<_> = store.list_keypairs(&user).await.unwrap().into_iter().map(|k| k.name).collect();
    assert_eq!(names, ["a", "b"]);
    let error = store.create_keypair(keypair("u", "b"), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Keypair, field: "name", .. }), "{error:?}");
    store.delete_keypair(&user, "b").await.unwrap();
    assert!(matches!(store.delete_keypair(&user, "b").await, Err(StoreError::NotFound { kind: Kind::Keypair, .. })));
    assert!(matches!(store.get_keypair(&user, "b").await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.get_keypair(&UserId::from("v"), "b").await.unwrap(), other);
}

/// The limit of key pairs is per user and exact.
pub async fn keypairs_are_limited(store: &Arc<dyn Store>) {
    store.create_keypair(keypair("u", "a"), Some(2)).await.unwrap();
    store.create_keypair(keypair("u", "b"), Some(2)).await.unwrap();
    let error = store.create_keypair(keypair("u", "c"), Some(2)).await.unwrap_err();
    let StoreError::Quota(over) = error else { panic!("{error:?}") };
    assert_eq!((over.0[0].resource.as_str(), over.0[0].used, over.0[0].limit), ("key_pairs", 2, 2));
    store.create_keypair(keypair("v", "c"), Some(2)).await.unwrap();
}

/// Texts are what their bytes are: no folding of case or accents, no padding, and lists are in the order of bytes.
pub async fn texts_are_compared_byte_by_byte(store: &Arc<dyn Store>) {
    let user = UserId::from("u");
    let mut names = ["a", "A", "a ", " a", "ab", "B", "b", "ä", "Ä", "aͤ", "ß", "ss", "a\u{1f600}", "a_b", "a-b", "a%"];
    for name in names {
        store.create_keypair(keypair("u", name), None).await.unwrap();
    }
    names.sort_unstable();
    let listed: Vec<_> = store.list_keypairs(&user).await.unwrap().into_iter().map(|k| k.name).collect();
    assert_eq!(listed, names);
    for name in names {
        assert_eq!(store.get_keypair(&user, name).await.unwrap().name, name);
    }
    for name in ["a  ", "Ss", "á", "", "_"] {
        assert!(matches!(store.get_keypair(&user, name).await, Err(StoreError::NotFound { .. })), "{name}");
    }
    assert!(store.list_keypairs(&UserId::from("U")).await.unwrap().is_empty());
}
