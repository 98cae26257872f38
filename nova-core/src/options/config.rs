//! Loading: from (source, text) pairs to values, or to everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;

use super::substitute::{Piece, pieces};
use super::{ConfigError, FromValue, Opt, OptionDecl, OptionKind, Origin, Problem, Registry, Source, Value, ini};

/// One option with its value and where that came from.
#[derive(Clone)]
pub struct Setting {
    /// The declaration.
    pub decl: OptionDecl,
    /// The section; differs from the declaration's for sections of free names.
    pub group: String,
    /// The value.
    pub value: Value,
    /// Who set it; [`Source::Default`] without a line if nobody did.
    pub origin: Origin,
    /// The old name under which it was set (`group.name`).
    pub old_name: Option<String>,
}

impl Setting {
    /// The value as it may be shown: secrets are hidden.
    #[must_use]
    pub fn shown(&self) -> String {
        self.decl.masked(&self.decl.write(&self.value))
    }

    /// `group.name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.group, self.decl.name)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key(), self.shown(), self.origin)
    }
}

/// A loaded configuration: every declared option has a value of its type. `Debug` hides secrets.
#[derive(Clone)]
pub struct Config {
    pub(super) settings: BTreeMap<(String, &'static str), Setting>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.settings.values()).finish()
    }
}

impl Config {
    /// Reads all sources. Those of a later kind win (see [`Source`]), whatever the order here; files in the order given.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, by source and line: what can't be read, unknown sections and options, values out of range,
    /// substitutions that stand for nothing, contradictions.
    pub fn load<T: AsRef<str>>(
        registry: &Registry,
        sources: impl IntoIterator<Item = (Source, T)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut loader = Loader::new(registry);
        let mut sources: Vec<_> = sources.into_iter().collect();
        sources.sort_by_key(|(source, _)| source.rank());
        for (source, text) in sources {
            loader.collect(source, text.as_ref());
        }
        loader.finish()
    }

    /// The configuration if nobody sets anything.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load): a declared default may need a source (`~/` needs `HOME`).
    pub fn defaults(registry: &Registry) -> Result<Self, Vec<ConfigError>> {
        Self::load(registry, std::iter::empty::<(Source, &str)>())
    }

    /// The value of a declared option.
    ///
    /// To read an option that the registry doesn't know is a mistake in the program: it fails a debug assertion, and gives
    /// the declaration's own default otherwise.
    pub fn get<T: FromValue + Default>(&self, option: &Opt<T>) -> T {
        self.get_in(option.decl().group, option)
    }

    /// The value of an option declared for sections of free names (`pipeline:*`), in the section `group`.
    pub fn get_in<T: FromValue + Default>(&self, group: &str, option: &Opt<T>) -> T {
        let decl = option.decl();
        let setting = self.setting(group, decl.name);
        debug_assert!(setting.is_some() || decl.prefix().is_some(), "{} is not in the registry", decl.key());
        setting
            .and_then(|setting| T::from_value(&setting.value))
            .or_else(|| T::from_value(&decl.read(&[decl.default.unwrap_or_default().to_owned()], None).ok()?))
            .unwrap_or_default()
    }

    /// The setting of an option by name.
    #[must_use]
    pub fn setting(&self, group: &str, name: &str) -> Option<&Setting> {
        self.settings.values().find(|setting| setting.group == group && setting.decl.name == name)
    }

    /// All settings, by group and name.
    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.values()
    }

    /// Options that were set under a name that they no longer have: what to tell the operator, a line each.
    #[must_use]
    pub fn renamed(&self) -> Vec<String> {
        let line = |s: &Setting| Some(format!("{}: {} is called {} now", s.origin, s.old_name.as_ref()?, s.key()));
        self.settings.values().filter_map(line).collect()
    }

    /// The names behind `prefix:` of all sections that set something (`pipeline` gives `compute`, …), sorted.
    #[must_use]
    pub fn sections(&self, prefix: &str) -> Vec<&str> {
        let name = |group: &'_ str| group.strip_prefix(prefix)?.strip_prefix(':').map(str::len);
        let mut names: Vec<_> = self
            .settings
            .values()
            .filter_map(|setting| {
                name(&setting.group).and_then(|length| setting.group.get(setting.group.len() - length..))
            })
            .collect();
        names.dedup();
        names
    }
}

