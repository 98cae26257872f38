//! The host agent by itself: no database code, address or password comes near it.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, StartError, exit};
use nova_examples::hosts;

/// The agent of a compute host: runs guests as the conductor orders.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-compute", run(&Arguments::parse().config).await)
}

async fn run(arguments: &ConfigArgs) -> Result<(), StartError> {
    let config = arguments.load()?;
    nova_examples::process::start_log(&config);
    hosts::run_alone(arguments, &config).await
}
