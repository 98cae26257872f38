//! What "load" means to the least-load scheduler.

use std::fmt;

use crate::host::HostView;
use crate::{Dimensions, SchedulerError};

/// Tells how loaded a host is; the less, the better.
///
/// A registered source is asked when the host changes (allocation, description, reported figure), so the answer must
/// follow from the view alone.
///
/// ```
/// use nova_sched::{HostView, LoadSource};
///
/// /// Counts guests instead of cores.
/// struct Guests;
///
/// impl LoadSource for Guests {
///     fn name(&self) -> &str {
///         "guests"
///     }
///     fn load(&self, host: HostView<'_>) -> u64 {
///         host.consumers() as u64
///     }
/// }
/// # assert_eq!(Guests.name(), "guests");
/// ```
pub trait LoadSource: Send + Sync {
    /// A name that no other source has; the table keeps one index per name.
    fn name(&self) -> &str;

    /// The host's load, in any unit.
    fn load(&self, host: HostView<'_>) -> u64;

    /// Refuses a table that doesn't count what the source reads.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownDimension`].
    fn check(&self, _dimensions: &Dimensions) -> Result<(), SchedulerError> {
        Ok(())
    }
}

impl fmt::Debug for dyn LoadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoadSource").field(&self.name()).finish()
    }
}

/// What is handed out of one dimension.
///
/// `UsedLoad::cores()` is the measure of Nova's first scheduler ("simple"): the sum of the cores of the host's
/// instances.
#[derive(Debug, Clone)]
pub struct UsedLoad {
    dimension: String,
}

impl UsedLoad {
    /// The dimension `vcpus`.
    #[must_use]
    pub fn cores() -> Self {
        Self::of("vcpus")
    }

    /// That dimension.
    #[must_use]
    pub fn of(dimension: impl Into<String>) -> Self {
        Self { dimension: dimension.into() }
    }
}

impl LoadSource for UsedLoad {
    fn name(&self) -> &str {
        &self.dimension
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        host.used_of(&self.dimension).unwrap_or(0)
    }

    fn check(&self, dimensions: &Dimensions) -> Result<(), SchedulerError> {
        match dimensions.index(&self.dimension) {
            Some(_) => Ok(()),
            None => Err(SchedulerError::UnknownDimension { name: self.dimension.clone() }),
        }
    }
}

/// The figure that comes from outside: [`HostTable::set_reported_load`](crate::HostTable::set_reported_load).
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportedLoad;

impl LoadSource for ReportedLoad {
    fn name(&self) -> &str {
        "reported load"
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        host.reported_load()
    }
}

/// Packs: the fuller a host is, the better, so that others stay empty. What counts is the part of each dimension that is
/// free, in thousandths, summed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackLoad;

impl LoadSource for PackLoad {
    fn name(&self) -> &str {
        "pack"
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        let free = |index| {
            let capacity = u128::from(host.capacity(index)).max(1);
            (u128::from(host.free(index)) * 1_000 / capacity) as u64
        };
        (0..host.dimensions()).map(free).sum()
    }
}

/// Running operations that load disks and network (builds, resizes, snapshots, migrations), as the host reports them:
/// [`HostStats::io_ops`](crate::HostStats::io_ops).
#[derive(Debug, Clone, Copy, Default)]
pub struct IoLoad;

impl LoadSource for IoLoad {
    fn name(&self) -> &str {
        "io ops"
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        u64::from(host.io_ops())
    }
}

/// CPU utilisation, as the host reports it: the metric `cpu.percent`. A host that reports none counts as busy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuLoad;

impl CpuLoad {
    /// The metric that is read (`nova/compute/monitors`).
    pub const METRIC: &'static str = "cpu.percent";
}

impl LoadSource for CpuLoad {
    fn name(&self) -> &str {
        Self::METRIC
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        // In thousandths of a percent; a float that is no number becomes 0, so it is ruled out before.
        host.metric(Self::METRIC)
            .filter(|percent| percent.is_finite())
            .map_or(100_000, |percent| (percent * 1e3) as u64)
    }
}
