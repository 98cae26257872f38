//! `check`: the invariants of [`nova::check`], for an operator to read.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::SignedDuration;
use nova::check::{Bounds, CheckOptions, Checker, Mended, Outcome, Report};
use nova_core::options::{Config, common};

use super::hosts::DriverHosts;
use super::{CheckArgs, Done, database};
use crate::cli::StartError;
use crate::process::SystemClock;

pub(super) async fn check(config: &Config, how: CheckArgs, out: &mut (dyn Write + Send)) -> Done {
    let store = database::open_current(config).await?;
    let hosts = Arc::new(DriverHosts::new(config));
    let checker = Checker { store, hosts, clock: Arc::new(SystemClock), options: options(config) };
    let unchecked = |error| StartError::new("it cannot be checked", &error);
    let report = if how.repair {
        let (tried, report) = checker.repair().await.map_err(unchecked)?;
        tried.iter().try_for_each(|mended| tell_repair(mended, out))?;
        report
    } else {
        checker.check().await.map_err(unchecked)?
    };
    tell(&report, how, out)?;
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn options(config: &Config) -> CheckOptions {
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    // A task that waits for a host is looked at again when its lease ends.
    let notice = signed(config.get(&common::TASK_LEASE).saturating_mul(2)).saturating_add(SignedDuration::from_mins(1));
    let defaults = Bounds::default();
    let bounds = Bounds {
        grace: defaults.grace.max(notice),
        service_down_time: signed(config.get(&common::SERVICE_DOWN_TIME)),
        // A bus within the process: there is no other.
        one_process: config.get(&common::TRANSPORT_URL).starts_with("memory:"),
    };
    CheckOptions { bounds, ..CheckOptions::default() }
}

fn tell_repair(mended: &Mended, out: &mut (dyn Write + Send)) -> io::Result<()> {
    match &mended.outcome {
        Outcome::Done(lines) => {
            writeln!(out, "mended: {}", mended.repair)?;
            lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
        }
        Outcome::Overtaken => writeln!(out, "not mended: {}: it has changed meanwhile", mended.repair),
        Outcome::Failed(why) => writeln!(out, "not mended: {}: {why}", mended.repair),
    }
}

fn tell(report: &Report, how: CheckArgs, out: &mut (dyn Write + Send)) -> io::Result<()> {
    for violation in &report.violations {
        match &violation.repair {
            Some(repair) if how.repair => writeln!(out, "{violation} [could not be mended: {repair}]")?,
            Some(repair) => writeln!(out, "{violation} [--repair would {repair}]")?,
            None => writeln!(out, "{violation} [no automatic repair]")?,
        }
    }
    for (host, why) in &report.unreached {
        writeln!(out, "host {host} was not reached, its guests were not looked at: {why}")?;
    }
    let count = match report.violations.len() {
        0 => "no violation".to_owned(),
        1 => "1 violation".to_owned(),
        many => format!("{many} violations"),
    };
    writeln!(out, "{count}; {} instances and {} guests were looked at", report.instances, report.guests)
}
