//! Where consoles of guests are served, for who asks (nova/compute/manager.py, `get_vnc_console`,
//! `validate_console_port`).

mod door;
mod tls;

use nova_core::console::{ConsoleTarget, ConsoleType};
use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{ConfirmConsole, ConfirmConsoleRequest, ConfirmedConsole, GetConsole, GetConsoleRequest};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::state::PowerState;
use nova_queue::{Dispatcher, HandlerError};
use nova_virt::{ErrorKind, HypervisorError};

use crate::agent::Agent;
use crate::diagnostics::refusal;

pub(crate) use door::SerialDoor;
pub use tls::{SerialTls, SerialTlsError};

impl Agent {
    /// Answers such questions, too.
    pub(crate) fn console_calls(&self, dispatcher: Dispatcher) -> Dispatcher {
        let [a, b] = std::array::from_fn(|_| self.clone());
        dispatcher
            .method::<GetConsole, _, _>(move |_, request| {
                let agent = a.clone();
                async move { agent.get_console(&request).await }
            })
            .method::<ConfirmConsole, _, _>(move |_, request| {
                let agent = b.clone();
                async move { agent.confirm_console(&request).await }
            })
    }

    async fn get_console(&self, request: &GetConsoleRequest) -> Result<ConsoleTarget, HandlerError> {
        match request.console_type {
            ConsoleType::Novnc => self.screen(request.instance_id).await,
            ConsoleType::Serial => self.serial_port(request.instance_id).await,
            ConsoleType::SpiceHtml5 => self.spice(request.instance_id).await,
            other => Err(Refusal::new(RefusalKind::Unsupported, format!("{other} is not served here")).into()),
        }
    }

    async fn confirm_console(&self, request: &ConfirmConsoleRequest) -> Result<ConfirmedConsole, HandlerError> {
        let asked = GetConsoleRequest { instance_id: request.instance_id, console_type: request.console_type };
        if self.get_console(&asked).await? != request.target {
            return Err(Refusal::new(RefusalKind::NotFound, "the console is not served there").into());
        }
        if request.console_type != ConsoleType::Serial {
            return Ok(ConfirmedConsole::default());
        }
        match self.serial.ticket(request.instance_id, &*self.entropy) {
            Some(ticket) => Ok(ConfirmedConsole { ticket: Some(ticket) }),
            None => Err(Refusal::new(RefusalKind::Unavailable, "too many tickets wait to be used").into()),
        }
    }

    /// The host's own door to serial ports, for a guest that runs.
    async fn serial_port(&self, id: InstanceId) -> Result<ConsoleTarget, HandlerError> {
        if !self.hypervisor.capabilities().serial {
            return Err(Refusal::new(RefusalKind::Unsupported, "there are no serial ports here").into());
        }
        let guest = self.hypervisor.info(id).await.map_err(|error| refusal(&error))?;
        if !matches!(guest.power_state, PowerState::Running | PowerState::Paused) {
            return Err(Refusal::new(RefusalKind::Conflict, "the guest does not run").into());
        }
        let port = self.serial.port().await.map_err(|error| {
            let error = chain(&error);
            tracing::warn!(listen = %self.options.serial_listen, error, "serial ports cannot be served");
            Refusal::new(RefusalKind::Unavailable, "serial ports cannot be served")
        })?;
        let host = self.options.serial_proxyclient_address.clone();
        Ok(ConsoleTarget {
            host: host.unwrap_or_else(|| self.options.serial_listen.host.clone()),
            port,
            tls_port: None,
        })
    }

    /// Where the screen of a guest is, as proxies reach it.
    async fn screen(&self, id: InstanceId) -> Result<ConsoleTarget, HandlerError> {
        let endpoint = self.hypervisor.vnc_endpoint(id).await.map_err(not_shown)?;
        let host = self.options.vnc_proxyclient_address.clone().unwrap_or(endpoint.host);
        Ok(ConsoleTarget { host, port: endpoint.port, tls_port: None })
    }

    /// Where it is over SPICE.
    async fn spice(&self, id: InstanceId) -> Result<ConsoleTarget, HandlerError> {
        let endpoint = self.hypervisor.spice_endpoint(id).await.map_err(not_shown)?;
        let host = self.options.spice_proxyclient_address.clone().unwrap_or(endpoint.host);
        Ok(ConsoleTarget { host, port: endpoint.port.unwrap_or(0), tls_port: endpoint.tls_port })
    }
}

fn not_shown(error: HypervisorError) -> Refusal {
    match error.kind() {
        ErrorKind::InvalidState => Refusal::new(RefusalKind::Conflict, "the guest does not run"),
        _ => refusal(&error),
    }
}
