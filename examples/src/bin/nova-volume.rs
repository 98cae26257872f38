//! The service of a volume host by itself: makes, serves and removes volumes. One for each host that has disks.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::cli::{ConfigArgs, exit};
use nova_examples::control::VolumePart;
use nova_examples::pieces;

/// Makes, serves and removes the volumes of this host.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-volume", pieces::run::<VolumePart>(&Arguments::parse().config).await)
}
