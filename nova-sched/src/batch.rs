//! Several requests at once: by priority, and some of them all or nothing.

use std::collections::BTreeMap;

use crate::table::Applied;
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerError, SchedulerRng, Selection};

/// One request of a batch.
#[derive(Debug, Clone)]
pub struct BatchItem {
    /// What is asked.
    pub request: Request,
    /// Who gets it: a consumer for each instance of the request.
    pub consumers: Vec<u128>,
    /// The higher comes first.
    pub priority: i32,
    /// Items of one gang are placed all or not at all. An item without is on its own.
    pub gang: Option<u64>,
}

impl BatchItem {
    /// One instance for that consumer, of priority 0 and on its own.
    #[must_use]
    pub fn new(request: Request, consumer: u128) -> Self {
        Self { request, consumers: vec![consumer], priority: 0, gang: None }
    }

    /// The same with that priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// The same as a member of that gang.
    #[must_use]
    pub fn in_gang(mut self, gang: u64) -> Self {
        self.gang = Some(gang);
        self
    }
}

/// Why an item of a batch has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchRefusal {
    /// No host takes it.
    NoValidHost(Box<NoValidHost>),
    /// Another item of its gang, of that number, found no host.
    GangFailed {
        /// The number of that item in the batch.
        item: usize,
    },
}

