//! Store, bus and hypervisors, as the options say.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_core::entropy::Entropy;
use nova_core::ids::HostName;
use nova_core::options::{Config, common, hosts};
use nova_db::{Store, StoreError};
use nova_virt::{FakeHypervisor, FakeOptions, FakeWorld, Hypervisor};

use crate::cli::StartError;

/// A hypervisor and the host that it belongs to.
pub type NamedHypervisor = (HostName, Arc<dyn Hypervisor>);

/// The state folder, ours alone for as long as this lives.
pub struct StateFolder {
    /// Where it is.
    pub path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Makes the folder if need be and takes hold of it.
    ///
    /// # Errors
    /// It cannot be written, or another process of this program uses it.
    pub fn open(config: &Config, program: &str) -> Result<Self, StartError> {
        let path = config.get(&common::STATE_PATH);
        make_private(&path)?;
        let lock_path = path.join(format!("{program}.lock"));
        let unusable = |error: std::io::Error| {
            StartError::because(format!("DEFAULT.state_path: {} cannot be written: {error}", path.display()))
        };
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StartError::because(format!(
                "DEFAULT.state_path: {} is in use by another {program}",
                path.display()
            ))),
            Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

/// Makes a folder that only its owner may read.
pub fn make_private(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::because(format!("DEFAULT.state_path: {} cannot be made: {error}", path.display())))
}

/// The store that `database.connection` names.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let url = config.get(&common::DATABASE_CONNECTION);
    let opened = nova_db::open(&url, &nova_db::OpenOptions::default()).await;
    opened.map_err(|error| StartError::new("the database cannot be opened", &error))
}

/// The same with a schema that is this program's, for a service of its own. A database server that does not answer yet
/// is waited for, however long; the log says so.
pub async fn wait_for_store(config: &Config, entropy: &dyn Entropy) -> Result<Arc<dyn Store>, StartError> {
    let url = config.get(&common::DATABASE_CONNECTION);
    loop {
        let opened = match nova_db::open(&url, &nova_db::OpenOptions::default()).await {
            Ok(store) => store.schema_version().await.map(|_| store),
            Err(error) => Err(error),
        };
        match opened {
            Ok(store) => {
                require_current_schema(&*store).await?;
                return Ok(store);
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!("waiting for the database: {}", nova_core::error::chain(&error));
            }
            Err(error) => return Err(StartError::new("the database cannot be opened", &error)),
        }
        tokio::time::sleep(Duration::from_millis(1000 + entropy.next_u64() % 1000)).await;
    }
}

