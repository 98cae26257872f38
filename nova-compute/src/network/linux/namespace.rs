//! Network namespaces by name, as `ip netns` keeps them: made, found and removed, and programs run in them.
//!
//! Several hosts may share one machine (each a namespace itself): then each has a prefix of its own for the names of its
//! namespaces, and touches no other.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use nova_core::ids::{NetworkId, RouterId};

use super::children;
use super::links::{Links, failed, namespace_path, run_in_namespace};
use super::names;
use crate::network::{PlumbingError, PlumbingOptions};

/// What a namespace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A network is served there.
    Service(NetworkId),
    /// It is a router.
    Router(RouterId),
}

/// The namespaces of one host.
#[derive(Debug, Clone)]
pub struct Namespaces {
    prefix: String,
}

impl Namespaces {
    /// Those of the host with these settings.
    pub fn of(options: &PlumbingOptions) -> Self {
        let own = options.namespace.as_ref().map(|name| format!("{name}-")).unwrap_or_default();
        Self { prefix: format!("{own}{}", options.namespace_prefix) }
    }

    /// The name of the namespace for that.
    pub fn name(&self, purpose: Purpose) -> String {
        let plain = match purpose {
            Purpose::Service(network) => names::service_namespace(network),
            Purpose::Router(router) => names::router_namespace(router),
        };
        format!("{}{plain}", self.prefix)
    }

    /// What the namespace of that name is for, if it is this host's.
    pub fn purpose(&self, name: &str) -> Option<Purpose> {
        let plain = name.strip_prefix(&self.prefix)?;
        let purpose = match plain.strip_prefix("nova-net-") {
            Some(id) => Purpose::Service(id.parse().ok()?),
            None => Purpose::Router(plain.strip_prefix("nova-rtr-")?.parse().ok()?),
        };
        (self.name(purpose) == name).then_some(purpose)
    }

    /// This host's namespaces that are there.
    pub fn list(&self) -> Vec<Purpose> {
        let Ok(entries) = std::fs::read_dir(namespace_path("")) else {
            // Nobody has made a namespace yet.
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<Purpose> = names.filter_map(|name| self.purpose(&name)).collect();
        found.sort();
        found
    }
}

/// Tells one namespace from another of the same name: the number of its file. `None`: there is none of that name.
pub fn number(name: &str) -> Option<u64> {
    number_of(&namespace_path(name))
}

/// The number of the network namespace behind a path; `None`: there is none.
pub fn number_of(path: &Path) -> Option<u64> {
    let file = std::fs::metadata(path).ok()?;
    // A name whose mount is gone is a plain file.
    let namespaces = std::fs::metadata("/proc/self/ns/net").ok()?.dev();
    (file.dev() == namespaces).then(|| file.ino())
}

/// A namespace of that name, with its loopback up. Answers with its number.
pub async fn ensure(name: &str) -> Result<u64, PlumbingError> {
    if let Some(number) = number(name) {
        return Ok(number);
    }
    if namespace_path(name).exists() {
        run(None, "ip", &["netns", "del", name], None).await?;
    }
    run(None, "ip", &["netns", "add", name], None).await?;
    let links = Links::in_namespace(name).await?;
    if let Some(loopback) = links.get("lo").await? {
        links.set_up(&loopback).await?;
    }
    number(name).ok_or_else(|| failed(format!("make namespace {name}"), "it is not there afterwards"))
}

/// Takes away a namespace's name; it ends with the last process and socket in it. Fine if it is gone.
pub async fn remove(name: &str) -> Result<(), PlumbingError> {
    if !namespace_path(name).exists() {
        return Ok(());
    }
    run(None, "ip", &["netns", "del", name], None).await.map(drop)
}

/// Runs a program there to its end; an error if it says that it failed.
pub async fn run(
    namespace: Option<&str>,
    program: &'static str,
    arguments: &[&str],
    input: Option<String>,
) -> Result<String, PlumbingError> {
    let doing = format!("{program} {}", arguments.join(" "));
    let output = run_quietly(namespace, program, arguments, input).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first lines say what is wrong; what was to be done may have thousands.
    let said: String = said.trim().lines().take(6).collect::<Vec<_>>().join("; ").chars().take(1000).collect();
    Err(failed(doing, if said.is_empty() { output.status.to_string() } else { said }))
}

/// Runs a program there to its end, whatever it says; one that takes too long is killed.
pub async fn run_quietly(
    namespace: Option<&str>,
    program: &'static str,
    arguments: &[&str],
    input: Option<String>,
) -> Result<Output, PlumbingError> {
    let doing = format!("run {program}");
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let work = move || -> std::io::Result<Output> {
        let mut command = Command::new(program);
        command.args(&arguments);
        // What is said is read by this: in one language.
        command.env("LC_ALL", "C");
        children::output_within(command, input, children::LIMIT)
    };
    run_in_namespace(namespace, work).await?.map_err(|e| failed(doing, e))
}

/// Sets kernel settings of a namespace that differ: path under /proc/sys and value.
pub async fn set_sysctls(namespace: Option<&str>, settings: Vec<(String, &'static str)>) -> Result<(), PlumbingError> {
    let work = move || {
        for (name, value) in settings {
            let path = Path::new("/proc/sys").join(&name);
            let present = std::fs::read_to_string(&path);
            if present.as_ref().is_ok_and(|present| present.trim() == value) {
                continue;
            }
            std::fs::write(&path, value).map_err(|e| (name, e))?;
        }
        Ok(())
    };
    run_in_namespace(namespace, work)
        .await?
        .map_err(|(name, e): (String, std::io::Error)| failed(format!("set {name}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(host: Option<&str>) -> Namespaces {
        let mut options = PlumbingOptions::new("host-1", "/srv/nova", "192.0.2.1".parse().unwrap());
        options.namespace = host.map(str::to_owned);
        Namespaces::of(&options)
    }

    #[test]
    fn only_namespaces_of_this_host_are_its_own() {
        let network: NetworkId = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        let (plain, one, two) = (namespaces(None), namespaces(Some("h1")), namespaces(Some("h2")));
        let name = one.name(Purpose::Service(network));
        assert_eq!(name, "h1-nova-net-a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6");
        assert_eq!(one.purpose(&name), Some(Purpose::Service(network)));
        assert_eq!((two.purpose(&name), plain.purpose(&name)), (None, None));
        let router = Purpose::Router(RouterId::from_uuid(*network.as_uuid()));
        assert_eq!(plain.purpose(&plain.name(router)), Some(router));
        for foreign in ["nova-net-", "nova-net-mine", "nova-rtr-A01B23C4-D5E6-47F8-9A0B-C1D2E3F4A5B6", "qdhcp-1", ""] {
            assert_eq!(plain.purpose(foreign), None, "{foreign}");
        }
    }
}
