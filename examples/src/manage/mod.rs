//! What `nova-manage` does: the operator's tool beside the services. It reads the same configuration as they do and works
//! on the same database, also while they run.
//!
//! | command | |
//! |---|---|
//! | `db sync`, `db version` | the schema |
//! | `service list` | who reported when |
//! | `host drain`, `host show`, `host undrain` | maintenance: its servers leave a host |
//! | `server show` | what a server waits for |
//! | `config sample`, `config explain` | options, their values and where those come from |
//! | `scheduler explain` | which hosts would take a server, and why the others would not |
//! | `volume certificate` | what a compute host proves itself by |
//! | `check` | is everything as it must be ([`nova::check`]) |

mod check;
mod config;
mod database;
mod drain;
mod hosts;
mod scheduler;
mod servers;
mod services;
mod volumes;

pub use drain::{DrainArgs, HostCommand};
pub use hosts::DriverHosts;
pub use scheduler::ExplainArgs;
pub use volumes::VolumeCommand;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{ConfigArgs, StartError};

/// The command line after the name of the program.
#[derive(Debug, Clone, Args)]
pub struct ManageArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: ManageCommand,
}

/// What can be done.
#[derive(Debug, Clone, Subcommand)]
pub enum ManageCommand {
    /// The database's schema
    #[command(subcommand)]
    Db(DbCommand),
    /// The services of the cloud
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Hosts for guests
    #[command(subcommand)]
    Host(HostCommand),
    /// Servers
    #[command(subcommand)]
    Server(ServerCommand),
    /// Volume hosts
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The choice of hosts
    #[command(subcommand)]
    Scheduler(SchedulerCommand),
    /// Is everything as it must be, in the database and on the hosts?
    ///
    /// Lists each violation of an invariant in a line, with ids. Nothing is changed without --repair. May run while the
    /// services do: what is under way is read twice and not reported.
    ///
    /// Exit code: 0 nothing is wrong, 1 violations remain, 2 it could not be checked.
    Check(CheckArgs),
}

/// The database's schema.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum DbCommand {
    /// Bring the schema up to date; safe to repeat
    Sync,
    /// Show the schema's version, and the one that this program needs; exit code 1 if they differ
    Version,
}

/// The services of the cloud.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ServiceCommand {
    /// List all services, and when they were last heard of
    List,
}

/// Servers.
#[derive(Debug, Clone, Subcommand)]
pub enum ServerCommand {
    /// Show where a server is, what it waits for and since when, and what went wrong last
    Show {
        /// Its id
        id: String,
    },
}

/// The choice of hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum SchedulerCommand {
    /// Host by host: would it take such a server, and if not, why?
    ///
    /// Asks the scheduler of the configuration, on the hosts and allocations of the database as they are now. Nothing is
    /// changed or booked.
    ///
    /// Exit code: 0 some host takes it, 1 none does, 2 it could not be found out.
    Explain(Box<ExplainArgs>),
}

/// The configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print a whole configuration file: every option with its help, what is allowed, and its default
    Sample,
    /// Show what is in force, and where each value comes from
    Explain {
        /// One option, with all about it; without, all options, one a line
        #[arg(value_name = "GROUP.OPTION")]
        option: Option<String>,
    },
}

/// How to check.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct CheckArgs {
    /// Mend what has one right answer; the rest is listed and left
    #[arg(long)]
    pub repair: bool,
}

/// It could not be done, or not be checked.
const FAILED: u8 = 2;

/// Does it; what is to be seen goes to `out`, errors to standard error.
pub async fn run(arguments: &ManageArgs, out: &mut (dyn Write + Send)) -> ExitCode {
    match command(arguments, out).await {
        Ok(code) => code,
        // Who reads no further (`nova-manage config sample | head`) has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("nova-manage: {line}");
            }
            ExitCode::from(FAILED)
        }
    }
}

/// Why a command did not end.
#[derive(Debug)]
enum Failure {
    Start(StartError),
    Output(io::Error),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "{error}"),
            Self::Output(error) => write!(f, "the output cannot be written: {error}"),
        }
    }
}

type Done = Result<ExitCode, Failure>;

async fn command(arguments: &ManageArgs, out: &mut (dyn Write + Send)) -> Done {
    if let ManageCommand::Config(ConfigCommand::Sample) = arguments.command {
        return config::sample(out);
    }
    let config = arguments.config.load()?;
    match &arguments.command {
        ManageCommand::Db(DbCommand::Sync) => database::sync(&config, out).await,
        ManageCommand::Db(DbCommand::Version) => database::version(&config, out).await,
        ManageCommand::Service(ServiceCommand::List) => services::list(&config, out).await,
        ManageCommand::Host(command) => drain::run(&config, command, out).await,
        ManageCommand::Server(ServerCommand::Show { id }) => servers::show(&config, id, out).await,
        ManageCommand::Volume(command) => volumes::run(&config, command, out).await,
        ManageCommand::Config(ConfigCommand::Sample) => config::sample(out),
        ManageCommand::Config(ConfigCommand::Explain { option }) => config::explain(&config, option.as_deref(), out),
        ManageCommand::Scheduler(SchedulerCommand::Explain(asked)) => scheduler::explain(&config, asked, out).await,
        ManageCommand::Check(how) => check::check(&config, *how, out).await,
    }
}
