//! What the API and other control services ask: checks, and writes what is to be together with the task that does it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{VolumeId, VolumeSnapshotId, VolumeTaskId};
use nova_core::rpc::volume::{FinishTask, RunTask, RunTaskRequest};
use nova_core::volume::{Pool, PoolName, Snapshot, Volume, VolumeProblem, VolumeTask, VolumeWork};
use nova_db::{ListQuery, ServiceQuery, SnapshotField, Store, StoreError, VolumeCommit, VolumeTaskField, Write};
use nova_queue::RpcClient;

use super::{VolumeError, VolumeOptions};

/// How often a change is tried again when somebody else changed the thing meanwhile.
const ATTEMPTS: usize = 16;

/// What the manager is built from.
pub struct VolumeParts {
    /// The books.
    pub store: Arc<dyn Store>,
    /// Where images come from; `None`: volumes are not made of images.
    pub images: Option<Arc<dyn ImageService>>,
    /// The way to volume hosts.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: VolumeOptions,
}

/// The built-in volume service, as others ask it. Callers say who they are; what is another project's is not there.
pub struct VolumeManager {
    pub(crate) parts: VolumeParts,
}

impl std::fmt::Debug for VolumeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeManager").field("options", &self.parts.options).finish_non_exhaustive()
    }
}

/// What is to be written, and what its task is, if it needs one.
pub(crate) struct Intent {
    pub(crate) commit: VolumeCommit,
    pub(crate) task: Option<VolumeTask>,
}

/// How much of a volume is read before a change is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its row.
    Bare,
    /// And what hangs on it.
    Whole,
}

/// A volume and what hangs on it; all of it still so if a commit of its row succeeds.
pub(crate) struct Seen {
    pub(crate) volume: Volume,
    pub(crate) snapshots: Vec<Snapshot>,
    /// What is being done to it.
    pub(crate) tasks: Vec<VolumeTask>,
    /// How many volumes are being made of it or of its snapshots.
    pub(crate) readers: usize,
    pub(crate) pool: Option<Pool>,
}

impl Intent {
    /// A change of a volume alone.
    pub(crate) fn of(volume: Volume) -> Self {
        let commit = VolumeCommit { volumes: vec![Write::Update(volume)], ..VolumeCommit::default() };
        Self { commit, task: None }
    }
}

impl VolumeManager {
    /// Over these collaborators.
    pub fn new(parts: VolumeParts) -> Self {
        Self { parts }
    }

    /// The books.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// Settings.
    pub fn options(&self) -> &VolumeOptions {
        &self.parts.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// A volume that the caller may know of.
    ///
    /// # Errors
    /// As if there were none, if it is another project's.
    pub async fn volume(&self, context: &RequestContext, id: VolumeId) -> Result<Volume, VolumeError> {
        let volume =
            self.parts.store.get_volume(id).await.map_err(|error| absent(error, VolumeProblem::no_volume(id)))?;
        if volume.project_id == context.project_id || context.is_admin() {
            return Ok(volume);
        }
        Err(VolumeProblem::no_volume(id).into())
    }

    /// A snapshot that the caller may know of.
    ///
    /// # Errors
    /// As if there were none, if it is another project's.
    pub async fn snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Result<Snapshot, VolumeError> {
        let found = self.parts.store.get_volume_snapshot(id).await;
        let snapshot = found.map_err(|error| absent(error, VolumeProblem::no_snapshot(id)))?;
        if snapshot.project_id == context.project_id || context.is_admin() {
            return Ok(snapshot);
        }
        Err(VolumeProblem::no_snapshot(id).into())
    }

    /// Pools whose hosts are there and enabled, by name.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn live_pools(&self) -> Result<Vec<Pool>, StoreError> {
        let now = self.now();
        let down = SignedDuration::try_from(self.parts.options.down_time).unwrap_or(SignedDuration::MAX);
        let query = ServiceQuery { binary: Some("nova-volume".to_owned()), ..ServiceQuery::default() };
        let services = self.parts.store.find_services(&query).await?;
        let mut pools = self.parts.store.list_volume_pools().await?;
        pools.retain(|pool| {
            let service = services.iter().find(|service| service.host == pool.name.host);
            now.duration_since(pool.heard_at) <= down && service.is_none_or(|s| !s.disabled && !s.forced_down)
        });
        Ok(pools)
    }

