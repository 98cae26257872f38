//! How far a replay is: one line on a terminal, rewritten in place.

use std::io::{IsTerminal, Write};

const WIDTH: usize = 30;

/// A bar on standard error; silent when that is no terminal.
pub struct Progress {
    out: Option<Box<dyn Write>>,
    label: String,
    all: usize,
    shown: Option<usize>,
}

impl Progress {
    /// A bar for standard error.
    pub fn on_stderr() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self::new(terminal.then(|| Box::new(std::io::stderr()) as Box<dyn Write>))
    }

    /// A bar for `out`, or none.
    pub fn new(out: Option<Box<dyn Write>>) -> Self {
        Self { out, label: String::new(), all: 0, shown: None }
    }

    /// Begins anew.
    pub fn start(&mut self, label: &str, all: usize) {
        label.clone_into(&mut self.label);
        self.all = all.max(1);
        self.shown = None;
        self.set(0);
    }

    /// Shows that so many are done; writes only when the percentage changes.
    pub fn set(&mut self, done: usize) {
        let percent = (done.min(self.all) * 100) / self.all.max(1);
        if self.shown == Some(percent) {
            return;
        }
        self.shown = Some(percent);
        let filled = WIDTH * percent / 100;
        let (full, empty) = ("#".repeat(filled), ".".repeat(WIDTH - filled));
        let (label, all) = (&self.label, self.all);
        self.write(&format!("\r\x1b[K[{full}{empty}] {percent:3} %  {done}/{all} requests  {label}"));
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        self.write("\r\x1b[K");
    }

    /// A terminal that is gone is no reason to stop.
    fn write(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_is_rewritten_once_per_percent() {
        let screen = Screen::default();
        let mut progress = Progress::new(Some(Box::new(screen.clone())));
        progress.start("random", 10_000);
        (1..=10_000).for_each(|done| progress.set(done));
        progress.clear();
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("random").count(), 101);
        assert!(text.contains("[###############...............]  50 %  5000/10000 requests  random"), "{text}");
        assert!(text.ends_with("\r\x1b[K"));
    }
}
