//! Partitions that come and go, and what is committed of them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Last, Ledger, State};
use crate::cursor::Frontier;
use crate::driver::Tenancy;
use crate::error::{Effect, Error, Result};
use crate::position::PartitionId;
use crate::subscription::failure::{self, is_over};
use crate::subscription::receive::earlier;
use crate::subscription::stay::{Due, Stay};

/// So many times the in-flight bound may be settled behind one record that is not: that much a
/// crash repeats at worst, and that much is remembered.
pub(super) const WINDOW: usize = 16;

/// What a flush waits for.
#[derive(Debug)]
pub(crate) struct Target {
    /// How far each stay's settled records reach.
    stays: Vec<(Tenancy, u64)>,
    /// The last settlement.
    serial: u64,
}

impl Ledger {
    pub(crate) fn assigned(&mut self, tenancy: Tenancy, from: Frontier, attempts: u32) {
        let trial = match (self.rules.careful, attempts) {
            (false, _) => 0,
            (true, 0) => 2,
            // The last stay ended while this record was in flight: it or one that was in flight
            // with it may have ended the process.
            (true, _) => self.rules.in_flight.records,
        };
        let trial = self.rules.counted.then_some(trial);
        if let Some(old) = self.stays.get(&tenancy.partition) {
            self.lost(old.tenancy);
        }
        let last = Last::new(tenancy);
        self.lasts.insert(tenancy.partition, last);
        let stay = Stay::new(tenancy, from, attempts, trial);
        self.stays.insert(tenancy.partition, stay);
    }

    /// The stay has ended, and the source knows it. Who settles its records now settles nothing.
    pub(crate) fn lost(&mut self, tenancy: Tenancy) {
        self.owed.remove(&tenancy);
        if let Some(last) = self.last(tenancy) {
            last.answered = true;
        }
        if self.stay(tenancy).is_some()
            && let Some(mut stay) = self.stays.remove(&tenancy.partition)
        {
            stay.revoking = None;
            if stay.is_ahead() && stay.gone.tell_once() {
                self.tell(failure::expired(tenancy.partition, stay.has_doubts()));
            }
            self.forget(stay);
        }
    }

