//! The description of a fleet in an INI file: groups of equal hosts, zones and aggregates.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::options::ini;
use nova_sched::{HostInventory, Ratios, ResourceVector};

use super::{DEFAULT_ZONE, Fleet, FleetHost, aggregate_trait};
use crate::capacity::DIMENSIONS;
use crate::capacity::records::InputError;

/// More hosts than this are a mistake in the file.
const MOST_HOSTS: u64 = 10_000_000;

/// Reads the INI form:
///
/// ```ini
/// [DEFAULT]
/// cpu_allocation_ratio = 4
///
/// [group compute]
/// hosts = 40
/// vcpus = 64
/// memory_mb = 262144
/// disk_gb = 2000
/// aggregates = fast
///
/// [aggregate fast]
/// availability_zone = east
/// metadata = ssd=true
/// ```
///
/// # Errors
/// The first line that can't be used, with its name.
pub fn parse(source: &str, text: &str) -> Result<Fleet, InputError> {
    let file = File::new(source, text)?;
    let aggregates = file.aggregates()?;
    let mut hosts = Vec::new();
    for section in file.sections.iter().filter(|section| section.kind == Kind::Group) {
        section.add_hosts(&file, &aggregates, &mut hosts)?;
    }
    match hosts.is_empty() {
        true => Err(InputError::whole(source, "describes no host: a section [group NAME] is needed")),
        false => Ok(Fleet { source: source.to_owned(), hosts, notes: Vec::new() }),
    }
}

/// Options of a group; those that may also stand in `[DEFAULT]`, for all groups.
const OF_GROUP: [&str; 4] = ["hosts", "vcpus", "memory_mb", "disk_gb"];
const OF_ALL: [&str; 10] = [
    "availability_zone",
    "architectures",
    "traits",
    "aggregates",
    "cpu_allocation_ratio",
    "ram_allocation_ratio",
    "disk_allocation_ratio",
    "reserved_host_cpus",
    "reserved_host_memory_mb",
    "reserved_host_disk_gb",
];
const OF_AGGREGATE: [&str; 5] =
    ["availability_zone", "metadata", "cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio"];
/// In the order of [`DIMENSIONS`], with the defaults of Nova's `initial_*_allocation_ratio`.
const RATIOS: [(&str, f64); 3] =
    [("cpu_allocation_ratio", 4.0), ("ram_allocation_ratio", 1.0), ("disk_allocation_ratio", 1.0)];
/// In the order of [`DIMENSIONS`], with Nova's defaults.
const RESERVED: [(&str, u64); 3] =
    [("reserved_host_cpus", 0), ("reserved_host_memory_mb", 512), ("reserved_host_disk_gb", 0)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Default,
    Group,
    Aggregate,
}

struct Section {
    kind: Kind,
    name: String,
    line: u64,
    values: BTreeMap<String, (String, u64)>,
}

struct Aggregate {
    zone: Option<String>,
    traits: Vec<String>,
    ratios: [Option<f64>; 3],
}

struct File {
    source: Arc<str>,
    sections: Vec<Section>,
}

impl File {
    fn new(source: &str, text: &str) -> Result<Self, InputError> {
        let source: Arc<str> = source.into();
        let parsed = ini::parse(text);
        if let Some((line, reason)) = parsed.errors.first() {
            return Err(InputError::at_line(&source, *line as u64, reason.clone()));
        }
        let mut file = Self { source, sections: vec![Section::new(Kind::Default, "DEFAULT", 1)] };
        for (header, line) in &parsed.sections {
            file.add_section(header, *line as u64)?;
        }
        for entry in parsed.entries {
            file.add_entry(entry)?;
        }
        Ok(file)
    }

    fn add_section(&mut self, header: &str, line: u64) -> Result<(), InputError> {
        let (kind, name) = kind_of(header).ok_or_else(|| {
            InputError::at_line(&self.source, line, format!("[{header}]: expected [group NAME] or [aggregate NAME]"))
        })?;
        match self.sections.iter().find(|section| section.kind == kind && section.name == name) {
            Some(_) if kind == Kind::Default => {}
            Some(first) => {
                let reason = format!("[{header}] stands in line {} already", first.line);
                return Err(InputError::at_line(&self.source, line, reason));
            }
            None => self.sections.push(Section::new(kind, name, line)),
        }
        Ok(())
    }

