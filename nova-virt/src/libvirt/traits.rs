//! What guests can count on here, by the names of `os-traits`.

use std::collections::BTreeSet;

use nova_core::topology::HostCell;
use serde_json::Value;
use virt::connect::Connect;

use super::options::LibvirtOptions;
use super::read_xml;

/// What this driver gives to every guest (os_traits/compute).
const DRIVER: [&str; 25] = [
    "COMPUTE_NODE",
    "COMPUTE_RESCUE_BFV",
    "COMPUTE_IMAGE_TYPE_ISO",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_GRAPHICS_MODEL_BOCHS",
    "COMPUTE_GRAPHICS_MODEL_CIRRUS",
    "COMPUTE_GRAPHICS_MODEL_NONE",
    "COMPUTE_GRAPHICS_MODEL_QXL",
    "COMPUTE_GRAPHICS_MODEL_VGA",
    "COMPUTE_GRAPHICS_MODEL_VIRTIO",
    "COMPUTE_GRAPHICS_MODEL_VMVGA",
    "COMPUTE_NET_VIF_MODEL_E1000",
    "COMPUTE_NET_VIF_MODEL_E1000E",
    "COMPUTE_NET_VIF_MODEL_NE2K_PCI",
    "COMPUTE_NET_VIF_MODEL_PCNET",
    "COMPUTE_NET_VIF_MODEL_RTL8139",
    "COMPUTE_NET_VIF_MODEL_VIRTIO",
    "COMPUTE_NET_VIF_MODEL_VMXNET3",
    "COMPUTE_STORAGE_BUS_IDE",
    "COMPUTE_STORAGE_BUS_SATA",
    "COMPUTE_STORAGE_BUS_SCSI",
    "COMPUTE_STORAGE_BUS_USB",
    "COMPUTE_STORAGE_BUS_VIRTIO",
    "HW_ARCH_X86_64",
];

/// libvirt's names of processor features that are not the trait's name in lower case.
const RENAMED: [(&str, &str); 19] = [
    ("3dnow", "3DNOW"),
    ("avx512-4fmaps", "AVX5124FMAPS"),
    ("avx512-4vnniw", "AVX5124VNNIW"),
    ("avx512-vpopcntdq", "AVX512VPOPCNTDQ"),
    ("avx512vbmi2", "AVX512VBMI2"),
    ("avx512bitalg", "AVX512BITALG"),
    ("avx512vnni", "AVX512VNNI"),
    ("fma", "FMA3"),
    ("ibpb", "AMD_IBPB"),
    ("ibrs-all", "IBRS_ALL"),
    ("lbrv", "LBRV"),
    ("pclmuldq", "CLMUL"),
    ("pclmulqdq", "CLMUL"),
    ("pni", "SSE3"),
    ("sha-ni", "SHA"),
    ("sse4.1", "SSE41"),
    ("sse4.2", "SSE42"),
    ("svm", "AMD_SVM"),
    ("vmx", "INTEL_VMX"),
];

/// Features whose trait is `HW_CPU_X86_` and their name in upper case.
const SAME: [&str; 38] = [
    "abm",
    "asf",
    "atc",
    "avx",
    "avx2",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512er",
    "avx512f",
    "avx512ifma",
    "avx512pf",
    "avx512vbmi",
    "avx512vl",
    "bmi",
    "bmi2",
    "f16c",
    "fma4",
    "gfni",
    "hle",
    "mmx",
    "mpx",
    "pcid",
    "pdpe1gb",
    "rtm",
    "sgx",
    "sse",
    "sse2",
    "sse3",
    "sse41",
    "sse42",
    "sse4a",
    "ssse3",
    "stibp",
    "tbm",
    "vaes",
    "vpclmulqdq",
    "xop",
];

/// All of them.
pub(super) fn traits(
    conn: &Connect,
    options: &LibvirtOptions,
    cpu_info: &Value,
    cells: &[HostCell],
) -> BTreeSet<String> {
    let mut traits: BTreeSet<String> = DRIVER.map(str::to_owned).into();
    if cells.iter().any(|cell| cell.threads_per_core() > 1) {
        traits.insert("HW_CPU_HYPERTHREADING".to_owned());
    }
    // Guests whose images ask for it boot only what is signed.
    if options.firmware_path.join("OVMF_CODE_4M.secboot.fd").exists() {
        traits.insert("COMPUTE_SECURITY_UEFI_SECURE_BOOT".to_owned());
    }
    traits.extend(features(conn, options, cpu_info).iter().filter_map(|feature| processor_trait(feature)));
    traits
}

/// The processor features that guests see: the host's where they get the host's processor, else those of their model.
fn features(conn: &Connect, options: &LibvirtOptions, cpu_info: &Value) -> Vec<String> {
    match options.cpu_mode.as_str() {
        "host-model" | "host-passthrough" if options.virt_type == "kvm" => {
            let host = cpu_info["features"].as_array().into_iter().flatten();
            let mut names: Vec<String> = host.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            names.extend(cpu_info["model"].as_str().map(|model| of_model(conn, model)).unwrap_or_default());
            names
        }
        "custom" => of_model(conn, &options.cpu_model),
        // What an emulated processor can at most, libvirt does not tell.
        _ => Vec::new(),
    }
}

fn of_model(conn: &Connect, model: &str) -> Vec<String> {
    let wellformed = !model.is_empty() && model.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !wellformed {
        return Vec::new();
    }
    let cpu = format!("<cpu><arch>x86_64</arch><model>{model}</model></cpu>");
    let expanded = conn.baseline_cpu(&[&cpu], virt::sys::VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES);
    match expanded.map_err(crate::BoxError::from).and_then(|xml| read_xml::cpu_features(&xml)) {
        Ok(features) => features,
        Err(error) => {
            tracing::warn!(model, "its features are not known, so no trait says them: {error}");
            Vec::new()
        }
    }
}

/// The trait of a feature, if there is one.
fn processor_trait(feature: &str) -> Option<String> {
    let renamed = RENAMED.iter().find(|(name, _)| *name == feature).map(|(_, trait_name)| (*trait_name).to_owned());
    let same = || SAME.contains(&feature).then(|| feature.to_uppercase());
    renamed.or_else(same).map(|name| format!("HW_CPU_X86_{name}"))
}

#[cfg(test)]
mod tests {
    use nova_core::host_facts::is_trait_name;

    use super::*;

    #[test]
    fn features_have_the_names_of_os_traits() {
        for (feature, name) in [
            ("avx2", Some("HW_CPU_X86_AVX2")),
            ("pni", Some("HW_CPU_X86_SSE3")),
            ("sse4.2", Some("HW_CPU_X86_SSE42")),
            ("fma", Some("HW_CPU_X86_FMA3")),
            ("vmx", Some("HW_CPU_X86_INTEL_VMX")),
            ("hypervisor", None),
            ("", None),
        ] {
            assert_eq!(processor_trait(feature).as_deref(), name, "{feature}");
        }
        let all = SAME.iter().copied().chain(RENAMED.iter().map(|(feature, _)| *feature));
        assert!(all.filter_map(processor_trait).all(|name| is_trait_name(&name)));
        assert!(DRIVER.iter().all(|name| is_trait_name(name)));
    }
}
