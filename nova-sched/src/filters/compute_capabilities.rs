use super::extra_specs_ops::matches;
use super::{Filter, Reads};
use crate::{HostView, Request};

/// Holds the flavor's extra specs, those with the scope `capabilities:` or none, against what the host tells of itself:
/// see [`HostView::variable`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ComputeCapabilitiesFilter;

/// Variables that every host has, if only as nothing (`nova/scheduler/host_manager.py`, `HostState`).
const OF_EVERY_HOST: [&str; 4] = ["hypervisor_type", "hypervisor_version", "hypervisor_hostname", "host_ip"];

/// The extra specs that concern hosts: the path of the variable, what is asked of it, and whether hosts must have it. A
/// spec without a scope may be meant for another filter, so that hosts that do not have the variable pass, as in Nova.
fn asked(request: &Request) -> impl Iterator<Item = (String, &str, bool)> {
    request.extra_specs.iter().filter_map(|(key, requirement)| {
        let (path, must_have) = match key.split_once(':') {
            Some(("capabilities", rest)) => (rest.replace(':', "."), true),
            Some(_) => return None,
            None => (key.clone(), OF_EVERY_HOST.contains(&key.as_str())),
        };
        Some((path, requirement.as_str(), must_have))
    })
}

impl Filter for ComputeCapabilitiesFilter {
    fn name(&self) -> &str {
        "ComputeCapabilitiesFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        asked(request).all(|(path, requirement, must_have)| match host.variable(&path) {
            Some(value) => matches(&value.to_string(), requirement),
            None => !must_have,
        })
    }

    fn reads(&self, request: &Request) -> Reads {
        asked(request).fold(Reads::Nothing, |reads, (path, ..)| match reads {
            Reads::Host => Reads::Host,
            _ if HostView::is_attribute(&path) => Reads::Attributes,
            _ => Reads::Host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::{HostAttributes, fixtures};

    #[test]
    fn extra_specs_are_held_against_capabilities() {
        let mut table = three();
        for (number, vendor, version) in [(0, "Intel", 6_000_000), (1, "AMD", 7_002_022)] {
            let mut host = fixtures::host(number, 1);
            host.attributes = HostAttributes {
                hypervisor_type: "QEMU".to_owned(),
                hypervisor_version: version,
                capabilities: [("cpu_info.vendor".to_owned(), vendor.to_owned())].into(),
                ..HostAttributes::default()
            }
            .into();
            table.upsert_host(host).unwrap();
        }
        table.allocate("host-0", 1, &[10, 60_000, 0].into()).unwrap();
        let filter = ComputeCapabilitiesFilter;
        for (specs, reads, expected) in [
            (vec![], Reads::Nothing, vec![0, 1, 2]),
            (vec![("quota:cpu_shares", "10")], Reads::Nothing, vec![0, 1, 2]),
            (vec![("capabilities:cpu_info:vendor", "AMD")], Reads::Attributes, vec![1]),
            (vec![("capabilities:cpu_info:vendor", "<or> AMD <or> Intel")], Reads::Attributes, vec![0, 1]),
            (vec![("hypervisor_version", ">= 7000000")], Reads::Attributes, vec![1]),
            (vec![("capabilities:free_ram_mb", ">= 8000")], Reads::Host, vec![1, 2]),
            (vec![("hypervisor_type", "QEMU"), ("free_ram_mb", ">= 8000")], Reads::Host, vec![1]),
            (vec![("unheard_of", "s== 1")], Reads::Attributes, vec![0, 1, 2]),
            (vec![("capabilities:unheard_of", "s== 1")], Reads::Attributes, vec![]),
        ] {
            let mut request = request();
            request.extra_specs = specs.iter().map(|(key, asked)| ((*key).to_owned(), (*asked).to_owned())).collect();
            assert_eq!(filter.reads(&request), reads, "{specs:?}");
            assert_eq!(passing(&filter, &table, &request), expected, "{specs:?}");
        }
    }
}
