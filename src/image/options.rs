//! What an operator may set about the built-in image service.

use std::path::PathBuf;
use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl, common};

const API: &[&str] = &["nova-api"];

/// `glance_store.filesystem_store_datadir`
pub const DATA_PATH: Opt<PathBuf> = Opt::path("glance_store", "filesystem_store_datadir")
    .default("$state_path/images")
    .roles(API)
    .help("Where the data of images lies. Only this service may be able to enter it.");
/// `image.max_virtual_size`
pub const MAX_VIRTUAL_SIZE: Opt<i64> = Opt::integer("image", "max_virtual_size", 1, 1 << 30)
    .default("10240")
    .unit("GiB")
    .roles(API)
    .help("The largest disk that an image may make, whatever it takes as a file.");
/// `image.max_images`
pub const MAX_IMAGES: Opt<i64> = Opt::integer("image", "max_images", 1, 1_000_000)
    .default("1000")
    .unit("images per project")
    .roles(API)
    .help("Images that a project may have.");
/// `image.user_storage_quota`
pub const USER_STORAGE_QUOTA: Opt<i64> = Opt::integer("image", "user_storage_quota", 0, i64::MAX)
    .default("0")
    .unit("bytes per project")
    .roles(API)
    .help("What all images of a project may take together. 0 is no limit.");
/// `image.image_property_quota`
pub const IMAGE_PROPERTY_QUOTA: Opt<i64> = Opt::integer("image", "image_property_quota", 0, 100_000)
    .default("128")
    .unit("properties")
    .roles(API)
    .help("Properties that an image may have.");
/// `image.image_tag_quota`
pub const IMAGE_TAG_QUOTA: Opt<i64> = Opt::integer("image", "image_tag_quota", 0, 100_000)
    .default("128")
    .unit("tags")
    .roles(API)
    .help("Tags that an image may have.");
/// `image.max_uploads`
pub const MAX_UPLOADS: Opt<i64> = Opt::integer("image", "max_uploads", 1, 256)
    .default("32")
    .unit("uploads")
    .roles(API)
    .help("Uploads that are received at once; further ones wait.");
/// `image.upload_stall_timeout`
pub const UPLOAD_STALL_TIMEOUT: Opt<Duration> = Opt::seconds("image", "upload_stall_timeout", 1, 3600)
    .default("60")
    .roles(API)
    .help("How long an upload may go without a byte before it is given up.");
/// `image.limit_param_default`
pub const LIMIT_PARAM_DEFAULT: Opt<i64> = Opt::integer("image", "limit_param_default", 1, 100_000)
    .default("25")
    .unit("images")
    .roles(API)
    .help("Images of a list if the client does not say how many.");
/// `image.api_limit_max`
pub const API_LIMIT_MAX: Opt<i64> = Opt::integer("image", "api_limit_max", 1, 100_000)
    .default("1000")
    .unit("images")
    .roles(API)
    .help("Images of a list at most.");

/// Options that only the built-in image service has.
pub const IMAGE_OPTIONS: &[OptionDecl] = &[
    DATA_PATH.decl(),
    MAX_VIRTUAL_SIZE.decl(),
    MAX_IMAGES.decl(),
    USER_STORAGE_QUOTA.decl(),
    IMAGE_PROPERTY_QUOTA.decl(),
    IMAGE_TAG_QUOTA.decl(),
    MAX_UPLOADS.decl(),
    UPLOAD_STALL_TIMEOUT.decl(),
    LIMIT_PARAM_DEFAULT.decl(),
    API_LIMIT_MAX.decl(),
];

const GIB: u64 = 1 << 30;

/// Options of the built-in image service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// Where the data lies: one file per image, named by its id.
    pub data_path: PathBuf,
    /// The longest data of one image in bytes (Glance's `image_size_cap`).
    pub max_size: u64,
    /// The largest disk that an image may make, in bytes.
    pub max_virtual_size: u64,
    /// Images that one project may have.
    pub max_images: usize,
    /// Bytes that all images of one project may have together; 0 is no limit (Glance's `user_storage_quota`).
    pub project_quota: u64,
    /// Properties of one image (Glance's `image_property_quota`).
    pub max_properties: usize,
    /// Tags of one image (Glance's `image_tag_quota`).
    pub max_tags: usize,
    /// Uploads at once; further ones wait.
    pub max_uploads: usize,
    /// The longest time without a byte of an upload.
    pub stall_timeout: Duration,
    /// Items of a list if the client does not say (Glance's `limit_param_default`).
    pub default_limit: usize,
    /// Items of a list at most (Glance's `api_limit_max`).
    pub max_limit: usize,
}

impl ImageOptions {
    /// The defaults, with the data under `<state_path>/images`.
    pub fn new(state_path: impl Into<PathBuf>) -> Self {
        Self {
            data_path: state_path.into().join("images"),
            max_size: 1024 * GIB,
            max_virtual_size: 10 * 1024 * GIB,
            max_images: 1000,
            project_quota: 0,
            max_properties: 128,
            max_tags: 128,
            max_uploads: 32,
            stall_timeout: Duration::from_secs(60),
            default_limit: 25,
            max_limit: 1000,
        }
    }
}

impl ImageOptions {
    /// Reads what the configuration says. The registry must know [`IMAGE_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let bytes = |option: &Opt<i64>| u64::try_from(config.get(option)).unwrap_or_default();
        let count = |option: &Opt<i64>| usize::try_from(config.get(option)).unwrap_or(usize::MAX);
        Self {
            data_path: config.get(&DATA_PATH),
            max_size: bytes(&common::IMAGE_SIZE_CAP),
            max_virtual_size: bytes(&MAX_VIRTUAL_SIZE).saturating_mul(GIB),
            max_images: count(&MAX_IMAGES),
            project_quota: bytes(&USER_STORAGE_QUOTA),
            max_properties: count(&IMAGE_PROPERTY_QUOTA),
            max_tags: count(&IMAGE_TAG_QUOTA),
            max_uploads: count(&MAX_UPLOADS),
            stall_timeout: config.get(&UPLOAD_STALL_TIMEOUT),
            default_limit: count(&LIMIT_PARAM_DEFAULT),
            max_limit: count(&API_LIMIT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_core::options::Source;

    use super::*;

    #[test]
    fn the_declared_defaults_are_the_ones_of_the_struct() {
        let registry = common::registry().with(IMAGE_OPTIONS);
        let config = Config::load(&registry, [(Source::CommandLine, "state_path=/srv/nova")]).unwrap();
        assert_eq!(ImageOptions::from_config(&config), ImageOptions::new("/srv/nova"));
    }
}
