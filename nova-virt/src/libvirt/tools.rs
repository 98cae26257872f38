//! Running the programs that make disks, each under limits.

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

/// What a program may take: what it works on is a user's (nova/virt/images.py, `QEMU_IMG_LIMITS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Until it is killed.
    time: Duration,
    /// Size of each file that it writes.
    file_bytes: u64,
}

impl Limits {
    pub(super) fn new(time: Duration, file_bytes: u64) -> Self {
        Self { time, file_bytes }
    }

    /// The words of `prlimit` that set them: it becomes the program. Processor time is no longer than time itself.
    fn words(&self) -> [String; 4] {
        [
            format!("--cpu={}", self.time.as_secs().max(1)),
            format!("--as={ADDRESS_SPACE}"),
            format!("--fsize={}", self.file_bytes),
            "--core=0".to_owned(),
        ]
    }
}

/// Nova allows 1 GiB to look at an image; a conversion has buffers and threads beside that.
const ADDRESS_SPACE: u64 = 2 << 30;

/// How much of a program's complaint is kept.
const STDERR_BYTES: usize = 2048;

/// Runs a program to its end and returns what it printed. Nothing of it goes through a shell; when it takes longer
/// than the limits say, it is killed.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
    during: &'static str,
    limits: Limits,
) -> Result<Vec<u8>, HypervisorError> {
    run_with(program, args, &[], during, limits).await
}

/// As [`run`], with more in the program's environment: what other users must not see.
pub(super) async fn run_with<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
    during: &'static str,
    limits: Limits,
) -> Result<Vec<u8>, HypervisorError> {
    let limit = limits.time;
    let child = Command::new("prlimit")
        .args(limits.words())
        .args(["--", program])
        .args(args)
        // Messages are matched against English texts.
        .env("LC_ALL", "C")
        .envs(environment.iter().copied())
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

    const LIMIT: Limits = Limits { time: Duration::from_secs(60), file_bytes: 1 << 20 };

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
        let limits = Limits { time: Duration::from_secs(5), ..LIMIT };
        let error = run("sleep", ["600"], "testing", limits).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    /// OSSA-2016-012, -2013-012 (rows 6 and 7): processor time, memory and what is written have an end.
    #[tokio::test]
    async fn a_program_has_limits_that_the_kernel_keeps() {
        let limits = Limits { time: Duration::from_secs(7), ..LIMIT };
        let printed = run("sh", ["-c", "ulimit -t; ulimit -v; ulimit -c"], "testing", limits).await.unwrap();
        assert_eq!(String::from_utf8(printed).unwrap(), format!("7\n{}\n0\n", ADDRESS_SPACE / 1024));
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        let write = ["-c", "exec head -c 3000000 /dev/zero > \"$0\"", path.to_str().unwrap()];
        run("sh", write, "testing", limits).await.unwrap_err();
        assert!(std::fs::metadata(&path).unwrap().len() <= limits.file_bytes);
    }
}
