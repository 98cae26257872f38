//! A builder's own parts: an algorithm over the public view of the table, and a load that the crate doesn't know.

use std::sync::Arc;

use nova_sched::{
    Dimensions, HostInventory, HostTable, HostView, LeastLoadOptions, LeastLoadScheduler, LoadSource, NoValidHost,
    Request, Scheduler, SchedulerRng, Selection,
};

/// The first host by name with room, for one instance at a time.
struct FirstByName;

impl Scheduler for FirstByName {
    fn name(&self) -> &'static str {
        "first_by_name"
    }

    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        _rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        (table.hosts())
            .filter(|host| host.is_up() && host.is_enabled() && host.name().len() < 7)
            .filter(|host| request.resources.non_zero().all(|(index, amount)| amount <= host.free(index)))
            .min_by_key(HostView::name)
            .map(|host| {
                let [host, node, zone] = [host.name(), host.node(), host.zone()].map(Arc::from);
                vec![Selection { host, node, zone, alternates: Vec::new() }]
            })
            .ok_or_else(|| NoValidHost::for_request(table, request, 0))
    }
}

/// Guests instead of cores.
struct Guests;

impl LoadSource for Guests {
    fn name(&self) -> &str {
        "guests"
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        host.consumers() as u64
    }
}

fn fewest_guests() -> LeastLoadScheduler {
    LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(Guests)))
}

#[cfg(feature = "conformance")]
nova_sched::scheduler_conformance!(Box::new(fewest_guests()));

fn table() -> HostTable {
    let mut table = HostTable::new(Dimensions::new(["slots"]).unwrap());
    for name in ["host-b", "host-a", "host-10"] {
        table.upsert_host(HostInventory::new(name, "here", [2].into())).unwrap();
    }
    table
}

#[test]
fn an_algorithm_of_ones_own_explains_its_no() {
    let mut table = table();
    let mut rng = SchedulerRng::from_seed(0);
    let request = Request::new([1].into());
    assert_eq!(&*FirstByName.select_destinations(&table, &request, &mut rng).unwrap()[0].host, "host-a");
    table.allocate("host-a", 1, &[2].into()).unwrap();
    table.set_up("host-b", false).unwrap();
    let refused = FirstByName.select_destinations(&table, &request, &mut rng).unwrap_err();
    let expected = [("down", 1), ("slots", 1), ("algorithm", 1)].map(|(name, hosts)| (name.to_owned(), hosts));
    assert_eq!(refused.reasons, expected);
    assert_eq!(refused.considered, 3);
}

#[test]
fn a_load_of_ones_own_is_indexed_like_the_others() {
    let mut table = table();
    let scheduler = fewest_guests();
    scheduler.register(&mut table).unwrap();
    table.allocate("host-a", 1, &[2].into()).unwrap();
    table.allocate("host-b", 2, &[0].into()).unwrap();
    table.allocate("host-b", 3, &[0].into()).unwrap();
    let chosen = scheduler.select_destinations(&table, &Request::new([0].into()), &mut SchedulerRng::from_seed(0));
    assert_eq!(&*chosen.unwrap()[0].host, "host-10");
}
