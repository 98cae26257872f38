//! A client that says what it was given, whatever it is told.

use async_trait::async_trait;
use bytes::Bytes;
use nova::console::proxy::ClientSide;

/// One of them.
pub(crate) struct Speaker {
    left: Bytes,
    /// What it was told.
    pub(crate) told: Vec<u8>,
}

impl Speaker {
    /// It says that, and is gone.
    pub(crate) fn saying(bytes: &[u8]) -> Self {
        Self { left: Bytes::copy_from_slice(bytes), told: Vec::new() }
    }
}

#[async_trait]
impl ClientSide for Speaker {
    async fn read(&mut self, count: usize) -> std::io::Result<Bytes> {
        match self.left.len() < count {
            true => Err(std::io::ErrorKind::UnexpectedEof.into()),
            false => Ok(self.left.split_to(count)),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()> {
        self.told.extend_from_slice(&bytes);
        Ok(())
    }
}
