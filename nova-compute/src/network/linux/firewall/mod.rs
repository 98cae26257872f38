//! Security groups and protection from forged addresses, as one nftables ruleset in two tables: `bridge nova` and
//! `inet nova`.
//!
//! The ruleset is made of the host's network by a pure function; what is in force is changed by the difference, in one
//! transaction. Neutron's `iptables_firewall.py` says what has to be let through; the shape is another, since thousands
//! of rules are to be looked up and not gone through.

mod bridge;
mod diff;
mod inet;
mod members;
mod model;
mod nft;
mod plan;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nova_core::ids::SecurityGroupId;
use nova_core::network::{Group, HostNetwork};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use diff::{Change, difference};
pub use model::{Chain, Ruleset, Set, Shape, Table};
pub use nft::Nft;
pub use plan::{METADATA, Marks, Passes, Plan, Profile, Tap, UplinkRules};

use super::links::failed;
use crate::network::PlumbingError;

/// The ruleset for a plan. Everything must have its number.
pub fn ruleset(plan: &Plan, wanted: &HostNetwork, marks: &Marks) -> Ruleset {
    with_bridge_table(Arc::new(bridge::table(plan, marks)), plan, wanted, marks)
}

fn with_bridge_table(bridge: Arc<Table>, plan: &Plan, wanted: &HostNetwork, marks: &Marks) -> Ruleset {
    let inet = Arc::new(inet::table(plan, wanted, marks));
    Ruleset { tables: [("bridge", bridge), ("inet", inet)].into_iter().collect() }
}

/// How the kernel's ruleset was made what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was already.
    Unchanged,
    /// By naming what differs.
    Changed,
    /// As a whole: it was not known, or somebody had changed it.
    Replaced,
}

/// What outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    marks: Marks,
    /// Of the ruleset that was put in force.
    ruleset: String,
    /// Of what the kernel then told of it; empty: not asked for yet.
    listing: String,
}

impl Memory {
    /// What a file says. Without one that can be read generations begin at a number that was not reached before: the
    /// time in seconds, as they don't go up every second. So no connection passes by a stamp of then.
    fn read(bytes: Option<&[u8]>, now: std::time::SystemTime) -> Self {
        let known = bytes.and_then(|bytes| serde_json::from_slice(bytes).ok());
        known.unwrap_or_else(|| {
            let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let generation = u32::try_from(seconds).unwrap_or_default();
            Self { marks: Marks { generation, ..Marks::default() }, ..Self::default() }
        })
    }
}

/// The generation after that one; never 0, which connections have that nobody has stamped.
fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Rules and elements of a ruleset that is listed in some ten milliseconds.
const SMALL: usize = 3000;

/// The ruleset of a host.
pub struct Firewall {
    nft: Nft,
    file: PathBuf,
    memory: Memory,
    /// What is in force, if that is known.
    in_force: Option<Ruleset>,
    /// What that was made of; set only together with it, so that a failure is never taken for success.
    made_of: Option<(Plan, BTreeMap<SecurityGroupId, Group>)>,
    /// The kernel's number of it.
    generation: Option<u32>,
    /// What is to be removed once nothing refers to it.
    garbage: String,
    /// Nothing had to be changed so many times in a row.
    quiet: u32,
}

impl Firewall {
    /// Of that namespace. What it must remember is in that file; without it connections may be cut once.
    pub fn open(namespace: Option<String>, file: PathBuf) -> Self {
        let memory = Memory::read(std::fs::read(&file).ok().as_deref(), std::time::SystemTime::now());
        Self {
            nft: Nft::new(namespace),
            file,
            memory,
            in_force: None,
            made_of: None,
            generation: None,
            garbage: String::new(),
            quiet: 0,
        }
    }

