//! The conductor as a service: what it is made of, what it listens to, what it does by itself.

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::network::NetworkService;
use nova_core::request::RequestSpec;
use nova_core::rpc::conductor::{
    CacheImage, ConfirmStrays, GetMetadata, Heartbeat, ListAssigned, ListInterfaces, ListVolumes, Ping,
    ReportPowerStates, ReportProgress, ReportStep, ReportUpload, SetPassword, StartTask, StartTaskRequest,
};
use nova_core::task::{Event, Task, Work};
use nova_core::volume::BlockStorage;
use nova_db::{Store, StoreError};
use nova_queue::{BusError, Dispatcher, HandlerError, RpcClient, RunningService, Subscription};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::ConductorOptions;
use super::beats::Beats;
use super::context::TaskContext;
use super::engine::DriveError;
use super::news::AllocationsNews;
use super::ports::Plugged;
use super::recent::Recent;
use super::steps::{self, Services, StepError};
use crate::image::GrantKey;
use crate::live::Live;
use crate::metadata::MetadataManager;

/// Messages in hand at once. Some wait for a scheduler or a slow store, and must not keep heartbeats out.
const PREFETCH: usize = 1024;

/// Why a conductor could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConductorError {
    /// The bus.
    #[error("the message bus cannot be used")]
    Bus(#[source] BusError),
    /// The store.
    #[error("the store cannot be used")]
    Store(#[source] StoreError),
}

/// What a conductor is built from.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the ids of what it begins by itself.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: Live<ConductorOptions>,
}

/// The conductor. Cheap to clone; several may run against one store.
#[derive(Clone)]
pub struct Conductor {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) services: Services,
    pub(super) news: Arc<AllocationsNews>,
    pub(super) plugged: Arc<Plugged>,
    pub(super) beats: Arc<Beats>,
    pub(super) recent: Arc<Recent>,
}

impl Conductor {
    /// A conductor that does nothing yet.
    pub fn new(parts: Parts) -> Self {
        // A key of its own, until the start tells the one that all services share.
        let mut key = [0; 32];
        parts.entropy.fill(&mut key);
        let services = Services {
            store: Arc::clone(&parts.store),
            rpc: parts.rpc,
            options: parts.options,
            image_grants: GrantKey::new(&key),
            network: None,
            volumes: None,
        };
        Self {
            store: parts.store,
            clock: parts.clock,
            entropy: parts.entropy,
            services,
            news: Arc::default(),
            plugged: Arc::default(),
            beats: Arc::default(),
            recent: Arc::default(),
        }
    }

    /// The same, with interfaces for servers.
    #[must_use]
    pub fn with_network(mut self, network: Arc<dyn NetworkService>) -> Self {
        self.services.network = Some(network);
        self
    }

    /// The same, with volumes for servers.
    #[must_use]
    pub fn with_block_storage(mut self, volumes: Arc<dyn BlockStorage>) -> Self {
        self.services.volumes = Some(volumes);
        self
    }

    /// Reads the key of image grants, listens on the bus and looks for tasks that nobody works on.
    ///
    /// # Errors
    /// [`ConductorError`].
    pub async fn start(mut self) -> Result<RunningService, ConductorError> {
        let grants = GrantKey::shared(&*self.store, &*self.entropy).await;
        self.services.image_grants = grants.map_err(ConductorError::Store)?;
        let subscription = Subscription { prefetch: PREFETCH, ..Subscription::shared("conductor") };
        let serving = self.services.rpc.bus().serve(subscription, Arc::new(self.dispatcher())).await;
        let serving = serving.map_err(ConductorError::Bus)?;
        let running = RunningService::new(serving, &CancellationToken::new());
        let teller = self.clone();
        let running = running.with(|stop| async move { teller.tell_until(stop).await });
        let (writer, looker, periodic) = (self.clone(), self.clone(), self.clone());
        let running = running.with(|stop| async move { writer.write_plugged_until(stop).await });
        let running = running.with(|stop| async move { looker.sweep_orphans_until(stop).await });
        let running = running.with(|stop| async move { periodic.look_for_due_until(stop).await });
        let listener = self.clone();
        let running = running.with(|stop| async move { listener.write_beats_until(stop).await });
        let comparer = self.clone();
        let running = running.with(|stop| async move { comparer.sweep_attachments_until(stop).await });
        let drainer = self.clone();
        let running = running.with(|stop| async move { drainer.drain_until(stop).await });
        Ok(running.with(|stop| async move { self.sweep_until(stop).await }))
    }

    async fn tell_until(&self, stop: CancellationToken) {
        let window = self.services.options.get().news_window;
        self.news.tell_until(stop, &self.services.rpc, &*self.entropy, window).await;
    }

