//! What a changed configuration means for a running service.

use std::collections::BTreeSet;

use super::{Config, Reload};

/// One option that changed. Secrets are hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `group.name`.
    pub key: String,
    /// The value before, as it may be shown.
    pub from: String,
    /// The value now, as it may be shown.
    pub to: String,
}

/// The difference of two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Changed, and taken at once.
    pub reloaded: Vec<Change>,
    /// Changed, but a restart is needed: the service goes on with the old value.
    pub needs_restart: Vec<Change>,
    /// How many options are as they were.
    pub unchanged: usize,
}

impl Config {
    /// Compares with a configuration that was loaded later, for SIGHUP.
    #[must_use]
    pub fn reload(&self, new: &Self) -> ReloadReport {
        let keys: BTreeSet<_> = self.settings.keys().chain(new.settings.keys()).collect();
        let mut report = ReloadReport::default();
        for key in keys {
            let (before, after) = (self.settings.get(key), new.settings.get(key));
            let value = |setting: Option<&super::Setting>| setting.map(|setting| setting.value.clone());
            let Some(any) = after.or(before).filter(|_| value(before) != value(after)) else {
                report.unchanged += 1;
                continue;
            };
            let shown = |setting: Option<&super::Setting>| setting.map(super::Setting::shown).unwrap_or_default();
            let change = Change { key: any.key(), from: shown(before), to: shown(after) };
            match any.decl.reload {
                Reload::OnSighup => report.reloaded.push(change),
                Reload::Restart => report.needs_restart.push(change),
            }
        }
        report
    }

    /// The configuration that a running service goes on with: the new values of those options that reload, the old ones of
    /// the rest.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut settings = self.settings.clone();
        for (key, setting) in &new.settings {
            if setting.decl.reload == Reload::OnSighup {
                settings.insert(key.clone(), setting.clone());
            }
        }
        Self { settings }
    }
}
