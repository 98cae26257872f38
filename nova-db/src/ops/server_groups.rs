//! Server groups.

use std::collections::BTreeMap;

use async_trait::async_trait;
use nova_core::host::Allocation;
use nova_core::ids::{InstanceId, ProjectId, ServerGroupId};
use nova_core::instance::Instance;
use nova_core::quota::{Over, QuotaExceeded};
use nova_core::server_group::{GroupPlacement, ServerGroup};

use super::{RowStore, add, add_all, find, list, need, not_found, remove_existing, replace_or_race};
use crate::records::GroupMember;
use crate::rows::{Backend, Condition, Fail, Found, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{Booking, GroupLimits, JoinGroup, Page, ServerGroupStore, StoreError};

/// Ids that one question names at most: databases bound the values of a statement.
const AT_ONCE: usize = 500;

#[async_trait]
impl<B: Backend> ServerGroupStore for RowStore<B> {
    async fn create_server_group(&self, group: ServerGroup, limits: GroupLimits) -> Result<ServerGroup, StoreError> {
        self.write((group, limits), |tx, input| Box::pin(create(tx, &input.0, input.1))).await
    }

    async fn get_server_group(&self, id: ServerGroupId) -> Result<ServerGroup, StoreError> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }

    async fn list_server_groups(
        &self,
        project: Option<&ProjectId>,
        page: Page,
    ) -> Result<Vec<ServerGroup>, StoreError> {
        let input = (project.cloned(), page);
        self.read(&input, |tx, (project, page)| Box::pin(list_groups(tx, project.as_ref(), *page))).await
    }

    async fn count_server_groups(&self, project: &ProjectId) -> Result<u64, StoreError> {
        self.read(project, |tx, project| Box::pin(count(tx, project))).await
    }

    async fn delete_server_group(&self, id: ServerGroupId) -> Result<(), StoreError> {
        self.write(id, |tx, id| Box::pin(delete(tx, *id))).await
    }

    async fn group_placement(&self, id: ServerGroupId) -> Result<Option<GroupPlacement>, StoreError> {
        self.read(&id, |tx, id| Box::pin(read_placement(tx, *id))).await
    }
}

fn of_project(project: &ProjectId) -> Select {
    Select::new(Condition::Is("project_id", Value::text(project)))
}

async fn count(tx: &mut dyn Transaction, project: &ProjectId) -> Result<u64, Fail> {
    Ok(tx.select(ServerGroup::TABLE, &of_project(project), Lock::None).await?.len() as u64)
}

async fn create(tx: &mut dyn Transaction, group: &ServerGroup, limits: GroupLimits) -> Result<ServerGroup, Fail> {
    // First the number: two that create at once wait for each other here, so that the count below is true.
    let number = tx.advance(Sequence::ServerGroup, 1).await?;
    if let Some(limit) = limits.project {
        let used = count(tx, &group.project_id).await?;
        check_limit("server_groups", used, 1, limit)?;
    }
    if let Some(limit) = limits.user {
        let groups: Vec<ServerGroup> = list(tx, &of_project(&group.project_id)).await?;
        let used = groups.iter().filter(|other| other.user_id == group.user_id).count();
        check_limit("server_groups", used as u64, 1, limit)?;
    }
    let new = ServerGroup { number, members: Vec::new(), ..group.clone() };
    add(tx, &new).await?;
    Ok(new)
}

fn check_limit(resource: &str, used: u64, requested: u64, limit: u64) -> Result<(), Fail> {
    if used + requested <= limit {
        return Ok(());
    }
    let over = Over { resource: resource.to_owned(), requested, used, limit };
    Err(StoreError::Quota(QuotaExceeded(vec![over])).into())
}

async fn members(tx: &mut dyn Transaction, which: Condition) -> Result<Vec<GroupMember>, Fail> {
    let mut members: Vec<GroupMember> = list(tx, &Select::new(which)).await?;
    members.sort_by_key(|member| (member.number, member.instance_id));
    Ok(members)
}

fn of_group(id: ServerGroupId) -> Condition {
    Condition::Is("group_id", Value::text(id))
}

async fn get(tx: &mut dyn Transaction, id: ServerGroupId) -> Result<ServerGroup, Fail> {
    let mut group = need::<ServerGroup>(tx, &[Value::text(id)], Lock::None).await?.record;
    group.members = members(tx, of_group(id)).await?.into_iter().map(|member| member.instance_id).collect();
    Ok(group)
}

