//! Blocking calls about domains, in the words of guests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use virt::connect::Connect;
use virt::domain::{Domain, DomainStateReason};
use virt::enumutil::Enum;
use virt::stream::Stream;
use virt::sys;

use super::domain_xml::{NAMESPACE, PREFIX};
use super::ffi::{self, DomainState};
use super::xml_tree::{self, Element};
use super::{errors, read_xml, states};
use crate::{BoxError, GuestInfo, HypervisorError, Operation, SpiceEndpoint};

/// How often a start is tried that fails on a port which another program took meanwhile.
const START_TRIES: u32 = 4;

type Result<T> = std::result::Result<T, HypervisorError>;

/// A domain that carries our metadata.
pub(super) struct Guest {
    pub(super) domain: Domain,
    pub(super) instance: InstanceId,
    /// The epoch of the order that made it.
    pub(super) epoch: u64,
    /// Whether it has a process.
    pub(super) active: bool,
    /// Its power state, exactly.
    pub(super) power_state: PowerState,
    /// Whose password is set when nobody is named.
    pub(super) administrator: String,
}

/// Who has a UUID.
pub(super) enum Owner {
    Nobody,
    /// A domain that others made; it is none of our business.
    Others,
    Ours(Guest),
}

/// Finds out who has the UUID of an instance, and how that domain is: three calls, and one more if it is off.
pub(super) fn owner(conn: &Connect, instance: InstanceId) -> Result<Owner> {
    let failed = |error| errors::failed("looking the guest up", error);
    let domain = match conn.lookup_domain_by_uuid_string(&instance.to_string()) {
        Ok(domain) => domain,
        Err(error) if errors::is_no_domain(&error) => return Ok(Owner::Nobody),
        Err(error) => return Err(failed(error)),
    };
    let Some(metadata) = metadata(&domain)? else {
        // Gone since we looked it up, or not ours.
        return match domain.state() {
            Err(error) if errors::is_no_domain(&error) => Ok(Owner::Nobody),
            _ => Ok(Owner::Others),
        };
    };
    let (state, reason) = match domain.state() {
        Ok(state) => state,
        Err(error) if errors::is_no_domain(&error) => return Ok(Owner::Nobody),
        Err(error) => return Err(failed(error)),
    };
    let state = state.to_raw();
    let reason = match reason {
        Enum::Known(DomainStateReason::Shutoff(reason)) => reason.to_raw(),
        _ => 0,
    };
    let active = states::is_active(state);
    let saved = match (active, domain.has_managed_save(0)) {
        (true, _) => false,
        (false, Err(error)) if errors::is_no_domain(&error) => return Ok(Owner::Nobody),
        (false, saved) => saved.map_err(failed)?,
    };
    let power_state = states::power_state(state, reason, saved);
    let administrator = metadata.administrator.unwrap_or_else(|| "root".into());
    Ok(Owner::Ours(Guest { domain, instance, epoch: metadata.epoch, active, power_state, administrator }))
}

/// Our guest of that instance, or `NotFound`.
pub(super) fn guest(conn: &Connect, instance: InstanceId) -> Result<Guest> {
    match owner(conn, instance)? {
        Owner::Ours(guest) => Ok(guest),
        Owner::Nobody | Owner::Others => Err(HypervisorError::NotFound { instance }),
    }
}

/// What a domain's metadata says; `None` if the domain is gone or not ours.
fn metadata(domain: &Domain) -> Result<Option<read_xml::GuestMetadata>> {
    const DURING: &str = "reading the guest's metadata";
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    match domain.metadata(kind, Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(xml) => match read_xml::metadata(&xml) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(source) => Err(HypervisorError::Failed { during: DURING, source }),
        },
        Err(error) if errors::is_no_metadata(&error) || errors::is_no_domain(&error) => Ok(None),
        Err(error) => Err(errors::failed(DURING, error)),
    }
}

impl Guest {
    pub(super) fn info(&self) -> Result<GuestInfo> {
        let name = self.domain.name().map_err(|error| errors::failed("reading the guest's name", error))?;
        Ok(GuestInfo { instance: self.instance, name, power_state: self.power_state, epoch: self.epoch })
    }

