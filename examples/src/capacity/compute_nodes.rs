//! A fleet from a Nova database: `compute_nodes`, and the aggregates that give zones and properties.

use std::collections::{BTreeMap, BTreeSet};

use nova_sched::{HostInventory, Ratios, ResourceVector};

use super::fleet::{DEFAULT_ZONE, Fleet, FleetHost, aggregate_trait};
use super::records::{InputError, Record, Records};

/// How rows become hosts.
#[derive(Debug, Clone, Copy)]
pub struct NodeOptions {
    /// Ratios of cores, memory and disk for hosts that give none (0 or empty).
    pub ratios: [f64; 3],
    /// What is in use by the table stays in use for the whole replay; otherwise the hosts begin empty.
    pub keep_in_use: bool,
}

/// What the aggregates say of a host.
#[derive(Debug, Default, Clone)]
struct Membership {
    zone: Option<String>,
    traits: Vec<String>,
}

/// Builds the fleet.
///
/// # Errors
/// A row that can't be used, with its line and column.
pub fn read(
    source: &str,
    nodes: Records,
    aggregates: Option<Records>,
    options: NodeOptions,
) -> Result<Fleet, InputError> {
    let members = aggregates.map(memberships).transpose()?.unwrap_or_default();
    let mut hosts = Vec::new();
    let mut names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for node in nodes {
        let node = node?;
        if is_deleted(&node) {
            continue;
        }
        let host = host(&node, &members, options)?;
        if !names.insert(host.inventory.name.clone()) {
            return Err(node.error("hypervisor_hostname", format!("'{}' is there twice", host.inventory.name)));
        }
        seen.extend(node.text("host").map(str::to_owned));
        hosts.push(host);
    }
    if hosts.is_empty() {
        return Err(InputError::whole(source, "has no compute node that isn't deleted"));
    }
    let strangers = members.keys().filter(|host| !seen.contains(*host)).count();
    let notes = match strangers {
        0 => Vec::new(),
        _ => vec![format!("{strangers} host(s) of aggregates are no compute nodes here")],
    };
    Ok(Fleet { source: source.to_owned(), hosts, notes })
}

/// Nova marks a deleted row with its own id; an export of live rows may lack the column.
fn is_deleted(record: &Record) -> bool {
    record.text("deleted").is_some_and(|deleted| !matches!(deleted, "0" | "f" | "false"))
}

fn host(node: &Record, members: &BTreeMap<String, Membership>, options: NodeOptions) -> Result<FleetHost, InputError> {
    let needed = |column| node.whole(column)?.ok_or_else(|| node.error(column, "is missing or empty"));
    let total: ResourceVector = [needed("vcpus")?, needed("memory_mb")?, needed("local_gb")?].into();
    let service = node.required("host")?;
    // One host may have several nodes (Ironic): each is a place of its own.
    let name = node.text("hypervisor_hostname").unwrap_or(service);
    let member = members.get(service).cloned().unwrap_or_default();
    let mut inventory = HostInventory::new(name, member.zone.as_deref().unwrap_or(DEFAULT_ZONE), total);
    inventory.traits = member.traits;
    inventory.architectures = architectures(node)?;
    let mut ratios = Ratios::default();
    for (index, column) in ["cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio"].iter().enumerate()
    {
        let ratio = node.decimal(column)?.filter(|ratio| *ratio > 0.0);
        ratios.set(index, ratio.unwrap_or(options.ratios[index]));
    }
    inventory.ratio = ratios;
    let mut in_use = ResourceVector::default();
    if options.keep_in_use {
        for (index, column) in ["vcpus_used", "memory_mb_used", "local_gb_used"].iter().enumerate() {
            in_use.set(index, node.whole(column)?.unwrap_or(0));
        }
    }
    Ok(FleetHost { inventory, in_use })
}

/// `supported_instances` is a list such as `[["x86_64", "kvm", "hvm"]]`.
fn architectures(node: &Record) -> Result<Vec<String>, InputError> {
    let Some(text) = node.text("supported_instances") else { return Ok(Vec::new()) };
    let list: Vec<Vec<String>> = serde_json::from_str(text)
        .map_err(|error| node.error("supported_instances", format!("is not a list of lists: {error}")))?;
    let names: BTreeSet<String> = list.into_iter().filter_map(|entry| entry.into_iter().next()).collect();
    Ok(names.into_iter().collect())
}

