//! `GET /servers/{id}/diagnostics` (nova/api/openstack/compute/server_diagnostics.py; nova/api/openstack/compute/views/
//! server_diagnostics.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::rpc::compute::{Diagnostics, DiskDiagnostics, InterfaceDiagnostics};
use nova_core::state::{Action, PowerState, decide};
use serde_json::{Map, Value, json};

use super::actions::refused;
use super::{Servers, instance_not_found, owner};
use crate::api::compute::OrderError;
use crate::api::validate::known_query;
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

impl Servers {
    pub(super) async fn diagnostics(self: Arc<Self>, request: Request) -> HandlerResult {
        if request.version.at_least(102) {
            known_query(&request.query, &[])?;
        }
        let context = request.context()?;
        policy::enforce("os_compute_api:os-server-diagnostics", context)?;
        let id = request.param("id");
        let instance = self.api.visible_instance(context, id).await?;
        policy::enforce_on("os_compute_api:os-server-diagnostics", context, owner(&instance))?;
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(Action::GetDiagnostics, &situation).map_err(|refusal| refused(&refusal, id))?;
        let Some(host) = &instance.host else { return Err(ApiError::Conflict(format!("Instance {id} is not ready"))) };
        if instance.power_state != PowerState::Running {
            let state = power_word(instance.power_state);
            let text = format!("Cannot 'get_diagnostics' instance {id} while it is in power state {state}");
            return Err(ApiError::Conflict(text));
        }
        let found = self.api.orders.diagnostics(context, host, instance.id).await;
        let found = found.map_err(|error| order_failed(error, id))?;
        let shown = if request.version.at_least(48) { standard(&found) } else { of_driver(&found) };
        Ok(Response::json(StatusCode::OK, &shown))
    }
}

/// nova/compute/power_state.py, `STATE_MAP`.
fn power_word(state: PowerState) -> &'static str {
    match state {
        PowerState::NoState => "pending",
        PowerState::Running => "running",
        PowerState::Paused => "paused",
        PowerState::Shutdown => "shutdown",
        PowerState::Crashed => "crashed",
        PowerState::Suspended => "suspended",
    }
}

/// The same form for every driver (2.48).
fn standard(found: &Diagnostics) -> Value {
    let cpu = |(id, time): (usize, &u64)| json!({"id": id, "time": time, "utilisation": null});
    json!({
        "state": "running",
        "driver": found.driver,
        "hypervisor": found.hypervisor,
        "hypervisor_os": found.hypervisor_os,
        "uptime": found.uptime,
        "config_drive": found.config_drive,
        "num_cpus": found.vcpus,
        "num_nics": found.interfaces.len(),
        "num_disks": found.disks.len(),
        "memory_details": {"maximum": found.memory_mb, "used": found.memory_used_mb},
        "cpu_details": found.cpu_time_ns.iter().enumerate().map(cpu).collect::<Vec<_>>(),
        "disk_details": found.disks.iter().map(disk).collect::<Vec<_>>(),
        "nic_details": found.interfaces.iter().map(interface).collect::<Vec<_>>(),
    })
}

fn disk(disk: &DiskDiagnostics) -> Value {
    json!({
        "read_bytes": disk.read_bytes,
        "read_requests": disk.read_requests,
        "write_bytes": disk.write_bytes,
        "write_requests": disk.write_requests,
        "errors_count": disk.errors,
    })
}

fn interface(interface: &InterfaceDiagnostics) -> Value {
    json!({
        "mac_address": interface.mac_address,
        "rx_octets": interface.rx_octets,
        "rx_errors": interface.rx_errors,
        "rx_drop": interface.rx_drop,
        "rx_packets": interface.rx_packets,
        "rx_rate": null,
        "tx_octets": interface.tx_octets,
        "tx_errors": interface.tx_errors,
        "tx_drop": interface.tx_drop,
        "tx_packets": interface.tx_packets,
        "tx_rate": null,
    })
}

/// As Nova's libvirt driver told it before (nova/virt/libvirt/driver.py, `get_diagnostics`).
fn of_driver(found: &Diagnostics) -> Value {
    let mut out = Map::new();
    for (id, time) in found.cpu_time_ns.iter().enumerate() {
        out.insert(format!("cpu{id}_time"), json!(time));
    }
    for disk in &found.disks {
        let counters = [
            ("read_req", disk.read_requests),
            ("read", disk.read_bytes),
            ("write_req", disk.write_requests),
            ("write", disk.write_bytes),
            ("errors", disk.errors),
        ];
        out.extend(counters.map(|(key, value)| (format!("{}_{key}", disk.device), json!(value))));
    }
    for (place, nic) in found.interfaces.iter().enumerate() {
        let counters = [
            ("rx", nic.rx_octets),
            ("rx_packets", nic.rx_packets),
            ("rx_errors", nic.rx_errors),
            ("rx_drop", nic.rx_drop),
            ("tx", nic.tx_octets),
            ("tx_packets", nic.tx_packets),
            ("tx_errors", nic.tx_errors),
            ("tx_drop", nic.tx_drop),
        ];
        out.extend(counters.map(|(key, value)| (format!("vnet{place}_{key}"), json!(value))));
    }
    out.insert("memory".into(), json!(found.memory_mb.saturating_mul(1024)));
    if let Some(used) = found.memory_used_mb {
        out.insert("memory-actual".into(), json!(used.saturating_mul(1024)));
    }
    Value::Object(out)
}

fn order_failed(error: OrderError, id: &str) -> ApiError {
    match error {
        OrderError::NotFound => instance_not_found(id),
        OrderError::NotReady => ApiError::Conflict(format!("Instance {id} is not ready")),
        OrderError::Unsupported => {
            ApiError::NotImplemented("Unable to get diagnostics, functionality not implemented".to_owned())
        }
        OrderError::HostUnavailable { source } | OrderError::Failed { source } => {
            tracing::warn!(instance = id, error = &*source as &dyn std::error::Error, "no diagnostics");
            ApiError::Unavailable { retry_after: 5 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Diagnostics {
        Diagnostics {
            driver: "libvirt".into(),
            vcpus: 1,
            cpu_time_ns: vec![7],
            disks: vec![DiskDiagnostics { device: "vda".into(), read_bytes: 3, ..DiskDiagnostics::default() }],
            interfaces: vec![InterfaceDiagnostics { rx_octets: 5, ..InterfaceDiagnostics::default() }],
            memory_mb: 2,
            ..Diagnostics::default()
        }
    }

    #[test]
    fn the_standard_form_has_exactly_its_keys() {
        let shown = standard(&found());
        let keys: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted = vec!["state", "driver", "hypervisor", "hypervisor_os", "uptime", "config_drive", "num_cpus"];
        wanted.extend(["num_nics", "num_disks", "memory_details", "cpu_details", "disk_details", "nic_details"]);
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        assert_eq!(shown["disk_details"][0]["read_bytes"], 3);
        assert_eq!(shown["memory_details"], json!({"maximum": 2, "used": null}));
    }

    #[test]
    fn before_it_is_a_flat_list() {
        let shown = of_driver(&found());
        assert_eq!((&shown["cpu0_time"], &shown["vda_read"], &shown["vnet0_rx"]), (&json!(7), &json!(3), &json!(5)));
        assert_eq!(shown["memory"], 2048);
    }
}
