//! What a server needs besides an image: a flavor and a key pair.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::Screen;
use crate::client::Client;

const FLAVOR: &str = "m1.guest";
/// The key pair's name.
pub(super) const KEY: &str = "demo";

/// The flavor's id: of the one that is there, or of one that is made now.
pub(super) fn flavor(admin: &Client, screen: &mut Screen) -> anyhow::Result<String> {
    let doing = || format!("making the flavor '{FLAVOR}'");
    let all = admin.get("/flavors?is_public=None").and_then(|a| a.list("flavors")).with_context(doing)?;
    if let Some(id) = all.iter().find(|f| f["name"] == FLAVOR).and_then(|f| f["id"].as_str()) {
        screen.step(&format!("flavor {FLAVOR} is there"))?;
        return Ok(id.to_owned());
    }
    let body = json!({"flavor": {"name": FLAVOR, "vcpus": 1, "ram": 192, "disk": 1}});
    let id = admin.post("/flavors", &body).and_then(|a| a.text("/flavor/id")).with_context(doing)?;
    screen.step(&format!("flavor {FLAVOR} made (1 CPU, 192 MiB, 1 GiB)"))?;
    Ok(id)
}

/// Makes the key pair if it is missing, and keeps its private half in the state folder.
pub(super) fn key_pair(demo: &Client, state: &Path, screen: &mut Screen) -> anyhow::Result<()> {
    let doing = || format!("making the key pair '{KEY}'");
    let there = demo.compute("GET", &format!("/os-keypairs/{KEY}"), None).with_context(doing)?;
    if there.status != 404 {
        there.accepted().with_context(doing)?;
        screen.step(&format!("key pair {KEY} is there"))?;
        return Ok(());
    }
    // Up to 2.91 the service makes the keys when no public key is sent.
    let oldest = demo.at(None);
    let made = oldest.post("/os-keypairs", &json!({"keypair": {"name": KEY}})).with_context(doing)?;
    let private = made.text("/keypair/private_key").with_context(doing)?;
    let path = state.join("demo-key.pem");
    if let Err(error) = write_private(&path, &private) {
        // Without its private half it is of no use to anybody.
        let _ = oldest.compute("DELETE", &format!("/os-keypairs/{KEY}"), None);
        return Err(error).with_context(|| format!("writing {}", path.display()));
    }
    screen.step(&format!("key pair {KEY} made, its private key is {}", path.display()))?;
    Ok(())
}

/// Replaces a file by one that only its owner may read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_key_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "old").unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
