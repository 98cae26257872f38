//! Volumes: `volumes/<operation>/<backend>`.
//!
//! `create_empty` is the whole of a new volume, from the call to the API's service until the volume is available: two
//! transactions and a lease, a message, and a driver that takes no time; at most 50 ms are allowed. `list_page` is a page of
//! fifty of 1,000 volumes, as the API shows them but for the JSON; at most 20 ms are allowed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use nova::volume::driver::MemoryVolumes;
use nova::volume::service::{HostOptions, Parts, VolumeHost};
use nova::volume::{CreateVolume, VolumeManager, VolumeOptions, VolumeParts};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, ProjectId, RequestId};
use nova_core::rpc::{Role, Sender};
use nova_core::volume::{VolumeLimits, VolumeStatus};
use nova_db::{Direction, ListQuery, OpenOptions, Store, VolumeField, open};
use nova_queue::{MemoryBus, MessageBus, RpcClient, RunningService};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const BACKENDS: [&str; 2] = ["memory", "sqlite"];
/// Volumes in the store that is read from.
const VOLUMES: usize = 1000;
/// Volumes of a page of a list.
const PAGE: usize = 50;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A volume service with its host.
struct World {
    runtime: Runtime,
    store: Arc<dyn Store>,
    manager: VolumeManager,
    context: RequestContext,
    _running: RunningService,
    _folder: TempDir,
}

impl World {
    fn new(backend: &str) -> Result<Self, Box<dyn Error>> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = TempDir::new()?;
        let url = match backend {
            "sqlite" => format!("sqlite:{}", folder.path().join("nova.db").display()),
            other => format!("{other}:"),
        };
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock), Arc::new(SeededEntropy::new(1)));
        let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(clock.clone()));
        let client = |role| {
            let sender = Sender { role, host: HostName::new("store1") };
            RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone())
        };
        let (store, running) = runtime.block_on(async {
            let store = open(&url, &OpenOptions::default()).await?;
            store.migrate().await?;
            let host = VolumeHost::new(Parts {
                store: store.clone(),
                driver: Arc::new(MemoryVolumes::new(1 << 30, 1.0)),
                images: None,
                grants: None,
                rpc: client(Role::Volume),
                clock: clock.clone(),
                entropy: entropy.clone(),
                options: HostOptions { host: HostName::new("store1"), ..HostOptions::default() },
            });
            let running = host.start().await?;
            while store.list_volume_pools().await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Box<dyn Error>>((store, running))
        })?;
        let manager = VolumeManager::new(VolumeParts {
            store: store.clone(),
            images: None,
            rpc: client(Role::Api),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: VolumeOptions { limits: VolumeLimits(Default::default()), ..VolumeOptions::default() },
        });
        let context = RequestContext {
            project_id: ProjectId::new("p"),
            ..RequestContext::internal(RequestId::generate(&*entropy))
        };
        Ok(Self { runtime, store, manager, context, _running: running, _folder: folder })
    }

    async fn create(&self) -> Result<(), Box<dyn Error>> {
        let new = CreateVolume { size_gb: Some(1), name: "disk".to_owned(), ..CreateVolume::default() };
        let id = self.manager.create(&self.context, new).await?.id;
        while self.store.get_volume(id).await?.status != VolumeStatus::Available {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    async fn list_page(&self) -> Result<usize, Box<dyn Error>> {
        let query = ListQuery {
            visible_to: Some(self.context.project_id.clone()),
            sort: vec![(VolumeField::CreatedAt, Direction::Descending), (VolumeField::Id, Direction::Descending)],
            limit: Some(PAGE + 1),
            ..ListQuery::default()
        };
        let types = self.store.list_volume_types().await?;
        Ok(self.store.list_volumes(&query).await?.len() + types.len())
    }
}

fn volumes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("volumes");
    group.sample_size(20);
    for backend in BACKENDS {
        let world = match World::new(backend) {
            Ok(world) => world,
            Err(error) => {
                eprintln!("volumes on {backend}: {error}");
                continue;
            }
        };
        let mut failed = None;
        group.bench_function(BenchmarkId::new("create_empty", backend), |bencher| {
            bencher.iter(|| failed = world.runtime.block_on(world.create()).err().or(failed.take()));
        });
        let filled: Result<(), Box<dyn Error>> = world.runtime.block_on(async {
            for _ in 0..VOLUMES {
                world.create().await?;
            }
            Ok(())
        });
        failed = failed.or(filled.err());
        group.bench_function(BenchmarkId::new("list_page", backend), |bencher| {
            bencher.iter(|| failed = world.runtime.block_on(world.list_page()).err().or(failed.take()));
        });
        if let Some(error) = failed {
            eprintln!("volumes on {backend}: what was measured means nothing: {error}");
        }
    }
    group.finish();
}

criterion_group!(benches, volumes);
criterion_main!(benches);