/// Places a batch and books what is placed. Gangs come in the order of their highest priority, then as given. Within a
/// gang large items come before small ones, and those that take much of different resources by turns: hosts that were
/// filled with memory alone would have cores left that nobody can use. What one gang could not get stays for the next. The
/// answers are in the order of the items.
///
/// ```
/// use nova_sched::{
///     BatchItem, Dimensions, HostInventory, HostTable, LeastLoadScheduler, Request, SchedulerRng, place_batch,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut table = HostTable::new(Dimensions::new(["vcpus"])?);
/// table.upsert_host(HostInventory::new("a", "here", [8].into()))?;
/// let worker = |consumer| BatchItem::new(Request::new([3].into()), consumer).in_gang(1);
/// let urgent = BatchItem::new(Request::new([4].into()), 9).priority(10);
/// let batch = [worker(1), worker(2), urgent];
/// let answers = place_batch(&LeastLoadScheduler::default(), &mut table, &batch, &mut SchedulerRng::from_seed(1))?;
/// assert!(answers[2].is_ok());
/// assert!(answers[0].is_err() && answers[1].is_err()); // only one worker would have fitted beside it
/// assert_eq!(table.host("a").map(|host| host.used(0)), Some(4));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`SchedulerError::InvalidBatch`] when an item has not as many consumers as instances; what
/// [`HostTable::allocate`] says when a consumer holds something else on the host already. Nothing of the batch is then
/// booked.
pub fn place_batch(
    scheduler: &dyn Scheduler,
    table: &mut HostTable,
    items: &[BatchItem],
    rng: &mut SchedulerRng,
) -> Result<Vec<Result<Vec<Selection>, BatchRefusal>>, SchedulerError> {
    for (number, item) in items.iter().enumerate() {
        if item.consumers.len() != item.request.num_instances as usize {
            let (consumers, instances) = (item.consumers.len(), item.request.num_instances);
            let reason = format!("has {consumers} consumers for {instances} instances");
            return Err(SchedulerError::InvalidBatch { item: number, reason });
        }
    }
    let mut answers: Vec<Option<Result<Vec<Selection>, BatchRefusal>>> = items.iter().map(|_| None).collect();
    let mut booked = Bookings::default();
    for gang in gangs(items, &table.capacities()) {
        let before = booked.0.len();
        match place_gang(scheduler, table, items, &gang, rng, &mut booked) {
            Ok(Ok(placed)) => placed.into_iter().for_each(|(item, chosen)| answers[item] = Some(Ok(chosen))),
            Ok(Err((failed, no))) => {
                booked.undo(table, before);
                for item in gang {
                    let refusal = BatchRefusal::GangFailed { item: failed };
                    answers[item] = Some(Err(refusal));
                }
                answers[failed] = Some(Err(BatchRefusal::NoValidHost(Box::new(no))));
            }
            Err(error) => {
                booked.undo(table, 0);
                return Err(error);
            }
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// What was booked, to be given back.
#[derive(Default)]
struct Bookings(Vec<(u128, String)>);

impl Bookings {
    fn undo(&mut self, table: &mut HostTable, keep: usize) {
        for (consumer, host) in self.0.drain(keep..).rev() {
            table.release_on(consumer, &host);
        }
    }
}

/// The items of each gang, in the order in which they are placed.
fn gangs(items: &[BatchItem], capacities: &[f64]) -> Vec<Vec<usize>> {
    let mut numbers = BTreeMap::new();
    let mut gangs: Vec<Vec<usize>> = Vec::new();
    for (item, asked) in items.iter().enumerate() {
        match asked.gang {
            Some(gang) => match numbers.get(&gang) {
                Some(number) => {
                    let members: &mut Vec<usize> = &mut gangs[*number];
                    members.push(item);
                }
                None => {
                    numbers.insert(gang, gangs.len());
                    gangs.push(vec![item]);
                }
            },
            None => gangs.push(vec![item]),
        }
    }
    for gang in gangs.iter_mut().filter(|gang| gang.len() > 1) {
        *gang = by_turns(items, gang, capacities);
    }
    gangs.sort_by_key(|gang| std::cmp::Reverse(gang.iter().map(|item| items[*item].priority).max()));
    gangs
}

/// The items of a gang, the largest first, in such turns that no resource is used up before the others.
///
/// An item is as large as the part that it takes of the table's capacity of a resource, of that where this is most. For each
/// resource there is a row of the items that take most of it; the next item is from the row of the resource of which, so
/// far, the least part of what the gang wants was handed out.
fn by_turns(items: &[BatchItem], gang: &[usize], capacities: &[f64]) -> Vec<usize> {
    let part = |item: usize, index: usize| items[item].request.resources.get(index) as f64 / capacities[index].max(1.0);
    let dimensions = capacities.len().max(1);
    let mut rows: Vec<Vec<(f64, usize)>> = vec![Vec::new(); dimensions];
    let mut wanted = vec![0.0; dimensions];
    let times = |item: usize| f64::from(items[item].request.num_instances);
    for item in gang {
        let parts = (0..capacities.len()).map(|index| (part(*item, index), index));
        let (most, index) = parts.reduce(|a, b| if b.0 > a.0 { b } else { a }).unwrap_or_default();
        rows[index].push((most, *item));
        (0..capacities.len()).for_each(|index| wanted[index] += part(*item, index) * times(*item));
    }
    // The last of a row is its largest; of equals, the one that was given first.
    rows.iter_mut().for_each(|row| row.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))));
    let mut taken = vec![0.0; dimensions];
    let mut order = Vec::with_capacity(gang.len());
    while order.len() < gang.len() {
        let done = |index: &usize| if wanted[*index] > 0.0 { taken[*index] / wanted[*index] } else { 0.0 };
        let next = (0..dimensions).filter(|index| !rows[*index].is_empty()).min_by(|a, b| done(a).total_cmp(&done(b)));
        let Some((_, item)) = next.and_then(|index| rows[index].pop()) else { break };
        (0..capacities.len()).for_each(|index| taken[index] += part(item, index) * times(item));
        order.push(item);
    }
    order
}

type Placed = Vec<(usize, Vec<Selection>)>;

