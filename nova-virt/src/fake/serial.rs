//! The fake's serial port: it says who it is, and repeats what is typed.

use nova_core::ids::InstanceId;
use tokio::sync::{broadcast, mpsc};

use crate::serial::SERIAL_PIECES;
use crate::{GuestEvent, GuestEventKind, SerialPort};

/// Opens it; it ends when the guest stops.
pub(super) fn open(instance: InstanceId, name: &str, mut events: broadcast::Receiver<GuestEvent>) -> SerialPort {
    let (input, mut typed) = mpsc::channel::<Vec<u8>>(SERIAL_PIECES);
    let (written, output) = mpsc::channel(SERIAL_PIECES);
    let greeting = format!("\r\n{name} login: ").into_bytes();
    tokio::spawn(async move {
        let mut next = Some(greeting);
        loop {
            if let Some(piece) = next.take()
                && written.send(piece).await.is_err()
            {
                return;
            }
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) if event.instance == instance && event.kind == GuestEventKind::Stopped => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                piece = typed.recv() => match piece {
                    Some(piece) => next = Some(piece),
                    None => return,
                },
            }
        }
    });
    SerialPort { input, output }
}