    /// Starts it, or lets it go on where it stands still. A running one is Ok.
    pub(super) fn start(&self) -> Result<()> {
        const DURING: &str = "starting the guest";
        let started = match self.power_state {
            PowerState::Running => return Ok(()),
            PowerState::Paused => self.domain.resume(),
            PowerState::Suspended if self.active => self.domain.pm_wakeup(0),
            PowerState::Suspended | PowerState::NoState | PowerState::Shutdown | PowerState::Crashed => {
                self.create(sys::VIR_DOMAIN_NONE)
            }
        };
        match started {
            // Someone else started it meanwhile.
            Err(error) if errors::is_wrong_state(&error) && self.domain.is_active().unwrap_or(false) => Ok(()),
            started => started.map_err(|error| errors::failed(DURING, error)),
        }
    }

    /// Starts one that is off so that it stands still. Of one that was saved that says nothing: such a one is left as it is.
    pub(super) fn start_held(&self) -> Result<()> {
        match self.power_state {
            PowerState::Running | PowerState::Paused | PowerState::Suspended => Ok(()),
            PowerState::NoState | PowerState::Shutdown | PowerState::Crashed => {
                match self.create(sys::VIR_DOMAIN_START_PAUSED) {
                    // Someone else started it meanwhile.
                    Err(error) if errors::is_wrong_state(&error) && self.domain.is_active().unwrap_or(false) => Ok(()),
                    started => started.map_err(|error| errors::failed("starting the guest", error)),
                }
            }
        }
    }

    /// Starts it, with another port for its screen if the first is taken.
    fn create(&self, flags: sys::virDomainCreateFlags) -> std::result::Result<(), virt::error::Error> {
        let mut tries = 1;
        loop {
            match self.domain.create_with_flags(flags) {
                Err(error) if errors::is_port_taken(&error) && tries < START_TRIES => tries += 1,
                created => return created,
            }
        }
    }

    /// Asks the guest to shut down. Whether it listens shows later.
    pub(super) fn ask_to_shut_down(&self) -> Result<()> {
        match self.domain.shutdown() {
            Err(error) if !errors::is_wrong_state(&error) => {
                Err(errors::failed("asking the guest to shut down", error))
            }
            // It stopped by itself meanwhile, or it is paused and can't hear.
            _ => Ok(()),
        }
    }

    /// Cuts its power and throws away what it had in memory. One that is off is Ok.
    pub(super) fn stop(&self) -> Result<()> {
        const DURING: &str = "stopping the guest";
        if self.active {
            match self.domain.destroy() {
                Err(error) if errors::is_no_domain(&error) => {}
                Err(error) if errors::is_wrong_state(&error) && !self.domain.is_active().unwrap_or(true) => {}
                stopped => stopped.map_err(|error| errors::failed(DURING, error))?,
            }
        }
        if self.power_state == PowerState::Suspended && !self.active {
            self.domain.managed_save_remove(0).map_err(|error| errors::failed(DURING, error))?;
        }
        Ok(())
    }

    /// Stops it and makes libvirt forget it.
    pub(super) fn remove(&self) -> Result<()> {
        self.stop()?;
        self.undefine(sys::VIR_DOMAIN_UNDEFINE_NVRAM)
    }

