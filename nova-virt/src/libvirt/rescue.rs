//! Rescue (nova/virt/libvirt/driver.py, `rescue`, `unrescue`): the guest runs from another root disk, with its own beside it.
//!
//! What the guest was is kept in a file beside its disks, so that it comes back after a restart of everything. As long as
//! the file is there, the guest is in rescue.

use std::io::ErrorKind;
use std::path::Path;

use nova_core::ids::InstanceId;
use tokio::fs;

use super::domains::{self, Guest};
use super::errors;
use super::folder::{self, Made, beside, exists, finish, remove_file};
use super::operations::Inner;
use super::xml_tree::{self, Child, Element};
use crate::{BoxError, DiskRole, DiskSource, DiskSpec, HypervisorError, RescueSpec};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "rescuing the guest";
/// Nova's name for it.
const ORIGINAL: &str = "unrescue.xml";
const DISK: &str = "disk.rescue";
const CONFIG_DRIVE: &str = "disk.config.rescue";

impl Inner {
    pub(super) async fn rescue(&self, instance: InstanceId, rescue: RescueSpec) -> Result<()> {
        if !matches!(rescue.image, DiskSource::Image { .. }) {
            return Err(HypervisorError::invalid("rescue.image", "must be an image"));
        }
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        let defined = self.with(instance, Guest::definition).await?;
        let original = match original(&folder).await? {
            Some(original) => original,
            None => defined,
        };
        // The disk of an earlier rescue can't be replaced while it is in use.
        if exists(&folder.join(DISK)).await? {
            self.with(instance, Guest::stop).await?;
            remove_file(&folder.join(DISK)).await?;
        }
        let mut made = Made::default();
        match self.begin_rescue(instance, &folder, &original, &rescue, &mut made).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = original.write().map_err(broken)?;
                let back = self.call(move |conn| domains::define(conn, &text)).await;
                match back {
                    Ok(()) => {
                        made.undo().await;
                        remove_rescue(&folder).await?;
                    }
                    Err(undo) => tracing::warn!(%instance, error = %undo, "can't undo a failed rescue"),
                }
                self.known.forget(instance);
                Err(error)
            }
        }
    }

    async fn begin_rescue(
        &self,
        instance: InstanceId,
        folder: &Path,
        original: &Element,
        rescue: &RescueSpec,
        made: &mut Made,
    ) -> Result<()> {
        let path = folder.join(DISK);
        let disk = DiskSpec { role: DiskRole::Root, source: rescue.image.clone(), size_gb: 0 };
        let record = folder::disks::make(&self.options, 0, &disk, &path, made).await.map_err(name_field)?;
        let format = record.format;
        let mut records = folder::record::read(folder).await?;
        folder::add_record(folder, &mut records, DISK.to_owned(), record).await?;
        let drive = match &rescue.config_drive {
            Some(drive) => {
                let path = folder.join(CONFIG_DRIVE);
                folder::make_config_drive(&self.options, drive, &path, made).await?;
                Some(path)
            }
            None => None,
        };
        let rescued = rescued(original, &path, format.as_str(), rescue.stable, drive.as_deref()).map_err(broken)?;
        let rescued = rescued.write().map_err(broken)?;
        keep_original(folder, original).await?;
        self.with(instance, Guest::stop).await?;
        self.call(move |conn| domains::define(conn, &rescued)).await?;
        self.known.forget(instance);
        self.put_places_onto(instance, rescue.config_drive.as_ref(), CONFIG_DRIVE).await?;
        self.start(instance).await
    }

    pub(super) async fn unrescue(&self, instance: InstanceId) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        // It must be ours, whatever is in its folder.
        self.with(instance, |_| Ok(())).await?;
        if let Some(original) = original(&folder).await? {
            let original = original.write().map_err(broken)?;
            self.with(instance, Guest::stop).await?;
            self.call(move |conn| domains::define(conn, &original)).await?;
            self.known.forget(instance);
            remove_rescue(&folder).await?;
        }
        self.start(instance).await
    }
}

