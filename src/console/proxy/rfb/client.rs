//! Towards the client, which has shown its token: RFB 3.8, security `None`.

use async_trait::async_trait;
use bytes::Bytes;

use super::{NONE, RfbError, VERSION};

/// A client's side of a websocket, as far as its begin needs it.
#[async_trait]
pub trait ClientSide: Send {
    /// Exactly so many bytes, however they were cut into messages.
    async fn read(&mut self, count: usize) -> std::io::Result<Bytes>;

    /// Sends these.
    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()>;
}

/// Speaks the begin of RFB with a client, up to where it says whether it shares the screen.
///
/// # Errors
/// [`RfbError`].
pub async fn welcome(client: &mut dyn ClientSide) -> Result<(), RfbError> {
    client.write(Bytes::from_static(VERSION)).await?;
    if *client.read(VERSION.len()).await? != *VERSION {
        return Err(RfbError::Version { who: "client" });
    }
    client.write(Bytes::from_static(&[1, NONE])).await?;
    if *client.read(1).await? != [NONE] {
        return Err(RfbError::Protocol { who: "client", what: "it chooses what was not offered" });
    }
    client.write(Bytes::from_static(&[0, 0, 0, 0])).await?;
    Ok(())
}