    fn add_entry(&mut self, entry: ini::Entry) -> Result<(), InputError> {
        let line = entry.line as u64;
        let (kind, name) = kind_of(&entry.section).unwrap_or((Kind::Default, "DEFAULT"));
        let known: Vec<&str> = match kind {
            Kind::Group => OF_GROUP.into_iter().chain(OF_ALL).collect(),
            Kind::Default => OF_ALL.to_vec(),
            Kind::Aggregate => OF_AGGREGATE.to_vec(),
        };
        if !known.contains(&entry.key.as_str()) {
            let reason = format!("no such option in [{}]; there are {}", entry.section, known.join(", "));
            return Err(self.error(line, &entry.key, reason));
        }
        let Some(section) = self.sections.iter_mut().find(|section| section.kind == kind && section.name == name)
        else {
            return Ok(());
        };
        match section.values.insert(entry.key.clone(), (entry.value, line)) {
            Some((_, first)) => Err(self.error(line, &entry.key, format!("is given in line {first} already"))),
            None => Ok(()),
        }
    }

    fn error(&self, line: u64, option: &str, reason: impl Into<String>) -> InputError {
        let column = Some(option.to_owned());
        InputError { source: Arc::clone(&self.source), line: Some(line), column, reason: reason.into() }
    }

    fn aggregates(&self) -> Result<BTreeMap<&str, Aggregate>, InputError> {
        let sections = self.sections.iter().filter(|section| section.kind == Kind::Aggregate);
        sections.map(|section| Ok((section.name.as_str(), self.aggregate(section)?))).collect()
    }

    fn aggregate(&self, section: &Section) -> Result<Aggregate, InputError> {
        let mut traits = Vec::new();
        if let Some((text, line)) = section.values.get("metadata") {
            for pair in words(text) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(self.error(*line, "metadata", format!("'{pair}' is not KEY=VALUE")));
                };
                traits.push(aggregate_trait(key, value));
            }
        }
        let mut ratios = [None; 3];
        for (slot, (option, _)) in ratios.iter_mut().zip(RATIOS) {
            *slot = section.values.get(option).map(|value| self.ratio(option, value)).transpose()?;
        }
        let zone = section.values.get("availability_zone").map(|(zone, _)| zone.clone());
        Ok(Aggregate { zone, traits, ratios })
    }

    fn ratio(&self, option: &str, (text, line): &(String, u64)) -> Result<f64, InputError> {
        match text.parse::<f64>() {
            Ok(ratio) if ratio.is_finite() && ratio > 0.0 => Ok(ratio),
            _ => Err(self.error(*line, option, format!("'{text}' is not a number above 0"))),
        }
    }

    fn whole(&self, option: &str, (text, line): &(String, u64)) -> Result<u64, InputError> {
        text.parse().map_err(|_| self.error(*line, option, format!("'{text}' is not a whole number, 0 or more")))
    }

    /// The option in the section, else in `[DEFAULT]`.
    fn value<'a>(&'a self, section: &'a Section, option: &str) -> Option<&'a (String, u64)> {
        section.values.get(option).or_else(|| self.sections.first()?.values.get(option))
    }
}

impl Section {
    fn new(kind: Kind, name: &str, line: u64) -> Self {
        Self { kind, name: name.to_owned(), line, values: BTreeMap::new() }
    }

