//! When to try again, and what may be tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::batch::Batch;
use crate::capability::{AppendCapabilities, Dedupe};
use crate::defaults::{RETRY_FIRST, RETRY_MOST};
use crate::error::{Error, ErrorKind, Retry};
use crate::name::TopicName;
use crate::record::Record;
use crate::time::Timestamp;

/// The pauses between attempts: growing, with jitter, as long as a service asks for at least, and
/// not past the budget.
#[derive(Debug)]
pub(super) struct Pauses {
    budget: Duration,
    ends: Option<Duration>,
    backoff: Option<ExponentialBackoff>,
    failing_since: Option<Duration>,
    /// Before this the service wants to see nothing of what waits.
    not_before: Duration,
    /// Somebody was warned that the log is out of room.
    warned: bool,
}

impl Pauses {
    pub(super) fn new(budget: Duration, ends: Option<Duration>) -> Self {
        Self {
            budget,
            ends,
            backoff: None,
            failing_since: None,
            not_before: Duration::ZERO,
            warned: false,
        }
    }

    /// Something was stored: the budget and the pauses begin anew.
    pub(super) fn reset(&mut self) {
        self.backoff = None;
        self.failing_since = None;
    }

    /// A record that failed at `now` waits to be sent again.
    pub(super) fn hold(&mut self, now: Duration, error: Option<&Error>) {
        self.failing_since.get_or_insert(now);
        if let Some(Retry::After(least)) = error.map(Error::retry) {
            self.not_before = self.not_before.max(now.saturating_add(least));
        }
    }

    /// How long to wait at `now`; `None`: no longer worth it.
    pub(super) fn next(&mut self, now: Duration) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        let backoff = self.backoff.get_or_insert_with(|| {
            // Seeded by the clock: on a test's clock every run waits the same.
            let seed = now.as_nanos() & u128::from(u64::MAX);
            ExponentialBuilder::new()
                .with_min_delay(RETRY_FIRST)
                .with_max_delay(RETRY_MOST)
                .without_max_times()
                .with_jitter()
                .with_jitter_seed(u64::try_from(seed).unwrap_or_default())
                .build()
        });
        let pause = backoff.next()?.max(self.not_before.saturating_sub(now));
        let then = now.saturating_add(pause);
        let in_time =
            then.saturating_sub(since) <= self.budget && self.ends.is_none_or(|ends| then < ends);
        in_time.then_some(pause)
    }

    /// Tells of the pause before the next attempt. The first one that is `Blocked` is a warning: it
    /// may end only when somebody makes room, and until then nothing else shows.
    pub(super) fn tell(
        &mut self,
        topic: &TopicName,
        records: usize,
        pause: Duration,
        error: Option<&Error>,
    ) {
        let blocked = error.is_some_and(|error| error.kind() == ErrorKind::Blocked);
        let error = error.map(tracing::field::display);
        if blocked && !self.warned {
            self.warned = true;
            tracing::warn!(%topic, records, ?pause, error, "an append is blocked and is tried again");
        } else {
            tracing::debug!(%topic, records, ?pause, error, "an append is tried again");
        }
    }
}

/// For how long a repeat is recognised, or whether it need not be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeats {
    anyhow: bool,
    resubmit: Option<Duration>,
    dedupe: Dedupe,
}

impl Repeats {
    pub(super) fn of(has: &AppendCapabilities, anyhow: bool) -> Self {
        Self {
            anyhow,
            resubmit: has.resubmit.known().copied().flatten(),
            dedupe: has.dedupe.known().copied().unwrap_or(Dedupe::None),
        }
    }

    /// Whether a record that may be stored may be sent again at `now`.
    pub(super) fn covers(&self, batch: &Batch, index: usize, now: Timestamp) -> bool {
        let age = batch.first_tried().map(|first| now.since(first));
        let within = |window: Duration| age.is_none_or(|age| age < window);
        let record = batch.records().get(index);
        let has_id = record.and_then(Record::id_bytes).is_some();
        self.anyhow
            || self.resubmit.is_some_and(within)
            || match self.dedupe {
                Dedupe::None => false,
                Dedupe::Window(window) => has_id && within(window),
                Dedupe::Forever => has_id,
            }
    }
}
