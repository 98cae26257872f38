//! Running the programs that make disks.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::errors;
use crate::HypervisorError;

/// A program's own words, as far as they matter for the error.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error("can't run {program}")]
    NotRun {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} ended with {status}: {stderr}")]
    Ended { program: &'static str, status: std::process::ExitStatus, stderr: String },
}

/// How much of a program's complaint is kept.
const STDERR_BYTES: usize = 2048;

/// Runs a program to its end and returns what it printed. Nothing of it goes through a shell; when it takes longer
/// than `limit`, it is killed.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
    during: &'static str,
    limit: Duration,
) -> Result<Vec<u8>, HypervisorError> {
    let child = Command::new(program)
        .args(args)
        // Messages are matched against English texts.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(limit, child).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            let source = ToolError::NotRun { program, source };
            return Err(HypervisorError::Failed { during, source: source.into() });
        }
        Err(_) => return Err(HypervisorError::TimedOut { during, after: limit }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(STDERR_BYTES)]);
    let stderr = stderr.trim().to_owned();
    let no_space = errors::says_no_space(&stderr);
    let source = ToolError::Ended { program, status: output.status, stderr }.into();
    Err(if no_space { HypervisorError::NoSpace { during, source } } else { HypervisorError::Failed { during, source } })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::ErrorKind;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn arguments_go_to_the_program_as_they_are() {
        let printed = run("printf", ["%s|", "a b", "$(id)", "-x"], "testing", LIMIT).await.unwrap();
        assert_eq!(printed, b"a b|$(id)|-x|");
    }

    #[tokio::test]
    async fn a_failure_keeps_the_programs_words() {
        let script = ["-c", "echo 'cannot write: No space left on device' >&2; exit 3"];
        let error = run("sh", script, "testing", LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        let source = error.source().unwrap().to_string();
        assert!(source.contains("exit status: 3: cannot write"), "{source}");
        let error = run("no-such-program", ["x"], "testing", LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_hangs_is_given_up() {
        let error = run("sleep", ["600"], "testing", Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
