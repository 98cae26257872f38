//! The results: a table to read, JSON and CSV for programs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::DIMENSIONS;
use super::fleet::Fleet;
use super::outcome::{Outcome, Rejections};
use super::trace::Trace;

/// What was replayed, and what came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The fleet.
    pub fleet: FleetFacts,
    /// The trace.
    pub trace: TraceFacts,
    /// The seed of the schedulers' randomness.
    pub seed: u64,
    /// The flavor by which fragmentation is measured.
    pub probe: Probe,
    /// A scheduler each.
    pub outcomes: Vec<Outcome>,
    /// What of the input is not looked at.
    pub notes: Vec<String>,
}

/// The fleet in short.
#[derive(Debug, Serialize)]
pub struct FleetFacts {
    /// Where the description comes from.
    pub source: String,
    /// How many hosts.
    pub hosts: usize,
    /// How many zones.
    pub zones: usize,
    /// What may be handed out, by resource.
    pub capacity: [u64; 3],
}

/// The trace in short.
#[derive(Debug, Serialize)]
pub struct TraceFacts {
    /// Where it comes from.
    pub source: String,
    /// How many requests.
    pub requests: usize,
    /// How many instances.
    pub instances: u64,
    /// When the last request comes, in seconds: the measured time.
    pub length_s: f64,
    /// SHA-256 of its CSV form.
    pub sha256: String,
}

/// The flavor by which fragmentation is measured.
#[derive(Debug, Serialize)]
pub struct Probe {
    /// Its name.
    pub flavor: String,
    /// Its size, by resource.
    pub resources: [u64; 3],
}

impl FleetFacts {
    /// Of that fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let (hosts, zones) = (fleet.hosts.len(), fleet.zones().len());
        Self { source: fleet.source.clone(), hosts, zones, capacity: fleet.capacity() }
    }
}

impl TraceFacts {
    /// Of that trace.
    pub fn of(trace: &Trace) -> Self {
        Self {
            source: trace.source.clone(),
            requests: trace.arrivals.len(),
            instances: trace.instances(),
            length_s: trace.last_arrival_ms() as f64 / 1_000.0,
            sha256: trace.digest(),
        }
    }
}

impl Report {
    /// The table for people: a line per figure, a column per scheduler.
    pub fn table(&self) -> String {
        let mut text = self.heading();
        let rows = self.rows();
        let first = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.outcomes.len())
            .map(|column| {
                rows.iter().map(|row| row.1.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
            })
            .collect();
        for (name, cells) in &rows {
            let mut line = format!("{name:first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(line, "  {cell:>width$}");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    fn heading(&self) -> String {
        let FleetFacts { source, hosts, zones, capacity: [vcpus, memory_mb, disk_gb] } = &self.fleet;
        let trace = &self.trace;
        let [probe_vcpus, probe_mb, probe_gb] = self.probe.resources;
        format!(
            "fleet   {source}: {} hosts in {zones} zone(s); to hand out: {} vcpus, {} memory_mb, {} disk_gb\n\
             trace   {}: {} requests, {} instances, over {}\n        sha256 {}\n\
             flavor  {}: {probe_vcpus} vcpus, {probe_mb} memory_mb, {probe_gb} disk_gb (fragmentation is measured by it)\n\
             seed    {}\n\n",
            grouped(*hosts as u64),
            grouped(*vcpus),
            grouped(*memory_mb),
            grouped(*disk_gb),
            trace.source,
            grouped(trace.requests as u64),
            grouped(trace.instances),
            duration(trace.length_s),
            trace.sha256,
            self.probe.flavor,
            self.seed,
        )
    }

    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let mut rows = Rows { outcomes: &self.outcomes, rows: Vec::new() };
        rows.add("", |outcome| outcome.scheduler.clone());
        rows.add("requests placed", |outcome| grouped(outcome.placed_requests));
        rows.add("instances placed", |outcome| grouped(outcome.placed_instances));
        rows.add("most instances alive", |outcome| grouped(outcome.peak_live));
        rows.rejections();
        rows.waits();
        for (index, resource) in DIMENSIONS.iter().enumerate() {
            rows.add(&format!("{resource} handed out, mean"), |outcome| percent(outcome.utilisation[index].mean));
            rows.add("  peak", |outcome| percent(outcome.utilisation[index].peak));
        }
        for (index, resource) in DIMENSIONS.iter().enumerate() {
            if self.probe.resources[index] > 0 {
                rows.add(&format!("free {resource} of no use, mean"), |outcome| {
                    percent(outcome.fragmentation[index].mean)
                });
                rows.add("  at the end", |outcome| percent(outcome.fragmentation[index].end));
                rows.add("  stranded at the end", |outcome| grouped(outcome.fragmentation[index].stranded_at_end));
            }
        }
        rows.add("hosts in use, mean", |outcome| format!("{:.1}", outcome.hosts.mean));
        rows.add("  lower bound", |outcome| format!("{:.1}", outcome.hosts.bound_mean));
        rows.add("  over the bound", |outcome| percent(outcome.hosts.over_bound()));
        rows.add("  peak", |outcome| grouped(outcome.hosts.peak));
        rows.add("  peak of the bound", |outcome| grouped(outcome.hosts.bound_peak));
        rows.add("decisions", |outcome| grouped(outcome.decisions));
        rows.rows
    }

    /// Writes the course of all schedulers, a row per sample.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn write_series(&self, out: impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        let mut header = vec!["scheduler".to_owned(), "time_s".to_owned(), "live".to_owned()];
        for figure in ["used", "unusable", "stranded"] {
            header.extend(DIMENSIONS.iter().map(|resource| format!("{resource}_{figure}")));
        }
        header.extend(["room", "hosts_used", "hosts_bound", "rejected", "waiting"].map(str::to_owned));
        csv.write_record(&header)?;
        for outcome in &self.outcomes {
            for sample in &outcome.series {
                let mut row = vec![outcome.scheduler.clone(), sample.time_s.to_string(), sample.live.to_string()];
                row.extend(sample.used.iter().chain(&sample.unusable).map(|share| format!("{share:.6}")));
                row.extend(sample.stranded.iter().map(u64::to_string));
                let counts = [sample.room, sample.hosts_used, sample.hosts_bound, sample.rejected, sample.waiting];
                row.extend(counts.map(|count| count.to_string()));
                csv.write_record(&row)?;
            }
        }
        csv.flush()
    }
}

