//! A trace from a Nova database: `request_specs`, and `instances` for when they ended.
//!
//! Nova writes one request spec per instance, also when several were asked for at once, so each row is one request.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::fleet::aggregate_trait;
use super::records::{InputError, Record, Records};
use super::trace::{Shape, Trace, TraceBuilder};

/// Builds the trace; the first request comes at 0. Without `instances`, or for instances that have not ended, a request
/// lives to the end.
///
/// # Errors
/// A row that can't be used, with its line and column; within `spec` the path is part of the message.
pub fn read(source: &str, specs: Records, instances: Option<Records>) -> Result<Trace, InputError> {
    let ends = instances.map(ends).transpose()?;
    let mut requests = Vec::new();
    let mut left_out = LeftOut::default();
    for row in specs {
        let row = row?;
        row.required("created_at")?;
        let created = row.moment_ms("created_at")?.unwrap_or(0);
        let spec = Spec::of(&row)?;
        let shape = spec.shape(&mut left_out)?;
        let uuid = row.text("instance_uuid").or_else(|| spec.data.get("instance_uuid").and_then(Value::as_str));
        let end = ends.as_ref().zip(uuid).and_then(|(ends, uuid)| ends.get(uuid));
        // Clocks of several machines may disagree by some seconds.
        let lifetime = end.map(|end| (*end).saturating_sub(created).max(0).unsigned_abs());
        requests.push((created, lifetime, shape));
    }
    let first = requests.iter().map(|(created, ..)| *created).min().unwrap_or(0);
    let mut builder = TraceBuilder::default();
    for (created, lifetime, shape) in requests {
        builder.add(created.saturating_sub(first).unsigned_abs(), lifetime, shape);
    }
    builder.build(source, left_out.notes())
}

/// When instances ended, by uuid.
fn ends(rows: Records) -> Result<HashMap<String, i64>, InputError> {
    let mut ends = HashMap::new();
    for row in rows {
        let row = row?;
        let uuid = row.required("uuid")?.to_owned();
        let (terminated, deleted) = (row.moment_ms("terminated_at")?, row.moment_ms("deleted_at")?);
        if let Some(end) = terminated.or(deleted) {
            ends.insert(uuid, end);
        }
    }
    Ok(ends)
}

/// What requests ask for and the replay doesn't look at, with how often.
#[derive(Debug, Default)]
struct LeftOut(BTreeMap<String, u64>);

impl LeftOut {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_insert(0) += 1;
    }

    fn notes(self) -> Vec<String> {
        self.0.into_iter().map(|(what, requests)| format!("{requests} request(s): {what} is not looked at")).collect()
    }
}

struct Spec<'a> {
    row: &'a Record,
    data: Value,
}

/// The fields of a serialized object of Nova.
fn fields(object: &Value) -> Option<&Value> {
    object.get("nova_object.data")
}

impl<'a> Spec<'a> {
    fn of(row: &'a Record) -> Result<Self, InputError> {
        let text = row.required("spec")?;
        let mut object: Value =
            serde_json::from_str(text).map_err(|error| row.error("spec", format!("is not JSON: {error}")))?;
        match object.get_mut("nova_object.data").map(Value::take) {
            Some(data) => Ok(Self { row, data }),
            None => Err(row.error("spec", "is not a serialized RequestSpec: nova_object.data is missing")),
        }
    }

