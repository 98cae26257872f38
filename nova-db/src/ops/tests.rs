//! What operations cost, in calls of the row interface: each is one statement (`advance`: two).

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::task::Work;

use super::*;
use crate::conformance::fixtures::{FREE, Make, active, claim, deleted};
use crate::rows::{Row, Sequence, Table};
use crate::{
    ComputeStore, GatewayChange, HostStore, InstanceQuery, MemoryBackend, NetworkHostStore, NetworkStore, NewInterface,
    TaskCommit,
};

/// Counts the calls that go to the backend inside.
#[derive(Default)]
struct Counting {
    inner: MemoryBackend,
    calls: Arc<AtomicUsize>,
    joins: bool,
}

struct Counted<'a> {
    inner: Box<dyn Transaction + 'a>,
    calls: Arc<AtomicUsize>,
}

impl Counted<'_> {
    fn inner(&mut self, calls: usize) -> &mut dyn Transaction {
        self.calls.fetch_add(calls, Ordering::Relaxed);
        &mut *self.inner
    }
}

/// A borrowed transaction in a box.
struct Borrowed<'a>(&'a mut dyn Transaction);

macro_rules! forward {
    ($ty:ident, $self:ident, $calls:ident => $inner:expr) => {
        #[async_trait]
        impl Transaction for $ty<'_> {
            async fn get(&mut $self, table: &'static Table, key: &[Value], lock: Lock) -> Result<Option<Row>, Fail> {
                let $calls = 1;
                $inner.get(table, key, lock).await
            }
            async fn select(&mut $self, table: &'static Table, select: &Select, lock: Lock) -> Result<Vec<Row>, Fail> {
                let $calls = 1;
                $inner.select(table, select, lock).await
            }
            async fn insert(&mut $self, table: &'static Table, rows: Vec<Row>) -> Result<(), Fail> {
                let $calls = 1;
                $inner.insert(table, rows).await
            }
            async fn update(&mut $self, table: &'static Table, row: Row, expected: u64) -> Result<bool, Fail> {
                let $calls = 1;
                $inner.update(table, row, expected).await
            }
            async fn set(
                &mut $self,
                table: &'static Table,
                which: &Condition,
                values: &[(&'static str, Value)],
            ) -> Result<u64, Fail> {
                let $calls = 1;
                $inner.set(table, which, values).await
            }
            async fn delete(&mut $self, table: &'static Table, which: &Condition) -> Result<u64, Fail> {
                let $calls = 1;
                $inner.delete(table, which).await
            }
            async fn advance(&mut $self, sequence: Sequence, by: u32) -> Result<i64, Fail> {
                let $calls = 2;
                $inner.advance(sequence, by).await
            }
            async fn current(&mut $self, sequence: Sequence) -> Result<i64, Fail> {
                let $calls = 1;
                $inner.current(sequence).await
            }
        }
    };
}

forward!(Counted, self, calls => self.inner(calls));
forward!(Borrowed, self, _calls => self.0);

#[async_trait]
impl Backend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        Ok(Box::new(Counted { inner: self.inner.read().await?, calls: Arc::clone(&self.calls) }))
    }
    async fn write(&self, run: WriteOperation) -> Result<Output, StoreError> {
        let calls = Arc::clone(&self.calls);
        let counted = operation(move |tx| {
            let (run, calls) = (Arc::clone(&run), Arc::clone(&calls));
            Box::pin(async move { run(&mut Counted { inner: Box::new(Borrowed(tx)), calls }).await })
        });
        self.inner.write(counted).await
    }
    fn joins(&self) -> bool {
        self.joins
    }
    fn commits(&self) -> u64 {
        self.inner.commits()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        self.inner.schema_version().await
    }
    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await
    }
}

