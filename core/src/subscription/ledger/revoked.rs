//! Revocations: each is answered once, whatever becomes of its stay meanwhile.

use std::time::Duration;

use super::Ledger;
use crate::driver::Tenancy;
use crate::subscription::stay::{Revoking, Stay};

impl Ledger {
    /// The stay is to end: nothing more of it is handed out, and once what handlers have is
    /// settled and committed, or their time has come, it is released. One that has ended already
    /// is released at once.
    pub(crate) fn revoking(&mut self, tenancy: Tenancy, grace: Duration, now: Duration) {
        let revoking = Revoking::new(now, grace.min(self.rules.grace));
        let is_over = match self.last(tenancy) {
            // It was revoked before, or the source itself has said that it is lost.
            Some(last) => std::mem::replace(&mut last.answered, true),
            // A later one has taken its place, or it was never assigned, which is answered too.
            None => self.was_assigned(tenancy),
        };
        if is_over {
            tracing::debug!(partition = %tenancy.partition, "the revocation of a stay that is over is left out");
            return;
        }
        let Some(stay) = self.stay(tenancy) else {
            self.owed.insert(tenancy, revoking);
            return;
        };
        stay.revoking = Some(revoking);
        for id in stay.unsettled() {
            self.gaps.remove(&id);
            self.drop_unless_handed(id, now);
        }
    }

    /// The release failed: it is tried again, or, where that is over, the stay ends by itself.
    pub(crate) fn unreleased(&mut self, tenancy: Tenancy, again: Duration) {
        let owed = self.owed.get_mut(&tenancy);
        let stay = self.stays.get_mut(&tenancy.partition);
        let stay = stay.filter(|stay| stay.tenancy == tenancy);
        match owed.or(stay.and_then(|stay| stay.revoking.as_mut())) {
            Some(revoking) if again < revoking.end => {
                revoking.not_before = again;
                revoking.answering = false;
            }
            _ => self.lost(tenancy),
        }
    }

    /// When the next revocation can be answered.
    pub(crate) fn release_due(&self) -> Option<Duration> {
        let owed = self.owed.values().filter(|revoking| !revoking.answering);
        let owed = owed.map(|revoking| revoking.not_before);
        let stays = self.stays.values().filter_map(Stay::release_due);
        stays.chain(owed).min()
    }

    /// When the next revocation must be answered, whatever is under way.
    pub(crate) fn answer_due(&self) -> Option<Duration> {
        let stays = self.stays.values().filter_map(|stay| stay.revoking);
        let all = stays.chain(self.owed.values().copied());
        let waiting = all.filter(|revoking| !revoking.answering);
        waiting.map(|r| r.answer.max(r.not_before)).min()
    }

    /// Revoked stays to release now, and until when that may be tried: each once, until
    /// [`unreleased`](Self::unreleased).
    pub(crate) fn release(&mut self, now: Duration) -> Vec<(Tenancy, Duration)> {
        let stays = self.stays.values_mut();
        let free = stays.filter(|stay| stay.release_due().is_some_and(|due| due <= now));
        let stays = free.filter_map(|stay| {
            let revoking = stay.revoking.as_mut()?;
            Some((stay.tenancy, revoking))
        });
        let owed = self.owed.iter_mut();
        let owed = owed.filter(|(_, revoking)| !revoking.answering && revoking.not_before <= now);
        let owed = owed.map(|(tenancy, revoking)| (*tenancy, revoking));
        let due = stays.chain(owed).map(|(tenancy, revoking)| {
            revoking.answering = true;
            (tenancy, revoking.end)
        });
        due.collect()
    }
}
