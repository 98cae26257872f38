//! The planning tool `capacity`: replays requests over a described fleet through schedulers and tells how each did.
//!
//! | module | for |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`records`] | rows of CSV, JSON lines and databases; errors with file, line and column |
//! | [`database`] | tables of a Nova database |
//! | [`fleet`], [`compute_nodes`] | the hosts, from a description or from a Nova database |
//! | [`trace`], [`request_specs`], [`generator`] | the requests, from a file, from a Nova database, or made from a seed |
//! | [`schedulers`] | schedulers by name, with options |
//! | [`replay`], [`queue`] | the replay in virtual time; who waits |
//! | [`meter`], [`lower_bound`] | what is measured meanwhile |
//! | [`outcome`], [`report`], [`spark`], [`plot`] | what came of it: figures, table, JSON, CSV, text and SVG drawings |
//! | [`progress`] | the bar on a terminal |

pub mod arguments;
pub mod compute_nodes;
pub mod database;
pub mod fleet;
pub mod generator;
pub mod lower_bound;
pub mod meter;
pub mod outcome;
pub mod plot;
pub mod progress;
pub mod queue;
pub mod records;
pub mod replay;
pub mod report;
pub mod request_specs;
pub mod schedulers;
pub mod spark;
pub mod trace;

use std::fs;
use std::io::Write;
use std::path::Path;

use arguments::Arguments;
use fleet::Fleet;
use progress::Progress;
use records::InputError;
use replay::ReplayOptions;
use report::{FleetFacts, Probe, Report, TraceFacts};
use trace::Trace;

/// The resources that are counted, as in the scheduler service.
pub const DIMENSIONS: [&str; 3] = ["vcpus", "memory_mb", "disk_gb"];

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    /// Something in a file, a database or an argument.
    #[error("{0}")]
    Input(String),
    /// A result can't be written.
    #[error("{path}: cannot be written: {source}")]
    Output {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A scheduler can't be used, or misbehaved.
    #[error("scheduler {scheduler}: {source}")]
    Scheduler {
        /// Its name.
        scheduler: String,
        /// What went wrong.
        source: nova_sched::SchedulerError,
    },
}

impl From<InputError> for CapacityError {
    fn from(error: InputError) -> Self {
        Self::Input(error.to_string())
    }
}

/// Reads the input, replays it through each scheduler and writes the results; the table or JSON goes to `out`.
///
/// # Errors
/// Input that can't be used, output that can't be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write, progress: &mut Progress) -> Result<(), CapacityError> {
    let schedulers = schedulers::parse(&arguments.schedulers).map_err(CapacityError::Input)?;
    let fleet = arguments.fleet()?;
    let trace = arguments.trace(&fleet)?;
    if let Some(path) = &arguments.trace_out {
        write(path, |file| trace.write_csv(file))?;
    }
    let probe = probe(arguments, &trace)?;
    let options = ReplayOptions {
        seed: arguments.seed,
        when_full: arguments.when_full(),
        samples: arguments.samples,
        probe: probe.resources,
    };
    let mut outcomes = Vec::new();
    for named in &schedulers {
        progress.start(&named.label, trace.arrivals.len());
        let outcome = replay::replay(named, &fleet, &trace, &options, &mut |done| progress.set(done));
        progress.clear();
        let failed = |source| CapacityError::Scheduler { scheduler: named.label.clone(), source };
        outcomes.push(outcome.map_err(failed)?);
    }
    let report = report(arguments, &fleet, &trace, probe, outcomes);
    write_results(arguments, &report, out)
}

fn probe(arguments: &Arguments, trace: &Trace) -> Result<Probe, CapacityError> {
    let Some(asked) = &arguments.probe else {
        let (flavor, resources) = trace.commonest();
        return Ok(Probe { flavor, resources });
    };
    let amounts: Vec<u64> = asked.split(',').filter_map(|amount| amount.trim().parse().ok()).collect();
    match (amounts[..].try_into(), asked.split(',').count()) {
        (Ok(resources), 3) => Ok(Probe { flavor: asked.clone(), resources }),
        _ => Err(CapacityError::Input(format!("--probe {asked}: is not VCPUS,MEMORY_MB,DISK_GB"))),
    }
}

fn report(
    arguments: &Arguments,
    fleet: &Fleet,
    trace: &Trace,
    probe: Probe,
    outcomes: Vec<outcome::Outcome>,
) -> Report {
    Report {
        fleet: FleetFacts::of(fleet),
        trace: TraceFacts::of(trace),
        seed: arguments.seed,
        probe,
        outcomes,
        notes: fleet.notes.iter().chain(&trace.notes).cloned().collect(),
    }
}

fn write_results(arguments: &Arguments, report: &Report, out: &mut dyn Write) -> Result<(), CapacityError> {
    if let Some(path) = &arguments.series {
        write(path, |file| report.write_series(file))?;
    }
    if let Some(path) = &arguments.plot {
        let title = format!("{} on {} ({} hosts)", report.trace.source, report.fleet.source, report.fleet.hosts);
        write(path, |file| file.write_all(plot::svg(&title, &report.outcomes).as_bytes()))?;
    }
    let written = if arguments.json {
        serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{}\n{}", report.table(), spark::courses(&report.outcomes))
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| CapacityError::Output { path: "standard output".to_owned(), source }),
    }
}

fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CapacityError> {
    let written = fs::File::create(path).and_then(|file| {
        let mut file = std::io::BufWriter::new(file);
        content(&mut file)?;
        file.flush()
    });
    written.map_err(|source| CapacityError::Output { path: path.display().to_string(), source })
}
