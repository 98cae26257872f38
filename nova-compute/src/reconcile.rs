//! Closing the gap between the guests that should be here and those that are: at start, at intervals, and when the
//! hypervisor tells of a change. Twice equals once.

use std::collections::BTreeMap;

use nova_core::ids::InstanceId;
use nova_core::rpc::conductor::{
    AssignedInstance, ListAssigned, ListAssignedRequest, ObservedPower, ReportPowerStates, ReportPowerStatesRequest,
};
use nova_core::state::PowerState;
use nova_virt::{GuestEventKind, GuestInfo};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, chain};

impl Agent {
    pub(crate) async fn reconcile_until(&self, stop: CancellationToken) {
        let mut since_power = std::time::Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.options.reconcile_interval) => {}
            }
            if let Err(error) = self.report_node().await {
                tracing::warn!("the inventory was not reported: {}", chain(&error));
            }
            since_power = since_power.saturating_add(self.options.reconcile_interval);
            let power = since_power >= self.options.power_sync_interval;
            if power {
                since_power = std::time::Duration::ZERO;
            }
            self.compare(power).await;
        }
    }

    /// Compares guests and power states now.
    pub(crate) async fn reconcile(&self) {
        self.compare(true).await;
    }

    async fn compare(&self, power: bool) {
        let request = ListAssignedRequest { host: self.options.host.clone() };
        // The guests first: one that is assigned after they were listed is then not taken for a stray.
        let guests = match self.hypervisor.list().await {
            Ok(guests) => guests,
            Err(error) => return tracing::warn!("guests were not compared: {}", chain(&error)),
        };
        let assigned = match self.rpc.call::<ListAssigned>(&self.context(), &request).await {
            Ok(assigned) => assigned,
            Err(error) => return tracing::warn!("guests were not compared: {}", chain(&error)),
        };
        let assigned: BTreeMap<InstanceId, AssignedInstance> =
            assigned.into_iter().map(|a| (a.instance_id, a)).collect();
        for (id, a) in &assigned {
            self.instances.learn(*id, a.epoch);
        }
        let holds = assigned.iter().map(|(id, a)| (*id, a.resources)).collect();
        self.tracker.replace(holds, |id| self.instances.busy(id));
        for guest in guests.iter().filter(|g| !assigned.contains_key(&g.instance)) {
            self.remove_stray(guest).await;
        }
        if power {
            self.report_power(&guests, &assigned).await;
        }
    }

    /// A guest that the cloud does not have here: deleted while the host was away, or moved.
    async fn remove_stray(&self, guest: &GuestInfo) {
        let turn = self.instances.turn(guest.instance);
        let _turn = turn.lock().await;
        if self.instances.busy(guest.instance) {
            return;
        }
        tracing::warn!(instance = %guest.instance, name = %guest.name, "removing a guest that does not belong here");
        match self.hypervisor.destroy(guest.instance).await {
            Ok(()) => {
                self.tracker.release(guest.instance);
                self.instances.removed(guest.instance, self.clock.now());
            }
            Err(error) => tracing::warn!(instance = %guest.instance, "it was not removed: {}", chain(&error)),
        }
    }

    async fn report_power(&self, guests: &[GuestInfo], assigned: &BTreeMap<InstanceId, AssignedInstance>) {
        let seen: BTreeMap<InstanceId, PowerState> = guests.iter().map(|g| (g.instance, g.power_state)).collect();
        let differs = assigned.values().filter(|a| !a.busy && !self.instances.busy(a.instance_id)).filter_map(|a| {
            let power_state = seen.get(&a.instance_id).copied().unwrap_or(PowerState::NoState);
            (power_state != a.power_state).then_some(ObservedPower { instance_id: a.instance_id, power_state })
        });
        self.tell_power(differs.collect()).await;
    }

    async fn tell_power(&self, states: Vec<ObservedPower>) {
        if states.is_empty() {
            return;
        }
        let report = ReportPowerStatesRequest { host: self.options.host.clone(), states };
        if let Err(error) = self.rpc.cast::<ReportPowerStates>(&self.context(), &report).await {
            tracing::warn!("power states were not reported: {}", chain(&error));
        }
    }

    /// Follows the hypervisor's own news.
    pub(crate) async fn watch_until(&self, stop: CancellationToken) {
        let mut events = self.hypervisor.events();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) if self.instances.busy(event.instance) => {}
                Ok(event) => {
                    if let Some(power_state) = power_of(event.kind) {
                        let instance_id = event.instance;
                        self.tell_power(vec![ObservedPower { instance_id, power_state }]).await;
                    }
                }
                Err(RecvError::Lagged(_)) => self.reconcile().await,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn power_of(event: GuestEventKind) -> Option<PowerState> {
    match event {
        GuestEventKind::Started | GuestEventKind::Resumed => Some(PowerState::Running),
        GuestEventKind::Stopped => Some(PowerState::Shutdown),
        GuestEventKind::Paused => Some(PowerState::Paused),
        GuestEventKind::Suspended => Some(PowerState::Suspended),
        GuestEventKind::Crashed => Some(PowerState::Crashed),
        _ => None,
    }
}