    /// Puts the plan in force. Packets see the ruleset of before or that of after, nothing between.
    pub async fn apply(&mut self, plan: &Plan, wanted: &HostNetwork) -> Result<Applied, PlumbingError> {
        let mut marks = self.memory.marks.clone();
        plan.number(&mut marks);
        let new = self.ruleset(plan, wanted, &marks);
        let made_of = (plan.clone(), wanted.groups.clone());
        if self.in_force.is_none() && self.memory.ruleset == digest(&new.to_string()) {
            // Another process has put this in force; below it is looked at whether it still is.
            self.in_force = Some(new.clone());
            self.made_of = Some(made_of.clone());
        }
        let known = self.is_untouched().await?;
        let change = self.in_force.as_ref().filter(|_| known).and_then(|old| difference(old, &new));
        let Some(change) = change else {
            return self.replace(plan, wanted, marks).await;
        };
        if change.script.is_empty() && change.garbage.is_empty() {
            self.made_of = Some(made_of);
            self.sweep().await;
            if self.memory.ruleset.is_empty() {
                self.memory.ruleset = digest(&new.to_string());
                self.write()?;
            }
            self.quiet = self.quiet.saturating_add(1);
            self.remember_listing().await?;
            return Ok(Applied::Unchanged);
        }
        self.quiet = 0;
        let (mut change, mut new) = (change, new);
        if change.narrows {
            marks.generation = following(marks.generation);
            if let Some(table) = new.tables.get_mut("inet") {
                let table = Arc::make_mut(table);
                inet::add_generation(table, marks.generation);
                change.script += &inet::generation_script(marks.generation);
            }
        }
        self.remember(marks.clone(), &new)?;
        if let Err(e) = self.nft.run(change.script).await {
            tracing::warn!(error = %e, cause = ?std::error::Error::source(&e), "replacing the whole ruleset");
            return self.replace(plan, wanted, marks).await;
        }
        self.garbage += &change.garbage;
        self.in_force = Some(new);
        self.made_of = Some(made_of);
        self.sweep().await;
        self.generation = self.nft.generation().await.ok();
        self.remember_listing().await?;
        Ok(Applied::Changed)
    }

    /// Puts other members of groups in force, and looks at nothing else: only the difference is told to the kernel, at
    /// once. False: something else is to change, too, or it is not known what is in force; then nothing was done. After
    /// an error [`Firewall::apply`] puts things right.
    pub async fn change_members(&mut self, wanted: &HostNetwork) -> Result<bool, PlumbingError> {
        let (Some(in_force), Some((_, groups))) = (&self.in_force, &self.made_of) else { return Ok(false) };
        let Some(table) = in_force.tables.get("inet") else { return Ok(false) };
        let Some(changes) = members::changes(groups, &wanted.groups, table) else { return Ok(false) };
        let mut marks = self.memory.marks.clone();
        let mut script = members::script(&changes);
        if script.is_empty() {
            self.members_are(wanted);
            return Ok(true);
        }
        let narrows = changes.iter().any(|change| !change.gone.is_empty());
        if narrows {
            marks.generation = following(marks.generation);
            script += &inet::generation_script(marks.generation);
        }
        if narrows || !self.memory.ruleset.is_empty() || !self.memory.listing.is_empty() {
            // What the whole is now is noted when it is looked at the next time.
            self.memory = Memory { marks: marks.clone(), ..Memory::default() };
            self.write()?;
        }
        let before = self.nft.generation().await?;
        if let Err(e) = self.nft.run(script).await {
            self.in_force = None;
            return Err(e);
        }
        if self.generation == Some(before) {
            // That was one transaction; if there was another one, all is looked at next time.
            self.generation = Some(before.wrapping_add(1));
        }
        self.quiet = 0;
        if let Some(table) = self.in_force.as_mut().and_then(|ruleset| ruleset.tables.get_mut("inet")) {
            let table = Arc::make_mut(table);
            members::note(table, changes);
            inet::add_generation(table, marks.generation);
        }
        self.members_are(wanted);
        Ok(true)
    }

    fn members_are(&mut self, wanted: &HostNetwork) {
        let Some((_, groups)) = &mut self.made_of else { return };
        for (id, group) in groups {
            if let Some(now) = wanted.groups.get(id).filter(|now| now.members != group.members) {
                group.members.clone_from(&now.members);
            }
        }
    }

