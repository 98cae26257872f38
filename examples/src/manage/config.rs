//! `config sample`, `config explain`.

use std::io::Write;
use std::process::ExitCode;

use nova_core::options::{Config, common};

use super::Done;
use crate::cli::StartError;

pub(super) fn sample(out: &mut (dyn Write + Send)) -> Done {
    out.write_all(common::registry().sample().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn explain(config: &Config, option: Option<&str>, out: &mut (dyn Write + Send)) -> Done {
    let Some(key) = option else {
        for setting in config.settings() {
            writeln!(out, "{} = {}  ({})", setting.key(), setting.shown(), setting.origin)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    match config.explain(key) {
        Some(explanation) => writeln!(out, "{explanation}")?,
        None => {
            let known = "'nova-manage config explain' lists all";
            return Err(StartError::because(format!("{key}: no such option; {known}")).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}
