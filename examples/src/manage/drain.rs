//! `host drain`, `host show`, `host undrain`: maintenance. What is to be done is written into the database; the conductors do
//! it, whether or not this command looks on.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::drain::{Drain, DrainManner, Standing};
use nova_core::host::Service;
use nova_core::ids::HostName;
use nova_core::options::{Config, common};
use nova_db::{InstanceQuery, MigrationQuery, ServiceQuery, Store, StoreError};

use super::{Done, Failure, database};
use crate::cli::StartError;
use crate::process::SystemClock;

/// Tries to write past others.
const ATTEMPTS: usize = 10;
/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hosts for guests.
#[derive(Debug, Clone, Subcommand)]
pub enum HostCommand {
    /// Take a host out of scheduling and move its servers to others
    ///
    /// The conductors move them, also when this command is over or starts anew. What cannot be moved is named, with the reason;
    /// draining the host again tries it again. Servers that are moved while they are off are confirmed on their new hosts.
    ///
    /// Exit code: 0 accepted, or with --wait: the host is empty; 1 with --wait: some servers stay; 2 it could not be done.
    Drain(DrainArgs),
    /// Show how far the emptying of a host is, and which servers cannot leave
    ///
    /// Exit code: 0 nothing is on the host or on its way to it or from it, 1 something is.
    Show {
        /// The host
        host: String,
    },
    /// End the maintenance of a host: it takes new servers again, those that left stay where they are
    Undrain {
        /// The host
        host: String,
    },
}

/// How to empty a host.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The host
    pub host: String,
    /// Only move what runs, while it runs
    #[arg(long, conflicts_with = "cold")]
    pub live: bool,
    /// Stop what runs to move it, and start it again
    #[arg(long)]
    pub cold: bool,
    /// Return once nothing more is going to leave
    #[arg(long)]
    pub wait: bool,
    /// How many servers leave at once; live migrations also keep to DEFAULT.max_concurrent_live_migrations
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_parallel: u16,
    /// Why, for those who list services
    #[arg(long, default_value = "maintenance")]
    pub reason: String,
}

