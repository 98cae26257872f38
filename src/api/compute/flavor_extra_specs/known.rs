//! Extra specs that are known, and what they may be set to: checked from 2.86 on
//! (nova/api/validation/extra_specs). Keys without a namespace, and keys of namespaces that are not known, are free.

use crate::api::query::parse_bool;

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Text,
    Bool,
    Int { min: Option<i64>, max: Option<i64> },
    OneOf(&'static [&'static str]),
    Format { regex: &'static str, matches: fn(&str) -> bool },
}

const NATURAL: Rule = Rule::Int { min: Some(0), max: None };
const POSITIVE: Rule = Rule::Int { min: Some(1), max: None };
const INTEGER: Rule = Rule::Int { min: None, max: None };
const CPUS: Rule = Rule::Format { regex: r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*", matches: is_cpu_list };

/// Checks one extra spec.
///
/// # Errors
/// What is wrong, in Nova's words.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    let Some((namespace, rest)) = key.split_once(':') else {
        return bare(key).map_or(Ok(()), |rule| obey(rule, value));
    };
    let rule = match namespace {
        "hw" => hw(rest),
        "hw_rng" => hw_rng(rest),
        "hw_video" => (rest == "ram_max_mb").then_some(NATURAL),
        "quota" => quota(rest),
        "os" => (rest == "secure_boot").then_some(Rule::OneOf(&["disabled", "required"])),
        "pci_passthrough" => (rest == "alias")
            .then_some(Rule::Format { regex: r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*", matches: is_pci_alias }),
        "accel" => (rest == "device_profile").then_some(Rule::Text),
        "vmware" => matches!(rest, "hw_version" | "storage_policy").then_some(Rule::Text),
        "aggregate_instance_extra_specs" => (!rest.is_empty()).then_some(Rule::Text),
        "capabilities" => capability(rest),
        _ if group_of("resources", namespace) => resource(rest),
        _ if group_of("trait", namespace) => is_trait(rest).then_some(Rule::OneOf(&["required", "forbidden"])),
        _ => return Ok(()),
    };
    match rule {
        Some(rule) => obey(rule, value),
        None => Err(format!("Validation failed; extra spec '{key}' does not appear to be a valid extra spec.")),
    }
}

fn obey(rule: Rule, value: &str) -> Result<(), String> {
    match rule {
        Rule::Text => Ok(()),
        Rule::Bool if parse_bool(value).is_some() => Ok(()),
        Rule::Bool => Err(format!("Validation failed; '{value}' is not a valid boolean-like value.")),
        Rule::OneOf(allowed) if allowed.contains(&value) => Ok(()),
        Rule::OneOf(allowed) => Err(format!("Validation failed; '{value}' is not one of: {}.", allowed.join(", "))),
        Rule::Format { matches, .. } if matches(value) => Ok(()),
        Rule::Format { regex, .. } => Err(format!("Validation failed; '{value}' is not of the format '{regex}'.")),
        Rule::Int { min, max } => match value.trim().parse::<i64>() {
            Err(_) => Err(format!("Validation failed; '{value}' is not a valid integer value.")),
            Ok(n) => {
                if let Some(max) = max.filter(|max| n > *max) {
                    return Err(format!("Validation failed; '{n}' is greater than the max value of '{max}'."));
                }
                match min.filter(|min| n < *min) {
                    Some(min) => Err(format!("Validation failed; '{n}' is less than the min value of '{min}'.")),
                    None => Ok(()),
                }
            }
        },
    }
}

fn bare(key: &str) -> Option<Rule> {
    match key {
        "hide_hypervisor_id" => Some(Rule::Bool),
        "group_policy" => Some(Rule::OneOf(&["isolate", "none"])),
        _ => None,
    }
}

fn hw(key: &str) -> Option<Rule> {
    let numbered =
        |prefix: &str| key.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    Some(match key {
        "cpu_realtime"
        | "hide_hypervisor_id"
        | "boot_menu"
        | "mem_encryption"
        | "pmu"
        | "locked_memory"
        | "vif_multiqueue_enabled"
        | "virtio_packed_ring"
        | "ephemeral_encryption" => Rule::Bool,
        "cpu_realtime_mask" | "cpu_dedicated_mask" => CPUS,
        "cpu_policy" => Rule::OneOf(&["dedicated", "shared", "mixed"]),
        "cpu_thread_policy" => Rule::OneOf(&["prefer", "isolate", "require"]),
        "emulator_threads_policy" => Rule::OneOf(&["isolate", "share"]),
        "mem_page_size" => {
            Rule::Format { regex: r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)", matches: is_page_size }
        }
        "mem_encryption_model" => Rule::OneOf(&["amd-sev", "amd-sev-es"]),
        "numa_nodes" | "cpu_sockets" | "cpu_cores" | "cpu_threads" | "cpu_max_sockets" | "cpu_max_cores"
        | "cpu_max_threads" | "max_cpu_sockets" | "max_cpu_cores" | "max_cpu_threads" => POSITIVE,
        "pci_numa_affinity_policy" => Rule::OneOf(&["required", "preferred", "legacy", "socket"]),
        "pmem" => Rule::Format { regex: "([a-zA-Z0-9_]+(,)?)+", matches: is_label_list },
        "serial_port_count" => NATURAL,
        "redirected_usb_ports" => Rule::Int { min: Some(0), max: Some(15) },
        "tpm_model" => Rule::OneOf(&["tpm-tis", "tpm-crb"]),
        "tpm_version" => Rule::OneOf(&["1.2", "2.0"]),
        "tpm_secret_security" => Rule::OneOf(&["user", "host", "deployment"]),
        "watchdog_action" => Rule::OneOf(&["none", "pause", "poweroff", "reset", "disabled"]),
        "viommu_model" => Rule::OneOf(&["intel", "smmuv3", "virtio", "auto"]),
        "maxphysaddr_mode" => Rule::OneOf(&["passthrough", "emulate"]),
        "maxphysaddr_bits" => Rule::Int { min: Some(32), max: Some(64) },
        "ephemeral_encryption_format" => Rule::OneOf(&["luks", "plain"]),
        "sound_model" | "usb_model" => Rule::Text,
        _ if numbered("numa_cpus.") => CPUS,
        _ if numbered("numa_mem.") => POSITIVE,
        _ => return None,
    })
}

fn hw_rng(key: &str) -> Option<Rule> {
    match key {
        "allowed" => Some(Rule::Bool),
        "rate_bytes" | "rate_period" => Some(NATURAL),
        _ => None,
    }
}

fn quota(key: &str) -> Option<Rule> {
    match key {
        "cpu_shares" | "cpu_period" => return Some(NATURAL),
        // libvirt takes a negative quota for "without limit".
        "cpu_quota" => return Some(INTEGER),
        _ => {}
    }
    let (resource, limit) = ["cpu_", "memory_", "disk_io_", "vif_", "disk_"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix).map(|limit| (*prefix, limit)))?;
    match (resource, limit) {
        ("cpu_" | "memory_" | "disk_io_" | "vif_", "limit" | "reservation" | "shares_share") => Some(INTEGER),
        ("cpu_" | "memory_" | "disk_io_" | "vif_", "shares_level") => Some(Rule::Text),
        (
            "disk_",
            "read_bytes_sec"
            | "write_bytes_sec"
            | "total_bytes_sec"
            | "read_iops_sec"
            | "write_iops_sec"
            | "total_iops_sec"
            | "read_bytes_sec_max"
            | "write_bytes_sec_max"
            | "total_bytes_sec_max"
            | "read_iops_sec_max"
            | "write_iops_sec_max"
            | "total_iops_sec_max"
            | "size_iops_sec",
        ) => Some(NATURAL),
        (
            "vif_",
            "inbound_average" | "inbound_peak" | "inbound_burst" | "outbound_average" | "outbound_peak"
            | "outbound_burst",
        ) => Some(NATURAL),
        _ => None,
    }
}

