//! The store's part of a boot and of the commonest reads: `store/<operation>/<backend>`.
//!
//! `create`, `claim` and `result` are the three durable transactions of a boot, one server after the other;
//! `create_together` is a hundred creates at once. `get` and `list_page` read from a store of some hundred servers, a
//! page being fifty from the middle. SQLite is a file in the folder for temporary files, with all the safety that it has
//! in service.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, Bencher, BenchmarkGroup, BenchmarkId, Criterion};
use nova_benches::rows::{self, Rows};
use nova_core::ids::{InstanceId, ProjectId};
use nova_core::instance::Instance;
use nova_core::task::Task;
use nova_db::{InstanceQuery, NewInstances, OpenOptions, Store, StoreError, TaskCommit, open};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const BACKENDS: [&str; 2] = ["memory", "sqlite"];

/// Servers in the store that is read from.
const FLEET: usize = 200;

/// Servers of a page of a list.
const PAGE: usize = 50;

/// Creates that are under way together.
const TOGETHER: usize = 100;

/// The first failure of a benchmark; what is measured after it means nothing.
type Outcome = Result<(), Box<dyn Error>>;

fn keep<T>(outcome: &mut Outcome, result: Result<T, Box<dyn Error>>) {
    if let (Ok(()), Err(error)) = (&outcome, result) {
        *outcome = Err(error);
    }
}

/// A store with one host and some servers, and what it lives in.
struct Opened {
    runtime: Runtime,
    store: Arc<dyn Store>,
    rows: Rows,
    servers: Vec<InstanceId>,
    /// Where SQLite's file is; gone with it.
    _folder: TempDir,
}

impl Opened {
    fn new(backend: &str, servers: usize) -> Result<Self, Box<dyn Error>> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = TempDir::new()?;
        let url = match backend {
            "sqlite" => format!("sqlite:{}", folder.path().join("nova.db").display()),
            other => format!("{other}:"),
        };
        let rows = Rows::default();
        let store = runtime.block_on(async {
            let store = open(&url, &OpenOptions::default()).await?;
            store.migrate().await?;
            store.put_node(rows.node()).await?;
            Ok::<_, StoreError>(store)
        })?;
        let mut opened = Self { runtime, store, rows, servers: Vec::new(), _folder: folder };
        for _ in 0..servers {
            opened.servers.push(opened.created()?.1.id);
        }
        Ok(opened)
    }

    /// A server that was asked for, with its task.
    fn created(&self) -> Result<(Task, Instance), Box<dyn Error>> {
        let made = self.runtime.block_on(self.store.create_instances(self.rows.request()))?;
        let instance = made.into_iter().next().ok_or("no server was made")?;
        let tasks = self.runtime.block_on(self.store.list_tasks(Some(instance.id)))?;
        Ok((tasks.into_iter().next().ok_or("no task was made")?, instance))
    }

    /// The last transaction of a boot whose others are done.
    fn spawned(&self) -> Result<TaskCommit, Box<dyn Error>> {
        let (task, instance) = self.created()?;
        let (id, request) = (instance.id, instance.request_id.clone());
        let claimed = self.runtime.block_on(self.store.commit_task(rows::claim(task, instance)))?;
        let action = self.runtime.block_on(self.store.get_action(id, &request))?;
        Ok(rows::result(claimed.task, claimed.instance.ok_or("the server was not written")?, action))
    }

    fn commit(&self, commit: Result<TaskCommit, Box<dyn Error>>) -> Outcome {
        self.runtime.block_on(self.store.commit_task(commit?))?;
        Ok(())
    }
}

fn create(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let create = |request| Ok(opened.runtime.block_on(opened.store.create_instances(request))?);
    bencher.iter_batched(|| opened.rows.request(), |r| keep(outcome, create(r)), BatchSize::PerIteration);
}

fn create_together(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let create = |requests: Vec<NewInstances>| {
        opened.runtime.block_on(async {
            let mut running = JoinSet::new();
            for request in requests {
                let store = Arc::clone(&opened.store);
                running.spawn(async move { store.create_instances(request).await });
            }
            while let Some(created) = running.join_next().await {
                created??;
            }
            Ok(())
        })
    };
    let requests = || (0..TOGETHER).map(|_| opened.rows.request()).collect();
    bencher.iter_batched(requests, |r| keep(outcome, create(r)), BatchSize::PerIteration);
}

fn claim(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let ready = || opened.created().map(|(task, instance)| rows::claim(task, instance));
    bencher.iter_batched(ready, |commit| keep(outcome, opened.commit(commit)), BatchSize::PerIteration);
}

fn result(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let ready = || opened.spawned();
    bencher.iter_batched(ready, |commit| keep(outcome, opened.commit(commit)), BatchSize::PerIteration);
}

fn get(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let mut ids = opened.servers.iter().cycle();
    let mut get = || {
        let id = ids.next().ok_or("the store has no servers")?;
        Ok(opened.runtime.block_on(opened.store.get_instance(*id))?)
    };
    bencher.iter(|| keep(outcome, get()));
}

fn list_page(opened: &Opened, bencher: &mut Bencher<'_, WallTime>, outcome: &mut Outcome) {
    let mut query = InstanceQuery { project_id: Some(ProjectId::from(rows::PROJECT)), ..InstanceQuery::default() };
    match opened.runtime.block_on(opened.store.list_instances(&query)) {
        Ok(all) => query.after = all.get(FLEET / 2).map(|instance| instance.id),
        Err(error) => keep::<()>(outcome, Err(error.into())),
    }
    query.limit = Some(PAGE);
    let list = || match opened.runtime.block_on(opened.store.list_instances(&query))?.len() {
        PAGE => Ok(()),
        other => Err(format!("a page of {other} servers").into()),
    };
    bencher.iter(|| keep(outcome, list()));
}

/// What is measured, and in a store of how many servers.
struct Operation {
    name: &'static str,
    servers: usize,
    run: fn(&Opened, &mut Bencher<'_, WallTime>, &mut Outcome),
}

const OPERATIONS: [Operation; 6] = [
    Operation { name: "create", servers: 0, run: create },
    Operation { name: "create_together", servers: 0, run: create_together },
    Operation { name: "claim", servers: 0, run: claim },
    Operation { name: "result", servers: 0, run: result },
    Operation { name: "get", servers: FLEET, run: get },
    Operation { name: "list_page", servers: FLEET, run: list_page },
];

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, operation: &Operation) -> Outcome {
    for backend in BACKENDS {
        // Opened when first needed, so that benchmarks which are filtered out cost nothing.
        let mut opened = None;
        let mut outcome = Ok(());
        group.bench_function(BenchmarkId::new(operation.name, backend), |bencher| {
            match opened.get_or_insert_with(|| Opened::new(backend, operation.servers)) {
                Ok(opened) => (operation.run)(opened, bencher, &mut outcome),
                // Criterion wants something to be measured.
                Err(_) => bencher.iter(|| ()),
            }
        });
        opened.transpose()?;
        outcome?;
    }
    Ok(())
}

fn main() -> Outcome {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("store");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500)).sample_size(10);
    for operation in &OPERATIONS {
        measure(&mut group, operation)?;
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