    /// Stops it and makes libvirt forget it; its files stay, what its firmware remembers among them.
    pub(super) fn forget(&self) -> Result<()> {
        self.stop()?;
        self.undefine(sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    }

    fn undefine(&self, nvram: u32) -> Result<()> {
        let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | nvram;
        match self.domain.undefine_flags(flags) {
            Err(error) if errors::is_no_domain(&error) => Ok(()),
            undefined => undefined.map_err(|error| errors::failed("removing the guest's definition", error)),
        }
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.domain.suspend().map_err(|error| errors::failed("pausing the guest", error))
    }

    /// Writes its memory to disk. It will run when it is restored, also if it is paused now.
    pub(super) fn save(&self) -> Result<()> {
        let saved = self.domain.managed_save(sys::VIR_DOMAIN_SAVE_RUNNING);
        saved.map_err(|error| errors::failed("suspending the guest", error))
    }

    /// Replaces our metadata of a running guest.
    pub(super) fn set_live_metadata(&self, element: &str) -> Result<()> {
        let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
        let flags = sys::VIR_DOMAIN_AFFECT_LIVE | sys::VIR_DOMAIN_AFFECT_CONFIG;
        self.domain
            .set_metadata(kind, Some(element), Some(PREFIX), Some(NAMESPACE), flags)
            .map_err(|error| errors::failed("writing the guest's metadata", error))
    }

    /// Its definition, as it will be started.
    pub(super) fn definition(&self) -> Result<Element> {
        const DURING: &str = "reading the guest's definition";
        let flags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
        let xml = self.domain.xml_desc(flags).map_err(|error| errors::failed(DURING, error))?;
        xml_tree::parse(&xml).map_err(|source| HypervisorError::Failed { during: DURING, source })
    }

    /// What its process has.
    pub(super) fn live_definition(&self) -> Result<Element> {
        const DURING: &str = "reading what the guest has";
        let xml = self.domain.xml_desc(0).map_err(|error| errors::failed(DURING, error))?;
        xml_tree::parse(&xml).map_err(|source| HypervisorError::Failed { during: DURING, source })
    }

    pub(super) fn wrong_state(&self, operation: Operation) -> HypervisorError {
        HypervisorError::InvalidState { instance: self.instance, operation, state: self.power_state }
    }

    pub(super) fn inject_nmi(&self) -> Result<()> {
        if !self.active || !matches!(self.power_state, PowerState::Running | PowerState::Paused) {
            return Err(self.wrong_state(Operation::InjectNmi));
        }
        ffi::inject_nmi(&self.domain).map_err(|error| errors::failed("interrupting the guest", error))
    }

    /// By its agent; a guest without one that answers says so.
    pub(super) fn set_password(&self, user: Option<&str>, password: &str) -> Result<()> {
        const OPERATION: Operation = Operation::SetAdminPassword;
        if self.power_state != PowerState::Running {
            return Err(self.wrong_state(OPERATION));
        }
        match self.domain.set_user_password(user.unwrap_or(&self.administrator), password, 0) {
            Err(error) if errors::is_no_agent(&error) => Err(HypervisorError::Unsupported { operation: OPERATION }),
            set => set.map_err(|error| errors::failed("setting a password in the guest", error)),
        }
    }

    /// Its agent makes its file systems stand still; a guest without one that does says so.
    pub(super) fn freeze(&self) -> Result<()> {
        match ffi::freeze(&self.domain) {
            Err(error) if errors::is_no_agent(&error) => {
                Err(HypervisorError::Unsupported { operation: Operation::Quiesce })
            }
            frozen => frozen.map_err(|error| errors::failed("quiescing the guest", error)),
        }
    }

    /// Its file systems go on. One that does not run has none that stand still.
    pub(super) fn thaw(&self) -> Result<()> {
        match ffi::thaw(&self.domain) {
            Err(error) if errors::is_wrong_state(&error) => Ok(()),
            thawed => thawed.map_err(|error| errors::failed("letting the guest's file systems go on", error)),
        }
    }

    /// A stream of its serial port, taken from whoever has it.
    pub(super) fn serial_stream(&self, conn: &Connect) -> Result<Stream> {
        const DURING: &str = "opening the guest's serial port";
        if !self.active {
            return Err(self.wrong_state(Operation::OpenSerial));
        }
        let stream = Stream::new(conn, 0).map_err(|error| errors::failed(DURING, error))?;
        let opened = self.domain.open_console(None, &stream, sys::VIR_DOMAIN_CONSOLE_FORCE);
        opened.map_err(|error| errors::failed(DURING, error))?;
        Ok(stream)
    }

    pub(super) fn vnc(&self) -> Result<Option<(String, u16)>> {
        self.screen(read_xml::vnc)
    }

    /// Where it is served over SPICE.
    pub(super) fn spice(&self) -> Result<SpiceEndpoint> {
        const OPERATION: Operation = Operation::SpiceEndpoint;
        let found = self.screen(read_xml::spice)?;
        if !self.active {
            return Err(self.wrong_state(OPERATION));
        }
        let ports = found.ok_or(HypervisorError::Unsupported { operation: OPERATION })?;
        if ports.port.is_none() && ports.tls_port.is_none() {
            return Err(self.wrong_state(OPERATION));
        }
        Ok(SpiceEndpoint { host: ports.host, port: ports.port, tls_port: ports.tls_port })
    }

    fn screen<T>(&self, read: impl FnOnce(&str) -> std::result::Result<T, BoxError>) -> Result<T> {
        const DURING: &str = "looking for the guest's screen";
        let xml = self.domain.xml_desc(0).map_err(|error| errors::failed(DURING, error))?;
        read(&xml).map_err(|source| HypervisorError::Failed { during: DURING, source })
    }
}

/// Defines a domain, or changes its definition.
pub(super) fn define(conn: &Connect, xml: &str) -> Result<()> {
    match conn.define_domain_xml_flags(xml, sys::VIR_DOMAIN_DEFINE_VALIDATE) {
        Ok(_) => Ok(()),
        Err(error) => Err(errors::failed("defining the guest", error)),
    }
}

/// What is known of domains from earlier, so that listing all takes a call or two rather than one for each.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Knowledge>);

#[derive(Debug, Default)]
struct Knowledge {
    kinds: BTreeMap<InstanceId, Kind>,
    /// Counts what was forgotten: what was read before that is not remembered after.
    forgotten: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours { epoch: u64 },
    Others,
}

impl Known {
    /// Whether the domain is known to belong to others.
    pub(super) fn is_others(&self, instance: InstanceId) -> bool {
        self.lock().kinds.get(&instance) == Some(&Kind::Others)
    }

