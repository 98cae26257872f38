//! Programs that are run to their end, within a time.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a program may take: nobody else's turn comes before. The largest rulesets take some seconds.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program with that input, and answers with what it said. One that takes longer is killed.
pub fn output_within(mut command: Command, input: Option<String>, limit: Duration) -> std::io::Result<Output> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Held open, its number is nobody else's.
    let handle = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(ErrorKind::InvalidData)?;
    let handle = pidfd_open(handle, PidfdFlags::empty())?;
    // A thread of its own, since the program may write before it has read everything.
    let pipe = child.stdin.take().zip(input);
    let writer = std::thread::spawn(move || pipe.map_or(Ok(()), |(mut pipe, input)| pipe.write_all(input.as_bytes())));
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more: it took too long.
        let _ = done.send(child.wait_with_output());
    });
    let Ok(output) = ended.recv_timeout(limit) else {
        // It may have ended meanwhile, and left its output open to another.
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        return Err(std::io::Error::new(ErrorKind::TimedOut, format!("it took longer than {} s", limit.as_secs_f32())));
    };
    let output = output?;
    match writer.join() {
        // It did not read everything: its answer says why.
        Ok(Err(e)) if e.kind() != ErrorKind::BrokenPipe => Err(e),
        _ => Ok(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_read_while_it_reads() {
        let long = "a line\n".repeat(100_000);
        let output = output_within(Command::new("cat"), Some(long.clone()), LIMIT).unwrap();
        assert!(output.status.success() && output.stdout == long.as_bytes());
        assert!(!output_within(Command::new("false"), None, LIMIT).unwrap().status.success());
        let unread = output_within(Command::new("true"), Some(long), LIMIT).unwrap();
        assert!(unread.status.success());
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("never");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut waits = Command::new("cat");
        waits.arg(&fifo);
        let error = output_within(waits, None, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // Whoever reads there is gone: opening for writing without waiting says so.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let read = || {
            Command::new("dd")
                .args(["oflag=nonblock", "count=0", "status=none"])
                .arg(format!("of={}", fifo.display()))
                .output()
        };
        while read().unwrap().status.success() {
            assert!(std::time::Instant::now() < deadline, "it runs on");
        }
    }
}