/// Members are read of the groups of the page alone.
async fn list_groups(
    tx: &mut dyn Transaction,
    project: Option<&ProjectId>,
    page: Page,
) -> Result<Vec<ServerGroup>, Fail> {
    let which = project.map_or_else(Select::all, of_project).by(&["number"]);
    let limit = page.limit.map(|limit| page.offset.saturating_add(limit));
    let mut groups: Vec<ServerGroup> = list(tx, &Select { limit, ..which }).await?;
    groups.drain(..page.offset.min(groups.len()));
    let ids: Vec<Value> = groups.iter().map(|group| Value::text(group.id)).collect();
    let mut by_group: BTreeMap<ServerGroupId, Vec<InstanceId>> = BTreeMap::new();
    for some in ids.chunks(AT_ONCE) {
        for member in members(tx, Condition::In("group_id", some.to_vec())).await? {
            by_group.entry(member.group_id).or_default().push(member.instance_id);
        }
    }
    for group in &mut groups {
        group.members = by_group.remove(&group.id).unwrap_or_default();
    }
    Ok(groups)
}

async fn delete(tx: &mut dyn Transaction, id: ServerGroupId) -> Result<(), Fail> {
    remove_existing::<ServerGroup>(tx, &[Value::text(id)]).await?;
    tx.delete(GroupMember::TABLE, &of_group(id)).await?;
    Ok(())
}

/// New instances, all of one project and user, become members. Raising the group's generation makes others that join or
/// delete the group at the same time try again.
pub(super) async fn join(tx: &mut dyn Transaction, join: &JoinGroup, instances: &[Instance]) -> Result<(), Fail> {
    let Some(one) = instances.first() else { return Ok(()) };
    let key = [Value::text(join.id)];
    let Found { record: group, generation } = need::<ServerGroup>(tx, &key, Lock::ForUpdate).await?;
    if group.project_id != one.project_id {
        return Err(not_found::<ServerGroup>(&key));
    }
    replace_or_race(tx, &group, generation).await?;
    if let Some(limit) = join.member_limit {
        let known = members(tx, of_group(join.id)).await?;
        let used = known.iter().filter(|member| member.user_id == one.user_id).count() as u64;
        check_limit("server_group_members", used, instances.len() as u64, limit)?;
    }
    let new: Vec<GroupMember> = instances
        .iter()
        .map(|instance| GroupMember {
            group_id: join.id,
            instance_id: instance.id,
            user_id: instance.user_id.clone(),
            number: instance.number,
        })
        .collect();
    add_all(tx, &new).await
}

/// A deleted instance is a member of nothing.
pub(super) async fn leave(tx: &mut dyn Transaction, instance: InstanceId) -> Result<(), Fail> {
    tx.delete(GroupMember::TABLE, &Condition::Is("instance_id", Value::text(instance))).await?;
    Ok(())
}

async fn read_placement(tx: &mut dyn Transaction, id: ServerGroupId) -> Result<Option<GroupPlacement>, Fail> {
    let Some(found) = find::<ServerGroup>(tx, &[Value::text(id)], Lock::None).await? else { return Ok(None) };
    placement(tx, &found.record).await.map(Some)
}

/// Where the members are: what is booked, so that those on their way count, too.
async fn placement(tx: &mut dyn Transaction, group: &ServerGroup) -> Result<GroupPlacement, Fail> {
    let ids: Vec<Value> =
        members(tx, of_group(group.id)).await?.iter().map(|member| Value::text(member.instance_id)).collect();
    let mut placement = GroupPlacement::new(group, Default::default());
    for some in ids.chunks(AT_ONCE) {
        let booked: Vec<Allocation> = list(tx, &Select::new(Condition::In("instance_id", some.to_vec()))).await?;
        placement.members.extend(booked.into_iter().map(|allocation| (allocation.instance_id, allocation.host)));
    }
    Ok(placement)
}

/// Does the policy of the booking's group still allow the host? Of two bookings of one group at the same time, the
/// second waits for the first or tries again, and sees it.
pub(super) async fn check_rule(tx: &mut dyn Transaction, booking: &Booking) -> Result<(), Fail> {
    let Some(id) = booking.group else { return Ok(()) };
    let Some(found) = find::<ServerGroup>(tx, &[Value::text(id)], Lock::ForUpdate).await? else { return Ok(()) };
    if found.record.policy.is_soft() {
        return Ok(());
    }
    replace_or_race(tx, &found.record, found.generation).await?;
    let (instance, host) = (booking.allocation.instance_id, &booking.allocation.host);
    let placement = placement(tx, &found.record).await?.without(instance);
    if placement.admits(host) {
        return Ok(());
    }
    let reason = format!("server group {id} has the policy {}", placement.policy);
    Err(StoreError::Unsuitable { host: host.to_string(), reason }.into())
}
