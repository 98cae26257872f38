//! Live migration: one libvirt speaks to the other, and QEMU sends memory and disks (nova/virt/libvirt/driver.py,
//! `_live_migration`; nova/virt/libvirt/guest.py, `migrate`; nova/virt/libvirt/migration.py for the definition there).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use serde::{Deserialize, Serialize};
use tokio::fs;
use virt::connect::Connect;
use virt::domain::MigrateParameters;
use virt::sys;

use super::domains::{self, Guest};
use super::folder::record::DiskRecord;
use super::folder::{self, Made, beside, exists, finish, remove_file};
use super::operations::Inner;
use super::qemu_img::{self, Image};
use super::xml_tree::{Child, Element};
use super::{domain_xml, errors, ffi, volumes, xml_tree};
use crate::{
    AttachedDisk, BoxError, DiskAttachment, DiskFormat, DiskSource, GuestSpec, HypervisorError, IncomingAddress,
    LiveMigration, MigrationProgress, Operation,
};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "migrating the guest";
/// Says in a folder that it waits for a guest, and of which order.
const INCOMING: &str = "incoming.json";
/// Says in a folder where its guest was sent.
const SENT: &str = "sent.json";

/// What disks are on the other host, whatever they are here.
const SENT_AS: DiskFormat = DiskFormat::Qcow2;

/// Guests that are on their way from here.
#[derive(Debug, Default)]
pub(super) struct Migrating(Mutex<BTreeMap<InstanceId, Haste>>);

/// How a guest that is on its way arrives soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Halted.
    Halt,
    /// Running, before its memory has.
    PostCopy,
}

impl Migrating {
    fn has(&self, instance: InstanceId) -> bool {
        self.haste(instance).is_some()
    }

