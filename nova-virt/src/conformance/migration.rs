//! Live migration, between two drivers.

use std::time::Duration;

use nova_core::state::PowerState;

use super::{assert_state, fresh, listed};
use crate::{ErrorKind, GuestSpec, Hypervisor, IncomingAddress, LiveMigration};

fn to(address: IncomingAddress) -> LiveMigration {
    let block = !address.shared_disks;
    LiveMigration {
        to: address,
        block,
        bandwidth: None,
        max_downtime: Duration::from_millis(500),
        auto_converge: true,
        post_copy: false,
    }
}

/// It runs here, then there, and is its new order's; each call may be repeated.
pub async fn a_running_guest_moves_while_it_runs(from: &dyn Hypervisor, there: &dyn Hypervisor) {
    let guest = fresh(from, 0x140).await;
    let id = fresh(there, 0x140).await.instance;
    from.spawn(&guest).await.unwrap();
    let newer = GuestSpec { epoch: 2, ..guest.clone() };
    let address = there.prepare_incoming(&newer).await.unwrap();
    assert_eq!(there.prepare_incoming(&newer).await.unwrap(), address);
    for _ in 0..2 {
        from.live_migrate(id, &to(address.clone())).await.unwrap();
        assert_eq!(from.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_state(there, id, PowerState::Running).await;
    }
    for _ in 0..2 {
        there.adopt_incoming(&newer).await.unwrap();
        assert_eq!(there.info(id).await.unwrap().epoch, 2);
    }
    assert_eq!(there.adopt_incoming(&guest).await.unwrap_err().kind(), ErrorKind::Stale);
    from.destroy(id).await.unwrap();
    assert_eq!(listed(from, id).await, None);
    there.power_off(id, None).await.unwrap();
    there.power_on(id).await.unwrap();
    assert_eq!(there.info(id).await.unwrap().epoch, 2, "it lasts");
    there.destroy(id).await.unwrap();
    assert_eq!(listed(there, id).await, None);
}

/// What is off has nothing to send live.
pub async fn a_guest_that_is_off_does_not_move_live(from: &dyn Hypervisor, there: &dyn Hypervisor) {
    let guest = GuestSpec { running: false, ..fresh(from, 0x141).await };
    let id = fresh(there, 0x141).await.instance;
    from.spawn(&guest).await.unwrap();
    let address = there.prepare_incoming(&guest).await.unwrap();
    let refused = from.live_migrate(id, &to(address)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidState);
    there.destroy(id).await.unwrap();
    assert_eq!(listed(there, id).await, None, "what was made ready is gone");
    from.destroy(id).await.unwrap();
}

/// Without its disks there, or with them taken away again, it stays and runs.
pub async fn a_host_that_is_not_ready_gets_nothing(from: &dyn Hypervisor, there: &dyn Hypervisor) {
    let guest = fresh(from, 0x142).await;
    let id = fresh(there, 0x142).await.instance;
    from.spawn(&guest).await.unwrap();
    let address = there.prepare_incoming(&guest).await.unwrap();
    there.destroy(id).await.unwrap();
    from.live_migrate(id, &to(address)).await.unwrap_err();
    assert_state(from, id, PowerState::Running).await;
    assert_eq!(there.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    from.destroy(id).await.unwrap();
    there.destroy(id).await.unwrap();
}

/// Nothing to see, nothing to abort, nothing to force.
pub async fn without_a_migration_there_is_no_progress(from: &dyn Hypervisor, _: &dyn Hypervisor) {
    let guest = fresh(from, 0x143).await;
    let id = guest.instance;
    from.spawn(&guest).await.unwrap();
    assert_eq!(from.migration_progress(id).await.unwrap(), None);
    from.abort_migration(id).await.unwrap();
    assert_eq!(from.force_migration(id).await.unwrap_err().kind(), ErrorKind::InvalidState);
    from.destroy(id).await.unwrap();
}
