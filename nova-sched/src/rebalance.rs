//! Advice on which moves would free hosts.

use crate::table::Applied;
use crate::{HostTable, NoValidHost, Request, ResourceVector, Scheduler, SchedulerRng};

/// A move that would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Who moves.
    pub consumer: u128,
    /// From which host.
    pub from: String,
    /// To which host.
    pub to: String,
    /// What it holds.
    pub resources: ResourceVector,
}

/// Which moves, in order, would free a host, for maintenance or to be switched off. The largest consumer moves first.
/// `describe` gives the request that a consumer stands for; without one only its resources are known. The table is left
/// as it was.
///
/// # Errors
///
/// [`NoValidHost`] for the first consumer that fits nowhere else. A host that isn't known has nothing to move.
pub fn moves_to_free(
    scheduler: &dyn Scheduler,
    table: &mut HostTable,
    host: &str,
    describe: &dyn Fn(u128) -> Option<Request>,
    rng: &mut SchedulerRng,
) -> Result<Vec<Move>, NoValidHost> {
    let mut trial = Trial { scheduler, describe, avoided: Vec::new(), moves: Vec::new() };
    let found = trial.empty(table, host, rng);
    let moves = trial.undo(table, 0);
    found.map(|()| moves)
}

/// Tries to empty up to `most_hosts` hosts with no more than `most_moves` moves in all, those with the fewest consumers
/// first, and says how. Hosts that are empty or to be emptied take nothing. The table is left as it was.
pub fn moves_to_consolidate(
    scheduler: &dyn Scheduler,
    table: &mut HostTable,
    most_hosts: usize,
    most_moves: usize,
    describe: &dyn Fn(u128) -> Option<Request>,
    rng: &mut SchedulerRng,
) -> Vec<Move> {
    let mut hosts: Vec<(usize, String)> = (table.hosts())
        .filter(|host| host.consumers() > 0 && host.is_up())
        .map(|host| (host.consumers(), host.name().to_owned()))
        .collect();
    hosts.sort();
    // To move into an empty host gains nothing.
    let avoided = table.hosts().filter(|host| host.consumers() == 0).map(|host| host.name().to_owned()).collect();
    let mut trial = Trial { scheduler, describe, avoided, moves: Vec::new() };
    let mut emptied = 0;
    for (consumers, host) in hosts {
        if emptied == most_hosts || trial.moves.len() + consumers > most_moves {
            break;
        }
        // A host that has taken something meanwhile is no longer worth it.
        if trial.moves.iter().any(|done| done.to == host) {
            continue;
        }
        let before = trial.moves.len();
        match trial.empty(table, &host, rng) {
            Ok(()) => emptied += 1,
            Err(_) => drop(trial.undo(table, before)),
        }
    }
    trial.undo(table, 0)
}

/// Moves that are made for the time of the search.
struct Trial<'a> {
    scheduler: &'a dyn Scheduler,
    describe: &'a dyn Fn(u128) -> Option<Request>,
    /// Hosts that take nothing: emptied ones, and others.
    avoided: Vec<String>,
    moves: Vec<Move>,
}