    fn forget(&mut self, stay: Stay) {
        if let Some(revoking) = stay.revoking {
            // It ended before that was answered.
            self.owed.insert(stay.tenancy, revoking);
        }
        // Whoever is first in a lane because of this goes with the stay too, or has waited.
        let now = Duration::ZERO;
        for id in stay.unsettled() {
            self.gaps.remove(&id);
            self.drop_unless_handed(id, now);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.lost = true;
            }
        }
        let partition = stay.tenancy.partition;
        let doubted = |id: &u64| stay.is_doubted(*id);
        let doubts: BTreeSet<u64> = stay.waiting().filter(doubted).collect();
        for (id, waiter) in stay.end() {
            let _ = waiter.send(Err(failure::expired(partition, doubts.contains(&id))));
        }
    }

    pub(super) fn drop_unless_handed(&mut self, id: u64, now: Duration) {
        let entry = self.entries.get(&id);
        if entry.is_some_and(|entry| entry.state != State::Handed) {
            self.remove(id, now);
        }
    }

    /// The frontier moved without a record. Not so that of a stay which is to end: records of it
    /// were left out, and the mark must not pass them.
    pub(crate) fn advanced(&mut self, tenancy: Tenancy, to: Frontier, now: Duration) {
        let id = self.id();
        if let Some(stay) = self.live(tenancy) {
            stay.advance(id, to);
            self.touch(now);
        }
    }

    /// The stay, unless it is to end or has ended. A source that has more to say of one that has
    /// ended is held back: it would read on for nobody.
    pub(super) fn live(&mut self, tenancy: Tenancy) -> Option<&mut Stay> {
        if self.stay(tenancy).is_none()
            && let Some(last) = self.last(tenancy)
            && !std::mem::replace(&mut last.stale, true)
            && !last.answered
        {
            tracing::warn!(
                partition = %tenancy.partition,
                "the backend goes on with a partition that this member has lost; it is held back, and what it gave is left to the next holder"
            );
        }
        self.stay(tenancy).filter(|stay| stay.revoking.is_none())
    }

    /// Commit now rather than at the next interval.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// When there is something to tell the service; `None`: there is nothing, for now.
    pub(crate) fn work_due(&self) -> Option<Duration> {
        earlier(self.commit_due(), self.release_due())
    }

    /// When there is something to commit or to settle.
    pub(crate) fn commit_due(&self) -> Option<Duration> {
        if self.urgent || self.outbox.is_due() || self.stays.values().any(is_pressing) {
            return Some(Duration::ZERO);
        }
        let interval = self.rules.commit_interval;
        self.dirty_since.map(|since| since.saturating_add(interval))
    }

    /// The marks to commit now.
    pub(crate) fn marks(&mut self, now: Duration) -> Vec<Due> {
        let interval = self.rules.commit_interval;
        let since = self.dirty_since;
        let all = self.urgent || since.is_some_and(|since| since.saturating_add(interval) <= now);
        if all {
            self.urgent = false;
            self.dirty_since = None;
        }
        let stays = self.stays.values_mut();
        // Nothing is committed beside an answer that ends the stay.
        let stays = stays.filter(|stay| !stay.revoking.is_some_and(|r| r.answering));
        let due = stays.filter(|stay| all || stay.is_urgent());
        due.filter_map(|stay| stay.due().inspect(|_| stay.ask()))
            .collect()
    }

    /// A commit's answer.
    pub(crate) fn committed(&mut self, due: &Due, result: Result<()>) {
        let tenancy = due.mark.tenancy;
        if let Some(stay) = self.stay(tenancy) {
            let over = |e: &Error| is_over(e) || e.effect() == Effect::None;
            let none = result.as_ref().err().is_some_and(over);
            stay.answered(if none { Effect::None } else { Effect::Unknown });
        }
        match result {
            Ok(()) => {
                let Some(stay) = self.stay(tenancy) else {
                    return;
                };
                stay.committed(due);
                if stay.is_over()
                    && let Some(stay) = self.stays.remove(&tenancy.partition)
                {
                    self.forget(stay);
                }
            }
            Err(error) if is_over(&error) => {
                if self.stay(tenancy).is_some()
                    && let Some(stay) = self.stays.remove(&tenancy.partition)
                {
                    if stay.gone.tell_once() {
                        self.tell(error.in_partition(tenancy.partition));
                    }
                    self.forget(stay);
                }
            }
            // As soon as the pause is over: who settled it has waited already.
            Err(_) => self.hurry(),
        }
    }

    /// Commits fail and go on failing: whoever waits for one is told.
    pub(crate) fn commits_fail(&mut self, error: &Error) {
        let error = &failure::still_tried(error);
        for stay in self.stays.values_mut() {
            stay.fails(error);
        }
    }

    /// What a flush that begins now waits for.
    pub(crate) fn target(&self) -> Target {
        let stays = self.stays.values();
        Target {
            stays: stays.map(|s| (s.tenancy, s.progress().0)).collect(),
            serial: self.outbox.serial(),
        }
    }

    /// Whether all of that has been committed and told, or can no longer be.
    pub(crate) fn has_reached(&self, target: &Target) -> bool {
        let committed = target.stays.iter().all(|(tenancy, id)| {
            let stay = self.stays.get(&tenancy.partition);
            stay.filter(|stay| stay.tenancy == *tenancy)
                .is_none_or(|stay| stay.progress().1 >= *id)
        });
        committed && self.outbox.is_told(target.serial)
    }

    /// Partitions whose hold at the source is not as it should be, and whether to hold: one whose
    /// stay has ended is not held any more.
    pub(crate) fn holds(&mut self) -> Vec<(PartitionId, bool)> {
        let changed = self.wrong_holds();
        for (partition, hold) in &changed {
            if *hold {
                self.held.insert(*partition);
            } else {
                self.held.remove(partition);
            }
        }
        changed
    }

    /// Whether [`holds`](Self::holds) has something to say.
    pub(crate) fn has_holds(&self) -> bool {
        !self.wrong_holds().is_empty()
    }

    fn wrong_holds(&self) -> Vec<(PartitionId, bool)> {
        let most = self.rules.in_flight.records.saturating_mul(WINDOW);
        let is_stale = |id: &PartitionId| self.lasts.get(id).is_some_and(|last| last.stale);
        let is_full = |id: &PartitionId| self.stays.get(id).is_some_and(|s| should_hold(s, most));
        let hold = |id: &PartitionId| is_stale(id) || is_full(id);
        let all = self.lasts.keys();
        let begin = all.filter(|id| hold(id) && !self.held.contains(id));
        let end = self.held.iter().filter(|id| !hold(id));
        let begin = begin.map(|id| (*id, true));
        begin.chain(end.map(|id| (*id, false))).collect()
    }
}

fn should_hold(stay: &Stay, most: usize) -> bool {
    stay.revoking.is_some() || stay.behind() >= most
}

/// Whether a stay waits for a commit.
fn is_pressing(stay: &Stay) -> bool {
    let answering = stay.revoking.is_some_and(|revoking| revoking.answering);
    stay.is_urgent() && !answering && stay.due().is_some()
}
