//! The worker that everybody writes.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::defaults;
use crate::delivery::Delivery;
use crate::driver::Closed;
use crate::error::Result;
use crate::pending::{BoxFuture, Pending};
use crate::recorded::Recorded;
use crate::subscription::{Next, Subscription, Verdict, is_passing};

type Handler = dyn Fn(Delivery) -> BoxFuture<()> + Send + Sync;

/// Handles every record of a subscription: `subscription.run(handler).concurrency(16).await`.
///
/// The handler's output is a [`Verdict`]: `()` settles, an `Err` is a retry with its text as the
/// reason, a panic is a retry too. Handlers run side by side as tasks; the records of one key are
/// handled one after the other, where order is claimed.
///
/// It ends when [`until`](Self::until) does: then it takes no more, lets the handlers that run
/// end within [`grace`](Self::grace), commits and leaves the group. Without `until` it runs until
/// it fails.
///
/// A handler has to bear a record that comes again, after a clean shutdown too: on a log, what
/// other keys settled ahead of the slowest one does, within the bound that
/// [`Subscription::close`] names.
///
/// # Errors
/// What can heal, and what was settled too late (`Expired`, `Fenced`: it comes again elsewhere),
/// is logged and gone on after. Any other error of [`next`](Subscription::next) ends the run, after
/// the same shutdown; a `Gap` too, unless [`skip_gaps`](Self::skip_gaps). Nothing behind that gap is
/// handled or committed, so the next run comes to it again: go on by `skip_gaps`, or take it with
/// `next`.
///
/// # Cancel safety
/// Dropping it stops its handlers, whose records are handed out again, and closes the
/// subscription in the background. On a log the next member of the group takes over within a
/// third of [`LEASE`](defaults::LEASE), when it looks again.
#[derive(Debug)]
#[must_use = "nothing is handled until this is awaited"]
pub struct Run(Pending<Work, Result<Closed>>);

struct Work {
    subscription: Subscription,
    handler: Arc<Handler>,
    concurrency: usize,
    until: Option<BoxFuture<()>>,
    grace: Duration,
    skip_gaps: bool,
}

impl Run {
    pub(crate) fn new<F, H>(subscription: Subscription, handler: F) -> Self
    where
        F: Fn(Recorded) -> H + Send + Sync + 'static,
        H: Future<Output: Into<Verdict>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let handle = move |delivery: Delivery| -> BoxFuture<()> {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let record = delivery.record().clone();
                // The call itself may panic as well as what it returns.
                let handled = async move { handler(record).await.into() };
                delivery.settle(Caught(Box::pin(handled)).await);
            })
        };
        Self(Pending::new(Work {
            grace: subscription.grace(),
            subscription,
            handler: Arc::new(handle),
            concurrency: defaults::CONCURRENCY,
            until: None,
            skip_gaps: false,
        }))
    }

    /// Handlers at a time. Default [`CONCURRENCY`](defaults::CONCURRENCY); zero is one.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.0.set(|work| work.concurrency = handlers.max(1));
        self
    }

    /// Shuts down when `signal` ends, whatever its output.
    pub fn until<F>(mut self, signal: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.0.set(|work| {
            work.until = Some(Box::pin(async move {
                signal.await;
            }));
        });
        self
    }

    /// How long the shutdown may take; handlers that have not ended after four fifths of it are
    /// stopped, and their records handed out again. Default: the subscription's.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.0.set(|work| work.grace = grace);
        self
    }

    /// Goes on where records are gone, with a warning in the log.
    pub fn skip_gaps(mut self) -> Self {
        self.0.set(|work| work.skip_gaps = true);
        self
    }
}

impl Future for Run {
    type Output = Result<Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(cx, |work| Box::pin(work.run()))
    }
}

impl Work {
    async fn run(self) -> Result<Closed> {
        let Self {
            subscription,
            handler,
            concurrency,
            until,
            grace,
            skip_gaps,
        } = self;
        let clock = subscription.topic().bus().clock().clone();
        let mut until = until.unwrap_or_else(|| Box::pin(std::future::pending()));
        let mut running = JoinSet::new();
        let session = Arc::clone(subscription.session());
        let failed = loop {
            let free = running.len() < concurrency;
            let next = tokio::select! {
                biased;
                () = &mut until => break None,
                Some(_) = running.join_next() => continue,
                next = session.next(), if free => next,
            };
            match next {
                Next::Delivery(delivery) => {
                    running.spawn(handler(*delivery));
                }
                Next::Closed => break None,
                Next::Gap(error, told) if skip_gaps => {
                    tracing::warn!(error = %error, "going on");
                    session.told(&told);
                }
                Next::Told(error) if is_passing(&error) => {
                    tracing::warn!(error = %error, "going on");
                }
                // A gap is not told so: this run may be dropped before anybody has its error.
                Next::Gap(error, _) | Next::Told(error) | Next::Failed(error) => break Some(error),
            }
        };
        let start = clock.elapsed();
        // What nobody has yet goes back at once.
        session.begin_close();
        clock
            .timeout(grace.saturating_sub(grace / 5), async {
                while running.join_next().await.is_some() {}
            })
            .await;
        running.abort_all();
        // Stopped handlers let go of their deliveries at their next await.
        clock
            .timeout(grace / 20, async {
                while running.join_next().await.is_some() {}
            })
            .await;
        let rest = grace.saturating_sub(clock.elapsed().saturating_sub(start));
        let closed = subscription.close(rest).await;
        failed.map_or(closed, Err)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("subscription", &self.subscription)
            .field("concurrency", &self.concurrency)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// A handler whose panic is a retry.
struct Caught(BoxFuture<Verdict>);

impl Future for Caught {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        // A handler that panicked is not polled again, so nobody sees what it left half done.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            Poll::Ready(Verdict::Retry {
                after: None,
                reason: Some(format!("the handler panicked: {}", text(panic.as_ref()))),
            })
        })
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
