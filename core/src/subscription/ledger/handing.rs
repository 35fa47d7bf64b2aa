//! What is handed out, and what handlers say of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Ledger, State};
use crate::defaults;
use crate::driver::{self, Holder};
use crate::recorded::Recorded;
use crate::subscription::failure;
use crate::subscription::gone::Gone;
use crate::subscription::stay::Waiter;
use crate::subscription::verdict::Verdict;

/// What `next` hands out.
#[derive(Debug)]
pub(crate) struct Handout {
    pub(crate) id: u64,
    pub(crate) record: Recorded,
    pub(crate) attempt: u32,
    pub(crate) gone: Arc<Gone>,
    pub(crate) holder: Holder,
}

impl Ledger {
    /// The oldest record that may be handed out now.
    pub(crate) fn hand(&mut self, now: Duration) -> Option<Handout> {
        if self.closing {
            return None;
        }
        self.wake(now);
        let id = self.next_ready()?;
        self.ready.remove(&id);
        let entry = self.entries.get_mut(&id)?;
        entry.state = State::Handed;
        entry.spared = false;
        entry.attempts = entry.attempts.saturating_add(1);
        let handout = Handout {
            id,
            record: entry.record.clone(),
            attempt: entry.attempts,
            gone: Arc::clone(&entry.gone),
            holder: entry.holder,
        };
        self.handed.records += 1;
        self.handed.bytes += handout.record.len_bytes();
        if let Holder::Tenancy(tenancy) = handout.holder
            && let Some(stay) = self.stay(tenancy)
        {
            stay.hand(id, handout.attempt);
        }
        Some(handout)
    }

    pub(super) fn next_ready(&mut self) -> Option<u64> {
        let limit = self.rules.in_flight;
        for id in &self.ready {
            let Some(entry) = self.entries.get(id) else {
                continue;
            };
            let bytes = self.handed.bytes + entry.record.len_bytes();
            let first = self.handed.records == 0;
            if self.handed.records >= limit.records || (bytes > limit.bytes && !first) {
                return None;
            }
            let allowed = match entry.holder {
                Holder::Token(_) => true,
                Holder::Tenancy(tenancy) => self
                    .stays
                    .get_mut(&tenancy.partition)
                    .is_some_and(|stay| stay.allows(*id)),
            };
            if allowed {
                return Some(*id);
            }
        }
        None
    }

    /// A handler's verdict on a record that it had; `waiter` is told when it holds.
    pub(crate) fn settle(
        &mut self,
        id: u64,
        verdict: Verdict,
        waiter: Option<Waiter>,
        now: Duration,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.state != State::Handed {
            return;
        }
        self.handed.records = self.handed.records.saturating_sub(1);
        self.handed.bytes = self.handed.bytes.saturating_sub(entry.record.len_bytes());
        if entry.lost {
            self.settle_late(id, &verdict, waiter, now);
            return;
        }
        if let Holder::Tenancy(tenancy) = entry.holder
            && let Some(stay) = self.stay(tenancy)
        {
            stay.handed = stay.handed.saturating_sub(1);
            stay.tried(id);
        }
        match verdict {
            Verdict::Done => self.done(id, waiter, now),
            Verdict::Retry { after, reason } => self.again(id, after, reason, now),
            Verdict::Reject { reason } => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.reason = Some(reason);
                    entry.state = State::Rejected(now);
                    self.rejected.insert((now, id));
                }
            }
        }
    }

    /// The right to it has ended: the verdict has no effect, and who said `Done` is told.
    fn settle_late(&mut self, id: u64, verdict: &Verdict, waiter: Option<Waiter>, now: Duration) {
        let Some(entry) = self.remove(id, now) else {
            return;
        };
        let error = match entry.holder {
            Holder::Tenancy(tenancy) => failure::expired(tenancy.partition, false),
            Holder::Token(_) => failure::late(),
        };
        if let Some(waiter) = waiter {
            let _ = waiter.send(Err(error));
        } else if *verdict == Verdict::Done && entry.gone.tell_once() {
            self.tell(error);
        }
    }

    pub(super) fn done(&mut self, id: u64, waiter: Option<Waiter>, now: Duration) {
        let Some(entry) = self.remove(id, now) else {
            return;
        };
        match entry.holder {
            Holder::Token(token) => {
                self.outbox.push(id, token, driver::Verdict::Done, waiter);
            }
            Holder::Tenancy(tenancy) => {
                if let Some(stay) = self.stay(tenancy) {
                    stay.settle(id);
                    if let Some(waiter) = waiter {
                        stay.wait_for(id, waiter);
                    }
                    self.touch(now);
                }
            }
        }
    }

    pub(super) fn again(
        &mut self,
        id: u64,
        after: Option<Duration>,
        reason: Option<String>,
        now: Duration,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.reason = reason.or_else(|| entry.reason.take());
        let after = after.unwrap_or(defaults::REDELIVERY_DELAY);
        let after = self.rules.hold_most.map_or(after, |most| after.min(most));
        let limit = self.rules.max_attempts;
        let at_limit = !entry.spared && limit.is_some_and(|limit| entry.attempts >= limit);
        // A revoked stay waits for its handlers only: the next holder hands this one out again.
        let leaving = self.closing
            || match entry.holder {
                Holder::Token(_) => false,
                Holder::Tenancy(tenancy) => {
                    let stay = self.stays.get(&tenancy.partition);
                    stay.is_none_or(|stay| stay.revoking.is_some())
                }
            };
        match entry.holder {
            _ if at_limit && !leaving => {
                entry.state = State::Waiting;
                self.present(id, now);
            }
            // Where no order is to be kept the service itself can keep the delay.
            Holder::Token(token) if entry.lane.is_none() || leaving => {
                self.remove(id, now);
                let verdict = driver::Verdict::Retry { after };
                self.outbox.push(id, token, verdict, None);
            }
            Holder::Tenancy(_) if leaving => {
                self.remove(id, now);
                self.returned += u64::from(self.closing);
            }
            _ => {
                let at = now.saturating_add(after);
                entry.state = State::Later(at);
                self.later.insert((at, id));
            }
        }
    }

    /// Retries whose time has come can be handed out.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some((at, id)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.state = State::Waiting;
            }
            self.present(id, now);
        }
    }

    /// When the next retry can be handed out.
    pub(crate) fn retry_due(&self) -> Option<Duration> {
        self.later.first().map(|(at, _)| *at)
    }
}
