//! What the machine has.

use std::path::Path;

use nova_core::host_facts::CpuTimes;
use virt::connect::Connect;

use super::errors;
use super::options::LibvirtOptions;
use super::{cells, read_xml, traits};
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
    let cells = cells::cells(&capabilities).map_err(|source| HypervisorError::Failed { during: DURING, source })?;
    Ok(NodeResources {
        hypervisor_hostname: conn.hostname().map_err(failed)?,
        hypervisor_type: HYPERVISOR_TYPE.into(),
        hypervisor_version: i64::from(conn.hyp_version().map_err(failed)?),
        vcpus: conn.node_info().map_err(failed)?.cpus,
        memory_mb: memory_mb()?,
        disk_gb,
        disk_free_gb,
        traits: traits::traits(conn, options, &cpu_info, &cells),
        cells,
        // An emulated processor is QEMU's, whatever the host's is.
        guests_see_cpu: options.virt_type == "kvm" && options.cpu_mode != "custom",
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

/// How the processors spent their time, from the kernel.
pub(super) fn cpu_times() -> Result<CpuTimes, HypervisorError> {
    const DURING: &str = "reading the host's processor times";
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| errors::file(DURING, error));
    let (stat, load) = (read("/proc/stat")?, read("/proc/loadavg")?);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let times = parse_cpu_times(&stat, &load, &cpus);
    times.ok_or_else(|| HypervisorError::Failed { during: DURING, source: "/proc/stat has no line 'cpu'".into() })
}

/// One tick of `/proc/stat`: USER_HZ is 100 wherever Linux runs guests.
const TICK_NS: u64 = 10_000_000;
pub(super) const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK_NS;

fn parse_cpu_times(stat: &str, load: &str, cpus: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq] = *ticks.first_chunk::<7>()?;
    let ns = |ticks: u64| ticks.saturating_mul(TICK_NS);
    let first = load.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    let mhz = cpus.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split(':').nth(1)?.trim().parse::<f64>().ok());
    Some(CpuTimes {
        user_ns: ns(user + nice),
        kernel_ns: ns(system + irq + softirq),
        idle_ns: ns(idle),
        iowait_ns: ns(iowait),
        frequency_mhz: mhz.unwrap_or(0.0) as u64,
        load_average_milli: (first.unwrap_or(0.0) * 1000.0) as u64,
    })
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
    fn processor_times_are_the_kernels_in_nanoseconds() {
        let stat = "cpu  10 1 5 100 7 1 2 0 0 0\ncpu0 1 1 1 1 1 1 1\n";
        let times = parse_cpu_times(stat, "0.25 0.1 0.1 1/2 3\n", "cpu MHz\t\t: 2596.139\n").unwrap();
        let tick = TICK_NS;
        assert_eq!((times.user_ns, times.kernel_ns), (11 * tick, 8 * tick));
        assert_eq!((times.idle_ns, times.iowait_ns), (100 * tick, 7 * tick));
        assert_eq!((times.frequency_mhz, times.load_average_milli), (2596, 250));
        assert_eq!(parse_cpu_times("intr 1\n", "", ""), None);
        cpu_times().unwrap();
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
