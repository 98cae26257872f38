//! What is done to a fake guest that lives: rescue, rebuild, password, interrupt, counters.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;

use super::disks::{self, FakeDisk};
use super::guests::{Effect, Guest, is_up, start, stop};
use super::places::settle;
use crate::{
    Diagnostics, DiskCounters, DiskRole, DiskSource, GuestSpec, HypervisorError, InterfaceCounters, Operation, Quiesce,
    RescueSpec,
};

pub(super) fn wrong_state(instance: InstanceId, operation: Operation, state: PowerState) -> HypervisorError {
    HypervisorError::InvalidState { instance, operation, state }
}

pub(super) fn rescue(guest: &mut Guest, instance: InstanceId, rescue: &RescueSpec) -> Effect<()> {
    if !matches!(rescue.image, DiskSource::Image { .. }) {
        return Err(HypervisorError::invalid("rescue.image", "must be an image"));
    }
    let mut events = stop(instance, guest);
    guest.rescue = Some(rescue.clone());
    events.extend(start(instance, guest));
    Ok(((), events))
}

pub(super) fn unrescue(guest: &mut Guest, instance: InstanceId) -> Effect<()> {
    let mut events = if guest.rescue.take().is_some() { stop(instance, guest) } else { Vec::new() };
    events.extend(start(instance, guest));
    Ok(((), events))
}

pub(super) fn rebuild(guest: &mut Guest, spec: &GuestSpec, preserve_ephemeral: bool) -> Effect<()> {
    spec.validate()?;
    let (instance, current) = (spec.instance, guest.epoch());
    if current > spec.epoch {
        return Err(HypervisorError::Stale { instance, asked: spec.epoch, current });
    }
    let mut events = Vec::new();
    if current < spec.epoch {
        let mut new = disks::make(spec)?;
        if preserve_ephemeral {
            keep_ephemeral(&mut new, &guest.disks);
        }
        events = stop(instance, guest);
        guest.disks = new;
        guest.spec = Some(spec.clone());
        settle(guest);
        (guest.rescue, guest.password) = (None, None);
    }
    if spec.running && !matches!(guest.power_state, PowerState::Paused | PowerState::Suspended) {
        events.extend(start(instance, guest));
    }
    Ok(((), events))
}

/// Each disk that is not the root disk says what the old one of its role and place said.
fn keep_ephemeral(new: &mut [FakeDisk], old: &[FakeDisk]) {
    for role in [DiskRole::Ephemeral, DiskRole::Swap] {
        let old = old.iter().filter(|disk| disk.role == role);
        for (new, old) in new.iter_mut().filter(|disk| disk.role == role).zip(old) {
            new.content.clone_from(&old.content);
        }
    }
}

/// A fake guest has an agent unless its image says that it has none (`hw_qemu_guest_agent`).
fn has_agent(guest: &Guest) -> bool {
    let properties = guest.spec.as_ref().map(|spec| &spec.hardware.image_properties);
    let agent = properties.and_then(|properties| properties.get("hw_qemu_guest_agent"));
    !agent.is_some_and(|agent| matches!(agent.to_ascii_lowercase().as_str(), "no" | "false" | "0" | "off"))
}

/// Its file systems stand still, if it runs and has an agent.
pub(super) fn quiesce(guest: &mut Guest, quiesce: Quiesce) -> Result<(), HypervisorError> {
    match (guest.power_state == PowerState::Running, has_agent(guest), quiesce) {
        (true, true, _) => {
            guest.freezes += u32::from(!guest.frozen);
            guest.frozen = true;
        }
        (true, false, Quiesce::Required) => return Err(HypervisorError::Unsupported { operation: Operation::Quiesce }),
        _ => guest.frozen = false,
    }
    Ok(())
}

/// They go on. False: they did already, or the guest with them is gone.
pub(super) fn unquiesce(guest: &mut Guest) -> bool {
    std::mem::take(&mut guest.frozen) && guest.power_state == PowerState::Running
}

pub(super) fn set_password(guest: &mut Guest, instance: InstanceId, user: Option<&str>, password: &str) -> Effect<()> {
    const OPERATION: Operation = Operation::SetAdminPassword;
    if guest.power_state != PowerState::Running {
        return Err(wrong_state(instance, OPERATION, guest.power_state));
    }
    if !has_agent(guest) {
        return Err(HypervisorError::Unsupported { operation: OPERATION });
    }
    guest.password = Some((user.map(str::to_owned), password.to_owned()));
    Ok(((), Vec::new()))
}

pub(super) fn inject_nmi(guest: &mut Guest, instance: InstanceId) -> Effect<()> {
    if !is_up(guest.power_state) {
        return Err(wrong_state(instance, Operation::InjectNmi, guest.power_state));
    }
    guest.nmis += 1;
    Ok(((), Vec::new()))
}

/// Counters that are plausible and the same at each run.
pub(super) fn diagnostics(guest: &Guest, uptime: Duration) -> Diagnostics {
    let Some(spec) = &guest.spec else { return Diagnostics::default() };
    let up = is_up(guest.power_state);
    let uptime = if up { uptime } else { Duration::ZERO };
    let nanoseconds = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX) / 10;
    let disk = |letter: u8| DiskCounters { device: format!("vd{}", char::from(letter)), ..DiskCounters::default() };
    let nic = |mac: &String| InterfaceCounters { mac_address: mac.clone(), ..InterfaceCounters::default() };
    Diagnostics {
        hypervisor: "fake".into(),
        hypervisor_os: "linux".into(),
        driver: "fake".into(),
        uptime: uptime.as_secs(),
        cpu_time_ns: if up { vec![nanoseconds; spec.vcpus as usize] } else { Vec::new() },
        vcpus: spec.vcpus,
        disks: (b'a'..=b'z').zip(&guest.disks).map(|(letter, _)| disk(letter)).collect(),
        interfaces: spec.interfaces.iter().map(|interface| nic(&interface.mac_address)).collect(),
        memory_mb: spec.memory_mb,
        memory_used_mb: up.then_some(spec.memory_mb / 2),
        config_drive: spec.config_drive.is_some(),
    }
}
