//! What an operator may set about a volume host's backend.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nova_core::entropy::Entropy;
use nova_core::options::{Config, Opt, OptionDecl, common};

use super::{
    FileVolumes, IscsiOptions, IscsiVolumes, LvmOptions, LvmVolumes, MemoryVolumes, NbdOptions, NbdVolumes,
    PoolOptions, PortalOptions, TlsFolder, VolumeDriver, VolumeDriverError,
};

const VOLUME: &[&str] = &["nova-volume"];
const GROUP: &str = "volume_driver";

/// `volume_driver.name`
pub const NAME: Opt<String> = Opt::choice(GROUP, "name", &["nbd", "file", "iscsi", "lvm", "memory"])
    .default("nbd")
    .roles(VOLUME)
    .help("Where volumes are. nbd: files of this host, served by QEMU's storage daemon. file: files that hosts open themselves. iscsi: files of this host, served by tgt. lvm: thin logical volumes of this host, served by tgt. memory: nowhere, for trying.");
/// `volume_driver.pool_path`
pub const POOL_PATH: Opt<PathBuf> = Opt::path(GROUP, "pool_path")
    .default("$state_path/volumes")
    .roles(VOLUME)
    .help("The folder of volumes. For the driver file, hosts must have it at the same path.");
/// `volume_driver.run_path`
pub const RUN_PATH: Opt<PathBuf> = Opt::path(GROUP, "run_path").default("$state_path/volume-run").roles(VOLUME).help(
    "Sockets, pid files and ports of the daemons that serve volumes. At most 80 characters; must outlive the service.",
);
/// `volume_driver.max_over_subscription_ratio`
pub const RATIO: Opt<f64> = Opt::float(GROUP, "max_over_subscription_ratio", 0.0, 1000.0)
    .default("20.0")
    .roles(VOLUME)
    .help("How many times its size a pool may promise. Volumes take room as they are written to.");
/// `volume_driver.reserved_percentage`
pub const RESERVED: Opt<i64> = Opt::integer(GROUP, "reserved_percentage", 0, 100)
    .default("0")
    .unit("per cent")
    .roles(VOLUME)
    .help("How much of the pool nobody gets.");
/// `volume_driver.listen`
pub const LISTEN: Opt<String> = Opt::string(GROUP, "listen")
    .default("127.0.0.1")
    .roles(VOLUME)
    .help("The address on which volumes are served. Other addresses than loopback need tls_path with the driver nbd.");
/// `volume_driver.address`
pub const ADDRESS: Opt<Option<String>> = Opt::string(GROUP, "address")
    .roles(VOLUME)
    .help("The address by which hosts reach volumes. Not set: listen.")
    .optional();
/// `volume_driver.nbd_first_port`
pub const NBD_FIRST_PORT: Opt<i64> = Opt::integer(GROUP, "nbd_first_port", 1, 65535)
    .default("10809")
    .roles(VOLUME)
    .help("The first of the ports on which volumes are served; each compute host has one.");
/// `volume_driver.nbd_ports`
pub const NBD_PORTS: Opt<i64> = Opt::integer(GROUP, "nbd_ports", 1, 65535)
    .default("1024")
    .unit("ports")
    .roles(VOLUME)
    .help("How many ports there are for that, and so how many compute hosts may have volumes of this host.");
/// `volume_driver.tls_path`
pub const TLS_PATH: Opt<Option<PathBuf>> = Opt::path(GROUP, "tls_path")
    .roles(VOLUME)
    .help("The folder of certificates for the driver nbd: ca-cert.pem, server-cert.pem, server-key.pem; made with an authority of their own where there are none. A compute host is let in by a client certificate whose subject is CN=HOST and nothing else. Not set: no TLS.")
    .optional();
/// `volume_driver.tls_server_name`
pub const TLS_SERVER_NAME: Opt<Option<String>> = Opt::string(GROUP, "tls_server_name")
    .roles(VOLUME)
    .help("The name in this host's certificate. Not set: its host name.")
    .optional();
