//! From libvirt's errors to ours.

use std::time::Duration;

use virt::error::{Error, ErrorDomain, ErrorDomainEnum, ErrorNumber, ErrorNumberEnum};

use super::workers::Refused;
use crate::HypervisorError;

/// How long libvirt itself waits for a domain that another call holds.
const LIBVIRT_LOCK_WAIT: Duration = Duration::from_secs(30);

pub(super) const DRIVER: &str = "libvirt";

/// The domain does not exist (any more).
pub(super) fn is_no_domain(error: &Error) -> bool {
    is(error, ErrorNumber::NoDomain)
}

/// The domain carries no metadata of ours.
pub(super) fn is_no_metadata(error: &Error) -> bool {
    is(error, ErrorNumber::NoDomainMetadata)
}

/// The domain's state does not allow the call, for example since it changed meanwhile.
pub(super) fn is_wrong_state(error: &Error) -> bool {
    is(error, ErrorNumber::OperationInvalid)
}

/// The domain has no such device (any more).
pub(super) fn is_no_device(error: &Error) -> bool {
    is(error, ErrorNumber::DeviceMissing)
}

/// The domain has no such disk, or no job on it (any more).
pub(super) fn is_no_disk_or_job(error: &Error) -> bool {
    is(error, ErrorNumber::InvalidArg)
}

/// The guest has no agent, or one that does not answer.
pub(super) fn is_no_agent(error: &Error) -> bool {
    is(error, ErrorNumber::AgentUnresponsive)
        || is(error, ErrorNumber::AgentUnsynced)
        || is(error, ErrorNumber::AgentCommandTimeout)
        || is(error, ErrorNumber::ArgumentUnsupported)
        || is(error, ErrorNumber::OperationUnsupported)
}

/// The guest was asked before to let the device go, and has not yet. QEMU has no code of its own for it.
pub(super) fn is_being_unplugged(error: &Error) -> bool {
    error.message().contains("in the process of unplug")
}

/// QEMU did not get the port for the screen that libvirt chose: another program was faster.
pub(super) fn is_port_taken(error: &Error) -> bool {
    error.message().contains("Address already in use")
}

fn is(error: &Error, number: ErrorNumber) -> bool {
    error.code() == ErrorNumberEnum::from(number)
}

/// The daemon went away or does not let us in, as opposed to an answer of it.
fn is_connection_lost(error: &Error) -> bool {
    let by_transport = error.domain() == ErrorDomainEnum::from(ErrorDomain::Rpc)
        || error.domain() == ErrorDomainEnum::from(ErrorDomain::Remote);
    is(error, ErrorNumber::NoConnect)
        || is(error, ErrorNumber::InvalidConn)
        || is(error, ErrorNumber::Rpc)
        || is(error, ErrorNumber::AuthFailed)
        || (by_transport && (is(error, ErrorNumber::InternalError) || is(error, ErrorNumber::SystemError)))
}

/// What a failed call means to the caller. `during` is a gerund.
pub(super) fn failed(during: &'static str, error: Error) -> HypervisorError {
    if is_connection_lost(&error) {
        HypervisorError::Unavailable { driver: DRIVER, source: error.into() }
    } else if is(&error, ErrorNumber::OperationTimeout) {
        HypervisorError::TimedOut { during, after: LIBVIRT_LOCK_WAIT }
    } else if says_no_space(error.message()) {
        HypervisorError::NoSpace { during, source: error.into() }
    } else {
        HypervisorError::Failed { during, source: error.into() }
    }
}

/// What a refused call means to the caller.
pub(super) fn refused(error: Refused) -> HypervisorError {
    HypervisorError::Unavailable { driver: DRIVER, source: error.into() }
}

/// What a failed file operation means to the caller.
pub(super) fn file(during: &'static str, error: std::io::Error) -> HypervisorError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            HypervisorError::NoSpace { during, source: error.into() }
        }
        _ => HypervisorError::Failed { during, source: error.into() },
    }
}

/// Whether a tool's or libvirt's message is about a full disk. Both only have the text of `ENOSPC` and `EDQUOT`.
pub(super) fn says_no_space(message: &str) -> bool {
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}
