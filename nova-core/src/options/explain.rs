//! Telling an operator about an option, and a whole sample file.

use std::fmt;

use super::substitute::escaped;
use super::{Config, OptionDecl, OptionKind, Registry, Reload, Setting, Source};

/// All about one option: what it is set to, by whom, and what it may be. Secrets are hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// `group.name`.
    pub key: String,
    /// The value, as it may be shown.
    pub value: String,
    /// Who set it: a file with its line, a variable, the command line, or `default`.
    pub origin: String,
    /// The value if nobody sets one.
    pub default: String,
    /// What is allowed.
    pub allowed: String,
    /// What one stands for; may be empty.
    pub unit: &'static str,
    /// Whether a running service takes a change.
    pub reload: Reload,
    /// Which services read it.
    pub roles: &'static [&'static str],
    /// What it does.
    pub help: &'static str,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} = {}", self.key, self.value)?;
        writeln!(f, "  from     {}", self.origin)?;
        writeln!(f, "  default  {}", self.default)?;
        writeln!(f, "  allowed  {}", self.allowed)?;
        if !self.unit.is_empty() {
            writeln!(f, "  unit     {}", self.unit)?;
        }
        writeln!(f, "  reloads  {}", reload_words(self.reload))?;
        writeln!(f, "  read by  {}", role_words(self.roles))?;
        write!(f, "  {}", self.help)
    }
}

impl Config {
    /// All about `group.name`; a name without a group is of `DEFAULT`. `None` if there is no such option.
    #[must_use]
    pub fn explain(&self, key: &str) -> Option<Explanation> {
        let (group, name) = key.rsplit_once('.').unwrap_or(("DEFAULT", key));
        self.setting(group, name).map(explanation)
    }
}

impl Config {
    /// Where `group.name` was given (file and line, variable, command line). `None`: nowhere, the default holds; or there
    /// is no such option.
    #[must_use]
    pub fn given(&self, key: &str) -> Option<String> {
        let (group, name) = key.rsplit_once('.').unwrap_or(("DEFAULT", key));
        let origin = &self.setting(group, name)?.origin;
        (origin.source != Source::Default).then(|| origin.to_string())
    }
}

fn explanation(setting: &Setting) -> Explanation {
    let decl = &setting.decl;
    Explanation {
        key: setting.key(),
        value: setting.shown(),
        origin: match &setting.old_name {
            Some(old) => format!("{}, by its old name {old}", setting.origin),
            None => setting.origin.to_string(),
        },
        default: default_words(decl),
        allowed: decl.allowed(),
        unit: decl.unit,
        reload: decl.reload,
        roles: decl.roles,
        help: decl.help,
    }
}

fn default_words(decl: &OptionDecl) -> String {
    match (decl.computed, decl.default) {
        (Some(words), _) => words.to_owned(),
        (None, Some(text)) => decl.masked(text),
        (None, None) => "not set".to_owned(),
    }
}

const fn reload_words(reload: Reload) -> &'static str {
    match reload {
        Reload::OnSighup => "on SIGHUP",
        Reload::Restart => "no, needs a restart",
    }
}

fn role_words(roles: &[&str]) -> String {
    if roles.is_empty() { "all services".to_owned() } else { roles.join(", ") }
}

impl Registry {
    /// A whole commented `nova.conf`: every option with its help, what is allowed, and its default. With the `#` before each
    /// `name = value` removed it says what is said without it.
    #[must_use]
    pub fn sample(&self) -> String {
        let mut text = String::from("# Every option with its default. Lines '#name = value' are those to change.\n");
        let mut group = "";
        for option in self.options() {
            if option.group != group {
                group = option.group;
                text.push_str(&format!("\n[{}]\n", section_name(option)));
            }
            text.push('\n');
            text.push_str(&sample_of(option));
        }
        text
    }
}

/// Sections of free names are shown with one as an example.
fn section_name(option: &OptionDecl) -> String {
    option.prefix().map_or(option.group.to_owned(), |prefix| format!("{prefix}NAME"))
}

fn sample_of(option: &OptionDecl) -> String {
    let mut text: String = wrapped(option.help).iter().map(|line| format!("# {line}\n")).collect();
    text.push_str(&format!("# Allowed: {}.", option.allowed()));
    if !matches!(option.kind, OptionKind::Integer { .. } | OptionKind::Float { .. } | OptionKind::Seconds { .. })
        && !option.unit.is_empty()
    {
        text.push_str(&format!(" Unit: {}.", option.unit));
    }
    text.push_str(&format!(" Reloads: {}. Read by: {}.\n", reload_words(option.reload), role_words(option.roles)));
    for (group, name) in option.old_names {
        text.push_str(&format!("# Old name: {group}.{name}.\n"));
    }
    if let Some(words) = option.computed {
        text.push_str(&format!("# Default: {words}; if that isn't known, the value below.\n"));
    }
    let default = option.default.unwrap_or_default();
    // A default is written as it was declared, so that `$state_path` stays a reference.
    text.push_str(format!("#{} = {default}", option.name).trim_end());
    text.push('\n');
    text
}

/// Words in lines of at most a hundred characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 100 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

impl Config {
    /// The configuration as a file that gives the same values, secrets included: for handing on, not for showing.
    #[must_use]
    pub fn to_ini(&self) -> String {
        let entries: Vec<_> = self.settings().map(|s| (s.group.clone(), s.decl.name, lines_of(s))).collect();
        super::ini::render(
            entries.iter().flat_map(|(group, name, values)| {
                values.iter().map(move |value| (group.as_str(), *name, value.as_str()))
            }),
        )
    }
}

/// The texts of a setting: several for a repeatable option.
fn lines_of(setting: &Setting) -> Vec<String> {
    let text = escaped(&setting.decl.write(&setting.value));
    match setting.decl.kind {
        OptionKind::MultiString => text.split('\n').map(str::to_owned).collect(),
        _ => vec![text],
    }
}