fn broken(source: BoxError) -> HypervisorError {
    HypervisorError::Failed { during: DURING, source }
}

/// The rescue image is no disk of the order.
fn name_field(error: HypervisorError) -> HypervisorError {
    match error {
        HypervisorError::InvalidInput { problem, .. } => HypervisorError::invalid("rescue.image", problem),
        other => other,
    }
}

async fn keep_original(folder: &Path, original: &Element) -> Result<()> {
    let path = folder.join(ORIGINAL);
    let new = beside(&path, ".new");
    let text = original.write().map_err(broken)?;
    fs::write(&new, text).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &path).await.map_err(|error| errors::file(DURING, error))
}

async fn original(folder: &Path) -> Result<Option<Element>> {
    match fs::read_to_string(folder.join(ORIGINAL)).await {
        Ok(text) => xml_tree::parse(&text).map(Some).map_err(broken),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(errors::file(DURING, error)),
    }
}

/// The guest is no longer in rescue.
pub(super) async fn forget_original(folder: &Path) -> Result<()> {
    remove_file(&folder.join(ORIGINAL)).await
}

/// Removes all that was made for a rescue; the file that says so goes first.
pub(super) async fn remove_rescue(folder: &Path) -> Result<()> {
    for name in [ORIGINAL, DISK, CONFIG_DRIVE] {
        remove_file(&folder.join(name)).await?;
    }
    // Its image is needed no more.
    let mut records = folder::record::read(folder).await?;
    match records.remove(DISK) {
        Some(_) => folder::record::write(folder, &records).await,
        None => Ok(()),
    }
}

/// The definition of a rescued guest, from that of the guest.
fn rescued(
    original: &Element,
    path: &Path,
    format: &str,
    stable: bool,
    drive: Option<&Path>,
) -> std::result::Result<Element, BoxError> {
    let mut domain = original.clone();
    if let Some(os) = domain.child_mut("os") {
        // Each device tells its place in the order instead.
        os.take("boot");
    }
    let devices = domain.child_mut("devices").ok_or("the definition has no devices")?;
    let places: Vec<usize> = (0..devices.children.len()).filter(|place| is_disk(&devices.children[*place])).collect();
    let disks = || places.iter().filter_map(|place| element(&devices.children[*place]));
    let targets: Vec<String> =
        disks().filter_map(|disk| Some(disk.child("target")?.attribute("dev")?.into())).collect();
    let bus = disks().next().and_then(|disk| disk.child("target")?.attribute("bus")).unwrap_or("virtio").to_owned();
    let prefix = targets.first().map_or("vd", |target| &target[..2.min(target.len())]).to_owned();
    let free = (b'a'..=b'z')
        .map(|letter| format!("{prefix}{}", char::from(letter)))
        .find(|name| name != "hda" && !targets.contains(name))
        .ok_or("there is no device name left for the rescue disk")?;
    let source = path.to_str().ok_or("the rescue disk's path is no text")?;
    let disk = |target: &str| {
        Element::new("disk", &[("type", "file"), ("device", "disk")])
            .with(Element::new("driver", &[("name", "qemu"), ("type", format), ("discard", "unmap")]))
            .with(Element::new("source", &[("file", source)]))
            .with(Element::new("target", &[("dev", target), ("bus", &bus)]))
            .with(Element::new("boot", &[("order", "1")]))
    };
    if stable || targets.is_empty() {
        // The guest's own disks keep their names.
        let at = places.last().map_or(0, |last| last + 1);
        devices.children.insert(at, Child::Element(disk(&free)));
    } else {
        // The guest numbers its disks by their slots: each takes the name and the slot of the next.
        let slots: Vec<Option<Element>> = disks().map(|disk| disk.child("address").cloned()).collect();
        let names = targets.iter().skip(1).chain([&free]);
        for ((number, place), name) in places.iter().enumerate().zip(names) {
            let Some(Child::Element(own)) = devices.children.get_mut(*place) else { continue };
            own.take("address");
            own.children.extend(slots.get(number + 1).cloned().flatten().map(Child::Element));
            if let Some(target) = own.child_mut("target") {
                target.set("dev", name);
            }
        }
        let mut rescue = disk(&targets[0]);
        rescue.children.extend(slots.first().cloned().flatten().map(Child::Element));
        devices.children.insert(places.first().copied().unwrap_or(0), Child::Element(rescue));
    }
    if let Some(drive) = drive {
        put_drive(devices, drive)?;
    }
    Ok(domain)
}

