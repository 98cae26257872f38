//! What is told of hosts between readings. News may come late, twice or in another order than it was written: each says
//! how new it is, and nothing older than what is known is taken over.

use nova_core::host::ComputeNode;
use nova_core::rpc::scheduler::{AggregateNews, AllocationNews, HostsChangedRequest, ServiceNews};

use super::Hosts;
use super::inventory::inventory_of;
use super::request::vector;
use super::table::{DISABLED, Told};

impl Hosts {
    /// Follows what conductors and APIs tell.
    pub fn apply(&mut self, news: &HostsChangedRequest) {
        self.heard += 1;
        for aggregate in &news.aggregates {
            self.follow_aggregate(aggregate);
        }
        if !news.aggregates.is_empty() {
            self.tell_aggregates();
        }
        for node in &news.nodes {
            let service = news.services.iter().find(|service| service.host == node.node.host);
            self.follow_node(&node.node, service);
        }
        for service in &news.services {
            self.follow_service(service);
        }
        for allocation in &news.allocations {
            self.follow_allocation(allocation);
        }
    }

    /// Follows an aggregate: its hosts, and those that it had, are in the zone that aggregates now say.
    fn follow_aggregate(&mut self, news: &AggregateNews) {
        for host in self.aggregates.apply(news, self.heard) {
            let Some(mut inventory) = self.table.host(host.as_str()).map(|view| view.inventory()) else { continue };
            inventory.zone = self.aggregates.resettle(&host, &inventory.zone).to_string();
            self.describe(inventory);
        }
    }

    fn follow_node(&mut self, node: &ComputeNode, service: Option<&ServiceNews>) {
        let present = self.table.host(node.host.as_str()).map(|host| host.inventory());
        let known = self.known.get(&node.host).copied().unwrap_or_default();
        if let Some(present) = &present {
            // Of several nodes of a host the first one by name counts, as in a reading and at the booking.
            let is_other = present.node.as_str() < node.hypervisor_hostname.as_str();
            let is_same = present.node == node.hypervisor_hostname;
            if is_other || is_same && node.version() < known.described {
                return;
            }
        }
        self.topologies.describe(node);
        let mut wanted = inventory_of(node, &node.zone);
        wanted.zone = self.aggregates.settle(&node.host, &node.zone).to_string();
        match (present, service) {
            (Some(present), _) => {
                (wanted.up, wanted.enabled) = (present.up, present.enabled);
                wanted.disabled_reason = present.disabled_reason;
            }
            (None, Some(service)) => (wanted.up, wanted.enabled) = (service.up, !service.disabled),
            (None, None) => (wanted.up, wanted.enabled) = (false, true),
        }
        self.describe(wanted);
        let known = self.known.entry(node.host.clone()).or_default();
        (known.described, known.node_heard) = (node.version(), self.heard);
    }

    fn follow_service(&mut self, news: &ServiceNews) {
        let Some(mut inventory) = self.table.host(news.host.as_str()).map(|view| view.inventory()) else {
            tracing::debug!(host = %news.host, "its service is known, but not its node yet");
            return;
        };
        let known = self.known.entry(news.host.clone()).or_default();
        if news.generation < known.service {
            return;
        }
        (known.service, known.service_heard) = (news.generation, self.heard);
        let reason = inventory.disabled_reason.filter(|_| !inventory.enabled);
        inventory.up = news.up;
        inventory.enabled = !news.disabled;
        inventory.disabled_reason = news.disabled.then(|| reason.unwrap_or_else(|| DISABLED.to_owned()));
        self.describe(inventory);
    }

    fn follow_allocation(&mut self, news: &AllocationNews) {
        let (instance, host) = (news.instance_id, &news.host);
        let Some(version) = news.version else {
            // Nothing was written: only a promise ends.
            if self.promised.remove(instance, host) {
                self.release(instance, host);
            }
            return;
        };
        let read = self.known.get(host).map(|known| known.read).unwrap_or_default();
        let told = self.told.entry(host.clone()).or_default();
        if version <= read || told.get(&instance).is_some_and(|told| told.version >= version) {
            return;
        }
        told.insert(instance, Told { version, resources: news.resources });
        match news.resources {
            Some(resources) => {
                // It has its place; others that it was promised, it does not need.
                for other in self.promised.take(instance).into_iter().filter(|other| other != host) {
                    self.release(instance, &other);
                }
                self.allocate(instance, host, &vector(resources));
                if let Some(placement) = &news.placement {
                    self.topologies.hold(instance, host, placement.clone());
                }
            }
            None => {
                self.promised.remove(instance, host);
                self.release(instance, host);
            }
        }
    }
}

#[cfg(test)]
mod tests;
