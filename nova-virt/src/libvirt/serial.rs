//! The interactive side of a guest's serial port, whose log `console.log` is: libvirt's stream of the same device.
//!
//! libvirt's streams block, so each open port has two threads. They end with the port, with the guest, or when somebody
//! else opens the port. And each has a connection of its own: while one thread waits for what the guest says, libvirt's
//! client holds up every other call on that connection, for seconds at a time.

use std::sync::Arc;
use std::thread;

use nova_core::ids::InstanceId;
use tokio::sync::mpsc;
use virt::connect::Connect;
use virt::stream::Stream;

use super::{domains, errors};
use crate::serial::SERIAL_PIECES;
use crate::{HypervisorError, SerialPort};

/// Bytes that are read at once.
const PIECE: usize = 4096;

/// Opens the port of that guest, over a connection of its own to that libvirt. Blocks as long as libvirt does.
pub(super) fn open(uri: &str, instance: InstanceId) -> Result<SerialPort, HypervisorError> {
    let own = Connect::open(Some(uri)).map_err(|error| errors::failed("connecting to libvirt", error))?;
    // The stream keeps its connection.
    port(domains::guest(&own, instance)?.serial_stream(&own)?)
}

/// Begins to read and write the stream.
fn port(stream: Stream) -> Result<SerialPort, HypervisorError> {
    let (input, typed) = mpsc::channel(SERIAL_PIECES);
    let (written, output) = mpsc::channel(SERIAL_PIECES);
    let stream = Arc::new(stream);
    let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let started = thread::Builder::new().name(name.to_owned()).spawn(work);
        started.map(drop).map_err(|error| errors::file("opening the guest's serial port", error))
    };
    let reading = stream.clone();
    start("serial-read", Box::new(move || read(&reading, &written)))?;
    start("serial-write", Box::new(move || write(&stream, typed)))?;
    Ok(SerialPort { input, output })
}

fn read(stream: &Stream, written: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; PIECE];
    loop {
        // Zero is the end; an error is the end, too.
        let count = stream.recv(&mut buffer).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() || written.blocking_send(piece.to_vec()).is_err() {
            return;
        }
    }
}

/// Until nobody types any more. Then the stream is given up, so that reading ends as well.
fn write(stream: &Stream, mut typed: mpsc::Receiver<Vec<u8>>) {
    'typing: while let Some(piece) = typed.blocking_recv() {
        let mut left = piece.as_slice();
        while !left.is_empty() {
            let sent = stream.send(left).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            if sent == 0 {
                break 'typing;
            }
            left = left.get(sent..).unwrap_or_default();
        }
    }
    if let Err(error) = stream.clone().abort() {
        tracing::debug!(%error, "a serial port's stream was over already");
    }
}
