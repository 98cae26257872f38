//! A guest's serial port, opened.

use tokio::sync::mpsc;

/// Pieces that wait on either side before whoever makes them has to wait.
pub const SERIAL_PIECES: usize = 16;

/// Both ways of a guest's serial port. Dropping it closes the port.
#[derive(Debug)]
pub struct SerialPort {
    /// What is typed. Closed once the port is.
    pub input: mpsc::Sender<Vec<u8>>,
    /// What the guest writes from now on. Ends when the guest stops, or when somebody else opens the port.
    pub output: mpsc::Receiver<Vec<u8>>,
}
