//! Where a new volume goes: the least promised pool of those that its type and zone allow, by the scheduler's own code
//! (`nova-sched`) over a table of pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::volume::{Pool, PoolName, VolumeProblem, type_allows};
use nova_sched::{
    Dimensions, HostInventory, HostTable, LeastLoadOptions, LeastLoadScheduler, Request, Scheduler, SchedulerError,
    SchedulerRng, UsedLoad,
};

const GIGABYTES: &str = "gigabytes";
/// Pools beside the best that are tried when it is full meanwhile.
const ALTERNATES: u32 = 8;

/// What a new volume needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// GiB.
    pub(super) size_gb: u64,
    /// In this zone.
    pub(super) zone: Option<&'a str>,
    /// Specs of its type.
    pub(super) specs: &'a BTreeMap<String, String>,
    /// For several hands.
    pub(super) multiattach: bool,
}

fn no_pool(reason: impl Into<String>) -> VolumeProblem {
    VolumeProblem::NoPool { reason: reason.into() }
}

/// Pools for it, the best first. `pools` are those whose hosts are there.
///
/// # Errors
/// [`VolumeProblem::NoPool`] says why.
pub(super) fn place(pools: &[Pool], wanted: Wanted<'_>, seed: u64) -> Result<Vec<PoolName>, VolumeProblem> {
    if pools.is_empty() {
        return Err(no_pool("No volume host is up."));
    }
    let allowed = |pool: &&Pool| type_allows(wanted.specs, pool) && (pool.multiattach || !wanted.multiattach);
    let allowed: Vec<&Pool> = pools.iter().filter(allowed).collect();
    if allowed.is_empty() {
        return Err(no_pool("No pool can do what the volume's type asks for."));
    }
    let table = table(&allowed).map_err(|error| no_pool(error.to_string()))?;
    let mut request = Request::new([wanted.size_gb].into()).alternates(ALTERNATES);
    if let Some(zone) = wanted.zone {
        request = request.in_zone(zone);
    }
    let mut rng = SchedulerRng::from_seed(seed);
    let chosen = scheduler().select_destinations(&table, &request, &mut rng);
    let chosen = chosen.map_err(|none| no_pool(none.to_string()))?;
    let by_name: BTreeMap<String, &PoolName> = allowed.iter().map(|pool| (pool.name.to_string(), &pool.name)).collect();
    let hosts = chosen
        .iter()
        .flat_map(|one| std::iter::once(&one.host).chain(one.alternates.iter().map(|alternate| &alternate.host)));
    Ok(hosts.filter_map(|host| by_name.get(&**host).copied().cloned()).collect())
}

fn scheduler() -> LeastLoadScheduler {
    LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(UsedLoad::of(GIGABYTES))))
}

fn table(pools: &[&Pool]) -> Result<HostTable, SchedulerError> {
    let mut table = HostTable::new(Dimensions::new([GIGABYTES])?);
    for (number, pool) in pools.iter().enumerate() {
        let name = pool.name.to_string();
        let limit = pool.limit_gb.max(pool.booked_gb);
        table.upsert_host(HostInventory::new(name.clone(), pool.zone.as_str(), [limit].into()))?;
        if pool.booked_gb > 0 {
            table.allocate(&name, number as u128 + 1, &[pool.booked_gb].into())?;
        }
    }
    scheduler().register(&mut table)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn pool(name: &str, zone: &str, limit_gb: u64, booked_gb: u64) -> Pool {
        Pool {
            name: name.parse().unwrap(),
            zone: zone.into(),
            total_gb: limit_gb,
            free_gb: limit_gb,
            limit_gb,
            thin: true,
            online_extend: false,
            multiattach: zone == "west",
            live_snapshot: false,
            live_copy: false,
            capabilities: [("volume_backend_name".to_owned(), zone.to_owned())].into(),
            booked_gb,
            volumes: 0,
            heard_at: Timestamp::UNIX_EPOCH,
            generation: 1,
        }
    }

    #[test]
    fn the_emptiest_pool_that_fits_comes_first() {
        let pools = [
            pool("a@nbd#p", "east", 100, 60),
            pool("b@nbd#p", "east", 100, 20),
            pool("c@nbd#p", "west", 100, 90),
            pool("d@nbd#p", "east", 10, 0),
        ];
        let none = BTreeMap::new();
        let names = |wanted: Wanted<'_>| -> Result<Vec<String>, String> {
            let found = place(&pools, wanted, 7).map_err(|problem| problem.to_string())?;
            Ok(found.into_iter().map(|name| name.host.to_string()).collect())
        };
        let wanted = Wanted { size_gb: 20, zone: None, specs: &none, multiattach: false };
        assert_eq!(names(wanted).unwrap(), ["b", "a"]);
        assert_eq!(names(Wanted { size_gb: 5, zone: Some("west"), ..wanted }).unwrap(), ["c"]);
        assert_eq!(names(Wanted { size_gb: 1, multiattach: true, ..wanted }).unwrap(), ["c"]);
        let west = BTreeMap::from([("volume_backend_name".to_owned(), "west".to_owned())]);
        assert_eq!(names(Wanted { size_gb: 1, specs: &west, ..wanted }).unwrap(), ["c"]);
        let full = names(Wanted { size_gb: 81, ..wanted }).unwrap_err();
        assert!(full.starts_with("No valid backend was found."), "{full}");
        names(Wanted { zone: Some("north"), ..wanted }).unwrap_err();
        assert!(place(&[], wanted, 7).is_err());
    }
}
