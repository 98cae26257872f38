//! `/extensions`: a list that has been frozen since extensions were abolished (nova/api/openstack/compute/
//! extension_info.py). Old clients look names up in it; what is offered, microversions and routes tell.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::compute::input::strict_query;
use crate::api::policy::enforce;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// Aliases and names, by alias.
const EXTENSIONS: [(&str, &str); 99] = [
    ("NMN", "Multinic"),
    ("OS-DCF", "DiskConfig"),
    ("OS-EXT-AZ", "ExtendedAvailabilityZone"),
    ("OS-EXT-IMG-SIZE", "ImageSize"),
    ("OS-EXT-IPS", "ExtendedIps"),
    ("OS-EXT-IPS-MAC", "ExtendedIpsMac"),
    ("OS-EXT-SRV-ATTR", "ExtendedServerAttributes"),
    ("OS-EXT-STS", "ExtendedStatus"),
    ("OS-FLV-DISABLED", "FlavorDisabled"),
    ("OS-FLV-EXT-DATA", "FlavorExtraData"),
    ("OS-SCH-HNT", "SchedulerHints"),
    ("OS-SRV-USG", "ServerUsage"),
    ("os-access-ips", "AccessIPs"),
    ("os-admin-actions", "AdminActions"),
    ("os-admin-password", "AdminPassword"),
    ("os-agents", "Agents"),
    ("os-aggregates", "Aggregates"),
    ("os-assisted-volume-snapshots", "AssistedVolumeSnapshots"),
    ("os-attach-interfaces", "AttachInterfaces"),
    ("os-availability-zone", "AvailabilityZone"),
    ("os-baremetal-ext-status", "BareMetalExtStatus"),
    ("os-baremetal-nodes", "BareMetalNodes"),
    ("os-block-device-mapping", "BlockDeviceMapping"),
    ("os-block-device-mapping-v2-boot", "BlockDeviceMappingV2Boot"),
    ("os-cell-capacities", "CellCapacities"),
    ("os-cells", "Cells"),
    ("os-certificates", "Certificates"),
    ("os-cloudpipe", "Cloudpipe"),
    ("os-cloudpipe-update", "CloudpipeUpdate"),
    ("os-config-drive", "ConfigDrive"),
    ("os-console-auth-tokens", "ConsoleAuthTokens"),
    ("os-console-output", "ConsoleOutput"),
    ("os-consoles", "Consoles"),
    ("os-create-backup", "CreateBackup"),
    ("os-create-server-ext", "Createserverext"),
    ("os-deferred-delete", "DeferredDelete"),
    ("os-evacuate", "Evacuate"),
    ("os-extended-evacuate-find-host", "ExtendedEvacuateFindHost"),
    ("os-extended-floating-ips", "ExtendedFloatingIps"),
    ("os-extended-hypervisors", "ExtendedHypervisors"),
    ("os-extended-networks", "ExtendedNetworks"),
    ("os-extended-quotas", "ExtendedQuotas"),
    ("os-extended-rescue-with-image", "ExtendedRescueWithImage"),
    ("os-extended-services", "ExtendedServices"),
    ("os-extended-services-delete", "ExtendedServicesDelete"),
    ("os-extended-status", "ExtendedStatus"),
    ("os-extended-volumes", "ExtendedVolumes"),
    ("os-fixed-ips", "FixedIPs"),
    ("os-flavor-access", "FlavorAccess"),
    ("os-flavor-extra-specs", "FlavorExtraSpecs"),
    ("os-flavor-manage", "FlavorManage"),
    ("os-flavor-rxtx", "FlavorRxtx"),
    ("os-flavor-swap", "FlavorSwap"),
    ("os-floating-ip-dns", "FloatingIpDns"),
    ("os-floating-ip-pools", "FloatingIpPools"),
    ("os-floating-ips", "FloatingIps"),
    ("os-floating-ips-bulk", "FloatingIpsBulk"),
    ("os-fping", "Fping"),
    ("os-hide-server-addresses", "HideServerAddresses"),
    ("os-hosts", "Hosts"),
    ("os-hypervisor-status", "HypervisorStatus"),
    ("os-hypervisors", "Hypervisors"),
    ("os-instance-actions", "InstanceActions"),
    ("os-instance_usage_audit_log", "OSInstanceUsageAuditLog"),
    ("os-keypairs", "Keypairs"),
    ("os-lock-server", "LockServer"),
    ("os-migrate-server", "MigrateServer"),
    ("os-migrations", "Migrations"),
    ("os-multiple-create", "MultipleCreate"),
    ("os-networks", "Networks"),
    ("os-networks-associate", "NetworkAssociationSupport"),
    ("os-pause-server", "PauseServer"),
    ("os-personality", "Personality"),
    ("os-preserve-ephemeral-rebuild", "PreserveEphemeralOnRebuild"),
    ("os-quota-class-sets", "QuotaClasses"),
    ("os-quota-sets", "Quotas"),
    ("os-rescue", "Rescue"),
    ("os-security-group-default-rules", "SecurityGroupDefaultRules"),
    ("os-security-groups", "SecurityGroups"),
    ("os-server-diagnostics", "ServerDiagnostics"),
    ("os-server-external-events", "ServerExternalEvents"),
    ("os-server-group-quotas", "ServerGroupQuotas"),
    ("os-server-groups", "ServerGroups"),
    ("os-server-list-multi-status", "ServerListMultiStatus"),
    ("os-server-password", "ServerPassword"),
    ("os-server-sort-keys", "ServerSortKeys"),
    ("os-server-start-stop", "ServerStartStop"),
    ("os-services", "Services"),
    ("os-shelve", "Shelve"),
    ("os-simple-tenant-usage", "SimpleTenantUsage"),
    ("os-suspend-server", "SuspendServer"),
    ("os-tenant-networks", "OSTenantNetworks"),
    ("os-used-limits", "UsedLimits"),
    ("os-used-limits-for-admin", "UsedLimitsForAdmin"),
    ("os-user-data", "UserData"),
    ("os-user-quotas", "UserQuotas"),
    ("os-virtual-interfaces", "VirtualInterfaces"),
    ("os-volume-attachment-update", "VolumeAttachmentUpdate"),
    ("os-volumes", "Volumes"),
];

