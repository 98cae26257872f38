//! The command line of `capacity`.

use std::fs;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser};

use super::compute_nodes::{self, NodeOptions};
use super::fleet::{self, Fleet};
use super::generator::{self, GeneratorOptions, PUBLISHED_CREATIONS};
use super::records::{self, InputError};
use super::replay::WhenFull;
use super::trace::{self, Trace};
use super::{database, request_specs};

/// Replays requests for servers over a fleet of hosts, through one or more schedulers, and tells how each did
///
/// Nothing is booted: time is virtual, and only the books are kept. A fleet is described in an INI file or read from a Nova
/// database; requests come from a CSV file, from a Nova database, or from a generator. Where a Nova table is asked for, a
/// CSV file with a header, a file of JSON lines, or the address of the database will do; a database is only read.
#[derive(Debug, Parser)]
#[command(name = "capacity", version)]
#[command(group(ArgGroup::new("fleet source").required(true).args(["fleet_file", "compute_nodes"])))]
#[command(group(ArgGroup::new("trace source").required(true).args(["trace_file", "request_specs", "generate"])))]
pub struct Arguments {
    /// The fleet: an INI file with sections [group NAME] and [aggregate NAME]
    #[arg(long = "fleet", value_name = "FILE", help_heading = "Fleet")]
    pub fleet_file: Option<PathBuf>,
    /// The fleet: a Nova cell's table compute_nodes
    #[arg(long, value_name = "FILE|URL", help_heading = "Fleet")]
    pub compute_nodes: Option<String>,
    /// Zones and properties of those nodes: rows of host, key, value; or the address of Nova's API database
    #[arg(long, value_name = "FILE|URL", conflicts_with = "fleet_file", help_heading = "Fleet")]
    pub aggregates: Option<String>,
    /// What the nodes have in use stays in use; otherwise they begin empty
    #[arg(long, conflicts_with = "fleet_file", help_heading = "Fleet")]
    pub keep_in_use: bool,
    /// Ratio for nodes whose table gives none
    #[arg(long, value_name = "RATIO", default_value_t = 4.0, value_parser = ratio, help_heading = "Fleet")]
    pub cpu_allocation_ratio: f64,
    /// Ratio for nodes whose table gives none
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio, help_heading = "Fleet")]
    pub ram_allocation_ratio: f64,
    /// Ratio for nodes whose table gives none
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio, help_heading = "Fleet")]
    pub disk_allocation_ratio: f64,

    /// The requests: CSV with the columns arrival_s, vcpus, memory_mb and, if wanted, lifetime_s, disk_gb, count, zone,
    /// flavor, architecture, required_traits, forbidden_traits; or vmid, cpu, memory, time, type (Huawei-East-1)
    #[arg(long = "trace", value_name = "FILE", help_heading = "Requests")]
    pub trace_file: Option<String>,
    /// The requests: Nova's table request_specs (API database)
    #[arg(long, value_name = "FILE|URL", help_heading = "Requests")]
    pub request_specs: Option<String>,
    /// When their instances ended: a Nova cell's table instances; without it all live to the end
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["trace_file", "generate"], help_heading = "Requests")]
    pub instances: Option<String>,
    /// The requests: made from the seed, after the published figures of a public cloud
    #[arg(long, help_heading = "Requests")]
    pub generate: bool,
    /// What to generate.
    #[command(flatten)]
    pub generator: GeneratorArguments,

    /// A scheduler, with options if wanted: least_load,load_source=memory,tie_break=name,max_cores=64 or
    /// availability_zone,default_zone=NAME or filter,enabled_filters=NAME+NAME,ram_weight_multiplier=-1; may be given several
    /// times; all there are when not given
    #[arg(long = "scheduler", value_name = "NAME[,OPTION=VALUE...]", help_heading = "Replay")]
    pub schedulers: Vec<String>,
    /// Decides what is random: the generated requests, and the schedulers' choices
    #[arg(long, default_value_t = 1, help_heading = "Replay")]
    pub seed: u64,
    /// Requests that find no place wait until they fit; otherwise they are turned away
    #[arg(long, help_heading = "Replay")]
    pub queue: bool,
    /// Those who wait give up after so many seconds
    #[arg(long, value_name = "SECONDS", requires = "queue", help_heading = "Replay")]
    pub max_wait: Option<u64>,
    /// Measures fragmentation by this flavor instead of the commonest one
    #[arg(long, value_name = "VCPUS,MEMORY_MB,DISK_GB", help_heading = "Replay")]
    pub probe: Option<String>,
    /// How many samples to take over the time
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u64).range(2..=100_000), help_heading = "Replay")]
    pub samples: u64,

    /// Prints the results as JSON instead of a table
    #[arg(long, help_heading = "Results")]
    pub json: bool,
    /// Writes the course over time as CSV
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub series: Option<PathBuf>,
    /// Draws the course over time as SVG
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub plot: Option<PathBuf>,
    /// Writes the requests as CSV, as --trace reads them
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub trace_out: Option<PathBuf>,
}

