//! Where a value came from.

use std::fmt;

/// Where a text of configuration came from. Later variants win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// What the program itself found out, as `group.option=value` (the host's name, for example).
    Default,
    /// A file in INI form; several win in the order in which they are given.
    File {
        /// Its path, for messages.
        path: String,
    },
    /// One variable of the environment; the text is its value. All may be handed in: those that are not
    /// `NOVA_GROUP__OPTION` are ignored, `HOME` tells what `~/` means.
    Environment {
        /// Its name.
        variable: String,
    },
    /// One `group.option=value` of the command line.
    CommandLine,
}

impl Source {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment { .. } => 2,
            Self::CommandLine => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path } => f.write_str(path),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A source, and the line in it if it is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source.
    pub source: Source,
    /// The line, counted from 1.
    pub line: Option<usize>,
}

impl Origin {
    /// The origin of an option that nobody set.
    pub(super) const DEFAULT: Self = Self { source: Source::Default, line: None };
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