    fn add_hosts(
        &self,
        file: &File,
        aggregates: &BTreeMap<&str, Aggregate>,
        hosts: &mut Vec<FleetHost>,
    ) -> Result<(), InputError> {
        let count = match self.values.get("hosts") {
            None => 1,
            Some(value) => file.whole("hosts", value)?,
        };
        if count == 0 || count.saturating_add(hosts.len() as u64) > MOST_HOSTS {
            let line = self.values.get("hosts").map_or(self.line, |(_, line)| *line);
            return Err(file.error(line, "hosts", format!("{count} is not between 1 and {MOST_HOSTS} in all")));
        }
        let model = self.model(file, aggregates)?;
        let digits = count.to_string().len();
        hosts.extend((1..=count).map(|number| {
            let mut inventory = model.clone();
            inventory.name = format!("{}-{number:0digits$}", self.name);
            inventory.node.clone_from(&inventory.name);
            FleetHost { inventory, in_use: ResourceVector::default() }
        }));
        Ok(())
    }

    /// A host of the group, without a name.
    fn model(&self, file: &File, aggregates: &BTreeMap<&str, Aggregate>) -> Result<HostInventory, InputError> {
        let mut total = ResourceVector::default();
        for (index, option) in DIMENSIONS.iter().enumerate() {
            let value = self
                .values
                .get(*option)
                .ok_or_else(|| file.error(self.line, option, format!("is missing in [group {}]", self.name)))?;
            total.set(index, file.whole(option, value)?);
        }
        let member_of = self.member_of(file, aggregates)?;
        let mut host = HostInventory::new("", self.zone(file, &member_of)?, total);
        for (index, (option, default)) in RESERVED.into_iter().enumerate() {
            let reserved = file.value(self, option).map(|value| file.whole(option, value)).transpose()?;
            host.reserved.set(index, reserved.unwrap_or(default));
        }
        host.ratio = self.ratios(file, &member_of)?;
        let list = |option| file.value(self, option).map(|(text, _)| words(text).map(str::to_owned).collect());
        host.architectures = list("architectures").unwrap_or_default();
        host.traits = list("traits").unwrap_or_default();
        host.traits.extend(member_of.iter().flat_map(|aggregate| aggregate.traits.iter().cloned()));
        Ok(host)
    }

    fn member_of<'a>(
        &self,
        file: &File,
        aggregates: &'a BTreeMap<&str, Aggregate>,
    ) -> Result<Vec<&'a Aggregate>, InputError> {
        let Some((text, line)) = file.value(self, "aggregates") else { return Ok(Vec::new()) };
        let find = |name| {
            aggregates
                .get(name)
                .ok_or_else(|| file.error(*line, "aggregates", format!("there is no [aggregate {name}]")))
        };
        words(text).map(find).collect()
    }

    /// The group's own zone, else that of its aggregates, which must agree: Nova keeps a host out of two zones.
    fn zone(&self, file: &File, member_of: &[&Aggregate]) -> Result<String, InputError> {
        let mut zones: Vec<&str> = member_of.iter().filter_map(|aggregate| aggregate.zone.as_deref()).collect();
        zones.extend(self.values.get("availability_zone").map(|(zone, _)| zone.as_str()));
        zones.dedup();
        match zones[..] {
            [] => Ok(file.value(self, "availability_zone").map_or(DEFAULT_ZONE, |(zone, _)| zone).to_owned()),
            [zone] => Ok(zone.to_owned()),
            _ => {
                let reason = format!("[group {}] is in several zones: {}", self.name, zones.join(", "));
                Err(file.error(self.line, "availability_zone", reason))
            }
        }
    }

    /// Of several aggregates the smallest ratio counts, as in Nova's AggregateCoreFilter; it comes before the group's.
    fn ratios(&self, file: &File, member_of: &[&Aggregate]) -> Result<Ratios, InputError> {
        let mut ratios = Ratios::default();
        for (index, (option, default)) in RATIOS.into_iter().enumerate() {
            let own = file.value(self, option).map(|value| file.ratio(option, value)).transpose()?;
            let of_aggregates = member_of.iter().filter_map(|aggregate| aggregate.ratios[index]);
            let smallest = of_aggregates.reduce(f64::min);
            ratios.set(index, smallest.or(own).unwrap_or(default));
        }
        Ok(ratios)
    }
}

fn kind_of(header: &str) -> Option<(Kind, &str)> {
    if header == "DEFAULT" {
        return Some((Kind::Default, header));
    }
    let (kind, name) = header.split_once(char::is_whitespace)?;
    let kind = match kind {
        "group" => Kind::Group,
        "aggregate" => Kind::Aggregate,
        _ => return None,
    };
    Some((kind, name.trim())).filter(|(_, name)| !name.is_empty())
}

