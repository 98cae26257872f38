//! How usage is shown.

use jiff::Timestamp;
use nova_core::clock::api_time_micros;
use nova_core::ids::ProjectId;
use nova_core::instance::Instance;
use serde_json::{Value, json};

use super::period::Period;

/// A project's usage; `detailed`: with its servers.
pub(super) fn usage(
    project: &ProjectId,
    instances: &[&Instance],
    period: &Period,
    now: Timestamp,
    detailed: bool,
) -> Value {
    let total = |amount: fn(&Instance) -> u64| -> f64 {
        instances.iter().map(|instance| amount(instance) as f64 * period.hours(instance)).sum()
    };
    let mut usage = json!({
        "tenant_id": project,
        "start": api_time_micros(period.start),
        "stop": api_time_micros(period.stop),
        "total_hours": total(|_| 1),
        "total_vcpus_usage": total(|instance| u64::from(instance.flavor.vcpus)),
        "total_memory_mb_usage": total(|instance| instance.flavor.memory_mb),
        "total_local_gb_usage": total(local_gb),
    });
    if detailed {
        let servers: Vec<Value> = instances.iter().map(|instance| server(instance, period, now)).collect();
        usage["server_usages"] = json!(servers);
    }
    usage
}

fn local_gb(instance: &Instance) -> u64 {
    instance.flavor.root_gb + instance.flavor.ephemeral_gb
}

fn server(instance: &Instance, period: &Period, now: Timestamp) -> Value {
    let state = match instance.terminated_at {
        Some(_) => "terminated",
        None => instance.vm_state.as_str(),
    };
    let end = instance.terminated_at.unwrap_or(now);
    let uptime = instance.launched_at.map_or(0, |launched| end.as_second().saturating_sub(launched.as_second()).max(0));
    json!({
        "instance_id": instance.id,
        "name": instance.display_name,
        "hours": period.hours(instance),
        "flavor": instance.flavor.name,
        "memory_mb": instance.flavor.memory_mb,
        "local_gb": local_gb(instance),
        "vcpus": instance.flavor.vcpus,
        "tenant_id": instance.project_id,
        "started_at": instance.launched_at.map(api_time_micros),
        "ended_at": instance.terminated_at.map(api_time_micros),
        "state": state,
        "uptime": uptime,
    })
}