    fn shape(&self, left_out: &mut LeftOut) -> Result<Shape, InputError> {
        let flavor = self.data.get("flavor").and_then(fields);
        let flavor = flavor.ok_or_else(|| self.row.error("spec", "flavor is missing"))?;
        let mut shape = Shape::new(self.resources(flavor)?);
        if let Some(name) = flavor.get("name").and_then(Value::as_str) {
            name.clone_into(&mut shape.flavor);
        }
        shape.zone = self.data.get("availability_zone").and_then(Value::as_str).map(str::to_owned);
        let properties = self.data.get("image").and_then(fields).and_then(|image| image.get("properties"));
        let architecture = properties.and_then(fields).and_then(|properties| properties.get("hw_architecture"));
        shape.architecture = architecture.and_then(Value::as_str).map(str::to_owned);
        if let Some(extra) = flavor.get("extra_specs").and_then(Value::as_object) {
            for (key, value) in extra {
                add_extra_spec(&mut shape, key, value.as_str().unwrap_or_default(), left_out);
            }
        }
        self.count_left_out(left_out);
        Ok(shape)
    }

    /// Cores, memory and disk as Nova asks Placement for them (`nova/scheduler/utils.py`): a volume takes the place of the
    /// root disk, and swap counts as whole GiB.
    fn resources(&self, flavor: &Value) -> Result<[u64; 3], InputError> {
        let amount = |key: &str| match flavor.get(key) {
            Some(value) => value
                .as_u64()
                .ok_or_else(|| self.row.error("spec", format!("flavor.{key}: {value} is not a whole number"))),
            None => Err(self.row.error("spec", format!("flavor.{key} is missing"))),
        };
        let optional = |key: &str| if flavor.get(key).is_none_or(Value::is_null) { Ok(0) } else { amount(key) };
        let is_bfv = self.data.get("is_bfv").and_then(Value::as_bool).unwrap_or(false);
        let root_gb = if is_bfv { 0 } else { optional("root_gb")? };
        let swap_gb = optional("swap")?.div_ceil(1_024);
        let disk_gb = root_gb.saturating_add(optional("ephemeral_gb")?).saturating_add(swap_gb);
        Ok([amount("vcpus")?, amount("memory_mb")?, disk_gb])
    }

    fn count_left_out(&self, left_out: &mut LeftOut) {
        let given = |key: &str| match self.data.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(object)) => !object.is_empty(),
            Some(_) => true,
        };
        for key in ["instance_group", "force_hosts", "force_nodes", "scheduler_hints", "numa_topology"] {
            if given(key) {
                left_out.count(key);
            }
        }
        let pci = self.data.get("pci_requests").and_then(fields).and_then(|pci| pci.get("requests"));
        if pci.and_then(Value::as_array).is_some_and(|requests| !requests.is_empty()) {
            left_out.count("pci_requests");
        }
    }
}

