//! From envelopes to typed handlers: checks version, sender and content before any handler sees a message.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::MessageId;
use nova_core::rpc::{Envelope, Method, Refusal, RefusalKind, Role, Sender, VERSION};
use serde_json::Value;
use tracing::Instrument;

use crate::{Handler, HandlerError};

/// What a handler knows of a message besides its content.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The message; a repetition has the same.
    pub id: MessageId,
    /// Who sent it.
    pub sender: Sender,
    /// On whose behalf.
    pub context: RequestContext,
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, HandlerError>> + Send>>;
type Entry = Box<dyn Fn(Incoming, Value) -> Answer + Send + Sync>;

/// The methods of one interface that a service implements.
pub struct Dispatcher {
    interface: &'static str,
    methods: BTreeMap<&'static str, (&'static [Role], Entry)>,
}

impl Dispatcher {
    /// An interface without methods.
    pub fn new(interface: &'static str) -> Self {
        Self { interface, methods: BTreeMap::new() }
    }

    /// Adds a method.
    #[must_use]
    pub fn method<M, F, A>(mut self, handler: F) -> Self
    where
        M: Method,
        F: Fn(Incoming, M::Request) -> A + Send + Sync + 'static,
        A: Future<Output = Result<M::Reply, HandlerError>> + Send + 'static,
    {
        debug_assert_eq!(M::INTERFACE, self.interface, "method of another interface");
        let handler = Arc::new(handler);
        let entry: Entry = Box::new(move |incoming, payload| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let request = serde_json::from_value(payload).map_err(|e| malformed(M::NAME, &e))?;
                let reply = handler(incoming, request).await?;
                serde_json::to_value(reply).map_err(|e| malformed(M::NAME, &e).into())
            })
        });
        self.methods.insert(M::NAME, (M::SENDERS, entry));
        self
    }
}

fn malformed(method: &str, error: &serde_json::Error) -> Refusal {
    Refusal::new(RefusalKind::Malformed, format!("{method}: {error}"))
}

#[async_trait]
impl Handler for Dispatcher {
    async fn handle(&self, message: Envelope) -> Result<Value, HandlerError> {
        if message.version.major != VERSION.major {
            let text = format!("version {}.x of {} is not known here", message.version.major, self.interface);
            return Err(Refusal::new(RefusalKind::Malformed, text).into());
        }
        let Some((senders, entry)) = self.methods.get(message.method.as_str()) else {
            let text = format!("{} has no method {}", self.interface, message.method);
            return Err(Refusal::new(RefusalKind::Malformed, text).into());
        };
        if !senders.contains(&message.sender.role) {
            let text = format!("{} may not call {}", message.sender.role.binary(), message.method);
            tracing::warn!(sender = %message.sender.host, method = %message.method, "refused: {text}");
            return Err(Refusal::new(RefusalKind::Forbidden, text).into());
        }
        let incoming = Incoming { id: message.id, sender: message.sender, context: message.context };
        let span = tracing::info_span!("rpc", method = %message.method, request_id = %incoming.context.request_id);
        entry(incoming, message.payload).instrument(span).await
    }
}