    fn haste(&self, instance: InstanceId) -> Option<Haste> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&instance).copied()
    }

    fn set(&self, instance: InstanceId, on_its_way: Option<Haste>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match on_its_way {
            Some(haste) => all.insert(instance, haste),
            None => all.remove(&instance),
        };
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Incoming {
    epoch: u64,
}

/// The order that a folder waits for a guest of; 0 if for none.
pub(super) async fn prepared_epoch(folder: &Path) -> u64 {
    let bytes = fs::read(folder.join(INCOMING)).await.unwrap_or_default();
    serde_json::from_slice::<Incoming>(&bytes).map_or(0, |incoming| incoming.epoch)
}

/// What the source must know of the destination, beside its address: it is behind the `#` of the URI.
#[derive(Debug, Clone, PartialEq, Eq)]
struct There {
    instances_path: PathBuf,
    vnc_listen: String,
    /// Where screens over SPICE listen there, if that host gives guests some.
    spice_listen: Option<String>,
}

impl There {
    fn read(fragment: &str) -> Option<Self> {
        let (listen, path) = fragment.split_once(',')?;
        let path = PathBuf::from(path);
        let (vnc_listen, spice_listen) = match listen.split_once('|') {
            Some((vnc, spice)) => (vnc.to_owned(), Some(spice.to_owned())),
            None => (listen.to_owned(), None),
        };
        path.is_absolute().then_some(Self { instances_path: path, vnc_listen, spice_listen })
    }

    /// Where a screen of that kind listens there.
    fn listen(&self, kind: Option<&str>) -> &str {
        match (kind, &self.spice_listen) {
            (Some("spice"), Some(listen)) => listen,
            _ => &self.vnc_listen,
        }
    }
}

impl Inner {
    pub(super) async fn prepare_incoming(&self, guest: GuestSpec) -> Result<IncomingAddress> {
        self.shape_of(&guest)?;
        let (instance, asked) = (guest.instance, guest.epoch);
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        let there = self.ours(instance).await?;
        // What another host has in the folder that both see is the guest's own: it stays as it is.
        let shared = folder::owner::another(&self.options, &folder).await?.is_some();
        let current = there.as_ref().map_or(0, |guest| guest.epoch).max(prepared_epoch(&folder).await);
        if current > asked {
            return Err(HypervisorError::Stale { instance, asked, current });
        }
        if shared && there.is_none() {
            // QEMU opens its volumes here before it has the guest.
            self.admit_volumes(&guest.volumes).await?;
        } else if there.is_none() {
            self.forget_sent(instance).await?;
            let mut made = Made::default();
            if let Err(error) = self.make_ready(&guest, &folder, &mut made).await {
                made.undo().await;
                return Err(error);
            }
        }
        Ok(self.address(shared))
    }

    /// What a guest left behind that was sent to another host is as old as its leaving: nothing that is made here of it again
    /// may stand on it. Called where there is no guest.
    pub(super) async fn forget_sent(&self, instance: InstanceId) -> Result<()> {
        if exists(&folder::folder_of(&self.options, instance).join(SENT)).await? {
            folder::remove(&self.options, instance).await?;
        }
        Ok(())
    }

    /// Was a guest sent to another host from here, with its disks?
    pub(super) async fn was_sent(&self, instance: InstanceId) -> Result<bool> {
        exists(&folder::folder_of(&self.options, instance).join(SENT)).await
    }

    /// A guest that is here was not sent, whatever was begun.
    pub(super) async fn was_not_sent(&self, instance: InstanceId) -> Result<()> {
        remove_file(&folder::folder_of(&self.options, instance).join(SENT)).await
    }

    fn address(&self, shared_disks: bool) -> IncomingAddress {
        let options = &self.options;
        let host = match options.live_migration_inbound_addr.as_str() {
            address if address.contains(':') => format!("[{address}]"),
            address => address.to_owned(),
        };
        let (scheme, path) = (&options.live_migration_scheme, options.instances_path.display());
        let spice = options.spice.as_ref().map(|spice| format!("|{}", spice.listen)).unwrap_or_default();
        IncomingAddress {
            volumes: Vec::new(),
            driver: errors::DRIVER.into(),
            uri: format!("qemu+{scheme}://{host}/system#{}{spice},{path}", options.vnc_listen),
            shared_disks,
            host: options.host.clone(),
        }
    }

    /// Empty disks, exactly as large as the source's: QEMU writes all of them.
    async fn make_ready(&self, guest: &GuestSpec, folder: &Path, made: &mut Made) -> Result<()> {
        let bare = GuestSpec { disks: Vec::new(), ..guest.clone() };
        folder::make(&self.options, &bare, true, made).await?;
        // QEMU opens its volumes here before it has the guest.
        self.admit_volumes(&guest.volumes).await?;
        volumes::record::write(folder, &guest.volumes).await?;
        let mut records = folder::record::read(folder).await?;
        for (index, (disk, name)) in guest.disks.iter().zip(folder::disk_names(guest)).enumerate() {
            let image = match &disk.source {
                DiskSource::Image { base, format } => Some(Image::new(base, *format)),
                DiskSource::File { path, format } => Some(Image::new(path, *format)),
                DiskSource::Blank => None,
            };
            let least = match image {
                Some(image) => qemu_img::inspect(&image, &format!("disks[{index}].source")).await?,
                None => 0,
            };
            let (path, bytes) = (folder.join(&name), least.max(disk.size_gb << 30));
            // What an earlier guest left here is opened as what all are sent as; if it is another format, that guest may have
            // written a header of this one onto it, which names a file of the host (OSSA-2016-001).
            let is_one = records.get(&name).is_some_and(|record| record.format == SENT_AS);
            if !is_one || !exists(&path).await? {
                folder::announce(folder, &mut records, name, DiskRecord { format: SENT_AS, base: None }).await?;
                folder::disks::make_blank(&self.options, SENT_AS, bytes, &path, DURING, made).await?;
            }
        }
        write_note(folder, INCOMING, &Incoming { epoch: guest.epoch }).await
    }

    pub(super) async fn live_migrate(&self, instance: InstanceId, how: LiveMigration) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        let Some(guest) = self.ours(instance).await? else {
            let sent: Option<String> =
                serde_json::from_slice(&fs::read(folder.join(SENT)).await.unwrap_or_default()).ok();
            let known = sent.is_some_and(|uri| uri == how.to.uri);
            // In a folder that both see, whoever has the guest has the folder.
            let owner = folder::owner::another(&self.options, &folder).await?;
            let known = known || (how.to.shared_disks && owner.is_some_and(|owner| owner == how.to.host));
            return if known { Ok(()) } else { Err(HypervisorError::NotFound { instance }) };
        };
        if !guest.active || !matches!(guest.power_state, PowerState::Running | PowerState::Paused) {
            return Err(guest.wrong_state(Operation::LiveMigrate));
        }
        let shared = how.to.shared_disks.then(|| how.to.host.clone());
        if shared.is_none() {
            // Before it leaves: after it has left, there may be nobody to write it.
            write_note(&folder, SENT, &how.to.uri).await?;
        }
        let haste = if how.post_copy { Haste::PostCopy } else { Haste::Halt };
        self.migrating.set(instance, Some(haste));
        let sent = self.send(guest, folder.clone(), how).await;
        self.migrating.set(instance, None);
        self.known.forget(instance);
        match (&sent, shared) {
            (Ok(()), Some(host)) => folder::owner::give(&folder, &host).await?,
            (Ok(()), None) => {}
            (Err(_), _) => remove_file(&folder.join(SENT)).await?,
        }
        sent
    }

    async fn send(&self, guest: Guest, folder: PathBuf, how: LiveMigration) -> Result<()> {
        let conn = self
            .connection
            .get(self.options.connect_wait)
            .await
            .map_err(|why| HypervisorError::Unavailable { driver: errors::DRIVER, source: why.to_string().into() })?;
        // On a thread of its own: it takes as long as it takes, and is no sign of a libvirt that hangs.
        let sent = tokio::task::spawn_blocking(move || migrate(&conn, &guest, &folder, &how));
        match sent.await {
            Ok(sent) => sent,
            Err(error) => Err(HypervisorError::Failed { during: DURING, source: error.into() }),
        }
    }

    pub(super) async fn migration_progress(&self, instance: InstanceId) -> Result<Option<MigrationProgress>> {
        if !self.migrating.has(instance) {
            return Ok(None);
        }
        self.with(instance, |guest| {
            let numbers =
                ffi::job_numbers(&guest.domain).map_err(|error| errors::failed("reading how far it is", error))?;
            let number = |name: &str| numbers.get(name).copied().unwrap_or(0);
            Ok(Some(MigrationProgress {
                memory_total: number("memory_total"),
                memory_processed: number("memory_processed"),
                memory_remaining: number("memory_remaining"),
                disk_total: number("disk_total"),
                disk_processed: number("disk_processed"),
                disk_remaining: number("disk_remaining"),
            }))
        })
        .await
    }

    pub(super) async fn abort_migration(&self, instance: InstanceId) -> Result<()> {
        if !self.migrating.has(instance) {
            return Ok(());
        }
        self.with(instance, |guest| match ffi::abort_job(&guest.domain) {
            // It ended by itself meanwhile.
            Err(error) if errors::is_wrong_state(&error) || errors::is_no_domain(&error) => Ok(()),
            aborted => aborted.map_err(|error| errors::failed("aborting the migration", error)),
        })
        .await
    }

    /// A halted guest changes no memory: what is left is sent once, and it goes on there. One that may goes on there at once,
    /// and its memory follows.
    pub(super) async fn force_migration(&self, instance: InstanceId) -> Result<()> {
        let haste = self.migrating.haste(instance);
        self.with(instance, move |guest| match (haste, guest.power_state) {
            (None, _) => Err(guest.wrong_state(Operation::ForceMigration)),
            (Some(_), PowerState::Paused) => Ok(()),
            (Some(Haste::Halt), _) => guest.pause(),
            (Some(Haste::PostCopy), _) => ffi::start_post_copy(&guest.domain)
                .map_err(|error| errors::failed("having the guest go on there", error)),
        })
        .await
    }

    /// Ends whatever is sent of a guest that is not to be here any more.
    pub(super) async fn stop_sending(&self, instance: InstanceId) -> Result<()> {
        match self.abort_migration(instance).await {
            Err(HypervisorError::NotFound { .. }) => Ok(()),
            aborted => aborted,
        }
    }

    pub(super) async fn adopt_incoming(&self, guest: GuestSpec) -> Result<()> {
        self.shape_of(&guest)?;
        let (instance, asked) = (guest.instance, guest.epoch);
        let _lock = self.locks.lock(instance).await;
        let existing = self.ours(instance).await?.ok_or(HypervisorError::NotFound { instance })?;
        if existing.epoch > asked {
            return Err(HypervisorError::Stale { instance, asked, current: existing.epoch });
        }
        let folder = folder::folder_of(&self.options, instance);
        folder::owner::give(&folder, &self.options.host).await?;
        self.redefine(&guest, existing).await?;
        folder::begin_console(&folder, &guest).await?;
        remove_file(&folder.join(INCOMING)).await
    }
}