    /// The pool that a volume is in.
    pub(crate) async fn pool_of(&self, volume: &Volume) -> Result<Option<Pool>, StoreError> {
        let Some(name) = &volume.pool else { return Ok(None) };
        let pools = self.parts.store.list_volume_pools().await?;
        Ok(pools.into_iter().find(|pool| pool.name == *name))
    }

    /// A task of the host that has the pool.
    pub(crate) fn task(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        pool: &PoolName,
        work: VolumeWork,
    ) -> VolumeTask {
        let now = self.now();
        let deadline = SignedDuration::try_from(self.parts.options.deadline).unwrap_or(SignedDuration::MAX);
        VolumeTask {
            id: VolumeTaskId::generate(&*self.parts.entropy),
            volume_id: volume,
            host: pool.host.clone(),
            work,
            context: context.clone(),
            owner: None,
            lease_until: now,
            deadline: now.saturating_add(deadline).unwrap_or(Timestamp::MAX),
            attempts: 0,
            waiter: None,
            created_at: now,
            generation: 0,
        }
    }

    async fn look(&self, context: &RequestContext, id: VolumeId, look: Look) -> Result<Seen, VolumeError> {
        let volume = self.volume(context, id).await?;
        let volume = Volume { updated_at: self.now(), ..volume };
        if look == Look::Bare {
            return Ok(Seen { volume, snapshots: Vec::new(), tasks: Vec::new(), readers: 0, pool: None });
        }
        let store = &self.parts.store;
        Ok(Seen {
            snapshots: store.list_volume_snapshots(&ListQuery::of(SnapshotField::VolumeId, id)).await?,
            tasks: store.list_volume_tasks(&ListQuery::of(VolumeTaskField::VolumeId, id)).await?,
            readers: store.list_volume_tasks(&ListQuery::of(VolumeTaskField::SourceId, id)).await?.len(),
            pool: self.pool_of(&volume).await?,
            volume,
        })
    }

    /// Changes a volume: what is to be written is decided from what is read, again if it changed meanwhile. Its host is told
    /// of the task.
    pub(crate) async fn change<F>(
        &self,
        context: &RequestContext,
        id: VolumeId,
        look: Look,
        decide: F,
    ) -> Result<(Volume, Option<VolumeTask>), VolumeError>
    where
        F: Fn(Seen) -> Result<Intent, VolumeProblem> + Send + Sync,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let seen = self.look(context, id, look).await?;
            let read = seen.volume.clone();
            let mut intent = decide(seen)?;
            intent.commit.tasks.extend(intent.task.clone().map(Write::Create));
            match self.parts.store.commit_volumes(intent.commit).await {
                Ok(written) => {
                    let volume = written.into_iter().find(|volume| volume.id == id).unwrap_or(read);
                    if let Some(task) = &intent.task {
                        self.tell(task).await;
                    }
                    return Ok((volume, intent.task));
                }
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the host of its task. If that does not work, it finds it by itself.
    pub(crate) async fn tell(&self, task: &VolumeTask) {
        let request = RunTaskRequest { task: task.id };
        if let Err(error) = self.parts.rpc.cast_to::<RunTask>(&task.host, &task.context, &request).await {
            tracing::debug!(host = %task.host, task = %task.id, "it will find its task by itself: {}", chain(&error));
        }
    }

    /// Waits until the host is done with a task, well or not.
    pub(crate) async fn finish(&self, task: &VolumeTask) -> Result<(), VolumeError> {
        let rpc = self.parts.rpc.clone().with_call_timeout(self.parts.options.patience);
        let request = RunTaskRequest { task: task.id };
        if let Err(error) = rpc.call_to::<FinishTask>(&task.host, &task.context, &request).await {
            tracing::warn!(host = %task.host, task = %task.id, "no answer to a task: {}", chain(&error));
        }
        // Only the store is believed: the answer may be lost, or the work put off.
        match self.parts.store.get_volume_task(task.id).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(VolumeError::NoAnswer { host: task.host.to_string() }),
        }
    }
}

/// What is not there, in Cinder's words.
pub(crate) fn absent(error: StoreError, problem: VolumeProblem) -> VolumeError {
    match error {
        StoreError::NotFound { .. } => problem.into(),
        other => other.into(),
    }
}
