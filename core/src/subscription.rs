//! Reading as a member of a group.
//!
//! | room | does |
//! | --- | --- |
//! | `open`, `close` | how a membership begins and ends |
//! | `session` | what handles and tasks share: `next`, verdicts, flush |
//! | `receive`, `settle`, `keep`, `letters` | the tasks: source to ledger, ledger to service, holding on, dead letters |
//! | `ledger` | who may have which record when; no I/O |
//! | `lanes`, `window`, `stay`, `outbox` | keys in flight, the watermark, one partition's stay, settlements to tell |
//! | `news`, `trouble`, `failure`, `pause` | what is told, when, in which words, and how long to wait |

mod close;
mod failure;
mod gone;
mod keep;
mod lanes;
mod ledger;
pub mod letters;
mod news;
mod open;
mod outbox;
mod pause;
mod receive;
mod session;
mod settle;
mod stay;
mod trouble;
mod verdict;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};

use crate::delivery::Delivery;
use crate::driver::{Closed, Lag, Source};
use crate::error::{Error, Operation, Result};
use crate::name::Group;
use crate::recorded::Recorded;
use crate::run::Run;
use crate::topic::Topic;

pub(crate) use failure::closed;
pub(crate) use gone::Gone;
pub(crate) use ledger::Handout;
pub(crate) use news::News;
pub use open::OpenSubscription;
pub(crate) use session::{Next, Session};
pub(crate) use trouble::Trouble;
pub use verdict::Verdict;

/// A membership of a group: records that no other member has, to be settled one by one.
///
/// Every group sees every record; the members of one group share them. A record is handed out
/// again until it is settled, so it may come more than once; after a crash what was settled within
/// the last [`commit_interval`](OpenSubscription::commit_interval) comes again too.
///
/// Where the topic claims order (capability `order`), a record is never handed out while an
/// earlier one of its key is unsettled, whether that one is being handled, waits for its retry or
/// is on its way to the dead letters. So handlers may run side by side, and each key is still
/// handled in order. Records without a key have no order to keep.
///
/// All calls take `&self`: share it in an `Arc` among tasks, or let [`run`](Self::run) do it.
/// Dropping it closes it in the background, with the grace it was opened with.
#[derive(Debug)]
pub struct Subscription {
    session: Arc<Session>,
    open: Option<Tasks>,
    grace: Duration,
}

#[derive(Debug)]
struct Tasks {
    receive: JoinHandle<Box<dyn Source>>,
    others: Vec<AbortHandle>,
}

impl Subscription {
    /// The next delivery, waiting until there is one; `None` once the subscription is closing.
    ///
    /// No more than [`in_flight`](OpenSubscription::in_flight) are out unsettled at a time: with
    /// that many in hand it waits until one is settled.
    ///
    /// # Errors
    /// Each failure is told once. After these the next call goes on: `Gap`, records are gone and
    /// reading goes on behind them (only once it is told is anything behind it handed out, and
    /// committed); `Expired` and `Fenced`, something was settled too late and
    /// comes again elsewhere; and whatever kept a commit or a dead letter from being stored, which
    /// is still being tried. What can heal within
    /// [`RETRY_FOR`](crate::defaults::RETRY_FOR) is retried inside; a commit that is not answered for
    /// so long is a `Timeout` and tried again. Any other error is final (`Internal`: the backend
    /// panicked, or gave records that cannot be settled; `Closed`: the bus was closed), and
    /// every later call gives it again.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped at any moment it has taken nothing.
    pub async fn next(&self) -> Result<Option<Delivery>> {
        match self.session.next().await {
            Next::Delivery(delivery) => Ok(Some(*delivery)),
            Next::Gap(error, told) => {
                self.session.told(&told);
                Err(error)
            }
            Next::Told(error) | Next::Failed(error) => Err(error),
            Next::Closed => Ok(None),
        }
    }

    /// Waits until everything settled by now has been committed, as far as it can be: a record
    /// behind an unsettled one of its partition is not waited for. Nor is a gap that
    /// [`next`](Self::next) has not told, which no commit passes.
    ///
    /// # Errors
    /// As `next`, save gaps, which `next` alone tells; what failed stays to be committed.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting; the commit goes on.
    pub async fn flush(&self) -> Result<()> {
        self.session.flush().await
    }

    /// Hands out nothing more, gives back what no handler has, waits for what handlers have,
    /// commits and leaves the group: all within `grace`, of which the last fifth is for the
    /// commit. Says what could not be given back and when that returns by itself.
    ///
    /// On a log a commit is a place in each partition: behind the last record before which all are
    /// settled. What other keys settled ahead of an unsettled one (which was given back, waits for
    /// its retry, or whose handler did not end within `grace`) is therefore handed out again, even
    /// after a clean close: of each partition no more than was settled since the slowest key's
    /// first unsettled record, which core bounds to 16 times
    /// [`in_flight`](OpenSubscription::in_flight) records and what was taken in when that was
    /// reached. Where nothing is left unsettled, nothing comes again. Queues settle each record,
    /// and hand out none of these again.
    ///
    /// Nor does a commit pass a gap that [`next`](Self::next) has not told: whoever reads on from it
    /// is told again.
    ///
    /// # Errors
    /// Whatever kept the last commit from being stored; `Timeout` when the service did not answer
    /// within `grace`. What was not committed comes again to others.
    ///
    /// # Cancel safety
    /// Dropping it leaves it closing in the background.
    pub async fn close(mut self, grace: Duration) -> Result<Closed> {
        let Some(tasks) = self.open.take() else {
            return Err(closed());
        };
        let session = Arc::clone(&self.session);
        let closing = tokio::spawn(close::close(Arc::clone(&session), tasks, grace));
        match closing.await {
            Ok(closed) => closed,
            Err(_) => Err(session.place(closed(), Operation::Close)),
        }
    }

    /// How far the group is behind the end, over all partitions; see [`Topic::group_lag`], which
    /// needs no membership.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot say.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn lag(&self) -> Result<Lag> {
        self.topic().group_lag(self.group()).await
    }

    /// Lets `handler` handle every record: the worker that everybody writes. See [`Run`].
    pub fn run<F, H>(self, handler: F) -> Run
    where
        F: Fn(Recorded) -> H + Send + Sync + 'static,
        H: Future<Output: Into<Verdict>> + Send + 'static,
    {
        Run::new(self, handler)
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.session.topic
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.session.group
    }

    /// How long a close waits that nobody asked for.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(tasks) = self.open.take() else {
            return;
        };
        self.session.begin_close();
        // Without a runtime its tasks are gone, and with them what they held.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(close::close(Arc::clone(&self.session), tasks, self.grace));
        }
    }
}

impl Topic {
    /// Joins a group of this topic; see [`OpenSubscription`].
    ///
    /// On a log, each partition is one member's at a time: a group's progress in it is one place up
    /// to which all is settled, and its records come in order. With one partition (the embedded
    /// log) one member is handed records and others stand by; they take over within a third of
    /// [`LEASE`](crate::defaults::LEASE). To work in parallel, give one member several handlers:
    /// [`run`](Subscription::run) with [`concurrency`](crate::Run::concurrency).
    pub fn subscribe(&self, group: impl AsRef<str>) -> OpenSubscription {
        OpenSubscription::new(self.clone(), Group::new(group))
    }
}

/// Whether a worker can go on after this one.
pub(crate) fn is_passing(error: &Error) -> bool {
    use crate::error::ErrorKind;
    error.is_retryable() || matches!(error.kind(), ErrorKind::Expired | ErrorKind::Fenced)
}
