//! Retention: whole sealed segments go when the topic's settings no longer ask for them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use annals_core::{Result, Timestamp};

use crate::log::options::Keep;
use crate::log::{End, Topic};

/// How often a topic that keeps by age is looked at: a twentieth of the age, between these.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// The low-water mark that `keep` allows now; `None`: nothing is to go.
///
/// By age a segment goes when its last record is older than asked for; by bytes when the segments
/// behind it hold at least what was asked for. The active segment always stays, so what is kept
/// is never less than asked for, and up to a segment more.
fn mark(sealed: &[(u64, u64, Timestamp)], end: &End, keep: Keep, now: Timestamp) -> Option<u64> {
    let mut kept = end.bytes;
    let mut first_kept = end.segment;
    for (first, bytes, last) in sealed.iter().rev() {
        let goes = match keep {
            Keep::Forever => false,
            Keep::Age(age) => last.saturating_add(age) < now,
            Keep::Bytes(most) => kept >= most,
        };
        if goes {
            return (first_kept > end.earliest).then_some(first_kept);
        }
        kept = kept.saturating_add(*bytes);
        first_kept = *first;
    }
    None
}

/// Removes what `topic` need not keep. Blocks.
///
/// # Errors
/// The disk's.
pub(crate) fn enforce(topic: &Topic) -> Result<()> {
    let now = topic.disk().now();
    let end = topic.end();
    match mark(&topic.sealed(), &end, topic.settings().keep, now) {
        Some(earliest) => topic.trim(earliest),
        None => Ok(()),
    }
}

/// Enforces retention now, after each seal and, by age, as time goes by, until the topic is
/// dropped.
pub(crate) fn watch(topic: &Arc<Topic>) {
    let period = match topic.settings().keep {
        Keep::Forever => return,
        Keep::Age(age) => Some((age / 20).clamp(SHORTEST, LONGEST)),
        Keep::Bytes(_) => None,
    };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let mut seals = topic.watch_seals();
    let topic: Weak<Topic> = Arc::downgrade(topic);
    runtime.spawn(async move {
        loop {
            seals.borrow_and_update();
            let Some(now) = topic.upgrade() else { return };
            let done = tokio::task::spawn_blocking(move || enforce(&now)).await;
            if let Ok(Err(e)) = done {
                tracing::warn!(error = %e, "retention failed; it is tried again");
            }
            let sealed = seals.changed();
            let next = match period {
                Some(period) => tokio::time::timeout(period, sealed).await.ok(),
                None => Some(sealed.await),
            };
            if matches!(next, Some(Err(_))) {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn no_more_goes_than_may() {
        // Segments of ten records and 100 bytes, the last append times 10, 20, 30.
        let sealed = [(0, 100, at(10)), (10, 100, at(20)), (20, 100, at(30))];
        let end = End {
            segment: 30,
            bytes: 50,
            next: 35,
            earliest: 0,
        };
        let keep = |keep, now| mark(&sealed, &end, keep, at(now));
        let age = |millis| Keep::Age(Duration::from_millis(millis));
        assert_eq!(keep(Keep::Forever, 1000), None);
        assert_eq!(keep(age(10), 20), None);
        assert_eq!(keep(age(10), 21), Some(10));
        assert_eq!(keep(age(10), 31), Some(20));
        assert_eq!(keep(age(10), 1000), Some(30));
        assert_eq!(keep(Keep::Bytes(50), 0), Some(30));
        assert_eq!(keep(Keep::Bytes(51), 0), Some(20));
        assert_eq!(keep(Keep::Bytes(250), 0), Some(10));
        assert_eq!(keep(Keep::Bytes(251), 0), None);
        let trimmed = End {
            earliest: 10,
            ..end
        };
        assert_eq!(mark(&sealed, &trimmed, age(10), at(21)), None);
        assert_eq!(mark(&sealed, &trimmed, age(10), at(31)), Some(20));
    }
}
