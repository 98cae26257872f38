//! What the crate `virt` lacks: lifecycle events, and the state of all domains in one call.
//!
//! The only file of the workspace with unsafe code; each block says why it is sound.
#![allow(unsafe_code, reason = "libvirt is a C library and `virt` does not wrap these calls")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
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

/// Sends a domain a non-maskable interrupt.
pub(super) fn inject_nmi(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the handle is valid as long as `domain` is.
    done(unsafe { sys::virDomainInjectNMI(domain.as_ptr(), 0) })
}

/// Ends the job that a domain is in, for example a migration.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the handle is valid as long as `domain` is.
    done(unsafe { sys::virDomainAbortJob(domain.as_ptr()) })
}

/// Begins to copy a disk to where `destination` (a `<disk>`) says; the file is there already.
pub(super) fn block_copy(domain: &Domain, disk: &CStr, destination: &CStr) -> Result<(), Error> {
    let flags = sys::VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | sys::VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    // SAFETY: handle and texts are valid during the call, and no parameters are passed.
    done(unsafe {
        sys::virDomainBlockCopy(domain.as_ptr(), disk.as_ptr(), destination.as_ptr(), ptr::null_mut(), 0, flags)
    })
}

/// How far the job on a disk is: done and all of it. `None`: there is no job.
pub(super) fn block_job(domain: &Domain, disk: &CStr) -> Result<Option<(u64, u64)>, Error> {
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: handle and text are valid during the call; libvirt fills `info`.
    let found = unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &mut info, 0) };
    match found {
        0 => Ok(None),
        number if number > 0 => Ok(Some((info.cur, info.end))),
        _ => Err(Error::last_error()),
    }
}

/// Ends the job on a disk; the domain goes on with the disk that it had.
pub(super) fn end_block_job(domain: &Domain, disk: &CStr) -> Result<(), Error> {
    // SAFETY: handle and text are valid during the call.
    done(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), 0) })
}

/// Ends the job on a disk; the domain goes on with the copy. The copy must be as far as the disk.
pub(super) fn pivot_block_job(domain: &Domain, disk: &CStr) -> Result<(), Error> {
    let flags = sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT;
    // SAFETY: handle and text are valid during the call.
    done(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) })
}

/// Has a domain that is being migrated go on at its destination now; its memory follows.
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the handle is valid during the call.
    done(unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) })
}

/// Has the guest's agent make all file systems stand still.
pub(super) fn freeze(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the handle is valid during the call; without mount points it is about all.
    done(unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) })
}

/// Has the guest's agent let all file systems go on.
pub(super) fn thaw(domain: &Domain) -> Result<(), Error> {
    // SAFETY: as above.
    done(unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) })
}

fn done(code: c_int) -> Result<(), Error> {
    if code < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Every number that libvirt knows of a running domain, by its name: `vcpu.0.time`, `block.0.rd.bytes`, …
pub(super) fn numbers(domain: &Domain) -> Result<BTreeMap<String, u64>, Error> {
    let groups = sys::VIR_DOMAIN_STATS_VCPU
        | sys::VIR_DOMAIN_STATS_INTERFACE
        | sys::VIR_DOMAIN_STATS_BLOCK
        | sys::VIR_DOMAIN_STATS_BALLOON;
    // SAFETY: the handle is valid as long as `domain` is, which is longer than the call below.
    let mut domains = [unsafe { domain.as_ptr() }, ptr::null_mut()];
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: `domains` is a list that ends with null; `records` is where libvirt stores an array, which it hands to us.
    let count = unsafe { sys::virDomainListGetStats(domains.as_mut_ptr(), groups, &mut records, 0) };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    let mut numbers = BTreeMap::new();
    // SAFETY: the array holds `count` valid records with `nparams` parameters each until it is freed below.
    unsafe {
        for index in 0..count {
            let record = &**records.add(index);
            numbers.extend(numbers_of(record.params, record.nparams));
        }
        sys::virDomainStatsRecordListFree(records);
    }
    Ok(numbers)
}

/// Every number that libvirt knows of the job that a domain is in: `memory_total`, `disk_remaining`, …; none without one.
pub(super) fn job_numbers(domain: &Domain) -> Result<BTreeMap<String, u64>, Error> {
    let (mut kind, mut count): (c_int, c_int) = (0, 0);
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    // SAFETY: the handle is valid as long as `domain` is; libvirt stores an array of `count` parameters, which it hands to
    // us, or none at all.
    unsafe {
        done(sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, 0))?;
        if params.is_null() {
            return Ok(BTreeMap::new());
        }
        let numbers = numbers_of(params, count).collect();
        sys::virTypedParamsFree(params, count);
        Ok(numbers)
    }
}

/// The numbers among `count` parameters.
///
/// # Safety
/// `params` must be an array of so many valid parameters, and outlive what is returned.
unsafe fn numbers_of(params: sys::virTypedParameterPtr, count: c_int) -> impl Iterator<Item = (String, u64)> {
    (0..usize::try_from(count).unwrap_or(0)).filter_map(move |place| {
        // SAFETY: by the caller's promise; of the union, the member is read that the parameter's type names, and a field's
        // name ends with a zero.
        unsafe {
            let param = &*params.add(place);
            let number = match u32::try_from(param.type_).unwrap_or(0) {
                sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
                sys::VIR_TYPED_PARAM_UINT => Some(u64::from(param.value.ui)),
                sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
                sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
                _ => None,
            };
            Some((CStr::from_ptr(param.field.as_ptr()).to_string_lossy().into_owned(), number?))
        }
    })
}

#[cfg(test)]
mod tests;
