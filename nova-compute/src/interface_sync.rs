//! Guests' interfaces, compared with those that they should have (nova/compute/manager.py, `_heal_instance_info_cache`, which
//! only corrects what is shown): one that was plugged in and could not be taken back goes, one that was lost comes again.

use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId};
use nova_core::network::Vif;
use nova_core::rpc::conductor::{AssignedInterfaces, ListInterfaces, ListInterfacesRequest};
use nova_core::state::PowerState;
use nova_queue::BusError;

use crate::agent::Agent;

/// Guests that are asked for at once.
const AT_ONCE: usize = 200;

/// What is wrong with a guest's interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gap<'a> {
    /// Hardware addresses that none of its ports has.
    unknown: Vec<&'a str>,
    /// Interfaces that it does not have.
    missing: Vec<&'a Vif>,
}

impl<'a> Gap<'a> {
    /// Between what the guest has on that host and what it should have. What is bound elsewhere is not this host's to bring.
    fn between(has: &'a [String], should: &'a [Vif], host: &HostName) -> Self {
        let is = |vif: &Vif, mac: &str| vif.mac_address.to_string().eq_ignore_ascii_case(mac);
        let here = |vif: &&Vif| vif.host.as_ref() == Some(host) && !has.iter().any(|mac| is(vif, mac));
        let unknown = has.iter().filter(|mac| !should.iter().any(|vif| is(vif, mac)));
        Self { unknown: unknown.map(String::as_str).collect(), missing: should.iter().filter(here).collect() }
    }

    fn is_none(&self) -> bool {
        self.unknown.is_empty() && self.missing.is_empty()
    }
}

impl Agent {
    /// Compares the interfaces of all guests, and mends what differs where nobody is at work.
    pub(crate) async fn compare_interfaces(&self) {
        if !self.hypervisor.capabilities().attach_interface {
            return;
        }
        let guests = match self.hypervisor.list().await {
            Ok(guests) => guests,
            Err(error) => return tracing::warn!("interfaces were not compared: {}", chain(&error)),
        };
        let ids: Vec<InstanceId> = guests.iter().map(|guest| guest.instance).collect();
        for some in ids.chunks(AT_ONCE) {
            match self.assigned_interfaces(some, false).await {
                Ok(all) => {
                    for assigned in all {
                        self.look_at(&assigned).await;
                    }
                }
                Err(error) => return tracing::debug!("interfaces were not compared: {}", chain(&error)),
            }
        }
    }

    async fn assigned_interfaces(
        &self,
        instances: &[InstanceId],
        idle: bool,
    ) -> Result<Vec<AssignedInterfaces>, BusError> {
        let (host, instances) = (self.options.host.clone(), instances.to_vec());
        self.rpc.call::<ListInterfaces>(&self.context(), &ListInterfacesRequest { host, instances, idle }).await
    }

    /// What was said first may be about to change: of a guest that differs it is asked again, for one that stands still.
    async fn look_at(&self, assigned: &AssignedInterfaces) {
        let id = assigned.instance_id;
        let orders = self.instances.orders(id);
        let Ok(has) = self.hypervisor.interfaces(id).await else { return };
        if self.instances.busy(id) || Gap::between(&has, &assigned.vifs, &self.options.host).is_none() {
            return;
        }
        match self.assigned_interfaces(&[id], true).await {
            Ok(all) => {
                for assigned in all {
                    self.mend_interfaces(&assigned, orders).await;
                }
            }
            Err(error) => tracing::debug!(instance = %id, "its interfaces were not compared: {}", chain(&error)),
        }
    }

    /// Closes the gap, if no order came since there were so many.
    async fn mend_interfaces(&self, assigned: &AssignedInterfaces, orders: u64) {
        let id = assigned.instance_id;
        let turn = self.instances.turn(id);
        let Ok(_turn) = turn.try_lock() else { return };
        let came = self.instances.orders(id) != orders || self.instances.overtaken(id, assigned.epoch);
        if came || self.instances.busy(id) {
            return;
        }
        let (Ok(guest), Ok(has)) = (self.hypervisor.info(id).await, self.hypervisor.interfaces(id).await) else {
            return;
        };
        let gap = Gap::between(&has, &assigned.vifs, &self.options.host);
        let missing: Vec<_> = gap.missing.iter().map(|vif| vif.port_id.to_string()).collect();
        if gap.is_none() {
            return;
        }
        let runs = matches!(guest.power_state, PowerState::Running | PowerState::Paused);
        tracing::warn!(
            instance = %id, unknown = %gap.unknown.join(" "), missing = %missing.join(" "),
            "a guest's interfaces are not those of its ports{}",
            if runs { "" } else { "; it does not run, and is left as it is" }
        );
        if !runs {
            return;
        }
        for mac in gap.unknown {
            if let Err(error) = self.unplug(id, mac).await {
                tracing::warn!(instance = %id, mac, "the interface was not taken away: {}", chain(&error));
            }
        }
        for vif in gap.missing {
            if let Err(error) = self.plug(id, vif).await {
                tracing::warn!(instance = %id, port = %vif.port_id, "the interface was not plugged in: {}", chain(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_core::network::PortStatus;

    use super::*;

    fn vif(number: u8, host: Option<&str>) -> Vif {
        Vif {
            port_id: format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap(),
            network_id: "7e700000-0000-4000-8000-000000000001".parse().unwrap(),
            label: String::new(),
            mtu: 1500,
            mac_address: format!("fa:16:3e:00:00:{number:02x}").parse().unwrap(),
            addresses: Vec::new(),
            status: PortStatus::Active,
            host: host.map(HostName::new),
            delete_with_instance: true,
            tag: None,
            asked_as: None,
        }
    }

    #[test]
    fn gaps_are_told_by_hardware_addresses() {
        let has = ["fa:16:3e:00:00:0A".to_owned(), "fa:16:3e:00:00:02".to_owned()];
        let should = [vif(10, Some("h1")), vif(3, Some("h1")), vif(4, Some("h2")), vif(5, None)];
        let host = HostName::new("h1");
        let gap = Gap::between(&has, &should, &host);
        assert_eq!(gap, Gap { unknown: vec!["fa:16:3e:00:00:02"], missing: vec![&should[1]] });
        assert!(!gap.is_none());
        assert!(Gap::between(&has[..1], &should[..1], &host).is_none());
        // Elsewhere, and here all the same: nobody's to take away.
        assert!(Gap::between(&["fa:16:3e:00:00:04".to_owned()], &should[2..3], &host).is_none());
    }
}
