//! NUMA cells and passed-through devices: what hosts have of them, and what requests ask.

/// A NUMA cell of a host. What guests hold of it is counted by the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NumaCell {
    /// Its number on the host.
    pub id: u32,
    /// CPUs that guests may share.
    pub shared_cpus: u32,
    /// CPUs that guests may have to themselves.
    pub dedicated_cpus: u32,
    /// Hardware threads per core.
    pub threads_per_core: u32,
    /// Memory, of all page sizes.
    pub memory_mb: u64,
    /// Huge pages set aside: size in KiB, how many.
    pub huge_pages: Vec<(u64, u64)>,
}

/// Devices of one sort on a host. What guests hold of them is counted by the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PciPool {
    /// PCI vendor, `8086`.
    pub vendor_id: String,
    /// PCI product, `10ca`.
    pub product_id: String,
    /// `type-PCI`, `type-PF`, `type-VF`.
    pub dev_type: String,
    /// The NUMA cell that they hang on.
    pub numa_node: Option<u32>,
    /// Further properties, such as `physical_network`, by name.
    pub tags: Vec<(String, String)>,
    /// How many.
    pub count: u32,
}

/// How a guest's CPUs are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CpuPolicy {
    /// They float over the host's shared CPUs.
    #[default]
    Shared,
    /// Each has a CPU of the host to itself.
    Dedicated,
    /// Each has a core to itself: the core's other threads stay idle.
    Isolate,
}

/// A NUMA cell of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct GuestCell {
    /// Its CPUs.
    pub cpus: u32,
    /// Its memory.
    pub memory_mb: u64,
    /// Placement of the CPUs.
    pub cpu_policy: CpuPolicy,
    /// Size of its memory pages in KiB; none for whatever the host has.
    pub page_kb: Option<u64>,
}

/// Devices that a guest asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PciRequest {
    /// How many.
    pub count: u32,
    /// Alternatives: the properties of one of them must hold (`vendor_id`, `product_id`, `dev_type`, or a tag).
    pub specs: Vec<Vec<(String, String)>>,
}
