//! One stay of a partition: what of it is settled, committed, and may be handed out.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::gone::Gone;
use super::window::Window;
use crate::cursor::Frontier;
use crate::driver::{Mark, Tenancy};
use crate::error::{Effect, Error, Result};
use crate::position::Position;

/// Who waits for one record's commit.
pub(crate) type Waiter = oneshot::Sender<Result<()>>;

/// A mark to commit, and the last arrival that it covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) mark: Mark,
    pub(crate) covers: u64,
}

/// One stay of a partition at this member.
///
/// Where attempts are to survive a crash it begins with a *trial*: so many records are handed out
/// one at a time, and the first that is not settled only once the attempt is committed. Two where
/// the last stay left nothing in hand: the first shows that this one began, and its own commit
/// comes before anything is handed out beside the second.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) tenancy: Tenancy,
    pub(crate) gone: Arc<Gone>,
    /// Deliveries that handlers have.
    pub(crate) handed: usize,
    /// It is to end.
    pub(crate) revoking: Option<Revoking>,
    window: Window,
    committed: (Frontier, u32),
    committed_id: u64,
    /// Attempts outlive the stay: they are part of what is committed.
    counted: bool,
    /// The last arrival that was settled as a record.
    settled_id: u64,
    /// How often the first record behind the start had been handed out before this stay.
    before: u32,
    /// Records that are still on trial.
    trial: usize,
    /// The next attempt of the first record is to be committed before it is made.
    announced: bool,
    /// The last arrival that a commit under way covers.
    asked: u64,
    /// The last arrival that commits cover of which nobody knows whether they hold.
    doubted: u64,
    /// The last place that arrived.
    last: Option<Position>,
    waiters: Vec<(u64, Waiter)>,
}

/// A revocation, in moments: of its grace four fifths are for handlers, the rest for the last
/// commit and the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revoking {
    /// Until when it waits for handlers.
    pub(crate) until: Duration,
    /// Until when it waits for the last commit.
    pub(crate) answer: Duration,
    /// Until when an answer that failed is tried again.
    pub(crate) end: Duration,
    /// Not answered before then: the last try failed.
    pub(crate) not_before: Duration,
    /// The answer is under way.
    pub(crate) answering: bool,
}

impl Revoking {
    pub(crate) fn new(now: Duration, grace: Duration) -> Self {
        Self {
            until: now.saturating_add(grace.saturating_sub(grace / 5)),
            answer: now.saturating_add(grace.saturating_sub(grace / 10)),
            end: now.saturating_add(grace),
            not_before: Duration::ZERO,
            answering: false,
        }
    }
}

impl Stay {
    /// `trial`: records on trial; `None`: attempts do not outlive the stay, and are not committed.
    pub(crate) fn new(
        tenancy: Tenancy,
        from: Frontier,
        attempts: u32,
        trial: Option<usize>,
    ) -> Self {
        Self {
            tenancy,
            gone: Arc::default(),
            handed: 0,
            revoking: None,
            window: Window::new(from),
            committed: (from, attempts),
            committed_id: 0,
            counted: trial.is_some(),
            settled_id: 0,
            before: attempts,
            trial: trial.unwrap_or(0),
            announced: false,
            asked: 0,
            doubted: 0,
            last: from.position().copied(),
            waiters: Vec::new(),
        }
    }

    /// Whether a record at this place can follow what arrived; notes it.
    pub(crate) fn follows(&mut self, position: Position) -> bool {
        let follows = self.last.is_none_or(|last| last < position);
        self.last = Some(position);
        follows
    }

    /// When it can be released, as far as is known now; `None`: it stays.
    pub(crate) fn release_due(&self) -> Option<Duration> {
        let revoking = self.revoking.filter(|revoking| !revoking.answering)?;
        let due = match (self.due(), self.handed) {
            (None, 0) => Duration::ZERO,
            (None, _) => revoking.until,
            (Some(_), _) => revoking.answer,
        };
        Some(due.max(revoking.not_before))
    }

    /// What is due is being committed.
    pub(crate) fn ask(&mut self) {
        self.asked = self.window.covers();
    }

    /// The commit under way was answered so.
    pub(crate) fn answered(&mut self, effect: Effect) {
        let asked = std::mem::take(&mut self.asked);
        if effect != Effect::None {
            self.doubted = self.doubted.max(asked);
        }
    }

    /// Whether what is settled up to this arrival may be committed without anybody knowing.
    pub(crate) fn is_doubted(&self, id: u64) -> bool {
        self.committed_id < id && id <= self.asked.max(self.doubted)
    }

    /// Whether that is so of any.
    pub(crate) fn has_doubts(&self) -> bool {
        self.committed_id < self.asked.max(self.doubted)
    }

    /// A record arrived; says how often it was handed out before.
    pub(crate) fn arrive(&mut self, id: u64, to: Frontier) -> u32 {
        let attempts = std::mem::take(&mut self.before);
        self.window.arrive(id, to, attempts);
        attempts
    }

