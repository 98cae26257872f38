//! Running programs, each under limits: what they work on is a tenant's (OSSA-2016-012, -2013-012).

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{BoxError, VolumeDriverError};

/// What a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Until it is killed; processor time is no longer either.
    pub(super) time: Duration,
    /// Size of each file that it writes.
    pub(super) file_bytes: u64,
}

/// Nova allows 1 GiB to look at an image (`QEMU_IMG_LIMITS`); a conversion has buffers and threads beside that.
const ADDRESS_SPACE: u64 = 2 << 30;
/// How much of a program's complaint is kept.
const STDERR_BYTES: usize = 2048;

/// A program's own words, as far as they matter for the error.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error("can't run {program}")]
    NotRun {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} ended with {status}: {stderr}")]
    Ended { program: &'static str, status: std::process::ExitStatus, stderr: String },
}

/// Runs a program to its end, under limits that the kernel keeps. Nothing of it goes through a shell.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
    during: &'static str,
    limits: Limits,
) -> Result<String, VolumeDriverError> {
    let mut words: Vec<OsString> = [
        format!("--cpu={}", limits.time.as_secs().max(1)),
        format!("--as={ADDRESS_SPACE}"),
        format!("--fsize={}", limits.file_bytes),
        "--core=0".to_owned(),
        "--".to_owned(),
        program.to_owned(),
    ]
    .map(OsString::from)
    .into();
    words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
    let output = finish(Command::new("prlimit").args(words), program, during, limits.time).await?;
    check(output, program, during)
}

/// Runs an administrator's program to its end: what it is given is ours, so it has no limit but time.
pub(super) async fn administer<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
    during: &'static str,
    time: Duration,
) -> Result<String, VolumeDriverError> {
    command(Command::new(program).args(args), program, during, time).await
}

/// As [`administer`], of a command that has more than arguments.
pub(super) async fn command(
    command: &mut Command,
    program: &'static str,
    during: &'static str,
    time: Duration,
) -> Result<String, VolumeDriverError> {
    let output = finish(command, program, during, time).await?;
    check(output, program, during)
}

async fn finish(
    command: &mut Command,
    program: &'static str,
    during: &'static str,
    time: Duration,
) -> Result<std::process::Output, VolumeDriverError> {
    // Messages are matched against English texts.
    let child = command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(time, child).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(source)) => Err(VolumeDriverError::failed(during, ToolError::NotRun { program, source })),
        Err(_) => Err(VolumeDriverError::TimedOut { during, after: time }),
    }
}

fn check(
    output: std::process::Output,
    program: &'static str,
    during: &'static str,
) -> Result<String, VolumeDriverError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let kept = &output.stderr[..output.stderr.len().min(STDERR_BYTES)];
    let stderr = String::from_utf8_lossy(kept).trim().to_owned();
    let no_space = says_no_space(&stderr);
    Err(sorted(no_space, during, ToolError::Ended { program, status: output.status, stderr }.into()))
}

/// An error of a file: full disks are told apart.
pub(super) fn file(during: &'static str, error: io::Error) -> VolumeDriverError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    sorted(full, during, error.into())
}

/// Whether a program complains of a full disk.
pub(super) fn says_no_space(text: &str) -> bool {
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

fn sorted(no_space: bool, during: &'static str, source: BoxError) -> VolumeDriverError {
    if no_space { VolumeDriverError::NoSpace { during, source } } else { VolumeDriverError::Failed { during, source } }
}

/// Does blocking work where it stalls nobody.
pub(super) async fn blocking<T: Send + 'static>(
    during: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, VolumeDriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| file(during, error)),
        Err(error) => Err(VolumeDriverError::failed(during, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::driver::VolumeErrorKind;

    const LIMITS: Limits = Limits { time: Duration::from_secs(60), file_bytes: 1 << 20 };

    #[tokio::test]
    async fn a_program_has_limits_and_plain_arguments() {
        let printed = run("printf", ["%s|", "a b", "$(id)"], "testing", LIMITS).await.unwrap();
        assert_eq!(printed, "a b|$(id)|");
        let limits = Limits { time: Duration::from_secs(7), ..LIMITS };
        let printed = run("sh", ["-c", "ulimit -t; ulimit -v; ulimit -c"], "testing", limits).await.unwrap();
        assert_eq!(printed, format!("7\n{}\n0\n", ADDRESS_SPACE / 1024));
    }

    #[tokio::test]
    async fn a_full_disk_is_told_from_other_failures() {
        let script = ["-c", "echo 'cannot write: No space left on device' >&2; exit 3"];
        let error = run("sh", script, "testing", LIMITS).await.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::NoSpace);
        let error = administer("sh", ["-c", "exit 5"], "testing", LIMITS.time).await.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::Failed);
    }
}
