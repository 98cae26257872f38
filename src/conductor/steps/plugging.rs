//! Guests that wait for their network (nova/virt/libvirt/driver.py, `_create_guest_with_network`).
//!
//! Where an outside Neutron keeps the networks, its agents plug in the interfaces of a guest once the hypervisor has made
//! them. So the guest is made standing still, and let go when all work: by what Neutron says of its ports when it is asked
//! now and then, or sooner by the events that it sends to `os-server-external-events`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::error::chain;
use nova_core::ids::PortId;
use nova_core::network::{PortStatus, Vif};
use nova_core::rpc::compute::UnpauseInstance;
use nova_core::task::AwaitedVifs;

use super::on_host::begin;
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};
use crate::conductor::engine::signed;
use crate::conductor::options::PluggingOptions;

/// Neutron is asked again after so long, whatever it tells.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// Waits until the interfaces of the guest work.
pub struct AwaitNetwork;

/// Has the host let the guest go.
pub struct LetGo;

/// Which of these interfaces a guest is to wait for; `None`: it need not stand still.
pub(super) fn awaited(services: &Services, vifs: &[Vif]) -> Option<AwaitedVifs> {
    let waits = !services.options.get().plugging.timeout.is_zero();
    let told = services.network.as_ref().is_some_and(|network| network.tells_when_plugged());
    let idle = vifs.iter().filter(|vif| vif.status != PortStatus::Active).map(|vif| vif.port_id);
    let ports: BTreeSet<PortId> = idle.collect();
    (waits && told && !ports.is_empty()).then_some(AwaitedVifs { ports, since: None })
}

/// What comes of the wait.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    /// Nothing is missing, or it need not be there.
    Over,
    /// These could not be plugged in, or not in time.
    Failed(BTreeSet<PortId>),
    /// So long, until it is looked again.
    GoesOn(Duration),
}

/// `heard`: events about ports, and whether they say that they work. `seen`: their states, as far as these are known. What
/// works is not waited for any more.
fn judge(
    awaited: &mut AwaitedVifs,
    heard: &BTreeMap<PortId, bool>,
    seen: Option<&BTreeMap<PortId, PortStatus>>,
    options: &PluggingOptions,
    now: Timestamp,
) -> Wait {
    let since = *awaited.since.get_or_insert(now);
    let mut failed = BTreeSet::new();
    awaited.ports.retain(|port| match (heard.get(port), seen.map(|seen| seen.get(port))) {
        (Some(true), _) | (None, Some(Some(PortStatus::Active))) => false,
        // One that is gone is nobody's to plug in.
        (_, Some(None)) => false,
        (Some(false), _) | (None, Some(Some(PortStatus::Error))) => {
            failed.insert(*port);
            false
        }
        (None, Some(Some(PortStatus::Build | PortStatus::Down)) | None) => true,
    });
    let until = since.saturating_add(signed(options.timeout)).unwrap_or(Timestamp::MAX);
    let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
    if left.is_zero() {
        failed.append(&mut awaited.ports);
    }
    if !failed.is_empty() && options.fatal {
        return Wait::Failed(failed);
    }
    if !failed.is_empty() {
        tracing::warn!(?failed, "a guest is let go without interfaces that were to work by now");
    }
    if awaited.ports.is_empty() { Wait::Over } else { Wait::GoesOn(ASKED_AGAIN.min(left)) }
}

