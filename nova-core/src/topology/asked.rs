//! What a flavor and an image ask of NUMA cells, CPUs and pages (nova/virt/hardware.py, `numa_get_constraints`).

use std::collections::BTreeSet;

use super::{
    CpuLayout, CpuPolicy, CpuSetError, GuestCell, GuestTopology, PageSize, Properties, ThreadPolicy, layout,
    parse_cpu_set,
};

/// No guest has more cells (nova/objects/image_meta.py, `NUMA_NODES_MAX`).
const MOST_CELLS: u32 = 128;

const CPU_POLICIES: &str = "['dedicated', 'mixed', 'shared']";
const THREAD_POLICIES: &str = "['isolate', 'prefer', 'require']";

/// What cannot be asked for; clients get the text with a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the text that it stands for, Nova's own")]
pub enum AskedError {
    #[error("The property 'numa_nodes' cannot be '{nodes}'. It must be a number greater than 0")]
    Nodes { nodes: String },
    #[error("Image property '{name}' is not permitted to override NUMA configuration set against the flavor")]
    NumaOverridden { name: &'static str },
    #[error("CPU and memory allocation must be provided for all NUMA nodes")]
    Incomplete,
    #[error(
        "Instance CPUs and/or memory cannot be evenly distributed across instance NUMA nodes. Explicit assignment of CPUs and \
         memory to nodes is required"
    )]
    Asymmetric,
    #[error("CPU number {cpu} is larger than max {max}")]
    CpuOutOfRange { cpu: u32, max: u32 },
    #[error("CPU number {cpu} is assigned to two nodes")]
    CpuTwice { cpu: u32 },
    #[error("CPU number {cpus:?} is not assigned to any node")]
    CpusUnassigned { cpus: BTreeSet<u32> },
    #[error("{assigned} MB of memory assigned, but expected {total} MB")]
    Memory { assigned: u64, total: u64 },
    #[error("Invalid memory page size '{size}'")]
    PageSize { size: String },
    #[error("Page size {size} forbidden against '{against}'")]
    PageSizeForbidden { size: String, against: String },
    #[error("Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor")]
    CpuPolicyOverridden,
    #[error(
        "Image property 'hw_cpu_thread_policy' is not permitted to override CPU thread pinning policy set against the flavor"
    )]
    ThreadPolicyOverridden,
    #[error("CPU policy requested from '{source_name}' is invalid, given: '{given}', available: '{CPU_POLICIES}'.")]
    CpuPolicy { source_name: &'static str, given: String },
    #[error(
        "CPU thread policy requested from '{source_name}' is invalid, given: '{given}', available: '{THREAD_POLICIES}'."
    )]
    ThreadPolicy { source_name: &'static str, given: String },
    #[error("Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy")]
    ThreadsWithoutPins,
    #[error(transparent)]
    CpuSet(#[from] CpuSetError),
    #[error("The value of '{name}' must be a whole number, not '{given}'")]
    Number { name: String, given: String },
    #[error("PCI alias {alias} is not defined")]
    PciAlias { alias: String },
    #[error("Image vCPU topology limits {image} exceeds the limits of the flavor {flavor}")]
    LayoutLimits { image: CpuLayout, flavor: CpuLayout },
    #[error("Image vCPU topology {image} exceeds the limits of the flavor or image {most}")]
    LayoutBeyond { image: CpuLayout, most: CpuLayout },
    #[error("Requested vCPU limits {sockets}:{cores}:{threads} are impossible to satisfy for vcpus count {vcpus}")]
    LayoutImpossible { sockets: u32, cores: u32, threads: u32, vcpus: u32 },
    #[error("Flavor and image want the opposite of '{name}'")]
    Opposite { name: &'static str },
    #[error("'{name}' is set to '{given}', which no host of this cloud can do")]
    Unsupported { name: String, given: String },
}

/// What would be promised and not kept: the names without their prefix, and the values that ask for nothing.
const UNSUPPORTED: [(&str, &[&str]); 18] = [
    ("cpu_realtime", OFF),
    ("emulator_threads_policy", &[]),
    ("cpu_dedicated_mask", &[]),
    ("mem_encryption", OFF),
    ("locked_memory", OFF),
    ("pmem", &[]),
    ("tpm_version", &[]),
    ("tpm_model", &[]),
    ("maxphysaddr_bits", &[]),
    ("maxphysaddr_mode", &[]),
    ("viommu_model", &[]),
    ("virtio_packed_ring", OFF),
    ("ephemeral_encryption", OFF),
    ("firmware_stateless", OFF),
    // One port is always there.
    ("serial_port_count", &["0", "1"]),
    ("redirected_usb_ports", &["0"]),
    ("sound_model", &[]),
    ("usb_model", &[]),
];
const OFF: &[&str] = &["false", "no", "off", "0", "f", "n"];

/// Switches that flavor and image may set, and not to the opposite (nova/virt/hardware.py, `get_pmu_constraint`,
/// `get_vif_multiqueue_constraint`).
const SWITCHES: [&str; 2] = ["pmu", "vif_multiqueue_enabled"];

/// The topology that a flavor of so many CPUs and so much memory asks for together with an image; `None`: any host will do.
///
/// # Errors
/// What contradicts, is malformed, or cannot be had here.
pub fn asked(
    flavor: &Properties,
    image: &Properties,
    vcpus: u32,
    memory_mb: u64,
) -> Result<Option<GuestTopology>, AskedError> {
    let both = Both { flavor, image };
    both.refuse_unsupported()?;
    both.check_switches()?;
    layout(flavor, image, vcpus)?;
    let nodes = both.nodes()?;
    let pages = both.pages()?;
    let cells = match (nodes, pages) {
        (None, None) => None,
        (nodes, _) => Some(both.cells(nodes.unwrap_or(1), vcpus, memory_mb)?),
    };
    let cpu_policy = both.cpu_policy()?;
    let thread_policy = both.thread_policy()?;
    if cpu_policy == CpuPolicy::Shared && thread_policy.is_some() {
        return Err(AskedError::ThreadsWithoutPins);
    }
    let one_cell = || vec![GuestCell { cpus: (0..vcpus).collect(), memory_mb }];
    let cells = match cpu_policy {
        CpuPolicy::Shared => cells,
        CpuPolicy::Dedicated => Some(cells.unwrap_or_else(one_cell)),
    };
    Ok(cells.map(|cells| GuestTopology { cells, cpu_policy, thread_policy, pages }))
}

/// Does the guest have CPUs of its own? They come out of the host's dedicated CPUs then, and not out of the shared ones.
/// What is malformed asks for nothing: it was refused when it came.
pub fn asks_dedicated(flavor: &Properties, image: &Properties) -> bool {
    Both { flavor, image }.cpu_policy() == Ok(CpuPolicy::Dedicated)
}

/// A flavor's extra specs (`hw:x`) and an image's properties (`hw_x`).
pub(super) struct Both<'a> {
    pub(super) flavor: &'a Properties,
    pub(super) image: &'a Properties,
}

impl Both<'_> {
    fn get(&self, name: &str) -> (Option<&str>, Option<&str>) {
        let flavor = self.flavor.get(&format!("hw:{name}")).map(String::as_str);
        let image = self.image.get(&format!("hw_{name}")).map(String::as_str);
        (flavor.filter(|value| !value.is_empty()), image.filter(|value| !value.is_empty()))
    }

    /// What flavor and image say of that, if they do: 1 or more.
    pub(super) fn numbers(&self, name: &str) -> Result<(Option<u32>, Option<u32>), AskedError> {
        let read = |full: String, text: Option<&str>| {
            let number = |text: &str| text.trim().parse().ok().filter(|number| *number > 0);
            let wrong = |text: &str| AskedError::Number { name: full.clone(), given: text.to_owned() };
            text.map(|text| number(text).ok_or_else(|| wrong(text))).transpose()
        };
        let (flavor, image) = self.get(name);
        Ok((read(format!("hw:{name}"), flavor)?, read(format!("hw_{name}"), image)?))
    }

    fn check_switches(&self) -> Result<(), AskedError> {
        for name in SWITCHES {
            let on = |value: &str| !OFF.contains(&value.trim().to_ascii_lowercase().as_str());
            if let (Some(flavor), Some(image)) = self.get(name)
                && on(flavor) != on(image)
            {
                return Err(AskedError::Opposite { name });
            }
        }
        Ok(())
    }

    fn refuse_unsupported(&self) -> Result<(), AskedError> {
        if let Some(asked) = self.flavor.get("pci_passthrough:alias") {
            let alias = asked.split(',').next().unwrap_or_default();
            let alias = alias.split(':').next().unwrap_or_default().trim().to_owned();
            return Err(AskedError::PciAlias { alias });
        }
        if let Some(profile) = self.flavor.get("accel:device_profile") {
            return Err(AskedError::Unsupported { name: "accel:device_profile".into(), given: profile.clone() });
        }
        for (name, off) in UNSUPPORTED {
            let asks = |value: &&str| !off.contains(&value.trim().to_ascii_lowercase().as_str());
            let (flavor, image) = self.get(name);
            let found = flavor.filter(asks).map(|value| (format!("hw:{name}"), value));
            let found = found.or_else(|| image.filter(asks).map(|value| (format!("hw_{name}"), value)));
            if let Some((name, given)) = found {
                return Err(AskedError::Unsupported { name, given: given.to_owned() });
            }
        }
        Ok(())
    }

    fn nodes(&self) -> Result<Option<u32>, AskedError> {
        let nodes = match self.get("numa_nodes") {
            (Some(_), Some(_)) => return Err(AskedError::NumaOverridden { name: "hw_numa_nodes" }),
            (flavor, image) => flavor.or(image),
        };
        let Some(text) = nodes else { return Ok(None) };
        let count = text.trim().parse().ok().filter(|count| (1..=MOST_CELLS).contains(count));
        count.map(Some).ok_or_else(|| AskedError::Nodes { nodes: text.to_owned() })
    }

    fn pages(&self) -> Result<Option<PageSize>, AskedError> {
        let forbidden = |size: &str, against: &str| {
            Err(AskedError::PageSizeForbidden { size: size.to_owned(), against: against.to_owned() })
        };
        match self.get("mem_page_size") {
            (None, None) => Ok(None),
            (None, Some(image)) => forbidden(image, "<empty>"),
            (Some(flavor), None) => page_size(flavor).map(Some),
            (Some(flavor), Some(image)) => match page_size(flavor)? {
                PageSize::Any | PageSize::Large => page_size(image).map(Some),
                PageSize::Small | PageSize::Kib(_) => forbidden(image, flavor),
            },
        }
    }

    fn cells(&self, nodes: u32, vcpus: u32, memory_mb: u64) -> Result<Vec<GuestCell>, AskedError> {
        let cpus = self.list("numa_cpus", "hw_numa_cpus", |_, text| Ok(parse_cpu_set(text)?))?;
        let memory = self.list("numa_mem", "hw_numa_mem", |name, text| {
            let wrong = || AskedError::Number { name: name.to_owned(), given: text.to_owned() };
            text.trim().parse::<u64>().map_err(|_| wrong())
        })?;
        let complete = |length: usize| length == nodes as usize;
        match (cpus, memory) {
            (None, None) => evenly(nodes, vcpus, memory_mb),
            (Some(cpus), Some(memory)) if complete(cpus.len()) && complete(memory.len()) => {
                check_cells(&cpus, &memory, vcpus, memory_mb)?;
                let cells = cpus.into_iter().zip(memory);
                Ok(cells.map(|(cpus, memory_mb)| GuestCell { cpus, memory_mb }).collect())
            }
            _ => Err(AskedError::Incomplete),
        }
    }

    /// `numa_cpus.0`, `numa_cpus.1`, …: of the flavor or of the image, not of both.
    fn list<T>(
        &self,
        name: &str,
        image_name: &'static str,
        read: impl Fn(&str, &str) -> Result<T, AskedError>,
    ) -> Result<Option<Vec<T>>, AskedError> {
        let of = |properties: &Properties, prefix: &str| {
            let keys = (0..MOST_CELLS).map(|cell| format!("{prefix}{name}.{cell}"));
            let found = keys.map_while(|key| properties.get(&key).map(|text| read(&key, text)));
            found.collect::<Result<Vec<T>, AskedError>>()
        };
        let (flavor, image) = (of(self.flavor, "hw:")?, of(self.image, "hw_")?);
        match (flavor.is_empty(), image.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Ok(Some(image)),
            (false, true) => Ok(Some(flavor)),
            (false, false) => Err(AskedError::NumaOverridden { name: image_name }),
        }
    }

    fn cpu_policy(&self) -> Result<CpuPolicy, AskedError> {
        let read = |source_name, given: &str| match given {
            "shared" => Ok(CpuPolicy::Shared),
            "dedicated" => Ok(CpuPolicy::Dedicated),
            "mixed" => Err(AskedError::Unsupported { name: "hw:cpu_policy".into(), given: given.to_owned() }),
            _ => Err(AskedError::CpuPolicy { source_name, given: given.to_owned() }),
        };
        let (flavor, image) = self.get("cpu_policy");
        let flavor = flavor.map(|given| read("flavor extra specs", given)).transpose()?;
        let image = image.map(|given| read("image properties", given)).transpose()?;
        match (flavor, image) {
            (Some(CpuPolicy::Shared), Some(CpuPolicy::Dedicated)) => Err(AskedError::CpuPolicyOverridden),
            (flavor, image) => Ok(flavor.or(image).unwrap_or_default()),
        }
    }

    fn thread_policy(&self) -> Result<Option<ThreadPolicy>, AskedError> {
        let read = |source_name, given: &str| match given {
            "prefer" => Ok(ThreadPolicy::Prefer),
            "isolate" => Ok(ThreadPolicy::Isolate),
            "require" => Ok(ThreadPolicy::Require),
            _ => Err(AskedError::ThreadPolicy { source_name, given: given.to_owned() }),
        };
        let (flavor, image) = self.get("cpu_thread_policy");
        let flavor = flavor.map(|given| read("flavor extra specs", given)).transpose()?;
        let image = image.map(|given| read("image properties", given)).transpose()?;
        match (flavor, image) {
            (None, image) => Ok(image),
            (Some(ThreadPolicy::Prefer), image) => Ok(image.or(flavor)),
            (Some(flavor), Some(image)) if flavor != image => Err(AskedError::ThreadPolicyOverridden),
            (flavor, _) => Ok(flavor),
        }
    }
}

