//! What a fake does as a [`Hypervisor`]: each operation is one line of the [journal](super::FakeHypervisor::journal).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::host_facts::CpuTimes;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::metadata::DevicePlace;
use nova_core::state::PowerState;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::guests::{self, find, is_up, move_between, start, stop};
use super::{CpuViolation, FakeHypervisor, FakeOptions, State, disks, life, migration, places, serial, stash, volumes};
use crate::{
    AttachedDisk, Capabilities, Diagnostics, DiskAttachment, DiskFormat, DiskRole, ExportRequest, GuestEvent,
    GuestEventKind, GuestInfo, GuestSpec, Hypervisor, HypervisorError, IncomingAddress, InterfaceSpec, LiveMigration,
    MigrationProgress, NodeResources, Operation, Quiesce, RebootKind, RescueSpec, SerialPort, SnapshotRequest,
    SpiceEndpoint, StashInfo, VncEndpoint,
};

#[async_trait]
impl Hypervisor for FakeHypervisor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            driver: "fake".into(),
            hypervisor_type: "fake".into(),
            hypervisor_version: self.options.hypervisor_version,
            architectures: vec!["x86_64".into()],
            needs_images: self.options.needs_images,
            convert_image: self.options.needs_images,
            pause: true,
            suspend: true,
            snapshot: true,
            quiesce: true,
            vnc: true,
            spice: self.options.first_spice_port.is_some(),
            serial: true,
            attach_disk: true,
            attach_interface: true,
            rescue: true,
            rebuild: true,
            set_admin_password: true,
            inject_nmi: true,
            diagnostics: true,
            migrate: true,
            live_migrate: true,
        }
    }

    async fn resources(&self) -> Result<NodeResources, HypervisorError> {
        self.read(Operation::Resources, None, |_| {
            Ok(NodeResources {
                hypervisor_hostname: self.options.hostname.clone(),
                hypervisor_type: "fake".into(),
                hypervisor_version: self.options.hypervisor_version,
                vcpus: self.options.vcpus,
                memory_mb: self.options.memory_mb,
                disk_gb: self.options.disk_gb,
                disk_free_gb: self.options.disk_gb,
                cpu_info: cpu_info(&self.options),
                host_ip: self.options.host_ip.clone(),
                uptime: "up 1 day".into(),
                traits: self.options.traits.iter().cloned().chain(["COMPUTE_NODE".to_owned()]).collect(),
                cells: self.options.all_cells(),
                guests_see_cpu: self.options.guests_see_cpu,
            })
        })
        .await
    }

    async fn cpu_times(&self) -> Result<CpuTimes, HypervisorError> {
        self.arrive(Operation::CpuTimes).await;
        let mut state = self.lock();
        self.apply(&mut state, Operation::CpuTimes, None, None, |_| Ok(((), Vec::new())))?;
        // From one reading to the next a second passes, however long it takes.
        let share = |percent: u8| u64::from(percent.min(100)) * 10_000_000;
        let State { load, spent, .. } = &mut *state;
        let (user, iowait) = (share(load.cpu_percent), share(load.iowait_percent));
        spent.user_ns += user;
        spent.iowait_ns += iowait;
        spent.idle_ns += share(100).saturating_sub(user + iowait);
        Ok(CpuTimes { frequency_mhz: 2_000, load_average_milli: load.load_average_milli, ..*spent })
    }

    async fn list(&self) -> Result<Vec<GuestInfo>, HypervisorError> {
        self.read(Operation::List, None, |guests| {
            let mut all = guests.prepared();
            all.extend(guests.iter().map(|(instance, guest)| (*instance, guest.info(*instance))));
            Ok(all.into_values().collect())
        })
        .await
    }

    async fn info(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError> {
        self.read(Operation::Info, Some(id), |guests| {
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            guest.map(|guest| guest.info(id)).ok_or(HypervisorError::NotFound { instance: id })
        })
        .await
    }

    async fn spawn(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        let epoch = Some(guest.epoch);
        self.change(Operation::Spawn, guest.instance, epoch, |guests| {
            let made = guests::spawn(guests, guest)?;
            guests.moved.remove(&guest.instance);
            for (cpu, instances) in guests::shared_cpus(guests, guest) {
                self.options.world.cpu_shared(CpuViolation { host: self.options.hostname.clone(), cpu, instances });
            }
            Ok(made)
        })
        .await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::Destroy, id, None, |guests| {
            guests.incoming.remove(&id);
            let events = guests.remove(&id).map(|mut guest| stop(id, &mut guest));
            Ok(((), events.unwrap_or_default()))
        })
        .await
    }

    async fn power_on(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::PowerOn, id, None, |guests| Ok(((), start(id, find(guests, id)?)))).await
    }

    async fn power_off(&self, id: InstanceId, _graceful: Option<Duration>) -> Result<(), HypervisorError> {
        self.change(Operation::PowerOff, id, None, |guests| Ok(((), stop(id, find(guests, id)?)))).await
    }

    async fn reboot(&self, id: InstanceId, _kind: RebootKind) -> Result<(), HypervisorError> {
        self.change(Operation::Reboot, id, None, |guests| {
            let guest = find(guests, id)?;
            let mut events = stop(id, guest);
            events.extend(start(id, guest));
            Ok(((), events))
        })
        .await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Running], PowerState::Paused);
        self.change(Operation::Pause, id, None, |guests| {
            move_between(guests, id, Operation::Pause, &from, to, GuestEventKind::Paused)
        })
        .await
    }

    async fn unpause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Paused], PowerState::Running);
        self.change(Operation::Unpause, id, None, |guests| {
            move_between(guests, id, Operation::Unpause, &from, to, GuestEventKind::Resumed)
        })
        .await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Running, PowerState::Paused], PowerState::Suspended);
        self.change(Operation::Suspend, id, None, |guests| {
            move_between(guests, id, Operation::Suspend, &from, to, GuestEventKind::Suspended)
        })
        .await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Suspended], PowerState::Running);
        self.change(Operation::Resume, id, None, |guests| {
            move_between(guests, id, Operation::Resume, &from, to, GuestEventKind::Started)
        })
        .await
    }

    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError> {
        self.read(Operation::ConsoleLog, Some(id), |guests| {
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            guest.map(guests::console).ok_or(HypervisorError::NotFound { instance: id })
        })
        .await
    }

    async fn vnc_endpoint(&self, id: InstanceId) -> Result<VncEndpoint, HypervisorError> {
        let port = self.screen_port(Operation::VncEndpoint, id, self.options.first_vnc_port).await?;
        Ok(VncEndpoint { host: self.options.host_ip.clone(), port })
    }

    async fn spice_endpoint(&self, id: InstanceId) -> Result<SpiceEndpoint, HypervisorError> {
        const OPERATION: Operation = Operation::SpiceEndpoint;
        let first = self.options.first_spice_port.ok_or(HypervisorError::Unsupported { operation: OPERATION })?;
        let port = self.screen_port(OPERATION, id, first).await?;
        Ok(SpiceEndpoint { host: self.options.host_ip.clone(), port: Some(port), tls_port: None })
    }

    async fn open_serial(&self, id: InstanceId) -> Result<SerialPort, HypervisorError> {
        const OPERATION: Operation = Operation::OpenSerial;
        // Before the state is looked at: a stop in between is heard.
        let events = self.events();
        let name = self
            .read(OPERATION, Some(id), |guests| {
                let guest = guests.get(&id).ok_or(HypervisorError::NotFound { instance: id })?;
                let spec = guest.spec.as_ref().ok_or(HypervisorError::NotFound { instance: id })?;
                match is_up(guest.power_state) {
                    true => Ok(spec.name.clone()),
                    false => Err(HypervisorError::InvalidState {
                        instance: id,
                        operation: OPERATION,
                        state: guest.power_state,
                    }),
                }
            })
            .await?;
        Ok(serial::open(id, &name, events))
    }

    async fn devices(&self, id: InstanceId) -> Result<Vec<DevicePlace>, HypervisorError> {
        self.read(Operation::Devices, Some(id), |table| table.there(id).map(places::places)).await
    }

    async fn interfaces(&self, id: InstanceId) -> Result<Vec<String>, HypervisorError> {
        self.read(Operation::Interfaces, Some(id), |guests| {
            let spec = guests.get(&id).and_then(|guest| guest.spec.as_ref());
            let spec = spec.ok_or(HypervisorError::NotFound { instance: id })?;
            Ok(spec.interfaces.iter().map(|nic| nic.mac_address.to_ascii_lowercase()).collect())
        })
        .await
    }

    async fn attach_interface(&self, id: InstanceId, interface: &InterfaceSpec) -> Result<(), HypervisorError> {
        interface.validate()?;
        self.plug(Operation::AttachInterface, id, |guests| guests::attach_interface(guests, id, interface)).await
    }

    async fn detach_interface(&self, id: InstanceId, mac_address: &str) -> Result<(), HypervisorError> {
        self.plug(Operation::DetachInterface, id, |guests| guests::detach_interface(guests, id, mac_address)).await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DiskAttachment) -> Result<String, HypervisorError> {
        disk.validate()?;
        self.plug(Operation::AttachDisk, id, |guests| volumes::attach(guests, id, disk)).await?;
        let found = self.lock().table.there(id).map(volumes::attached)?;
        let device = found.into_iter().find(|found| found.volume == disk.volume()).map(|found| found.device);
        device.ok_or(HypervisorError::NotFound { instance: id })
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError> {
        self.plug(Operation::DetachDisk, id, |guests| volumes::detach(guests, id, volume)).await
    }

    async fn attached_disks(&self, id: InstanceId) -> Result<Vec<AttachedDisk>, HypervisorError> {
        self.read(Operation::AttachedDisks, Some(id), |table| table.there(id).map(volumes::attached)).await
    }

    async fn extend_disk(&self, id: InstanceId, volume: VolumeId, bytes: u64) -> Result<(), HypervisorError> {
        self.change(Operation::ExtendDisk, id, None, |guests| volumes::extend(guests, id, volume, bytes)).await
    }

    async fn swap_disk(&self, id: InstanceId, volume: VolumeId, new: &DiskAttachment) -> Result<(), HypervisorError> {
        new.validate()?;
        self.copy_over(id, volume, new).await
    }

    async fn abort_swap(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.arrive(Operation::AbortSwap).await;
        let mut state = self.lock();
        self.apply(&mut state, Operation::AbortSwap, Some(id), None, |_| Ok(((), Vec::new())))?;
        if let Some(aborted) = state.copying.get(&id) {
            aborted.notify_waiters();
        }
        Ok(())
    }

    async fn settle_swap(&self, id: InstanceId, _old: VolumeId, new: VolumeId) -> Result<bool, HypervisorError> {
        let attached =
            self.read(Operation::SettleSwap, Some(id), |table| table.there(id).map(volumes::attached)).await?;
        Ok(attached.iter().any(|disk| disk.volume == new))
    }

    async fn snapshot(&self, id: InstanceId, request: &SnapshotRequest) -> Result<(), HypervisorError> {
        let export = ExportRequest {
            role: DiskRole::Root,
            index: 0,
            destination: request.destination.clone(),
            format: request.format,
        };
        self.change(Operation::Snapshot, id, None, |guests| {
            let guest = find(guests, id)?;
            life::quiesce(guest, request.quiesce)?;
            let exported = disks::export(&guest.disks, &export);
            life::unquiesce(guest);
            exported.map(|()| ((), Vec::new()))
        })
        .await
    }

    async fn quiesce(&self, id: InstanceId, quiesce: Quiesce) -> Result<(), HypervisorError> {
        self.change(Operation::Quiesce, id, None, |guests| {
            life::quiesce(find(guests, id)?, quiesce).map(|()| ((), Vec::new()))
        })
        .await
    }

    async fn unquiesce(&self, id: InstanceId) -> Result<bool, HypervisorError> {
        let mut stood = false;
        let thawed = self.change(Operation::Unquiesce, id, None, |guests| {
            stood = guests.get_mut(&id).is_some_and(life::unquiesce);
            Ok(((), Vec::new()))
        });
        thawed.await?;
        Ok(stood)
    }

    async fn rescue(&self, id: InstanceId, rescue: &RescueSpec) -> Result<(), HypervisorError> {
        self.change(Operation::Rescue, id, None, |guests| life::rescue(find(guests, id)?, id, rescue)).await
    }

    async fn unrescue(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::Unrescue, id, None, |guests| life::unrescue(find(guests, id)?, id)).await
    }

    async fn rebuild(&self, guest: &GuestSpec, preserve_ephemeral: bool) -> Result<(), HypervisorError> {
        self.change(Operation::Rebuild, guest.instance, Some(guest.epoch), |guests| {
            life::rebuild(find(guests, guest.instance)?, guest, preserve_ephemeral)
        })
        .await
    }

    async fn set_admin_password(
        &self,
        id: InstanceId,
        user: Option<&str>,
        password: &str,
    ) -> Result<(), HypervisorError> {
        self.change(Operation::SetAdminPassword, id, None, |guests| {
            life::set_password(find(guests, id)?, id, user, password)
        })
        .await
    }

    async fn inject_nmi(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::InjectNmi, id, None, |guests| life::inject_nmi(find(guests, id)?, id)).await
    }

    async fn diagnostics(&self, id: InstanceId) -> Result<Diagnostics, HypervisorError> {
        self.arrive(Operation::Diagnostics).await;
        let mut state = self.lock();
        let uptime = state.started.get(&id).map(Instant::elapsed).unwrap_or_default();
        self.apply(&mut state, Operation::Diagnostics, Some(id), None, |guests| {
            Ok((life::diagnostics(guests.there(id)?, uptime), Vec::new()))
        })
    }

    async fn export_disk(&self, id: InstanceId, request: &ExportRequest) -> Result<(), HypervisorError> {
        self.read(Operation::ExportDisk, Some(id), |guests| stash::export(guests, id, request)).await
    }

    async fn stash(&self, id: InstanceId, epoch: u64) -> Result<(), HypervisorError> {
        self.change(Operation::Stash, id, Some(epoch), |guests| stash::stash(guests, id, epoch)).await
    }

    async fn unstash(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        self.change(Operation::Unstash, guest.instance, Some(guest.epoch), |guests| stash::unstash(guests, guest)).await
    }

    async fn drop_stash(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::DropStash, id, None, |guests| {
            guests.stashes.remove(&id);
            Ok(((), Vec::new()))
        })
        .await
    }

    async fn list_stashes(&self) -> Result<Vec<StashInfo>, HypervisorError> {
        self.read(Operation::ListStashes, None, |guests| {
            let info =
                |(instance, stash): (&InstanceId, &stash::Stash)| StashInfo { instance: *instance, epoch: stash.epoch };
            Ok(guests.stashes.iter().map(info).collect())
        })
        .await
    }

    async fn prepare_incoming(&self, guest: &GuestSpec) -> Result<IncomingAddress, HypervisorError> {
        let epoch = Some(guest.epoch);
        self.change(Operation::PrepareIncoming, guest.instance, epoch, |guests| migration::prepare(guests, guest))
            .await?;
        Ok(migration::address(&self.options))
    }

    async fn live_migrate(&self, id: InstanceId, migration: &LiveMigration) -> Result<(), HypervisorError> {
        self.migrate_away(id, migration).await
    }

    async fn migration_progress(&self, id: InstanceId) -> Result<Option<MigrationProgress>, HypervisorError> {
        self.arrive(Operation::MigrationProgress).await;
        let mut state = self.lock();
        let moving = state.moving.get(&id).cloned();
        self.apply(&mut state, Operation::MigrationProgress, Some(id), None, |guests| {
            Ok((moving.map(|moving| moving.progress(guests.get(&id))), Vec::new()))
        })
    }

    async fn abort_migration(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.arrive(Operation::AbortMigration).await;
        let mut state = self.lock();
        self.apply(&mut state, Operation::AbortMigration, Some(id), None, |_| Ok(((), Vec::new())))?;
        self.decide(&mut state, id, migration::Decision::Abort);
        Ok(())
    }

    async fn force_migration(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.arrive(Operation::ForceMigration).await;
        let mut state = self.lock();
        let moves = state.moving.contains_key(&id);
        self.apply(&mut state, Operation::ForceMigration, Some(id), None, |guests| {
            let state = guests.there(id)?.power_state;
            if moves { Ok(((), Vec::new())) } else { Err(life::wrong_state(id, Operation::ForceMigration, state)) }
        })?;
        self.decide(&mut state, id, migration::Decision::Force);
        Ok(())
    }

    async fn adopt_incoming(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        self.change(Operation::AdoptIncoming, guest.instance, Some(guest.epoch), |guests| {
            migration::adopt(find(guests, guest.instance)?, guest)
        })
        .await
    }

    async fn convert_image(
        &self,
        from: &Path,
        format: DiskFormat,
        to: &Path,
        bytes: u64,
    ) -> Result<(), HypervisorError> {
        self.read(Operation::ConvertImage, None, |_| disks::convert(from, format, to, bytes)).await
    }

    async fn images_in_use(&self) -> Result<BTreeSet<PathBuf>, HypervisorError> {
        self.read(Operation::ImagesInUse, None, |table| Ok(table.images())).await
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.host.events.subscribe()
    }

    async fn ping(&self) -> Result<(), HypervisorError> {
        self.read(Operation::Ping, None, |_| Ok(())).await
    }
}

fn cpu_info(options: &FakeOptions) -> serde_json::Value {
    serde_json::json!({
        "arch": "x86_64",
        "model": "fake",
        "vendor": "fake",
        "features": options.cpu_features,
        "topology": { "sockets": 1, "cores": options.vcpus, "threads": 1 },
    })
}
