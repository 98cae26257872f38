//! The host's own part of a build, as steps: the image into the cache, the ports into the host's network, the guest onto the
//! hypervisor.

use std::path::PathBuf;

use async_trait::async_trait;
use nova_core::contracts::ImageServiceError;
use nova_core::entropy::Entropy;
use nova_core::flavor::Resources;
use nova_core::rpc::compute::{BuildOrder, Order};
use nova_virt::{DiskRole, DiskSource, DiskSpec, ErrorKind, GuestSpec, Hardware, HypervisorError, InterfaceSpec};

use crate::agent::Agent;
use crate::config_drive;
use crate::image_cache::{ImageCacheError, format_of};
use crate::network::PlumbingError;
use crate::tracker::{Claim, ClaimError};
use crate::volumes::attachment;

/// Why this host could not make a guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Nothing left to give.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No image.
    #[error(transparent)]
    Image(#[from] ImageCacheError),
    /// Its image makes a larger disk than its flavor has (nova/exception.py, `FlavorDiskSmallerThanImage`).
    #[error("Flavor's disk is too small for requested image. Flavor disk is {flavor} bytes, image is {image} bytes.")]
    TooSmall {
        /// What the flavor has.
        flavor: u64,
        /// What the image needs.
        image: u64,
    },
    /// The host's network does not have its ports.
    #[error("the host's network does not have the ports")]
    Network(#[source] PlumbingError),
    /// The hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// A later order came meanwhile.
    #[error("a later order came")]
    Overtaken,
}

impl BuildError {
    /// May another host do better?
    pub(crate) fn retryable(&self) -> bool {
        match self {
            Self::Claim(_) | Self::Network(_) => true,
            // An image that is gone or damaged is so for every host; the service that does not answer may be this host's
            // own trouble, and so may its disk.
            Self::Image(ImageCacheError::Fetch(error)) => matches!(error, ImageServiceError::Unavailable { .. }),
            Self::Image(error) => {
                !matches!(error, ImageCacheError::Damaged { .. } | ImageCacheError::Unacceptable { .. })
            }
            Self::TooSmall { .. } => false,
            Self::Hypervisor(error) => error.kind() != ErrorKind::InvalidInput,
            Self::Overtaken => false,
        }
    }

    /// Does it speak against the host? What an owner asked for must not take hosts out.
    pub(crate) fn is_the_hosts(&self) -> bool {
        self.retryable() && !matches!(self, Self::Claim(_))
    }

    /// What the owner of the server may read: no paths, no driver's text.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Claim(_) => "The host has not enough resources left.".into(),
            Self::TooSmall { .. } => self.to_string(),
            Self::Image(ImageCacheError::Unacceptable { id, source }) => {
                format!("Image {id} is unacceptable: {source}")
            }
            Self::Image(ImageCacheError::Damaged { id, .. }) => {
                format!("Image {id} is unacceptable: its data differs from what was uploaded.")
            }
            Self::Image(ImageCacheError::Fetch(
                error @ (ImageServiceError::NotFound { .. } | ImageServiceError::NotActive { .. }),
            )) => error.to_string(),
            Self::Image(_) => "The image could not be fetched.".into(),
            // As Nova says it.
            Self::Network(_) => "Virtual Interface creation failed".into(),
            Self::Hypervisor(_) => "Build of the instance aborted: the hypervisor could not make the guest.".into(),
            Self::Overtaken => "The build was overtaken by a later request.".into(),
        }
    }
}

impl Agent {
    /// The image that a new root disk is made from, in the cache; `None` where the driver reads none. One that makes a larger
    /// disk than the flavor has is refused before a byte of it is fetched (OSSA-2013-012); a flavor without a disk takes the
    /// image's.
    pub(crate) async fn base_for_new_disk(&self, body: &BuildOrder) -> Result<Option<PathBuf>, BuildError> {
        let Some(image) = body.image.as_ref().filter(|_| self.hypervisor.capabilities().needs_images) else {
            return Ok(None);
        };
        let flavor = body.root_gb << 30;
        if flavor > 0 && image.virtual_size > flavor {
            return Err(BuildError::TooSmall { flavor, image: image.virtual_size });
        }
        Ok(Some(self.images.get(image, body.image_grant.as_ref()).await?))
    }
}

/// What the steps of one build hand on.
pub(crate) struct BuildContext<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) order: &'a Order<BuildOrder>,
    pub(crate) claim: Option<Claim>,
    pub(crate) base: Option<PathBuf>,
    /// How its interfaces are plugged in.
    pub(crate) interfaces: Vec<InterfaceSpec>,
    /// What was here before this build; only a guest that it made itself is its own to remove.
    pub(crate) guest: Found,
}

/// Was there a guest before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not looked yet: nothing was touched.
    Unknown,
    /// None: what is there now is this build's.
    Nothing,
    /// One, of an earlier copy of this order or of an earlier order.
    Guest,
}