/// Rows of `name, host, key, value`.
fn memberships(rows: Records) -> Result<BTreeMap<String, Membership>, InputError> {
    let mut members: BTreeMap<String, Membership> = BTreeMap::new();
    for row in rows {
        let row = row?;
        let (host, key, value) = (row.required("host")?, row.required("key")?, row.text("value").unwrap_or_default());
        let member = members.entry(host.to_owned()).or_default();
        match (key, &member.zone) {
            ("availability_zone", Some(zone)) if zone != value => {
                return Err(row.error("value", format!("host '{host}' is in the zones '{zone}' and '{value}'")));
            }
            ("availability_zone", _) => member.zone = Some(value.to_owned()),
            _ => {
                let property = aggregate_trait(key, value);
                if !member.traits.contains(&property) {
                    member.traits.push(property);
                }
            }
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::records;

    const OPTIONS: NodeOptions = NodeOptions { ratios: [4.0, 1.0, 1.0], keep_in_use: true };
    const NODES: &str = "\
host,hypervisor_hostname,vcpus,memory_mb,local_gb,vcpus_used,memory_mb_used,local_gb_used,cpu_allocation_ratio,ram_allocation_ratio,supported_instances,deleted
h1,h1.example.org,32,131072,1000,5,8704,40,0,1.5,\"[[\"\"x86_64\"\", \"\"kvm\"\", \"\"hvm\"\"], [\"\"i686\"\", \"\"kvm\"\", \"\"hvm\"\"]]\",0
h2,h2.example.org,32,131072,1000,0,512,0,2.0,\\N,,0
gone,gone,32,131072,1000,0,512,0,,,,7
";

    fn rows(name: &str, text: &str) -> Records {
        records::read(name, std::io::Cursor::new(text.to_owned())).unwrap()
    }

    #[test]
    fn nodes_and_aggregates_become_a_fleet() {
        let aggregates = "name,host,key,value\na,h1,availability_zone,east\nb,h1,ssd,true\nb,h9,ssd,true\n";
        let fleet = read("nodes", rows("nodes", NODES), Some(rows("aggregates", aggregates)), OPTIONS).unwrap();
        assert_eq!(fleet.hosts.len(), 2);
        let FleetHost { inventory, in_use } = &fleet.hosts[0];
        assert_eq!((inventory.name.as_str(), inventory.zone.as_str()), ("h1.example.org", "east"));
        assert_eq!([0, 1, 2].map(|index| inventory.capacity(index)), [128, 196_608, 1_000]);
        assert_eq!(inventory.architectures, ["i686", "x86_64"]);
        assert_eq!(inventory.traits, ["aggregate:ssd=true"]);
        assert_eq!(*in_use, [5, 8_704, 40].into());
        let second = &fleet.hosts[1].inventory;
        assert_eq!((second.zone.as_str(), second.capacity(0), second.capacity(1)), (DEFAULT_ZONE, 64, 131_072));
        assert_eq!(fleet.notes, ["1 host(s) of aggregates are no compute nodes here"]);
        let table = fleet.table().unwrap();
        assert_eq!(table.host("h1.example.org").unwrap().used(1), 8_704);
    }

    #[test]
    fn bad_rows_are_named() {
        let error = |text: &str| read("n", rows("n.csv", text), None, OPTIONS).unwrap_err().to_string();
        let header = "host,vcpus,memory_mb,local_gb,supported_instances";
        assert_eq!(error(&format!("{header}\nh,x,1,1,\n")), "n.csv:2: vcpus: 'x' is not a whole number, 0 or more");
        assert_eq!(error("host,vcpus,memory_mb\nh,1,1\n"), "n.csv:2: local_gb: is missing or empty");
        assert_eq!(error(&format!("{header}\n,1,1,1,\n")), "n.csv:2: host: is empty");
        assert_eq!(
            error(&format!("{header}\nh,1,1,1,\nh,1,1,1,\n")),
            "n.csv:3: hypervisor_hostname: 'h' is there twice"
        );
        assert!(error(&format!("{header}\nh,1,1,1,kvm\n")).starts_with("n.csv:2: supported_instances: is not a list"));
        assert_eq!(error(&format!("{header},deleted\nh,1,1,1,,9\n")), "n: has no compute node that isn't deleted");
        let zones = "host,key,value\nh,availability_zone,a\nh,availability_zone,b\n";
        let error = read("n", rows("n", NODES), Some(rows("a.csv", zones)), OPTIONS).unwrap_err().to_string();
        assert_eq!(error, "a.csv:3: value: host 'h' is in the zones 'a' and 'b'");
    }
}
