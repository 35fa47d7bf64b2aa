//! A record handed to a subscriber, and what it says of it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::driver::Holder;
use crate::error::{Operation, Result};
use crate::recorded::Recorded;
use crate::subscription::{Handout, Session, Verdict, closed};

/// A record handed to a subscriber: it derefs to the [`Recorded`], and wants a verdict.
///
/// [`done`](Self::done), [`retry`](Self::retry) and [`reject`](Self::reject) are local, sync and
/// infallible; the commit happens behind, and its failure surfaces at the subscription's `next`,
/// `flush` or `close`. A delivery that is dropped unsettled is a retry after
/// [`REDELIVERY_DELAY`](crate::defaults::REDELIVERY_DELAY).
#[must_use = "a delivery that is dropped is handed out again"]
pub struct Delivery {
    record: Recorded,
    attempt: u32,
    id: u64,
    holder: Holder,
    gone: Arc<crate::subscription::Gone>,
    session: Option<Arc<Session>>,
}

impl Delivery {
    pub(crate) fn new(session: Arc<Session>, handout: Handout) -> Self {
        Self {
            record: handout.record,
            attempt: handout.attempt,
            id: handout.id,
            holder: handout.holder,
            gone: handout.gone,
            session: Some(session),
        }
    }

    /// The how-manieth time this record is handed out, from 1, as far as that is counted
    /// (capability `attempts`).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The record.
    pub fn record(&self) -> &Recorded {
        &self.record
    }

    fn tell(&mut self, verdict: Verdict, waiter: Option<oneshot::Sender<Result<()>>>) {
        if let Some(session) = self.session.take() {
            session.settle(self.id, self.holder, verdict, waiter);
        }
    }

    /// It is handled. Committed behind, within the commit interval at the latest.
    pub fn done(mut self) {
        self.tell(Verdict::Done, None);
    }

    /// Hand it out again, not before this long (`None`:
    /// [`REDELIVERY_DELAY`](crate::defaults::REDELIVERY_DELAY)). Until it is settled its key's
    /// later records are kept back, where order is claimed; at the limit of attempts it becomes a
    /// dead letter instead.
    pub fn retry(mut self, after: impl Into<Option<Duration>>) {
        let after = after.into();
        self.tell(
            Verdict::Retry {
                after,
                reason: None,
            },
            None,
        );
    }

    /// It can never be handled: it becomes a dead letter with this reason and is settled once
    /// that is stored. Without [`dead_letters`](crate::OpenSubscription::dead_letters) it stays
    /// unsettled, and `next` says so.
    pub fn reject(mut self, reason: impl fmt::Display) {
        self.tell(Verdict::reject(reason), None);
    }

    /// Any of these.
    pub fn settle(mut self, verdict: impl Into<Verdict>) {
        self.tell(verdict.into(), None);
    }

    /// Waits until this delivery can no longer be settled: its partition went to another member,
    /// its hold ran out, or the subscription closed. Stop working on it then: somebody else may
    /// have it already.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + use<> {
        let gone = Arc::clone(&self.gone);
        async move { gone.wait().await }
    }

    /// It is handled, and that is committed when this returns. On services that commit up to a
    /// record this waits for the earlier records of its partition too.
    ///
    /// # Errors
    /// `Expired` or `Fenced` when the delivery was no longer ours: it comes again, elsewhere; with
    /// [`Effect::Unknown`](crate::Effect::Unknown) when its partition went while it was being
    /// committed, which may hold. What keeps the commit from being stored, after
    /// [`RETRY_FOR`](crate::defaults::RETRY_FOR) or at once where it cannot heal by itself, also
    /// with an unknown effect: it is still being tried, and
    /// [`flush`](crate::Subscription::flush) waits for it. `Closed` when the subscription closed
    /// first, `Internal` when the backend panicked.
    ///
    /// # Cancel safety
    /// From the first poll on it is settled; dropping it then only stops waiting.
    pub async fn done_and_wait(mut self) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let session = self.session.clone();
        self.tell(Verdict::Done, Some(sender));
        let answer = receiver.await.unwrap_or_else(|_| Err(closed()));
        match session {
            Some(session) => answer.map_err(|e| session.place(e, Operation::Settle)),
            None => answer,
        }
    }
}

impl Deref for Delivery {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        &self.record
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.tell(Verdict::retry(), None);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("record", &self.record)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
