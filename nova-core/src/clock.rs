//! Time as a collaborator: production reads the system's clock, simulations a virtual one.

use jiff::Timestamp;

/// Tells what time it is. Waiting is the runtime's business; this is for facts that are written down.
pub trait Clock: Send + Sync {
    /// Now, in UTC, to the microsecond.
    fn now(&self) -> Timestamp;
}

/// The form in which Nova's API writes a time: `2026-11-22T08:03:11Z`.
pub fn api_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The form in which Nova writes times of services, actions and launches: microseconds and no zone letter,
/// `2026-11-22T08:03:11.000000`.
pub fn api_time_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_nova_writes_them() {
        let time = Timestamp::from_microsecond(1_763_798_591_000_042).unwrap();
        assert_eq!(api_time(time), "2025-11-22T08:03:11Z");
        assert_eq!(api_time_micros(time), "2025-11-22T08:03:11.000042");
    }
}