/// Refuses a schema that is not this program's.
pub async fn require_current_schema(store: &dyn Store) -> Result<(), StartError> {
    let checked = match store.schema_version().await {
        Ok((found, needed)) if found < needed => Err(StoreError::SchemaStale { found, needed }),
        Ok((found, needed)) if found > needed => Err(StoreError::SchemaNewer { found, needed }),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    checked.map_err(|error| StartError::new("the database cannot be used", &error))
}

/// The hypervisors of this process with the names of their hosts.
pub fn open_hypervisors(config: &Config, state: &Path) -> Result<Vec<NamedHypervisor>, StartError> {
    let host = config.get(&common::HOST);
    match config.get(&common::COMPUTE_DRIVER).as_str() {
        "libvirt" => Ok(vec![(HostName::new(host), libvirt(config, state)?)]),
        _ => fakes(config, state, &host),
    }
}

fn fakes(config: &Config, state: &Path, host: &str) -> Result<Vec<NamedHypervisor>, StartError> {
    let folder = state.join("fake");
    make_private(&folder)?;
    let count = config.get(&common::FAKE_HOSTS);
    let names = (1..=count).map(|n| if count == 1 { host.to_owned() } else { format!("{host}-{n}") });
    // Guests can go from one to another while they run.
    let world = FakeWorld::new();
    let hosts = names.map(|name| {
        let boot = Duration::from_millis(u64::try_from(config.get(&common::FAKE_BOOT_LATENCY_MS)).unwrap_or(0));
        let mut options = FakeOptions::new(name.clone());
        options.vcpus = u32::try_from(config.get(&common::FAKE_VCPUS)).unwrap_or(u32::MAX);
        options.memory_mb = u64::try_from(config.get(&common::FAKE_MEMORY_MB)).unwrap_or(u64::MAX);
        options.disk_gb = u64::try_from(config.get(&common::FAKE_DISK_GB)).unwrap_or(u64::MAX);
        options.traits.extend(config.get(&hosts::FAKE_TRAITS));
        options.load.cpu_percent = u8::try_from(config.get(&hosts::FAKE_CPU_PERCENT)).unwrap_or(100);
        let nodes = u32::try_from(config.get(&hosts::FAKE_NUMA_NODES)).unwrap_or(1);
        options.spread_over(nodes, u64::try_from(config.get(&hosts::FAKE_HUGE_PAGES_MB)).unwrap_or(0));
        options.latencies.insert(nova_virt::Operation::Spawn, boot);
        options.state_file = Some(folder.join(format!("{name}.json")));
        options.journal_limit = 1000;
        options.world = world.clone();
        let fake: Arc<dyn Hypervisor> = Arc::new(FakeHypervisor::new(options));
        (HostName::new(name), fake)
    });
    Ok(hosts.collect())
}

#[cfg(feature = "libvirt")]
fn libvirt(config: &Config, state: &Path) -> Result<Arc<dyn Hypervisor>, StartError> {
    use nova_virt::{LibvirtHypervisor, LibvirtOptions, Preallocate, SpiceOptions};
    let uri = config.get(&common::LIBVIRT_CONNECTION_URI).unwrap_or_else(|| "qemu:///system".to_owned());
    let instances = config.get(&nova_virt::INSTANCES_PATH).unwrap_or_else(|| state.join("instances"));
    let mut options = LibvirtOptions::new(uri, instances);
    options.host = config.get(&common::HOST);
    options.virt_type = config.get(&common::LIBVIRT_VIRT_TYPE);
    options.tb_cache_mib = u32::try_from(config.get(&common::LIBVIRT_TB_CACHE_SIZE)).unwrap_or(0);
    if let Some(mode) = config.get(&common::LIBVIRT_CPU_MODE) {
        options.cpu_mode = mode;
    } else if options.virt_type == "kvm" {
        options.cpu_mode = "host-model".to_owned();
    }
    if let Some(model) = config.get(&common::LIBVIRT_CPU_MODELS).into_iter().next() {
        options.cpu_model = model;
    }
    options.use_cow_images = config.get(&nova_virt::USE_COW_IMAGES);
    if config.get(&nova_virt::PREALLOCATE_IMAGES) == "space" {
        options.preallocate_images = Preallocate::Space;
    }
    options.vnc_listen = config.get(&nova_virt::VNC_SERVER_LISTEN);
    options.spice = config.get(&nova_virt::SPICE_ENABLED).then(|| SpiceOptions {
        listen: config.get(&nova_virt::SPICE_SERVER_LISTEN),
        agent: config.get(&nova_virt::SPICE_AGENT_ENABLED),
        require_secure: config.get(&nova_virt::SPICE_REQUIRE_SECURE),
    });
    options.live_migration_scheme = config.get(&nova_virt::LIVE_MIGRATION_SCHEME);
    options.volume_cache_mode = config.get(&nova_virt::VOLUME_CACHE_MODE);
    options.volume_reconnect_delay = config.get(&nova_virt::VOLUME_RECONNECT_DELAY);
    options.volume_error_policy = config.get(&nova_virt::VOLUME_ERROR_POLICY);
    options.volume_tls_path = config.get(&nova_virt::VOLUME_TLS_PATH);
    options.live_migration_inbound_addr =
        config.get(&nova_virt::LIVE_MIGRATION_INBOUND_ADDR).unwrap_or_else(|| config.get(&common::HOST));
    let driver = LibvirtHypervisor::new(options);
    Ok(Arc::new(driver.map_err(|error| StartError::new("the libvirt driver cannot be used", &error))?))
}

#[cfg(not(feature = "libvirt"))]
fn libvirt(_config: &Config, _state: &Path) -> Result<Arc<dyn Hypervisor>, StartError> {
    Err(StartError::config(vec![
        "DEFAULT.compute_driver: 'libvirt' is not built in; build with --features libvirt".to_owned(),
    ]))
}
