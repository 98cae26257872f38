//! What changes while it is looked at.

use super::*;

/// Hosts beside which the records of a server change between any two readings.
struct Restless {
    hosts: FakeHosts,
    store: Arc<dyn Store>,
    server: InstanceId,
    readings: AtomicUsize,
    destroyed: AtomicUsize,
}

#[async_trait]
impl Hosts for Restless {
    async fn read(&self) -> Vec<HostFacts> {
        self.readings.fetch_add(1, Ordering::SeqCst);
        let server = self.store.get_instance(self.server).await.unwrap();
        self.store.update_instance(server).await.unwrap();
        self.hosts.read().await
    }

    async fn destroy_guest(&self, _: &HostName, _: InstanceId) -> Result<(), BoxError> {
        self.destroyed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_from_one_reading_to_the_next_is_not_judged() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::PoweringOff);
    still.store.update_instance(server.clone()).await.unwrap();
    let restless = Arc::new(Restless {
        hosts: FakeHosts(still.hosts.clone()),
        store: still.store.clone(),
        server: server.id,
        readings: AtomicUsize::new(0),
        destroyed: AtomicUsize::new(0),
    });
    let checker = Checker { hosts: restless.clone(), ..still.checker.clone() };
    let once = checker.read().await.unwrap();
    assert_eq!(examine(&once).len(), 1, "one reading alone would tell it");
    restless.readings.store(0, Ordering::SeqCst);
    assert_eq!(checker.check().await.unwrap().violations, []);
    assert_eq!(restless.readings.load(Ordering::SeqCst), checker.options.readings);
}

/// Hosts that bring the owner of a stray back just after they were read.
struct Returning {
    inner: Restless,
    host: HostName,
}

#[async_trait]
impl Hosts for Returning {
    async fn read(&self) -> Vec<HostFacts> {
        let read = self.inner.hosts.read().await;
        // After the check's two readings, before the repair.
        if self.inner.readings.fetch_add(1, Ordering::SeqCst) == 1 {
            let mut server = self.inner.store.get_instance(self.inner.server).await.unwrap();
            server.host = Some(self.host.clone());
            server.vm_state = VmState::Active;
            self.inner.store.update_instance(server).await.unwrap();
        }
        read
    }

    async fn destroy_guest(&self, host: &HostName, instance: InstanceId) -> Result<(), BoxError> {
        self.inner.destroy_guest(host, instance).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_stray_whose_owner_came_back_is_left_alone() {
    let still = Still::new().await;
    let (mut server, host) = (still.server(), still.server().host.unwrap());
    // As a build that failed leaves it.
    (server.host, server.launched_at, server.vm_state) = (None, None, VmState::Error);
    still.store.update_instance(server.clone()).await.unwrap();
    let inner = Restless {
        hosts: FakeHosts(still.hosts.clone()),
        store: still.store.clone(),
        server: server.id,
        readings: AtomicUsize::new(0),
        destroyed: AtomicUsize::new(0),
    };
    let returning = Arc::new(Returning { inner, host });
    let checker = Checker { hosts: returning.clone(), ..still.checker.clone() };
    let (tried, after) = checker.repair().await.unwrap();
    assert!(tried.iter().any(|mended| matches!(mended.repair, Repair::DestroyGuest { .. })), "{tried:#?}");
    assert_eq!(returning.inner.destroyed.load(Ordering::SeqCst), 0);
    assert_eq!(after.violations, []);
}
