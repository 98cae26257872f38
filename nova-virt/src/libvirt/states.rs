//! libvirt's states and events as ours.

use nova_core::state::PowerState;
use virt::sys;

use crate::GuestEventKind;

/// The power state of a domain, from `virDomainState` and its reason, as Nova's libvirt driver maps it, and finer in
/// two cases: a domain whose memory is on disk is suspended, and one that is off since it broke has crashed.
pub(super) fn power_state(state: u32, reason: u32, saved: bool) -> PowerState {
    match state {
        // Blocked means waiting for I/O, and is still running.
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => PowerState::Running,
        sys::VIR_DOMAIN_PAUSED => PowerState::Paused,
        // It is about to be off and still holds its disks, but nothing can keep it from ending.
        sys::VIR_DOMAIN_SHUTDOWN => PowerState::Shutdown,
        sys::VIR_DOMAIN_SHUTOFF if saved => PowerState::Suspended,
        sys::VIR_DOMAIN_SHUTOFF if reason == sys::VIR_DOMAIN_SHUTOFF_CRASHED => PowerState::Crashed,
        sys::VIR_DOMAIN_SHUTOFF => PowerState::Shutdown,
        sys::VIR_DOMAIN_CRASHED => PowerState::Crashed,
        sys::VIR_DOMAIN_PMSUSPENDED => PowerState::Suspended,
        _ => PowerState::NoState,
    }
}

/// Whether a domain in that state has a process, which can be destroyed.
pub(super) fn is_active(state: u32) -> bool {
    !matches!(state, sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_NOSTATE)
}

/// What an event means for the guest; `None` when nothing that we tell of.
pub(super) fn event_kind(event: u32, detail: u32) -> Option<GuestEventKind> {
    match event {
        sys::VIR_DOMAIN_EVENT_STARTED => Some(GuestEventKind::Started),
        // While it is restored or migrated in, a domain pauses and resumes for a moment.
        sys::VIR_DOMAIN_EVENT_SUSPENDED => match detail {
            sys::VIR_DOMAIN_EVENT_SUSPENDED_RESTORED
            | sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED
            | sys::VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT => None,
            _ => Some(GuestEventKind::Paused),
        },
        sys::VIR_DOMAIN_EVENT_RESUMED => Some(GuestEventKind::Resumed),
        sys::VIR_DOMAIN_EVENT_STOPPED => match detail {
            sys::VIR_DOMAIN_EVENT_STOPPED_SAVED => Some(GuestEventKind::Suspended),
            // Failed: its process ended without a word, or never came up.
            sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED | sys::VIR_DOMAIN_EVENT_STOPPED_FAILED => {
                Some(GuestEventKind::Crashed)
            }
            _ => Some(GuestEventKind::Stopped),
        },
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => Some(GuestEventKind::Suspended),
        sys::VIR_DOMAIN_EVENT_CRASHED => Some(GuestEventKind::Crashed),
        // Defined, undefined; shutdown is the announcement of stopped.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_map_as_novas_driver_maps_them() {
        let states: Vec<_> = (0..=8).map(|state| power_state(state, 0, false)).collect();
        let expected = [
            PowerState::NoState,
            PowerState::Running,
            PowerState::Running,
            PowerState::Paused,
            PowerState::Shutdown,
            PowerState::Shutdown,
            PowerState::Crashed,
            PowerState::Suspended,
            PowerState::NoState,
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn an_off_domain_tells_why() {
        let off = sys::VIR_DOMAIN_SHUTOFF;
        assert_eq!(power_state(off, sys::VIR_DOMAIN_SHUTOFF_CRASHED, false), PowerState::Crashed);
        assert_eq!(power_state(off, sys::VIR_DOMAIN_SHUTOFF_DESTROYED, false), PowerState::Shutdown);
        assert_eq!(power_state(off, sys::VIR_DOMAIN_SHUTOFF_SAVED, true), PowerState::Suspended);
    }

    #[test]
    fn events_that_are_no_news_are_left_out() {
        assert_eq!(event_kind(sys::VIR_DOMAIN_EVENT_DEFINED, 0), None);
        assert_eq!(event_kind(sys::VIR_DOMAIN_EVENT_UNDEFINED, 0), None);
        assert_eq!(event_kind(sys::VIR_DOMAIN_EVENT_SHUTDOWN, 0), None);
        let stopped = |detail| event_kind(sys::VIR_DOMAIN_EVENT_STOPPED, detail);
        assert_eq!(stopped(sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED), Some(GuestEventKind::Stopped));
        assert_eq!(stopped(sys::VIR_DOMAIN_EVENT_STOPPED_SAVED), Some(GuestEventKind::Suspended));
        assert_eq!(stopped(sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED), Some(GuestEventKind::Crashed));
        assert_eq!(stopped(sys::VIR_DOMAIN_EVENT_STOPPED_FAILED), Some(GuestEventKind::Crashed));
    }
}
