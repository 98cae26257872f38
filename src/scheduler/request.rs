//! From what the API asked for to what algorithms read.

use std::collections::BTreeMap;

use nova_core::flavor::Resources;
use nova_core::ids::InstanceId;
use nova_core::request::{Purpose, RequestSpec};
use nova_sched::{Hints, ImageRef, Request, ResourceVector};
use serde_json::Value;

/// Names of what is counted, in the order of [`vector`].
pub(super) const DIMENSIONS: [&str; 3] = ["vcpus", "memory_mb", "disk_gb"];

pub(super) fn vector(resources: Resources) -> ResourceVector {
    let mut vector = ResourceVector::default();
    vector.set(0, resources.vcpus);
    vector.set(1, resources.memory_mb);
    vector.set(2, resources.disk_gb);
    vector
}

/// All that the request asks for, its server group aside.
pub(super) fn request(spec: &RequestSpec) -> Request {
    let count = u32::try_from(spec.instances.len()).unwrap_or(u32::MAX);
    let mut request = Request::new(vector(spec.resources)).instances(count);
    request.purpose = match spec.purpose {
        Purpose::Create | Purpose::Move => nova_sched::Purpose::Place,
        Purpose::Rebuild => nova_sched::Purpose::Rebuild,
    };
    if spec.purpose != Purpose::Create {
        request.instance = spec.instances.first().map(|instance| instance.as_u128());
    }
    request.num_alternates = u32::try_from(spec.alternates).unwrap_or(0);
    request.zone = spec.availability_zone.as_ref().map(ToString::to_string);
    request.force_host = spec.force_host.as_ref().map(ToString::to_string);
    request.force_node = spec.force_node.clone();
    request.requested_host = spec.requested_host.as_ref().map(ToString::to_string);
    request.ignore_hosts = spec.ignore_hosts.iter().map(ToString::to_string).collect();
    request.architecture = spec.architecture.as_deref().and_then(architecture);
    request.project_id = (!spec.project_id.is_empty()).then(|| spec.project_id.clone());
    request.flavor = (!spec.flavor.name.is_empty()).then(|| spec.flavor.name.clone());
    request.extra_specs = spec.flavor.extra_specs.clone();
    request.image =
        spec.image.as_ref().map(|image| ImageRef { id: image.id.to_string(), properties: image.properties.clone() });
    let image = spec.image.as_ref().map(|image| &image.properties);
    for (name, wish) in spec.flavor.extra_specs.iter().chain(image.into_iter().flatten()) {
        let Some(name) = name.strip_prefix("trait:") else { continue };
        match wish.as_str() {
            "forbidden" => request.forbidden_traits.push(name.to_owned()),
            _ => request.required_traits.push(name.to_owned()),
        }
    }
    request.hints = hints(&spec.hints);
    request
}

/// The name under which hosts know an architecture (nova/objects/fields.py, `Architecture.canonicalize`). None for an
/// empty one: an image that says nothing goes anywhere.
fn architecture(name: &str) -> Option<String> {
    let name = name.trim().to_ascii_lowercase();
    let known = match name.as_str() {
        "" => return None,
        "amd64" => "x86_64",
        "i386" | "i486" | "i586" => "i686",
        "arm64" => "aarch64",
        other => other,
    };
    Some(known.to_owned())
}

/// The hints that filters know, and all others as text. Their form was checked when they came.
fn hints(given: &BTreeMap<String, Value>) -> Hints {
    let mut hints = Hints::default();
    for (name, value) in given {
        match name.as_str() {
            "same_host" => hints.same_host = instances(value),
            "different_host" => hints.different_host = instances(value),
            "build_near_host_ip" => hints.build_near_host_ip = value.as_str().map(str::to_owned),
            "cidr" => hints.cidr = value.as_str().map(str::to_owned),
            "query" => hints.query = Some(text(value)),
            _ => drop(hints.others.insert(name.clone(), text(value))),
        }
    }
    hints
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One id, or a list of them. What is no id names no instance, so that nothing is on its host.
fn instances(value: &Value) -> Vec<u128> {
    let one = |value: &Value| {
        let id = value.as_str().and_then(|text| text.parse::<InstanceId>().ok());
        id.map_or(0, |id| id.as_u128())
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => vec![one(value)],
    }
}

#[cfg(test)]
mod tests {
    use nova_core::request::{FlavorWish, ImageWish};
    use serde_json::json;

    use super::*;

    const A: &str = "11111111-1111-4111-8111-111111111111";

    #[test]
    fn architectures_have_one_name() {
        let asked = |name: &str| request(&RequestSpec { architecture: Some(name.into()), ..RequestSpec::default() });
        for (given, known) in
            [("amd64", Some("x86_64")), ("ARM64", Some("aarch64")), ("s390x", Some("s390x")), (" ", None)]
        {
            assert_eq!(asked(given).architecture.as_deref(), known, "{given}");
        }
    }

    #[test]
    fn everything_that_filters_read_is_told() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = RequestSpec {
            project_id: "p".into(),
            flavor: FlavorWish {
                name: "m1".into(),
                extra_specs: map(&[("trait:HW_GPU", "required"), ("trait:SLOW", "forbidden"), ("x:y", "1")]),
            },
            image: Some(ImageWish {
                id: A.parse().unwrap(),
                properties: map(&[("trait:FROM_IMAGE", "required"), ("os_distro", "debian")]),
            }),
            hints: BTreeMap::from([
                ("same_host".to_owned(), json!(A)),
                ("different_host".to_owned(), json!([A])),
                ("query".to_owned(), json!("[\">=\", \"$free_ram_mb\", 1]")),
                ("own".to_owned(), json!({"a": 1})),
            ]),
            ..RequestSpec::default()
        };
        let asked = request(&spec);
        let id = A.parse::<InstanceId>().unwrap().as_u128();
        assert_eq!((asked.hints.same_host, asked.hints.different_host), (vec![id], vec![id]));
        assert_eq!(asked.hints.query.as_deref(), Some("[\">=\", \"$free_ram_mb\", 1]"));
        assert_eq!(asked.hints.others["own"], "{\"a\":1}");
        assert_eq!(asked.required_traits, ["HW_GPU", "FROM_IMAGE"]);
        assert_eq!(asked.forbidden_traits, ["SLOW"]);
        assert_eq!((asked.project_id.as_deref(), asked.flavor.as_deref()), (Some("p"), Some("m1")));
        assert_eq!(asked.extra_specs["x:y"], "1");
        assert_eq!(asked.image.unwrap().properties["os_distro"], "debian");
    }
}