    /// Its definition changed.
    pub(super) fn forget(&self, instance: InstanceId) {
        let mut knowledge = self.lock();
        knowledge.kinds.remove(&instance);
        knowledge.forgotten += 1;
    }

    /// Nothing is sure any more.
    pub(super) fn forget_all(&self) {
        let mut knowledge = self.lock();
        knowledge.kinds.clear();
        knowledge.forgotten += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Knowledge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All our guests, and every UUID that libvirt knows.
pub(super) struct Listing {
    pub(super) guests: Vec<GuestInfo>,
    pub(super) taken: BTreeSet<InstanceId>,
}

/// One call, a second if one of our guests is off, and two more for each domain that is not known yet.
pub(super) fn list(conn: &Connect, known: &Known) -> Result<Listing> {
    let failed = |error| errors::failed("listing the guests", error);
    let mut ours = Vec::new();
    let mut taken = BTreeSet::new();
    for domain in ffi::all_domain_states(conn).map_err(failed)? {
        let Ok(instance) = domain.uuid.parse::<InstanceId>() else { continue };
        taken.insert(instance);
        if let Some(Kind::Ours { epoch }) = kind_of(conn, known, instance)? {
            ours.push((instance, epoch, domain));
        }
    }
    let any_off = ours.iter().any(|(_, _, domain)| !states::is_active(domain.state));
    let saved = if any_off { saved_domains(conn).map_err(failed)? } else { BTreeSet::new() };
    let info = |(instance, epoch, domain): (InstanceId, u64, DomainState)| {
        let saved = saved.contains(&domain.uuid);
        let power_state = states::power_state(domain.state, domain.reason, saved);
        GuestInfo { instance, name: domain.name, power_state, epoch }
    };
    Ok(Listing { guests: ours.into_iter().map(info).collect(), taken })
}

fn kind_of(conn: &Connect, known: &Known, instance: InstanceId) -> Result<Option<Kind>> {
    let (remembered, forgotten) = {
        let knowledge = known.lock();
        (knowledge.kinds.get(&instance).copied(), knowledge.forgotten)
    };
    if remembered.is_some() {
        return Ok(remembered);
    }
    let kind = match owner(conn, instance)? {
        Owner::Nobody => return Ok(None),
        Owner::Others => Kind::Others,
        Owner::Ours(guest) => Kind::Ours { epoch: guest.epoch },
    };
    let mut knowledge = known.lock();
    if knowledge.forgotten == forgotten {
        knowledge.kinds.insert(instance, kind);
    }
    Ok(Some(kind))
}

fn saved_domains(conn: &Connect) -> std::result::Result<BTreeSet<String>, virt::error::Error> {
    let domains = conn.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)?;
    domains.iter().map(Domain::uuid_string).collect()
}
