//! The planning tool: replays requests over a described fleet through schedulers, in virtual time.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::capacity::arguments::Arguments;
use nova_examples::capacity::progress::Progress;
use nova_examples::capacity::{CapacityError, run};
use nova_examples::cli::{StartError, exit};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let result = run(&arguments, &mut out, &mut Progress::on_stderr());
    exit(
        "capacity",
        result.map_err(|error| match error {
            CapacityError::Input(line) => StartError::config(vec![line]),
            other => StartError::because(other.to_string()),
        }),
    )
}
