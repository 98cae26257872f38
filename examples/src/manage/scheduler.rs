//! `scheduler explain`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use jiff::SignedDuration;
use nova::scheduler::{Hosts, Stored};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::flavor::Resources;
use nova_core::ids::{HostName, InstanceId};
use nova_core::options::{Config, common};
use nova_core::request::{FlavorWish, ImageWish, NoValidHost, RequestSpec, Selection};
use nova_core::server_group::group_of_hints;
use nova_core::topology;
use nova_db::{InstanceQuery, Store};
use nova_sched::{HostExplanation, SchedulerRng};
use serde_json::{Value, json};

use super::{Done, database};
use crate::cli::StartError;
use crate::control::algorithm;
use crate::process::{OsEntropy, SystemClock};

/// The server that is thought of.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// Its flavor, by id or name
    #[arg(long, value_name = "FLAVOR", conflicts_with_all = ["vcpus", "ram", "disk"], required_unless_present_any = ["vcpus", "ram", "disk"])]
    pub flavor: Option<String>,
    /// Without a flavor: virtual CPUs
    #[arg(long, default_value_t = 0)]
    pub vcpus: u64,
    /// Without a flavor: memory in MiB
    #[arg(long, default_value_t = 0)]
    pub ram: u64,
    /// Without a flavor: disk in GiB
    #[arg(long, default_value_t = 0)]
    pub disk: u64,
    /// The id of its image
    #[arg(long, value_name = "ID")]
    pub image: Option<String>,
    /// The id of its project
    #[arg(long, value_name = "ID")]
    pub project: Option<String>,
    /// The availability zone that is asked for
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// A scheduler hint, such as group=ID or different_host=ID; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub hint: Vec<String>,
    /// The host that an administrator names (zone:host)
    #[arg(long, value_name = "HOST", conflicts_with = "requested_host")]
    pub host: Option<String>,
    /// The host that is asked for and checked like any other
    #[arg(long, value_name = "HOST")]
    pub requested_host: Option<String>,
    /// A host that must not be chosen; may be given several times
    #[arg(long, value_name = "HOST")]
    pub ignore_host: Vec<String>,
    /// How many servers, all or none: tells where they would go
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// Show so many hosts at most; 0 shows all
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn explain(config: &Config, asked: &ExplainArgs, out: &mut (dyn Write + Send)) -> Done {
    let store = database::open_current(config).await?;
    let algorithm = algorithm(config)?;
    let spec = request(&*store, asked).await?;
    let stored = Stored::read(&*store).await.map_err(|e| StartError::new("the hosts cannot be read", &e))?;
    let down = SignedDuration::try_from(config.get(&common::SERVICE_DOWN_TIME)).unwrap_or(SignedDuration::MAX);
    let mut hosts = Hosts::new(&*algorithm).map_err(|e| StartError::new("the scheduler cannot be used", &e))?;
    hosts.read_from(&stored, SystemClock.now(), down);
    let servers = store.list_instances(&InstanceQuery::default()).await;
    hosts.note_images(&servers.map_err(|e| StartError::new("the servers cannot be read", &e))?);
    let explained = hosts.explain(&*algorithm, &spec);
    let mut rng = SchedulerRng::from_seed(OsEntropy.next_u64());
    let outcome = hosts.select(&*algorithm, &spec, &mut rng, SystemClock.now()).map(|selections| places(&selections));
    match asked.json {
        true => writeln!(out, "{:#}", as_json(algorithm.name(), &explained, &outcome, asked.limit))?,
        false => out.write_all(as_text(algorithm.name(), &explained, &outcome, asked.limit).as_bytes())?,
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where servers would go, or why they would not.
type Outcome = Result<BTreeMap<HostName, usize>, NoValidHost>;

/// How many would go to which host.
fn places(selections: &[Selection]) -> BTreeMap<HostName, usize> {
    let mut places = BTreeMap::new();
    for selection in selections {
        *places.entry(selection.chosen.host.clone()).or_insert(0) += 1;
    }
    places
}

/// The request that such a server would make.
async fn request(store: &dyn Store, asked: &ExplainArgs) -> Result<RequestSpec, StartError> {
    let mut spec = RequestSpec {
        resources: Resources { vcpus: asked.vcpus, memory_mb: asked.ram, disk_gb: asked.disk },
        project_id: asked.project.clone().unwrap_or_default(),
        availability_zone: asked.zone.as_deref().map(Into::into),
        hints: hints(&asked.hint)?,
        instances: (0..asked.count).map(|_| InstanceId::generate(&OsEntropy)).collect(),
        force_host: asked.host.as_deref().map(Into::into),
        requested_host: asked.requested_host.as_deref().map(Into::into),
        ignore_hosts: asked.ignore_host.iter().map(|host| host.as_str().into()).collect(),
        ..RequestSpec::default()
    };
    if let Some(wanted) = &asked.flavor {
        let flavors = store.list_flavors().await.map_err(|e| StartError::new("the flavors cannot be read", &e))?;
        let found = flavors.into_iter().find(|flavor| flavor.id.as_str() == wanted || flavor.name == *wanted);
        let flavor = found.ok_or_else(|| StartError::because(format!("--flavor: there is no flavor {wanted}")))?;
        spec.resources = flavor.resources();
        spec.flavor = FlavorWish { name: flavor.name, extra_specs: flavor.extra_specs };
    }
    if let Some(id) = &asked.image {
        let unknown = || StartError::because(format!("--image: there is no image {id}"));
        let id = id.parse().map_err(|_| unknown())?;
        let image = store.get_image(id).await.map_err(|e| StartError::new("--image", &e))?;
        let property = |name: &str| image.properties.get(name).cloned();
        spec.architecture = property("hw_architecture").or_else(|| property("architecture"));
        spec.image = Some(ImageWish { id, properties: image.properties.clone() });
    }
    let none = BTreeMap::new();
    let image = spec.image.as_ref().map_or(&none, |image| &image.properties);
    let Resources { vcpus, memory_mb, .. } = spec.resources;
    let vcpus = u32::try_from(vcpus).unwrap_or(u32::MAX);
    let topology = topology::asked(&spec.flavor.extra_specs, image, vcpus, memory_mb);
    spec.topology = topology.map_err(|error| StartError::because(format!("--flavor, --image: {error}")))?;
    if topology::asks_dedicated(&spec.flavor.extra_specs, image) {
        spec.resources.vcpus = 0;
    }
    if spec.hints.contains_key("group") && group_of_hints(&spec.hints).is_none() {
        return Err(StartError::because("--hint group: it is not the id of a server group"));
    }
    if let Some(id) = group_of_hints(&spec.hints) {
        let group = store.group_placement(id).await.map_err(|e| StartError::new("--hint group", &e))?;
        spec.group = Some(group.ok_or_else(|| StartError::because(format!("--hint group: there is no group {id}")))?);
    }
    Ok(spec)
}

fn hints(given: &[String]) -> Result<BTreeMap<String, Value>, StartError> {
    let split = |hint: &String| {
        let (key, value) = hint.split_once('=')?;
        Some((key.to_owned(), Value::String(value.to_owned())))
    };
    let wrong = |hint: &String| StartError::because(format!("--hint: `{hint}` is not of the form key=value"));
    given.iter().map(|hint| split(hint).ok_or_else(|| wrong(hint))).collect()
}

fn shown(explained: &[HostExplanation], limit: usize) -> &[HostExplanation] {
    let limit = if limit == 0 { explained.len() } else { limit.min(explained.len()) };
    &explained[..limit]
}

/// How many hosts each check turns away.
fn reasons(explained: &[HostExplanation]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for objection in explained.iter().flat_map(|host| &host.objections) {
        *reasons.entry(objection.check.as_str()).or_insert(0) += 1;
    }
    reasons
}

fn as_text(algorithm: &str, explained: &[HostExplanation], outcome: &Outcome, limit: usize) -> String {
    let fit = explained.iter().filter(|host| host.objections.is_empty()).count();
    let mut text = format!("scheduler {algorithm}: {fit} of {} hosts take it\n", explained.len());
    for (check, count) in reasons(explained) {
        text.push_str(&format!("  {check} turns away {count}\n"));
    }
    let shown = shown(explained, limit);
    for host in shown {
        text.push_str(&format!("{host}\n"));
    }
    if shown.len() < explained.len() {
        text.push_str(&format!("and {} more; --limit 0 shows all\n", explained.len() - shown.len()));
    }
    match outcome {
        Ok(places) => {
            let places: Vec<_> = places.iter().map(|(host, count)| format!("{host} ({count})")).collect();
            text.push_str(&format!("chosen now: {}\n", places.join(", ")));
        }
        Err(no) => text.push_str(&format!("chosen now: none. {}\n", no.details)),
    }
    text
}

fn as_json(algorithm: &str, explained: &[HostExplanation], outcome: &Outcome, limit: usize) -> Value {
    let host = |host: &HostExplanation| {
        let objections = host.objections.iter().map(|o| json!({"check": o.check, "details": o.details}));
        let parts: BTreeMap<_, _> = host.parts.iter().map(|(weigher, part)| (weigher.as_str(), *part)).collect();
        json!({
            "host": host.host,
            "zone": host.zone,
            "takes_it": host.objections.is_empty(),
            "objections": objections.collect::<Vec<_>>(),
            "score": host.score,
            "weights": parts,
        })
    };
    json!({
        "scheduler": algorithm,
        "hosts": explained.len(),
        "take_it": explained.iter().filter(|host| host.objections.is_empty()).count(),
        "turned_away": reasons(explained),
        "chosen": outcome.as_ref().ok(),
        "refused": outcome.as_ref().err().map(|no| &no.details),
        "explained": shown(explained, limit).iter().map(host).collect::<Vec<_>>(),
    })
}
