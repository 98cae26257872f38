//! Maintenance: a host is emptied, server by server, and stays empty until its operator takes it back.
//!
//! What is being done is kept with the host's [`Service`](crate::host::Service), so that whoever goes on with it knows
//! where it was. Here is what may be done with a server, and how far it is; the conductor does it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{HostName, InstanceId, RequestId};
use crate::instance::Instance;
use crate::migration::{Migration, MigrationStatus};
use crate::state::VmState;

/// How servers leave the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainManner {
    /// What runs leaves while it runs, what is off leaves as it is.
    #[default]
    Any,
    /// Only what runs, while it runs.
    Live,
    /// All are stopped to be moved, and started again if they ran.
    Cold,
}

/// The emptying of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// How.
    pub manner: DrainManner,
    /// How many servers leave at once.
    pub at_once: usize,
    /// When it was asked for.
    pub begun: Timestamp,
    /// Servers that leave now. Each is written here before anything is begun.
    #[serde(default)]
    pub leaving: BTreeMap<InstanceId, Leaving>,
    /// How many have left by it.
    #[serde(default)]
    pub left: u64,
    /// Those whose move failed, and why. They are tried again when the host is drained again.
    #[serde(default)]
    pub failed: BTreeMap<InstanceId, String>,
}

/// One server that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The request of the move: its action says how it went, and that there is none says that it was not begun.
    pub request_id: RequestId,
    /// How.
    pub way: Way,
}

/// How a server leaves its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// While it runs (`os-migrateLive`).
    Live,
    /// While it is off (`migrate`), confirmed once it is there.
    Cold,
    /// It is an image already (`shelveOffload`).
    Offload,
}

/// What can be done with a server of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chance {
    /// It can leave.
    Leaves(Way),
    /// Something is done with it now; afterwards it may leave.
    Waits(String),
    /// It cannot leave as it is.
    Stays(String),
}

impl DrainManner {
    /// May that server leave, and how?
    #[must_use]
    pub fn chance_of(self, instance: &Instance) -> Chance {
        if let Some(task) = instance.task_state {
            return Chance::Waits(format!("it is {} ({task})", instance.vm_state));
        }
        let stays = |why: &str| Chance::Stays(why.to_owned());
        match (instance.vm_state, self) {
            (VmState::Building | VmState::Deleted | VmState::ShelvedOffloaded, _) => {
                Chance::Waits(format!("it is {}", instance.vm_state))
            }
            (VmState::Active | VmState::Paused, Self::Any | Self::Live) => Chance::Leaves(Way::Live),
            (VmState::Active, Self::Cold) | (VmState::Stopped, Self::Any | Self::Cold) => Chance::Leaves(Way::Cold),
            (VmState::Paused, Self::Cold) => stays("it is paused: it can only leave while it runs"),
            (VmState::Stopped, Self::Live) => stays("it is stopped: it can only leave by cold migration"),
            (VmState::Shelved, _) => Chance::Leaves(Way::Offload),
            (VmState::Resized, _) => stays("it waits for the confirmation of its resize"),
            (VmState::Suspended, _) => stays("it is suspended: its owner must resume it first"),
            (VmState::Rescued, _) => stays("it is rescued: its owner must unrescue it first"),
            (VmState::SoftDelete, _) => stays("it is soft-deleted: it goes when it is reclaimed"),
            (VmState::Error, _) => stays("it is in error"),
        }
    }
}

impl Drain {
    /// Servers that are to leave next, as many as there is room for, in the order given.
    #[must_use]
    pub fn next<'a>(&self, servers: &'a [Instance]) -> Vec<(&'a Instance, Way)> {
        let room = self.at_once.max(1).saturating_sub(self.leaving.len());
        let idle = |one: &&Instance| !self.leaving.contains_key(&one.id) && !self.failed.contains_key(&one.id);
        let leaves = |one: &'a Instance| match self.manner.chance_of(one) {
            Chance::Leaves(way) => Some((one, way)),
            Chance::Waits(_) | Chance::Stays(_) => None,
        };
        servers.iter().filter(idle).filter_map(leaves).take(room).collect()
    }

    /// How far it is, from the servers that are on the host and the open moves that concern it.
    #[must_use]
    pub fn standing(&self, host: &HostName, servers: &[Instance], moves: &[Migration]) -> Standing {
        let mut standing = Standing { left: self.left, ..Standing::default() };
        for server in servers {
            if self.leaving.contains_key(&server.id) {
                continue;
            }
            match (self.failed.get(&server.id), self.manner.chance_of(server)) {
                (Some(why), _) => standing.stay.push((server.id, why.clone())),
                (None, Chance::Stays(why)) => standing.stay.push((server.id, why)),
                (None, Chance::Waits(why)) => standing.wait.push((server.id, why)),
                (None, Chance::Leaves(_)) => standing.wait.push((server.id, "it waits for its turn".to_owned())),
            }
        }
        standing.leaving = self.leaving.keys().copied().collect();
        let here = |id: InstanceId| servers.iter().any(|server| server.id == id) || self.leaving.contains_key(&id);
        for one in moves.iter().filter(|one| one.is_open() && one.concerns(host) && !here(one.instance_id)) {
            if one.status == MigrationStatus::Finished {
                let why = "it has left, and can come back until its resize is confirmed".to_owned();
                standing.stay.push((one.instance_id, why));
            } else {
                standing.wait.push((one.instance_id, format!("its {} is {}", one.migration_type, one.status)));
            }
        }
        standing
    }
}

