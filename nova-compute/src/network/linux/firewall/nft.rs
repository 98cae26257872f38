//! Talking to the kernel's packet filter: scripts through `nft`, and the number of the ruleset.

use std::io::ErrorKind;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::model::TABLE;
use crate::network::PlumbingError;
use crate::network::linux::links::{failed, run_in_namespace};
use crate::network::linux::namespace;

/// The packet filter of a network namespace.
#[derive(Debug, Clone)]
pub struct Nft {
    namespace: Option<String>,
}

impl Nft {
    /// Of that namespace; `None`: this process's own.
    pub fn new(namespace: Option<String>) -> Self {
        Self { namespace }
    }

    /// Carries out a script: all of it or nothing.
    pub async fn run(&self, script: String) -> Result<(), PlumbingError> {
        namespace::run(self.namespace.as_deref(), "nft", &["-f", "-"], Some(script)).await.map(drop)
    }

    /// Our tables as the kernel has them; empty if there are none.
    pub async fn list(&self) -> Result<String, PlumbingError> {
        let mut text = String::new();
        for family in ["bridge", "inet"] {
            text += &self.list_table(family, TABLE).await?.unwrap_or_default();
        }
        Ok(text)
    }

    /// A table as the kernel has it, without counters and handles; `None`: there is none.
    pub async fn list_table(&self, family: &str, name: &str) -> Result<Option<String>, PlumbingError> {
        let arguments = ["-n", "-s", "list", "table", family, name];
        let output = namespace::run_quietly(self.namespace.as_deref(), "nft", &arguments, None).await?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// The number of the namespace's ruleset: it goes up with each transaction, whoever made it.
    pub async fn generation(&self) -> Result<u32, PlumbingError> {
        run_in_namespace(self.namespace.as_deref(), generation)
            .await?
            .map_err(|e| failed("ask for the number of the ruleset", e))
    }
}

/// `NFT_MSG_GETGEN` (linux/netfilter/nf_tables.h), answered by `NFTA_GEN_ID`.
fn generation() -> std::io::Result<u32> {
    const LENGTH: u32 = 20;
    const GETGEN: u16 = 10 << 8 | 16;
    const REQUEST: u16 = 1;
    const GEN_ID: u16 = 1;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(GETGEN.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence number, sender, and the family's header: nothing in particular.
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let wrong = || std::io::Error::new(ErrorKind::InvalidData, "the kernel's answer has no number");
    let mut attributes = answer.get(LENGTH as usize..).ok_or_else(wrong)?;
    while let [a, b, c, d, rest @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*a, *b])).checked_sub(4).ok_or_else(wrong)?;
        let value = rest.get(..length).ok_or_else(wrong)?;
        if u16::from_ne_bytes([*c, *d]) & 0x3fff == GEN_ID {
            return Ok(u32::from_be_bytes(value.try_into().map_err(|_| wrong())?));
        }
        attributes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(wrong())
}
