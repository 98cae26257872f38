//! Small clouds for tests.

use std::fmt::Write as _;

use crate::{Dimensions, HostInventory, HostTable, SchedulerError};

/// What the tables of the tests count.
pub(crate) const DIMENSIONS: [&str; 3] = ["vcpus", "memory_mb", "disk_gb"];

/// What each host of [`table`] has.
pub(crate) const SIZE: [u64; 3] = [16, 65_536, 1_000];

/// Equal hosts `host-0`, `host-1`, …, dealt to `zone-0`, `zone-1`, … in turn.
pub(crate) fn table(hosts: usize, zones: usize) -> HostTable {
    try_table(hosts, zones).unwrap_or_else(|error| unreachable!("the fixture is right: {error}"))
}

fn try_table(hosts: usize, zones: usize) -> Result<HostTable, SchedulerError> {
    let mut table = HostTable::new(Dimensions::new(DIMENSIONS)?);
    for number in 0..hosts {
        table.upsert_host(host(number, zones))?;
    }
    Ok(table)
}

/// One host of [`table`].
pub(crate) fn host(number: usize, zones: usize) -> HostInventory {
    let mut name = String::new();
    // Writing to a string can't fail.
    let _ = write!(name, "host-{number}");
    let mut host = HostInventory::new(name, format!("zone-{}", number % zones), SIZE.into());
    host.architectures = vec!["x86_64".to_owned()];
    host
}
