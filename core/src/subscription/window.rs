//! The watermark: how far everything of a stay is settled, without a hole.

use std::collections::VecDeque;

use crate::cursor::Frontier;

/// A record, a step of the frontier without one, or a gap, in the order of arrival.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u64,
    /// `None`: a gap, which moves nothing.
    to: Option<Frontier>,
    settled: bool,
    /// How often the record has been handed out.
    pub(super) attempts: u32,
    /// Whether this stay has had a verdict on it: handling it did not end the process.
    pub(super) tried: bool,
}

/// What arrived in one stay and is not below the watermark.
///
/// The watermark is the frontier behind the longest settled beginning: it never passes a record
/// that is not settled, nor a gap that nobody was told, whatever is settled behind that one.
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// Settled ones behind a hole.
    behind: usize,
    at: Frontier,
    covers: u64,
}

impl Window {
    pub(super) const fn new(from: Frontier) -> Self {
        Self {
            slots: VecDeque::new(),
            behind: 0,
            at: from,
            covers: 0,
        }
    }

    /// The watermark.
    pub(super) const fn at(&self) -> Frontier {
        self.at
    }

    /// The last arrival that the watermark covers.
    pub(super) const fn covers(&self) -> u64 {
        self.covers
    }

    /// How many settled ones wait behind a hole.
    pub(super) const fn behind(&self) -> usize {
        self.behind
    }

    /// The first that is not settled.
    pub(super) fn first(&self) -> Option<&Slot> {
        self.slots.front()
    }

    /// The ids of what is not settled, in order.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = u64> {
        let open = self.slots.iter().filter(|slot| !slot.settled);
        open.map(|slot| slot.id)
    }

    pub(super) fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let index = self.slots.binary_search_by_key(&id, |slot| slot.id).ok()?;
        self.slots.get_mut(index)
    }

    /// A record arrived.
    pub(super) fn arrive(&mut self, id: u64, to: Frontier, attempts: u32) {
        self.push(id, Some(to), attempts);
    }

    fn push(&mut self, id: u64, to: Option<Frontier>, attempts: u32) {
        self.slots.push_back(Slot {
            id,
            to,
            settled: false,
            attempts,
            tried: false,
        });
    }

    /// Records are gone: settled once that is told. The id to tell it by: of two in a row the
    /// first, because they are told as one.
    pub(super) fn gap(&mut self, id: u64) -> u64 {
        let last = self.slots.iter().rev().find(|slot| !slot.settled);
        if let Some(untold) = last.filter(|slot| slot.to.is_none()) {
            return untold.id;
        }
        self.push(id, None, 0);
        id
    }

    /// The frontier moved without a record.
    pub(super) fn advance(&mut self, id: u64, to: Frontier) {
        match self.slots.back_mut() {
            // Settled steps in a row are one: an idle partition takes no memory.
            Some(last) if last.settled && last.to.is_some() => {
                last.id = id;
                last.to = Some(to);
            }
            _ => {
                self.arrive(id, to, 0);
                if let Some(last) = self.slots.back_mut() {
                    last.settled = true;
                    self.behind += 1;
                }
            }
        }
        self.pop();
    }

    /// The record is settled, or the gap told; whether it was not before.
    pub(super) fn settle(&mut self, id: u64) -> bool {
        let Some(slot) = self.slot(id).filter(|slot| !slot.settled) else {
            return false;
        };
        slot.settled = true;
        self.behind += 1;
        self.pop();
        true
    }

    fn pop(&mut self) {
        while let Some(first) = self.slots.pop_front_if(|first| first.settled) {
            if let Some(to) = first.to {
                self.at = to;
                self.covers = first.id;
            }
            self.behind = self.behind.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{PartitionId, Position};

    fn after(number: u64) -> Frontier {
        Frontier::after(Position::new(PartitionId::ONLY, number))
    }

    fn window(records: u64) -> Window {
        let mut window = Window::new(Frontier::START);
        for id in 1..=records {
            window.arrive(id, after(id), 0);
        }
        window
    }

    #[test]
    fn the_watermark_stops_at_the_first_hole() {
        let mut window = window(5);
        for id in [2, 3, 5] {
            assert!(window.settle(id));
            assert_eq!(window.at(), Frontier::START);
        }
        assert_eq!(window.behind(), 3);
        assert!(window.settle(1));
        assert_eq!((window.at(), window.covers()), (after(3), 3));
        assert_eq!(window.behind(), 1);
        assert_eq!(window.unsettled().collect::<Vec<_>>(), [4]);
        assert!(window.settle(4));
        assert_eq!((window.at(), window.behind()), (after(5), 0));
        assert!(!window.settle(4), "once");
    }

    #[test]
    fn a_step_without_a_record_waits_for_the_records_before_it() {
        let mut window = window(1);
        window.advance(2, after(7));
        window.advance(3, after(8));
        assert_eq!(window.at(), Frontier::START);
        assert_eq!(window.behind(), 1, "steps in a row are one");
        window.arrive(4, after(9), 0);
        window.settle(1);
        assert_eq!((window.at(), window.covers()), (after(8), 3));
        assert_eq!(window.first().map(|slot| slot.id), Some(4));
    }

    #[test]
    fn a_gap_is_a_hole_until_it_is_told_and_moves_nothing_itself() {
        let mut window = window(1);
        assert_eq!(window.gap(2), 2);
        window.advance(3, after(7));
        assert_eq!(window.gap(4), 2, "nobody has heard of the first");
        window.arrive(5, after(8), 0);
        assert_eq!(window.gap(6), 6);
        window.settle(5);
        window.settle(1);
        assert_eq!((window.at(), window.covers()), (after(1), 1));
        assert!(window.settle(2));
        assert_eq!((window.at(), window.covers()), (after(8), 5));
        assert!(window.settle(6));
        assert_eq!((window.at(), window.covers()), (after(8), 5));
        assert_eq!(window.behind(), 0);
    }

    #[test]
    fn every_order_of_settling_ends_at_the_same_place_and_never_passes_a_hole() {
        // All orders of five, by Lehmer codes.
        for code in 0..120_u32 {
            let mut left: Vec<u64> = (1..=5).collect();
            let mut window = window(5);
            let mut rest = code;
            for size in (1..=5).rev() {
                let id = left.remove((rest % size) as usize);
                rest /= size;
                window.settle(id);
                let hole = left.iter().min().copied();
                let expected = hole.map_or(5, |hole| hole - 1);
                assert_eq!(window.covers(), expected, "order {code}, after {id}");
            }
            assert_eq!(window.at(), after(5));
        }
    }
}
