//! Domains, projects, users, roles, grants, secrets, tokens.

use std::sync::Arc;

use nova_core::identity::{Domain, Grant, Project, Role, User};
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};

use super::fixtures::at;
use crate::{Kind, Store, StoreError};

fn domain(id: &str) -> Domain {
    let name = format!("Domain {id}");
    Domain { id: DomainId::from(id), name, description: String::new(), enabled: true, created_at: at(0) }
}

fn project(id: &str, domain: &str, name: &str) -> Project {
    Project {
        id: ProjectId::from(id),
        domain_id: DomainId::from(domain),
        name: name.into(),
        description: String::new(),
        enabled: true,
        created_at: at(0),
    }
}

fn user(id: &str, domain: &str, name: &str) -> User {
    User {
        id: UserId::from(id),
        domain_id: DomainId::from(domain),
        name: name.into(),
        description: String::new(),
        email: None,
        enabled: true,
        default_project_id: None,
        password_hash: Some("$argon2id$x".into()),
        created_at: at(0),
        tokens_valid_from: None,
    }
}

fn role(id: &str, name: &str) -> Role {
    Role { id: RoleId::from(id), name: name.into(), description: String::new(), created_at: at(0) }
}

fn grant(project: &str, user: &str, role: &str) -> Grant {
    Grant { project_id: ProjectId::from(project), user_id: UserId::from(user), role_id: RoleId::from(role) }
}

/// Domains d and e; in d projects p and q, users u and v; roles member and admin.
async fn people(store: &dyn Store) {
    for id in ["d", "e"] {
        store.create_domain(domain(id)).await.unwrap();
    }
    for id in ["p", "q"] {
        store.create_project(project(id, "d", &format!("project {id}"))).await.unwrap();
    }
    for id in ["u", "v"] {
        store.create_user(user(id, "d", &format!("user {id}"))).await.unwrap();
    }
    store.create_role(role("m", "member")).await.unwrap();
    store.create_role(role("a", "admin")).await.unwrap();
}

/// What was written is read back; lists are by name.
pub async fn identity_is_read_back(store: &Arc<dyn Store>) {
    people(&**store).await;
    assert_eq!(store.get_domain(&DomainId::from("d")).await.unwrap(), domain("d"));
    assert_eq!(store.get_project(&ProjectId::from("p")).await.unwrap(), project("p", "d", "project p"));
    assert!(store.get_user(&UserId::from("u")).await.unwrap() == user("u", "d", "user u"));
    assert_eq!(store.get_role(&RoleId::from("m")).await.unwrap(), role("m", "member"));
    let roles: Vec<_> = store.list_roles().await.unwrap().into_iter().map(|r| r.name).collect();
    assert_eq!(roles, ["admin", "member"]);
    let domains: Vec<_> = store.list_domains().await.unwrap().into_iter().map(|d| d.id.to_string()).collect();
    assert_eq!(domains, ["d", "e"]);
    assert_eq!(store.list_projects(None).await.unwrap().len(), 2);
    assert_eq!(store.list_users(Some("USER V")).await.unwrap()[0].id.as_str(), "v");
    assert!(store.list_projects(Some("nobody")).await.unwrap().is_empty());
}

/// Names are unique in their domain whatever their case, and free in another domain.
pub async fn names_are_unique_in_their_domain(store: &Arc<dyn Store>) {
    people(&**store).await;
    let taken = [
        store.create_domain(Domain { name: "dOMAIN D".into(), ..domain("f") }).await.unwrap_err(),
        store.create_project(project("r", "d", "PROJECT P")).await.unwrap_err(),
        store.create_user(user("w", "d", "User U")).await.unwrap_err(),
        store.create_role(role("x", "ADMIN")).await.unwrap_err(),
        store.update_project(project("q", "d", "Project P")).await.unwrap_err(),
        store.update_role(role("m", "Admin")).await.unwrap_err(),
    ];
    for error in taken {
        assert!(matches!(error, StoreError::Duplicate { field: "name", .. }), "{error:?}");
    }
    let error = store.create_user(user("u", "e", "another")).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::User, field: "id", .. }), "{error:?}");
    store.create_project(project("r", "e", "project p")).await.unwrap();
    store.create_user(user("w", "e", "user u")).await.unwrap();
    let both: Vec<_> = store.list_users(Some("user u")).await.unwrap().into_iter().map(|u| u.id.to_string()).collect();
    assert_eq!(both, ["u", "w"]);
    store.update_project(project("p", "d", "PROJECT p")).await.unwrap();
}

/// Changes are kept, and an unknown row is told.
pub async fn identity_is_changed(store: &Arc<dyn Store>) {
    people(&**store).await;
    let renamed = User { enabled: false, tokens_valid_from: Some(at(5)), ..user("u", "d", "renamed") };
    assert!(store.update_user(renamed.clone()).await.unwrap() == renamed);
    assert!(store.get_user(&renamed.id).await.unwrap() == renamed);
    let closed = Domain { enabled: false, ..domain("e") };
    store.update_domain(closed.clone()).await.unwrap();
    assert_eq!(store.get_domain(&closed.id).await.unwrap(), closed);
    let unknown = [
        store.update_user(user("x", "d", "x")).await.err().unwrap(),
        store.update_project(project("x", "d", "x")).await.unwrap_err(),
        store.update_role(role("x", "x")).await.unwrap_err(),
        store.update_domain(domain("x")).await.unwrap_err(),
        store.create_project(project("x", "nowhere", "x")).await.unwrap_err(),
        store.delete_user(&UserId::from("x")).await.unwrap_err(),
    ];
    for error in unknown {
        assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    }
}

