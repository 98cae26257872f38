//! What a guest finds on its config drive (nova/virt/configdrive.py, nova/api/metadata/base.py).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::BuildOrder;
use nova_virt::ConfigDrive;
use serde_json::json;

/// Versions of the OpenStack metadata format that guests look for; all have the same content here.
const VERSIONS: [&str; 2] = ["latest", "2018-08-27"];

/// The files of a guest's config drive.
pub(crate) fn contents(instance: InstanceId, order: &BuildOrder) -> ConfigDrive {
    let keys: Vec<_> =
        order.keys.iter().map(|(name, data)| json!({"name": name, "type": "ssh", "data": data})).collect();
    let mut meta = json!({
        "uuid": instance,
        "name": order.display_name,
        "hostname": order.hostname,
        "launch_index": order.launch_index,
        "availability_zone": order.availability_zone,
        "project_id": order.project_id,
        "reservation_id": order.reservation_id,
        "meta": order.metadata,
        "public_keys": order.keys,
        "keys": keys,
        "devices": [],
    });
    if let Some(password) = &order.admin_password {
        meta["admin_pass"] = json!(password);
    }
    let network = json!({"links": [], "networks": [], "services": []});
    // The API has checked that it is base64.
    let user_data = order.user_data.as_ref().and_then(|data| STANDARD.decode(data).ok());
    let mut files = BTreeMap::new();
    for version in VERSIONS {
        files.insert(format!("openstack/{version}/meta_data.json"), meta.to_string().into_bytes());
        files.insert(format!("openstack/{version}/network_data.json"), network.to_string().into_bytes());
        files.insert(format!("openstack/{version}/vendor_data.json"), b"{}".to_vec());
        if let Some(data) = &user_data {
            files.insert(format!("openstack/{version}/user_data"), data.clone());
        }
    }
    ConfigDrive { files }
}
