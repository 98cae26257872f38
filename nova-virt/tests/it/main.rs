//! The drivers of this crate, held to the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fake {
    use nova_virt::{FakeHypervisor, FakeOptions};

    nova_virt::hypervisor_conformance!(async { (FakeHypervisor::new(FakeOptions::new("host1")), ()) });
}

/// One whose guests have screens over SPICE.
mod fake_with_spice {
    use nova_virt::{FakeHypervisor, FakeOptions};

    nova_virt::hypervisor_conformance!(async {
        (FakeHypervisor::new(FakeOptions { first_spice_port: Some(6900), ..FakeOptions::new("host1") }), ())
    });
}

/// Two fakes of one world.
mod fakes {
    use nova_virt::{FakeHypervisor, FakeOptions, FakeWorld};

    nova_virt::live_migration_conformance!(async {
        let world = FakeWorld::new();
        let host = |name: &str| FakeHypervisor::new(FakeOptions { world: world.clone(), ..FakeOptions::new(name) });
        (host("one"), host("two"), ())
    });
}

/// A fake that answers slowly: the contract does not depend on speed.
mod slow_fake {
    use std::time::Duration;

    use nova_virt::{FakeHypervisor, FakeOptions};

    nova_virt::hypervisor_conformance!(async {
        let latency = Duration::from_millis(1);
        (FakeHypervisor::new(FakeOptions { latency, ..FakeOptions::new("host1") }), ())
    });
}

#[cfg(feature = "libvirt")]
mod libvirt;
