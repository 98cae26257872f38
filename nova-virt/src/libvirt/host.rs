//! What the machine has.

use std::path::Path;

use virt::connect::Connect;

use super::errors;
use super::options::LibvirtOptions;
use super::read_xml;
use crate::{HypervisorError, NodeResources};

pub(super) const HYPERVISOR_TYPE: &str = "QEMU";

/// Reads everything. Blocks.
pub(super) fn resources(conn: &Connect, options: &LibvirtOptions) -> Result<NodeResources, HypervisorError> {
    const DURING: &str = "reading the host's resources";
    let failed = |error| errors::failed(DURING, error);
    let (disk_gb, disk_free_gb) = disk(&options.instances_path)?;
    let capabilities = conn.capabilities().map_err(failed)?;
    let cpu_info =
        read_xml::cpu_info(&capabilities).map_err(|source| HypervisorError::Failed { during: DURING, source })?;
    Ok(NodeResources {
        hypervisor_hostname: conn.hostname().map_err(failed)?,
        hypervisor_type: HYPERVISOR_TYPE.into(),
        hypervisor_version: i64::from(conn.hyp_version().map_err(failed)?),
        vcpus: conn.node_info().map_err(failed)?.cpus,
        memory_mb: memory_mb()?,
        disk_gb,
        disk_free_gb,
        cpu_info,
        host_ip: options.host_ip.clone(),
        uptime: uptime(),
    })
}

/// Total memory in MiB, from the kernel: libvirt's own number is too low where memory is brought online lazily.
fn memory_mb() -> Result<u64, HypervisorError> {
    const DURING: &str = "reading the host's memory";
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| errors::file(DURING, error))?;
    parse_memory_mb(&text)
        .ok_or_else(|| HypervisorError::Failed { during: DURING, source: "/proc/meminfo has no MemTotal".into() })
}

fn parse_memory_mb(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Size and free space, in GiB, of the file system that holds a folder, or will hold it once it is made.
fn disk(folder: &Path) -> Result<(u64, u64), HypervisorError> {
    let present = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statvfs(present).map_err(|error| errors::file("reading the host's disk space", error.into()))?;
    let gib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) >> 30;
    Ok((gib(stat.f_blocks), gib(stat.f_bavail)))
}

/// Like the command of that name; empty when the kernel does not tell.
fn uptime() -> String {
    let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format_uptime(&up, &load).unwrap_or_default()
}

fn format_uptime(up: &str, load: &str) -> Option<String> {
    let seconds: u64 = up.split(['.', ' ']).next()?.parse().ok()?;
    let minutes = seconds / 60;
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    let load: Vec<&str> = load.split(' ').take(3).collect();
    Some(format!("up {days} days, {hours:2}:{minutes:02}, load average: {}", load.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        let meminfo = "MemTotal:       24684084 kB\nMemFree:  1 kB\n";
        assert_eq!(parse_memory_mb(meminfo), Some(24105));
        assert_eq!(parse_memory_mb("MemFree: 1 kB"), None);
    }

    #[test]
    fn uptime_is_for_people() {
        let text = format_uptime("93784.5 1.0\n", "0.10 0.20 0.30 1/2 3\n").unwrap();
        assert_eq!(text, "up 1 days,  2:03, load average: 0.10, 0.20, 0.30");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_disk_of_its_parent() {
        let (size, free) = disk(Path::new("/no/such/folder")).unwrap();
        assert!(free <= size);
        assert_eq!(size, disk(Path::new("/")).unwrap().0);
    }
}