pub(super) async fn run(config: &Config, command: &HostCommand, out: &mut (dyn Write + Send)) -> Done {
    let store = &*database::open_current(config).await?;
    match command {
        HostCommand::Drain(how) => drain(store, config, how, out).await,
        HostCommand::Show { host } => {
            let seen = look(store, config, host).await?;
            tell(&seen, out)?;
            Ok(if seen.standing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        HostCommand::Undrain { host } => {
            change(store, host, undrained).await?;
            writeln!(out, "{host} takes servers again")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn drain(store: &dyn Store, config: &Config, how: &DrainArgs, out: &mut (dyn Write + Send)) -> Done {
    change(store, &how.host, |service, now| drained(service, how, now)).await?;
    let mut seen = look(store, config, &how.host).await?;
    if !how.wait {
        tell(&seen, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = String::new();
    loop {
        let line = summary(&seen);
        if line != told {
            writeln!(out, "{line}")?;
            out.flush()?;
            told = line;
        }
        if seen.standing.is_over() || !seen.drains || !seen.up {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        seen = look(store, config, &how.host).await?;
    }
    tell_servers(&seen, out)?;
    Ok(if seen.drains && seen.standing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The service with what is asked for. What leaves already goes on, what failed is tried again.
fn drained(service: Service, how: &DrainArgs, now: Timestamp) -> Service {
    let manner = match (how.live, how.cold) {
        (true, _) => DrainManner::Live,
        (false, true) => DrainManner::Cold,
        (false, false) => DrainManner::Any,
    };
    let known = service.drain.clone().unwrap_or_else(|| Drain { begun: now, ..Drain::default() });
    let drain = Drain { manner, at_once: usize::from(how.max_parallel), failed: Default::default(), ..known };
    let reason = Some(how.reason.chars().filter(|c| !c.is_control()).take(255).collect());
    Service { disabled: true, disabled_reason: reason, drain: Some(drain), updated_at: now, ..service }
}

/// The service as it takes servers again.
fn undrained(service: Service, now: Timestamp) -> Service {
    Service { disabled: false, disabled_reason: None, drain: None, updated_at: now, ..service }
}

fn failed(error: &StoreError) -> Failure {
    StartError::new("the database cannot be used", error).into()
}

async fn compute_of(store: &dyn Store, host: &str) -> Result<Service, Failure> {
    let host = HostName::new(host);
    let mut found = store.find_services(&ServiceQuery::computes([&host])).await.map_err(|error| failed(&error))?;
    found.pop().ok_or_else(|| StartError::because(format!("no nova-compute was ever heard of on host {host}")).into())
}

async fn change(
    store: &dyn Store,
    host: &str,
    change: impl Fn(Service, Timestamp) -> Service,
) -> Result<Service, Failure> {
    for _ in 0..ATTEMPTS {
        let service = compute_of(store, host).await?;
        match store.update_service(change(service, SystemClock.now())).await {
            Ok(written) => return Ok(written),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Err(StartError::because(format!("the service on host {host} is being changed by others; try again")).into())
}

/// A host as it is now.
struct Seen {
    host: HostName,
    /// It is being emptied, or kept empty.
    drains: bool,
    up: bool,
    disabled: bool,
    standing: Standing,
}

async fn look(store: &dyn Store, config: &Config, host: &str) -> Result<Seen, Failure> {
    // The service first: what leaves was written there before it left.
    let service = compute_of(store, host).await?;
    let host = service.host.clone();
    let query = InstanceQuery { host: Some(host.clone()), ..InstanceQuery::default() };
    let servers = store.list_instances(&query).await.map_err(|error| failed(&error))?;
    let query = MigrationQuery { host: Some(host.clone()), ..MigrationQuery::open() };
    let moves = store.list_migrations(&query).await.map_err(|error| failed(&error))?;
    let down = SignedDuration::try_from(config.get(&common::SERVICE_DOWN_TIME)).unwrap_or(SignedDuration::MAX);
    let standing = service.drain.clone().unwrap_or_default().standing(&host, &servers, &moves);
    let up = service.is_up(SystemClock.now(), down);
    Ok(Seen { host, drains: service.drain.is_some(), up, disabled: service.disabled, standing })
}

fn summary(seen: &Seen) -> String {
    let Standing { left, leaving, wait, stay } = &seen.standing;
    let counts = format!("{left} left, {} leaving, {} to go, {} stay", leaving.len(), wait.len(), stay.len());
    let host = &seen.host;
    match (seen.drains, seen.up) {
        (false, _) => format!("{host} is not being emptied: {} servers are on it", wait.len() + stay.len()),
        (true, false) => format!("{host} is down: its servers can be evacuated; {counts}"),
        (true, true) if seen.standing.is_empty() => format!("{host} is empty: {counts}"),
        (true, true) => format!("{host}: {counts}"),
    }
}

fn tell(seen: &Seen, out: &mut (dyn Write + Send)) -> io::Result<()> {
    writeln!(out, "{}{}", summary(seen), if seen.disabled { "" } else { "; it takes new servers" })?;
    tell_servers(seen, out)
}

fn tell_servers(seen: &Seen, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let Standing { leaving, wait, stay, .. } = &seen.standing;
    leaving.iter().try_for_each(|id| writeln!(out, "  {id} leaves"))?;
    if seen.drains {
        wait.iter().try_for_each(|(id, why)| writeln!(out, "  {id} is to leave: {why}"))?;
        stay.iter().try_for_each(|(id, why)| writeln!(out, "  {id} stays: {why}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        serde_json::from_value(serde_json::json!({
            "id": uuid::Uuid::nil(), "binary": "nova-compute", "host": "one", "zone": "nova",
            "last_seen_up": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn to_drain_again_goes_on_and_forgets_failures() {
        let how = DrainArgs {
            host: "one".into(),
            live: false,
            cold: true,
            wait: false,
            max_parallel: 7,
            reason: "new\nfan".into(),
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut first = drained(service(), &how, at(1));
        assert_eq!((first.disabled, first.disabled_reason.as_deref()), (true, Some("newfan")));
        let drain = first.drain.as_mut().unwrap();
        (drain.left, drain.failed) =
            (3, [(nova_core::ids::InstanceId::from_uuid(uuid::Uuid::nil()), "no".into())].into());
        let again = drained(first, &DrainArgs { cold: false, ..how }, at(2));
        let drain = again.drain.clone().unwrap();
        assert_eq!((drain.begun, drain.left, drain.at_once, drain.failed.len()), (at(1), 3, 7, 0));
        assert_eq!(drain.manner, DrainManner::Any);
        let back = undrained(again, at(3));
        assert_eq!((back.disabled, back.disabled_reason, back.drain), (false, None, None));
    }
}
