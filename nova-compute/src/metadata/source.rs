//! Who knows what guests may learn.

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::ids::{InstanceId, PortId, RequestId};
use nova_core::metadata::InstanceMetadata;
use nova_core::rpc::RefusalKind;
use nova_core::rpc::conductor::{GetMetadata, GetMetadataRequest, SetPassword, SetPasswordRequest};
use nova_queue::RpcClient;

/// Who knows what guests may learn.
#[async_trait]
pub trait MetadataSource: Send + Sync {
    /// What that guest may that asks from that port; `None`: it is not, or no longer, on this host, or the port is not its.
    async fn metadata(&self, instance: InstanceId, port: PortId) -> Result<Option<InstanceMetadata>, BoxError>;

    /// Keeps what that guest leaves from that port for its owner. The same text may come twice.
    async fn set_password(&self, instance: InstanceId, port: PortId, password: &str) -> Result<Left, BoxError>;
}

/// What became of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is kept.
    Kept,
    /// The guest left another one before.
    Before,
    /// Nobody knows the guest, as for [`MetadataSource::metadata`].
    Unknown,
}

/// The conductor.
#[derive(Clone)]
pub struct RpcMetadataSource {
    rpc: RpcClient,
    entropy: Arc<dyn Entropy>,
}

impl RpcMetadataSource {
    /// Over this bus.
    pub fn new(rpc: RpcClient, entropy: Arc<dyn Entropy>) -> Self {
        Self { rpc, entropy }
    }
}

#[async_trait]
impl MetadataSource for RpcMetadataSource {
    async fn metadata(&self, instance: InstanceId, port: PortId) -> Result<Option<InstanceMetadata>, BoxError> {
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        let request = GetMetadataRequest { instance_id: instance, port_id: Some(port) };
        match self.rpc.call::<GetMetadata>(&context, &request).await {
            Ok(about) => Ok(Some(about)),
            Err(error) if error.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn set_password(&self, instance: InstanceId, port: PortId, password: &str) -> Result<Left, BoxError> {
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        let request = SetPasswordRequest { instance_id: instance, port_id: port, password: password.to_owned() };
        match self.rpc.call::<SetPassword>(&context, &request).await {
            Ok(()) => Ok(Left::Kept),
            Err(error) => match error.refusal().map(|refusal| refusal.kind) {
                Some(RefusalKind::Conflict) => Ok(Left::Before),
                Some(RefusalKind::NotFound) => Ok(Left::Unknown),
                _ => Err(error.into()),
            },
        }
    }
}
