//! What the handles of a subscription and its tasks share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::failure::{closed, panicked};
use super::ledger::{Ledger, Told};
use super::news::News;
use super::stay::Waiter;
use super::verdict::Verdict;
use crate::bus::Bus;
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
    /// For those who call: something can be handed out, or was told.
    pub(crate) news: Arc<News>,
    /// For the receiving task: there is room, something to hold back or let go, or it is to end.
    pub(crate) room: Notify,
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
    /// Records are gone; to go on behind them say so with [`Session::told`].
    Gap(Error, Told),
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
        news: Arc<News>,
    ) -> Self {
        Self {
            topic,
            group,
            settling,
            dead_letters,
            lease,
            ledger: Mutex::new(ledger),
            news,
            room: Notify::new(),
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

    /// The next delivery, or what there is to say instead.
    ///
    /// # Cancel safety
    /// Nothing is taken before it is returned.
    pub(crate) async fn next(self: &Arc<Self>) -> Next {
        let mut wanting = None;
        loop {
            let bell = self.news.bell.notified();
            let mut bell = std::pin::pin!(bell);
            bell.as_mut().enable();
            if self.topic.bus().is_closed() {
                let error = Bus::closed_error();
                return Next::Failed(self.place(error, Operation::Subscribe));
            }
            if let Some((error, operation)) = self.news.take() {
                return Next::Told(self.place(error, operation));
            }
            {
                let mut ledger = self.ledger();
                if let Some(next) = self.hand(&mut ledger) {
                    return next;
                }
                if let Some(error) = &ledger.failed {
                    return Next::Failed(error.clone());
                }
                if ledger.closing {
                    return Next::Closed;
                }
                if wanting.is_none() {
                    ledger.wanted += 1;
                    wanting = Some(Wanting(self));
                }
                self.feed(&ledger);
            }
            bell.await;
        }
    }

    /// The application has been told of a gap: what is committed may pass it.
    pub(crate) fn told(&self, told: &Told) {
        let due = {
            let mut ledger = self.ledger();
            ledger.told(told, self.now());
            ledger.work_due()
        };
        if due.is_some() {
            self.work.notify_one();
        }
    }

    /// The oldest record that may be handed out and is still held, or the gap before it.
    fn hand(self: &Arc<Self>, ledger: &mut Ledger) -> Option<Next> {
        let now = self.now();
        let before = (ledger.work_due(), ledger.letter_due());
        let next = loop {
            if let Some((told, gap)) = ledger.gap() {
                let error = self.place(Error::of_gap(gap), Operation::Subscribe);
                break Some(Next::Gap(error, told));
            }
            let Some(handout) = ledger.hand(now) else {
                break None;
            };
            let over = match (&self.settling, handout.holder) {
                (Settling::Each(settler), Holder::Token(token)) => {
                    settler.held_for(token) == Some(Duration::ZERO)
                }
                _ => false,
            };
            if !over {
                let delivery = Delivery::new(Arc::clone(self), handout);
                break Some(Next::Delivery(Box::new(delivery)));
            }
            // Its hold ran out while it waited here: somebody else may have it already.
            ledger.expire(handout.id, now);
            ledger.settle(handout.id, Verdict::retry(), None, now);
        };
        // What keeps records back may be a commit or a letter.
        let after = (ledger.work_due(), ledger.letter_due());
        if after.0 != before.0 && after.0.is_some() {
            self.work.notify_one();
        }
        if after.1 != before.1 && after.1.is_some() {
            self.letters.notify_one();
        }
        next
    }

    /// Lets the receiving task look again if that can change anything.
    fn feed(&self, ledger: &Ledger) {
        if ledger.starved || ledger.has_holds() {
            self.room.notify_one();
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
        let due = |ledger: &Ledger| (ledger.work_due(), ledger.retry_due());
        let before = due(&ledger);
        ledger.settle(id, verdict, waiter, now);
        let after = due(&ledger);
        if after != before || after.0 == Some(Duration::ZERO) {
            self.work.notify_one();
        }
        if ledger.letter_due().is_some() {
            self.letters.notify_one();
        }
        self.feed(&ledger);
        let ring = ledger.is_ready() || ledger.handed() == 0;
        drop(ledger);
        if ring {
            self.news.ring();
        }
    }

    /// Waits until everything that is settled now has been committed.
    pub(crate) async fn flush(&self) -> Result<()> {
        let target = {
            let mut ledger = self.ledger();
            ledger.hurry();
            ledger.target()
        };
        self.work.notify_one();
        loop {
            let bell = self.news.bell.notified();
            let mut bell = std::pin::pin!(bell);
            bell.as_mut().enable();
            if let Some((error, operation)) = self.news.take() {
                return Err(self.place(error, operation));
            }
            {
                let ledger = self.ledger();
                // With the stays goes what would tell that they are not committed.
                if ledger.ended
                    && let Some(error) = &ledger.failed
                {
                    return Err(error.clone());
                }
                if ledger.has_reached(&target) {
                    return Ok(());
                }
                if ledger.ended {
                    return Err(self.place(closed(), Operation::Settle));
                }
            }
            bell.await;
        }
    }

    /// Runs a task of this session: one that panics ends it with an error, and nobody waits for
    /// it in vain.
    pub(crate) async fn guarded<T>(self: Arc<Self>, task: impl Future<Output = T>) -> T {
        let guard = Guard(self);
        let output = task.await;
        drop(guard);
        output
    }

    /// No new deliveries from here on.
    pub(crate) fn begin_close(&self) {
        self.ledger().closing = true;
        self.news.leave();
        self.room.notify_one();
        self.work.notify_one();
    }
}

/// What a task of a session leaves behind.
struct Guard(Arc<Session>);

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let error = self.0.place(panicked(), Operation::Subscribe);
        {
            let mut ledger = self.0.ledger();
            ledger.failed.get_or_insert(error);
            ledger.end();
        }
        self.0.news.ring();
        self.0.room.notify_one();
        self.0.work.notify_one();
        self.0.letters.notify_one();
    }
}

/// One caller who waits.
struct Wanting<'a>(&'a Session);

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        {
            let mut ledger = self.0.ledger();
            ledger.wanted = ledger.wanted.saturating_sub(1);
        }
        // A fetch that is under way would take a record that nobody waits for.
        if matches!(self.0.settling, Settling::Each(_)) {
            self.0.room.notify_one();
        }
    }
}
