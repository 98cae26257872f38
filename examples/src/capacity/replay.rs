//! Replays a trace over a fleet, in virtual time: requests come, instances leave, a scheduler chooses.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use nova_sched::{HostTable, NoValidHost, Request, Scheduler, SchedulerError, SchedulerRng};

use super::fleet::Fleet;
use super::meter::{Meter, Turned};
use super::outcome::{FirstRefusal, Outcome, Rejections, Wait};
use super::queue::Queue;
use super::schedulers::Named;
use super::trace::{Arrival, Shape, Trace};

/// What happens to a request that finds no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is turned away, as Nova does.
    TurnAway,
    /// It waits and is tried again whenever something is released, in the order of arrival; those behind it that fit
    /// overtake.
    Wait {
        /// After this long it gives up; never when absent.
        most_ms: Option<u64>,
    },
}

/// How to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOptions {
    /// The schedulers' randomness follows from it.
    pub seed: u64,
    /// What happens to a request that finds no place.
    pub when_full: WhenFull,
    /// How many samples to take.
    pub samples: u64,
    /// The flavor by which fragmentation is measured.
    pub probe: [u64; 3],
}

/// Replays the trace. `progress` is called after every request with how many have come.
///
/// What leaves at the moment at which another comes leaves first. A refusal stands until a host that has room
/// for one such instance has released something: requests of the same shape are not asked again before.
///
/// # Errors
/// The fleet can't be used, or the scheduler chose a host without room.
pub fn replay(
    named: &Named,
    fleet: &Fleet,
    trace: &Trace,
    options: &ReplayOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Outcome, SchedulerError> {
    let mut replay = Replay::new(named.scheduler.as_ref(), fleet, trace, options)?;
    for (number, arrival) in trace.arrivals.iter().enumerate() {
        replay.depart_until(arrival.at_ms)?;
        replay.advance(arrival.at_ms);
        replay.arrive(arrival)?;
        progress(number + 1);
    }
    replay.depart_until(trace.last_arrival_ms())?;
    replay.close();
    replay.drain()?;
    Ok(replay.outcome(&named.label))
}

/// Instances that run, or have run.
struct Placed {
    shape: usize,
    first_consumer: u128,
    hosts: Vec<Arc<str>>,
}

struct Replay<'a> {
    scheduler: &'a dyn Scheduler,
    trace: &'a Trace,
    options: &'a ReplayOptions,
    requests: Vec<Request>,
    table: HostTable,
    rng: SchedulerRng,
    meter: Meter,
    /// Time, and place in `running`.
    departures: BinaryHeap<Reverse<(u64, usize)>>,
    running: Vec<Placed>,
    queue: Queue,
    /// Shapes that have been refused, and that no host which released something since has room for.
    refused: HashSet<usize>,
    /// Why each shape was refused last.
    reasons: HashMap<usize, String>,
    next_consumer: u128,
    placed_requests: u64,
    placed_instances: u64,
    decisions: u64,
    waits_ms: Vec<u64>,
    gave_up: u64,
    rejections: Rejections,
}

impl<'a> Replay<'a> {
    fn new(
        scheduler: &'a dyn Scheduler,
        fleet: &Fleet,
        trace: &'a Trace,
        options: &'a ReplayOptions,
    ) -> Result<Self, SchedulerError> {
        let mut table = fleet.table()?;
        scheduler.register(&mut table)?;
        Ok(Self {
            scheduler,
            trace,
            options,
            requests: trace.shapes.iter().map(Shape::request).collect(),
            table,
            rng: SchedulerRng::from_seed(options.seed),
            meter: Meter::new(fleet, trace.last_arrival_ms(), options.samples, options.probe),
            departures: BinaryHeap::new(),
            running: Vec::new(),
            queue: Queue::default(),
            refused: HashSet::new(),
            reasons: HashMap::new(),
            next_consumer: 0,
            placed_requests: 0,
            placed_instances: 0,
            decisions: 0,
            waits_ms: Vec::new(),
            gave_up: 0,
            rejections: Rejections::default(),
        })
    }

    fn turned(&self) -> Turned {
        Turned { away: self.rejections.requests, waiting: self.queue.len() }
    }

    fn advance(&mut self, to_ms: u64) {
        self.expire(to_ms);
        let turned = self.turned();
        self.meter.advance(to_ms, &self.table, turned);
    }

    fn arrive(&mut self, arrival: &Arrival) -> Result<(), SchedulerError> {
        if !self.try_place(arrival, arrival.at_ms)? {
            match self.options.when_full {
                WhenFull::TurnAway => self.reject(arrival),
                WhenFull::Wait { .. } => self.queue.push(*arrival),
            }
        }
        Ok(())
    }

    /// Places all instances of a request, if they find a place.
    fn try_place(&mut self, arrival: &Arrival, now_ms: u64) -> Result<bool, SchedulerError> {
        if self.refused.contains(&arrival.shape) {
            return Ok(false);
        }
        self.decisions += 1;
        let request = &self.requests[arrival.shape];
        let selections = match self.scheduler.select_destinations(&self.table, request, &mut self.rng) {
            Ok(selections) => selections,
            Err(refusal) => {
                self.note_refusal(arrival, now_ms, &refusal);
                return Ok(false);
            }
        };
        let first_consumer = self.next_consumer;
        for selection in &selections {
            self.table.allocate(&selection.host, self.next_consumer, &request.resources)?;
            self.next_consumer += 1;
        }
        let hosts: Vec<Arc<str>> = selections.into_iter().map(|selection| selection.host).collect();
        self.meter.placed(self.trace.shape(arrival), &hosts);
        self.placed_requests += 1;
        self.placed_instances += hosts.len() as u64;
        if let Some(lifetime_ms) = arrival.lifetime_ms {
            self.departures.push(Reverse((now_ms.saturating_add(lifetime_ms), self.running.len())));
            self.running.push(Placed { shape: arrival.shape, first_consumer, hosts });
        }
        Ok(true)
    }

