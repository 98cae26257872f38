//! Typed sending.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, MessageId};
use nova_core::rpc::{Envelope, Method, Pattern, Sender, VERSION};

use crate::{BusError, MessageBus, Target};

/// One service's way onto the bus.
#[derive(Clone)]
pub struct RpcClient {
    bus: Arc<dyn MessageBus>,
    sender: Sender,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    call_timeout: Duration,
    cast_lifetime: Duration,
}

impl RpcClient {
    /// Calls wait 60 s (Nova's `rpc_response_timeout`); casts are worth doing for ten minutes.
    pub fn new(bus: Arc<dyn MessageBus>, sender: Sender, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let (call_timeout, cast_lifetime) = (Duration::from_secs(60), Duration::from_secs(600));
        Self { bus, sender, clock, entropy, call_timeout, cast_lifetime }
    }

    /// The same with another time that calls wait.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The same with another time that casts are worth doing.
    #[must_use]
    pub fn with_cast_lifetime(mut self, lifetime: Duration) -> Self {
        self.cast_lifetime = lifetime;
        self
    }

    /// Who this client speaks as.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The bus underneath.
    pub fn bus(&self) -> &Arc<dyn MessageBus> {
        &self.bus
    }

    /// To any one server of the interface.
    pub async fn cast<M: Method<Reply = ()>>(
        &self,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<(), BusError> {
        self.send::<M>(Target::shared(M::INTERFACE), context, request).await
    }

    /// To the interface's server on one host.
    pub async fn cast_to<M: Method<Reply = ()>>(
        &self,
        host: &HostName,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<(), BusError> {
        self.send::<M>(Target::on(M::INTERFACE, host.clone()), context, request).await
    }

    async fn send<M: Method>(
        &self,
        target: Target,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<(), BusError> {
        debug_assert_eq!(M::PATTERN, Pattern::Cast);
        let envelope = self.envelope::<M>(context, request, self.cast_lifetime)?;
        self.bus.cast(&target, envelope).await
    }

    /// Asks any one server of the interface.
    pub async fn call<M: Method>(&self, context: &RequestContext, request: &M::Request) -> Result<M::Reply, BusError> {
        self.ask::<M>(Target::shared(M::INTERFACE), context, request).await
    }

    /// Asks the interface's server on one host.
    pub async fn call_to<M: Method>(
        &self,
        host: &HostName,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<M::Reply, BusError> {
        self.ask::<M>(Target::on(M::INTERFACE, host.clone()), context, request).await
    }

    async fn ask<M: Method>(
        &self,
        target: Target,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<M::Reply, BusError> {
        debug_assert_eq!(M::PATTERN, Pattern::Call);
        let envelope = self.envelope::<M>(context, request, self.call_timeout)?;
        let reply = self.bus.call(&target, envelope, self.call_timeout).await?;
        serde_json::from_value(reply).map_err(|e| malformed::<M>(e))
    }

    /// Tells every live server of the interface.
    pub async fn fanout<M: Method<Reply = ()>>(
        &self,
        context: &RequestContext,
        request: &M::Request,
    ) -> Result<(), BusError> {
        debug_assert_eq!(M::PATTERN, Pattern::Fanout);
        let envelope = self.envelope::<M>(context, request, self.cast_lifetime)?;
        self.bus.fanout(M::INTERFACE, envelope).await
    }

    fn envelope<M: Method>(
        &self,
        context: &RequestContext,
        request: &M::Request,
        lifetime: Duration,
    ) -> Result<Envelope, BusError> {
        let payload = serde_json::to_value(request).map_err(|e| malformed::<M>(e))?;
        let lifetime = SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::from_hours(24));
        Ok(Envelope {
            id: MessageId::generate(&*self.entropy),
            method: M::NAME.to_owned(),
            version: VERSION,
            sender: self.sender.clone(),
            deadline: self.clock.now() + lifetime,
            context: context.clone(),
            payload,
        })
    }
}

fn malformed<M: Method>(error: serde_json::Error) -> BusError {
    BusError::Malformed { method: M::NAME.to_owned(), source: Box::new(error) }
}
