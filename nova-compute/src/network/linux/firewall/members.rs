//! Other members of groups, as elements that come and go: what servers' comings and goings are, and in a hurry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nova_core::ids::SecurityGroupId;
use nova_core::network::{Cidr, EtherType, Group};

use super::model::{TABLE, Table};
use super::rules::hosts_name;

/// What changes in one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChange {
    /// The set.
    pub set: String,
    /// Elements that it gets.
    pub new: BTreeSet<String>,
    /// Elements that it loses.
    pub gone: BTreeSet<String>,
}

/// From the members of before to those that are to be, in the table that is in force; `None` if anything else of the
/// groups changes, or members that are ranges: those change chains, too.
pub fn changes(
    before: &BTreeMap<SecurityGroupId, Group>,
    after: &BTreeMap<SecurityGroupId, Group>,
    table: &Table,
) -> Option<Vec<SetChange>> {
    if before.len() != after.len() {
        return None;
    }
    let mut changes = Vec::new();
    for ((id, old), (same, new)) in before.iter().zip(after) {
        if id != same || old.stateful != new.stateful || old.rules != new.rules {
            return None;
        }
        if old.members == new.members {
            continue;
        }
        let differ = || old.members.symmetric_difference(&new.members);
        if differ().any(|member| member.host_bits() > 0) {
            return None;
        }
        for version in [EtherType::V4, EtherType::V6] {
            let set = hosts_name(*id, version);
            // Nobody here asks for members of a group that no rule names.
            if !table.sets.contains_key(&set) {
                continue;
            }
            let of = |these: &BTreeSet<Cidr>, those: &BTreeSet<Cidr>| -> BTreeSet<String> {
                let is_of = |member: &&Cidr| member.base().is_ipv4() == (version == EtherType::V4);
                these.difference(those).filter(is_of).map(|member| member.base().to_string()).collect()
            };
            let change = SetChange { set, new: of(&new.members, &old.members), gone: of(&old.members, &new.members) };
            if !(change.new.is_empty() && change.gone.is_empty()) {
                changes.push(change);
            }
        }
    }
    Some(changes)
}

/// The changes as a script; empty if there are none.
pub fn script(changes: &[SetChange]) -> String {
    let mut script = String::new();
    for SetChange { set, new, gone } in changes {
        for (verb, elements) in [("delete", gone), ("add", new)] {
            if !elements.is_empty() {
                let list = elements.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                // Writing to a String can't fail.
                let _ = writeln!(script, "{verb} element inet {TABLE} {set} {{ {list} }}");
            }
        }
    }
    script
}

/// Has the table say what the kernel has now.
pub fn note(table: &mut Table, changes: Vec<SetChange>) {
    for SetChange { set, new, gone } in changes {
        let Some(set) = table.sets.get_mut(&set) else { continue };
        set.elements.retain(|element, _| !gone.contains(element));
        set.elements.extend(new.into_iter().map(|element| (element, String::new())));
    }
}

#[cfg(test)]
mod tests {
    use nova_core::network::{Direction, GroupRule, Remote};

    use super::super::rules::add_members;
    use super::*;

    fn id(number: u8) -> SecurityGroupId {
        format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
    }

    fn group(members: &[&str]) -> Group {
        let members = members.iter().map(|member| member.parse().unwrap()).collect();
        Group { rules: BTreeSet::new(), members, stateful: true }
    }

    /// Group 1 is named by a rule, group 2 is not.
    fn start() -> (BTreeMap<SecurityGroupId, Group>, Table) {
        let groups: BTreeMap<_, _> =
            [(id(1), group(&["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"])), (id(2), group(&[]))].into();
        let mut table = Table::default();
        add_members(&mut table, id(1), &groups[&id(1)]);
        (groups, table)
    }

    #[test]
    fn only_elements_that_differ_are_told() {
        let (before, mut table) = start();
        let mut after = before.clone();
        after.get_mut(&id(1)).unwrap().members = group(&["10.0.0.2/32", "10.0.0.3/32", "fd00::1/128"]).members;
        after.get_mut(&id(2)).unwrap().members = group(&["10.0.0.3/32"]).members;
        let changes = changes(&before, &after, &table).unwrap();
        let name = hosts_name(id(1), EtherType::V4);
        let lines =
            format!("delete element inet nova {name} {{ 10.0.0.1 }}\nadd element inet nova {name} {{ 10.0.0.3 }}\n");
        assert_eq!(script(&changes), lines);
        note(&mut table, changes);
        let mut fresh = Table::default();
        add_members(&mut fresh, id(1), &after[&id(1)]);
        assert_eq!(table, fresh, "what is in force is what would be made anew");
    }

    #[test]
    fn nothing_is_told_when_nothing_differs() {
        let (groups, table) = start();
        assert_eq!(changes(&groups, &groups, &table), Some(Vec::new()));
        assert_eq!(script(&[]), "");
    }

    #[test]
    fn what_is_more_than_members_is_left_to_others() {
        let (before, table) = start();
        let mut less = before.clone();
        less.remove(&id(2));
        let mut range = before.clone();
        range.get_mut(&id(1)).unwrap().members.insert("10.1.0.0/16".parse().unwrap());
        let mut stateless = before.clone();
        stateless.get_mut(&id(2)).unwrap().stateful = false;
        let mut rules = before.clone();
        rules.get_mut(&id(2)).unwrap().rules.insert(GroupRule {
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: None,
            ports: (None, None),
            remote: Remote::Any,
        });
        for after in [less, range, stateless, rules] {
            assert_eq!(changes(&before, &after, &table), None);
        }
    }
}
