//! A ruleset as data, and as text for `nft -f`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Tables by family (`bridge`, `inet`); all are named `nova`. Rulesets share what they have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: BTreeMap<&'static str, Arc<Table>>,
}

/// The name of our tables.
pub const TABLE: &str = "nova";

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A set, or a map where [`Shape::map`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it is of.
    pub shape: Shape,
    /// Its elements with what they map to; nothing, in a set.
    pub elements: BTreeMap<String, String>,
}

/// What a set is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// `type ipv4_addr`, `typeof iifname . ether saddr : verdict`.
    pub of: &'static str,
    /// Elements may be ranges.
    pub intervals: bool,
    /// It is a map.
    pub map: bool,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it begins, if packets come to it by themselves: `type filter hook forward priority 0; policy accept;`.
    pub hook: Option<&'static str>,
    /// Its rules.
    pub rules: Vec<String>,
}

impl Shape {
    /// A set.
    pub const fn set(of: &'static str) -> Self {
        Self { of, intervals: false, map: false }
    }

    /// A set of ranges.
    pub const fn intervals(of: &'static str) -> Self {
        Self { of, intervals: true, map: false }
    }

    /// A map.
    pub const fn map(of: &'static str) -> Self {
        Self { of, intervals: false, map: true }
    }
}

impl Set {
    /// With elements that map to nothing.
    pub fn of(shape: Shape, elements: impl IntoIterator<Item = String>) -> Self {
        Self { shape, elements: elements.into_iter().map(|element| (element, String::new())).collect() }
    }

    /// `set` or `map`.
    pub fn word(&self) -> &'static str {
        if self.shape.map { "map" } else { "set" }
    }

    /// What stands between the braces of its declaration, without elements.
    pub fn declaration(&self) -> String {
        let flags = if self.shape.intervals { " flags interval;" } else { "" };
        format!("{};{flags}", self.shape.of)
    }
}

/// An element as it is added.
pub fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

impl Table {
    /// The set of that name, made if it is not there.
    pub fn set(&mut self, name: &str, shape: Shape) -> &mut Set {
        self.sets.entry(name.to_owned()).or_insert_with(|| Set { shape, elements: BTreeMap::new() })
    }

    /// Adds a chain.
    pub fn chain<S: Into<String>>(
        &mut self,
        name: &str,
        hook: Option<&'static str>,
        rules: impl IntoIterator<Item = S>,
    ) {
        let rules = rules.into_iter().map(Into::into).collect();
        self.chains.insert(name.to_owned(), Chain { hook, rules });
    }
}

/// The script that puts the ruleset in place of whatever tables of that name there are, at once.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, table) in &self.tables {
            // So that there is one to delete.
            writeln!(f, "table {family} {TABLE} {{}}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{")?;
            for (name, set) in &table.sets {
                writeln!(f, "  {} {name} {{ {}", set.word(), set.declaration())?;
                // Those of verdict maps name chains; they follow when the chains are there.
                if !set.shape.map && !set.elements.is_empty() {
                    writeln!(f, "    elements = {{ {} }}", list(set.elements.iter()))?;
                }
                writeln!(f, "  }}")?;
            }
            for (name, chain) in &table.chains {
                writeln!(f, "  chain {name} {{")?;
                if let Some(hook) = chain.hook {
                    writeln!(f, "    {hook}")?;
                }
                for rule in &chain.rules {
                    writeln!(f, "    {rule}")?;
                }
                writeln!(f, "  }}")?;
            }
            writeln!(f, "}}")?;
            for (name, set) in table.sets.iter().filter(|(_, set)| set.shape.map && !set.elements.is_empty()) {
                writeln!(f, "add element {family} {TABLE} {name} {{ {} }}", list(set.elements.iter()))?;
            }
        }
        Ok(())
    }
}

/// Elements as a list.
pub fn list<'a>(elements: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut text = String::new();
    for (key, value) in elements {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{}", element(key, value));
    }
    text
}
