//! Can a guest that runs on one host go on on another? What the hosts' reports say of it before anything is begun
//! (nova/conductor/tasks/live_migrate.py, `_check_compatible_with_source_hypervisor`; nova/virt/libvirt/driver.py,
//! `_compare_cpu`).
//!
//! The hosts look once more when they get ready: here is what can be known without asking them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::host::ComputeNode;

/// How many missing features of a processor are named.
const NAMED_FEATURES: usize = 8;

/// Why a running guest of one host can't go on on another. The text is for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Another kind of hypervisor (Nova's `InvalidHypervisorType`).
    #[error("its hypervisor is {there}, and the guest runs on {here}")]
    Hypervisor {
        /// Where the guest is.
        here: String,
        /// Where it should go.
        there: String,
    },
    /// An older one (Nova's `DestinationHypervisorTooOld`): what the guest's devices have become it need not understand.
    #[error("its hypervisor has version {there}, which is older than {here}, on which the guest runs")]
    OlderHypervisor {
        /// Where the guest is.
        here: String,
        /// Where it should go.
        there: String,
    },
    /// It runs guests of other processors.
    #[error("it runs guests of {there}, and the source those of {here}")]
    Architecture {
        /// Where the guest is.
        here: String,
        /// Where it should go.
        there: String,
    },
    /// The guest sees its host's processor, and this one is made by another.
    #[error("its processor is one of {there}, and the guest sees one of {here}")]
    Vendor {
        /// Where the guest is.
        here: String,
        /// Where it should go.
        there: String,
    },
    /// The guest sees its host's processor, and this one can do less (Nova's `InvalidCPUInfo`).
    #[error("its processor lacks what the guest may use: {features}")]
    Processor {
        /// What it lacks, with commas; many are counted.
        features: String,
    },
}

/// What keeps a running guest of `here` from going on on `there`; what a host has not said keeps nothing.
pub fn obstacle(here: &ComputeNode, there: &ComputeNode) -> Option<Obstacle> {
    if here.hypervisor_type != there.hypervisor_type {
        let (here, there) = (here.hypervisor_type.clone(), there.hypervisor_type.clone());
        return Some(Obstacle::Hypervisor { here, there });
    }
    let known = here.hypervisor_version > 0 && there.hypervisor_version > 0;
    if known && there.hypervisor_version < here.hypervisor_version {
        let [here, there] = [here, there].map(|node| version(node.hypervisor_version));
        return Some(Obstacle::OlderHypervisor { here, there });
    }
    let (ours, theirs) = (&here.architectures, &there.architectures);
    if !ours.is_empty() && !theirs.is_empty() && !ours.iter().any(|one| theirs.contains(one)) {
        return Some(Obstacle::Architecture { here: ours.join(", "), there: theirs.join(", ") });
    }
    if here.facts.guests_see_cpu { processor(&here.cpu_info, &there.cpu_info) } else { None }
}

fn processor(here: &Value, there: &Value) -> Option<Obstacle> {
    let vendor = |cpu: &Value| cpu["vendor"].as_str().map(str::to_owned);
    if let (Some(here), Some(there)) = (vendor(here), vendor(there))
        && here != there
    {
        return Some(Obstacle::Vendor { here, there });
    }
    // Hosts name what goes beyond their model: what another model has of itself is not in its list, and libvirt will say.
    if here["model"] != there["model"] {
        return None;
    }
    let features = |cpu: &Value| -> BTreeSet<String> {
        cpu["features"].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let missing: Vec<String> = features(here).difference(&features(there)).cloned().collect();
    let more = match missing.len().saturating_sub(NAMED_FEATURES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = missing.iter().take(NAMED_FEATURES).cloned().collect::<Vec<_>>().join(", ");
    (!missing.is_empty()).then(|| Obstacle::Processor { features: named + &more })
}

/// 7002022 is 7.2.22.
fn version(number: i64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(change: impl FnOnce(&mut ComputeNode)) -> ComputeNode {
        let mut node: ComputeNode = serde_json::from_value(json!({
            "id": "00000000-0000-4000-8000-000000000001", "host": "h", "hypervisor_hostname": "h", "hypervisor_type": "QEMU",
            "hypervisor_version": 7_002_022, "host_ip": "192.0.2.1", "zone": "nova", "architectures": ["x86_64"],
            "inventory": {"total": {"vcpus": 1, "memory_mb": 1, "disk_gb": 1}, "reserved": {"vcpus": 0, "memory_mb": 0, "disk_gb": 0},
                "cpu_ratio": 1.0, "ram_ratio": 1.0, "disk_ratio": 1.0},
            "cpu_info": {"vendor": "AMD", "features": ["aes", "sse"]},
            "created_at": "2026-11-23T00:00:00Z", "updated_at": "2026-11-23T00:00:00Z",
        }))
        .unwrap();
        change(&mut node);
        node
    }

    fn told(here: ComputeNode, there: ComputeNode) -> String {
        obstacle(&here, &there).map(|obstacle| obstacle.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_differs_is_named() {
        let same = || node(|_| {});
        assert_eq!(told(same(), same()), "");
        let fake = node(|node| node.hypervisor_type = "fake".into());
        assert_eq!(told(same(), fake), "its hypervisor is fake, and the guest runs on QEMU");
        let older = || node(|node| node.hypervisor_version = 6_002_000);
        let text = "its hypervisor has version 6.2.0, which is older than 7.2.22, on which the guest runs";
        assert_eq!(told(same(), older()), text);
        assert_eq!(told(older(), same()), "", "onto a newer one it may");
        assert_eq!(told(same(), node(|node| node.hypervisor_version = 0)), "", "nothing was said");
        let arm = node(|node| node.architectures = vec!["aarch64".into()]);
        assert_eq!(told(same(), arm), "it runs guests of aarch64, and the source those of x86_64");
    }

    #[test]
    fn processors_count_where_guests_see_them() {
        let bare = || node(|node| node.cpu_info = json!({"vendor": "AMD", "features": ["sse"]}));
        assert_eq!(told(node(|_| {}), bare()), "", "they see another");
        let seen = |features: &[String]| {
            node(|node| {
                node.facts.guests_see_cpu = true;
                node.cpu_info = json!({"vendor": "AMD", "features": features});
            })
        };
        let names = |count: usize| (0..count).map(|number| format!("f{number}")).collect::<Vec<_>>();
        assert_eq!(told(seen(&["sse".to_owned()]), node(|_| {})), "", "more is no harm");
        let lacks = "its processor lacks what the guest may use: ";
        assert_eq!(told(seen(&["aes".to_owned(), "sse".to_owned()]), bare()), format!("{lacks}aes"));
        assert_eq!(told(seen(&names(10)), bare()), format!("{lacks}f0, f1, f2, f3, f4, f5, f6, f7 and 2 more"));
        let newer = node(|node| node.cpu_info = json!({"vendor": "AMD", "model": "EPYC", "features": ["x2apic"]}));
        assert_eq!(told(seen(&["aes".to_owned()]), newer), "", "its model may have it");
        let intel = node(|node| node.cpu_info = json!({"vendor": "Intel", "features": names(10)}));
        assert_eq!(told(seen(&names(1)), intel), "its processor is one of Intel, and the guest sees one of AMD");
    }
}
