//! The demonstration that `make run` shows against a running cloud.

use std::process::ExitCode;

use clap::Parser;
use nova_examples::demo::{DemoOptions, Screen, run};

/// Boots a server on a cloud that runs on this machine and shows every step
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: DemoOptions,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = Screen::new(Box::new(std::io::stdout()));
    match run(&arguments.options, &mut screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for (depth, cause) in error.chain().enumerate() {
                // The outermost says where to look: it comes last.
                if depth > 0 {
                    eprintln!("{}{cause}", if depth == 1 { "nova-demo: " } else { "  because: " });
                }
            }
            eprintln!("nova-demo: {error}");
            ExitCode::FAILURE
        }
    }
}
