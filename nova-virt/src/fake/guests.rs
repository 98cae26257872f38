//! The fake's guests, and what operations make of them.

use std::collections::BTreeMap;

use nova_core::ids::InstanceId;
use nova_core::metadata::GuestDevice;
use nova_core::state::PowerState;
use nova_core::topology::Placement;
use serde::{Deserialize, Serialize};

use super::disks::{self, FakeDisk};
use super::places::settle;
use crate::{GuestEvent, GuestEventKind, GuestInfo, GuestSpec, HypervisorError, InterfaceSpec, Operation, RescueSpec};

/// One guest. `spec` is `None` when only its files remain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Guest {
    pub(super) spec: Option<GuestSpec>,
    pub(super) power_state: PowerState,
    /// How often it was started; its console shows that many boots.
    pub(super) boots: u32,
    /// One per disk of the spec, in its order.
    #[serde(default)]
    pub(super) disks: Vec<FakeDisk>,
    /// How it is rescued, if it is.
    #[serde(default)]
    pub(super) rescue: Option<RescueSpec>,
    /// The slot of each device that guests are told of.
    #[serde(default)]
    pub(super) slots: Vec<(GuestDevice, u8)>,
    /// What its log begins with.
    #[serde(default)]
    pub(super) earlier_console: String,
    #[serde(default)]
    pub(super) nmis: u32,
    /// How often its file systems stood still for a copy.
    #[serde(default)]
    pub(super) freezes: u32,
    /// They do now.
    #[serde(default)]
    pub(super) frozen: bool,
    /// For whom and what; never in the state file.
    #[serde(skip)]
    pub(super) password: Option<(Option<String>, String)>,
}