/// How far the emptying of a host is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// So many have left.
    pub left: u64,
    /// Those that leave now.
    pub leaving: Vec<InstanceId>,
    /// Those that will, and what they wait for.
    pub wait: Vec<(InstanceId, String)>,
    /// Those that cannot leave, and why.
    pub stay: Vec<(InstanceId, String)>,
}

impl Standing {
    /// Nothing more will be done by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.leaving.is_empty() && self.wait.is_empty()
    }

    /// And nothing is left on the host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_over() && self.stay.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::TaskState;

    fn server(number: u128, vm_state: VmState) -> Instance {
        let flavor = json!({"id": "1", "name": "f", "vcpus": 1, "memory_mb": 1, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
            "rxtx_factor": 1.0, "disabled": false, "is_public": true, "created_at": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "id": uuid::Uuid::from_u128(number), "project_id": "p", "user_id": "u", "reservation_id": uuid::Uuid::from_u128(9),
            "request_id": "req-0", "display_name": "s", "hostname": "s", "image": null, "flavor": flavor,
            "vm_state": vm_state, "power_state": 1, "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z", "host": "one"
        }))
        .unwrap()
    }

    #[test]
    fn every_state_has_an_answer_in_each_manner() {
        for vm_state in VmState::ALL {
            for manner in [DrainManner::Any, DrainManner::Live, DrainManner::Cold] {
                let chance = manner.chance_of(&server(1, *vm_state));
                let leaves = matches!(chance, Chance::Leaves(_));
                let may = match vm_state {
                    VmState::Active | VmState::Shelved => true,
                    VmState::Paused => manner != DrainManner::Cold,
                    VmState::Stopped => manner != DrainManner::Live,
                    _ => false,
                };
                assert_eq!(leaves, may, "{vm_state} {manner:?}: {chance:?}");
                let busy = Instance { task_state: Some(TaskState::Deleting), ..server(1, *vm_state) };
                assert!(matches!(manner.chance_of(&busy), Chance::Waits(_)), "{vm_state}");
            }
        }
    }

    #[test]
    fn only_so_many_leave_at_once_and_none_that_failed() {
        let servers: Vec<_> = (1..=5).map(|number| server(number, VmState::Active)).collect();
        let mut drain = Drain { at_once: 2, ..Drain::default() };
        drain.failed.insert(servers[0].id, "no host".into());
        let ids = |drain: &Drain| drain.next(&servers).iter().map(|(one, _)| one.id).collect::<Vec<_>>();
        assert_eq!(ids(&drain), [servers[1].id, servers[2].id]);
        let request_id = RequestId::generate(&crate::entropy::SeededEntropy::new(1));
        drain.leaving.insert(servers[1].id, Leaving { request_id, way: Way::Live });
        assert_eq!(ids(&drain), [servers[2].id]);
        let standing = drain.standing(&HostName::new("one"), &servers, &[]);
        assert_eq!((standing.leaving.len(), standing.wait.len(), standing.stay.len()), (1, 3, 1));
        assert!(!standing.is_over());
        assert!(drain.standing(&HostName::new("one"), &[], &[]).leaving.len() == 1);
    }

    #[test]
    fn a_host_is_empty_when_nothing_stays() {
        let (drain, host) = (Drain::default(), HostName::new("one"));
        assert!(drain.standing(&host, &[], &[]).is_empty());
        let stuck = drain.standing(&host, &[server(1, VmState::Suspended)], &[]);
        assert!(stuck.is_over() && !stuck.is_empty(), "{stuck:?}");
    }
}