impl Trial<'_> {
    fn empty(&mut self, table: &mut HostTable, host: &str, rng: &mut SchedulerRng) -> Result<(), NoValidHost> {
        let mut consumers: Vec<(ResourceVector, u128)> = (table.consumers_on(host).into_iter())
            .filter_map(|consumer| {
                let held = table.holdings(consumer).into_iter().find(|holding| holding.host == host)?;
                Some((held.resources, consumer))
            })
            .collect();
        consumers.sort_by_key(|(resources, consumer)| (std::cmp::Reverse(resources.0), *consumer));
        self.avoided.push(host.to_owned());
        for (resources, consumer) in consumers {
            let moved = self.find(table, host, consumer, resources, rng).and_then(|to| {
                let booked = table.allocate(&to, consumer, &resources);
                match booked {
                    Ok(Applied::Now) => Ok(to),
                    // It holds something there already, as in the middle of a move.
                    Ok(Applied::Before) | Err(_) => Err(NoValidHost::for_request(table, &Request::new(resources), 0)),
                }
            });
            match moved {
                Ok(to) => self.moves.push(Move { consumer, from: host.to_owned(), to, resources }),
                Err(no) => {
                    self.avoided.pop();
                    return Err(no);
                }
            }
        }
        Ok(())
    }

    fn find(
        &self,
        table: &HostTable,
        host: &str,
        consumer: u128,
        resources: ResourceVector,
        rng: &mut SchedulerRng,
    ) -> Result<String, NoValidHost> {
        let mut request = (self.describe)(consumer).unwrap_or_else(|| Request::new(resources));
        request.num_instances = 1;
        request.num_alternates = 0;
        request.resources = resources;
        request.instance = Some(consumer);
        request.ignore_hosts.push(host.to_owned());
        request.ignore_hosts.extend(self.avoided.iter().cloned());
        let chosen = self.scheduler.select_destinations(table, &request, rng)?;
        chosen
            .first()
            .map(|selection| selection.host.to_string())
            .ok_or_else(|| NoValidHost::for_request(table, &request, 0))
    }

    /// Takes moves back, all but the first `keep`; returns them.
    fn undo(&mut self, table: &mut HostTable, keep: usize) -> Vec<Move> {
        let undone = self.moves.split_off(keep);
        for done in &undone {
            table.release_on(done.consumer, &done.to);
        }
        undone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeastLoadOptions, LeastLoadScheduler, PackLoad, fixtures};
    use std::sync::Arc;

    fn packing() -> LeastLoadScheduler {
        LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(PackLoad)))
    }

    #[test]
    fn a_host_is_freed_by_moves_that_fit() {
        let mut table = fixtures::table(3, 1);
        table.allocate("host-0", 1, &[4, 1, 1].into()).unwrap();
        table.allocate("host-0", 2, &[8, 1, 1].into()).unwrap();
        table.allocate("host-1", 3, &[10, 1, 1].into()).unwrap();
        table.allocate("host-2", 4, &[6, 1, 1].into()).unwrap();
        let before = table.snapshot();
        let mut rng = SchedulerRng::from_seed(1);
        let moves = moves_to_free(&packing(), &mut table, "host-0", &|_| None, &mut rng).unwrap();
        let told: Vec<_> = moves.iter().map(|done| (done.consumer, done.to.as_str())).collect();
        assert_eq!(told, [(2, "host-2"), (1, "host-1")]);
        assert_eq!(table.snapshot(), before);
        table.allocate("host-1", 5, &[6, 1, 1].into()).unwrap();
        table.allocate("host-2", 6, &[4, 1, 1].into()).unwrap();
        let no = moves_to_free(&packing(), &mut table, "host-0", &|_| None, &mut rng).unwrap_err();
        assert_eq!(no.turned_away("vcpus"), 2);
        // A consumer's wishes count.
        table.release(5);
        table.release(6);
        let elsewhere = |_: u128| Some(Request::new([1].into()).in_zone("zone-9"));
        assert!(moves_to_free(&packing(), &mut table, "host-0", &elsewhere, &mut rng).is_err());
        assert_eq!(table.snapshot(), before);
    }

    #[test]
    fn hosts_are_emptied_into_the_others() {
        let mut table = fixtures::table(10, 2);
        for number in 0..10 {
            table.allocate(&format!("host-{number}"), number, &[5, 1, 1].into()).unwrap();
        }
        let before = table.snapshot();
        let mut rng = SchedulerRng::from_seed(1);
        let moves = moves_to_consolidate(&packing(), &mut table, 100, 100, &|_| None, &mut rng);
        assert_eq!(table.snapshot(), before);
        // 50 cores need 4 hosts of 16.
        assert_eq!(moves.len(), 6);
        for done in &moves {
            assert!(moves.iter().all(|other| other.from != done.to), "{moves:?}");
            table.allocate(&done.to, done.consumer, &done.resources).unwrap();
            assert!(table.release_on(done.consumer, &done.from));
        }
        assert_eq!(moves_to_consolidate(&packing(), &mut table, 100, 2, &|_| None, &mut rng).len(), 0);
    }
}