/// `volume_driver.iscsi_port`
pub const ISCSI_PORT: Opt<i64> =
    Opt::integer(GROUP, "iscsi_port", 1, 65535).default("3260").roles(VOLUME).help("The port of the driver iscsi.");
/// `volume_driver.iscsi_prefix`
pub const ISCSI_PREFIX: Opt<String> = Opt::string(GROUP, "iscsi_prefix")
    .default("iqn.2010-10.org.openstack")
    .roles(VOLUME)
    .help("What the names of iSCSI targets begin with (iscsi_target_prefix).");
/// `volume_driver.volume_group`
pub const VOLUME_GROUP: Opt<String> = Opt::string(GROUP, "volume_group")
    .default("nova-volumes")
    .roles(VOLUME)
    .help("The volume group of the driver lvm.");
/// `volume_driver.lvm_pool`
pub const LVM_POOL: Opt<String> = Opt::string(GROUP, "lvm_pool")
    .default("volumes")
    .roles(VOLUME)
    .help("The thin pool in that group. It must clear blocks before it gives them out (zero).");
/// `volume_driver.command_timeout`
pub const COMMAND_TIMEOUT: Opt<Duration> = Opt::seconds(GROUP, "command_timeout", 1, 3600)
    .default("30")
    .roles(VOLUME)
    .help("How long a daemon may take for a command before it counts as hung.");
/// `volume_driver.convert_timeout`
pub const CONVERT_TIMEOUT: Opt<Duration> = Opt::seconds(GROUP, "convert_timeout", 10, 604_800)
    .default("14400")
    .roles(VOLUME)
    .help("How long the conversion of an image, or the copy of a volume in use, may take.");

/// Every option of this module.
pub const VOLUME_DRIVER_OPTIONS: &[OptionDecl] = &[
    NAME.decl(),
    POOL_PATH.decl(),
    RUN_PATH.decl(),
    RATIO.decl(),
    RESERVED.decl(),
    LISTEN.decl(),
    ADDRESS.decl(),
    NBD_FIRST_PORT.decl(),
    NBD_PORTS.decl(),
    TLS_PATH.decl(),
    TLS_SERVER_NAME.decl(),
    ISCSI_PORT.decl(),
    ISCSI_PREFIX.decl(),
    VOLUME_GROUP.decl(),
    LVM_POOL.decl(),
    COMMAND_TIMEOUT.decl(),
    CONVERT_TIMEOUT.decl(),
];

/// What the pieces of this group must be together.
pub fn volume_driver_fits(config: &Config) -> Result<(), (&'static str, String)> {
    let (first, count) = (config.get(&NBD_FIRST_PORT), config.get(&NBD_PORTS));
    if first + count - 1 > 65535 {
        return Err(("volume_driver.nbd_ports", format!("there are no {count} ports from {first} on")));
    }
    if config.get(&NAME) == "nbd" && config.get(&TLS_PATH).is_none() && !super::nbd::is_loopback(&config.get(&LISTEN)) {
        let problem =
            "volumes would be served to everybody: set volume_driver.tls_path, or listen on a loopback address";
        return Err(("volume_driver.listen", problem.to_owned()));
    }
    Ok(())
}

fn pool(config: &Config) -> PoolOptions {
    PoolOptions {
        folder: config.get(&POOL_PATH),
        over_subscription_ratio: config.get(&RATIO),
        reserved_percentage: u8::try_from(config.get(&RESERVED)).unwrap_or(100),
        tool_limit: config.get(&CONVERT_TIMEOUT),
    }
}

/// Where volumes are served, and how that is reached.
fn addresses(config: &Config) -> (String, String) {
    let listen = config.get(&LISTEN);
    let advertise = config.get(&ADDRESS).unwrap_or_else(|| listen.clone());
    (listen, advertise)
}

