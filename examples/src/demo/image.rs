//! The guest's image.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

use super::Screen;
use crate::client::Client;

/// Its name.
const NAME: &str = "nova-guest";
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// The image's id: of the one that is there, or of one that is uploaded now.
pub(super) fn ensure(admin: &Client, file: Option<&Path>, screen: &mut Screen) -> anyhow::Result<String> {
    let doing = || format!("looking for the image '{NAME}'");
    let found = admin.image("GET", &format!("/images?name={NAME}"), None).and_then(|a| a.accepted());
    for image in found.and_then(|a| a.list("images")).with_context(doing)? {
        let Some(id) = image["id"].as_str() else { continue };
        if image["status"] == "active" {
            screen.step(&format!("image {NAME} is there"))?;
            return Ok(id.to_owned());
        }
        // What an upload that broke off left.
        admin.image("DELETE", &format!("/images/{id}"), None).with_context(doing)?;
    }
    match file {
        Some(path) => {
            let unreadable = || format!("reading the image {}", path.display());
            let mut file = File::open(path).with_context(unreadable)?;
            let length = file.metadata().with_context(unreadable)?.len();
            let mut magic = [0; 4];
            let is_qcow2 = file.read_exact(&mut magic).is_ok() && magic == QCOW2_MAGIC;
            file.rewind().with_context(unreadable)?;
            upload(admin, &mut file, length, if is_qcow2 { "qcow2" } else { "raw" }, screen)
        }
        None => {
            let empty = empty_qcow2();
            upload(admin, &mut Cursor::new(&empty), empty.len() as u64, "qcow2", screen)
        }
    }
}

fn upload(
    admin: &Client,
    data: &mut dyn Read,
    length: u64,
    format: &str,
    screen: &mut Screen,
) -> anyhow::Result<String> {
    let doing = || format!("uploading the image '{NAME}'");
    let body = json!({"name": NAME, "disk_format": format, "container_format": "bare", "visibility": "public"});
    let made = admin.image("POST", "/images", Some(&body)).and_then(|a| a.accepted()).with_context(doing)?;
    let id = made.text("/id").with_context(doing)?;
    admin.upload(&id, data, length).with_context(doing)?;
    let now = admin.image("GET", &format!("/images/{id}"), None).and_then(|a| a.accepted()).with_context(doing)?;
    match now.text("/status").with_context(doing)?.as_str() {
        "active" => screen.step(&format!("image {NAME} uploaded ({})", size(length)))?,
        status => bail!("the image '{NAME}' is '{status}' after its upload"),
    }
    Ok(id)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// An empty disk of 1 MiB as qcow2, version 2, in clusters of 512 bytes (QEMU's `docs/interop/qcow2.rst`): header,
/// refcount table, refcount block, L1 table.
fn empty_qcow2() -> Vec<u8> {
    const CLUSTER_BITS: u32 = 9;
    const CLUSTER: u64 = 1 << CLUSTER_BITS;
    const DISK: u64 = 1 << 20;
    // An L1 entry stands for a table of CLUSTER / 8 clusters.
    const L1_ENTRIES: u32 = (DISK / (CLUSTER * CLUSTER / 8)) as u32;
    let mut file = Vec::new();
    file.extend(QCOW2_MAGIC);
    file.extend(2_u32.to_be_bytes());
    file.extend([0; 12]); // no backing file
    file.extend(CLUSTER_BITS.to_be_bytes());
    file.extend(DISK.to_be_bytes());
    file.extend(0_u32.to_be_bytes()); // not encrypted
    file.extend(L1_ENTRIES.to_be_bytes());
    file.extend((3 * CLUSTER).to_be_bytes());
    file.extend(CLUSTER.to_be_bytes());
    file.extend(1_u32.to_be_bytes()); // clusters of the refcount table
    file.resize(CLUSTER as usize, 0); // no snapshots
    file.extend((2 * CLUSTER).to_be_bytes());
    file.resize(2 * CLUSTER as usize, 0);
    file.extend([1_u16; 4].iter().flat_map(|count| count.to_be_bytes()));
    file.resize(4 * CLUSTER as usize, 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_fitting_units() {
        assert_eq!(
            (size(2048), size(65_536), size(16_777_216)),
            ("2048 bytes".into(), "65.5 kB".into(), "16.8 MB".into())
        );
    }

    #[test]
    fn the_tiny_image_is_a_whole_qcow2() {
        let file = empty_qcow2();
        let u64_at = |at: usize| u64::from_be_bytes(file[at..at + 8].try_into().unwrap());
        assert_eq!((&file[..4], file.len()), (QCOW2_MAGIC.as_slice(), 2048));
        assert_eq!((u64_at(24), u64_at(40), u64_at(48)), (1 << 20, 1536, 512), "disk, L1 table, refcount table");
        assert_eq!(u64_at(512), 1024, "refcount block");
    }
}
