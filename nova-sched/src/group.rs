//! Server groups in every algorithm: rules are checks like any other, wishes are an order of attempts.

use std::collections::{BTreeMap, BTreeSet};

use crate::query::{Overlay, Query};
use crate::table::{BLOCK, HostTable, Row, row_at};
use crate::{GroupPolicy, Request};

/// A bound on the members of the request's group that a host has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tier {
    /// Any number.
    #[default]
    Any,
    /// Fewer.
    Below(u32),
    /// So many, or more.
    AtLeast(u32),
}

impl Tier {
    #[inline]
    fn admits(self, members: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Below(most) => members < most,
            Self::AtLeast(least) => members >= least,
        }
    }
}

/// How many members of the request's group each host has, what the request itself places aside.
pub(crate) fn members(table: &HostTable, request: &Request) -> BTreeMap<Row, u32> {
    let mut members = BTreeMap::new();
    let Some(group) = &request.group else { return members };
    let known = group.members.iter().flat_map(|member| table.rows_of(*member));
    let named = group.places.iter().filter_map(|host| table.row(host));
    known.chain(named).for_each(|row| *members.entry(row).or_insert(0) += 1);
    members
}

impl Query<'_> {
    /// Members of the request's group on the host, those that the request has placed included.
    pub(crate) fn members_on(&self, row: Row, overlay: &Overlay) -> u32 {
        if self.request.group.is_none() {
            return 0;
        }
        let before = if self.members.is_empty() { 0 } else { self.members.get(&row).copied().unwrap_or(0) };
        before.saturating_add(overlay.on(row) as u32)
    }

    /// Whether any member is placed anywhere.
    pub(crate) fn group_is_placed(&self, overlay: &Overlay) -> bool {
        self.request.group.is_some() && !(self.members.is_empty() && overlay.placed.is_empty())
    }

    /// What the group's rule, or the wish of this attempt, asks of hosts.
    #[inline]
    pub(crate) fn tier(&self, overlay: &Overlay) -> Tier {
        let Some(group) = self.request.group.as_ref().filter(|_| self.keeps_groups) else { return Tier::Any };
        match group.policy {
            GroupPolicy::AntiAffinity => Tier::Below(group.max_server_per_host.max(1)),
            GroupPolicy::Affinity if self.group_is_placed(overlay) => Tier::AtLeast(1),
            GroupPolicy::Affinity => Tier::Any,
            GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity => overlay.wish,
        }
    }

    /// Whether the group lets one more member be on the host. The host that has the instance already may keep it.
    #[inline]
    pub(crate) fn group_admits(&self, row: Row, overlay: &Overlay) -> bool {
        let tier = self.tier(overlay);
        tier == Tier::Any || tier.admits(self.members_on(row, overlay)) || self.keeps_its_place(tier, row)
    }

    fn keeps_its_place(&self, tier: Tier, row: Row) -> bool {
        let instance = self.request.instance.filter(|_| matches!(tier, Tier::Below(_)));
        instance.is_some_and(|instance| self.table.holds_on(instance, row))
    }

    /// The hosts of a block that the group doesn't admit, as bits.
    pub(crate) fn not_admitted(&self, index: usize, overlay: &Overlay) -> u64 {
        let tier = self.tier(overlay);
        if tier == Tier::Any {
            return 0;
        }
        let first = row_at(index, 0);
        let rows = first..first + BLOCK as Row;
        let with = self.members.range(rows.clone()).map(|(row, _)| *row);
        let with = with.chain(overlay.placed.range(rows).map(|(row, _)| *row));
        let (mut seen, mut admitted) = (0, 0);
        for row in with {
            seen |= 1 << (row - first);
            admitted |= u64::from(self.group_admits(row, overlay)) << (row - first);
        }
        let others = if tier.admits(0) { 0 } else { !seen };
        seen & !admitted | others
    }

    /// The hosts that can be admitted at all, when the group wants its members together.
    pub(crate) fn admitted_only(&self, overlay: &Overlay) -> Option<Vec<Row>> {
        let tier @ Tier::AtLeast(_) = self.tier(overlay) else { return None };
        let rows: BTreeSet<Row> = self.members.keys().chain(overlay.placed.keys()).copied().collect();
        Some(rows.into_iter().filter(|row| tier.admits(self.members_on(*row, overlay))).collect())
    }

    /// The attempts that a group's wish asks for, the best first; the last one takes any host.
    fn wishes(&self, overlay: &Overlay) -> Vec<Tier> {
        let group = self.request.group.as_ref().filter(|group| self.keeps_groups && group.policy.is_soft());
        let Some(group) = group else { return vec![Tier::Any] };
        let rows = self.members.keys().chain(overlay.placed.keys());
        let levels: BTreeSet<u32> = rows.map(|row| self.members_on(*row, overlay)).collect();
        let mut wishes: Vec<Tier> = match group.policy {
            GroupPolicy::SoftAffinity => levels.into_iter().rev().map(Tier::AtLeast).collect(),
            _ => levels.into_iter().map(Tier::Below).collect(),
        };
        wishes.push(Tier::Any);
        wishes
    }

    /// Chooses with what the group would like best, and with less as long as there is no such host.
    pub(crate) fn choose_as_wished(
        &self,
        overlay: &mut Overlay,
        choose: &mut impl FnMut(&Overlay) -> Option<Row>,
    ) -> Option<Row> {
        // The common request is of no group, and pays nothing for them.
        if self.request.group.is_none() {
            return choose(overlay);
        }
        for wish in self.wishes(overlay) {
            overlay.wish = wish;
            if let Some(row) = choose(overlay) {
                return Some(row);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AvailabilityZoneScheduler, FilterOptions, FilterScheduler, LeastLoadScheduler, NoValidHost, RandomScheduler,
        Scheduler, SchedulerRng, Selection, ServerGroup, fixtures,
    };

    /// All but the filter scheduler, whose filters and weighers speak for groups.
    fn plain() -> [Box<dyn Scheduler>; 3] {
        [
            Box::new(RandomScheduler::new()),
            Box::new(AvailabilityZoneScheduler::default()),
            Box::new(LeastLoadScheduler::default()),
        ]
    }

    /// And the filter scheduler, with its group filters and without.
    fn all() -> Vec<Box<dyn Scheduler>> {
        let mut all: Vec<Box<dyn Scheduler>> = plain().into();
        all.push(Box::new(FilterScheduler::new(&FilterOptions::default()).unwrap()));
        all.push(Box::new(FilterScheduler::empty()));
        all
    }

    fn table(scheduler: &dyn Scheduler, hosts: usize) -> HostTable {
        let mut table = fixtures::table(hosts, 3);
        scheduler.register(&mut table).unwrap();
        table
    }

    fn asked(policy: GroupPolicy, places: &[&str], instances: u32) -> Request {
        let mut request = Request::new([1, 1_024, 10].into()).instances(instances);
        let places = places.iter().map(|place| (*place).to_owned()).collect();
        request.group = Some(ServerGroup { places, ..ServerGroup::new(policy, vec![]) });
        request
    }

    fn ask(scheduler: &dyn Scheduler, table: &HostTable, request: &Request) -> Result<Vec<Selection>, NoValidHost> {
        scheduler.select_destinations(table, request, &mut SchedulerRng::from_seed(7))
    }

    fn spread(chosen: &[Selection]) -> Vec<u32> {
        let mut hosts = BTreeMap::new();
        chosen.iter().for_each(|one| *hosts.entry(one.host.clone()).or_insert(0) += 1);
        let mut counts: Vec<u32> = hosts.into_values().collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn members_apart_until_hosts_run_out() {
        for scheduler in all() {
            let table = table(&*scheduler, 70);
            let mut request = asked(GroupPolicy::AntiAffinity, &["host-3", "host-4"], 68).alternates(2);
            let chosen = ask(&*scheduler, &table, &request).unwrap();
            assert_eq!(spread(&chosen), [1; 68], "{}", scheduler.name());
            assert!(chosen.iter().all(|one| !["host-3", "host-4"].contains(&&*one.host) && one.alternates.is_empty()));
            request.num_instances = 69;
            let no = ask(&*scheduler, &table, &request).unwrap_err();
            let turned_away = no.turned_away("server_group") + no.turned_away("ServerGroupAntiAffinityFilter");
            assert_eq!((no.placed, turned_away), (68, 70), "{no}");
            request.group.as_mut().unwrap().max_server_per_host = 2;
            request.num_instances = 138;
            assert_eq!(spread(&ask(&*scheduler, &table, &request).unwrap()).iter().sum::<u32>(), 138);
            request.num_instances = 139;
            assert!(ask(&*scheduler, &table, &request).is_err());
        }
    }

    #[test]
    fn members_together_and_nowhere_else() {
        for scheduler in all() {
            let mut table = table(&*scheduler, 70);
            let request = asked(GroupPolicy::Affinity, &[], 16).alternates(2);
            let chosen = ask(&*scheduler, &table, &request).unwrap();
            assert_eq!(spread(&chosen), [16], "{}", scheduler.name());
            assert_eq!(chosen[0].alternates, []);
            let no = ask(&*scheduler, &table, &request.instances(17)).unwrap_err();
            assert_eq!(no.placed, 16);
            let request = asked(GroupPolicy::Affinity, &["host-66"], 1);
            assert_eq!(&*ask(&*scheduler, &table, &request).unwrap()[0].host, "host-66");
            table.set_up("host-66", false).unwrap();
            let no = ask(&*scheduler, &table, &request).unwrap_err();
            let turned_away = no.turned_away("server_group") + no.turned_away("ServerGroupAffinityFilter");
            assert_eq!((turned_away, no.turned_away("down")), (69, 1), "{no}");
        }
    }

    #[test]
    fn a_wish_gives_way() {
        for scheduler in plain() {
            let table = table(&*scheduler, 70);
            let apart = asked(GroupPolicy::SoftAntiAffinity, &["host-3", "host-3", "host-4"], 137);
            let chosen = ask(&*scheduler, &table, &apart).unwrap();
            let on = |name: &str| chosen.iter().filter(|one| &*one.host == name).count();
            // First all that have none, then those with one.
            assert_eq!((on("host-3"), on("host-4")), (0, 1), "{}", scheduler.name());
            let together = asked(GroupPolicy::SoftAffinity, &["host-3", "host-4", "host-4"], 40);
            let chosen = ask(&*scheduler, &table, &together).unwrap();
            let on = |name: &str| chosen.iter().filter(|one| &*one.host == name).count();
            assert_eq!((on("host-4"), on("host-3")), (16, 16), "{}", scheduler.name());
            assert_eq!(spread(&chosen), [8, 16, 16], "the first host is full, so is the second");
            let mut named = asked(GroupPolicy::SoftAffinity, &["host-3"], 1);
            named.requested_host = Some("host-5".to_owned());
            assert_eq!(&*ask(&*scheduler, &table, &named).unwrap()[0].host, "host-5", "a wish is no rule");
            named.group.as_mut().unwrap().policy = GroupPolicy::Affinity;
            assert_eq!(ask(&*scheduler, &table, &named).unwrap_err().turned_away("server_group"), 1);
        }
    }

    #[test]
    fn the_host_that_has_the_instance_may_keep_it() {
        for scheduler in all() {
            let mut table = table(&*scheduler, 2);
            table.allocate("host-0", 9, &[1, 1, 1].into()).unwrap();
            let mut request = asked(GroupPolicy::AntiAffinity, &["host-0", "host-1"], 1);
            assert!(ask(&*scheduler, &table, &request).is_err());
            request.instance = Some(9);
            assert_eq!(&*ask(&*scheduler, &table, &request).unwrap()[0].host, "host-0", "{}", scheduler.name());
        }
    }

    #[test]
    fn an_explanation_names_the_rule() {
        for scheduler in all() {
            let table = table(&*scheduler, 2);
            let told = scheduler.explain(&table, &asked(GroupPolicy::AntiAffinity, &["host-0"], 1));
            assert_eq!(told[0].host, "host-1");
            let refused = told[1].objections.iter().map(ToString::to_string).collect::<Vec<_>>();
            let details = "(policy anti-affinity: 1 of its members are here)";
            assert!(refused.len() == 1 && refused[0].ends_with(details), "{refused:?}");
        }
    }
}
