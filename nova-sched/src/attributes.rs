//! What a host is, apart from its resources and its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::hash::Map;
use crate::topology::{NumaCell, PciPool};

/// What a host can do and what it is built of. Hosts of one kind share it: filters that read nothing else are asked once
/// per kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HostAttributes {
    /// `QEMU`, `VMware vCenter Server`, ...
    pub hypervisor_type: String,
    /// As a number: 7.2.22 is 7,002,022.
    pub hypervisor_version: u64,
    /// The guests that it can run.
    pub supported_instances: Vec<SupportedInstance>,
    /// What else it tells of itself, by name; parts of a name are joined with a dot (`cpu_info.vendor`).
    pub capabilities: BTreeMap<String, String>,
    /// The cell that it is in, where there are several.
    pub cell: Option<String>,
    /// Its NUMA cells; none when it doesn't tell.
    pub numa: Vec<NumaCell>,
    /// The devices that it passes through to guests.
    pub pci: Vec<PciPool>,
}

/// A kind of guest that a host can run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SupportedInstance {
    /// `x86_64`, `aarch64`, ...
    pub architecture: String,
    /// `kvm`, `qemu`, ...
    pub hypervisor_type: String,
    /// `hvm`, `xen`, ...
    pub vm_mode: String,
}

impl SupportedInstance {
    /// A kind of guest.
    #[must_use]
    pub fn new(architecture: &str, hypervisor_type: &str, vm_mode: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            hypervisor_type: hypervisor_type.to_owned(),
            vm_mode: vm_mode.to_owned(),
        }
    }
}

/// The attributes in use, by number. Number 0 is that of a place without a host.
#[derive(Clone)]
pub(crate) struct Kinds {
    ids: Map<Arc<HostAttributes>, u32>,
    kept: Vec<(Arc<HostAttributes>, u32)>,
    unused: Vec<u32>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { ids: Map::default(), kept: vec![(Arc::default(), 0)], unused: Vec::new() }
    }
}

impl Kinds {
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Arc<HostAttributes> {
        &self.kept[id as usize].0
    }

    /// One more than the largest number.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &HostAttributes> {
        self.kept.iter().filter(|(_, hosts)| *hosts > 0).map(|(kind, _)| &**kind)
    }

    pub(crate) fn keep(&mut self, kind: Arc<HostAttributes>) -> u32 {
        if let Some(id) = self.ids.get(&kind) {
            self.kept[*id as usize].1 += 1;
            return *id;
        }
        let id = match self.unused.pop() {
            Some(id) => {
                self.kept[id as usize] = (Arc::clone(&kind), 1);
                id
            }
            None => {
                self.kept.push((Arc::clone(&kind), 1));
                (self.kept.len() - 1) as u32
            }
        };
        self.ids.insert(kind, id);
        id
    }

    pub(crate) fn drop_one(&mut self, id: u32) {
        if id == 0 {
            return;
        }
        let (kind, hosts) = &mut self.kept[id as usize];
        *hosts -= 1;
        if *hosts == 0 {
            self.ids.remove(kind);
            self.unused.push(id);
        }
    }
}

/// A named set of hosts with metadata, as in Nova.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What filters and weighers read: ratios, bounds, projects, properties.
    pub metadata: BTreeMap<String, String>,
    /// Names of hosts; they need not be in the table.
    pub hosts: BTreeSet<String>,
}

/// What the aggregates of a host say together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Together {
    pub(crate) ids: Vec<u64>,
    /// Values by key, as they were written.
    pub(crate) raw: BTreeMap<String, BTreeSet<String>>,
    /// Values by key, lists with commas taken apart.
    pub(crate) parted: BTreeMap<String, BTreeSet<String>>,
}

/// All aggregates, and the sets of them that hosts are in. Number 0 is no aggregate.
#[derive(Clone)]
pub(crate) struct Aggregates {
    pub(crate) all: Vec<Aggregate>,
    sets: Vec<Together>,
    of_host: Map<String, u32>,
}

impl Default for Aggregates {
    fn default() -> Self {
        Self { all: Vec::new(), sets: vec![Together::default()], of_host: Map::default() }
    }
}

impl Aggregates {
    pub(crate) fn new(mut all: Vec<Aggregate>) -> Self {
        all.sort_by_key(|aggregate| aggregate.id);
        let mut members: Map<&str, Vec<usize>> = Map::default();
        for (index, aggregate) in all.iter().enumerate() {
            for host in &aggregate.hosts {
                members.entry(host).or_default().push(index);
            }
        }
        let mut sets = vec![Together::default()];
        let mut numbers: Map<Vec<usize>, u32> = Map::default();
        let mut of_host = Map::default();
        for (host, indexes) in members {
            let number = *numbers.entry(indexes).or_insert_with_key(|indexes| {
                sets.push(together(indexes.iter().map(|index| &all[*index])));
                (sets.len() - 1) as u32
            });
            of_host.insert(host.to_owned(), number);
        }
        Self { all, sets, of_host }
    }

    pub(crate) fn set_of(&self, host: &str) -> u32 {
        self.of_host.get(host).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn get(&self, set: u32) -> &Together {
        self.sets.get(set as usize).unwrap_or(&self.sets[0])
    }

    /// One more than the largest number of a set.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.all.iter().any(|aggregate| aggregate.metadata.contains_key(key))
    }
}

fn together<'a>(aggregates: impl Iterator<Item = &'a Aggregate>) -> Together {
    let mut together = Together::default();
    for aggregate in aggregates {
        together.ids.push(aggregate.id);
        for (key, value) in &aggregate.metadata {
            together.raw.entry(key.clone()).or_default().insert(value.clone());
            let parts = value.split(',').map(|part| part.trim().to_owned());
            together.parted.entry(key.clone()).or_default().extend(parts);
        }
    }
    together
}