fn place_gang(
    scheduler: &dyn Scheduler,
    table: &mut HostTable,
    items: &[BatchItem],
    gang: &[usize],
    rng: &mut SchedulerRng,
    booked: &mut Bookings,
) -> Result<Result<Placed, (usize, NoValidHost)>, SchedulerError> {
    let mut placed = Vec::with_capacity(gang.len());
    for item in gang {
        let asked = &items[*item];
        let chosen = match scheduler.select_destinations(table, &asked.request, rng) {
            Ok(chosen) => chosen,
            Err(no) => return Ok(Err((*item, no))),
        };
        for (selection, consumer) in chosen.iter().zip(&asked.consumers) {
            if table.allocate(&selection.host, *consumer, &asked.request.resources)? == Applied::Now {
                booked.0.push((*consumer, selection.host.to_string()));
            }
        }
        placed.push((*item, chosen));
    }
    Ok(Ok(placed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeastLoadScheduler, fixtures};
    use proptest::prelude::*;

    fn place(table: &mut HostTable, items: &[BatchItem]) -> Vec<Result<Vec<Selection>, BatchRefusal>> {
        place_batch(&LeastLoadScheduler::default(), table, items, &mut SchedulerRng::from_seed(1)).unwrap()
    }

    fn cores(cores: u64, consumer: u128) -> BatchItem {
        BatchItem::new(Request::new([cores, 1, 1].into()), consumer)
    }

    #[test]
    fn priority_comes_before_order() {
        let mut table = fixtures::table(1, 1);
        let answers = place(&mut table, &[cores(10, 1), cores(10, 2).priority(5), cores(6, 3)]);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(table.consumers_on("host-0"), [2, 3]);
    }

    #[test]
    fn a_gang_that_fails_leaves_nothing_behind() {
        let mut table = fixtures::table(2, 1);
        let gang = |cores: u64, consumer: u128| self::cores(cores, consumer).in_gang(7);
        let answers = place(&mut table, &[gang(16, 1), gang(10, 2), gang(10, 3), cores(16, 4)]);
        assert_eq!(answers[0], Err(BatchRefusal::GangFailed { item: 2 }));
        assert!(matches!(&answers[2], Err(BatchRefusal::NoValidHost(no)) if no.turned_away("vcpus") == 2));
        assert!(answers[3].is_ok());
        assert_eq!(table.snapshot().allocations.len(), 1);
    }

    #[test]
    fn a_bad_batch_is_refused_whole() {
        let mut table = fixtures::table(1, 1);
        let mut rng = SchedulerRng::from_seed(1);
        let scheduler = LeastLoadScheduler::default();
        let short = BatchItem { consumers: vec![], ..cores(1, 1) };
        let error = place_batch(&scheduler, &mut table, &[cores(1, 2), short], &mut rng).unwrap_err();
        assert!(error.to_string().contains("item 1"), "{error}");
        table.allocate("host-0", 3, &[1, 0, 0].into()).unwrap();
        let before = table.snapshot();
        assert!(place_batch(&scheduler, &mut table, &[cores(1, 2), cores(2, 3)], &mut rng).is_err());
        assert_eq!(table.snapshot(), before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Every gang is there whole or not at all, and nothing is booked twice.
        #[test]
        fn gangs_are_whole(
            items in proptest::collection::vec((1_u64..12, proptest::option::of(0_u64..4), -2_i32..3), 0..40)
        ) {
            let mut table = fixtures::table(5, 2);
            let items: Vec<BatchItem> = (items.into_iter().enumerate())
                .map(|(number, (size, gang, priority))| {
                    BatchItem { gang, ..cores(size, number as u128) }.priority(priority)
                })
                .collect();
            let answers = place(&mut table, &items);
            prop_assert_eq!(answers.len(), items.len());
            for (item, answer) in items.iter().zip(&answers) {
                let mates = items.iter().zip(&answers).filter(|(other, _)| item.gang.is_some() && other.gang == item.gang);
                for (_, other) in mates {
                    prop_assert_eq!(answer.is_ok(), other.is_ok());
                }
                prop_assert_eq!(table.holdings(item.consumers[0]).len(), usize::from(answer.is_ok()));
            }
        }
    }
}
