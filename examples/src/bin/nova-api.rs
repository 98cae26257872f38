//! The API by itself; any number of them share a database and a broker.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::ApiPart;
use nova_examples::pieces;

/// The door for users: identity, images and the compute API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-api", pieces::run::<ApiPart>(&Arguments::parse().config).await)
}
