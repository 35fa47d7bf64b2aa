//! What a service that settles each delivery is still to be told.

use std::collections::BTreeMap;

use super::stay::Waiter;
use crate::driver::{Token, Verdict};

/// One settlement.
#[derive(Debug)]
pub(crate) struct Settlement {
    /// The record's number: of a key the earlier record is told first.
    pub(crate) id: u64,
    pub(crate) token: Token,
    pub(crate) verdict: Verdict,
    pub(crate) waiter: Option<Waiter>,
    /// The how-manieth settlement of the subscription.
    pub(crate) serial: u64,
}

/// Settlements until they are answered.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: BTreeMap<u64, Settlement>,
    /// Being told now: number, serial and token.
    telling: Vec<(u64, u64, Token)>,
    serial: u64,
}

impl Outbox {
    pub(crate) fn push(&mut self, id: u64, token: Token, verdict: Verdict, waiter: Option<Waiter>) {
        self.serial += 1;
        self.waiting.insert(
            id,
            Settlement {
                id,
                token,
                verdict,
                waiter,
                serial: self.serial,
            },
        );
    }

    /// The next ones to tell, at most `most`; they stay noted until they are answered.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Settlement> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((_, next)) = self.waiting.pop_first()
        {
            taken.push(next);
        }
        self.telling = taken.iter().map(|s| (s.id, s.serial, s.token)).collect();
        taken
    }

    /// Those that were taken are answered, save these: they could not be told yet.
    pub(crate) fn answered(&mut self, again: Vec<Settlement>) {
        self.telling.clear();
        self.waiting.extend(again.into_iter().map(|s| (s.id, s)));
    }

    /// Settlements that are not answered.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.telling.len()
    }

    /// Whether there is anything to tell now.
    pub(crate) fn is_due(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of the last settlement so far.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether everything up to that settlement is answered.
    pub(crate) fn is_told(&self, serial: u64) -> bool {
        let waiting = self.waiting.values().map(|s| s.serial);
        let telling = self.telling.iter().map(|(_, serial, _)| *serial);
        waiting.chain(telling).all(|other| other > serial)
    }

    /// Deliveries that must be held on to until their settlement is answered.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (u64, Token)> {
        let waiting = self.waiting.values().map(|s| (s.id, s.token));
        let telling = self.telling.iter().map(|(id, _, token)| (*id, *token));
        waiting.chain(telling)
    }

    /// Everything that waits, to fail it.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Settlement> + use<> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u64) -> Token {
        Token { epoch: 1, slot }
    }

    #[test]
    fn what_is_not_answered_stays_noted_in_order_and_is_held() {
        let mut outbox = Outbox::default();
        for id in [7, 3, 5] {
            outbox.push(id, token(id), Verdict::Done, None);
        }
        let mut batch = outbox.take(2);
        let ids: Vec<u64> = batch.iter().map(|s| s.id).collect();
        assert_eq!(ids, [3, 5], "by record, not by settlement");
        assert_eq!(outbox.len(), 3);
        assert_eq!(outbox.tokens().count(), 3, "also while they are told");
        outbox.answered(vec![batch.remove(1)]);
        assert_eq!(outbox.len(), 2);
        let ids: Vec<u64> = outbox.take(9).iter().map(|s| s.id).collect();
        assert_eq!(ids, [5, 7]);
    }

    #[test]
    fn a_flush_waits_for_what_was_settled_before_it_alone() {
        let mut outbox = Outbox::default();
        outbox.push(9, token(9), Verdict::Done, None);
        let target = outbox.serial();
        outbox.push(1, token(1), Verdict::Done, None);
        assert!(!outbox.is_told(target));
        let batch = outbox.take(9);
        assert!(!outbox.is_told(target), "it is being told");
        outbox.answered(batch.into_iter().filter(|s| s.id == 1).collect());
        assert!(outbox.is_told(target));
        assert!(!outbox.is_told(outbox.serial()));
    }
}
