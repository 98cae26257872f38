//! Each move, cut off everywhere: each of the driver's operations fails before and after its effect, orders come twice,
//! conductor, source, destination and volume host die at each moment, broker and database go away, the server is deleted in the
//! midst of it. Once without volumes and once with them. After each the server is
//! in a state that it may be in, at most one copy runs, what is booked is what is there, and nothing is left.

mod deed;

use std::time::Duration;

use nova_core::state::{Action, VmState};
use nova_queue::Chances;
use nova_virt::{ErrorKind, Hypervisor};

use crate::life_sweep::{Sweep, sweep_of};
use crate::support::mortal::Life;
use crate::support::outage::Gone;
pub(crate) use deed::What;
use deed::{Deed, OPERATIONS};

/// More moments than any of the moves has.
const MOMENTS: u32 = 150;
/// More messages, questions and transactions than any of them takes.
const CUTS: u32 = 600;
/// More calls of the volume host's driver than any of them makes.
const CALLS: usize = 20;

/// How soon a host has removed what it is told to remove; it compares every minute.
const SOON: Duration = Duration::from_secs(5);

use VmState as V;

impl Deed {
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
        let begun = cloud.store.list_tasks(Some(id)).await.unwrap();
        let Some(Sweep::Moves(kinds)) = begun.first().map(|task| sweep_of(&task.work)) else { panic!("{begun:?}") };
        assert!(kinds.contains(&self.what), "it is a move of another kind: {begun:?}");
        let server = self.judge(&cloud, id, "twice").await;
        assert_eq!((server.vm_state, server.fault), (self.what.well(), None), "{self:?}");
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
            assert_eq!(server.vm_state, self.what.well(), "{self:?} at {moment}: {:?}", server.fault);
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
                (What::Revert, V::Resized),
                (What::RevertHere, V::Resized),
                (What::Unshelve, V::ShelvedOffloaded),
            ]
            .contains(&(self.what, server.vm_state))
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

    /// OSSA-2015-015, -2015-017, -2016-011 (row 13): nothing of it is left on either host.
    async fn is_deleted_meanwhile(self) {
        for wait in [0, 3, 8, 15, 25, 40, 2000] {
            let (cloud, id) = self.cloud().await;
            assert!(self.begins(&cloud, id).await, "{self:?}");
            cloud.pass(Duration::from_millis(wait)).await;
            assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
            cloud.settle().await;
            if self.what != What::Evacuate {
                // They are told, and do not find out only when they compare what they have.
                cloud.pass(SOON).await;
                for (name, host) in &cloud.hosts {
                    let guests = host.list().await.unwrap().iter().filter(|guest| guest.instance == id).count();
                    let stashes = host.list_stashes().await.unwrap().iter().filter(|one| one.instance == id).count();
                    assert_eq!((guests, stashes), (0, 0), "{self:?} after {wait} ms: left on {name}");
                }
            }
            for host in cloud.hosts.keys() {
                cloud.force_down(host, false).await;
            }
            cloud.pass(Duration::from_secs(250)).await;
            assert!(cloud.get(id).await.is_deleted(), "{self:?} after {wait} ms");
            self.is_over(cloud, id).await;
        }
    }

    /// The volume host is stopped at each call of its driver, before and after it, and started anew.
    async fn volume_host_dies(self) {
        for call in 0..CALLS {
            for after in [false, true] {
                let (mut cloud, id) = self.cloud().await;
                let driver = cloud.mortal_volume_host(call, after).await;
                assert!(self.begins(&cloud, id).await, "{self:?}");
                cloud.pass(Duration::from_secs(3)).await;
                let died = driver.is_dead();
                cloud.replace_volume_host(None).await;
                let server = self.judge(&cloud, id, &format!("the volume host died at {call}, after: {after}")).await;
                assert_eq!(server.vm_state, self.what.well(), "{self:?} at {call}: {:?}", server.fault);
                self.end(cloud, id).await;
                if !died {
                    return;
                }
            }
        }
        panic!("{self:?} never ends");
    }

    /// Broker or database go away in the midst of each message, or of each question and transaction, and come back.
    async fn is_cut_off(self, from: Vec<Gone>) {
        for gone in from {
            for moment in 0.. {
                assert!(moment < CUTS, "{self:?} never ends");
                let (cloud, id) = self.cloud().await;
                let (before, how) = (cloud.get(id).await.vm_state, format!("{gone:?} at {moment}"));
                let asked = cloud.action(id, self.what.body());
                let ((status, text), went) = gone.in_the_midst(&cloud, moment, asked).await;
                assert!(matches!(status, 200 | 202 | 204 | 500 | 503), "{self:?}, {how}: {status} {text}");
                cloud.settle().await;
                // It may not have been accepted.
                if status >= 500 && cloud.get(id).await.vm_state == before {
                    assert!(self.begins(&cloud, id).await, "{self:?}, {how}");
                }
                let server = self.judge(&cloud, id, &how).await;
                assert_eq!(server.vm_state, self.what.well(), "{self:?}, {how}: {:?}", server.fault);
                self.end(cloud, id).await;
                if !went {
                    break;
                }
            }
        }
    }
}