fn portal(config: &Config) -> PortalOptions {
    let (listen, advertise) = addresses(config);
    PortalOptions {
        run_folder: config.get(&RUN_PATH),
        listen,
        advertise,
        port: port(config, &ISCSI_PORT),
        prefix: config.get(&ISCSI_PREFIX),
        command_limit: config.get(&COMMAND_TIMEOUT),
    }
}

fn port(config: &Config, option: &Opt<i64>) -> u16 {
    u16::try_from(config.get(option)).unwrap_or(u16::MAX)
}

impl TlsFolder {
    /// This host's folder of certificates, if the configuration names one. The registry must know
    /// [`VOLUME_DRIVER_OPTIONS`].
    pub fn from_config(config: &Config) -> Option<Self> {
        let server_name = config.get(&TLS_SERVER_NAME).unwrap_or_else(|| config.get(&common::HOST));
        config.get(&TLS_PATH).map(|path| Self { path, server_name })
    }
}

/// Opens the driver that the configuration names. The registry must know [`VOLUME_DRIVER_OPTIONS`].
pub async fn open(config: &Config, entropy: &dyn Entropy) -> Result<Arc<dyn VolumeDriver>, VolumeDriverError> {
    Ok(match config.get(&NAME).as_str() {
        "file" => Arc::new(FileVolumes::open(pool(config)).await?),
        "iscsi" => {
            let options = IscsiOptions { pool: pool(config), portal: portal(config) };
            Arc::new(IscsiVolumes::open(options, entropy).await?)
        }
        "lvm" => {
            let options = LvmOptions {
                group: config.get(&VOLUME_GROUP),
                thin_pool: config.get(&LVM_POOL),
                staging: config.get(&POOL_PATH),
                over_subscription_ratio: config.get(&RATIO),
                reserved_percentage: u8::try_from(config.get(&RESERVED)).unwrap_or(100),
                tool_limit: config.get(&CONVERT_TIMEOUT),
                portal: portal(config),
            };
            Arc::new(LvmVolumes::open(options, entropy).await?)
        }
        "memory" => Arc::new(MemoryVolumes::new(1024, config.get(&RATIO))),
        _ => {
            let (listen, advertise) = addresses(config);
            let options = NbdOptions {
                pool: pool(config),
                run_folder: config.get(&RUN_PATH),
                listen,
                advertise,
                first_port: port(config, &NBD_FIRST_PORT),
                ports: port(config, &NBD_PORTS),
                tls: TlsFolder::from_config(config),
                command_limit: config.get(&COMMAND_TIMEOUT),
            };
            Arc::new(NbdVolumes::open(options).await?)
        }
    })
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use nova_core::options::{Registry, Source};

    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let registry = Registry::new().with(common::OPTIONS).with(VOLUME_DRIVER_OPTIONS).check(volume_driver_fits);
        let loaded = Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text)]);
        loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nobody_serves_volumes_to_everybody_by_mistake() {
        let group = |text: &str| load(&format!("[DEFAULT]\nstate_path = /state\n[volume_driver]\n{text}"));
        group("").unwrap();
        group("listen = 0.0.0.0\ntls_path = /etc/nova/tls").unwrap();
        group("listen = 0.0.0.0\nname = iscsi").unwrap();
        let error = group("listen = 192.0.2.1").unwrap_err();
        assert!(error.contains("volume_driver.listen"), "{error}");
        group("nbd_first_port = 65000\nnbd_ports = 1000").unwrap_err();
    }

    #[tokio::test]
    async fn the_driver_is_the_one_that_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let state = temp.path().display();
        for name in ["nbd", "file", "memory"] {
            let config =
                load(&format!("[DEFAULT]\nstate_path = {state}/{name}\n[volume_driver]\nname = {name}")).unwrap();
            let driver = open(&config, &SeededEntropy::new(1)).await.unwrap();
            assert_eq!(driver.capabilities().driver, name);
            assert!(driver.inventory().await.unwrap().volumes.is_empty());
        }
    }
}
