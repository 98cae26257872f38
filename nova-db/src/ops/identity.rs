//! Domains, projects, users, roles, grants.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::identity::{Domain, Grant, Project, Role, User};
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};

use super::{
    RowStore, add, conflict, duplicate, find, first, list, need, remove, remove_existing, replace_or_race, tokens,
};
use crate::records::folded;
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{IdentityStore, StoreError};

#[async_trait]
impl<B: Backend> IdentityStore for RowStore<B> {
    async fn create_domain(&self, domain: Domain) -> Result<Domain, StoreError> {
        self.write(domain, |tx, domain| Box::pin(create(tx, domain))).await
    }
    async fn get_domain(&self, id: &DomainId) -> Result<Domain, StoreError> {
        self.read(&[Value::text(id)], |tx, key| Box::pin(get(tx, key))).await
    }
    async fn list_domains(&self) -> Result<Vec<Domain>, StoreError> {
        self.read(&None, |tx, name| Box::pin(by_name(tx, name))).await
    }
    async fn update_domain(&self, domain: Domain) -> Result<Domain, StoreError> {
        self.write(domain, |tx, domain| Box::pin(update(tx, domain))).await
    }
    async fn delete_domain(&self, id: &DomainId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(delete_domain(tx, key))).await
    }

    async fn create_project(&self, project: Project) -> Result<Project, StoreError> {
        self.write(project, |tx, project| Box::pin(create(tx, project))).await
    }
    async fn get_project(&self, id: &ProjectId) -> Result<Project, StoreError> {
        self.read(&[Value::text(id)], |tx, key| Box::pin(get(tx, key))).await
    }
    async fn list_projects(&self, name: Option<&str>) -> Result<Vec<Project>, StoreError> {
        self.read(&name.map(folded), |tx, name| Box::pin(by_name(tx, name))).await
    }
    async fn update_project(&self, project: Project) -> Result<Project, StoreError> {
        self.write(project, |tx, project| Box::pin(update(tx, project))).await
    }
    async fn delete_project(&self, id: &ProjectId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(delete_with_grants::<Project>(tx, key, "project_id"))).await
    }

    async fn create_user(&self, user: User) -> Result<User, StoreError> {
        self.write(user, |tx, user| Box::pin(create(tx, user))).await
    }
    async fn get_user(&self, id: &UserId) -> Result<User, StoreError> {
        self.read(&[Value::text(id)], |tx, key| Box::pin(get(tx, key))).await
    }
    async fn list_users(&self, name: Option<&str>) -> Result<Vec<User>, StoreError> {
        self.read(&name.map(folded), |tx, name| Box::pin(by_name(tx, name))).await
    }
    async fn update_user(&self, user: User) -> Result<User, StoreError> {
        self.write(user, |tx, user| Box::pin(update(tx, user))).await
    }
    async fn delete_user(&self, id: &UserId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(delete_with_grants::<User>(tx, key, "user_id"))).await
    }

    async fn create_role(&self, role: Role) -> Result<Role, StoreError> {
        self.write(role, |tx, role| Box::pin(create(tx, role))).await
    }
    async fn get_role(&self, id: &RoleId) -> Result<Role, StoreError> {
        self.read(&[Value::text(id)], |tx, key| Box::pin(get(tx, key))).await
    }
    async fn list_roles(&self) -> Result<Vec<Role>, StoreError> {
        self.read(&None, |tx, name| Box::pin(by_name(tx, name))).await
    }
    async fn update_role(&self, role: Role) -> Result<Role, StoreError> {
        self.write(role, |tx, role| Box::pin(update(tx, role))).await
    }
    async fn delete_role(&self, id: &RoleId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(delete_with_grants::<Role>(tx, key, "role_id"))).await
    }

    async fn add_grant(&self, grant: Grant) -> Result<(), StoreError> {
        self.write(grant, |tx, grant| Box::pin(add_grant(tx, grant))).await
    }
    async fn remove_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        self.write(grant.clone(), |tx, grant| Box::pin(remove_grant(tx, grant))).await
    }
    async fn list_grants(&self, user: Option<&UserId>, project: Option<&ProjectId>) -> Result<Vec<Grant>, StoreError> {
        let mut which = Vec::new();
        which.extend(project.map(|project| Condition::Is("project_id", Value::text(project))));
        which.extend(user.map(|user| Condition::Is("user_id", Value::text(user))));
        let select = Select::new(Condition::All(which)).by(&["project_id", "user_id", "role_id"]);
        self.read(&select, |tx, select| Box::pin(list(tx, select))).await
    }

    async fn revoke_token(&self, audit_id: &str, expires: Timestamp) -> Result<(), StoreError> {
        self.write((audit_id.to_owned(), expires), |tx, input| Box::pin(tokens::revoke(tx, &input.0, input.1))).await
    }
    async fn list_revoked_tokens(&self, now: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let mut tokens = self.read(&(), |tx, ()| Box::pin(tokens::list_revoked(tx))).await?;
        if tokens.iter().any(|(_, expires)| *expires <= now) {
            self.write(now, |tx, now| Box::pin(tokens::forget_expired(tx, *now))).await?;
            tokens.retain(|(_, expires)| *expires > now);
        }
        Ok(tokens)
    }
    async fn identity_version(&self) -> Result<u64, StoreError> {
        let version = self.read(&(), |tx, ()| Box::pin(async move { tx.current(Sequence::Identity).await })).await?;
        Ok(version.unsigned_abs())
    }
}

