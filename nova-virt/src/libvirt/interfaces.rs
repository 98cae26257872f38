//! Interfaces that come and go while their guest exists (nova/virt/libvirt/guest.py, `attach_device`,
//! `detach_device_with_retry`).
//!
//! A guest has interfaces twice: in its definition, from which it is started, and in its process. Both are changed, and each
//! only where it is not yet as it shall be, so that a repetition finishes what was begun.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use tokio::time::{Instant, MissedTickBehavior};
use virt::sys;

use super::domains::Guest;
use super::operations::Inner;
use super::{domain_xml, errors, read_xml};
use crate::{HypervisorError, InterfaceSpec, Operation};

type Result<T> = std::result::Result<T, HypervisorError>;

/// How often a guest that shall let go of an interface is looked at, and asked again: it may not have listened yet.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const ASK_EVERY: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn attach_interface(&self, instance: InstanceId, interface: InterfaceSpec) -> Result<()> {
        interface.validate()?;
        self.locked_with(instance, move |guest| guest.attach_interface(&interface)).await
    }

    pub(super) async fn detach_interface(&self, instance: InstanceId, mac: String) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let wait = self.options.detach_wait;
        let deadline = Instant::now() + wait;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask_at = Instant::now();
        loop {
            look.tick().await;
            let ask = Instant::now() >= ask_at;
            if ask {
                ask_at = Instant::now() + ASK_EVERY;
            }
            let mac = mac.clone();
            if self.with(instance, move |guest| guest.detach_interface(&mac, ask)).await? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(HypervisorError::TimedOut { during: "detaching the interface", after: wait });
            }
        }
    }
}

impl Guest {
    /// Hardware addresses of its interfaces: of its process, or else of its definition.
    pub(super) fn interfaces(&self) -> Result<Vec<String>> {
        self.interfaces_in(if self.active { 0 } else { sys::VIR_DOMAIN_XML_INACTIVE })
    }

    fn interfaces_in(&self, flags: u32) -> Result<Vec<String>> {
        const DURING: &str = "reading the guest's interfaces";
        match self.domain.xml_desc(flags) {
            Ok(xml) => read_xml::interfaces(&xml).map_err(|source| HypervisorError::Failed { during: DURING, source }),
            Err(error) if errors::is_no_domain(&error) => Err(HypervisorError::NotFound { instance: self.instance }),
            Err(error) => Err(errors::failed(DURING, error)),
        }
    }

    /// In its process, in its definition?
    fn has_interface(&self, mac: &str) -> Result<(bool, bool)> {
        let has = |macs: Vec<String>| macs.iter().any(|known| known.eq_ignore_ascii_case(mac));
        let live = self.active && has(self.interfaces_in(0)?);
        Ok((live, has(self.interfaces_in(sys::VIR_DOMAIN_XML_INACTIVE)?)))
    }

    fn refuse_suspended(&self, operation: Operation) -> Result<()> {
        match self.power_state {
            // Its memory is on disk, with the interfaces that it had.
            state @ PowerState::Suspended => {
                Err(HypervisorError::InvalidState { instance: self.instance, operation, state })
            }
            _ => Ok(()),
        }
    }

    fn attach_interface(&self, interface: &InterfaceSpec) -> Result<()> {
        const DURING: &str = "attaching the interface";
        self.refuse_suspended(Operation::AttachInterface)?;
        let (live, defined) = self.has_interface(&interface.mac_address)?;
        let mut flags = 0;
        if self.active && !live {
            flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
        }
        if !defined {
            flags |= sys::VIR_DOMAIN_AFFECT_CONFIG;
        }
        if flags == 0 {
            return Ok(());
        }
        let xml = domain_xml::interface_alone(interface).map_err(|error| errors::file(DURING, error))?;
        self.domain.attach_device_flags(&xml, flags).map_err(|error| errors::failed(DURING, error))
    }

    /// Takes it out of the definition, asks the guest to let it go if `ask` says so, and tells whether it has.
    fn detach_interface(&self, mac: &str, ask: bool) -> Result<bool> {
        const DURING: &str = "detaching the interface";
        self.refuse_suspended(Operation::DetachInterface)?;
        let (live, defined) = self.has_interface(mac)?;
        // Libvirt finds it by its hardware address; it wants to read a type, and does not compare it.
        let xml = domain_xml::interface_of(mac).map_err(|error| errors::file(DURING, error))?;
        if defined {
            self.detach(&xml, sys::VIR_DOMAIN_AFFECT_CONFIG).map_err(|error| errors::failed(DURING, error))?;
        }
        if live && ask {
            match self.detach(&xml, sys::VIR_DOMAIN_AFFECT_LIVE) {
                // It stopped meanwhile: the next look will tell.
                Err(error) if errors::is_wrong_state(&error) || errors::is_being_unplugged(&error) => {}
                asked => asked.map_err(|error| errors::failed(DURING, error))?,
            }
        }
        Ok(!live)
    }

    fn detach(&self, xml: &str, flags: u32) -> std::result::Result<(), virt::error::Error> {
        match self.domain.detach_device_flags(xml, flags) {
            Err(error) if errors::is_no_device(&error) || errors::is_no_domain(&error) => Ok(()),
            detached => detached,
        }
    }
}
