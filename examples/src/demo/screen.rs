//! What is shown: a line per step with the time since the beginning.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Lines to a reader, each flushed at once, as the reader is waiting.
pub struct Screen {
    out: Box<dyn Write>,
    began: Instant,
}

impl Screen {
    /// The clock starts now.
    pub fn new(out: Box<dyn Write>) -> Self {
        Self { out, began: Instant::now() }
    }

    /// A step that is done.
    ///
    /// # Errors
    /// The reader went away.
    pub fn step(&mut self, what: &str) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        writeln!(self.out, "{seconds:7.2} s  {what}")?;
        self.out.flush()
    }

    /// A line of the guest.
    pub(super) fn guest(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "           | {line}")?;
        self.out.flush()
    }

    /// Text as it is.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// That much later than now.
    pub(super) fn deadline(&self, time: Duration) -> Instant {
        Instant::now() + time
    }
}
