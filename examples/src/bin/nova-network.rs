//! The network service by itself: tells hosts what their network is to be. Any number of them share a database and a broker.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::NetworkPart;
use nova_examples::pieces;

/// Tells hosts what their network is to be, and keeps what they say of it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-network", pieces::run::<NetworkPart>(&Arguments::parse().config).await)
}