/// Grants need all three, may be repeated, are listed by user and project, and are taken once.
pub async fn grants_are_given_and_taken(store: &Arc<dyn Store>) {
    let store = &**store;
    people(store).await;
    for grant in [grant("p", "u", "m"), grant("q", "u", "m"), grant("p", "v", "a"), grant("p", "u", "m")] {
        store.add_grant(grant).await.unwrap();
    }
    let (u, p) = (UserId::from("u"), ProjectId::from("p"));
    assert_eq!(store.list_grants(None, None).await.unwrap().len(), 3);
    assert_eq!(store.list_grants(Some(&u), None).await.unwrap(), [grant("p", "u", "m"), grant("q", "u", "m")]);
    assert_eq!(store.list_grants(None, Some(&p)).await.unwrap(), [grant("p", "u", "m"), grant("p", "v", "a")]);
    assert_eq!(store.list_grants(Some(&u), Some(&p)).await.unwrap(), [grant("p", "u", "m")]);
    for (missing, kind) in
        [(grant("x", "u", "m"), Kind::Project), (grant("p", "x", "m"), Kind::User), (grant("p", "u", "x"), Kind::Role)]
    {
        let error = store.add_grant(missing).await.unwrap_err();
        assert!(matches!(&error, StoreError::NotFound { kind: k, .. } if *k == kind), "{error:?}");
    }
    store.remove_grant(&grant("p", "u", "m")).await.unwrap();
    let error = store.remove_grant(&grant("p", "u", "m")).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Grant, .. }), "{error:?}");
}

/// What is deleted takes its grants along; a domain must be empty.
pub async fn deletion_takes_grants_along(store: &Arc<dyn Store>) {
    let store = &**store;
    people(store).await;
    for grant in [grant("p", "u", "m"), grant("p", "v", "a"), grant("q", "u", "a")] {
        store.add_grant(grant).await.unwrap();
    }
    store.delete_role(&RoleId::from("m")).await.unwrap();
    assert_eq!(store.list_grants(None, None).await.unwrap().len(), 2);
    store.delete_user(&UserId::from("v")).await.unwrap();
    assert_eq!(store.list_grants(None, None).await.unwrap(), [grant("q", "u", "a")]);
    store.delete_project(&ProjectId::from("q")).await.unwrap();
    assert_eq!(store.list_grants(None, None).await.unwrap(), []);
    let d = DomainId::from("d");
    assert!(matches!(store.delete_domain(&d).await, Err(StoreError::Conflict { kind: Kind::Domain, .. })));
    store.delete_project(&ProjectId::from("p")).await.unwrap();
    assert!(matches!(store.delete_domain(&d).await, Err(StoreError::Conflict { kind: Kind::Domain, .. })));
    store.delete_user(&UserId::from("u")).await.unwrap();
    store.delete_domain(&d).await.unwrap();
    assert!(matches!(store.get_domain(&d).await, Err(StoreError::NotFound { kind: Kind::Domain, .. })));
}

/// The first value of a secret stays.
pub async fn secrets_are_set_once(store: &Arc<dyn Store>) {
    assert_eq!(store.secret("token key", &[0, 255, 7]).await.unwrap(), [0, 255, 7]);
    assert_eq!(store.secret("token key", b"other").await.unwrap(), [0, 255, 7]);
    assert_eq!(store.secret("another", b"other").await.unwrap(), b"other");
}

/// Tokens taken back are listed until they would have ended anyway.
pub async fn revoked_tokens_expire(store: &Arc<dyn Store>) {
    store.revoke_token("b", at(20)).await.unwrap();
    store.revoke_token("a", at(30)).await.unwrap();
    store.revoke_token("a", at(10)).await.unwrap();
    let (a, b) = (("a".to_owned(), at(30)), ("b".to_owned(), at(20)));
    assert_eq!(store.list_revoked_tokens(at(0)).await.unwrap(), [b, a.clone()]);
    let only_a = vec![a];
    assert_eq!(store.list_revoked_tokens(at(20)).await.unwrap(), only_a);
    assert_eq!(store.list_revoked_tokens(at(0)).await.unwrap(), only_a, "older rows are removed");
    assert_eq!(store.list_revoked_tokens(at(31)).await.unwrap(), []);
}

/// Every change of identity raises the version; reads and refusals do not.
pub async fn identity_version_grows(store: &Arc<dyn Store>) {
    let store = &**store;
    let mut last = store.identity_version().await.unwrap();
    people(store).await;
    let mut grown = async |what: &str| {
        let now = store.identity_version().await.unwrap();
        assert!(now > last, "{what}");
        last = now;
    };
    grown("creates").await;
    store.add_grant(grant("p", "u", "m")).await.unwrap();
    grown("grant").await;
    store.update_user(user("u", "d", "x")).await.unwrap();
    grown("update").await;
    store.remove_grant(&grant("p", "u", "m")).await.unwrap();
    grown("taken grant").await;
    store.revoke_token("t", at(9)).await.unwrap();
    grown("revocation").await;
    store.delete_project(&ProjectId::from("p")).await.unwrap();
    grown("delete").await;
    let before = store.identity_version().await.unwrap();
    store.create_role(role("m", "member")).await.unwrap_err();
    store.list_users(None).await.unwrap();
    assert_eq!(store.identity_version().await.unwrap(), before);
}
