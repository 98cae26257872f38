//! Each move, cut off everywhere: each of the driver's operations fails before and after its effect, orders come twice,
//! conductor, source and destination die at each moment, the server is deleted in the midst of it. After each the server is
//! in a state that it may be in, at most one copy runs, what is booked is what is there, and nothing is left.

use std::time::Duration;

use nova_core::ids::{HostName, InstanceId};
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_queue::Chances;
use nova_virt::{ErrorKind, Operation};
use serde_json::{Value, json};

use crate::moves::live_migration;
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

/// More moments than any of the moves has.
const MOMENTS: u32 = 150;

use VmState as V;

/// What is done, and what may come of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Resize,
    ResizeHere,
    ConfirmHere,
    RevertHere,
    Migrate,
    Confirm,
    Revert,
    Live,
    Evacuate,
    Shelve,
    Unshelve,
}

/// Whatever of the driver is asked for in a move.
const OPERATIONS: &[Operation] = &[
    Operation::PowerOff,
    Operation::Stash,
    Operation::Spawn,
    Operation::Destroy,
    Operation::Unstash,
    Operation::DropStash,
    Operation::PowerOn,
    Operation::Snapshot,
    Operation::PrepareIncoming,
    Operation::LiveMigrate,
    Operation::AdoptIncoming,
];

impl Deed {
    fn body(self) -> Value {
        match self {
            Self::Resize | Self::ResizeHere => json!({"resize": {"flavorRef": "2-512"}}),
            Self::Migrate => json!({"migrate": null}),
            Self::Confirm | Self::ConfirmHere => json!({"confirmResize": null}),
            Self::Revert | Self::RevertHere => json!({"revertResize": null}),
            Self::Live => live_migration(),
            Self::Evacuate => json!({"evacuate": {}}),
            Self::Shelve => json!({"shelve": null}),
            Self::Unshelve => json!({"unshelve": null}),
        }
    }

    fn well(self) -> VmState {
        match self {
            Self::Resize | Self::ResizeHere | Self::Migrate => V::Resized,
            Self::Confirm | Self::ConfirmHere | Self::Revert | Self::RevertHere => V::Active,
            Self::Live | Self::Unshelve => V::Active,
            Self::Evacuate => V::Stopped,
            Self::Shelve => V::ShelvedOffloaded,
        }
    }