/// The one that only `/v2` shows besides.
const LEGACY: (&str, &str) = ("OS-EXT-VIF-NET", "ExtendedVIFNet");

/// The resource.
#[derive(Debug, Default)]
pub struct Extensions;

impl Extensions {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:extensions", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let list: Vec<_> = listed(request.lenient).into_iter().map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "extensions": list })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:extensions", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let alias = request.param("id");
        let found = listed(request.lenient).into_iter().find(|(a, _)| *a == alias);
        let extension = found.ok_or_else(ApiError::no_such_resource)?;
        Ok(Response::json(StatusCode::OK, &json!({"extension": view(extension)})))
    }
}

impl Resource for Extensions {
    fn name(&self) -> &'static str {
        "extensions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/extensions", &self, Self::index),
            route(Method::GET, "/extensions/{id}", &self, Self::show),
        ]
    }
}

fn listed(lenient: bool) -> Vec<(&'static str, &'static str)> {
    let mut list = EXTENSIONS.to_vec();
    if lenient {
        list.push(LEGACY);
        list.sort_unstable();
    }
    list
}

fn view((alias, name): (&str, &str)) -> Value {
    json!({
        "alias": alias,
        "name": name,
        "description": format!("{name} support."),
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
        "links": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_by_alias_and_holds_what_clients_look_for() {
        assert!(EXTENSIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(EXTENSIONS.contains(&("os-hosts", "Hosts")));
        assert!(EXTENSIONS.contains(&("os-consoles", "Consoles")));
        assert_eq!(listed(true).len(), 100);
        assert_eq!(view(("a", "B"))["links"], json!([]));
    }
}