impl RowStore<Counting> {
    /// Calls since the last time.
    fn cost(&self) -> usize {
        self.backend.calls.swap(0, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn reads_are_one_statement() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    let instance = make.created(&store, make.instance("p")).await;
    store.cost();
    store.get_instance(instance.id).await.unwrap();
    assert_eq!(store.cost(), 1);
    store.list_instances(&InstanceQuery { limit: Some(10), ..InstanceQuery::default() }).await.unwrap();
    assert_eq!(store.cost(), 1);
    store.list_instances(&InstanceQuery { after: Some(instance.id), ..InstanceQuery::default() }).await.unwrap();
    assert_eq!(store.cost(), 2);
}

#[tokio::test]
async fn creating_many_costs_what_creating_one_does() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    make.created(&store, make.instance("p")).await;
    assert_eq!(store.cost(), 9);
    let request = make.request();
    let instances = (0..50).map(|_| Instance { request_id: request.clone(), ..make.instance("p") }).collect();
    store.create_instances(make.request_of(instances, FREE)).await.unwrap();
    assert_eq!(store.cost(), 9);
}

#[tokio::test]
async fn a_boot_and_a_delete_cost_few_statements() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let (instance, task) = make.building(&store).await;
    store.cost();
    let task = store.commit_task(claim(&task, &instance, "h1")).await.unwrap().task;
    assert_eq!(store.cost(), 6, "a claim: task, allocation, node");
    let (other, second) = make.building(&store).await;
    store.cost();
    let booked = Instance { availability_zone: Some("nova".into()), ..active(&other, "h1") };
    store.commit_task(TaskCommit { instance: Some(booked), ..claim(&second, &other, "h1") }).await.unwrap();
    assert_eq!(store.cost(), 9, "with the instance, and one question after the zone");
    let commit = TaskCommit { instance: Some(active(&instance, "h1")), done: true, ..TaskCommit::of(task) };
    let instance = store.commit_task(commit).await.unwrap().instance.unwrap();
    assert_eq!(store.cost(), 4, "a result: task, instance");
    let start = make.start(&instance, Work::Delete, true);
    let instance = store.start_task(start).await.unwrap();
    assert_eq!(store.cost(), 6, "a begin: instance, other tasks, action, task");
    let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    store.cost();
    let release = vec![HostName::from("h1")];
    let commit = TaskCommit { instance: Some(deleted(&instance, 9)), done: true, release, ..TaskCommit::of(task) };
    store.commit_task(commit).await.unwrap();
    assert_eq!(store.cost(), 10, "an end: task, instance, usage, allocation, node");
}

/// Neither the size of the subnet nor what is taken of it shows.
#[tokio::test]
async fn an_address_costs_the_same_however_many_there_are() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    for cidr in ["10.0.0.0/24", "10.0.0.0/8", "fd00::/64"] {
        let network = store.create_network(make.network("p"), None).await.unwrap();
        store.create_subnet(make.subnet(&network, cidr), None, None).await.unwrap();
        let mut ports = Vec::new();
        for _ in 0..40 {
            store.cost();
            ports.push(store.create_ports(vec![make.port(&network, "p")]).await.unwrap().remove(0));
            let cost = store.cost();
            assert!(
                cost <= 11,
                "a port: network, subnets, range twice, address, usage twice, port, version of the books twice; at the end \
                 of the pool one more: {cost}"
            );
        }
        for port in ports {
            store.cost();
            store.delete_port(port.id).await.unwrap();
            let cost = store.cost();
            assert!(
                cost <= 13,
                "port twice, address twice, ranges up to three times, floating addresses, groups, usage twice, version of \
                 the books twice: {cost}"
            );
        }
    }
}

/// Ports of one call share what they need: the network, its ranges, the count of their project.
#[tokio::test]
async fn many_ports_cost_what_few_do() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    let network = store.create_network(make.network("p"), None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, "10.0.0.0/16"), None, None).await.unwrap();
    store.cost();
    let ports = store.create_ports((0..50).map(|_| make.port(&network, "p")).collect()).await.unwrap();
    let cost = store.cost();
    assert!(
        cost <= 12,
        "network, subnets, range twice, addresses, usage twice, MAC addresses, ports, version of the books twice: {cost}"
    );
    let addresses: std::collections::BTreeSet<_> = ports.iter().map(|port| port.fixed_ips[0].ip_address).collect();
    assert_eq!(addresses.len(), 50);
    assert_eq!(store.count_addresses(subnet.id).await.unwrap().1, 50);
}

