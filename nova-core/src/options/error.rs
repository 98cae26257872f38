//! What can be wrong with a configuration, and the nearest name to a wrong one.

use std::fmt;

use super::Origin;

/// One thing that is wrong: where, with which option, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Source and line.
    pub origin: Origin,
    /// `group.name`, where an option is concerned.
    pub option: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(option) = &self.option {
            write!(f, "{option}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The text can't be read.
    Syntax(String),
    /// No option has that name.
    UnknownOption {
        /// The nearest `group.name`.
        nearest: Option<String>,
    },
    /// No section has that name.
    UnknownSection {
        /// The section.
        section: String,
        /// The nearest one.
        nearest: Option<String>,
    },
    /// The value isn't one that the option takes.
    BadValue {
        /// The value, hidden if it may hold a secret.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// `$name` stands for nothing.
    UnknownSubstitution {
        /// The name after the dollar sign.
        name: String,
    },
    /// The option's value contains itself.
    CircularSubstitution,
    /// Two options contradict each other, or a value needs something that isn't there.
    Contradiction(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = |nearest: &Option<String>| match nearest {
            Some(name) => format!("; did you mean '{name}'?"),
            None => String::new(),
        };
        match self {
            Self::Syntax(what) | Self::Contradiction(what) => f.write_str(what),
            Self::UnknownOption { nearest } => write!(f, "no such option{}", hint(nearest)),
            Self::UnknownSection { section, nearest } => write!(f, "no such section [{section}]{}", hint(nearest)),
            Self::BadValue { value, allowed } => write!(f, "'{value}' is not allowed; allowed: {allowed}"),
            Self::UnknownSubstitution { name } => {
                write!(f, "'${name}' stands for no option; write '$$' for a dollar sign")
            }
            Self::CircularSubstitution => f.write_str("its value contains itself"),
        }
    }
}

/// The known word nearest to a wrong one, if any is near enough to be a slip.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (right, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(left != *right);
            diagonal = *cell;
            before = cost.min(*cell + 1).min(before + 1);
            *cell = before;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or_default()
}
