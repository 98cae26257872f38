//! What a test wants its cloud to be like.

use super::*;

/// What a test wants its cloud to be like.
pub struct CloudOptions {
    pub seed: u64,
    pub hosts: usize,
    pub scheduler: &'static str,
    pub chances: Chances,
    pub vcpus: u32,
    pub memory_mb: u64,
    pub disk_gb: u64,
    pub token_life: Duration,
    /// What differs from host to host.
    pub dress: fn(&str, &mut FakeOptions, &mut ComputeOptions),
    /// Settings of the scheduler's algorithm.
    pub algorithm: SchedulerOptions,
    /// Images are real: hosts fetch them from a listener on loopback. Not in virtual time.
    pub fetch_images: bool,
    /// Settings of the conductor and, where it has the same, of the API.
    pub conductor: ConductorOptions,
    /// Quota of instances.
    pub instances: Option<u64>,
    /// A resize may end on the host that the server is on.
    pub same_host: bool,
    /// Interfaces are plugged in by others, who tell of it: an outside Neutron.
    pub outside_network: bool,
    /// There is a volume host.
    pub volumes: bool,
    /// How long the image of a volume takes.
    pub image_delay: Duration,
}

impl Default for CloudOptions {
    fn default() -> Self {
        let chances = Chances::default();
        Self {
            seed: 1,
            hosts: 3,
            scheduler: "least_load",
            chances,
            vcpus: 8,
            memory_mb: 8192,
            disk_gb: 100,
            token_life: Duration::from_secs(10 * 86_400),
            dress: |_, _, _| {},
            algorithm: SchedulerOptions::default(),
            fetch_images: false,
            conductor: ConductorOptions::default(),
            instances: None,
            same_host: false,
            outside_network: false,
            volumes: false,
            image_delay: Duration::ZERO,
        }
    }
}
