//! The scheduler by itself; any number of them share a database and a broker.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::SchedulerPart;
use nova_examples::pieces;

/// Picks hosts for servers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-scheduler", pieces::run::<SchedulerPart>(&Arguments::parse().config).await)
}
