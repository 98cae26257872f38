//! The operator's tool: schema, services, configuration, and whether everything is as it must be.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::manage::{self, ManageArgs};

/// The operator's tool. Reads the same configuration as the services; may run while they do
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    manage: ManageArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    manage::run(&Arguments::parse().manage, &mut std::io::stdout()).await
}
