//! Records on their way to the dead letters.

use std::time::Duration;

use super::{Ledger, State};
use crate::recorded::Recorded;

/// A record on its way to the dead letters.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) id: u64,
    pub(crate) record: Recorded,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

impl Ledger {
    /// The rejected record whose time has come first.
    pub(crate) fn letter(&self, now: Duration) -> Option<Letter> {
        let (_, id) = self.rejected.first().filter(|(at, _)| *at <= now)?;
        let entry = self.entries.get(id)?;
        Some(Letter {
            id: *id,
            record: entry.record.clone(),
            attempts: entry.attempts,
            reason: entry.reason.clone().unwrap_or_default(),
        })
    }

    /// When the next rejected record is due.
    pub(crate) fn letter_due(&self) -> Option<Duration> {
        self.rejected.first().map(|(at, _)| *at)
    }

    /// Whether this one still waits for its letter.
    pub(crate) fn is_rejected(&self, id: u64) -> bool {
        let rejected = |state| matches!(state, State::Rejected(_));
        self.entries.get(&id).is_some_and(|e| rejected(e.state))
    }

    /// The letter is stored: the record is settled.
    pub(crate) fn buried(&mut self, id: u64, now: Duration) {
        if self.is_rejected(id) {
            self.done(id, None, now);
        }
    }

    /// The letter could not be stored: the record stays unsettled until it is.
    pub(crate) fn unburied(&mut self, id: u64, at: Duration) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let State::Rejected(was) = entry.state
        {
            self.rejected.remove(&(was, id));
            entry.state = State::Rejected(at);
            self.rejected.insert((at, id));
        }
    }

    /// There is nowhere for the letter to go: the record is handed out again after the default
    /// delay, whatever its attempts.
    pub(crate) fn reprieve(&mut self, id: u64, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let State::Rejected(was) = entry.state {
            self.rejected.remove(&(was, id));
            entry.state = State::Waiting;
            entry.spared = true;
            self.again(id, None, None, now);
        }
    }
}
