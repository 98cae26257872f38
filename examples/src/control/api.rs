//! The door for users: identity, images, networks, volumes and the compute API behind one listener.

use std::path::Path;
use std::sync::Arc;

use nova::api::compute::{ComputeApi, ComputeOptions, compute_application};
use nova::api::health::Health;
use nova::api::{Api, ApiOptions, FilterDeps, Registry, Server, ServerOptions};
use nova::conductor::BusOrders;
use nova::console::Access;
use nova::identity::{Catalog, IdentityManager, IdentityOptions};
use nova::image::{ImageManager, ImageOptions};
use nova::live::Live;
use nova::metadata::{GuestOptions, MetadataManager, ProxyOptions};
use nova::network::NetworkManager;
use nova_core::contracts::{ImageService, NetworkService};
use nova_core::options::Config;
use nova_core::rpc::Role;
use tokio::sync::watch;

use super::{Background, Foundation};
use crate::cli::StartError;
use crate::clouds;
use crate::health::Vitals;

/// The API, built; it answers from [`ApiPart::serve`] on.
pub struct ApiPart {
    /// How clients reach it, without a path.
    pub public_url: String,
    /// This was the first start: `clouds.yaml` is new.
    pub first_start: bool,
    compute: Live<ComputeOptions>,
    identity: Arc<IdentityManager>,
    images: Arc<ImageManager>,
    listeners: Vec<(Server, Api)>,
    closing: watch::Sender<bool>,
}

impl ApiPart {
    /// Takes the address, makes users at the first start, and gets everything ready but the listening.
    pub async fn build(
        config: &Config,
        state: &Path,
        on: &Foundation,
        background: &Background,
    ) -> Result<Self, StartError> {
        let options = Arc::new(ApiOptions::from_config(config));
        let main = bind(&options, &options.listen).await?;
        let address = main.address().map_err(|e| StartError::new("the API cannot be served", &e))?;
        let public_url = options.public_url.clone().unwrap_or_else(|| format!("http://{address}"));

        let identity = IdentityManager::open(
            on.store.clone(),
            on.clock.clone(),
            on.entropy.clone(),
            catalog(&options, &public_url),
            IdentityOptions::from_config(config),
        );
        let identity = Arc::new(identity.await.map_err(|e| StartError::new("identity cannot start", &e))?);
        let network = Arc::new(on.books(config, Role::Api));
        let outside = on.outside_network(config)?;
        begin_networks(&identity, &network).await?;
        let first_start = clouds::write_at_first_start(&identity, state, &public_url).await?;
        background.spawn(|stop| identity.clone().run(stop));

        let image_options = ImageOptions::from_config(config);
        let images = ImageManager::open(on.store.clone(), on.clock.clone(), on.entropy.clone(), image_options);
        let images = Arc::new(images.await.map_err(|e| StartError::new("the image service cannot start", &e))?);
        background.spawn(|stop| images.clone().run(stop));

        let compute = Live::new(ComputeOptions::from_config(config));
        let interfaces: Arc<dyn NetworkService> = match &outside {
            Some(neutron) => Arc::new(neutron.clone()),
            None => network.clone(),
        };
        let guests = GuestOptions::from_config(config);
        let metadata = MetadataManager::new(on.store.clone(), Some(interfaces.clone()), on.entropy.clone(), guests);
        let compute_api = ComputeApi {
            store: on.store.clone(),
            images: images.clone(),
            image_books: Some(images.clone()),
            volumes: Some(on.block_storage(config, Role::Api)?),
            identity: identity.clone(),
            network: interfaces,
            books: outside.is_none().then(|| network.clone()),
            neutron: outside,
            orders: Arc::new(BusOrders::new(on.client(config, Role::Api))),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: compute.clone(),
        };
        let volumes = on.volume_books(config, Role::Api, images.clone());
        let deps = FilterDeps {
            identity: identity.clone(),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: options.clone(),
        };
        let mut registry = Registry::new(deps);
        registry
            .application(compute_application(Arc::new(compute_api)))
            .application(nova::identity::application(identity.clone()))
            .application(nova::image::application(images.clone()))
            .application(nova::api::network::application(network.clone()))
            .application(nova::api::volume::application(Arc::new(volumes)))
            .application(nova::metadata::application(metadata, ProxyOptions::from_config(config)))
            .application(health(on));
        let listeners = bind_all(&options, main, registry).await?;
        let closing = watch::Sender::new(false);
        Ok(Self { public_url, first_start, compute, identity, images, listeners, closing })
    }

