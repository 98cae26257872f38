//! The conductor by itself; any number of them share a database and a broker.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::ConductorPart;
use nova_examples::pieces;

/// Carries out what users asked for, and speaks for the hosts with the database.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-conductor", pieces::run::<ConductorPart>(&Arguments::parse().config).await)
}