/// What holds for every one.
macro_rules! sweeps {
    ($what:ident, $cargo:ident) => {
        use super::super::deed::{Cargo, Deed, What};

        const DEED: Deed = Deed { what: What::$what, cargo: Cargo::$cargo };

        #[tokio::test(start_paused = true)]
        async fn survives_its_driver() {
            DEED.driver_fails().await;
        }

        #[tokio::test(start_paused = true)]
        async fn is_done_once() {
            DEED.orders_come_twice().await;
        }

        #[tokio::test(start_paused = true)]
        async fn survives_its_conductor() {
            DEED.conductor_dies().await;
        }

        #[tokio::test(start_paused = true)]
        async fn gives_way_to_a_deletion() {
            DEED.is_deleted_meanwhile().await;
        }
    };
}

macro_rules! deeds {
    ($cargo:ident: $($name:ident: $what:ident),+ $(,)?) => { $(
        mod $name {
            sweeps!($what, $cargo);

            #[tokio::test(start_paused = true)]
            async fn survives_its_source() {
                DEED.host_dies(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_its_destination() {
                DEED.host_dies(false).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_source_stays_away() {
                DEED.host_is_away(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_destination_stays_away() {
                DEED.host_is_away(false).await;
            }
        }
    )+ };
}

/// What happens on one host, which is source and destination.
macro_rules! deeds_here {
    ($cargo:ident: $($name:ident: $what:ident),+ $(,)?) => { $(
        mod $name {
            sweeps!($what, $cargo);

            #[tokio::test(start_paused = true)]
            async fn survives_its_host() {
                DEED.host_dies(true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn survives_that_its_host_stays_away() {
                DEED.host_is_away(true).await;
            }
        }
    )+ };
}

/// And the volume host dies.
macro_rules! volume_hosts {
    ($($name:ident: $what:ident, $cargo:ident),+ $(,)?) => { $(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            use super::deed::{Cargo, Deed, What};
            Deed { what: What::$what, cargo: Cargo::$cargo }.volume_host_dies().await;
        }
    )+ };
}

/// And broker and database go away.
macro_rules! cut_off {
    ($($name:ident: $what:ident),+ $(,)?) => {
        use super::deed::{Cargo, Deed, What};
        use crate::support::outage::Gone;

        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                Deed { what: What::$what, cargo: Cargo::Volume }.is_cut_off(Gone::harshest()).await;
            }
        )+

        /// In each way.
        #[tokio::test(start_paused = true)]
        #[ignore = "takes minutes: for `make soak`"]
        async fn soak() {
            $( Deed { what: What::$what, cargo: Cargo::Volume }.is_cut_off(Gone::all()).await; )+
        }
    };
}

mod alone {
    deeds_here! { Nothing:
        resizing_here: ResizeHere,
        confirming_here: ConfirmHere,
        reverting_here: RevertHere,
        shelving_here: ShelveHere,
        offloading: Offload,
        unshelving_here: UnshelveHere,
    }

    deeds! { Nothing:
        resizing: Resize,
        migrating: Migrate,
        confirming: Confirm,
        reverting: Revert,
        migrating_alive: Live,
        evacuating: Evacuate,
        shelving: Shelve,
        unshelving: Unshelve,
    }
}

mod with_a_volume {
    deeds_here! { Volume:
        resizing_here: ResizeHere,
        confirming_here: ConfirmHere,
        reverting_here: RevertHere,
        shelving_here: ShelveHere,
        offloading: Offload,
        unshelving_here: UnshelveHere,
    }

    deeds! { Volume:
        migrating: Migrate,
        confirming: Confirm,
        reverting: Revert,
        migrating_alive: Live,
        evacuating: Evacuate,
        shelving: Shelve,
        unshelving: Unshelve,
    }

    volume_hosts! {
        migrating_survives_the_volume_host: Migrate, Volume,
        confirming_survives_the_volume_host: Confirm, Volume,
        reverting_survives_the_volume_host: Revert, Volume,
        migrating_alive_survives_the_volume_host: Live, Volume,
        evacuating_survives_the_volume_host: Evacuate, Volume,
        shelving_survives_the_volume_host: Shelve, Volume,
        unshelving_survives_the_volume_host: Unshelve, Volume,
    }
}

mod with_a_volume_cut_off {
    cut_off! {
        migrating: Migrate,
        confirming: Confirm,
        reverting: Revert,
        migrating_alive: Live,
        evacuating: Evacuate,
        shelving: Shelve,
        unshelving: Unshelve,
    }
}

mod from_a_volume {
    deeds! { Root:
        resizing: Resize,
        evacuating: Evacuate,
        shelving: Shelve,
        unshelving: Unshelve,
    }
}
