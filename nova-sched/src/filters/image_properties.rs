use super::{Filter, Reads, version};
use crate::filter_scheduler::FilterOptions;
use crate::{HostView, Request};

/// Passes hosts that support what the image says of architecture, hypervisor type, VM mode and hypervisor version.
#[derive(Debug, Clone, Default)]
pub struct ImagePropertiesFilter {
    default_architecture: Option<String>,
}

impl ImagePropertiesFilter {
    /// With `image_properties_default_architecture` for images that name none.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { default_architecture: options.image_properties_default_architecture.clone() }
    }

    /// Architecture, hypervisor type and VM mode asked for, in today's names or those of old.
    fn asked<'a>(&'a self, request: &'a Request) -> [Option<&'a str>; 3] {
        let property = |names: [&str; 2]| {
            let image = request.image.as_ref()?;
            names
                .iter()
                .find_map(|name| image.properties.get(*name))
                .map(String::as_str)
                .filter(|text| !text.is_empty())
        };
        [
            property(["hw_architecture", "architecture"]).or(self.default_architecture.as_deref()),
            property(["img_hv_type", "hypervisor_type"]),
            property(["hw_vm_mode", "vm_mode"]),
        ]
    }
}

/// The name under which hosts know it (`nova/objects/fields.py`, `Architecture.canonicalize`, `VMMode`, `HVType`).
fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "amd64" => "x86_64".to_owned(),
        "i386" | "i486" | "i586" => "i686".to_owned(),
        "arm64" => "aarch64".to_owned(),
        "pv" | "xenpv" => "xen".to_owned(),
        "hv" | "fullvirt" => "hvm".to_owned(),
        _ => name,
    }
}

impl Filter for ImagePropertiesFilter {
    fn name(&self) -> &str {
        "ImagePropertiesFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let asked = self.asked(request);
        let attributes = host.attributes();
        if asked.iter().all(Option::is_none) {
            return true;
        }
        let supported = attributes.supported_instances.iter().any(|guest| {
            let has = [&guest.architecture, &guest.hypervisor_type, &guest.vm_mode];
            asked.iter().zip(has).all(|(asked, has)| asked.is_none_or(|asked| canonical(asked) == canonical(has)))
        });
        let versions = request.image.as_ref().and_then(|image| {
            ["img_hv_requested_version", "hypervisor_version_requires"]
                .iter()
                .find_map(|name| image.properties.get(*name))
        });
        supported
            && versions.is_none_or(|versions| {
                attributes.hypervisor_version == 0 || version::satisfies(attributes.hypervisor_version, versions)
            })
    }

    fn reads(&self, request: &Request) -> Reads {
        if self.asked(request).iter().all(Option::is_none) { Reads::Nothing } else { Reads::Attributes }
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::{HostAttributes, ImageRef, SupportedInstance, fixtures};

    #[test]
    fn what_the_image_says_must_be_supported() {
        let mut table = three();
        for (number, architecture, version) in [(0, "x86_64", 7_000_000), (1, "aarch64", 8_000_000)] {
            let mut host = fixtures::host(number, 1);
            host.attributes = HostAttributes {
                supported_instances: vec![SupportedInstance::new(architecture, "kvm", "hvm")],
                hypervisor_version: version,
                ..HostAttributes::default()
            }
            .into();
            table.upsert_host(host).unwrap();
        }
        for (properties, expected) in [
            (vec![], vec![0, 1, 2]),
            (vec![("os_distro", "debian")], vec![0, 1, 2]),
            (vec![("hw_architecture", "x86_64")], vec![0]),
            (vec![("architecture", "amd64"), ("vm_mode", "hvm")], vec![0]),
            (vec![("img_hv_type", "kvm")], vec![0, 1]),
            (vec![("img_hv_type", "xen")], vec![]),
            (vec![("img_hv_type", "kvm"), ("img_hv_requested_version", ">=8.0")], vec![1]),
        ] {
            let mut request = request();
            let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            request.image = Some(ImageRef { id: "image".to_owned(), properties });
            assert_eq!(passing(&ImagePropertiesFilter::default(), &table, &request), expected, "{request:?}");
        }
        let options = FilterOptions {
            image_properties_default_architecture: Some("aarch64".to_owned()),
            ..FilterOptions::default()
        };
        assert_eq!(passing(&ImagePropertiesFilter::new(&options), &table, &request()), [1]);
    }
}