/// Resource classes that Placement knows by itself (os_resource_classes).
const RESOURCES: [&str; 21] = [
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

fn resource(class: &str) -> Option<Rule> {
    (RESOURCES.contains(&class) || class.strip_prefix("CUSTOM_").is_some_and(is_upper)).then_some(INTEGER)
}

/// The families of os_traits, rather than its several hundred names, which grow with every release.
fn is_trait(name: &str) -> bool {
    const FAMILIES: [&str; 6] = ["CUSTOM_", "HW_", "COMPUTE_", "STORAGE_", "MISC_", "OWNER_"];
    FAMILIES.iter().any(|family| name.strip_prefix(family).is_some_and(is_upper))
}

fn capability(key: &str) -> Option<Rule> {
    const PLAIN: [&str; 34] = [
        "id",
        "uuid",
        "service_id",
        "host",
        "vcpus",
        "memory_mb",
        "local_gb",
        "vcpus_used",
        "memory_mb_used",
        "local_gb_used",
        "hypervisor_type",
        "hypervisor_version",
        "hypervisor_hostname",
        "free_ram_mb",
        "free_disk_gb",
        "current_workload",
        "running_vms",
        "disk_available_least",
        "host_ip",
        "mapped",
        "cpu_allocation_ratio",
        "ram_allocation_ratio",
        "disk_allocation_ratio",
        "total_usable_ram_mb",
        "total_usable_disk_gb",
        "disk_mb_used",
        "free_disk_mb",
        "vcpus_total",
        "num_instances",
        "num_io_ops",
        "failed_builds",
        "aggregates",
        "cell_uuid",
        "updated",
    ];
    const NESTED: [&str; 11] = [
        "cpu_info",
        "metrics",
        "stats",
        "numa_topology",
        "supported_hv_specs",
        "pci_device_pools",
        "nodename",
        "pci_stats",
        "supported_instances",
        "limits",
        "instances",
    ];
    let (first, rest) = key.split_once(':').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let known = match rest {
        None => PLAIN.contains(&first) || NESTED.contains(&first),
        Some(rest) => {
            let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || c == '_');
            NESTED.contains(&first) && rest.split(':').all(word)
        }
    };
    known.then_some(Rule::Text)
}

