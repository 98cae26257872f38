//! The time that is asked about.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nova_core::instance::Instance;

use crate::api::{ApiError, Query};

/// From one moment to another; never beyond now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) start: Timestamp,
    pub(super) stop: Timestamp,
}

impl Period {
    /// `start` and `end`; each is now if it is not said.
    ///
    /// # Errors
    /// 400 for what is no time, and for a start that is not before the end.
    pub(super) fn read(query: &Query, now: Timestamp) -> Result<Self, ApiError> {
        let time = |key: &str| match query.get(key).filter(|text| !text.is_empty()) {
            None => Ok(now),
            Some(text) => parse(text).ok_or_else(|| {
                ApiError::bad_request("Invalid datetime string: Datetime is in invalid format".to_owned())
            }),
        };
        let (start, stop) = (time("start")?, time("end")?);
        if start >= stop {
            return Err(ApiError::bad_request("Invalid start time. The start time cannot occur after the end time."));
        }
        Ok(Self { start, stop: stop.min(now) })
    }

    /// Did the server run in it?
    pub(super) fn saw(&self, instance: &Instance) -> bool {
        let begun = instance.launched_at.is_some_and(|launched| launched < self.stop);
        begun && instance.terminated_at.is_none_or(|terminated| terminated > self.start)
    }

    /// For how many hours did it?
    pub(super) fn hours(&self, instance: &Instance) -> f64 {
        let Some(launched) = instance.launched_at else { return 0.0 };
        let from = launched.max(self.start);
        let to = instance.terminated_at.map_or(self.stop, |terminated| terminated.min(self.stop));
        let micros = to.as_microsecond().saturating_sub(from.as_microsecond()).max(0);
        micros as f64 / 3_600_000_000.0
    }
}

/// UTC, in one of three forms: with `T` and with or without a fraction, with a blank and a fraction.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let form = |format: &str| DateTime::strptime(format, text).ok();
    let time = form("%Y-%m-%dT%H:%M:%S").or_else(|| {
        text.contains('.').then(|| form("%Y-%m-%dT%H:%M:%S.%f").or_else(|| form("%Y-%m-%d %H:%M:%S.%f")))?
    })?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn times_come_in_three_forms() {
        for good in ["2026-11-22T08:00:00", "2026-11-22T08:00:00.123456", "2026-11-22 08:00:00.5"] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in ["", "2026-11-22", "2026-11-22 08:00:00", "2026-11-22T08:00:00Z", "2026-13-01T00:00:00", "x.y"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_period_ends_now_at_the_latest() {
        let now = parse("2026-11-22T08:00:00").unwrap();
        let read = |query: &str| Period::read(&Query::parse(query), now);
        let period = read("start=2026-11-21T08:00:00&end=2027-01-01T00:00:00").unwrap();
        assert_eq!(period.stop, now);
        for bad in ["", "start=2026-11-22T08:00:00", "start=yesterday", "start=2027-01-01T00:00:00"] {
            assert!(matches!(read(bad), Err(ApiError::BadRequest(_))), "{bad}");
        }
    }
}