struct Rows<'a> {
    outcomes: &'a [Outcome],
    rows: Vec<(String, Vec<String>)>,
}

impl Rows<'_> {
    fn add(&mut self, name: &str, cell: impl Fn(&Outcome) -> String) {
        self.rows.push((name.to_owned(), self.outcomes.iter().map(cell).collect()));
    }

    fn rejections(&mut self) {
        self.add("requests turned away", |outcome| grouped(outcome.rejections.requests));
        self.add("  of all", |outcome| percent(outcome.rejections.rate));
        self.most_refused("for", usize::MAX, |rejections| &rejections.by_reason);
        self.most_refused("of flavor", 5, |rejections| &rejections.by_flavor);
        let first = |outcome: &Outcome| outcome.rejections.first.clone();
        self.add("first refusal after", |outcome| {
            first(outcome).map_or_else(|| "never".to_owned(), |first| duration(first.at_s))
        });
        if self.outcomes.iter().any(|outcome| outcome.rejections.first.is_some()) {
            for (index, resource) in DIMENSIONS.iter().enumerate() {
                let used = |outcome: &Outcome| {
                    first(outcome).map_or_else(|| "-".to_owned(), |first| percent(first.used[index]))
                };
                self.add(&format!("  with {resource} handed out"), used);
            }
        }
    }

    /// A line for each of the counts that are largest over all schedulers.
    fn most_refused(&mut self, what: &str, most: usize, counts: fn(&Rejections) -> &BTreeMap<String, u64>) {
        let mut sums: BTreeMap<&String, u64> = BTreeMap::new();
        for (name, count) in self.outcomes.iter().flat_map(|outcome| counts(&outcome.rejections)) {
            *sums.entry(name).or_insert(0) += count;
        }
        let mut names: Vec<(&String, u64)> = sums.into_iter().collect();
        names.sort_by_key(|(_, count)| Reverse(*count));
        for (name, _) in names.into_iter().take(most) {
            let cell = |outcome: &Outcome| grouped(counts(&outcome.rejections).get(name).copied().unwrap_or(0));
            self.add(&format!("  {what} {name}"), cell);
        }
    }

    fn waits(&mut self) {
        let waits: Vec<_> = self.outcomes.iter().filter_map(|outcome| outcome.wait.clone()).collect();
        if waits.len() < self.outcomes.len() {
            return;
        }
        let mut add = |name: &str, cell: fn(&super::outcome::Wait) -> String| {
            self.rows.push((name.to_owned(), waits.iter().map(cell).collect()));
        };
        add("requests that waited", |wait| grouped(wait.waited));
        add("  gave up", |wait| grouped(wait.gave_up));
        add("  still waiting", |wait| grouped(wait.still_waiting));
        add("  wait, mean", |wait| duration(wait.mean_s));
        add("  wait, p50", |wait| duration(wait.p50_s));
        add("  wait, p99", |wait| duration(wait.p99_s));
        add("  wait, longest", |wait| duration(wait.max_s));
    }
}

/// `0.1234` as `12.3 %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as people say them, in the two largest units.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        let rounded = (seconds * 10.0).round() / 10.0;
        return format!("{rounded} s");
    }
    let minutes = (seconds / 60.0).round() as u64;
    let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
    match (days, hours, minutes) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            ["7", "999", "1,000", "1,234,567"],
            [7, 999, 1_000, 1_234_567].map(grouped).each_ref().map(String::as_str)
        );
        let durations = [0.0, 12.34, 90.0, 3_600.0, 5_400.0, 86_400.0, 100_000.0].map(duration);
        assert_eq!(durations, ["0 s", "12.3 s", "2 min", "1 h", "1 h 30 min", "1 d", "1 d 3 h"]);
        assert_eq!(percent(0.12345), "12.3 %");
    }
}
