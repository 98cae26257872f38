//! From one ruleset to another in one transaction, naming only what differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::model::{Chain, Ruleset, Set, TABLE, Table, list};

/// What has to be told to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The change itself: one transaction. Empty: there is none.
    pub script: String,
    /// What nothing refers to afterwards. The kernel refuses this within the same transaction.
    pub garbage: String,
    /// Something may have passed before that may not pass any more.
    pub narrows: bool,
}

/// The change from one to the other; `None` where only replacing the whole will do.
pub fn difference(old: &Ruleset, new: &Ruleset) -> Option<Change> {
    if !old.tables.keys().eq(new.tables.keys()) {
        return None;
    }
    let mut change = Change::default();
    for (family, table) in &new.tables {
        let before = old.tables.get(family)?;
        if !Arc::ptr_eq(before, table) {
            table_difference(family, before, table, &mut change)?;
        }
    }
    Some(change)
}

fn table_difference(family: &str, old: &Table, new: &Table, change: &mut Change) -> Option<()> {
    let same_shape = |name: &str, set: &Set| old.sets.get(name).is_none_or(|before| before.shape == set.shape);
    let same_hook = |name: &str, chain: &Chain| old.chains.get(name).is_none_or(|before| before.hook == chain.hook);
    let fits = new.sets.iter().all(|(name, set)| same_shape(name, set))
        && new.chains.iter().all(|(name, chain)| same_hook(name, chain))
        && old.chains.iter().all(|(name, chain)| chain.hook.is_none() || new.chains.contains_key(name));
    if !fits {
        return None;
    }
    let at = format!("{family} {TABLE}");
    let script = &mut change.script;
    for (name, set) in missing(&new.sets, &old.sets) {
        line(script, format_args!("add {} {at} {name} {{ {} }}", set.word(), set.declaration()));
        if !set.shape.map {
            elements(script, "add", &at, name, set.elements.iter());
        }
    }
    for (name, chain) in missing(&new.chains, &old.chains) {
        match chain.hook {
            Some(hook) => line(script, format_args!("add chain {at} {name} {{ {hook} }}")),
            None => line(script, format_args!("add chain {at} {name}")),
        }
    }
    for (name, chain) in &new.chains {
        let before = old.chains.get(name);
        if before == Some(chain) {
            continue;
        }
        if let Some(before) = before {
            line(script, format_args!("flush chain {at} {name}"));
            change.narrows |= !widens(name, before, chain);
        }
        for rule in &chain.rules {
            line(script, format_args!("add rule {at} {name} {rule}"));
        }
    }
    let nothing = BTreeMap::new();
    for (name, set) in &new.sets {
        let fresh = !old.sets.contains_key(name);
        let before = old.sets.get(name).map_or(&nothing, |set| &set.elements);
        let gone = || before.iter().filter(|(key, value)| set.elements.get(*key) != Some(value));
        let added = || set.elements.iter().filter(|(key, value)| before.get(*key) != Some(value));
        if gone().next().is_some() {
            change.narrows = true;
            // A key is enough to delete by; of a map that would otherwise need the chain to be there.
            let keys: BTreeMap<String, String> = gone().map(|(key, _)| (key.clone(), String::new())).collect();
            elements(script, "delete", &at, name, keys.iter());
        }
        if !fresh || set.shape.map {
            elements(script, "add", &at, name, added());
        }
    }
    for (name, _) in missing(&old.chains, &new.chains) {
        change.narrows = true;
        line(&mut change.garbage, format_args!("flush chain {at} {name}"));
    }
    for (name, _) in missing(&old.chains, &new.chains) {
        line(&mut change.garbage, format_args!("delete chain {at} {name}"));
    }
    for (name, set) in missing(&old.sets, &new.sets) {
        change.narrows = true;
        line(&mut change.garbage, format_args!("delete {} {at} {name}", set.word()));
    }
    Some(())
}

/// The script that has these chains hold what the table says.
pub fn replace_chains(family: &str, table: &Table, names: &[&str]) -> String {
    let mut script = String::new();
    for name in names {
        line(&mut script, format_args!("flush chain {family} {TABLE} {name}"));
        for rule in table.chains.get(*name).into_iter().flat_map(|chain| &chain.rules) {
            line(&mut script, format_args!("add rule {family} {TABLE} {name} {rule}"));
        }
    }
    script
}

/// Chains of groups hold nothing but what may pass, so that more rules let more through.
fn widens(name: &str, before: &Chain, after: &Chain) -> bool {
    name.starts_with(super::rules::GROUP_CHAIN) && before.rules.iter().all(|rule| after.rules.contains(rule))
}

fn missing<'a, T>(these: &'a BTreeMap<String, T>, those: &BTreeMap<String, T>) -> Vec<(&'a String, &'a T)> {
    these.iter().filter(|(name, _)| !those.contains_key(*name)).collect()
}

fn elements<'a>(
    script: &mut String,
    verb: &str,
    at: &str,
    name: &str,
    elements: impl Iterator<Item = (&'a String, &'a String)>,
) {
    let list = list(elements);
    if !list.is_empty() {
        line(script, format_args!("{verb} element {at} {name} {{ {list} }}"));
    }
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(script, "{text}");
}