/// Callers who ask at once share a transaction; whoever cannot have it hears so, and the others have theirs.
#[tokio::test]
async fn joined_callers_each_hear_their_own_answer() {
    let store = Arc::new(RowStore::over(Counting { joins: true, ..Counting::default() }));
    let make = Make::new();
    let network = store.create_network(make.network("p"), None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, "10.0.0.0/16"), None, None).await.unwrap();
    let commits = store.commits();
    let at_once = |news: Vec<crate::NewPort>| {
        let store = Arc::clone(&store);
        async move {
            let mut each = tokio::task::JoinSet::new();
            for new in news {
                let store = Arc::clone(&store);
                each.spawn(async move { store.create_ports(vec![new]).await.map(|mut ports| ports.remove(0)) });
            }
            each.join_all().await
        }
    };
    let made = at_once((0..32).map(|_| make.port(&network, "p")).collect()).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert!(store.commits() - commits <= 3, "{} transactions for 32 callers", store.commits() - commits);

    // One has a MAC address that is taken, one is a project's that may have none.
    let mut news: Vec<_> = (0..8).map(|_| make.port(&network, "p")).collect();
    news[2].port.mac_address = made[0].mac_address;
    let mut poor = make.port(&network, "poor");
    poor.limit = Some(0);
    news.push(poor);
    let answers = at_once(news).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    let texts: Vec<String> = answers.iter().filter_map(|answer| answer.as_ref().err()).map(|e| e.to_string()).collect();
    assert!(texts.iter().any(|text| text.to_lowercase().contains("quota")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains(&made[0].mac_address.to_string())), "{texts:?}");

    // All go, one of them asked for twice: one of the two is told that there is none.
    let ids: Vec<_> = made.iter().chain(answers.iter().flatten()).map(|port| port.id).collect();
    let mut each = tokio::task::JoinSet::new();
    for id in ids.iter().chain([&ids[0]]).copied() {
        let store = Arc::clone(&store);
        each.spawn(async move { store.delete_port(id).await });
    }
    let gone = each.join_all().await;
    assert_eq!(gone.iter().filter(|answer| answer.is_err()).count(), 1);
    assert_eq!(store.count_addresses(subnet.id).await.unwrap(), ((1 << 16) - 2, 0));
}

/// A host's books: two questions without ports, its own and those that come; otherwise as many whatever the number of ports, up to some hundred.
#[tokio::test]
async fn a_hosts_books_cost_a_dozen_statements() {
    let store = RowStore::over(Counting::default());
    let make = Make::new();
    let scope = crate::HostScope { host: "h1".into(), network_node: None };
    let cost = async |store: &RowStore<Counting>| {
        let before = store.backend.calls.load(Ordering::Relaxed);
        let books = store.host_books(&scope).await.unwrap();
        (books.ports.len(), store.backend.calls.load(Ordering::Relaxed) - before)
    };
    assert_eq!(cost(&store).await, (0, 2));
    let network = store.create_network(make.network("p"), None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, "10.0.0.0/16"), None, None).await.unwrap();
    let router = store.create_router(make.router("p"), GatewayChange::Keep, None).await.unwrap();
    let port = Box::new(make.port(&network, "p"));
    store.add_router_interface(router.id, NewInterface::Subnet { subnet_id: subnet.id, port }).await.unwrap();
    let group = store.default_security_group(make.security_group("p", true)).await.unwrap();
    let mut seen = Vec::new();
    for count in [1, 299] {
        for _ in 0..count {
            let mut new = make.port(&network, "p");
            new.port.host = Some("h1".into());
            new.port.security_groups = vec![group.id];
            store.create_ports(vec![new]).await.unwrap();
        }
        seen.push(cost(&store).await);
    }
    assert_eq!(seen, [(2, 12), (301, 12)]);
}
