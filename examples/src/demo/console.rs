//! Follows a console that can only be read whole: what is new, as lines that are safe to show.

/// What a login banner ends with.
const BANNER: &str = "login:";
/// How much of what was shown must be found again in a log that lost its beginning.
const OVERLAP: usize = 256;
/// Longer lines are cut.
const WIDTH: usize = 240;

/// How far a console has been shown.
#[derive(Debug, Default)]
pub(super) struct Follower {
    shown: String,
    banner: bool,
}

impl Follower {
    /// The lines that came since the last call. An unfinished line is held back, unless it is the banner.
    pub(super) fn take(&mut self, log: &str) -> Vec<String> {
        let fresh = &log[self.start(log)..];
        let end = fresh.rfind('\n').map_or(0, |at| at + 1);
        let (whole, rest) = fresh.split_at(end);
        let mut lines: Vec<String> = whole.lines().map(clean).collect();
        let unfinished = clean(rest);
        let banner_begun = unfinished.contains(BANNER) && !self.banner;
        self.banner = self.banner || banner_begun || lines.iter().any(|l| l.contains(BANNER));
        if banner_begun {
            lines.push(unfinished);
        }
        log[..log.len() - rest.len()].clone_into(&mut self.shown);
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// Has the banner been seen?
    pub(super) fn banner(&self) -> bool {
        self.banner
    }

    /// Where in the log the unseen part begins. Logs are cut at their beginning once they are long.
    fn start(&self, log: &str) -> usize {
        if log.starts_with(&self.shown) {
            return self.shown.len();
        }
        let tail = self.shown.char_indices().rev().take(OVERLAP).last().map_or(0, |(at, _)| at);
        match log.rfind(&self.shown[tail..]) {
            Some(at) => at + self.shown.len() - tail,
            None => 0,
        }
    }
}

/// The last lines of a log.
pub(super) fn last_lines(log: &str, count: usize) -> Vec<String> {
    let lines: Vec<String> = log.lines().map(clean).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

/// Does the log hold a banner?
pub(super) fn has_banner(log: &str) -> bool {
    log.contains(BANNER)
}

/// A line without what would move a terminal's cursor or worse: the guest writes what it likes.
fn clean(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            '\t' => text.push(' '),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text.trim_end().chars().take(WIDTH).collect()
}

/// Leaves out the rest of a terminal's control sequence (ECMA-48, 5.4).
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    if rest.next() == Some('[') {
        let _ = rest.find(|c| ('@'..='~').contains(c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_shown_once() {
        let mut follower = Follower::default();
        assert_eq!(follower.take("one\r\ntw"), ["one"]);
        assert_eq!(follower.take("one\r\ntwo\r\nthree\r\n"), ["two", "three"]);
        assert!(follower.take("one\r\ntwo\r\nthree\r\n").is_empty());
    }

    #[test]
    fn the_banner_is_shown_while_it_waits_for_an_answer() {
        let mut follower = Follower::default();
        follower.take("boot\n");
        assert!(!follower.banner());
        assert_eq!(follower.take("boot\ndemo-1 login: "), ["demo-1 login:"]);
        assert!(follower.banner());
        assert!(follower.take("boot\ndemo-1 login: ").is_empty());
    }

    #[test]
    fn a_log_that_lost_its_beginning_goes_on_where_it_was() {
        let mut follower = Follower::default();
        let line = |n: u32| format!("line {n} {}\n", "x".repeat(40));
        let log = |numbers: std::ops::Range<u32>| numbers.map(line).collect::<String>();
        follower.take(&log(0..50));
        let fresh = follower.take(&log(30..52));
        assert_eq!(fresh, [line(50).trim_end(), line(51).trim_end()]);
        // Nothing in common: the guest has written more than the log holds.
        assert_eq!(follower.take("new\n"), ["new"]);
    }

    #[test]
    fn a_guest_does_not_steer_the_terminal() {
        assert_eq!(clean("\u{1b}[2J\u{1b}[1;31mred\u{7}\u{1b}c end \u{9b}x"), "red end x");
        assert_eq!(clean(&"y".repeat(1000)).len(), WIDTH);
    }

    #[test]
    fn the_last_lines_are_those_with_text() {
        assert_eq!(last_lines("a\n\nb\r\nc\n\n", 2), ["b", "c"]);
        assert_eq!(last_lines("", 2), Vec::<String>::new());
    }
}