/// A list, separated by commas or white space.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "\
[DEFAULT]
reserved_host_memory_mb = 1024
[group compute]
hosts = 12
vcpus = 64
memory_mb = 262144
disk_gb = 2000
aggregates = fast, licensed
[group old]
vcpus = 16
memory_mb = 65536
disk_gb = 500
cpu_allocation_ratio = 1
availability_zone = west
architectures = aarch64
[aggregate fast]
availability_zone = east
metadata = ssd=true net=100g
cpu_allocation_ratio = 3
[aggregate licensed]
cpu_allocation_ratio = 2
";

    #[test]
    fn groups_become_hosts_with_zones_ratios_and_aggregates() {
        let fleet = parse("fleet.ini", FLEET).unwrap();
        assert_eq!(fleet.hosts.len(), 13);
        let first = &fleet.hosts[0].inventory;
        assert_eq!((first.name.as_str(), first.zone.as_str()), ("compute-01", "east"));
        assert_eq!(first.traits, ["aggregate:ssd=true", "aggregate:net=100g"]);
        assert_eq!([0, 1, 2].map(|index| first.capacity(index)), [128, 261_120, 2_000]);
        let last = &fleet.hosts[12].inventory;
        assert_eq!((last.name.as_str(), last.zone.as_str(), last.capacity(0)), ("old-1", "west", 16));
        assert_eq!(last.architectures, ["aarch64"]);
        assert_eq!(fleet.zones(), [("east", 12), ("west", 1)].into());
        assert_eq!(fleet.capacity(), [12 * 128 + 16, 12 * 261_120 + 64_512, 24_500]);
        assert_eq!(fleet.table().unwrap().len(), 13);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let group = "[group a]\nvcpus = 4\nmemory_mb = 4096\ndisk_gb = 10\n";
        let cases = [
            ("".to_owned(), "f.ini: describes no host: a section [group NAME] is needed"),
            ("[groups a]\n".to_owned(), "f.ini:1: [groups a]: expected [group NAME] or [aggregate NAME]"),
            ("[group a]\nvcpus = 4\n".to_owned(), "f.ini:1: memory_mb: is missing in [group a]"),
            (format!("{group}hosts = 0\n"), "f.ini:5: hosts: 0 is not between 1 and 10000000 in all"),
            (
                format!("{group}hosts = {}\n", u64::MAX),
                "f.ini:5: hosts: 18446744073709551615 is not between 1 and 10000000 in all",
            ),
            (format!("{group}hosts = some\n"), "f.ini:5: hosts: 'some' is not a whole number, 0 or more"),
            (
                format!("{group}cpu_allocation_ratio = -1\n"),
                "f.ini:5: cpu_allocation_ratio: '-1' is not a number above 0",
            ),
            (format!("{group}aggregates = ssd\n"), "f.ini:5: aggregates: there is no [aggregate ssd]"),
            (format!("{group}vcpus = 5\n"), "f.ini:5: vcpus: is given in line 2 already"),
            (format!("{group}{group}"), "f.ini:5: [group a] stands in line 1 already"),
            (format!("{group}nonsense\n"), "f.ini:5: expected 'key = value', a [section] or a comment"),
            (
                format!("{group}availability_zone = x\naggregates = b\n[aggregate b]\navailability_zone = y\n"),
                "f.ini:1: availability_zone: [group a] is in several zones: y, x",
            ),
            ("[aggregate b]\nmetadata = ssd\n".to_owned(), "f.ini:2: metadata: 'ssd' is not KEY=VALUE"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse("f.ini", &text).unwrap_err().to_string(), expected);
        }
        let unknown = parse("f.ini", &format!("{group}memory = 1\n")).unwrap_err().to_string();
        assert!(
            unknown.starts_with("f.ini:5: memory: no such option in [group a]; there are hosts, vcpus"),
            "{unknown}"
        );
    }
}