/// `resources`, or `resources` with a group's name right behind it.
fn group_of(namespace: &str, given: &str) -> bool {
    given.strip_prefix(namespace).is_some_and(|group| {
        group.len() <= 64 && group.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

fn is_upper(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|item| {
        let item = item.strip_prefix('^').unwrap_or(item);
        item.split_once('-').map_or_else(|| is_number(item), |(from, to)| is_number(from) && is_number(to))
    })
}

fn is_page_size(text: &str) -> bool {
    if matches!(text, "large" | "small" | "any") {
        return true;
    }
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() == text.len() {
        return false;
    }
    let rest = match unit.strip_prefix(['k', 'K', 'M', 'G', 'T']) {
        Some(rest) => rest.strip_prefix('i').unwrap_or(rest),
        None => unit,
    };
    matches!(rest, "" | "b" | "bit" | "B")
}

fn is_label_list(text: &str) -> bool {
    let text = text.strip_suffix(',').unwrap_or(text);
    text.split(',').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

fn is_pci_alias(text: &str) -> bool {
    text.split(',')
        .all(|item| item.trim().split_once(':').is_some_and(|(alias, count)| !alias.is_empty() && is_number(count)))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn good_values_of_known_keys_pass() {
        for (key, value) in [
            ("hw:cpu_policy", "dedicated"),
            ("hw:cpu_realtime_mask", "^0-1"),
            ("hw:cpu_dedicated_mask", "0-3,^2"),
            ("hw:mem_page_size", "2048"),
            ("hw:mem_page_size", "1GiB"),
            ("hw:mem_page_size", "large"),
            ("hw:numa_nodes", "1"),
            ("hw:numa_cpus.0", "0,1"),
            ("hw:numa_mem.12", "512"),
            ("hw:watchdog_action", "reset"),
            ("hw:boot_menu", "yes"),
            ("hw_rng:allowed", "True"),
            ("quota:disk_read_iops_sec", "100"),
            ("quota:cpu_quota", "-1"),
            ("quota:vif_shares_level", "high"),
            ("resources:VCPU", "2"),
            ("resources1:CUSTOM_FPGA_1", "2"),
            ("trait:CUSTOM_GOLD", "required"),
            ("trait_disk:HW_CPU_X86_AVX2", "forbidden"),
            ("pci_passthrough:alias", "gpu:1, nic:2"),
            ("capabilities:cpu_info:features", "<in> aes"),
            ("capabilities:vcpus", ">= 4"),
            ("aggregate_instance_extra_specs:ssd", "true"),
            ("os:secure_boot", "required"),
            ("accel:device_profile", "x"),
        ] {
            assert_eq!(check(key, value), Ok(()), "{key}={value}");
        }
    }

    #[test]
    fn what_is_not_known_is_free_unless_its_namespace_is() {
        assert_eq!(check("anything", "x"), Ok(()));
        assert_eq!(check("acme:foo", "x"), Ok(()));
        assert_eq!(
            check("hw:numa_node", "1").unwrap_err(),
            "Validation failed; extra spec 'hw:numa_node' does not appear to be a valid extra spec."
        );
        for key in ["quota:foo", "trait:lower", "resources:NOPE", "pci_passthrough:foo", "capabilities:foo:bar"] {
            assert!(check(key, "1").is_err(), "{key}");
        }
    }

    #[test]
    fn bad_values_are_told_as_nova_tells_them() {
        let text = |key, value| check(key, value).unwrap_err();
        assert_eq!(
            text("hw:cpu_policy", "sharrred"),
            "Validation failed; 'sharrred' is not one of: dedicated, shared, mixed."
        );
        assert_eq!(text("hw:numa_nodes", "foo"), "Validation failed; 'foo' is not a valid integer value.");
        assert_eq!(text("hw:numa_nodes", "-1"), "Validation failed; '-1' is less than the min value of '1'.");
        assert_eq!(text("hw:pmu", "maybe"), "Validation failed; 'maybe' is not a valid boolean-like value.");
        assert_eq!(
            text("hw:redirected_usb_ports", "16"),
            "Validation failed; '16' is greater than the max value of '15'."
        );
        for (key, value) in [
            ("hw:cpu_realtime_mask", "a"),
            ("hw:cpu_realtime_mask", ""),
            ("hw:mem_page_size", "huge"),
            ("hw:mem_page_size", "kB"),
            ("pci_passthrough:alias", "gpu"),
            ("pci_passthrough:alias", "gpu:x"),
            ("hw:pmem", "a b"),
            ("hide_hypervisor_id", "x"),
            ("trait:CUSTOM_X", "wanted"),
        ] {
            assert!(text(key, value).starts_with("Validation failed; "), "{key}={value}");
        }
    }
}