/// What has an id, and a name that is unique in some place.
trait Named: Record + Clone {
    /// As it was given.
    fn name(&self) -> &str;
    /// The domain that it lives in, if any.
    fn domain(&self) -> Option<&DomainId>;

    fn key(&self) -> Vec<Value> {
        self.values().into_iter().take(Self::TABLE.key).collect()
    }

    /// What has the same name in the same place.
    fn same_name(&self) -> Select {
        let name = Condition::Is("folded_name", folded(self.name()).into());
        let domain = self.domain().map(|domain| Condition::Is("domain_id", Value::text(domain)));
        Select::new(Condition::All([name].into_iter().chain(domain).collect()))
    }
}

macro_rules! named {
    ($($record:ident: $domain:expr),+ $(,)?) => { $(
        impl Named for $record {
            fn name(&self) -> &str {
                &self.name
            }
            fn domain(&self) -> Option<&DomainId> {
                let domain: fn(&$record) -> Option<&DomainId> = $domain;
                domain(self)
            }
        }
    )+ };
}

named! {
    Domain: |_| None,
    Project: |project| Some(&project.domain_id),
    User: |user| Some(&user.domain_id),
    Role: |_| None,
}

async fn changed(tx: &mut dyn Transaction) -> Result<(), Fail> {
    tx.advance(Sequence::Identity, 1).await?;
    Ok(())
}

async fn get<R: Record>(tx: &mut dyn Transaction, key: &[Value]) -> Result<R, Fail> {
    Ok(need(tx, key, Lock::None).await?.record)
}

async fn by_name<R: Record>(tx: &mut dyn Transaction, name: &Option<String>) -> Result<Vec<R>, Fail> {
    let which = name.as_ref().map(|name| Condition::Is("folded_name", name.as_str().into()));
    let select = which.map_or_else(Select::all, Select::new);
    list(tx, &select.by(&["folded_name", "id"])).await
}

async fn check_name<R: Named>(tx: &mut dyn Transaction, record: &R) -> Result<(), Fail> {
    let other = first::<R>(tx, record.same_name(), Lock::None).await?;
    if other.is_some_and(|other| other.record.key() != record.key()) {
        return Err(duplicate(R::TABLE.kind, "name", record.name()));
    }
    Ok(())
}

/// The domain must exist, and stay until this is written.
async fn check_domain<R: Named>(tx: &mut dyn Transaction, record: &R) -> Result<(), Fail> {
    if let Some(domain) = record.domain() {
        need::<Domain>(tx, &[Value::text(domain)], Lock::ForUpdate).await?;
    }
    Ok(())
}

async fn create<R: Named>(tx: &mut dyn Transaction, record: &R) -> Result<R, Fail> {
    let key = record.key();
    if find::<R>(tx, &key, Lock::None).await?.is_some() {
        return Err(duplicate(R::TABLE.kind, "id", R::TABLE.key_text(&key)));
    }
    check_domain(tx, record).await?;
    check_name(tx, record).await?;
    add(tx, record).await?;
    changed(tx).await?;
    Ok(record.clone())
}

async fn update<R: Named>(tx: &mut dyn Transaction, record: &R) -> Result<R, Fail> {
    let old = need::<R>(tx, &record.key(), Lock::ForUpdate).await?;
    if old.record.domain() != record.domain() {
        check_domain(tx, record).await?;
    }
    check_name(tx, record).await?;
    replace_or_race(tx, record, old.generation).await?;
    changed(tx).await?;
    Ok(record.clone())
}

async fn delete_domain(tx: &mut dyn Transaction, key: &[Value; 1]) -> Result<(), Fail> {
    need::<Domain>(tx, key, Lock::ForUpdate).await?;
    let inside = || Select::new(Condition::Is("domain_id", key[0].clone()));
    let project = first::<Project>(tx, inside(), Lock::None).await?;
    let user = first::<User>(tx, inside(), Lock::None).await?;
    if project.is_some() || user.is_some() {
        return Err(conflict::<Domain>(key));
    }
    remove_existing::<Domain>(tx, key).await?;
    changed(tx).await
}

async fn delete_with_grants<R: Record>(
    tx: &mut dyn Transaction,
    key: &[Value; 1],
    column: &'static str,
) -> Result<(), Fail> {
    remove_existing::<R>(tx, key).await?;
    tx.delete(Grant::TABLE, &Condition::Is(column, key[0].clone())).await?;
    changed(tx).await
}

async fn add_grant(tx: &mut dyn Transaction, grant: &Grant) -> Result<(), Fail> {
    need::<Project>(tx, &[Value::text(&grant.project_id)], Lock::ForUpdate).await?;
    need::<User>(tx, &[Value::text(&grant.user_id)], Lock::ForUpdate).await?;
    need::<Role>(tx, &[Value::text(&grant.role_id)], Lock::ForUpdate).await?;
    if find::<Grant>(tx, &grant.values(), Lock::None).await?.is_some() {
        return Ok(());
    }
    add(tx, grant).await?;
    changed(tx).await
}

async fn remove_grant(tx: &mut dyn Transaction, grant: &Grant) -> Result<(), Fail> {
    if !remove::<Grant>(tx, &grant.values()).await? {
        return Err(super::not_found::<Grant>(&grant.values()));
    }
    changed(tx).await
}