    /// The ruleset; what is as it was is not made again.
    fn ruleset(&self, plan: &Plan, wanted: &HostNetwork, marks: &Marks) -> Ruleset {
        match (&self.in_force, &self.made_of) {
            (Some(old), Some((before, groups))) if before == plan && *groups == wanted.groups => old.clone(),
            (Some(old), Some((before, _))) if before == plan => match old.tables.get("bridge") {
                Some(bridge) => with_bridge_table(bridge.clone(), plan, wanted, marks),
                None => ruleset(plan, wanted, marks),
            },
            _ => ruleset(plan, wanted, marks),
        }
    }

    async fn replace(&mut self, plan: &Plan, wanted: &HostNetwork, mut marks: Marks) -> Result<Applied, PlumbingError> {
        self.quiet = 0;
        marks.generation = following(marks.generation);
        let new = ruleset(plan, wanted, &marks);
        self.remember(marks, &new)?;
        self.in_force = None;
        self.nft.run(new.to_string()).await?;
        self.in_force = Some(new);
        self.made_of = Some((plan.clone(), wanted.groups.clone()));
        self.garbage.clear();
        self.generation = self.nft.generation().await.ok();
        self.remember_listing().await?;
        Ok(Applied::Replaced)
    }

    /// So many transactions were made since by others who leave these tables alone.
    pub fn others_made(&mut self, transactions: u32) {
        self.generation = self.generation.map(|generation| generation.wrapping_add(transactions));
    }

    /// Is what was put in force there as it was? The number of the ruleset says so at once; if somebody else has changed
    /// something it must be looked at whether it was ours.
    async fn is_untouched(&mut self) -> Result<bool, PlumbingError> {
        if self.in_force.is_none() {
            return Ok(false);
        }
        let generation = self.nft.generation().await?;
        if self.generation == Some(generation) {
            return Ok(true);
        }
        let same = !self.memory.listing.is_empty() && digest(&self.nft.list().await?) == self.memory.listing;
        if same {
            self.generation = Some(generation);
        }
        Ok(same)
    }

    /// May it be listed at once? With many rules that takes a while, in which no change would get through.
    fn is_small(&self) -> bool {
        let size = |table: &Arc<Table>| {
            let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
            elements + table.chains.values().map(|chain| chain.rules.len()).sum::<usize>()
        };
        self.in_force.as_ref().is_some_and(|ruleset| ruleset.tables.values().map(size).sum::<usize>() < SMALL)
    }

    /// Notes how the kernel tells of what is in force: at once, or when things are quiet.
    async fn remember_listing(&mut self) -> Result<(), PlumbingError> {
        if !self.memory.listing.is_empty() || (self.quiet < 2 && !self.is_small()) {
            return Ok(());
        }
        let listing = digest(&self.nft.list().await?);
        if self.generation == Some(self.nft.generation().await?) {
            self.memory.listing = listing;
            self.write()?;
        }
        Ok(())
    }

    /// Removes what nothing refers to any more.
    async fn sweep(&mut self) {
        if self.garbage.is_empty() {
            return;
        }
        match self.nft.run(self.garbage.clone()).await {
            Ok(()) => self.garbage.clear(),
            // The kernel may take a moment to forget who referred to it.
            Err(e) => tracing::debug!(cause = ?std::error::Error::source(&e), "what is not needed is still there"),
        }
    }

    /// Before something is put in force, so that a number that was used is never used for something else.
    fn remember(&mut self, marks: Marks, new: &Ruleset) -> Result<(), PlumbingError> {
        self.memory = Memory { marks, ruleset: digest(&new.to_string()), listing: String::new() };
        self.write()
    }

    fn write(&self) -> Result<(), PlumbingError> {
        let write = || {
            let bytes = serde_json::to_vec(&self.memory)?;
            let new = self.file.with_extension("new");
            std::fs::write(&new, bytes)?;
            std::fs::rename(&new, &self.file)
        };
        write().map_err(|e: std::io::Error| failed(format!("write {}", self.file.display()), e))
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