    /// The frontier moved without a record.
    pub(crate) fn advance(&mut self, id: u64, to: Frontier) {
        self.window.advance(id, to);
    }

    /// Records are gone: the one that had been handed out before is among them. The id to tell it
    /// by; until then nothing behind it is committed.
    pub(crate) fn gap(&mut self, id: u64) -> u64 {
        self.before = 0;
        self.window.gap(id)
    }

    /// The gap is told.
    pub(crate) fn told(&mut self, id: u64) {
        self.window.settle(id);
    }

    /// The ids of what is not settled.
    pub(crate) fn unsettled(&self) -> Vec<u64> {
        self.window.unsettled().collect()
    }

    /// How many settled records wait behind a hole.
    pub(crate) fn behind(&self) -> usize {
        self.window.behind()
    }

    /// Whether this record may be handed out now.
    pub(crate) fn allows(&mut self, id: u64) -> bool {
        if self.revoking.is_some() {
            return false;
        }
        if self.trial == 0 {
            return true;
        }
        let Some(first) = self.window.first().filter(|_| self.handed == 0) else {
            return false;
        };
        if first.id != id {
            // The first waits for its retry or its letter: it did not end the process.
            return first.tried;
        }
        if self.committed == (self.window.at(), first.attempts.saturating_add(1)) {
            return true;
        }
        self.announced = true;
        false
    }

    /// The record is handed out for this attempt.
    pub(crate) fn hand(&mut self, id: u64, attempt: u32) {
        self.handed += 1;
        self.announced = false;
        if let Some(slot) = self.window.slot(id) {
            slot.attempts = attempt;
        }
    }

    /// There is a verdict on the record.
    pub(crate) fn tried(&mut self, id: u64) {
        if let Some(slot) = self.window.slot(id)
            && !slot.tried
        {
            slot.tried = true;
            self.trial = self.trial.saturating_sub(1);
        }
    }

    /// The record is settled.
    pub(crate) fn settle(&mut self, id: u64) {
        self.tried(id);
        if self.window.settle(id) {
            self.settled_id = self.settled_id.max(id);
            self.announced = false;
        }
    }

    /// Whether a commit is needed before anything can go on.
    pub(crate) fn is_urgent(&self) -> bool {
        (self.announced && self.handed == 0)
            || self.revoking.is_some()
            || !self.waiters.is_empty()
            // What continues the partition waits for it.
            || self.window.at().is_ended()
    }

    /// What has not been committed yet.
    pub(crate) fn due(&self) -> Option<Due> {
        let attempts = match self.window.first() {
            Some(first) => first.attempts.saturating_add(u32::from(self.announced)),
            None => self.before,
        };
        let to = self.window.at();
        let (at, made) = self.committed;
        (to != at || (self.counted && attempts != made)).then_some(Due {
            mark: Mark {
                tenancy: self.tenancy,
                to,
                attempts,
            },
            covers: self.window.covers(),
        })
    }

    /// Whether settled records have not been committed yet.
    pub(crate) fn is_ahead(&self) -> bool {
        self.settled_id > self.committed_id
    }

    /// Whether everything of the partition is committed.
    pub(crate) fn is_over(&self) -> bool {
        self.committed.0.is_ended()
    }

    /// The mark holds.
    pub(crate) fn committed(&mut self, due: &Due) {
        self.committed = (due.mark.to, due.mark.attempts);
        self.committed_id = self.committed_id.max(due.covers);
        self.answer(self.committed_id, &Ok(()));
    }

    /// The commit fails and goes on failing: whoever waits for it is told.
    pub(crate) fn fails(&mut self, error: &Error) {
        self.answer(self.window.covers(), &Err(error.clone()));
    }

    fn answer(&mut self, up_to: u64, answer: &Result<()>) {
        for (id, waiter) in std::mem::take(&mut self.waiters) {
            if id <= up_to {
                // Whoever stopped waiting does not want to know.
                let _ = waiter.send(answer.clone());
            } else {
                self.waiters.push((id, waiter));
            }
        }
    }

    /// The last settled arrival that a commit can cover now, and the last that one has covered.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let covers = self.window.covers();
        // A step to where the frontier was already needs no commit.
        let done = self.due().map_or(covers, |_| self.committed_id);
        (covers, done)
    }

    /// Tells `waiter` when the record is committed.
    pub(crate) fn wait_for(&mut self, id: u64, waiter: Waiter) {
        self.waiters.push((id, waiter));
    }

    /// The arrivals whose commit somebody waits for.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiters.iter().map(|(id, _)| *id)
    }

    /// Ends the stay; gives back who still waits, and for which arrival.
    pub(crate) fn end(self) -> Vec<(u64, Waiter)> {
        self.gone.set();
        self.waiters
    }
}
