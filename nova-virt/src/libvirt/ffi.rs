//! What the crate `virt` lacks: lifecycle events, and the state of all domains in one call.
//!
//! The only file of the workspace with unsafe code; each block says why it is sound.
#![allow(unsafe_code, reason = "libvirt is a C library and `virt` does not wrap these two calls")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// Room for a UUID as text and its end: `VIR_UUID_STRING_BUFLEN`.
const UUID_TEXT_BYTES: usize = 37;

/// A lifecycle event as libvirt tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawEvent {
    /// The domain's UUID.
    pub(super) uuid: String,
    /// `VIR_DOMAIN_EVENT_…`.
    pub(super) event: u32,
    /// What it means depends on the event.
    pub(super) detail: u32,
}

/// Receives events on libvirt's event thread: it must be quick, and must not call libvirt.
pub(super) type EventSink = Box<dyn Fn(RawEvent) + Send + Sync>;

/// A registered event callback; dropping it ends the events.
pub(super) struct Registration {
    conn: Connect,
    id: c_int,
}

impl Registration {
    /// Sends the lifecycle events of every domain to `sink`. The event loop must run already.
    pub(super) fn new(conn: &Connect, sink: EventSink) -> Result<Self, Error> {
        // A box in a box: one thin pointer that can travel through C.
        let opaque = Box::into_raw(Box::new(sink)).cast::<c_void>();
        // SAFETY: libvirt declares one generic callback type for all events and calls back with the signature that
        // the event id implies (VIR_DOMAIN_EVENT_CALLBACK() is this same cast in C). `on_lifecycle` has the one for
        // VIR_DOMAIN_EVENT_ID_LIFECYCLE. A null domain means all. libvirt owns `opaque` from here on and gives it
        // back to `free_sink` exactly once, unless the registration fails.
        let id = unsafe {
            let callback = std::mem::transmute::<
                LifecycleCallback,
                unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
            >(on_lifecycle);
            sys::virConnectDomainEventRegisterAny(
                conn.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(callback),
                opaque,
                Some(free_sink),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt refused, so the pointer made above is still ours alone.
            drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
            return Err(error);
        }
        Ok(Self { conn: conn.clone(), id })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: `conn` is held by us, and the id came from its registration. A failure means that the connection is
        // gone, and the registration with it.
        unsafe { sys::virConnectDomainEventDeregisterAny(self.conn.as_ptr(), self.id) };
    }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn on_lifecycle(
    _conn: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // A panic must not cross into C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: libvirt passes a domain that is valid during the callback, and the pointer of the registration,
        // which it has not given to `free_sink` yet.
        let (uuid, sink) = unsafe { (uuid_text(domain), &*opaque.cast::<EventSink>()) };
        if let (Some(uuid), Ok(event), Ok(detail)) = (uuid, u32::try_from(event), u32::try_from(detail)) {
            sink(RawEvent { uuid, event, detail });
        }
    }));
    0
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `Registration::new`; libvirt calls this once, after the last event.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}

/// The UUID of a domain. It is in the handle: this does not ask the daemon.
///
/// # Safety
/// `domain` must be a valid domain handle.
unsafe fn uuid_text(domain: sys::virDomainPtr) -> Option<String> {
    let mut buffer = [0 as c_char; UUID_TEXT_BYTES];
    // SAFETY: the buffer has the size that libvirt asks for, and it ends what it writes with a zero.
    unsafe {
        (sys::virDomainGetUUIDString(domain, buffer.as_mut_ptr()) == 0)
            .then(|| CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned())
    }
}

/// A domain and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DomainState {
    pub(super) uuid: String,
    pub(super) name: String,
    /// `VIR_DOMAIN_…`, as in `virDomainState`.
    pub(super) state: u32,
    /// Why; what it means depends on the state.
    pub(super) reason: u32,
}

/// Every domain, running or not, with its state: one call to the daemon.
pub(super) fn all_domain_states(conn: &Connect) -> Result<Vec<DomainState>, Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: `records` is where libvirt stores an array of that many records, which it hands to us.
    let count =
        unsafe { sys::virConnectGetAllDomainStats(conn.as_ptr(), sys::VIR_DOMAIN_STATS_STATE, &mut records, 0) };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    // SAFETY: the array holds `count` valid records until it is freed below, and nothing read from it is kept.
    unsafe {
        let states = (0..count).filter_map(|index| read_record(*records.add(index))).collect();
        sys::virDomainStatsRecordListFree(records);
        Ok(states)
    }
}

/// # Safety
/// `record` must be a valid record of `virConnectGetAllDomainStats`.
unsafe fn read_record(record: sys::virDomainStatsRecordPtr) -> Option<DomainState> {
    // SAFETY: the record is valid, so are its domain and its `nparams` parameters; a name lives as long as its domain
    // and ends with a zero; both numbers are integers by definition of the group `state`, and are read as such only
    // when the parameter says so.
    unsafe {
        let record = &*record;
        let name = sys::virDomainGetName(record.dom);
        let uuid = uuid_text(record.dom)?;
        if name.is_null() {
            return None;
        }
        let (mut state, mut reason) = (None, 0);
        for index in 0..usize::try_from(record.nparams).ok()? {
            let param = &*record.params.add(index);
            if param.type_ != sys::VIR_TYPED_PARAM_INT as c_int {
                continue;
            }
            match CStr::from_ptr(param.field.as_ptr()).to_bytes() {
                b"state.state" => state = u32::try_from(param.value.i).ok(),
                b"state.reason" => reason = u32::try_from(param.value.i).unwrap_or(0),
                _ => {}
            }
        }
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        Some(DomainState { uuid, name, state: state?, reason })
    }
}

#[cfg(test)]
mod tests;
