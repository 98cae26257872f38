//! The door in front of consoles by itself; any number of them share a broker. It has no database.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::run_proxy;

/// Serves the pages of consoles, and relays between browsers and guests.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-novncproxy", run_proxy(&Arguments::parse().config).await)
}
