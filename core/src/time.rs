//! Moments, as logs know them: whole milliseconds, UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// A moment in milliseconds since 1970-01-01T00:00:00Z; negative before it.
///
/// Milliseconds because that is what Kinesis, Kafka, SQS and the embedded log keep; a
/// [`SystemTime`] is cut down to the millisecond at or before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// The earliest moment that can be said.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment that can be said.
    pub const MAX: Self = Self(i64::MAX);

    /// The moment `millis` milliseconds after (negative: before) the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The system's wall clock now. Logs and tests ask a [`Clock`](crate::Clock) instead.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// This moment and `later` more, or [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(millis(later)))
    }

    /// This moment less `earlier`, or the earliest that can be said.
    #[must_use]
    pub fn saturating_sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(millis(earlier)))
    }

    /// How long after `earlier` this is, in whole milliseconds; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            // Round down, so that the order of two moments survives the cut.
            Err(before) => {
                let before = before.duration();
                let rest = i64::from(before.subsec_nanos() % 1_000_000 != 0);
                Self(millis(before).saturating_neg().saturating_sub(rest))
            }
        }
    }
}

/// A moment that the system's clock cannot say is the Unix epoch.
impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let span = Duration::from_millis(time.0.unsigned_abs());
        let there = if time.0 < 0 {
            UNIX_EPOCH.checked_sub(span)
        } else {
            UNIX_EPOCH.checked_add(span)
        };
        there.unwrap_or(UNIX_EPOCH)
    }
}

/// RFC 3339 in UTC with milliseconds: `2001-01-01T00:47:00.000Z`. A moment outside the years
/// -9999 to 9999 prints as its milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what [`Display`](fmt::Display) writes, RFC 3339 with any offset, or whole milliseconds
/// since the epoch. What is finer than a millisecond is cut down to the one before. Anything else
/// is `Config`.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(millis) = text.strip_suffix("ms").unwrap_or(text).parse() {
            return Ok(Self(millis));
        }
        text.parse::<jiff::Timestamp>()
            .map(|time| {
                // Round down, as from a SystemTime.
                let millis = time.as_nanosecond().div_euclid(1_000_000);
                Self(i64::try_from(millis).unwrap_or(i64::MAX))
            })
            .map_err(|e| {
                Error::config(format!(
                    "{text:?} is no moment in time; write it as 2001-01-01T00:47:00Z or as milliseconds since 1970"
                ))
                .with_source(e)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        for millis in [
            0,
            1,
            -1,
            978_309_999_999,
            -62_135_596_800_000,
            i64::MAX,
            i64::MIN,
        ] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
        assert_eq!(
            Timestamp::from_millis(978_310_020_000).to_string(),
            "2001-01-01T00:47:00.000Z"
        );
        assert_eq!(
            "2001-01-01T01:47:00+01:00"
                .parse::<Timestamp>()
                .unwrap()
                .as_millis(),
            978_310_020_000
        );
        assert!("noon".parse::<Timestamp>().is_err());
    }

    #[test]
    fn cuts_down_to_the_millisecond_before() {
        let just_before = UNIX_EPOCH - Duration::from_nanos(1);
        assert_eq!(Timestamp::from(just_before).as_millis(), -1);
        assert_eq!(
            Timestamp::from(UNIX_EPOCH + Duration::from_nanos(1)).as_millis(),
            0
        );
    }
}
