//! The books of volumes.

mod accounts;
mod commit;
mod pools;
mod recount;
mod tasks;
mod types;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::ids::{
    HostName, ProjectId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId, VolumeTransferId, VolumeTypeId,
};
use nova_core::volume::{
    Attachment, Pool, Snapshot, Transfer, Volume, VolumeProblem, VolumeQuotaKey, VolumeTask, VolumeType,
};

use super::network::query::own;
use super::{RowStore, list, need, not_found};
use crate::records::AttachmentRow;
use crate::rows::{Backend, Condition, Fail, Lock, Select, Transaction, Value};
use crate::{
    AttachmentField, ListQuery, SnapshotField, StoreError, TransferField, VolumeAccount, VolumeCommit, VolumeField,
    VolumeStore, VolumeTaskField,
};

type Answer<T> = Result<T, StoreError>;

impl From<VolumeProblem> for Fail {
    fn from(problem: VolumeProblem) -> Self {
        StoreError::Volume(problem).into()
    }
}

macro_rules! get {
    ($store:expr, $id:expr) => {{
        let key = [Value::text($id)];
        $store.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }};
}

#[async_trait]
impl<B: Backend> VolumeStore for RowStore<B> {
    async fn commit_volumes(&self, new: VolumeCommit) -> Answer<Vec<Volume>> {
        self.write(new, |tx, new| Box::pin(commit::commit(tx, new))).await
    }

    async fn get_volume(&self, id: VolumeId) -> Answer<Volume> {
        get!(self, id)
    }

    async fn list_volumes(&self, query: &ListQuery<VolumeField>) -> Answer<Vec<Volume>> {
        self.read(query, |tx, query| Box::pin(own(tx, query))).await
    }

    async fn get_volume_snapshot(&self, id: VolumeSnapshotId) -> Answer<Snapshot> {
        get!(self, id)
    }

    async fn list_volume_snapshots(&self, query: &ListQuery<SnapshotField>) -> Answer<Vec<Snapshot>> {
        self.read(query, |tx, query| Box::pin(own(tx, query))).await
    }

    async fn volume_of_attachment(&self, id: VolumeAttachmentId) -> Answer<Volume> {
        self.read(&id, |tx, id| Box::pin(of_attachment(tx, *id))).await
    }

    async fn list_volume_attachments(
        &self,
        query: &ListQuery<AttachmentField>,
    ) -> Answer<Vec<(ProjectId, Attachment)>> {
        self.read(query, |tx, query| Box::pin(attachments(tx, query))).await
    }

    async fn get_volume_transfer(&self, id: VolumeTransferId) -> Answer<Transfer> {
        get!(self, id)
    }

    async fn list_volume_transfers(&self, query: &ListQuery<TransferField>) -> Answer<Vec<Transfer>> {
        self.read(query, |tx, query| Box::pin(own(tx, query))).await
    }

    async fn get_volume_task(&self, id: VolumeTaskId) -> Answer<VolumeTask> {
        get!(self, id)
    }

    async fn list_volume_tasks(&self, query: &ListQuery<VolumeTaskField>) -> Answer<Vec<VolumeTask>> {
        self.read(query, |tx, query| Box::pin(own(tx, query))).await
    }

    async fn due_volume_tasks(&self, host: &HostName, now: Timestamp, limit: usize) -> Answer<Vec<VolumeTask>> {
        let which = Condition::All(vec![
            Condition::Is("host", Value::text(host)),
            Condition::AtMost("lease_until", now.into()),
        ]);
        let select = Select::new(which).by(&["lease_until", "id"]).limit(limit);
        self.read(&select, |tx, select| Box::pin(list(tx, select))).await
    }

    async fn overdue_volume_tasks(&self, now: Timestamp, limit: usize) -> Answer<Vec<VolumeTask>> {
        let which = Condition::All(vec![
            Condition::AtMost("deadline", now.into()),
            Condition::AtMost("lease_until", now.into()),
        ]);
        let select = Select::new(which).by(&["deadline", "id"]).limit(limit);
        self.read(&select, |tx, select| Box::pin(list(tx, select))).await
    }