    /// Where hosts of this process get images.
    pub fn images(&self) -> Arc<dyn ImageService> {
        self.images.clone()
    }

    /// Who has which roles, for consoles of this process.
    pub fn access(&self) -> Arc<dyn Access> {
        self.identity.clone()
    }

    /// Answers requests from now on.
    pub fn serve(&mut self, background: &Background) {
        for (server, api) in self.listeners.drain(..) {
            let closed = self.closing.subscribe();
            background.spawn(|_| server.serve(api, closed));
        }
    }

    /// Takes over what may change.
    pub fn reload(&self, config: &Config) {
        self.compute.set(ComputeOptions::from_config(config));
        self.identity.reload(&IdentityOptions::from_config(config));
        self.images.reload(&ImageOptions::from_config(config));
    }

    /// Takes no more requests; those in hand are answered.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Makes the outer network before the first account: while there is none, nobody can have removed it.
async fn begin_networks(identity: &IdentityManager, network: &NetworkManager) -> Result<(), StartError> {
    let began = match identity.has_admin().await {
        Ok(true) => Ok(()),
        Ok(false) => network.bootstrap().await,
        Err(error) => Err(error),
    };
    began.map_err(|error| StartError::new("the first network cannot be made", &error))
}

/// Every application at its address.
async fn bind_all(options: &ApiOptions, main: Server, registry: Registry) -> Result<Vec<(Server, Api)>, StartError> {
    let mut listeners = Vec::new();
    let (mut main, apis) = (Some(main), registry.build());
    for (address, api) in apis.map_err(|e| StartError::config(vec![e.to_string()]))? {
        let taken = if address == options.listen { main.take() } else { None };
        let server = match taken {
            Some(server) => server,
            None => bind(options, &address).await?,
        };
        listeners.push((server, api));
    }
    Ok(listeners)
}

/// What the catalog tells: the applications that are enabled, where they are.
fn catalog(options: &ApiOptions, public_url: &str) -> Catalog {
    let known = [
        ("identity", "identity", "keystone", "/identity/v3"),
        ("osapi_compute", "compute", "nova", "/compute/v2.1"),
        ("image", "image", "glance", "/image"),
        ("network", "network", "neutron", "/network"),
        ("volume", "block-storage", "cinder", "/volume/v3"),
        // The name under which older clients look for it.
        ("volume", "volumev3", "cinderv3", "/volume/v3"),
    ];
    let mut catalog = Catalog::new(public_url);
    for (application, service_type, name, path) in known {
        let Some(enabled) = options.enabled_apis.iter().find(|e| e.name == application) else { continue };
        let place = match &enabled.address {
            Some(address) => format!("http://{address}{path}"),
            None => path.to_owned(),
        };
        catalog = catalog.service(service_type, name, &place);
    }
    catalog
}

async fn bind(options: &ApiOptions, address: &str) -> Result<Server, StartError> {
    let server = Server::bind(address, ServerOptions::from(options)).await;
    server.map_err(|e| StartError::new("the API cannot be served", &e))
}

fn health(on: &Foundation) -> nova::api::Application {
    let vitals = Vitals::of(&on.store, &on.bus);
    Health::new(vitals.checks, Some(vitals.metrics)).application()
}
