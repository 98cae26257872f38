//! What is known of a host: the description given by the caller. What algorithms read is in [`view`].

mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::attributes::HostAttributes;
use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
pub use view::{HostView, Variable};

/// How often each dimension may be handed out, in the order of [`Dimensions`](crate::Dimensions); 1.0 where not said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios(pub(crate) [f64; MAX_DIMENSIONS]);

impl Default for Ratios {
    fn default() -> Self {
        Self([1.0; MAX_DIMENSIONS])
    }
}

impl Ratios {
    /// The ratio of the dimension at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(1.0)
    }

    /// Sets the ratio of the dimension at `index`; beyond [`MAX_DIMENSIONS`] nothing happens.
    pub fn set(&mut self, index: usize, ratio: f64) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = ratio;
        }
    }
}

impl<const N: usize> From<[f64; N]> for Ratios {
    fn from(given: [f64; N]) -> Self {
        const { assert!(N <= MAX_DIMENSIONS, "too many dimensions") };
        let mut ratios = Self::default();
        ratios.0[..N].copy_from_slice(&given);
        ratios
    }
}

/// What a host reports of its present state, apart from what is allocated on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostStats {
    /// Builds, resizes, snapshots, migrations and rescues that are under way.
    pub io_ops: u32,
    /// Builds that have failed since one succeeded.
    pub failed_builds: u32,
    /// Figures by name, such as `cpu.percent`.
    pub metrics: BTreeMap<String, f64>,
}

/// A host as the caller describes it. What is allocated on it is not part of this; the table counts that itself.
///
/// What may be handed out of a dimension is `(total - reserved) * ratio`, rounded down, and never less than nothing:
/// Placement's formula (`nova/api/openstack/placement`, now the project of that name).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HostInventory {
    /// The host's name: its key in the table.
    pub name: String,
    /// The hypervisor on it; the same as the name unless said otherwise.
    pub node: String,
    /// The availability zone that it is in.
    pub zone: String,
    /// What the machine has, in the table's dimensions.
    pub total: ResourceVector,
    /// What is kept from instances.
    pub reserved: ResourceVector,
    /// How often the rest may be handed out.
    pub ratio: Ratios,
    /// Whether an operator lets instances be placed here.
    pub enabled: bool,
    /// Why not, for operators.
    pub disabled_reason: Option<String>,
    /// Whether the host's service is alive.
    pub up: bool,
    /// The architectures of guests that it can run (`x86_64`, `aarch64`).
    pub architectures: Vec<String>,
    /// What else it can do, as names that requests may require or forbid.
    pub traits: Vec<String>,
    /// A load figure from outside (CPU utilisation, a load balancer's), in a unit of the caller's; less is better.
    pub reported_load: u64,
    /// What it reports of its present state; kept current by [`HostTable::set_stats`](crate::HostTable::set_stats).
    pub stats: HostStats,
    /// Its address in the network of the hosts.
    pub ip: Option<IpAddr>,
    /// What it is and can do.
    pub attributes: Arc<HostAttributes>,
}

impl HostInventory {
    /// A host that is up and enabled, with nothing reserved and ratios of 1.
    #[must_use]
    pub fn new(name: impl Into<String>, zone: impl Into<String>, total: ResourceVector) -> Self {
        let name = name.into();
        Self {
            node: name.clone(),
            name,
            zone: zone.into(),
            total,
            reserved: ResourceVector::default(),
            ratio: Ratios::default(),
            enabled: true,
            disabled_reason: None,
            up: true,
            architectures: Vec::new(),
            traits: Vec::new(),
            reported_load: 0,
            stats: HostStats::default(),
            ip: None,
            attributes: Arc::default(),
        }
    }

    /// What may be handed out of the dimension at `index`.
    #[must_use]
    pub fn capacity(&self, index: usize) -> u64 {
        capacity(self.total.get(index), self.reserved.get(index), self.ratio.get(index))
    }
}

/// `(total - reserved) * ratio`, rounded down; nothing when more is reserved than there is.
pub(crate) fn capacity(total: u64, reserved: u64, ratio: f64) -> u64 {
    let usable = total.saturating_sub(reserved);
    // A ratio of exactly 1 stays exact beyond 2^53, where a float would round.
    if ratio == 1.0 { usable } else { (usable as f64 * ratio) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_placements_formula() {
        assert_eq!(capacity(16, 0, 4.0), 64);
        assert_eq!(capacity(1000, 512, 1.5), 732);
        assert_eq!(capacity(7, 0, 1.1), 7);
        assert_eq!(capacity(100, 512, 1.0), 0);
        assert_eq!(capacity((1 << 60) + 1, 0, 1.0), (1 << 60) + 1);
    }
}
