//! The way in.

use super::*;

/// The API in front of the cloud, and tokens for as long as any test runs.
pub(super) struct Door {
    pub(super) api: Api,
    pub(super) token: String,
    pub(super) admin_token: String,
    pub(super) project: ProjectId,
}

pub(super) async fn door(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    orders: BusOrders,
    wanted: &CloudOptions,
    images: Option<Arc<ImageManager>>,
    volumes: Option<Arc<dyn BlockStorage>>,
) -> Door {
    let options = IdentityOptions {
        token_expiration: wanted.token_life,
        password: PasswordOptions::cheap(),
        ..IdentityOptions::default()
    };
    let catalog = Catalog::of_this_process("http://cloud");
    let identity = IdentityManager::open(store.clone(), clock.clone(), entropy.clone(), catalog, options);
    let identity = Arc::new(identity.await.unwrap());
    identity.bootstrap().await.unwrap();
    let user = store.list_users(Some("demo")).await.unwrap().remove(0).id;
    let project = store.list_projects(Some("demo")).await.unwrap().remove(0).id;
    let (token, _) = identity.issue_token(&user, Some(&project)).await.unwrap();
    let admin = store.list_users(Some("admin")).await.unwrap().remove(0).id;
    let admin_project = store.list_projects(Some("admin")).await.unwrap().remove(0).id;
    let (admin_token, _) = identity.issue_token(&admin, Some(&admin_project)).await.unwrap();
    let network = NetworkManager::new(store.clone(), clock.clone(), entropy.clone(), NetworkOptions::default());
    let network = Arc::new(network);
    let compute = ComputeApi {
        store: store.clone(),
        images: match &images {
            Some(images) => images.clone(),
            None => Arc::new(AnyImage(store.clone())),
        },
        image_books: images.clone(),
        volumes,
        identity: identity.clone(),
        network: network.clone(),
        books: Some(network),
        neutron: None,
        orders: Arc::new(orders),
        clock: clock.clone(),
        entropy: entropy.clone(),
        options: Live::new(ApiComputeOptions {
            limits: Limits { instances: wanted.instances, cores: None, ram: None },
            reclaim_instance_interval: wanted.conductor.reclaim_instance_interval,
            allow_resize_to_same_host: wanted.same_host,
            offloads_at_once: wanted.conductor.moves.shelved_offload_time == Some(Duration::ZERO),
            server_groups: None,
            server_group_members: None,
            instance_build_timeout: Duration::from_secs(600),
            operation_timeout: Duration::from_secs(600),
            ..ApiComputeOptions::default()
        }),
    };
    let enabled = ["osapi_compute"].into_iter().chain(images.is_some().then_some("image"));
    let enabled_apis = enabled.map(|name| EnabledApi { name: name.into(), address: None }).collect();
    let deps = FilterDeps {
        identity,
        clock: clock.clone(),
        entropy: entropy.clone(),
        options: Arc::new(ApiOptions { enabled_apis, ..ApiOptions::default() }),
    };
    let mut registry = Registry::new(deps);
    registry.application(compute_application(Arc::new(compute)));
    if let Some(images) = images {
        registry.application(nova::image::application(images));
    }
    let (_, api) = registry.build().unwrap().remove(0);
    Door { api, token, admin_token, project }
}
