//! The drivers of this crate, held to the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fake {
    use nova_virt::{FakeHypervisor, FakeOptions};

    nova_virt::hypervisor_conformance!(async { (FakeHypervisor::new(FakeOptions::new("host1")), ()) });
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
