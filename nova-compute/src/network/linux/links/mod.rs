//! The kernel's links, addresses, routes and neighbours, over rtnetlink.
//!
//! Each `ensure_…` compares with what is there and changes only what differs, so that all of it is safe to repeat.

mod addresses;
mod make;
mod neighbours;
mod routes;
mod state;

use std::os::fd::AsFd;
use std::path::PathBuf;

use nova_core::contracts::BoxError;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkExtentMask, LinkMessage};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use addresses::Address;
pub use make::{BridgeSpec, VethEnd, VethSpec, VlanSpec, VxlanSpec};
pub use neighbours::{FdbEntry, Neighbour};
pub use routes::Route;
pub use state::{BridgeState, LinkKind, LinkState, VxlanState};

use crate::network::PlumbingError;

/// Error numbers of the kernel that callers tell apart.
pub mod errno {
    /// No such link, address or route.
    pub const ENOENT: i32 = 2;
    /// No such route or neighbour.
    pub const ESRCH: i32 = 3;
    /// It is there already.
    pub const EEXIST: i32 = 17;
    /// No such link.
    pub const ENODEV: i32 = 19;
    /// The kernel has no such thing.
    pub const EOPNOTSUPP: i32 = 95;
    /// No such address.
    pub const EADDRNOTAVAIL: i32 = 99;
}

/// A netlink socket in one network namespace.
#[derive(Clone)]
pub struct Links {
    handle: rtnetlink::Handle,
    namespace: Option<String>,
}

impl Links {
    /// In the namespace of this process. Needs a Tokio runtime, on which the socket is served.
    pub fn here() -> Result<Self, PlumbingError> {
        let handle = open().map_err(|e| failed("open a netlink socket", e))?;
        Ok(Self { handle, namespace: None })
    }

    /// In the namespace of that name (as `ip netns` knows it).
    pub async fn in_namespace(name: &str) -> Result<Self, PlumbingError> {
        let runtime = tokio::runtime::Handle::current();
        let handle = run_in_namespace(Some(name), move || {
            let _runtime = runtime.enter();
            open()
        })
        .await?
        .map_err(|e| failed(format!("open a netlink socket in namespace {name}"), e))?;
        Ok(Self { handle, namespace: Some(name.to_owned()) })
    }

    /// In that namespace, or in this process's own.
    pub async fn open(namespace: Option<&str>) -> Result<Self, PlumbingError> {
        match namespace {
            Some(name) => Self::in_namespace(name).await,
            None => Self::here(),
        }
    }

    /// The namespace's name; `None`: this process's own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// All links.
    pub async fn list(&self) -> Result<Vec<LinkState>, PlumbingError> {
        use futures_util::TryStreamExt;
        // Counters are half of what the kernel would tell.
        let request = self.handle.link().get();
        let request = request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let messages: Vec<LinkMessage> = request.execute().try_collect().await.map_err(|e| failed("list links", e))?;
        Ok(messages.iter().map(LinkState::from).collect())
    }

    /// The link of that name, if there is one.
    pub async fn get(&self, name: &str) -> Result<Option<LinkState>, PlumbingError> {
        use futures_util::TryStreamExt;
        let request = self.handle.link().get().match_name(name.to_owned()).execute();
        let mut request = std::pin::pin!(request);
        match request.try_next().await {
            Ok(message) => Ok(message.as_ref().map(LinkState::from)),
            Err(e) if code_of(&e) == Some(errno::ENODEV) => Ok(None),
            Err(e) => Err(failed(format!("look for link {name}"), e)),
        }
    }
}

fn open() -> std::io::Result<rtnetlink::Handle> {
    let (connection, handle, _messages) = rtnetlink::new_connection()?;
    // Ends when the last handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

/// Where a namespace of that name is bound.
pub fn namespace_path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Moves the calling thread into the namespace; for threads that end soon.
pub fn enter_namespace(name: &str) -> std::io::Result<()> {
    let file = std::fs::File::open(namespace_path(name))?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Runs that on a thread of its own in the namespace (or in this process's). What it opens stays in the namespace.
pub async fn run_in_namespace<T: Send + 'static>(
    namespace: Option<&str>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PlumbingError> {
    let namespace = namespace.map(str::to_owned);
    let doing = format!("work in namespace {}", namespace.as_deref().unwrap_or("of the host"));
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            let entered = namespace.as_deref().map_or(Ok(()), enter_namespace);
            // Nobody waits any more: the caller was cancelled.
            let _ = done.send(entered.map(|()| work()));
        })
        .map_err(|e| failed(&*doing, e))?;
    match result.await {
        Ok(result) => result.map_err(|e| failed(doing, e)),
        Err(e) => Err(failed(doing, e)),
    }
}

/// What was being done failed.
pub(crate) fn failed(doing: impl Into<String>, source: impl Into<BoxError>) -> PlumbingError {
    PlumbingError::Failed { doing: doing.into(), source: source.into() }
}

/// The kernel's error number, positive.
fn code_of(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Takes one of these answers of the kernel for success: what was to be is so already.
fn or_already(result: Result<(), rtnetlink::Error>, fine: &[i32], doing: String) -> Result<(), PlumbingError> {
    match result {
        Err(e) if !code_of(&e).is_some_and(|code| fine.contains(&code)) => Err(failed(doing, e)),
        _ => Ok(()),
    }
}
