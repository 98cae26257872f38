//! The same rules, written as plainly as can be: a list of hosts and a list of bookings.

use nova_sched::{HostInventory, Request, ResourceVector};

/// What a step of a test does to a table.
#[derive(Debug, Clone)]
pub enum Change {
    Host { number: usize, cores: u64, memory: u64, zone: u8, ratio: u8, up: bool, enabled: bool },
    Remove { number: usize },
    Allocate { number: usize, consumer: u8, cores: u64, memory: u64 },
    Release { consumer: u8 },
    ReleaseOn { consumer: u8, number: usize },
}

#[derive(Default)]
pub struct Oracle {
    pub hosts: Vec<HostInventory>,
    pub held: Vec<(u128, String, ResourceVector)>,
}

pub fn name(number: usize) -> String {
    format!("host-{number}")
}

impl Oracle {
    pub fn host(&self, name: &str) -> Option<&HostInventory> {
        self.hosts.iter().find(|host| host.name == name)
    }

    pub fn used(&self, host: &str) -> ResourceVector {
        (self.held.iter())
            .filter(|(_, held_on, _)| held_on == host)
            .fold(ResourceVector::default(), |sum, (_, _, amounts)| sum.saturating_add(amounts))
    }

    /// Whether the host can take `times` such bookings.
    pub fn has_room(&self, host: &HostInventory, amounts: &ResourceVector, times: u64) -> bool {
        let used = self.used(&host.name);
        (0..2).all(|index| {
            let asked = amounts.get(index) * times;
            let usable = host.total.get(index).saturating_sub(host.reserved.get(index));
            let capacity = usable as f64 * host.ratio.get(index);
            asked == 0 || (used.get(index) + asked) as f64 <= capacity
        })
    }

    /// Books if the rules allow; the same again is fine. Returns whether the booking stands.
    pub fn allocate(&mut self, host: &str, consumer: u128, amounts: ResourceVector) -> bool {
        if let Some((.., held)) = self.held.iter().find(|(who, on, _)| *who == consumer && on == host) {
            return *held == amounts;
        }
        let fits = self.host(host).is_some_and(|known| self.has_room(known, &amounts, 1));
        if fits {
            self.held.push((consumer, host.to_owned(), amounts));
        }
        fits
    }

    /// Whether the request may go to the host, `times` of its instances being put there.
    pub fn suits(&self, host: &HostInventory, request: &Request, times: u64) -> bool {
        host.up
            && host.enabled
            && request.zone.as_ref().is_none_or(|zone| *zone == host.zone)
            && !request.ignore_hosts.contains(&host.name)
            && self.has_room(host, &request.resources, times)
    }
}
