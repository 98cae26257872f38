//! Closing the gap between the guests that should be here and those that are: at start, at intervals, and when the
//! hypervisor tells of a change. Twice equals once.

use std::collections::BTreeMap;

use nova_core::ids::InstanceId;
use nova_core::rpc::conductor::{
    AssignedInstance, ConfirmStrays, ConfirmStraysRequest, ListAssigned, ListAssignedRequest, ObservedPower,
    ReportPowerStates, ReportPowerStatesRequest,
};
use nova_core::state::PowerState;
use nova_virt::{ErrorKind, GuestInfo};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, AgentError};
use nova_core::error::chain;

/// When it is looked after a guest has left while it ran. Its files stay until its new host has it and the records say so: that
/// takes a moment, and a minute would be long for disks that nobody owns.
const LEFT_SOON: std::time::Duration = std::time::Duration::from_secs(5);
/// So often it is looked soon.
const LEFT_LOOKS: u32 = 3;

/// How often guests' interfaces and volumes are compared: less often than guests, as each must be asked for.
const DEVICES_INTERVAL: std::time::Duration = std::time::Duration::from_secs(300);

impl Agent {
    pub(crate) async fn reconcile_until(&self, stop: CancellationToken) {
        let mut since_power = std::time::Duration::ZERO;
        let mut since_devices = std::time::Duration::ZERO;
        let mut regular = Instant::now() + self.options.reconcile_interval;
        let (mut early, mut looks) = (None, 0);
        loop {
            let mut back = false;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.hearing.come_back() => back = true,
                () = self.left.notified() => {
                    (early, looks) = (Some(Instant::now() + LEFT_SOON), LEFT_LOOKS);
                    continue;
                }
                () = tokio::time::sleep_until(early.unwrap_or(regular).min(regular)) => {}
            }
            if !back && Instant::now() < regular {
                self.look(false).await;
                looks = u32::saturating_sub(looks, 1);
                early = (looks > 0).then(|| Instant::now() + LEFT_SOON);
                continue;
            }
            let reported = if back { self.report_node().await } else { self.report_changed_node().await };
            if let Err(error) = reported {
                tracing::warn!("the inventory was not reported: {}", chain(&error));
            }
            since_power = since_power.saturating_add(self.options.reconcile_interval);
            let power = back || since_power >= self.options.power_sync_interval;
            if power {
                since_power = std::time::Duration::ZERO;
            }
            self.look(power).await;
            since_devices = since_devices.saturating_add(self.options.reconcile_interval);
            if since_devices >= DEVICES_INTERVAL {
                since_devices = std::time::Duration::ZERO;
                self.compare_devices().await;
            }
            regular = Instant::now() + self.options.reconcile_interval;
        }
    }

    async fn look(&self, power: bool) {
        if let Err(error) = self.compare(power, false).await {
            tracing::warn!("guests were not compared: {}", chain(&error));
        }
    }

    /// Compares what is plugged into guests with what should be.
    pub(crate) async fn compare_devices(&self) {
        self.compare_interfaces().await;
        self.compare_volumes().await;
    }

    /// Compares guests and power states now.
    pub(crate) async fn reconcile(&self) -> Result<(), AgentError> {
        self.compare(true, false).await
    }

    /// The same at the agent's start, when the machine itself may just have started.
    pub(crate) async fn reconcile_at_start(&self) -> Result<(), AgentError> {
        self.compare(true, self.options.resume_guests_state_on_host_boot).await
    }

    async fn compare(&self, power: bool, resume: bool) -> Result<(), AgentError> {
        let request = ListAssignedRequest { host: self.options.host.clone() };
        // The guests first: one that is assigned after they were listed is then not taken for a stray.
        let guests = self.hypervisor.list().await?;
        let assigned = self.rpc.call::<ListAssigned>(&self.context(), &request).await?;
        let assigned: BTreeMap<InstanceId, AssignedInstance> =
            assigned.into_iter().map(|a| (a.instance_id, a)).collect();
        for (id, a) in &assigned {
            self.instances.learn(*id, a.epoch);
        }
        self.instances.forget_others(|id| assigned.contains_key(&id), self.clock.now());
        let holds = assigned.iter().map(|(id, a)| (*id, a.resources)).collect();
        self.tracker.replace(holds, |id| self.instances.busy(id));
        let strays: Vec<_> = guests.iter().filter(|g| !assigned.contains_key(&g.instance)).collect();
        self.remove_strays(&strays).await?;
        self.drop_old_stashes(&guests, &assigned).await?;
        if resume {
            self.resume_guests(&guests, &assigned).await;
        }
        if power {
            self.report_power(&guests, &assigned).await;
        }
        Ok(())
    }

    /// Starts what ran when the machine went down (nova/compute/manager.py, `_resume_guests_state`). What does not start is
    /// reported as off.
    async fn resume_guests(&self, guests: &[GuestInfo], assigned: &BTreeMap<InstanceId, AssignedInstance>) {
        for guest in guests {
            let off = matches!(guest.power_state, PowerState::Shutdown | PowerState::Crashed);
            if !off || !assigned.get(&guest.instance).is_some_and(|a| a.runs && !a.busy) {
                continue;
            }
            tracing::info!(instance = %guest.instance, "it ran when the host went down; it is started");
            if let Err(error) = self.hypervisor.power_on(guest.instance).await {
                tracing::warn!(instance = %guest.instance, "it could not be started: {}", chain(&error));
            }
        }
    }

    /// Guests that the cloud does not have here: deleted while the host was away, or moved. One that the conductor never
    /// heard of is left alone: it may be another cloud's, or the store a wrong one.
    async fn remove_strays(&self, strays: &[&GuestInfo]) -> Result<(), AgentError> {
        if strays.is_empty() {
            return Ok(());
        }
        let instances = strays.iter().map(|g| g.instance).collect();
        let request = ConfirmStraysRequest { host: self.options.host.clone(), instances };
        let confirmed = self.rpc.call::<ConfirmStrays>(&self.context(), &request).await?;
        for guest in strays {
            if confirmed.contains(&guest.instance) {
                self.remove_stray(guest).await;
            } else {
                tracing::warn!(instance = %guest.instance, name = %guest.name, "a guest that the cloud does not know; \
                    'nova-manage check' tells more");
            }
        }
        Ok(())
    }

    async fn remove_stray(&self, guest: &GuestInfo) {
        let turn = self.instances.turn(guest.instance);
        // An order is at work on it: it will be looked at again.
        let Ok(_turn) = turn.try_lock() else { return };
        if self.instances.busy(guest.instance) {
            return;
        }
        tracing::warn!(instance = %guest.instance, name = %guest.name, "removing a guest that does not belong here");
        match self.remove_guest(guest.instance).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(instance = %guest.instance, "it was not removed: {}", chain(&error)),
        }
    }

    async fn report_power(&self, guests: &[GuestInfo], assigned: &BTreeMap<InstanceId, AssignedInstance>) {
        let seen: BTreeMap<InstanceId, PowerState> = guests.iter().map(|g| (g.instance, g.power_state)).collect();
        let mut differ = Vec::new();
        for a in assigned.values() {
            let listed = seen.get(&a.instance_id).copied().unwrap_or(PowerState::NoState);
            if (listed != a.power_state || a.amiss) && !a.busy {
                // The guests were listed before the records: only a reading from after them can be told.
                differ.extend(
                    self.reading(a.instance_id, a.epoch)
                        .await
                        .filter(|seen| a.amiss || seen.power_state != a.power_state),
                );
            }
        }
        self.tell_power(differ).await;
    }

    /// What the hypervisor says of a guest that nobody is at work on.
    async fn reading(&self, instance_id: InstanceId, epoch: u64) -> Option<ObservedPower> {
        let power_state = match self.hypervisor.info(instance_id).await {
            Ok(guest) => guest.power_state,
            Err(error) if error.kind() == ErrorKind::NotFound => PowerState::NoState,
            Err(_) => return None,
        };
        let still = self.instances.epoch(instance_id) == Some(epoch) && !self.instances.busy(instance_id);
        still.then_some(ObservedPower { instance_id, epoch, power_state })
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
                // The event only says that something happened; what holds now is read.
                Ok(event) => {
                    if let Some(epoch) = self.instances.epoch(event.instance) {
                        let reading = self.reading(event.instance, epoch).await;
                        self.tell_power(reading.into_iter().collect()).await;
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    if let Err(error) = self.reconcile().await {
                        tracing::warn!("guests were not compared: {}", chain(&error));
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}
