//! Counters of a guest, for who asks (nova/compute/manager.py, `get_instance_diagnostics`).

use nova_core::error::chain;
use nova_core::rpc::compute::{Diagnostics, DiagnosticsRequest, GetDiagnostics};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_queue::{Dispatcher, HandlerError};
use nova_virt::{ErrorKind, HypervisorError};

use crate::agent::Agent;

impl Agent {
    /// Answers such questions, too.
    pub(crate) fn diagnostics_calls(&self, dispatcher: Dispatcher) -> Dispatcher {
        let agent = self.clone();
        dispatcher.method::<GetDiagnostics, _, _>(move |_, request| {
            let agent = agent.clone();
            async move { agent.diagnostics(&request).await }
        })
    }

    async fn diagnostics(&self, request: &DiagnosticsRequest) -> Result<Diagnostics, HandlerError> {
        let found = self.hypervisor.diagnostics(request.instance_id).await;
        found.map_err(|error| refusal(&error).into())
    }
}

/// What a caller is told of a driver's failure.
pub(crate) fn refusal(error: &HypervisorError) -> Refusal {
    let kind = match error.kind() {
        ErrorKind::NotFound => RefusalKind::NotFound,
        ErrorKind::Unsupported => RefusalKind::Unsupported,
        ErrorKind::Unavailable | ErrorKind::TimedOut => RefusalKind::Unavailable,
        _ => RefusalKind::Failed,
    };
    Refusal::new(kind, chain(error))
}