    fn ill(self) -> &'static [VmState] {
        match self {
            Self::Resize | Self::ResizeHere | Self::Migrate | Self::Live => &[V::Active],
            Self::Confirm | Self::ConfirmHere => &[V::Resized],
            Self::Revert | Self::RevertHere => &[V::Resized, V::Error],
            Self::Evacuate => &[V::Error],
            Self::Shelve => &[V::Active, V::Error],
            Self::Unshelve => &[V::ShelvedOffloaded],
        }
    }

    /// Does all of it happen on one host?
    const fn is_here(self) -> bool {
        matches!(self, Self::ResizeHere | Self::ConfirmHere | Self::RevertHere)
    }

    /// A cloud of two hosts in which it can be done, or of one.
    async fn cloud(self) -> (Cloud, InstanceId) {
        let hosts = if self.is_here() { 1 } else { 2 };
        let same_host = self.is_here();
        let cloud = Cloud::start(CloudOptions { hosts, same_host, ..CloudOptions::default() }).await;
        let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
        cloud.stored_flavor(2, 512).await;
        cloud.settle().await;
        let before = match self {
            Self::Confirm | Self::Revert | Self::ConfirmHere | Self::RevertHere => Some(Self::Resize),
            Self::Unshelve => Some(Self::Shelve),
            _ => None,
        };
        if let Some(before) = before {
            assert!(before.begins(&cloud, id).await);
            cloud.settle().await;
        }
        if self == Self::Evacuate {
            let host = cloud.get(id).await.host.unwrap();
            cloud.hosts[&host].lose_power();
            cloud.force_down(&host, true).await;
        }
        (cloud, id)
    }

    async fn begins(self, cloud: &Cloud, id: InstanceId) -> bool {
        let (status, text) = cloud.action(id, self.body()).await;
        assert!(matches!(status, 200 | 202 | 204 | 409), "{self:?}: {status} {text}");
        status != 409
    }

    /// Lets everything come to its end, and looks.
    async fn judge(self, cloud: &Cloud, id: InstanceId, how: &str) -> Instance {
        cloud.settle().await;
        if self == Self::Evacuate {
            // The dead host comes back, and finds what it has no more.
            for host in cloud.hosts.keys() {
                cloud.force_down(host, false).await;
            }
        }
        // Long enough for hosts to compare guests and power states.
        cloud.pass(Duration::from_secs(250)).await;
        cloud.settle().await;
        let server = cloud.get(id).await;
        let fine = server.vm_state == self.well() || self.ill().contains(&server.vm_state);
        assert!(fine, "{self:?}, {how}: {server:#?}");
        assert!(server.vm_state != V::Error || server.fault.is_some(), "{self:?}, {how}: an error that says nothing");
        let actions = cloud.store.list_actions(id).await.unwrap();
        assert!(actions.iter().all(|action| action.finished.is_some()), "{self:?}, {how}: {actions:#?}");
        if server.vm_state == V::Resized {
            assert!(Self::Confirm.begins(cloud, id).await, "{self:?}, {how}");
            cloud.settle().await;
            cloud.pass(Duration::from_secs(100)).await;
        }
        if server.vm_state != V::Error {
            cloud.check_still(id).await;
        }
        server
    }

    /// After whatever happened the server can be deleted, and nothing is left.
    async fn end(self, cloud: Cloud, id: InstanceId) {
        // What was to fail may fail now; a deletion that failed is asked for again.
        for _ in 0..3 {
            if !cloud.get(id).await.is_deleted() {
                assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
                cloud.settle().await;
            }
        }
        cloud.pass(Duration::from_secs(200)).await;
        assert!(cloud.get(id).await.is_deleted(), "{self:?}");
        for image in cloud.store.list_images().await.unwrap() {
            cloud.store.delete_image(image.id).await.unwrap();
        }
        cloud.check_still(id).await;
        cloud.stop().await;
    }

    async fn driver_fails(self) {
        for operation in OPERATIONS {
            for after in [false, true] {
                let (cloud, id) = self.cloud().await;
                for host in cloud.hosts.values() {
                    if after {
                        host.fail_next_after_effect(*operation, 1, ErrorKind::Failed);
                    } else {
                        host.fail_next(*operation, 1, ErrorKind::Failed);
                    }
                }
                assert!(self.begins(&cloud, id).await, "{self:?}");
                self.judge(&cloud, id, &format!("{operation:?} failed, after its effect: {after}")).await;
                self.end(cloud, id).await;
            }
        }
    }

    async fn orders_come_twice(self) {
        let (cloud, id) = self.cloud().await;
        cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
        assert!(self.begins(&cloud, id).await, "{self:?}");
        let server = self.judge(&cloud, id, "twice").await;
        assert_eq!((server.vm_state, server.fault), (self.well(), None), "{self:?}");
        self.end(cloud, id).await;
    }

    async fn conductor_dies(self) {
        for moment in 1..MOMENTS {
            let (mut cloud, id) = self.cloud().await;
            let life = Life::of(moment);
            cloud.replace_conductor("mortal", Some(life.clone())).await;
            assert!(self.begins(&cloud, id).await, "{self:?}");
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.replace_conductor("heir", None).await;
            let server = self.judge(&cloud, id, &format!("its conductor died at {moment}")).await;
            assert_eq!(server.vm_state, self.well(), "{self:?} at {moment}: {:?}", server.fault);
            self.end(cloud, id).await;
            if !died {
                return;
            }
        }
        panic!("{self:?} never ends");
    }

    async fn host_dies(self, source: bool) {
        for moment in 1..MOMENTS {
            let (mut cloud, id) = self.cloud().await;
            let Some(host) = self.host(&cloud, id, source).await else { return cloud.stop().await };
            let life = Life::long();
            cloud.start_agent(&host, Some(life.clone())).await;
            life.end_after(moment);
            assert!(self.begins(&cloud, id).await, "{self:?}");
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.start_agent(&host, None).await;
            self.judge(&cloud, id, &format!("its host (source: {source}) died at {moment}")).await;
            self.end(cloud, id).await;
            if !died {
                return;
            }
        }
        panic!("{self:?} never ends");
    }

    /// A host dies at each moment, and stays away until long after all is given up. Whatever is then of a server that is in
    /// ERROR for it, a hard reboot brings back; a way back that was not ended is ended when it is asked for again.
    async fn host_is_away(self, source: bool) {
        for moment in 1..MOMENTS {
            let (mut cloud, id) = self.cloud().await;
            let Some(host) = self.host(&cloud, id, source).await else { return cloud.stop().await };
            let life = Life::long();
            cloud.start_agent(&host, Some(life.clone())).await;
            life.end_after(moment);
            assert!(self.begins(&cloud, id).await, "{self:?}");
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.pass(Duration::from_secs(1800)).await;
            cloud.settle().await;
            cloud.start_agent(&host, None).await;
            cloud.pass(Duration::from_secs(250)).await;
            let server = cloud.get(id).await;
            let fault = server.fault.clone();
            if server.vm_state == V::Error {
                assert!(server.fault.is_some(), "{self:?} at {moment}: an error that says nothing");
                assert!(cloud.act(id, Action::RebootHard).await, "{self:?} at {moment}");
                cloud.settle().await;
                cloud.pass(Duration::from_secs(250)).await;
                let server = cloud.get(id).await;
                let why = (fault, server.fault);
                assert_eq!(server.vm_state, V::Active, "{self:?} at {moment}: {why:?}");
                cloud.check_still(id).await;
            } else if [
                (Self::Revert, V::Resized),
                (Self::RevertHere, V::Resized),
                (Self::Unshelve, V::ShelvedOffloaded),
            ]
            .contains(&(self, server.vm_state))
            {
                assert!(self.begins(&cloud, id).await, "{self:?} at {moment}");
                cloud.settle().await;
                cloud.pass(Duration::from_secs(250)).await;
                assert_eq!(cloud.get(id).await.vm_state, V::Active, "{self:?} at {moment}");
                cloud.check_still(id).await;
            } else {
                self.judge(&cloud, id, &format!("a host (source: {source}) was away from {moment}")).await;
            }
            self.end(cloud, id).await;
            if !died {
                return;
            }
        }
        panic!("{self:?} never ends");
    }

    /// The host that the server is on, or the other one.
    async fn host(self, cloud: &Cloud, id: InstanceId, source: bool) -> Option<HostName> {
        if self == Self::Evacuate && source {
            return None;
        }
        let on = cloud.get(id).await.host;
        cloud.hosts.keys().find(|host| (on.as_ref() == Some(*host)) == source).cloned()
    }

    /// OSSA-2015-015, -2015-017, -2016-011 (row 13): nothing of it is left on either host.
    async fn is_deleted_meanwhile(self) {
        for wait in [0, 3, 8, 15, 25, 40, 2000] {
            let (cloud, id) = self.cloud().await;
            assert!(self.begins(&cloud, id).await, "{self:?}");
            cloud.pass(Duration::from_millis(wait)).await;
            assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
            cloud.settle().await;
            for host in cloud.hosts.keys() {
                cloud.force_down(host, false).await;
            }
            cloud.pass(Duration::from_secs(250)).await;
            assert!(cloud.get(id).await.is_deleted(), "{self:?} after {wait} ms");
            for image in cloud.store.list_images().await.unwrap() {
                cloud.store.delete_image(image.id).await.unwrap();
            }
            cloud.check_still(id).await;
            cloud.stop().await;
        }
    }
}

