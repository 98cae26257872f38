//! Which host a guest's folder is of. Several hosts may see one folder of guests: each then looks after its own, and a guest that
//! moves between them alive leaves its disks where they are (nova/virt/libvirt/driver.py, `check_instance_shared_storage_local`:
//! a file that one host writes and the other one finds).

use std::io::ErrorKind;
use std::path::Path;

use tokio::fs;

use super::{beside, errors, finish};
use crate::HypervisorError;
use crate::libvirt::options::LibvirtOptions;

type Result<T> = std::result::Result<T, HypervisorError>;

/// The file that names it.
const OWNER: &str = "host";

/// The host that the folder is of, if it is another one's than ours. One without a name, or without a folder, is nobody's.
pub(in crate::libvirt) async fn another(options: &LibvirtOptions, folder: &Path) -> Result<Option<String>> {
    match fs::read_to_string(folder.join(OWNER)).await {
        Ok(host) => Ok(Some(host).filter(|host| !host.is_empty() && *host != options.host)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(errors::file("reading whose the guest's folder is", error)),
    }
}

/// From now on it is that host's.
pub(in crate::libvirt) async fn give(folder: &Path, host: &str) -> Result<()> {
    const DURING: &str = "writing whose the guest's folder is";
    let path = folder.join(OWNER);
    if fs::read_to_string(&path).await.is_ok_and(|known| known == host) {
        return Ok(());
    }
    let new = beside(&path, ".new");
    fs::write(&new, host).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &path).await.map_err(|error| errors::file(DURING, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_of_one_host() {
        let temp = tempfile::tempdir().unwrap();
        let of =
            |host: &str| LibvirtOptions { host: host.into(), ..LibvirtOptions::new("qemu:///system", temp.path()) };
        let folder = temp.path().join("guest");
        assert_eq!(another(&of("a"), &folder).await.unwrap(), None, "no folder");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(another(&of("a"), &folder).await.unwrap(), None, "of before hosts wrote their names");
        give(&folder, "a").await.unwrap();
        give(&folder, "a").await.unwrap();
        assert_eq!(another(&of("a"), &folder).await.unwrap(), None);
        assert_eq!(another(&of("b"), &folder).await.unwrap().as_deref(), Some("a"));
        give(&folder, "b").await.unwrap();
        assert_eq!(another(&of("b"), &folder).await.unwrap(), None);
    }
}
