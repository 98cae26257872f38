//! How an option is declared.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use super::Address;

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    /// Any text.
    String,
    /// A whole number in a range, both ends included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A number in a range, both ends included.
    Float {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts between commas.
    List,
    /// Texts between white space (the filters of a pipeline).
    Words,
    /// A text per line: the key may be repeated.
    MultiString,
    /// A time in seconds, fractions allowed, in a range, both ends included.
    Seconds {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// `scheme:…` with one of these schemes; none listed is any. A password in it is never shown.
    Url(&'static [&'static str]),
    /// `host:port`, `[address]:port` for IPv6.
    Address,
    /// A path; `~/` is the home folder.
    Path,
}

/// Whether a running service takes a changed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Yes, on SIGHUP.
    OnSighup,
    /// Only when it is started again.
    Restart,
}

/// The declaration of one option.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionDecl {
    /// The section. `prefix:*` declares the option for every section `[prefix:NAME]`.
    pub group: &'static str,
    /// The key.
    pub name: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// What one stands for (`seconds`, `MiB`), empty where there is no unit.
    pub unit: &'static str,
    /// The value if nobody sets one; `$name` may stand in it. `None`: not set.
    pub default: Option<&'static str>,
    /// Where the program finds a better default out for itself ([`Source::Default`](super::Source::Default)), what that is.
    pub computed: Option<&'static str>,
    /// What it does, for operators.
    pub help: &'static str,
    /// Whether a running service takes a change.
    pub reload: Reload,
    /// Never shown.
    pub secret: bool,
    /// May be left without a value.
    pub optional: bool,
    /// Which services read it; empty is all.
    pub roles: &'static [&'static str],
    /// Groups and names that it had before, and under which it is still understood. The name of today wins.
    pub old_names: &'static [(&'static str, &'static str)],
}

impl OptionDecl {
    /// `group.name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.group, self.name)
    }

    /// The `prefix:` of a declaration for free section names.
    pub(super) fn prefix(&self) -> Option<&'static str> {
        self.group.strip_suffix('*').filter(|prefix| prefix.ends_with(':'))
    }
}

/// A typed handle of a declared option: `config.get(&HANDLE)` gives a `T`.
pub struct Opt<T> {
    decl: OptionDecl,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Opt<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Opt<T> {}

impl<T> std::fmt::Debug for Opt<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.decl.fmt(f)
    }
}

impl<T> Opt<T> {
    const fn of(group: &'static str, name: &'static str, kind: OptionKind) -> Self {
        let decl = OptionDecl {
            group,
            name,
            kind,
            unit: "",
            default: Some(""),
            computed: None,
            help: "",
            reload: Reload::Restart,
            secret: false,
            optional: false,
            roles: &[],
            old_names: &[],
        };
        Self { decl, of: PhantomData }
    }

    /// The declaration, for a list of them.
    #[must_use]
    pub const fn decl(&self) -> OptionDecl {
        self.decl
    }

    /// The value if nobody sets one.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.decl.default = Some(text);
        self
    }

    /// What the program finds out for itself, in words.
    #[must_use]
    pub const fn computed(mut self, words: &'static str) -> Self {
        self.decl.computed = Some(words);
        self
    }

    /// What one stands for.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.decl.unit = unit;
        self
    }

    /// What it does.
    #[must_use]
    pub const fn help(mut self, help: &'static str) -> Self {
        self.decl.help = help;
        self
    }

    /// A running service takes a change on SIGHUP.
    #[must_use]
    pub const fn reloads(mut self) -> Self {
        self.decl.reload = Reload::OnSighup;
        self
    }

    /// Never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.decl.secret = true;
        self
    }

    /// Which services read it.
    #[must_use]
    pub const fn roles(mut self, roles: &'static [&'static str]) -> Self {
        self.decl.roles = roles;
        self
    }

    /// Groups and names that it had before.
    #[must_use]
    pub const fn old_names(mut self, names: &'static [(&'static str, &'static str)]) -> Self {
        self.decl.old_names = names;
        self
    }

    /// May be left without a value, and is by default.
    #[must_use]
    pub const fn optional(self) -> Opt<Option<T>> {
        let decl = OptionDecl { optional: true, default: None, ..self.decl };
        Opt { decl, of: PhantomData }
    }
}

impl Opt<String> {
    /// Any text.
    #[must_use]
    pub const fn string(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::String)
    }

    /// One of these words.
    #[must_use]
    pub const fn choice(group: &'static str, name: &'static str, words: &'static [&'static str]) -> Self {
        Self::of(group, name, OptionKind::Choice(words))
    }

    /// A URL with one of these schemes.
    #[must_use]
    pub const fn url(group: &'static str, name: &'static str, schemes: &'static [&'static str]) -> Self {
        Self::of(group, name, OptionKind::Url(schemes))
    }
}

impl Opt<i64> {
    /// A whole number between `min` and `max`.
    #[must_use]
    pub const fn integer(group: &'static str, name: &'static str, min: i64, max: i64) -> Self {
        Self::of(group, name, OptionKind::Integer { min, max })
    }
}

impl Opt<f64> {
    /// A number between `min` and `max`.
    #[must_use]
    pub const fn float(group: &'static str, name: &'static str, min: f64, max: f64) -> Self {
        Self::of(group, name, OptionKind::Float { min, max })
    }
}

impl Opt<bool> {
    /// Yes or no.
    #[must_use]
    pub const fn boolean(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::Boolean).default("false")
    }
}

impl Opt<Vec<String>> {
    /// Texts between commas.
    #[must_use]
    pub const fn list(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::List)
    }

    /// Texts between white space.
    #[must_use]
    pub const fn words(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::Words)
    }

    /// A text for each time that the key stands there.
    #[must_use]
    pub const fn multi(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::MultiString)
    }
}

impl Opt<Duration> {
    /// A time between `min` and `max` seconds.
    #[must_use]
    pub const fn seconds(group: &'static str, name: &'static str, min: u64, max: u64) -> Self {
        Self::of(group, name, OptionKind::Seconds { min, max }).unit("seconds")
    }
}

impl Opt<Address> {
    /// Host and port.
    #[must_use]
    pub const fn address(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::Address)
    }
}

impl Opt<PathBuf> {
    /// A path.
    #[must_use]
    pub const fn path(group: &'static str, name: &'static str) -> Self {
        Self::of(group, name, OptionKind::Path)
    }
}