impl Guest {
    /// What has no definition.
    pub(super) fn leftover(power_state: PowerState) -> Self {
        Self {
            spec: None,
            power_state,
            boots: 0,
            disks: Vec::new(),
            rescue: None,
            slots: Vec::new(),
            earlier_console: String::new(),
            nmis: 0,
            freezes: 0,
            frozen: false,
            password: None,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.spec.as_ref().map_or(0, |spec| spec.epoch)
    }

    pub(super) fn info(&self, instance: InstanceId) -> GuestInfo {
        GuestInfo {
            instance,
            name: self.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
            power_state: self.power_state,
            epoch: self.epoch(),
        }
    }
}

pub(super) type Guests = BTreeMap<InstanceId, Guest>;

/// What an operation made of the guests; events follow in this order.
pub(super) type Effect<T> = Result<(T, Vec<GuestEvent>), HypervisorError>;

/// Whether a guest holds processor or memory, so that a second copy of it would do harm.
pub(super) fn is_up(state: PowerState) -> bool {
    matches!(state, PowerState::Running | PowerState::Paused)
}

pub(super) fn find(guests: &mut Guests, instance: InstanceId) -> Result<&mut Guest, HypervisorError> {
    guests.get_mut(&instance).filter(|guest| guest.spec.is_some()).ok_or(HypervisorError::NotFound { instance })
}

/// Dedicated CPUs of a guest that others on this host have too.
pub(super) fn shared_cpus(guests: &Guests, guest: &GuestSpec) -> Vec<(u32, Vec<InstanceId>)> {
    let specs = guests.values().filter_map(|guest| guest.spec.as_ref());
    let placed: Vec<(InstanceId, &Placement)> =
        specs.filter_map(|spec| Some((spec.instance, spec.placement.as_ref()?))).collect();
    let own = guest.placement.iter().flat_map(Placement::own_cpus);
    let users = |cpu: u32| placed.iter().filter(move |(_, other)| other.own_cpus().any(|own| own == cpu));
    let found = own.map(|cpu| (cpu, users(cpu).map(|(instance, _)| *instance).collect::<Vec<_>>()));
    found.filter(|(_, users)| users.len() > 1).collect()
}

/// Makes the guest run, and tells which event that is.
pub(super) fn start(instance: InstanceId, guest: &mut Guest) -> Vec<GuestEvent> {
    let kind = match guest.power_state {
        PowerState::Running => return Vec::new(),
        PowerState::Paused => GuestEventKind::Resumed,
        PowerState::Suspended => GuestEventKind::Started,
        PowerState::NoState | PowerState::Shutdown | PowerState::Crashed => {
            guest.boots = guest.boots.saturating_add(1);
            GuestEventKind::Started
        }
    };
    guest.power_state = PowerState::Running;
    vec![GuestEvent { instance, kind }]
}

/// Makes the guest stand still, and tells which event that is.
pub(super) fn stop(instance: InstanceId, guest: &mut Guest) -> Vec<GuestEvent> {
    let was_up = is_up(guest.power_state);
    guest.power_state = PowerState::Shutdown;
    if was_up { vec![GuestEvent { instance, kind: GuestEventKind::Stopped }] } else { Vec::new() }
}

/// From one state to another; the goal itself is Ok, and any other state is not.
pub(super) fn move_between(
    guests: &mut Guests,
    instance: InstanceId,
    operation: Operation,
    from: &[PowerState],
    to: PowerState,
    kind: GuestEventKind,
) -> Effect<()> {
    let guest = find(guests, instance)?;
    if guest.power_state == to {
        return Ok(((), Vec::new()));
    }
    if !from.contains(&guest.power_state) {
        return Err(HypervisorError::InvalidState { instance, operation, state: guest.power_state });
    }
    guest.power_state = to;
    Ok(((), vec![GuestEvent { instance, kind }]))
}

/// What is plugged in stays so from start to start. Of a suspended guest nothing can be changed.
pub(super) fn pluggable(
    guests: &mut Guests,
    instance: InstanceId,
    operation: Operation,
) -> Result<&mut GuestSpec, HypervisorError> {
    let guest = find(guests, instance)?;
    let state = guest.power_state;
    let spec = guest.spec.as_mut().filter(|_| state != PowerState::Suspended);
    spec.ok_or(HypervisorError::InvalidState { instance, operation, state })
}

pub(super) fn attach_interface(guests: &mut Guests, instance: InstanceId, interface: &InterfaceSpec) -> Effect<()> {
    let interfaces = &mut pluggable(guests, instance, Operation::AttachInterface)?.interfaces;
    if !interfaces.iter().any(|known| known.mac_address.eq_ignore_ascii_case(&interface.mac_address)) {
        interfaces.push(interface.clone());
    }
    Ok(((), Vec::new()))
}

pub(super) fn detach_interface(guests: &mut Guests, instance: InstanceId, mac_address: &str) -> Effect<()> {
    let interfaces = &mut pluggable(guests, instance, Operation::DetachInterface)?.interfaces;
    interfaces.retain(|known| !known.mac_address.eq_ignore_ascii_case(mac_address));
    Ok(((), Vec::new()))
}

pub(super) fn spawn(guests: &mut Guests, spec: &GuestSpec) -> Effect<()> {
    spec.validate()?;
    let instance = spec.instance;
    let known = guests.get(&instance).filter(|guest| guest.spec.is_some());
    match known.map(Guest::epoch) {
        Some(current) if current > spec.epoch => {
            return Err(HypervisorError::Stale { instance, asked: spec.epoch, current });
        }
        Some(current) if current == spec.epoch => {}
        Some(_) => {
            if let Some(guest) = guests.get_mut(&instance) {
                guest.spec = Some(spec.clone());
            }
        }
        None => {
            let disks = disks::make(spec)?;
            let boots = guests.get(&instance).map_or(0, |guest| guest.boots);
            let earlier_console = spec.earlier_console.clone();
            let spec = Some(spec.clone());
            let guest = Guest { spec, boots, disks, earlier_console, ..Guest::leftover(PowerState::Shutdown) };
            guests.insert(instance, guest);
        }
    }
    let guest = find(guests, instance)?;
    settle(guest);
    let stands_still = matches!(guest.power_state, PowerState::Paused | PowerState::Suspended);
    let was_up = is_up(guest.power_state);
    let mut events = if spec.running && !stands_still { start(instance, guest) } else { Vec::new() };
    if spec.running && spec.held && !was_up {
        guest.power_state = PowerState::Paused;
        events.push(GuestEvent { instance, kind: GuestEventKind::Paused });
    }
    Ok(((), events))
}

/// What a guest's console shows: as many boots as it had, each up to the login banner.
pub(super) fn console(guest: &Guest) -> Vec<u8> {
    let Some(spec) = &guest.spec else {
        return Vec::new();
    };
    let host = host_name(&spec.display_name, &spec.name);
    let rescued = if guest.rescue.is_some() { ", rescued" } else { "" };
    let drive = if spec.config_drive.is_some() { "config-drive" } else { "none" };
    let mut log = guest.earlier_console.clone();
    // A guest that was started more often than anyone reads has the last boots in its log.
    for boot in guest.boots.saturating_sub(SHOWN_BOOTS)..guest.boots {
        log.push_str(&format!(
            "[    0.000000] Linux version 6.1.0-fake (fake hypervisor)\r\n\
             [    0.004000] Memory: {} MiB, processors: {}\r\n\
             [    0.310000] virtio_blk: {} disks\r\n\
             boot {} of instance {}, metadata source={drive}{rescued}\r\n\
             [    1.200000] boot finished\r\n\r\n{host} login: \r\n",
            spec.memory_mb,
            spec.vcpus,
            spec.disks.len(),
            boot + 1,
            spec.instance,
        ));
    }
    log.into_bytes()
}

const SHOWN_BOOTS: u32 = 16;

/// The display name as a host name, as far as it can be one.
fn host_name(display_name: &str, fallback: &str) -> String {
    let plain: String = display_name
        .chars()
        .filter_map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => Some(c.to_ascii_lowercase()),
            ' ' | '_' | '.' => Some('-'),
            _ => None,
        })
        .take(63)
        .collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { fallback.to_owned() } else { plain.to_owned() }
}
