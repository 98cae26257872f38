//! Options of drivers, under Nova's names.

use std::path::PathBuf;
use std::time::Duration;

use nova_core::options::{Opt, OptionDecl};

const COMPUTE: &[&str] = &["nova-compute"];

/// `DEFAULT.use_cow_images`
pub const USE_COW_IMAGES: Opt<bool> = Opt::boolean("DEFAULT", "use_cow_images")
    .default("true")
    .roles(COMPUTE)
    .help("Root disks are qcow2 files over one copy of their image. False: each is a copy of its own, in raw format.");
/// `DEFAULT.preallocate_images`
pub const PREALLOCATE_IMAGES: Opt<String> = Opt::choice("DEFAULT", "preallocate_images", &["none", "space"])
    .default("none")
    .roles(COMPUTE)
    .help("space: the room of a disk is booked when it is made, so that a guest never finds the host's disk full.");
/// `DEFAULT.instances_path`
pub const INSTANCES_PATH: Opt<Option<PathBuf>> = Opt::path("DEFAULT", "instances_path")
    .roles(COMPUTE)
    .help(
        "The folder that has one folder per guest. Hosts that share it send guests to each other without their disks. Not set: \
         instances in state_path.",
    )
    .optional();
/// `libvirt.live_migration_inbound_addr`
pub const LIVE_MIGRATION_INBOUND_ADDR: Opt<Option<String>> = Opt::string("libvirt", "live_migration_inbound_addr")
    .roles(COMPUTE)
    .help("The address at which this host takes guests that are migrated live. Not set: its host name.")
    .optional();
/// `libvirt.live_migration_scheme`
pub const LIVE_MIGRATION_SCHEME: Opt<String> =
    Opt::choice("libvirt", "live_migration_scheme", &["tcp", "tls", "ssh"]).default("tcp").roles(COMPUTE).help(
        "How libvirt speaks to the libvirt that guests are sent to. tcp is neither encrypted nor authenticated by itself.",
    );

/// `vnc.server_listen`
pub const VNC_SERVER_LISTEN: Opt<String> =
    Opt::string("vnc", "server_listen").default("127.0.0.1").roles(COMPUTE).help(
        "The address that the screens of guests listen on. Proxies of consoles must reach it, and nobody else should: \
         without vnc_tls or vnc_password in QEMU's configuration, whoever reaches it sees the screen.",
    );
/// `spice.enabled`
pub const SPICE_ENABLED: Opt<bool> = Opt::boolean("spice", "enabled").default("false").roles(COMPUTE).help(
    "Whether the guests of this host have a screen over SPICE, besides the one over VNC. Guests that were made before have it \
     once they are resized or migrated.",
);
/// `spice.agent_enabled`
pub const SPICE_AGENT_ENABLED: Opt<bool> = Opt::boolean("spice", "agent_enabled").default("true").roles(COMPUTE).help(
    "Whether guests with a screen over SPICE have a channel for its agent inside of them, which takes the pointer's position \
     and the size of the screen from the client.",
);
/// `spice.server_listen`
pub const SPICE_SERVER_LISTEN: Opt<String> =
    Opt::string("spice", "server_listen").default("127.0.0.1").roles(COMPUTE).help(
        "The address that screens over SPICE listen on. Proxies of consoles must reach it, and nobody else should: without \
         spice_password in QEMU's configuration, whoever reaches it sees the screen.",
    );
/// `spice.require_secure`
pub const SPICE_REQUIRE_SECURE: Opt<bool> =
    Opt::boolean("spice", "require_secure").default("false").roles(COMPUTE).help(
        "Whether screens over SPICE are served over TLS alone. It needs spice_tls in QEMU's configuration, and spice.ca_certs on \
         proxies.",
    );
/// `libvirt.volume_cache_mode`
pub const VOLUME_CACHE_MODE: Opt<String> =
    Opt::choice("libvirt", "volume_cache_mode", &["none", "writeback", "writethrough", "directsync"])
        .default("none")
        .roles(COMPUTE)
        .help("How this host caches volumes. Anything but none and directsync is unsafe for guests that move, and for volumes of several guests.");
/// `libvirt.volume_reconnect_delay`
pub const VOLUME_RECONNECT_DELAY: Opt<Duration> = Opt::seconds("libvirt", "volume_reconnect_delay", 0, 86400)
    .default("300")
    .roles(COMPUTE)
    .help("How long a guest that stands still since its volume failed (volume_error_policy stop) is made to go on once the volume is there again. After that, an administrator must unpause it.");
/// `libvirt.volume_error_policy`
pub const VOLUME_ERROR_POLICY: Opt<String> =
    Opt::choice("libvirt", "volume_error_policy", &["stop", "report", "enospace"])
        .default("stop")
        .roles(COMPUTE)
        .help("What happens to a guest whose volume fails. stop: it stands still until the volume is there again. report: it sees errors. enospace: it stands still when there is no space, and sees other errors.");
/// `libvirt.volume_tls_path`
pub const VOLUME_TLS_PATH: Opt<PathBuf> = Opt::path("libvirt", "volume_tls_path")
    .default("/etc/pki/libvirt-nbd")
    .roles(COMPUTE)
    .help("This host's certificate for volumes over NBD: ca-cert.pem, client-cert.pem, client-key.pem. Must be the folder that libvirt's qemu.conf names (nbd_tls_x509_cert_dir).");

/// All of them.
pub const DRIVER_OPTIONS: &[OptionDecl] = &[
    USE_COW_IMAGES.decl(),
    PREALLOCATE_IMAGES.decl(),
    INSTANCES_PATH.decl(),
    LIVE_MIGRATION_INBOUND_ADDR.decl(),
    LIVE_MIGRATION_SCHEME.decl(),
    VNC_SERVER_LISTEN.decl(),
    SPICE_ENABLED.decl(),
    SPICE_AGENT_ENABLED.decl(),
    SPICE_SERVER_LISTEN.decl(),
    SPICE_REQUIRE_SECURE.decl(),
    VOLUME_CACHE_MODE.decl(),
    VOLUME_RECONNECT_DELAY.decl(),
    VOLUME_ERROR_POLICY.decl(),
    VOLUME_TLS_PATH.decl(),
];
