//! What tokens of consoles are worth, as a service by itself; any number of them share a database and a broker.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::ConsoleAuthPart;
use nova_examples::pieces;

/// Says what tokens of consoles are worth, and which sessions have to end.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-consoleauth", pieces::run::<ConsoleAuthPart>(&Arguments::parse().config).await)
}