struct Assignment {
    text: String,
    origin: Origin,
    old_name: Option<String>,
}

enum Resolved {
    /// Being resolved: to come here again is a circle.
    Open,
    Failed,
    Done(Box<Setting>),
}

type Key = (String, &'static str);

struct Loader<'r> {
    registry: &'r Registry,
    home: Option<String>,
    assigned: BTreeMap<Key, Vec<Assignment>>,
    resolved: BTreeMap<Key, Resolved>,
    errors: Vec<ConfigError>,
}

impl<'r> Loader<'r> {
    fn new(registry: &'r Registry) -> Self {
        Self { registry, home: None, assigned: BTreeMap::new(), resolved: BTreeMap::new(), errors: Vec::new() }
    }

    fn error(&mut self, origin: &Origin, option: Option<String>, problem: Problem) {
        self.errors.push(ConfigError { origin: origin.clone(), option, problem });
    }

    fn collect(&mut self, source: Source, text: &str) {
        match &source {
            Source::File { .. } => self.collect_file(&source, text),
            Source::Environment { variable } if variable == "HOME" => self.home = Some(text.to_owned()),
            Source::Environment { variable } => {
                if let Some((group, name)) = self.registry.variable_key(variable) {
                    self.assign(&group, &name, text.to_owned(), Origin { source, line: None });
                }
            }
            Source::Default | Source::CommandLine => self.collect_assignment(source, text),
        }
    }

    fn collect_file(&mut self, source: &Source, text: &str) {
        let parsed = ini::parse(text);
        let at = |line| Origin { source: source.clone(), line: Some(line) };
        for (line, what) in parsed.errors {
            self.error(&at(line), None, Problem::Syntax(what));
        }
        for (section, line) in &parsed.sections {
            if !self.registry.knows_group(section) {
                self.error(&at(*line), None, self.registry.unknown_group(section));
            }
        }
        for entry in parsed.entries {
            // The header of an unknown section was reported already.
            if self.registry.knows_group(&entry.section) || entry.section == "DEFAULT" {
                self.assign(&entry.section, &entry.key, entry.value, at(entry.line));
            }
        }
    }

    /// `group.option=value`; a name without a group is of `DEFAULT`.
    fn collect_assignment(&mut self, source: Source, text: &str) {
        let origin = Origin { source, line: None };
        let Some((key, value)) = text.split_once('=') else {
            let what = format!("expected group.option=value, not '{text}'");
            return self.error(&origin, None, Problem::Syntax(what));
        };
        let (group, name) = key.trim().rsplit_once('.').unwrap_or(("DEFAULT", key.trim()));
        self.assign(group, name, value.trim().to_owned(), origin);
    }

    fn assign(&mut self, group: &str, name: &str, text: String, origin: Origin) {
        let (key, old_name) = match (self.registry.find(group, name), self.registry.renamed(group, name)) {
            (Some(decl), _) => ((group.to_owned(), decl.name), None),
            (None, Some(decl)) => ((decl.group.to_owned(), decl.name), Some(format!("{group}.{name}"))),
            (None, None) => {
                let problem = self.registry.unknown_option(group, name);
                return self.error(&origin, Some(format!("{group}.{name}")), problem);
            }
        };
        let all = self.assigned.entry(key).or_default();
        // Only one kind of source counts; within it a repeatable option adds up.
        all.retain(|before| before.origin.source.rank() == origin.source.rank());
        // Under both names, that of today counts.
        match old_name {
            None => all.retain(|before| before.old_name.is_none()),
            Some(_) if all.iter().any(|before| before.old_name.is_none()) => return,
            Some(_) => {}
        }
        all.push(Assignment { text, origin, old_name });
    }

    fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        let declared = self.registry.options().filter(|option| option.prefix().is_none());
        let mut keys: Vec<Key> = declared.map(|option| (option.group.to_owned(), option.name)).collect();
        keys.extend(self.assigned.keys().cloned());
        for key in keys {
            self.resolve(&key);
        }
        let settings = self.resolved.into_iter().filter_map(|(key, resolved)| match resolved {
            Resolved::Done(setting) => Some((key, *setting)),
            Resolved::Open | Resolved::Failed => None,
        });
        let config = Config { settings: settings.collect() };
        if self.errors.is_empty() {
            self.errors = contradictions(self.registry, &config);
        }
        self.errors.sort_by_key(|error| (error.origin.source.clone(), error.origin.line));
        if self.errors.is_empty() { Ok(config) } else { Err(self.errors) }
    }

    /// Makes sure that the option has a setting, or has failed with a report.
    fn resolve(&mut self, key: &Key) {
        if self.resolved.contains_key(key) {
            return;
        }
        let Some(decl) = self.registry.find(&key.0, key.1).copied() else { return };
        let (texts, origin) = self.assignments(key, &decl);
        let old_name = self.assigned.get(key).and_then(|all| all.last()?.old_name.clone());
        self.resolved.insert(key.clone(), Resolved::Open);
        let outcome = match self.substituted(key, &decl, &texts, &origin) {
            Some(texts) => self.read(key, &decl, &texts, (origin, old_name)),
            None => Resolved::Failed,
        };
        self.resolved.insert(key.clone(), outcome);
    }

    fn assignments(&self, key: &Key, decl: &OptionDecl) -> (Vec<String>, Origin) {
        match self.assigned.get(key).map(Vec::as_slice) {
            Some([all @ .., last]) => {
                let repeatable = matches!(decl.kind, OptionKind::MultiString);
                let before = all.iter().filter(|_| repeatable);
                let texts = before.chain([last]).map(|assignment| assignment.text.clone()).collect();
                (texts, last.origin.clone())
            }
            Some([]) | None => (vec![decl.default.unwrap_or_default().to_owned()], Origin::DEFAULT),
        }
    }

    fn read(
        &mut self,
        key: &Key,
        decl: &OptionDecl,
        texts: &[String],
        (origin, old_name): (Origin, Option<String>),
    ) -> Resolved {
        match decl.read(texts, self.home.as_deref()) {
            Ok(value) => {
                let group = key.0.clone();
                Resolved::Done(Box::new(Setting { decl: *decl, group, value, origin, old_name }))
            }
            Err(allowed) => {
                let value = texts.last().map(|text| decl.masked(text)).unwrap_or_default();
                self.error(&origin, Some(format!("{}.{}", key.0, key.1)), Problem::BadValue { value, allowed });
                Resolved::Failed
            }
        }
    }

    fn substituted(&mut self, key: &Key, decl: &OptionDecl, texts: &[String], origin: &Origin) -> Option<Vec<String>> {
        let mut done = Vec::new();
        for text in texts {
            let mut whole = String::new();
            for piece in pieces(text) {
                match piece {
                    Piece::Text(text) => whole.push_str(text),
                    Piece::Name(name) => match self.other(&key.0, name) {
                        Ok(text) => whole.push_str(&text?),
                        Err(problem) => {
                            self.error(origin, Some(format!("{}.{}", key.0, decl.name)), problem);
                            return None;
                        }
                    },
                }
            }
            done.push(whole);
        }
        Some(done)
    }

    /// The text of another option: the same group first, then `DEFAULT`. `None` if that one has failed already.
    fn other(&mut self, group: &str, name: &str) -> Result<Option<String>, Problem> {
        let candidates = match name.split_once('.') {
            Some((group, name)) => vec![(group, name)],
            None => vec![(group, name), ("DEFAULT", name)],
        };
        let found = candidates
            .into_iter()
            .find_map(|(group, name)| self.registry.find(group, name).map(|decl| (group.to_owned(), decl.name)));
        let Some(key) = found else { return Err(Problem::UnknownSubstitution { name: name.to_owned() }) };
        self.resolve(&key);
        match self.resolved.get(&key) {
            Some(Resolved::Done(setting)) => Ok(Some(setting.decl.write(&setting.value))),
            Some(Resolved::Open) => Err(Problem::CircularSubstitution),
            Some(Resolved::Failed) | None => Ok(None),
        }
    }
}

fn contradictions(registry: &Registry, config: &Config) -> Vec<ConfigError> {
    let broken = registry.checks.iter().filter_map(|check| check(config).err());
    broken
        .map(|(key, what)| {
            let setting = key.split_once('.').and_then(|(group, name)| config.setting(group, name));
            ConfigError {
                origin: setting.map_or(Origin::DEFAULT, |setting| setting.origin.clone()),
                option: Some(key.to_owned()),
                problem: Problem::Contradiction(what),
            }
        })
        .collect()
}
