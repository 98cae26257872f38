//! A conductor that dies: after so many of its calls to others nothing it does goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::{
    HostName, ImageId, InstanceId, PortId, ProjectId, VolumeAttachmentId, VolumeId, VolumeSnapshotId,
};
use nova_core::network::{
    InstanceNetworks, NetworkService, NetworkServiceError, PortStatus, RequestedInterface, RequestedNetworks, Vif,
};
use nova_core::rpc::Envelope;
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};
use nova_core::volume::{
    BlockAttachment, BlockSnapshot, BlockStorage, BlockStorageError, BlockVolume, NewBlockSnapshot, NewBlockVolume,
};
use nova_queue::{BusError, Counters, Handler, MessageBus, Serving, Subscription, Target};
use serde_json::Value;

/// How much life is left.
#[derive(Debug)]
pub struct Life {
    left: AtomicU32,
    /// Whoever is to take something back refuses.
    is_refused: AtomicBool,
    /// Whoever is to take something back does not answer.
    is_silent: AtomicBool,
    /// How often was asked who did not answer.
    in_vain: AtomicU32,
}

impl Life {
    /// Dies at that moment: there is one before each call to others, and one after it.
    pub fn of(moments: u32) -> Arc<Self> {
        let [is_refused, is_silent] = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self { left: AtomicU32::new(moments), is_refused, is_silent, in_vain: AtomicU32::new(0) })
    }

    /// One that has no end yet.
    pub fn long() -> Arc<Self> {
        Self::of(u32::MAX)
    }

    /// From now on it has so many moments.
    pub fn end_after(&self, moments: u32) {
        self.left.store(moments, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// From now on nothing is taken back, or it is again.
    pub fn refuse(&self, refused: bool) {
        self.is_refused.store(refused, Ordering::Relaxed);
    }

    /// From now on nobody who is to take something back answers, or they do again.
    pub fn silence(&self, silent: bool) {
        self.is_silent.store(silent, Ordering::Relaxed);
    }

    /// How often was asked who did not answer.
    pub fn asked_in_vain(&self) -> u32 {
        self.in_vain.load(Ordering::Relaxed)
    }

    fn allows(&self) -> Stored<()> {
        if self.is_silent.load(Ordering::Relaxed) {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
            return Err(BlockStorageError::Unavailable { source: "nobody is there".into() });
        }
        match self.is_refused.load(Ordering::Relaxed) {
            true => Err(BlockStorageError::Failed { what: "taking it back", fault: "no".into() }),
            false => Ok(()),
        }
    }

    fn allows_ports(&self) -> Answer<()> {
        self.allows().map_err(|error| match error {
            BlockStorageError::Unavailable { source } => NetworkServiceError::Unavailable { source },
            _ => NetworkServiceError::Refused("no".into()),
        })
    }

    async fn moment(&self) {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(1)));
        if left.is_ok_and(|left| left <= 1) {
            std::future::pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.moment().await;
        let answer = call.await;
        self.moment().await;
        answer
    }
}

/// What a mortal conductor says to others.
pub struct MortalBus {
    pub inner: Arc<dyn MessageBus>,
    pub life: Arc<Life>,
}

