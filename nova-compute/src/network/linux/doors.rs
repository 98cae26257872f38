//! Listening sockets for the metadata of guests, each bound inside a namespace. They stay open for as long as the namespace
//! stays; whoever serves them gets copies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use nova_core::ids::{InstanceId, PortId};
use nova_core::network::Segment;

use super::dhcp::SERVICE_ADDRESS;
use super::links::{failed, run_in_namespace};
use crate::network::{MetadataDoor, PlumbingError};

/// Who asks from which address.
pub type Callers = BTreeMap<IpAddr, (InstanceId, PortId)>;

/// The sockets that are open.
#[derive(Debug, Default)]
pub struct Doors {
    open: Mutex<BTreeMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    /// The namespace's number: another one of the same name needs another socket.
    number: u64,
    listener: TcpListener,
    callers: Callers,
}

impl Doors {
    /// Has one open in that namespace, for these callers.
    pub async fn ensure(&self, namespace: &str, number: u64, callers: Callers) -> Result<(), PlumbingError> {
        if let Some(open) = self.lock().get_mut(namespace).filter(|open| open.number == number) {
            open.callers = callers;
            return Ok(());
        }
        let doing = || format!("listen for metadata in {namespace}");
        let listener = run_in_namespace(Some(namespace), listen).await?.map_err(|e| failed(doing(), e))?;
        self.lock().insert(namespace.to_owned(), Open { number, listener, callers });
        Ok(())
    }

    /// Closes all but those of these namespaces.
    pub fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|namespace, _| wanted(namespace));
    }

    /// Copies of all. A socket that can't be copied (no descriptors left) is left out this time.
    pub fn copies(&self) -> Vec<MetadataDoor> {
        let copy = |(namespace, open): (&String, &Open)| {
            let name = format!("{namespace}@{}", open.number);
            Some(MetadataDoor { name, listener: open.listener.try_clone().ok()?, callers: open.callers.clone() })
        };
        self.lock().iter().filter_map(copy).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((SERVICE_ADDRESS, 80)))?;
    // For the runtime that accepts from it.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The callers of a network: its ports on this host, by their own addresses, and those of other hosts that this one
/// answers for.
pub fn callers(segment: &Segment) -> Callers {
    let of_instances = segment.ports.iter().filter_map(|(id, port)| Some((*id, port, port.instance?)));
    let each = |(id, port, instance): (PortId, &nova_core::network::HostPort, InstanceId)| {
        let addresses: Vec<IpAddr> = port.addresses.iter().map(|(_, address)| *address).collect();
        addresses.into_iter().map(move |address| (address, (instance, id)))
    };
    let elsewhere = segment.elsewhere.iter().filter_map(|port| Some((port, port.asks?)));
    let elsewhere = elsewhere.flat_map(|(port, who)| port.addresses.iter().map(move |address| (*address, who)));
    // Who is here comes last: nobody from elsewhere asks in its place.
    elsewhere.chain(of_instances.flat_map(each)).collect()
}