/// Traits, and aggregate properties that are plain values; the rest is counted as left out.
fn add_extra_spec(shape: &mut Shape, key: &str, value: &str, left_out: &mut LeftOut) {
    if let Some(name) = key.strip_prefix("trait:") {
        match value {
            "required" => shape.required_traits.push(name.to_owned()),
            "forbidden" => shape.forbidden_traits.push(name.to_owned()),
            _ => left_out.count(format!("{key}={value}")),
        }
        return;
    }
    match key.strip_prefix("aggregate_instance_extra_specs:") {
        // Operators begin with one of these, as in `<or>`, `s==` and `>=`.
        Some(key) if !value.contains(['<', '>', '=', '!']) => shape.required_traits.push(aggregate_trait(key, value)),
        _ => left_out.count(format!("extra spec {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::records;

    fn rows(name: &str, text: String) -> Records {
        records::read(name, std::io::Cursor::new(text)).unwrap()
    }

    fn spec(extra: &str, flavor: &str) -> String {
        let flavor = format!("{{\"nova_object.name\": \"Flavor\", \"nova_object.data\": {{{flavor}}}}}");
        let spec =
            format!("{{\"nova_object.name\": \"RequestSpec\", \"nova_object.data\": {{\"flavor\": {flavor}{extra}}}}}");
        spec.replace('"', "\"\"")
    }

    const SMALL: &str = "\"name\": \"m1.small\", \"vcpus\": 1, \"memory_mb\": 2048, \"root_gb\": 20, \"ephemeral_gb\": 5, \
                         \"swap\": 512, \"extra_specs\": {\"trait:SSD\": \"required\", \"hw:cpu_policy\": \"dedicated\", \
                         \"aggregate_instance_extra_specs:net\": \"100g\"}";

    #[test]
    fn specs_and_instances_become_a_trace() {
        let image = ", \"image\": {\"nova_object.data\": {\"properties\": {\"nova_object.data\": {\"hw_architecture\": \"aarch64\"}}}}";
        let specs = format!(
            "id,created_at,instance_uuid,spec\n\
             1,2026-01-01 00:01:00,u1,\"{}\"\n2,2026-01-01 00:00:00,u2,\"{}\"\n",
            spec(", \"availability_zone\": \"east\", \"instance_group\": {\"a\": 1}, \"num_instances\": 2", SMALL),
            spec(&format!(", \"is_bfv\": true, \"num_instances\": 2{image}"), SMALL),
        );
        let instances = "uuid,terminated_at,deleted_at\nu1,,2026-01-01 01:01:00\nu2,,\n".to_owned();
        let trace = read("specs", rows("specs", specs), Some(rows("instances", instances))).unwrap();
        let (first, second) = (trace.arrivals[0], trace.arrivals[1]);
        assert_eq!((first.at_ms, first.lifetime_ms), (0, None));
        assert_eq!((second.at_ms, second.lifetime_ms), (60_000, Some(3_600_000)));
        let shape = trace.shape(&second);
        assert_eq!((shape.flavor.as_str(), shape.resources, shape.count), ("m1.small", [1, 2_048, 26], 1));
        assert_eq!((shape.zone.as_deref(), shape.architecture.as_deref()), (Some("east"), None));
        assert_eq!(shape.required_traits, ["aggregate:net=100g", "SSD"]);
        let from_volume = trace.shape(&first);
        assert_eq!((from_volume.resources[2], from_volume.architecture.as_deref()), (6, Some("aarch64")));
        let notes = [
            "2 request(s): extra spec hw:cpu_policy is not looked at",
            "1 request(s): instance_group is not looked at",
        ];
        assert_eq!(trace.notes, notes);
    }

    #[test]
    fn json_lines_may_hold_the_spec_as_an_object() {
        let line = "{\"created_at\": \"2026-01-01T00:00:00\", \"spec\": {\"nova_object.data\": {\"flavor\": \
                    {\"nova_object.data\": {\"vcpus\": 2, \"memory_mb\": 512, \"root_gb\": 1}}}}}\n";
        let trace = read("specs", rows("specs", line.to_owned()), None).unwrap();
        assert_eq!(trace.shapes[0].resources, [2, 512, 1]);
        assert_eq!(trace.shapes[0].flavor, "2-512-1");
    }

    #[test]
    fn bad_specs_are_named() {
        let error = |row: &str| {
            let text = format!("created_at,spec\n{row}\n");
            read("s.csv", rows("s.csv", text), None).unwrap_err().to_string()
        };
        assert_eq!(error("2026-01-01 00:00:00,"), "s.csv:2: spec: is empty");
        assert!(error("2026-01-01 00:00:00,x").starts_with("s.csv:2: spec: is not JSON: "));
        assert_eq!(
            error("2026-01-01 00:00:00,{}"),
            "s.csv:2: spec: is not a serialized RequestSpec: nova_object.data is missing"
        );
        assert!(error("soon,{}").starts_with("s.csv:2: created_at: 'soon' is not a time"));
        let with = |flavor: &str| error(&format!("2026-01-01 00:00:00,\"{}\"", spec("", flavor)));
        assert_eq!(with("\"vcpus\": 1"), "s.csv:2: spec: flavor.memory_mb is missing");
        assert_eq!(with("\"vcpus\": -1, \"memory_mb\": 1"), "s.csv:2: spec: flavor.vcpus: -1 is not a whole number");
    }
}
