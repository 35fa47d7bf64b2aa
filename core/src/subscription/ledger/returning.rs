//! Tokens: what is held, what has run out, what is given back.

use std::time::Duration;

use super::{Ledger, State};
use crate::driver::{self, Holder, Token};

impl Ledger {
    /// Deliveries to hold on to, with their numbers: until the service has been told what became
    /// of them.
    pub(crate) fn tokens(&self) -> Vec<(u64, Token)> {
        let held = self.entries.iter().filter(|(_, entry)| !entry.lost);
        let held = held.filter_map(|(id, entry)| match entry.holder {
            Holder::Token(token) => Some((*id, token)),
            Holder::Tenancy(_) => None,
        });
        held.chain(self.outbox.tokens()).collect()
    }

    /// A delivery is no longer ours. Its key's followers go back with it: it will come again, and
    /// before them.
    pub(crate) fn expire(&mut self, id: u64, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.lost) else {
            return;
        };
        entry.lost = true;
        entry.gone.set();
        let handed = entry.state == State::Handed;
        let lane = entry.lane.clone();
        let followers = lane.map(|key| self.lanes.behind(&key, id));
        // From the back, so that none of them is handed out meanwhile.
        for other in followers.into_iter().flatten().rev() {
            self.give_back(other, now);
        }
        if !handed {
            self.remove(id, now);
        }
    }

    fn give_back(&mut self, id: u64, now: Duration) {
        let entry = self.entries.get(&id);
        if entry.is_none_or(|entry| entry.state == State::Handed) {
            return;
        }
        let Some(entry) = self.remove(id, now) else {
            return;
        };
        match entry.holder {
            Holder::Token(token) if !entry.lost => {
                self.outbox.push(id, token, driver::Verdict::Return, None);
            }
            Holder::Token(_) => {}
            // It goes back with its partition.
            Holder::Tenancy(_) => self.returned += 1,
        }
    }

    /// Gives back what no handler has; `all`: also what is on its way to the dead letters.
    pub(crate) fn give_all_back(&mut self, all: bool, now: Duration) {
        let entries = self.entries.iter();
        let free = entries.filter(|(_, e)| all || !matches!(e.state, State::Rejected(_)));
        let free: Vec<u64> = free.map(|(id, _)| *id).collect();
        // From the back, so that a key's followers are never offered without it.
        for id in free.into_iter().rev() {
            self.give_back(id, now);
        }
    }

    /// What handlers still have by right, at the end: how many of it go back with their
    /// partitions, and the tokens of the rest.
    pub(crate) fn leftover(&self) -> (u64, Vec<Token>) {
        let held = self.entries.values().filter(|entry| !entry.lost);
        let partitioned = held.filter(|entry| matches!(entry.holder, Holder::Tenancy(_)));
        let tokens = self.tokens().into_iter().map(|(_, token)| token);
        (partitioned.count() as u64, tokens.collect())
    }
}
