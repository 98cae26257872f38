//! Who knows what guests may learn.

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::ids::{InstanceId, PortId, RequestId};
use nova_core::metadata::InstanceMetadata;
use nova_core::rpc::RefusalKind;
use nova_core::rpc::conductor::{GetMetadata, GetMetadataRequest};
use nova_queue::RpcClient;

/// Who knows what guests may learn.
#[async_trait]
pub trait MetadataSource: Send + Sync {
    /// What that guest may that asks from that port; `None`: it is not, or no longer, on this host, or the port is not its.
    async fn metadata(&self, instance: InstanceId, port: PortId) -> Result<Option<InstanceMetadata>, BoxError>;
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
}
