//! The conductor dies at each moment of what it does with interfaces: another one ends it, and no port, address or
//! interface is left without an owner.

use std::sync::Arc;
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_core::task::Work;
use nova_db::{Deleted, InstanceQuery};
use nova_virt::{ErrorKind, Operation};

use crate::support::mortal::Life;
use crate::support::networks::{by, on, these};
use crate::support::{Cloud, CloudOptions};

/// More moments than any of the operations has.
const MOMENTS: u32 = 200;

/// What is done while the conductor dies. A server with one interface is there before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Boot,
    BootElsewhere,
    BootNowhere,
    BootWithoutAddresses,
    BootAndDelete,
    Delete,
    Attach,
    AttachInVain,
    Detach,
}

impl Deed {
    async fn done(self, cloud: &Cloud, there: InstanceId) {
        let flavor = cloud.flavor(1, 256);
        let networks = cloud.store.list_networks(&Default::default()).await.unwrap();
        let [wide, narrow] = [networks[0].id, networks[1].id];
        let mine = cloud.ports().await.into_iter().find(|port| port.name == "mine").unwrap();
        let failing = |times: usize| {
            for host in cloud.hosts.values().take(times) {
                host.fail_next(Operation::Spawn, 9, ErrorKind::Failed);
            }
        };
        match self {
            Self::Boot | Self::BootElsewhere | Self::BootNowhere | Self::BootWithoutAddresses => {
                failing(match self {
                    Self::BootElsewhere => 2,
                    Self::BootNowhere => 3,
                    _ => 0,
                });
                let second = if self == Self::BootWithoutAddresses { narrow } else { wide };
                cloud.boot_on(these([on(wide), by(mine.id), on(second)]), flavor).await;
            }
            Self::BootAndDelete => {
                let id = cloud.boot_on(these([on(wide), by(mine.id)]), flavor).await;
                cloud.pass(Duration::from_millis(3)).await;
                assert!(cloud.act(id, Action::Delete).await);
            }
            Self::Delete => assert!(cloud.act(there, Action::Delete).await),
            Self::Attach | Self::AttachInVain => {
                if self == Self::AttachInVain {
                    cloud.hosts.values().for_each(|host| {
                        host.fail_next_after_effect(Operation::AttachInterface, 9, ErrorKind::Failed);
                    });
                }
                for interface in [on(wide), by(mine.id)] {
                    cloud.change_interface(there, Work::AttachInterface { interface }).await.unwrap();
                }
            }
            Self::Detach => {
                let port_id = cloud.ports_of(there).await[0].id;
                cloud.change_interface(there, Work::DetachInterface { port_id }).await.unwrap();
            }
        }
    }

    /// How the servers are in the end: the one that was there, and the one that was asked for.
    fn end(self) -> (VmState, Option<VmState>) {
        match self {
            Self::Boot | Self::BootElsewhere => (VmState::Active, Some(VmState::Active)),
            Self::BootNowhere | Self::BootWithoutAddresses => (VmState::Active, Some(VmState::Error)),
            Self::BootAndDelete => (VmState::Active, Some(VmState::Deleted)),
            Self::Delete => (VmState::Deleted, None),
            Self::Attach | Self::AttachInVain | Self::Detach => (VmState::Active, None),
        }
    }
}

/// False: it was over before the conductor had to die.
async fn dies_at(moment: u32, deed: Deed) -> bool {
    let mut cloud = Cloud::start(CloudOptions::default()).await;
    let wide = cloud.add_network("10.0.0.0/24").await;
    let narrow = cloud.add_network("10.1.0.0/30").await;
    cloud.add_port(wide.id).await;
    let there = cloud.boot_on(these([on(narrow.id)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    cloud.pass(Duration::from_secs(1)).await;
    let life = Life::of(moment);
    cloud.replace_conductor("mortal", Some(Arc::clone(&life))).await;
    deed.done(&cloud, there).await;
    cloud.pass(Duration::from_secs(3)).await;
    let died = life.is_over();
    cloud.replace_conductor("heir", None).await;
    cloud.settle().await;
    // Long enough to look for ports of servers that have ended, and for the hosts to compare.
    cloud.pass(Duration::from_secs(700)).await;
    cloud.check().await;
    let query = InstanceQuery { deleted: Deleted::Any, ..InstanceQuery::default() };
    let all = cloud.store.list_instances(&query).await.unwrap();
    let state = |server: &Instance| server.vm_state;
    let first = all.iter().find(|server| server.id == there).map(state).unwrap();
    let asked = all.iter().find(|server| server.id != there).map(state);
    assert_eq!((first, asked), deed.end(), "{deed:?} at moment {moment}");
    let interfaces = cloud.ports_of(there).await.len();
    let expected = match deed {
        Deed::Delete | Deed::Detach => 0,
        Deed::Attach => 3,
        _ => 1,
    };
    assert_eq!(interfaces, expected, "{deed:?} at moment {moment}");
    cloud.stop().await;
    died
}

async fn dies_at_each_moment(deed: Deed) {
    for moment in 1..MOMENTS {
        if !dies_at(moment, deed).await {
            assert!(moment > 4, "{deed:?} has only {moment} moments");
            return;
        }
    }
    panic!("{deed:?} never ends");
}

macro_rules! deeds {
    ($($name:ident: $deed:ident),+ $(,)?) => { $(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            dies_at_each_moment(Deed::$deed).await;
        }
    )+ };
}

deeds! {
    a_boot_survives_its_conductor: Boot,
    a_boot_that_tries_the_next_host_survives_its_conductor: BootElsewhere,
    a_boot_that_no_host_can_do_survives_its_conductor: BootNowhere,
    a_boot_without_addresses_survives_its_conductor: BootWithoutAddresses,
    a_boot_that_is_deleted_survives_its_conductor: BootAndDelete,
    a_deletion_survives_its_conductor: Delete,
    plugging_in_survives_its_conductor: Attach,
    plugging_in_in_vain_survives_its_conductor: AttachInVain,
    plugging_out_survives_its_conductor: Detach,
}