    async fn claim_volume_task(
        &self,
        id: VolumeTaskId,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Answer<VolumeTask> {
        self.write((id, owner.to_owned(), now, until), |tx, (id, owner, now, until)| {
            Box::pin(tasks::claim(tx, *id, owner, *now, *until))
        })
        .await
    }

    async fn release_volume_task(&self, id: VolumeTaskId, owner: &str, now: Timestamp) -> Answer<()> {
        self.write((id, owner.to_owned(), now), |tx, (id, owner, now)| Box::pin(tasks::release(tx, *id, owner, *now)))
            .await
    }

    async fn create_volume_type(&self, new: VolumeType) -> Answer<VolumeType> {
        self.write(new, |tx, new| Box::pin(types::create(tx, new))).await
    }

    async fn get_volume_type(&self, id: VolumeTypeId) -> Answer<VolumeType> {
        get!(self, id)
    }

    async fn list_volume_types(&self) -> Answer<Vec<VolumeType>> {
        self.read(&Select::all().by(&["name"]), |tx, all| Box::pin(list(tx, all))).await
    }

    async fn update_volume_type(&self, changed: VolumeType) -> Answer<VolumeType> {
        self.write(changed, |tx, changed| Box::pin(types::update(tx, changed))).await
    }

    async fn delete_volume_type(&self, id: VolumeTypeId) -> Answer<()> {
        self.write(id, |tx, id| Box::pin(types::delete(tx, *id))).await
    }

    async fn report_volume_pool(&self, pool: Pool) -> Answer<Pool> {
        self.write(pool, |tx, pool| Box::pin(pools::report(tx, pool))).await
    }

    async fn list_volume_pools(&self) -> Answer<Vec<Pool>> {
        self.read(&Select::all().by(&["name"]), |tx, all| Box::pin(list(tx, all))).await
    }

    async fn volume_accounts(&self, project: &ProjectId) -> Answer<BTreeMap<VolumeQuotaKey, VolumeAccount>> {
        self.read(project, |tx, project| Box::pin(accounts::accounts(tx, project))).await
    }

    async fn set_volume_limits(
        &self,
        project: &ProjectId,
        limits: BTreeMap<VolumeQuotaKey, Option<Option<u64>>>,
    ) -> Answer<()> {
        self.write((project.clone(), limits), |tx, input| Box::pin(accounts::set_limits(tx, &input.0, &input.1))).await
    }

    async fn recount_volumes(&self) -> Answer<Vec<String>> {
        self.write((), |tx, ()| Box::pin(recount::recount(tx))).await
    }
}

async fn of_attachment(tx: &mut dyn Transaction, id: VolumeAttachmentId) -> Result<Volume, Fail> {
    let key = [Value::text(id)];
    let row = need::<AttachmentRow>(tx, &key, Lock::None).await?.record;
    let volume = need::<Volume>(tx, &[Value::text(row.volume_id)], Lock::None).await?.record;
    // Two questions: it may have gone between them.
    if volume.attachments.contains_key(&id) { Ok(volume) } else { Err(not_found::<AttachmentRow>(&key)) }
}

async fn attachments(
    tx: &mut dyn Transaction,
    query: &ListQuery<AttachmentField>,
) -> Result<Vec<(ProjectId, Attachment)>, Fail> {
    let rows: Vec<AttachmentRow> = own(tx, query).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: std::collections::BTreeSet<Value> = rows.iter().map(|row| Value::text(row.volume_id)).collect();
    let volumes: Vec<Volume> = list(tx, &Select::new(Condition::In("id", ids.into_iter().collect()))).await?;
    let by_id: BTreeMap<VolumeId, Volume> = volumes.into_iter().map(|volume| (volume.id, volume)).collect();
    let found = |row: AttachmentRow| {
        let volume = by_id.get(&row.volume_id)?;
        Some((volume.project_id.clone(), volume.attachments.get(&row.id)?.clone()))
    };
    Ok(rows.into_iter().filter_map(found).collect())
}
