//! All options that a program knows.

use std::collections::BTreeMap;

use super::error::nearest;
use super::{Config, OptionDecl, Problem};

/// A rule over several options: what contradicts, with the option (`group.name`) to name.
pub type Check = fn(&Config) -> Result<(), (&'static str, String)>;

/// The options that a program knows, from all crates that declare some.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    pub(super) options: BTreeMap<(&'static str, &'static str), OptionDecl>,
    pub(super) checks: Vec<Check>,
}

impl Registry {
    /// Knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds declarations. Of two of the same name the first stays.
    #[must_use]
    pub fn with(mut self, options: &[OptionDecl]) -> Self {
        for option in options {
            self.options.entry((option.group, option.name)).or_insert(*option);
        }
        self
    }

    /// Adds a rule over several options, looked at once every value is good in itself.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// The declarations, by group and name, `DEFAULT` first.
    pub fn options(&self) -> impl Iterator<Item = &OptionDecl> {
        self.options.values()
    }

    /// The declaration of an option; also for a section of a free name (`pipeline:compute`).
    #[must_use]
    pub fn find(&self, group: &str, name: &str) -> Option<&OptionDecl> {
        self.options.values().find(|option| option.name == name && covers(option, group))
    }

    /// The declaration of the option that had this name before.
    pub(super) fn renamed(&self, group: &str, name: &str) -> Option<&OptionDecl> {
        self.options.values().find(|option| option.old_names.contains(&(group, name)))
    }

    pub(super) fn knows_group(&self, group: &str) -> bool {
        let had_it = |option: &OptionDecl| option.old_names.iter().any(|(old, _)| *old == group);
        self.options.values().any(|option| covers(option, group) || had_it(option))
    }

    /// The group and name that an environment variable means, as far as it looks like one of ours.
    pub(super) fn variable_key(&self, variable: &str) -> Option<(String, String)> {
        let upper = variable.to_ascii_uppercase();
        let (group, name) = upper.strip_prefix("NOVA_")?.split_once("__")?;
        let known = self
            .options
            .values()
            .find(|option| option.group.eq_ignore_ascii_case(group) && option.name.eq_ignore_ascii_case(name));
        Some(match known {
            Some(option) => (option.group.to_owned(), option.name.to_owned()),
            None => {
                let group = if group == "DEFAULT" { group.to_owned() } else { group.to_ascii_lowercase() };
                (group, name.to_ascii_lowercase())
            }
        })
    }

    pub(super) fn unknown_group(&self, group: &str) -> Problem {
        let groups = self.options.values().map(|option| option.group);
        Problem::UnknownSection { section: group.to_owned(), nearest: nearest(group, groups).map(str::to_owned) }
    }

    /// Same group first, then the same name elsewhere, then the nearest of all.
    pub(super) fn unknown_option(&self, group: &str, name: &str) -> Problem {
        let here = self.options.values().filter(|option| covers(option, group)).map(|option| option.name);
        let in_group = nearest(name, here).map(|found| format!("{group}.{found}"));
        let elsewhere = || self.options.values().find(|option| option.name == name).map(OptionDecl::key);
        let anywhere = || {
            let keys: Vec<_> = self.options.values().map(OptionDecl::key).collect();
            nearest(&format!("{group}.{name}"), keys.iter().map(String::as_str)).map(str::to_owned)
        };
        Problem::UnknownOption { nearest: in_group.or_else(elsewhere).or_else(anywhere) }
    }
}

fn covers(option: &OptionDecl, group: &str) -> bool {
    match option.prefix() {
        Some(prefix) => group.strip_prefix(prefix).is_some_and(|name| !name.is_empty()),
        None => option.group == group,
    }
}