/// Blocks until the guest is there, or stays.
fn migrate(conn: &Connect, guest: &Guest, folder: &Path, how: &LiveMigration) -> Result<()> {
    let failed = |source: BoxError| HypervisorError::Failed { during: DURING, source };
    if how.to.driver != errors::DRIVER {
        return Err(failed("the other host has another driver".into()));
    }
    if !how.block && !how.to.shared_disks {
        return Err(HypervisorError::invalid("block", "the hosts do not share disks, so they must be sent"));
    }
    let (uri, fragment) =
        how.to.uri.split_once('#').ok_or_else(|| failed("the other host's address is none".into()))?;
    let there = There::read(fragment).ok_or_else(|| failed("the other host's address is none".into()))?;
    // Found anew: the connection may be another one since.
    let guest = domains::guest(conn, guest.instance)?;
    let attached = guest.attached_disks()?;
    let volume_at = |disk: &AttachedDisk| {
        let volume = how.to.volumes.iter().find(|volume| volume.volume() == disk.volume)?;
        Some((disk.device.clone(), volume.clone()))
    };
    let volumes: Vec<(String, DiskAttachment)> = attached.iter().filter_map(volume_at).collect();
    let xml = |flags| {
        let flags = flags | sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE;
        let xml = guest.domain.xml_desc(flags).map_err(|error| errors::failed(DURING, error))?;
        elsewhere(&xml, folder, &there, how.block, &volumes).map_err(failed)
    };
    let live = guest.domain.xml_desc(0).map_err(|error| errors::failed(DURING, error))?;
    let sent_disks = own_disks(&live, folder).map_err(failed)?;
    let send_disks = how.block && !sent_disks.is_empty();
    let downtime = u64::try_from(how.max_downtime.as_millis()).unwrap_or(u64::MAX).max(1);
    if let Err(error) = guest.domain.migrate_set_max_downtime(downtime, 0) {
        tracing::warn!(instance = %guest.instance, %error, "can't bound the pause at the end of a migration");
    }
    let parameters = MigrateParameters {
        bandwidth: how.bandwidth.map(|bytes| bytes.div_ceil(1 << 20)),
        dest_xml: Some(xml(0)?),
        persist_xml: Some(xml(sys::VIR_DOMAIN_XML_INACTIVE)?),
        uri: data_uri(uri),
        // Unless they are named, libvirt sends volumes too.
        migrate_disks: if send_disks { sent_disks } else { Vec::new() },
        ..MigrateParameters::default()
    };
    let mut flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PEER2PEER
        | sys::VIR_MIGRATE_PERSIST_DEST
        | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
    // What is not sent both hosts see: disks in a shared folder, and volumes. Those are as safe as what carries them, which the
    // operator vouches for; libvirt knows too few of them.
    flags |= sys::VIR_MIGRATE_UNSAFE;
    if send_disks {
        flags |= sys::VIR_MIGRATE_NON_SHARED_DISK;
    }
    if how.auto_converge {
        flags |= sys::VIR_MIGRATE_AUTO_CONVERGE;
    }
    if how.post_copy {
        flags |= sys::VIR_MIGRATE_POSTCOPY;
    }
    let sent = guest.domain.migrate_to_uri3(Some(uri), parameters, flags);
    sent.map_err(|error| errors::failed(DURING, error))
}