#[async_trait]
impl MessageBus for MortalBus {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        self.life.around(self.inner.cast(target, message)).await
    }
    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        self.life.around(self.inner.call(target, message, timeout)).await
    }
    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        self.inner.fanout(topic, message).await
    }
    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError> {
        self.inner.serve(subscription, handler).await
    }
    async fn ping(&self) -> Result<(), BusError> {
        self.inner.ping().await
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// What a mortal conductor asks of the network service.
pub struct MortalNetwork {
    pub inner: Arc<dyn NetworkService>,
    pub life: Arc<Life>,
}

type Answer<T> = Result<T, NetworkServiceError>;

#[async_trait]
impl NetworkService for MortalNetwork {
    async fn validate(&self, context: &RequestContext, requested: &RequestedNetworks, count: u32) -> Answer<()> {
        self.inner.validate(context, requested, count).await
    }
    async fn has_network(&self, context: &RequestContext, project: &ProjectId) -> Answer<bool> {
        self.inner.has_network(context, project).await
    }
    async fn allocate(&self, context: &RequestContext, wanted: &InstanceNetworks) -> Answer<Vec<Vif>> {
        self.life.around(self.inner.allocate(context, wanted)).await
    }
    async fn deallocate(&self, context: &RequestContext, instance: InstanceId) -> Answer<()> {
        self.life.allows_ports()?;
        self.life.around(self.inner.deallocate(context, instance)).await
    }
    async fn attach(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
    ) -> Answer<Vif> {
        self.life.around(self.inner.attach(context, wanted, interface)).await
    }
    async fn detach(&self, context: &RequestContext, instance: InstanceId, port: PortId) -> Answer<()> {
        self.life.allows_ports()?;
        self.life.around(self.inner.detach(context, instance, port)).await
    }
    async fn prepare_binding(&self, context: &RequestContext, id: InstanceId, host: Option<&HostName>) -> Answer<()> {
        self.life.around(self.inner.prepare_binding(context, id, host)).await
    }
    async fn bind(&self, context: &RequestContext, id: InstanceId, host: Option<&HostName>) -> Answer<Vec<Vif>> {
        self.life.around(self.inner.bind(context, id, host)).await
    }
    async fn set_status(&self, context: &RequestContext, port: PortId, status: PortStatus) -> Answer<()> {
        self.inner.set_status(context, port, status).await
    }
    async fn interfaces(&self, context: &RequestContext, instances: &[InstanceId]) -> Answer<Vec<(InstanceId, Vif)>> {
        self.life.around(self.inner.interfaces(context, instances)).await
    }
}

/// What a mortal conductor asks of block storage.
pub struct MortalStorage {
    pub inner: Arc<dyn BlockStorage>,
    pub life: Arc<Life>,
}

type Stored<T> = Result<T, BlockStorageError>;

#[async_trait]
impl BlockStorage for MortalStorage {
    async fn volume(&self, context: &RequestContext, id: VolumeId) -> Stored<BlockVolume> {
        self.inner.volume(context, id).await
    }
    async fn volumes(&self, context: &RequestContext) -> Stored<Vec<BlockVolume>> {
        self.inner.volumes(context).await
    }
    async fn snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Stored<BlockSnapshot> {
        self.inner.snapshot(context, id).await
    }
    async fn snapshots(&self, context: &RequestContext) -> Stored<Vec<BlockSnapshot>> {
        self.inner.snapshots(context).await
    }
    async fn has_type(&self, context: &RequestContext, name: &str) -> Stored<bool> {
        self.inner.has_type(context, name).await
    }
    async fn create(&self, context: &RequestContext, new: NewBlockVolume) -> Stored<BlockVolume> {
        self.life.around(self.inner.create(context, new)).await
    }
    fn tells_when_made(&self) -> bool {
        self.inner.tells_when_made()
    }
    async fn delete(&self, context: &RequestContext, id: VolumeId) -> Stored<()> {
        self.life.around(self.inner.delete(context, id)).await
    }
    async fn reserve(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeAttachmentId,
        instance: InstanceId,
        mode: AccessMode,
    ) -> Stored<BlockAttachment> {
        self.life.around(self.inner.reserve(context, volume, key, instance, mode)).await
    }
    async fn connect(
        &self,
        context: &RequestContext,
        attachment: VolumeAttachmentId,
        connector: &Connector,
    ) -> Stored<ConnectionInfo> {
        self.life.around(self.inner.connect(context, attachment, connector)).await
    }
    async fn complete(
        &self,
        context: &RequestContext,
        attachment: VolumeAttachmentId,
        device: Option<&str>,
    ) -> Stored<()> {
        self.life.around(self.inner.complete(context, attachment, device)).await
    }
    async fn release(&self, context: &RequestContext, attachment: VolumeAttachmentId) -> Stored<()> {
        self.life.allows()?;
        self.life.around(self.inner.release(context, attachment)).await
    }
    async fn attachments_of(&self, context: &RequestContext, instance: InstanceId) -> Stored<Vec<BlockAttachment>> {
        self.inner.attachments_of(context, instance).await
    }
    async fn reimage(&self, context: &RequestContext, volume: VolumeId, image: ImageId) -> Stored<()> {
        self.life.around(self.inner.reimage(context, volume, image)).await
    }

    async fn attachments(&self, context: &RequestContext) -> Stored<Vec<BlockAttachment>> {
        self.inner.attachments(context).await
    }
    async fn begin_detaching(&self, context: &RequestContext, volume: VolumeId) -> Stored<()> {
        self.life.around(self.inner.begin_detaching(context, volume)).await
    }
    async fn roll_detaching(&self, context: &RequestContext, volume: VolumeId) -> Stored<()> {
        self.life.allows()?;
        self.life.around(self.inner.roll_detaching(context, volume)).await
    }
    async fn take_snapshot(&self, context: &RequestContext, new: NewBlockSnapshot) -> Stored<BlockSnapshot> {
        self.life.around(self.inner.take_snapshot(context, new)).await
    }
    async fn snapshot_of_key(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeSnapshotId,
    ) -> Stored<Option<BlockSnapshot>> {
        self.life.around(self.inner.snapshot_of_key(context, volume, key)).await
    }
    async fn delete_snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Stored<()> {
        self.life.allows()?;
        self.life.around(self.inner.delete_snapshot(context, id)).await
    }
}
