//! What the compute API is configured by.

use std::time::Duration;

use jiff::SignedDuration;
use nova_core::ids::ZoneName;
use nova_core::quota::Limits;

/// Options of the compute API.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputeOptions {
    /// `api.max_limit`: items of a list at most.
    pub max_limit: usize,
    /// `quota.instances`, `quota.cores`, `quota.ram`.
    pub limits: Limits,
    /// `quota.key_pairs`; `None`: without limit.
    pub key_pairs: Option<u64>,
    /// `quota.metadata_items` per server; `None`: without limit.
    pub metadata_items: Option<u64>,
    /// `quota.injected_files` per server; shown until 2.56.
    pub injected_files: Option<u64>,
    /// `quota.injected_file_content_bytes`; shown until 2.56.
    pub injected_file_content_bytes: Option<u64>,
    /// `quota.injected_file_path_length`; shown until 2.56.
    pub injected_file_path_length: Option<u64>,
    /// `quota.server_groups`.
    pub server_groups: Option<u64>,
    /// `quota.server_group_members`.
    pub server_group_members: Option<u64>,
    /// `api.enable_instance_password`: answers to create carry `adminPass`.
    pub enable_instance_password: bool,
    /// `DEFAULT.password_length`: characters of a generated password.
    pub password_length: usize,
    /// `DEFAULT.default_schedule_zone`: for servers that ask for none.
    pub default_schedule_zone: Option<ZoneName>,
    /// `DEFAULT.default_availability_zone`: where hosts are that say nothing.
    pub default_availability_zone: ZoneName,
    /// `DEFAULT.internal_service_availability_zone`: where control services are.
    pub internal_service_availability_zone: ZoneName,
    /// `DEFAULT.service_down_time`: a service not heard of for longer is down.
    pub service_down_time: SignedDuration,
    /// How long a build may take before it fails.
    pub instance_build_timeout: Duration,
    /// How long any other operation may take before it fails.
    pub operation_timeout: Duration,
    /// `scheduler.max_attempts`: hosts tried for one build, the first included.
    pub max_attempts: usize,
    /// Servers that one request may ask for.
    pub max_servers_per_request: u32,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        Self {
            max_limit: 1000,
            limits: Limits { instances: Some(10), cores: Some(20), ram: Some(51_200) },
            key_pairs: Some(100),
            metadata_items: Some(128),
            injected_files: Some(5),
            injected_file_content_bytes: Some(10_240),
            injected_file_path_length: Some(255),
            server_groups: Some(10),
            server_group_members: Some(10),
            enable_instance_password: true,
            password_length: 12,
            default_schedule_zone: None,
            default_availability_zone: ZoneName::new("nova"),
            internal_service_availability_zone: ZoneName::new("internal"),
            service_down_time: SignedDuration::from_secs(60),
            instance_build_timeout: Duration::from_secs(1800),
            operation_timeout: Duration::from_secs(900),
            max_attempts: 3,
            max_servers_per_request: 1000,
        }
    }
}