/// What holds for every one.
macro_rules! sweeps {
    ($deed:ident) => {
        #[tokio::test(start_paused = true)]
        async fn survives_its_driver() {
            Deed::$deed.driver_fails().await;
        }

        #[tokio::test(start_paused = true)]
        async fn is_done_once() {
            Deed::$deed.orders_come_twice().await;
        }

        #[tokio::test(start_paused = true)]
        async fn survives_its_conductor() {
            Deed::$deed.conductor_dies().await;
        }

        #[tokio::test(start_paused = true)]
        async fn gives_way_to_a_deletion() {
            Deed::$deed.is_deleted_meanwhile().await;
        }
    };
}

macro_rules! deeds {
    ($($name:ident: $deed:ident),+ $(,)?) => { $(
        mod $name {
            use super::Deed;

            sweeps!($deed);

            #[tokio::test(start_paused = true)]
            async fn survives_its_source() {
                Deed::$deed.host_dies(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_its_destination() {
                Deed::$deed.host_dies(false).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_source_stays_away() {
                Deed::$deed.host_is_away(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_destination_stays_away() {
                Deed::$deed.host_is_away(false).await;
            }
        }
    )+ };
}

/// What happens on one host, which is source and destination.
macro_rules! deeds_here {
    ($($name:ident: $deed:ident),+ $(,)?) => { $(
        mod $name {
            use super::Deed;

            sweeps!($deed);

            #[tokio::test(start_paused = true)]
            async fn survives_its_host() {
                Deed::$deed.host_dies(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_host_stays_away() {
                Deed::$deed.host_is_away(true).await;
            }
        }
    )+ };
}

deeds_here! {
    resizing_here: ResizeHere,
    confirming_here: ConfirmHere,
    reverting_here: RevertHere,
}

deeds! {
    resizing: Resize,
    migrating: Migrate,
    confirming: Confirm,
    reverting: Revert,
    migrating_alive: Live,
    evacuating: Evacuate,
    shelving: Shelve,
    unshelving: Unshelve,
}
