//! A namespace that is a host.

use nova_compute::linux::LinuxPlumbing;
use nova_compute::{Converged, Plumbing, PlumbingOptions};
use nova_core::network::HostNetwork;
use tempfile::TempDir;

use super::Namespace;

/// A host with its plumbing.
pub struct Host {
    /// Where it is.
    pub namespace: Namespace,
    /// Its settings.
    pub options: PlumbingOptions,
    /// Its plumbing.
    pub plumbing: LinuxPlumbing,
    _state: TempDir,
}

impl Host {
    /// A host without tunnels.
    pub async fn new() -> Self {
        Self::named("host-1", "192.0.2.1").await
    }

    /// A host of that name and tunnel address.
    pub async fn named(name: &str, tunnel_ip: &str) -> Self {
        Self::with(name, tunnel_ip, |_| {}).await
    }

    /// A host with other settings.
    pub async fn with(name: &str, tunnel_ip: &str, set: impl FnOnce(&mut PlumbingOptions)) -> Self {
        let namespace = Namespace::new(name);
        let state = TempDir::new().unwrap();
        let mut options = PlumbingOptions::new(name, state.path(), tunnel_ip.parse().unwrap());
        options.namespace = Some(namespace.name().to_owned());
        set(&mut options);
        let plumbing = LinuxPlumbing::open(options.clone()).await.unwrap();
        Self { namespace, options, plumbing, _state: state }
    }

    /// Makes the network so, without problems, and waits until frames can pass all links: the kernel takes a moment.
    pub async fn converge(&self, wanted: &HostNetwork) -> Converged {
        let converged = self.plumbing.converge(wanted).await.unwrap();
        assert_eq!(converged.problems, Vec::<String>::new());
        self.namespace.links_run().await;
        converged
    }

    /// The agent dies and is started again.
    pub async fn restart(&mut self) {
        self.plumbing = LinuxPlumbing::open(self.options.clone()).await.unwrap();
    }
}

impl Drop for Host {
    /// Nothing is wanted any more: what serves guests is ended.
    fn drop(&mut self) {
        let options = self.options.clone();
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { LinuxPlumbing::open(options).await?.converge(&HostNetwork::default()).await })
        });
        let problems = cleaner.join().unwrap().unwrap().problems;
        if !std::thread::panicking() {
            assert!(problems.is_empty(), "{problems:#?}");
        }
    }
}

/// Joins hosts with a wire of their own: each has its tunnel address on it.
pub fn underlay(hosts: &[&Host]) -> Namespace {
    let switch = Namespace::new("underlay");
    switch.output("ip", &["link", "add", "switch", "type", "bridge"]);
    switch.output("ip", &["link", "set", "switch", "up"]);
    for (number, host) in hosts.iter().enumerate() {
        let (port, there) = (format!("port{number}"), host.namespace.name());
        switch.output("ip", &["link", "add", &port, "type", "veth", "peer", "name", "underlay", "netns", there]);
        switch.output("ip", &["link", "set", &port, "master", "switch", "up"]);
        let length = if host.options.tunnel_ip.is_ipv4() { 24 } else { 64 };
        let address = format!("{}/{length}", host.options.tunnel_ip);
        host.namespace.output("ip", &["addr", "add", &address, "dev", "underlay"]);
        host.namespace.output("ip", &["link", "set", "underlay", "up"]);
    }
    switch
}
