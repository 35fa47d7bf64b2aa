//! One stay of a partition: what of it is settled, and how far it can be committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::cursor::Frontier;
use crate::driver::{Mark, Tenancy};
use crate::error::Result;

/// Whether deliveries of one right can still be settled.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    flag: AtomicBool,
    notify: Notify,
}

impl Gone {
    /// They cannot, from here on.
    pub(crate) fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits until they cannot.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting.
    pub(crate) async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }
}

/// Who waits for one record's commit.
pub(crate) type Waiter = oneshot::Sender<Result<()>>;

/// A record, or a step of the frontier without one, in the order of arrival.
#[derive(Debug)]
struct Slot {
    id: u64,
    to: Frontier,
    settled: bool,
    /// How often it has been handed out.
    attempts: u32,
}

/// A mark to commit, and the last arrival that it covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) mark: Mark,
    pub(crate) covers: u64,
}

/// One stay of a partition at this member.
///
/// The watermark is the frontier behind the longest settled beginning of the window: it never
/// passes a record that is not settled, whatever is settled behind that one.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) tenancy: Tenancy,
    pub(crate) gone: Arc<Gone>,
    /// Deliveries that handlers have.
    pub(crate) handed: usize,
    /// Until when a revocation waits for them.
    pub(crate) revoking: Option<Duration>,
    /// Whether the source was told to hold this partition back.
    pub(crate) held: bool,
    window: VecDeque<Slot>,
    /// Settled records behind a hole.
    behind: usize,
    at: Frontier,
    covers: u64,
    committed: (Frontier, u32),
    committed_id: u64,
    /// How often the first record behind the start had been handed out before this stay.
    before: u32,
    /// So many records are handed out one at a time, each only once its attempt is committed.
    probe: usize,
    announced: bool,
    waiters: Vec<(u64, Waiter)>,
}

impl Stay {
    pub(crate) fn new(tenancy: Tenancy, from: Frontier, attempts: u32, probe: usize) -> Self {
        Self {
            tenancy,
            gone: Arc::default(),
            handed: 0,
            revoking: None,
            held: false,
            window: VecDeque::new(),
            behind: 0,
            at: from,
            covers: 0,
            committed: (from, attempts),
            committed_id: 0,
            before: attempts,
            probe,
            announced: false,
            waiters: Vec::new(),
        }
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let index = self.window.binary_search_by_key(&id, |slot| slot.id).ok()?;
        self.window.get_mut(index)
    }

    /// A record arrived; says how often it was handed out before.
    pub(crate) fn arrive(&mut self, id: u64, to: Frontier) -> u32 {
        let attempts = std::mem::take(&mut self.before);
        self.window.push_back(Slot {
            id,
            to,
            settled: false,
            attempts,
        });
        attempts
    }

    /// The frontier moved without a record.
    pub(crate) fn advance(&mut self, id: u64, to: Frontier) {
        match self.window.back_mut() {
            // Settled steps in a row are one: an idle partition takes no memory.
            Some(last) if last.settled => {
                last.id = id;
                last.to = to;
            }
            _ => {
                self.window.push_back(Slot {
                    id,
                    to,
                    settled: true,
                    attempts: 0,
                });
                self.behind += 1;
            }
        }
        self.pop();
    }

    /// The ids of what is not settled.
    pub(crate) fn unsettled(&self) -> Vec<u64> {
        let open = self.window.iter().filter(|slot| !slot.settled);
        open.map(|slot| slot.id).collect()
    }

    /// How many settled records wait behind a hole.
    pub(crate) fn behind(&self) -> usize {
        self.behind
    }

    /// Whether this record may be handed out now. A record that may have ended its handler's
    /// process is handed out alone, and only once that attempt is committed.
    pub(crate) fn allows(&mut self, id: u64) -> bool {
        if self.revoking.is_some() {
            return false;
        }
        if self.probe == 0 {
            return true;
        }
        let Some(first) = self.window.front().filter(|first| first.id == id) else {
            return false;
        };
        if self.announced && self.committed == (self.at, first.attempts.saturating_add(1)) {
            return true;
        }
        self.announced = true;
        false
    }

    /// Whether a commit is needed before anything can go on.
    pub(crate) fn is_urgent(&self) -> bool {
        (self.announced && self.handed == 0) || self.revoking.is_some() || !self.waiters.is_empty()
    }

    /// The record is handed out for this attempt.
    pub(crate) fn hand(&mut self, id: u64, attempt: u32) {
        self.handed += 1;
        self.announced = false;
        if let Some(slot) = self.slot(id) {
            slot.attempts = attempt;
        }
    }

    /// The record is settled.
    pub(crate) fn settle(&mut self, id: u64) {
        if let Some(slot) = self.slot(id)
            && !slot.settled
        {
            slot.settled = true;
            self.behind += 1;
            self.probe = self.probe.saturating_sub(1);
            self.announced = false;
        }
        self.pop();
    }

    fn pop(&mut self) {
        while let Some(first) = self.window.pop_front_if(|first| first.settled) {
            self.at = first.to;
            self.covers = first.id;
            self.behind = self.behind.saturating_sub(1);
        }
    }

    fn mark(&self) -> Mark {
        let attempts = match self.window.front() {
            Some(first) => first.attempts.saturating_add(u32::from(self.announced)),
            None => self.before,
        };
        Mark {
            tenancy: self.tenancy,
            to: self.at,
            attempts,
        }
    }

    /// What has not been committed yet.
    pub(crate) fn due(&self) -> Option<Due> {
        let mark = self.mark();
        ((mark.to, mark.attempts) != self.committed).then_some(Due {
            mark,
            covers: self.covers,
        })
    }

    /// Whether settled records have not been committed yet.
    pub(crate) fn is_ahead(&self) -> bool {
        self.at != self.committed.0
    }

    /// The mark holds.
    pub(crate) fn committed(&mut self, due: &Due) {
        self.committed = (due.mark.to, due.mark.attempts);
        self.committed_id = self.committed_id.max(due.covers);
        let waiters = std::mem::take(&mut self.waiters);
        for (id, waiter) in waiters {
            if id <= self.committed_id {
                // Whoever stopped waiting does not want to know.
                let _ = waiter.send(Ok(()));
            } else {
                self.waiters.push((id, waiter));
            }
        }
    }

    /// The last settled arrival that a commit can cover now, and the last that one has covered.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.covers, self.committed_id)
    }

    /// Tells `waiter` when the record is committed.
    pub(crate) fn wait_for(&mut self, id: u64, waiter: Waiter) {
        self.waiters.push((id, waiter));
    }

    /// Ends the stay; gives back who still waits.
    pub(crate) fn end(self) -> Vec<Waiter> {
        self.gone.set();
        self.waiters.into_iter().map(|(_, waiter)| waiter).collect()
    }
}