/// One step of a build; either half may run twice.
#[async_trait]
pub(crate) trait Step: Send + Sync {
    async fn run(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError>;
    async fn undo(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError>;
}

/// All of them, in order.
pub(crate) const STEPS: [&dyn Step; 4] = [&HoldResources, &FetchImage, &ReadyNetwork, &Spawn];

/// What the guest takes of the host.
pub(crate) fn wanted(order: &BuildOrder) -> Resources {
    let flavor = Resources {
        // CPUs of its own are none of the shared ones.
        vcpus: if order.placement.as_ref().is_some_and(|p| p.is_dedicated()) { 0 } else { u64::from(order.vcpus) },
        memory_mb: order.memory_mb,
        disk_gb: order.root_gb + order.ephemeral_gb + order.swap_mb.div_ceil(1024),
    };
    order.resources.unwrap_or(flavor)
}

struct HoldResources;

#[async_trait]
impl Step for HoldResources {
    async fn run(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        let wanted = wanted(&cx.order.body);
        cx.claim = Some(cx.agent.tracker.claim(cx.order.instance_id, wanted)?);
        Ok(())
    }

    async fn undo(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        cx.claim = None;
        Ok(())
    }
}

struct FetchImage;

#[async_trait]
impl Step for FetchImage {
    async fn run(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        cx.base = cx.agent.base_for_new_disk(&cx.order.body).await?;
        Ok(())
    }

    async fn undo(&self, _cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        // The cache is shared: what is in it serves the next guest.
        Ok(())
    }
}

/// The host's network has the guest's ports, with their rules in force, before the guest is there.
struct ReadyNetwork;

#[async_trait]
impl Step for ReadyNetwork {
    async fn run(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        let vifs = &cx.order.body.vifs;
        if !vifs.is_empty() {
            cx.interfaces = cx.agent.network.ready(vifs).await.map_err(BuildError::Network)?;
        }
        Ok(())
    }

    async fn undo(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        // A guest that was here before keeps its network.
        if cx.guest != Found::Guest && !cx.order.body.vifs.is_empty() {
            cx.agent.network.gone(cx.order.instance_id).await;
        }
        Ok(())
    }
}

struct Spawn;

#[async_trait]
impl Step for Spawn {
    async fn run(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        if cx.agent.instances.overtaken(cx.order.instance_id, cx.order.epoch) {
            return Err(BuildError::Overtaken);
        }
        cx.guest = match cx.agent.hypervisor.info(cx.order.instance_id).await {
            Ok(_) => Found::Guest,
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            Err(error) => return Err(error.into()),
        };
        let guest = guest(cx.order, cx.base.clone(), &*cx.agent.entropy);
        let guest = GuestSpec { interfaces: cx.interfaces.clone(), ..guest };
        Ok(cx.agent.hypervisor.spawn(&guest).await?)
    }

    async fn undo(&self, cx: &mut BuildContext<'_>) -> Result<(), BuildError> {
        match cx.guest {
            Found::Nothing => Ok(cx.agent.hypervisor.destroy(cx.order.instance_id).await?),
            Found::Unknown | Found::Guest => Ok(()),
        }
    }
}

/// The guest that an order describes, its interfaces aside; `base`: its image, where the driver reads images.
pub(crate) fn guest(order: &Order<BuildOrder>, base: Option<PathBuf>, entropy: &dyn Entropy) -> GuestSpec {
    let body = &order.body;
    let mut disks = Vec::new();
    match base {
        // It boots from a volume.
        _ if body.volumes.iter().any(|volume| volume.boot) => {}
        Some(base) => {
            let format = format_of(&base);
            let source = DiskSource::Image { base, format };
            disks.push(DiskSpec { role: DiskRole::Root, source, size_gb: body.root_gb });
        }
        None if body.root_gb > 0 => {
            disks.push(DiskSpec { role: DiskRole::Root, source: DiskSource::Blank, size_gb: body.root_gb });
        }
        None => {}
    }
    let ephemerals = body.ephemerals().into_iter().map(|size_gb| (DiskRole::Ephemeral, size_gb));
    for (role, size_gb) in ephemerals.chain([(DiskRole::Swap, body.swap_mb.div_ceil(1024))]) {
        if size_gb > 0 {
            disks.push(DiskSpec { role, source: DiskSource::Blank, size_gb });
        }
    }
    GuestSpec {
        instance: order.instance_id,
        epoch: order.epoch,
        name: body.name.clone(),
        display_name: body.display_name.clone(),
        project_id: body.project_id.clone(),
        user_id: body.user_id.clone(),
        flavor_name: body.flavor_name.clone(),
        image_id: body.image.as_ref().map(|image| image.id.to_string()),
        vcpus: body.vcpus,
        memory_mb: body.memory_mb,
        disks,
        config_drive: body.config_drive.then(|| config_drive::contents(order.instance_id, body, entropy)),
        interfaces: Vec::new(),
        running: true,
        held: body.held,
        placement: body.placement.clone(),
        hardware: Hardware {
            extra_specs: body.extra_specs.clone(),
            image_properties: body.image.as_ref().map_or(&body.image_properties, |image| &image.properties).clone(),
        },
        volumes: body.volumes.iter().map(attachment).collect(),
        earlier_console: body.earlier_console.clone(),
    }
}