#[async_trait]
impl Step for AwaitNetwork {
    fn name(&self) -> &'static str {
        "await_network"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (Some(mut awaited), Some(network)) = (cx.task.awaited.clone(), &services.network) else {
            return Ok(Ran::Done);
        };
        let id = cx.instance.id;
        let seen = match network.interfaces(&cx.task.context, &[id]).await {
            Ok(found) => Some(found.into_iter().map(|(_, vif)| (vif.port_id, vif.status)).collect()),
            Err(error) => {
                tracing::warn!(instance = %id, "it is not known which of its interfaces work: {}", chain(&error));
                None
            }
        };
        let options = services.options.get().plugging;
        let wait = judge(&mut awaited, &cx.heard, seen.as_ref(), &options, cx.now);
        cx.task.awaited = Some(awaited);
        match wait {
            Wait::Over => Ok(Ran::Done),
            Wait::GoesOn(wait) => Ok(Ran::Waits(wait)),
            Wait::Failed(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let text =
                    format!("Build of instance {id} aborted: Failed to allocate the network(s), not rescheduling.");
                let details = format!("Virtual Interface creation failed: {} were not plugged in", ports.join(", "));
                Err(StepError::fatal(500, text, details))
            }
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Step for LetGo {
    fn name(&self) -> &'static str {
        "let_go"
    }

    async fn run(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if cx.task.awaited.is_none() {
            return Ok(Ran::Done);
        }
        // Another token than the order before it: a host that says again that the guest is made has not let it go.
        cx.renew_epoch();
        begin(cx, "compute_unpause_instance");
        Ok(Ran::Ordered(StagedOrder::of::<UnpauseInstance, _>(())))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // The guest goes with what comes before.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u128) -> PortId {
        PortId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn two() -> AwaitedVifs {
        AwaitedVifs { ports: [port(1), port(2)].into(), since: None }
    }

    const FATAL: PluggingOptions = PluggingOptions { timeout: Duration::from_secs(300), fatal: true };
    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn later(seconds: i64) -> Timestamp {
        NOW + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn it_is_over_when_all_work_by_what_is_seen_or_heard() {
        let (none, mut awaited) = (BTreeMap::new(), two());
        let down = BTreeMap::from([(port(1), PortStatus::Down), (port(2), PortStatus::Build)]);
        assert_eq!(judge(&mut awaited, &none, Some(&down), &FATAL, NOW), Wait::GoesOn(ASKED_AGAIN));
        assert_eq!((awaited.ports.len(), awaited.since), (2, Some(NOW)));
        let heard = BTreeMap::from([(port(1), true)]);
        assert_eq!(judge(&mut awaited, &heard, None, &FATAL, later(298)), Wait::GoesOn(Duration::from_secs(2)));
        assert_eq!(awaited.ports, [port(2)].into(), "and is not forgotten");
        let seen = BTreeMap::from([(port(1), PortStatus::Down), (port(2), PortStatus::Active)]);
        assert_eq!(judge(&mut awaited, &none, Some(&seen), &FATAL, later(299)), Wait::Over);
        assert_eq!(
            judge(&mut two(), &none, Some(&BTreeMap::new()), &FATAL, NOW),
            Wait::Over,
            "nothing is left to wait for"
        );
    }

    #[test]
    fn what_fails_or_is_late_fails_the_build_if_that_is_asked_for() {
        let mild = PluggingOptions { fatal: false, ..FATAL };
        let (none, heard) = (BTreeMap::new(), BTreeMap::from([(port(2), false)]));
        let seen = BTreeMap::from([(port(1), PortStatus::Error), (port(2), PortStatus::Active)]);
        assert_eq!(judge(&mut two(), &none, Some(&seen), &FATAL, NOW), Wait::Failed([port(1)].into()));
        assert_eq!(judge(&mut two(), &none, Some(&seen), &mild, NOW), Wait::Over);
        assert_eq!(judge(&mut two(), &heard, None, &FATAL, NOW), Wait::Failed([port(2)].into()));
        assert_eq!(judge(&mut two(), &heard, None, &mild, NOW), Wait::GoesOn(ASKED_AGAIN), "the other is waited for");
        let begun = || AwaitedVifs { since: Some(NOW), ..two() };
        assert_eq!(judge(&mut begun(), &none, None, &FATAL, later(300)), Wait::Failed(two().ports));
        assert_eq!(judge(&mut begun(), &none, None, &mild, later(300)), Wait::Over);
    }
}