/// What to generate.
#[derive(Debug, Args)]
pub struct GeneratorArguments {
    /// How many requests
    #[arg(long, value_name = "COUNT", default_value_t = PUBLISHED_CREATIONS, value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "Requests")]
    pub requests: u64,
    /// Over how many days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_650), help_heading = "Requests")]
    pub days: u64,
    /// Disk for each core; nothing was published about disks
    #[arg(long, value_name = "GB", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000_000), help_heading = "Requests")]
    pub disk_gb_per_vcpu: u64,
    /// How many percent of the requests ask for one of the fleet's zones
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100), help_heading = "Requests")]
    pub zone_percent: u64,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio > 0.0 => Ok(ratio),
        _ => Err("is not a number above 0".to_owned()),
    }
}

impl Arguments {
    /// Reads the fleet.
    ///
    /// # Errors
    /// What can't be read or used, with its place.
    pub fn fleet(&self) -> Result<Fleet, InputError> {
        if let Some(path) = &self.fleet_file {
            let name = path.display().to_string();
            let text = fs::read_to_string(path)
                .map_err(|error| InputError::whole(name.as_str(), format!("cannot be read: {error}")))?;
            return fleet::parse(&name, &text);
        }
        let nodes = self.compute_nodes.as_deref().unwrap_or_default();
        let aggregates = self.aggregates.as_deref().map(|source| records::open(source, &database::AGGREGATES));
        let options = NodeOptions {
            ratios: [self.cpu_allocation_ratio, self.ram_allocation_ratio, self.disk_allocation_ratio],
            keep_in_use: self.keep_in_use,
        };
        let rows = records::open(nodes, &database::COMPUTE_NODES)?;
        compute_nodes::read(&database::shown(nodes), rows, aggregates.transpose()?, options)
    }

    /// Reads or generates the requests.
    ///
    /// # Errors
    /// What can't be read or used, with its place.
    pub fn trace(&self, fleet: &Fleet) -> Result<Trace, InputError> {
        if let Some(file) = &self.trace_file {
            return trace::read(file, records::open_file(file)?);
        }
        if let Some(specs) = &self.request_specs {
            let instances = self.instances.as_deref().map(|source| records::open(source, &database::INSTANCES));
            let rows = records::open(specs, &database::REQUEST_SPECS)?;
            return request_specs::read(&database::shown(specs), rows, instances.transpose()?);
        }
        let GeneratorArguments { requests, days, disk_gb_per_vcpu, zone_percent } = self.generator;
        let zones = fleet.zones().into_keys().map(str::to_owned).collect();
        generator::generate(&GeneratorOptions {
            seed: self.seed,
            requests,
            days,
            disk_gb_per_vcpu,
            zone_percent,
            zones,
        })
    }

    /// What happens to requests that find no place.
    pub fn when_full(&self) -> WhenFull {
        match self.queue {
            true => WhenFull::Wait { most_ms: self.max_wait.map(|seconds| seconds.saturating_mul(1_000)) },
            false => WhenFull::TurnAway,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_wants_a_fleet_and_requests() {
        Arguments::command().debug_assert();
        let error = |arguments: &[&str]| Arguments::try_parse_from(arguments).unwrap_err().to_string();
        assert!(error(&["capacity", "--generate"]).contains("--fleet <FILE>"));
        assert!(error(&["capacity", "--fleet", "f"]).contains("--trace <FILE>"));
        assert!(error(&["capacity", "--fleet", "f", "--generate", "--trace", "t"]).contains("cannot be used with"));
        assert!(error(&["capacity", "--fleet", "f", "--generate", "--max-wait", "5"]).contains("--queue"));
        assert!(error(&["capacity", "--fleet", "f", "--generate", "--keep-in-use"]).contains("cannot be used with"));
        assert!(error(&["capacity", "--fleet", "f", "--generate", "--instances", "i"]).contains("cannot be used with"));
        assert!(error(&["capacity", "--fleet", "f", "--generate", "--ram-allocation-ratio", "0"]).contains("above 0"));
    }
}