    fn dispatcher(&self) -> Dispatcher {
        let [a, b, c, d, e, f, g, h, i, j, k] = std::array::from_fn(|_| self.clone());
        let (metadata, passwords) = (self.metadata(), self.metadata());
        Dispatcher::new("conductor")
            .method::<StartTask, _, _>(move |_, request| {
                let conductor = a.clone();
                async move { conductor.start_tasks(request).await }
            })
            .method::<ReportStep, _, _>(move |incoming, request| {
                let conductor = b.clone();
                async move { conductor.report_step(incoming, request).await }
            })
            .method::<Heartbeat, _, _>(move |incoming, request| {
                let conductor = c.clone();
                async move { conductor.heartbeat(incoming, request).await }
            })
            .method::<ListAssigned, _, _>(move |incoming, request| {
                let conductor = d.clone();
                async move { conductor.list_assigned(incoming, request).await }
            })
            .method::<ReportPowerStates, _, _>(move |incoming, request| {
                let conductor = e.clone();
                async move { conductor.report_power_states(incoming, request).await }
            })
            .method::<ConfirmStrays, _, _>(move |incoming, request| {
                let conductor = f.clone();
                async move { conductor.confirm_strays(incoming, request).await }
            })
            .method::<CacheImage, _, _>(move |incoming, request| {
                let conductor = g.clone();
                async move { conductor.cache_image(incoming, request).await }
            })
            .method::<ReportProgress, _, _>(move |incoming, request| {
                let conductor = h.clone();
                async move { conductor.report_progress(incoming, request).await }
            })
            .method::<ReportUpload, _, _>(move |incoming, request| {
                let conductor = j.clone();
                async move { conductor.report_upload(incoming, request).await }
            })
            .method::<ListInterfaces, _, _>(move |incoming, request| {
                let conductor = i.clone();
                async move { conductor.list_interfaces(incoming, request).await }
            })
            .method::<ListVolumes, _, _>(move |incoming, request| {
                let conductor = k.clone();
                async move { conductor.list_volumes(incoming, request).await }
            })
            .method::<GetMetadata, _, _>(move |incoming, request| {
                let metadata = metadata.clone();
                async move { metadata.answer(incoming, request).await }
            })
            .method::<SetPassword, _, _>(move |incoming, request| {
                let metadata = passwords.clone();
                async move { metadata.take_password(incoming, request).await }
            })
            .method::<Ping, _, _>(|_, ()| async { Ok(()) })
    }

    /// Knows what guests may learn.
    fn metadata(&self) -> MetadataManager {
        let (store, network) = (self.store.clone(), self.services.network.clone());
        MetadataManager::new(store, network, self.entropy.clone(), self.services.options.get().guests.clone())
    }

    /// Takes up new tasks; the servers of one request are placed together, all or none.
    async fn start_tasks(&self, request: StartTaskRequest) -> Result<(), HandlerError> {
        let mut contexts = Vec::new();
        for id in request.tasks {
            match self.store.get_task(id).await {
                // Taken up before: its lease says whose it is.
                Ok(task) if task.owner.is_some() => {}
                Ok(task) => match self.open(task).await {
                    Ok(mut cx) => {
                        cx.heard.clone_from(&request.plugged);
                        contexts.push(cx);
                    }
                    Err(error) => tracing::warn!(task = %id, "not taken up now: {error}"),
                },
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(HandlerError::Again(chain(&error))),
            }
        }
        if contexts.len() > 1 {
            self.place_together(&mut contexts).await;
        }
        let mut drives = JoinSet::new();
        for cx in contexts {
            let (conductor, id) = (self.clone(), cx.task.id);
            drives.spawn(async move { (id, conductor.drive_woken(cx).await) }.in_current_span());
        }
        while let Some(driven) = drives.join_next().await {
            match driven {
                Ok((_, Ok(()) | Err(DriveError::Overtaken))) => {}
                Ok((id, Err(DriveError::Later(why)))) => tracing::warn!(task = %id, "will be taken up again: {why}"),
                Err(error) => tracing::error!("a task's drive died: {error}"),
            }
        }
        Ok(())
    }

    /// Drives a task that somebody told of. One that was just being left to wait is looked at once more: what it waits for may
    /// have come after it was looked for.
    async fn drive_woken(&self, cx: TaskContext) -> Result<(), DriveError> {
        let id = cx.task.id;
        match self.drive(cx).await {
            Err(DriveError::Overtaken) => {}
            driven => return driven,
        }
        match self.store.get_task(id).await {
            Ok(task) if task.owner.is_none() => self.drive(self.open(task).await?).await,
            Ok(_) => Err(DriveError::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    async fn place_together(&self, contexts: &mut [TaskContext]) {
        let builds: Vec<_> = contexts.iter().filter(|cx| unplaced(&cx.task)).map(|cx| cx.instance.id).collect();
        let Some(first) = contexts.iter().find(|cx| unplaced(&cx.task)) else { return };
        let Work::Build { spec, .. } = &first.task.work else { return };
        let alternates = self.services.options.get().max_attempts.saturating_sub(1);
        let spec = RequestSpec { instances: builds, alternates, ..spec.clone() };
        match steps::select(&self.services, first, &spec).await {
            Ok(selections) => {
                for chosen in selections {
                    let cx = contexts.iter_mut().find(|cx| cx.instance.id == chosen.instance_id);
                    if let Some(Work::Build { selection, .. }) = cx.map(|cx| &mut cx.task.work) {
                        *selection = Some(chosen);
                    }
                }
            }
            Err(StepError::Failed(failure)) => {
                for cx in contexts.iter_mut().filter(|cx| unplaced(&cx.task)) {
                    cx.task.record("schedule", Event::Begun);
                    cx.task.record("schedule", Event::Failed(failure.clone()));
                }
            }
            // Each of them will find out by itself and be taken up later.
            Err(StepError::Later(why)) => tracing::warn!("the request was not placed now: {why}"),
        }
    }
}

fn unplaced(task: &Task) -> bool {
    task.log.is_empty() && matches!(&task.work, Work::Build { selection: None, .. })
}