fn evenly(nodes: u32, vcpus: u32, memory_mb: u64) -> Result<Vec<GuestCell>, AskedError> {
    if !vcpus.is_multiple_of(nodes) || !memory_mb.is_multiple_of(u64::from(nodes)) {
        return Err(AskedError::Asymmetric);
    }
    let (cpus, memory_mb) = (vcpus / nodes, memory_mb / u64::from(nodes));
    Ok((0..nodes).map(|cell| GuestCell { cpus: (cell * cpus..(cell + 1) * cpus).collect(), memory_mb }).collect())
}

fn check_cells(cpus: &[BTreeSet<u32>], memory: &[u64], vcpus: u32, memory_mb: u64) -> Result<(), AskedError> {
    let mut unassigned: BTreeSet<u32> = (0..vcpus).collect();
    for cpu in cpus.iter().flatten().copied() {
        if cpu >= vcpus {
            return Err(AskedError::CpuOutOfRange { cpu, max: vcpus.saturating_sub(1) });
        }
        if !unassigned.remove(&cpu) {
            return Err(AskedError::CpuTwice { cpu });
        }
    }
    if !unassigned.is_empty() {
        return Err(AskedError::CpusUnassigned { cpus: unassigned });
    }
    let assigned = memory.iter().fold(0, |sum: u64, mb| sum.saturating_add(*mb));
    if assigned == memory_mb { Ok(()) } else { Err(AskedError::Memory { assigned, total: memory_mb }) }
}

/// `small`, `large`, `any`, KiB, or bytes with a unit (`2MB`, `1GiB`).
fn page_size(text: &str) -> Result<PageSize, AskedError> {
    let kib = match text {
        "small" => return Ok(PageSize::Small),
        "large" => return Ok(PageSize::Large),
        "any" => return Ok(PageSize::Any),
        text => text.trim().parse::<u64>().ok().or_else(|| with_unit(text.trim())),
    };
    let wrong = || AskedError::PageSize { size: text.to_owned() };
    kib.filter(|kib| *kib > 0).map(PageSize::Kib).ok_or_else(wrong)
}

fn with_unit(text: &str) -> Option<u64> {
    let text = text.strip_suffix('B')?;
    let text = text.strip_suffix('i').unwrap_or(text);
    let unit = text.chars().last()?;
    let kib_of_unit = match unit.to_ascii_uppercase() {
        'K' => 1,
        'M' => 1 << 10,
        'G' => 1 << 20,
        'T' => 1 << 30,
        _ => return None,
    };
    text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(kib_of_unit)
}

#[cfg(test)]
mod tests;
