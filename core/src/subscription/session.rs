//! What the handles of a subscription and its tasks share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::ledger::{Ledger, closed};
use super::stay::Waiter;
use super::verdict::Verdict;
use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::driver::{Holder, Settling};
use crate::error::{Error, Operation, Result};
use crate::name::Group;
use crate::topic::Topic;

/// One open membership.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) settling: Settling,
    pub(crate) dead_letters: Option<Topic>,
    pub(crate) lease: Duration,
    ledger: Mutex<Ledger>,
    /// Callers of `next` that wait now: what is taken from a service that shares records out.
    wanted: AtomicUsize,
    /// For those who call: something can be handed out, or was told.
    pub(crate) news: Notify,
    /// For the receiving task: there is room.
    pub(crate) room: Notify,
    /// For the receiving task: it is to end.
    pub(crate) stop: Notify,
    /// For the settling task.
    pub(crate) work: Notify,
    /// For the task that writes dead letters.
    pub(crate) letters: Notify,
}

/// What `next` found.
pub(crate) enum Next {
    Delivery(Box<Delivery>),
    /// Told once; going on is possible.
    Told(Error),
    /// The end of it.
    Failed(Error),
    Closed,
}

impl Session {
    pub(crate) fn new(
        topic: Topic,
        group: Group,
        settling: Settling,
        dead_letters: Option<Topic>,
        lease: Duration,
        ledger: Ledger,
    ) -> Self {
        Self {
            topic,
            group,
            settling,
            dead_letters,
            lease,
            ledger: Mutex::new(ledger),
            wanted: AtomicUsize::new(0),
            news: Notify::new(),
            room: Notify::new(),
            stop: Notify::new(),
            work: Notify::new(),
            letters: Notify::new(),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.topic.bus().clock()
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock().elapsed()
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn place(&self, error: Error, operation: Operation) -> Error {
        self.topic.place(error, operation)
    }

    pub(crate) fn tell(&self, error: Error, operation: Operation) {
        let error = self.place(error, operation);
        self.ledger().tell(error);
        self.news.notify_waiters();
    }

    /// How many callers wait for a record.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// The next delivery, or what there is to say instead.
    ///
    /// # Cancel safety
    /// Nothing is taken before it is returned.
    pub(crate) async fn next(self: &std::sync::Arc<Self>) -> Next {
        let mut wanting = None;
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            {
                let mut ledger = self.ledger();
                if let Some(error) = ledger.take_told() {
                    return Next::Told(error);
                }
                if let Some(handout) = ledger.hand(self.now()) {
                    return Next::Delivery(Box::new(Delivery::new(
                        std::sync::Arc::clone(self),
                        handout,
                    )));
                }
                if let Some(error) = &ledger.failed {
                    return Next::Failed(error.clone());
                }
                if ledger.closing {
                    return Next::Closed;
                }
                // What keeps records back may be a commit or a letter.
                if ledger.next_due() == Some(Duration::ZERO) {
                    self.work.notify_one();
                }
                if ledger.next_letter().is_some() {
                    self.letters.notify_one();
                }
            }
            if wanting.is_none() {
                wanting = Some(Wanting::new(self));
            }
            self.room.notify_one();
            news.await;
        }
    }

    /// A handler's verdict.
    pub(crate) fn settle(&self, id: u64, holder: Holder, verdict: Verdict, waiter: Option<Waiter>) {
        let now = self.now();
        let mut ledger = self.ledger();
        if ledger.ended {
            drop(ledger);
            if let (Settling::Each(settler), Holder::Token(token)) = (&self.settling, holder)
                && verdict != Verdict::Done
            {
                settler.release(&[token]);
            }
            if let Some(waiter) = waiter {
                let _ = waiter.send(Err(self.place(closed(), Operation::Settle)));
            }
            return;
        }
        let urgent = waiter.is_some();
        let before = ledger.next_due();
        ledger.settle(id, verdict, waiter, now);
        let after = ledger.next_due();
        let work = urgent || ledger.has_settlements() || (after.is_some() && after != before);
        let (ready, letters, room) = (
            ledger.is_ready() || ledger.closing,
            ledger.next_letter().is_some(),
            !ledger.room().is_none(),
        );
        let idle = ledger.handed() == 0;
        drop(ledger);
        if work {
            self.work.notify_one();
        }
        if ready || idle {
            self.news.notify_waiters();
        }
        if letters {
            self.letters.notify_one();
        }
        if room {
            self.room.notify_one();
        }
    }

    /// Waits until everything that is settled now has been committed.
    pub(crate) async fn flush(&self) -> Result<()> {
        let targets = {
            let mut ledger = self.ledger();
            ledger.hurry();
            ledger.progress()
        };
        self.work.notify_one();
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            {
                let mut ledger = self.ledger();
                if let Some(error) = ledger.take_told() {
                    return Err(error);
                }
                if ledger.ended {
                    return Err(self.place(closed(), Operation::Settle));
                }
                if ledger.has_committed(&targets) && !ledger.has_settlements() {
                    return Ok(());
                }
            }
            news.await;
        }
    }

    /// No new deliveries from here on.
    pub(crate) fn begin_close(&self) {
        self.ledger().closing = true;
        self.news.notify_waiters();
        self.room.notify_one();
        self.stop.notify_one();
        self.work.notify_one();
    }
}

/// One caller who waits.
struct Wanting<'a>(&'a Session);

impl<'a> Wanting<'a> {
    fn new(session: &'a Session) -> Self {
        session.wanted.fetch_add(1, Ordering::AcqRel);
        Self(session)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::AcqRel);
    }
}