    fn note_refusal(&mut self, arrival: &Arrival, now_ms: u64, refusal: &NoValidHost) {
        self.refused.insert(arrival.shape);
        self.reasons.insert(arrival.shape, principal_reason(refusal));
        if self.rejections.first.is_none() {
            self.rejections.first = Some(FirstRefusal {
                at_s: now_ms as f64 / 1_000.0,
                flavor: self.trace.shape(arrival).flavor.clone(),
                used: self.meter.shares(),
                explanation: refusal.to_string(),
            });
        }
    }

    fn reject(&mut self, arrival: &Arrival) {
        let reason = self.reasons.get(&arrival.shape).cloned().unwrap_or_default();
        let shape = self.trace.shape(arrival);
        self.rejections.requests += 1;
        self.rejections.instances += u64::from(shape.count);
        *self.rejections.by_reason.entry(reason).or_insert(0) += 1;
        *self.rejections.by_flavor.entry(shape.flavor.clone()).or_insert(0) += 1;
    }

    /// Lets everything leave that leaves by then.
    fn depart_until(&mut self, until_ms: u64) -> Result<(), SchedulerError> {
        while let Some(Reverse((at_ms, _))) = self.departures.peek().copied().filter(|next| next.0.0 <= until_ms) {
            self.depart(at_ms)?;
        }
        Ok(())
    }

    /// Lets everything leave that leaves at that moment, and gives the room to those who wait.
    fn depart(&mut self, at_ms: u64) -> Result<(), SchedulerError> {
        self.advance(at_ms);
        let mut released = Vec::new();
        while let Some(Reverse((_, index))) = self.departures.peek().copied().filter(|next| next.0.0 == at_ms) {
            self.departures.pop();
            let Placed { shape, first_consumer, hosts } = &mut self.running[index];
            let hosts = std::mem::take(hosts);
            for number in 0..hosts.len() as u128 {
                self.table.release(*first_consumer + number);
            }
            self.meter.gone(&self.trace.shapes[*shape], &hosts);
            released.extend(hosts);
        }
        let (table, shapes) = (&self.table, &self.trace.shapes);
        self.refused.retain(|shape| !released.iter().any(|host| has_room(table, host, &shapes[*shape])));
        self.retry(at_ms)
    }

    fn retry(&mut self, now_ms: u64) -> Result<(), SchedulerError> {
        while let Some(arrival) = self.queue.first(|shape| !self.refused.contains(&shape)) {
            if self.try_place(&arrival, now_ms)? {
                self.queue.pop(arrival.shape);
                self.waits_ms.push(now_ms - arrival.at_ms);
            }
        }
        Ok(())
    }

    /// Those who have waited long enough give up, in the order in which they came.
    fn expire(&mut self, now_ms: u64) {
        let WhenFull::Wait { most_ms: Some(most_ms) } = self.options.when_full else { return };
        let is_over = |arrival: &Arrival| arrival.at_ms.saturating_add(most_ms) < now_ms;
        while let Some(arrival) = self.queue.first(|_| true).filter(|arrival| is_over(arrival)) {
            self.queue.pop(arrival.shape);
            self.gave_up += 1;
            self.reject(&arrival);
        }
    }

    /// Ends the measured time.
    fn close(&mut self) {
        let turned = self.turned();
        self.meter.close(&self.table, turned);
    }

    /// Who still waits goes on waiting for as long as something leaves.
    fn drain(&mut self) -> Result<(), SchedulerError> {
        while !self.queue.is_empty()
            && let Some(Reverse((at_ms, _))) = self.departures.peek().copied()
        {
            self.depart(at_ms)?;
        }
        self.expire(u64::MAX);
        Ok(())
    }

    fn outcome(mut self, label: &str) -> Outcome {
        let requests = self.trace.arrivals.len().max(1) as f64;
        self.rejections.rate = self.rejections.requests as f64 / requests;
        let still_waiting = self.queue.len();
        let wait = match self.options.when_full {
            WhenFull::TurnAway => None,
            WhenFull::Wait { .. } => Some(Wait::of(self.waits_ms, self.gave_up, still_waiting)),
        };
        Outcome {
            scheduler: label.to_owned(),
            placed_requests: self.placed_requests,
            placed_instances: self.placed_instances,
            peak_live: self.meter.peak_live(),
            rejections: self.rejections,
            wait,
            utilisation: self.meter.utilisation(),
            fragmentation: self.meter.fragmentation(),
            hosts: self.meter.hosts(),
            decisions: self.decisions,
            series: self.meter.samples().to_vec(),
        }
    }
}

/// Whether the host could take one instance of the shape, by room alone.
fn has_room(table: &HostTable, host: &str, shape: &Shape) -> bool {
    table.host(host).is_some_and(|host| (0..).zip(shape.resources).all(|(index, amount)| amount <= host.free(index)))
}

/// What was lacking: the resources that the closest host lacked, or else the check that turned most hosts away.
fn principal_reason(refusal: &NoValidHost) -> String {
    let missing = refusal.nearest.iter().flat_map(|nearest| &nearest.missing);
    let missing: Vec<&str> = missing.map(|(resource, _)| resource.as_str()).collect();
    if !missing.is_empty() {
        return missing.join("+");
    }
    let most = refusal.reasons.iter().rev().max_by_key(|(_, hosts)| *hosts);
    most.map_or_else(|| "no hosts".to_owned(), |(reason, _)| reason.clone())
}

#[cfg(test)]
mod tests;
