//! The client of an outside Neutron against a `nova-all` of another process, found by its catalog.

use std::sync::Arc;

use nova::network::{NeutronClient, NeutronOptions};
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, ProjectId, RequestId};
use nova_core::network::{
    InstanceNetworks, NetworkService, NetworkServiceError, RequestedInterface, RequestedNetworks,
};
use nova_examples::process::{OsEntropy, SystemClock};

use crate::support::Cloud;

#[test]
fn a_neutron_of_another_process_gives_and_takes_interfaces() {
    let mut cloud = Cloud::started("");
    let account = cloud.account("nova");
    let options = NeutronOptions::new(cloud.url("/identity/v3"), account.username.clone(), account.password.clone());
    let options = NeutronOptions {
        account: nova::outside::Account { project_name: account.project.clone(), ..options.account },
        ..options
    };
    let entropy = Arc::new(OsEntropy);
    let neutron = NeutronClient::new(options, Arc::new(SystemClock), entropy.clone()).unwrap();
    let project = ProjectId::new("somebody");
    let context = RequestContext {
        project_id: project.clone(),
        roles: vec!["member".into()],
        ..RequestContext::internal(RequestId::generate(&*entropy))
    };
    let wanted = InstanceNetworks {
        instance_id: InstanceId::generate(&*entropy),
        project_id: project,
        hostname: "web".into(),
        availability_zone: None,
        host: Some(HostName::new("host-9")),
        security_groups: Vec::new(),
        requested: RequestedNetworks::Auto,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(async {
        neutron.validate(&context, &wanted.requested, 1).await.unwrap();
        let made = neutron.allocate(&context, &wanted).await.unwrap();
        assert_eq!(made.len(), 1);
        let vif = &made[0];
        assert!(!vif.addresses.is_empty() && vif.delete_with_instance, "{vif:?}");
        assert_eq!(vif.host, wanted.host);
        made
    });
    // It dies and comes back: the client goes on, and nothing is made twice.
    cloud.kill();
    cloud.start();
    runtime.block_on(async {
        let context = context.clone();
        assert_eq!(neutron.allocate(&context, &wanted).await.unwrap(), made);
        let shown = neutron.interfaces(&context, &[wanted.instance_id]).await.unwrap();
        assert_eq!(shown.into_iter().map(|(_, vif)| vif).collect::<Vec<_>>(), made);
        let foreign = InstanceNetworks {
            instance_id: InstanceId::generate(&*entropy),
            project_id: "nobody".into(),
            requested: RequestedNetworks::These(vec![RequestedInterface {
                network_id: Some(made[0].network_id),
                ..Default::default()
            }]),
            ..wanted.clone()
        };
        let stranger = RequestContext { project_id: "nobody".into(), ..context.clone() };
        let refused = neutron.allocate(&stranger, &foreign).await.unwrap_err();
        assert!(matches!(refused, NetworkServiceError::NetworkNotFound { .. }), "{refused:?}");
        neutron.deallocate(&context, wanted.instance_id).await.unwrap();
        neutron.deallocate(&context, wanted.instance_id).await.unwrap();
        assert!(neutron.interfaces(&context, &[wanted.instance_id]).await.unwrap().is_empty());
    });
    cloud.assert_checked();
}
