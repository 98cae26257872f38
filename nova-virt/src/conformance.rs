//! What every [`Hypervisor`](crate::Hypervisor) must do.