/// Where QEMU's own data go: the same address as libvirt's.
fn data_uri(uri: &str) -> Option<String> {
    let authority = uri.split_once("://")?.1.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A port is libvirt's.
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => format!("[{address}]"),
        None => host.split(':').next()?.to_owned(),
    };
    Some(format!("tcp://{host}"))
}

/// A volume of the guest is where the other host reaches it. It is known by its place: one that took another's under the running
/// guest has that one's serial number there until the guest is started anew.
fn reach(device: &mut Element, volumes: &[(String, DiskAttachment)]) -> std::result::Result<(), BoxError> {
    let place = device.child("target").and_then(|target| target.attribute("dev")).unwrap_or_default();
    let Some((_, volume)) = volumes.iter().find(|(known, _)| known == place) else {
        return Ok(());
    };
    let (kind, source) = domain_xml::source_alone(volume)?;
    device.take("source");
    device.set("type", kind);
    device.children.push(Child::Element(xml_tree::parse(&source)?));
    Ok(())
}

/// The definition as it is right on the other host: files in its folder, volumes as it reaches them, the screen at its address.
fn elsewhere(
    xml: &str,
    folder: &Path,
    there: &There,
    block: bool,
    volumes: &[(String, DiskAttachment)],
) -> std::result::Result<String, BoxError> {
    let own = folder.to_str().ok_or("the guest's folder is no text")?;
    let name = folder.file_name().ok_or("the guest's folder has no name")?;
    let other = there.instances_path.join(name);
    let other = other.to_str().ok_or("the other host's folder is no text")?;
    let mut domain = xml_tree::parse(xml)?;
    if block {
        let devices = domain.child_mut("devices").into_iter().flat_map(Element::elements_mut);
        devices.filter(|device| is_own(device, own)).for_each(send_as);
    }
    let devices = domain.child_mut("devices").into_iter().flat_map(Element::elements_mut);
    for disk in devices.filter(|device| device.name == "disk") {
        reach(disk, volumes)?;
    }
    let moved = |value: &mut String| {
        if let Some(rest) = value.strip_prefix(own).filter(|rest| rest.starts_with('/')) {
            *value = format!("{other}{rest}");
        }
    };
    for part in ["devices", "os"] {
        if let Some(part) = domain.child_mut(part) {
            part.visit_values(&mut moved.clone());
        }
    }
    let graphics = domain.child_mut("devices").into_iter().flat_map(Element::elements_mut);
    for screen in graphics.filter(|device| device.name == "graphics") {
        let address = there.listen(screen.attribute("type"));
        screen.set("listen", address);
        for listen in screen.elements_mut().filter(|listen| listen.name == "listen") {
            listen.set("address", address);
        }
    }
    domain.write()
}