fn element(child: &Child) -> Option<&Element> {
    match child {
        Child::Element(element) => Some(element),
        Child::Text(_) => None,
    }
}

fn is_disk(child: &Child) -> bool {
    element(child).is_some_and(|disk| disk.name == "disk" && disk.attribute("device") == Some("disk"))
}

/// The rescued guest's own config drive, in the place of the guest's, or in the drive that it has not had.
fn put_drive(devices: &mut Element, drive: &Path) -> std::result::Result<(), BoxError> {
    let path = drive.to_str().ok_or("the config drive's path is no text")?;
    let known = devices.elements_mut().find(|disk| disk.name == "disk" && disk.attribute("device") == Some("cdrom"));
    match known.and_then(|disk| disk.child_mut("source")) {
        Some(source) => source.set("file", path),
        None => {
            let ide = !devices
                .elements()
                .any(|device| device.name == "controller" && device.attribute("type") == Some("sata"));
            let (name, bus) = if ide { ("hda", "ide") } else { ("sda", "sata") };
            let cdrom = Element::new("disk", &[("type", "file"), ("device", "cdrom")])
                .with(Element::new("driver", &[("name", "qemu"), ("type", "raw")]))
                .with(Element::new("source", &[("file", path)]))
                .with(Element::new("target", &[("dev", name), ("bus", bus)]))
                .with(Element::new("readonly", &[]));
            devices.children.insert(0, Child::Element(cdrom));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "<domain><os><type>hvm</type><boot dev='hd'/></os><devices>\
        <disk type='file' device='disk'><source file='/i/disk'/><target dev='vda' bus='virtio'/><address slot='4'/></disk>\
        <disk type='file' device='disk'><source file='/i/disk.eph0'/><target dev='vdb' bus='virtio'/><address slot='5'/></disk>\
        <disk type='file' device='cdrom'><source file='/i/disk.config'/><target dev='hda' bus='ide'/></disk>\
        </devices></domain>";

    fn disks(stable: bool, drive: Option<&str>) -> Vec<[String; 3]> {
        let original = xml_tree::parse(GUEST).unwrap();
        let path = Path::new("/i/disk.rescue");
        let domain = rescued(&original, path, "qcow2", stable, drive.map(Path::new)).unwrap();
        assert!(domain.child("os").unwrap().child("boot").is_none(), "one order, not two");
        let disks = domain.child("devices").unwrap().elements().map(|disk| {
            let of = |name: &str, attribute: &str| {
                disk.child(name).and_then(|element| element.attribute(attribute)).unwrap_or("-").to_owned()
            };
            [of("source", "file"), of("target", "dev"), of("address", "slot")]
        });
        disks.collect()
    }

    fn rows(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
        rows.iter().map(|row| row.map(str::to_owned)).collect()
    }

    #[test]
    fn the_rescue_disk_takes_the_root_disks_place() {
        let expected = [
            ["/i/disk.rescue", "vda", "4"],
            ["/i/disk", "vdb", "5"],
            ["/i/disk.eph0", "vdc", "-"],
            ["/i/disk.config", "hda", "-"],
        ];
        assert_eq!(disks(false, None), rows(&expected));
    }

    #[test]
    fn a_stable_rescue_leaves_the_guests_disks_where_they_are() {
        let expected = [
            ["/i/disk", "vda", "4"],
            ["/i/disk.eph0", "vdb", "5"],
            ["/i/disk.rescue", "vdc", "-"],
            ["/i/disk.config.rescue", "hda", "-"],
        ];
        assert_eq!(disks(true, Some("/i/disk.config.rescue")), rows(&expected));
    }
}