/// A disk of the guest's own, in its folder. Volumes are where they are, and are not sent.
fn is_own(device: &Element, folder: &str) -> bool {
    let file = device.child("source").and_then(|source| source.attribute("file"));
    let inside = |file: &str| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    device.name == "disk" && device.attribute("device") != Some("cdrom") && file.is_some_and(inside)
}

/// The device names of the disks that must be sent.
fn own_disks(xml: &str, folder: &Path) -> std::result::Result<Vec<String>, BoxError> {
    let folder = folder.to_str().ok_or("the guest's folder is no text")?;
    let domain = xml_tree::parse(xml)?;
    let devices = domain.child("devices").into_iter().flat_map(Element::elements);
    let own = devices.filter(|device| is_own(device, folder));
    Ok(own.filter_map(|device| Some(device.child("target")?.attribute("dev")?.to_owned())).collect())
}

/// A disk that is sent is on the other host what that host made ready.
fn send_as(device: &mut Element) {
    if let Some(driver) = device.child_mut("driver") {
        driver.set("type", SENT_AS.as_str());
    }
}

async fn write_note(folder: &Path, name: &str, note: &impl Serialize) -> Result<()> {
    const DURING: &str = "noting where the guest goes";
    let bytes =
        serde_json::to_vec(note).map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })?;
    if !exists(folder).await? {
        let source = "the guest has no folder".into();
        return Err(HypervisorError::Failed { during: DURING, source });
    }
    let path = folder.join(name);
    let new = beside(&path, ".new");
    fs::write(&new, bytes).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &path).await.map_err(|error| errors::file(DURING, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_right_on_the_other_host() {
        let xml = "<domain><name>/here/1/x</name><os><nvram>/here/1/nvram.fd</nvram></os><devices>\
            <disk type='file'><driver type='raw'/><source file='/here/1/disk'/></disk><disk><source file='/here/12/disk'/></disk>\
            <serial><log file='/here/1/console.log'/></serial>\
            <graphics listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics></devices></domain>";
        let there = There::read("10.0.0.2,/there").unwrap();
        let moved = elsewhere(xml, Path::new("/here/1"), &there, true, &[]).unwrap();
        assert!(moved.contains("<driver type=\"qcow2\"/>"), "{moved}");
        for part in ["/there/1/nvram.fd", "\"/there/1/disk\"", "/there/1/console.log", "\"/here/12/disk\"", "/here/1/x"]
        {
            assert!(moved.contains(part), "{part}: {moved}");
        }
        assert_eq!(moved.matches("10.0.0.2").count(), 2, "{moved}");
    }

    #[test]
    fn each_screen_listens_where_the_other_host_has_it() {
        let xml = "<domain><devices><graphics type='vnc' listen='127.0.0.1'/><graphics type='spice' listen='127.0.0.1'/>\
            </devices></domain>";
        for (fragment, spice) in [("10.0.0.2|10.9.0.2,/there", "10.9.0.2"), ("10.0.0.2,/there", "10.0.0.2")] {
            let there = There::read(fragment).unwrap();
            let moved = elsewhere(xml, Path::new("/here/1"), &there, true, &[]).unwrap();
            assert!(moved.contains("<graphics type=\"vnc\" listen=\"10.0.0.2\"/>"), "{moved}");
            assert!(moved.contains(&format!("<graphics type=\"spice\" listen=\"{spice}\"/>")), "{moved}");
        }
    }

    #[test]
    fn volumes_are_not_sent() {
        let xml = "<domain><devices><disk type='file'><source file='/here/1/disk'/><target dev='vda'/></disk>\
            <disk type='file' device='cdrom'><source file='/here/1/disk.config'/><target dev='hda'/></disk>\
            <disk type='network'><source protocol='nbd' name='e'/><target dev='vdb'/></disk>\
            <disk type='file'><driver type='raw'/><source file='/shared/volume-1'/><target dev='vdc'/></disk></devices></domain>";
        assert_eq!(own_disks(xml, Path::new("/here/1")).unwrap(), ["vda"]);
        let there = There::read("10.0.0.2,/there").unwrap();
        let moved = elsewhere(xml, Path::new("/here/1"), &there, true, &[]).unwrap();
        assert!(moved.contains("<driver type=\"raw\"/>") && moved.contains("/shared/volume-1"), "{moved}");
    }

    #[test]
    fn volumes_are_where_the_other_host_reaches_them() {
        let id: nova_core::ids::VolumeId = "00000000-0000-4000-8000-00000000000a".parse().unwrap();
        let connection = serde_json::json!({"volume_id": id, "access_mode": "rw", "driver_volume_type": "nbd",
            "host": "10.0.0.9", "port": 10812, "export": "there", "tls": {"server_name": "store1"}});
        let volume = DiskAttachment::new(serde_json::from_value(connection).unwrap());
        // The second is that of a volume whose place it took.
        for serial in [id.to_string().as_str(), "00000000-0000-4000-8000-00000000000b"] {
            let xml = format!(
                "<domain><devices><disk type='network'><source protocol='nbd' name='here'><host name='10.0.0.9' port='10811'/>\
             </source><target dev='vdb'/><serial>{serial}</serial></disk><disk type='network'><source protocol='nbd' \
                 name='other'/><target dev='vdc'/></disk></devices></domain>"
            );
            let there = There::read("10.0.0.2,/there").unwrap();
            let volumes = [("vdb".to_owned(), volume.clone())];
            let moved = elsewhere(&xml, Path::new("/here/1"), &there, true, &volumes).unwrap();
            for part in ["name=\"there\"", "10812", "tlsHostname=\"store1\"", "name=\"other\"", serial] {
                assert!(moved.contains(part), "{part}: {moved}");
            }
            assert!(!moved.contains("name=\"here\"") && !moved.contains("10811"), "{moved}");
        }
    }

    #[test]
    fn data_go_where_libvirt_is() {
        let uri = |uri| data_uri(uri).unwrap();
        assert_eq!(uri("qemu+tcp://10.0.0.1/system"), "tcp://10.0.0.1");
        assert_eq!(uri("qemu+ssh://nova@host-b:22/system"), "tcp://host-b");
        assert_eq!(uri("qemu+tls://[fd00::1]:16514/system"), "tcp://[fd00::1]");
        assert_eq!(data_uri("none"), None);
    }

    #[test]
    fn what_is_no_place_is_none() {
        assert_eq!(There::read("127.0.0.1"), None);
        assert_eq!(There::read("127.0.0.1,relative"), None);
    }
}
