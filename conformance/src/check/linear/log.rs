//! The final replay, and who wrote each of its records.

use annals_core::Position;

use super::{Window, condition_text, holds};
use crate::check::{Broken, Counts, Evidence, Witness};
use crate::history::{
    Call, Condition, Done, Fate, History, KeyNo, NEVER, Seen, Tick, Value, order,
};

type Place = (u64, [u64; 4], u32);

/// One record of the final replay.
struct Slot<'h> {
    value: Value,
    position: Option<Place>,
    /// The earliest start of a call that offered it and may have stored it, and that call.
    start: Tick,
    call: Option<&'h Call>,
    /// The earliest end of a call that was told that it is stored.
    end: Tick,
    /// Some call may have stored it here: its condition held, or it had none.
    allowed: bool,
    /// The next record is of the same batch under a condition.
    within: bool,
}

pub(super) struct Log<'h> {
    slots: Vec<Slot<'h>>,
    /// By value.
    index: Vec<(Value, u32)>,
    /// By key: its slots.
    keys: Vec<(KeyNo, u32)>,
    /// By state: the first one from it on that is not within a batch.
    outer: Vec<u32>,
}

fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn long(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

impl<'h> Log<'h> {
    pub(super) fn new(last: impl IntoIterator<Item = Seen>) -> Result<Self, Broken> {
        let mut last: Vec<Seen> = last.into_iter().collect();
        last.sort_by_key(|seen| seen.position.as_ref().map(order));
        let mut index: Vec<(Value, u32)> = last
            .iter()
            .enumerate()
            .map(|(slot, seen)| (seen.value, short(slot)))
            .collect();
        index.sort_unstable();
        for pair in index.windows(2) {
            if let [(value, one), (other, two)] = pair
                && value == other
            {
                let both = [one, two]
                    .into_iter()
                    .filter_map(|slot| last.get(long(*slot)));
                return Err(Broken::new("a record is stored twice", both));
            }
        }
        let keyed = last.iter().enumerate();
        let mut keys: Vec<(KeyNo, u32)> = keyed
            .filter_map(|(slot, seen)| Some((seen.value.key?, short(slot))))
            .collect();
        keys.sort_unstable();
        let slots = last.iter().map(|seen| Slot {
            value: seen.value,
            position: seen.position.as_ref().map(order),
            start: NEVER,
            call: None,
            end: NEVER,
            allowed: false,
            within: false,
        });
        Ok(Self {
            slots: slots.collect(),
            index,
            keys,
            outer: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot_of(&self, value: &Value) -> Option<usize> {
        let found = self.index.binary_search_by_key(value, |(value, _)| *value);
        let (_, slot) = self.index.get(found.ok()?)?;
        Some(long(*slot))
    }

    /// The state in which the record at this position is the last one.
    pub(super) fn state_at(&self, position: Option<Position>) -> usize {
        position.map_or(0, |position| {
            let place = Some(order(&position));
            self.slots.partition_point(|slot| slot.position <= place)
        })
    }

    /// The states in which the record at this position is the last one of the key.
    pub(super) fn key_states(
        &self,
        key: KeyNo,
        position: Option<Position>,
    ) -> Option<(usize, usize)> {
        let first = self.keys.partition_point(|(of, _)| *of < key);
        let mine = self.keys.get(first..)?;
        let mine = mine.get(..mine.partition_point(|(of, _)| *of == key))?;
        let end = |next: Option<&(KeyNo, u32)>| next.map_or(self.len(), |(_, slot)| long(*slot));
        let Some(position) = position else {
            return Some((0, end(mine.first())));
        };
        let place = Some(order(&position));
        let found = mine.binary_search_by_key(&place, |(_, slot)| {
            self.slots.get(long(*slot)).and_then(|slot| slot.position)
        });
        let found = found.ok()?;
        let (_, slot) = mine.get(found)?;
        Some((long(*slot) + 1, end(mine.get(found + 1))))
    }

    /// Whether this state lies within a batch under a condition.
    pub(super) fn is_within(&self, state: usize) -> bool {
        let last = state.checked_sub(1).and_then(|slot| self.slots.get(slot));
        last.is_some_and(|slot| slot.within)
    }

    /// The first state from this one on that does not lie within a batch.
    pub(super) fn outer(&self, state: usize) -> usize {
        self.outer.get(state).map_or(state, |outer| long(*outer))
    }

    /// When a record may have been stored.
    pub(super) fn window(&self, slot: usize) -> Option<Window<'h>> {
        let slot = self.slots.get(slot)?;
        Some(Window {
            // Not offered by anybody, or not by a call that could: that is said elsewhere.
            start: if slot.call.is_some() { slot.start } else { 0 },
            end: slot.end,
            call: slot.call,
        })
    }

    /// Takes in an append that was not refused.
    pub(super) fn append(
        &mut self,
        history: &History,
        call: &'h Call,
        condition: Option<&Condition>,
        counts: &mut Counts,
    ) -> Result<(), Broken> {
        let batch = history.batch(call);
        let mut first = None;
        for (number, (value, fate)) in batch.iter().enumerate() {
            let slot = self.slot_of(value);
            let there = match (fate, slot) {
                (Fate::Failed, _) | (Fate::Unknown, None) => continue,
                (Fate::Stored { .. }, None) => {
                    let why = "an acknowledged record is not in the final replay";
                    let what = Witness::of_call(format!("{value} was acknowledged"), call);
                    return Err(Broken::new(why, [what]));
                }
                (_, Some(slot)) => slot,
            };
            if condition.is_some() {
                let expected = if number == 0 {
                    first = Some(there);
                    counts.add(Evidence::Conditional);
                    Some(there)
                } else {
                    first.map(|first| first + number)
                };
                if expected != Some(there) {
                    let what = Witness::of_call(format!("{value} was offered so"), call);
                    return Err(Broken::new(
                        "a batch under a condition is not there in one piece",
                        [what],
                    ));
                }
                if number > 0
                    && let Some(before) = self.slots.get_mut(there - 1)
                {
                    before.within = true;
                }
            }
            let allowed = match condition.filter(|_| number == 0) {
                Some(condition) => {
                    holds(self, condition).is_some_and(|(from, to)| (from..=to).contains(&there))
                }
                None => true,
            };
            let Some(slot) = self.slots.get_mut(there) else {
                continue;
            };
            slot.allowed |= allowed;
            if call.start < slot.start {
                slot.start = call.start;
                slot.call = Some(call);
            }
            if let Fate::Stored { at, .. } = fate {
                if at.is_some_and(|at| slot.position.is_some_and(|is| is != order(&at))) {
                    let what = Witness::of_call(format!("{value} was acknowledged"), call);
                    let why = "an acknowledged record is at another position in the final replay";
                    return Err(Broken::new(why, [what]));
                }
                slot.end = slot.end.min(call.end);
            }
        }
        Ok(())
    }

    /// Every record was stored by a call whose condition held there. Behind all appends.
    pub(super) fn all_allowed(&mut self) -> Result<(), Broken> {
        let wrong = |slot: &&Slot<'_>| slot.call.is_some() && !slot.allowed;
        if let Some(slot) = self.slots.iter().find(wrong) {
            let call = slot.call.map(|call| {
                let condition = match &call.kind {
                    crate::history::Kind::Append { condition, .. } => condition.as_deref(),
                    _ => None,
                };
                let condition = condition.map_or_else(String::new, condition_text);
                Witness::of_call(format!("{} was offered {condition}", slot.value), call)
            });
            return Err(Broken::new(
                "a record was stored behind one that its condition rules out",
                call,
            ));
        }
        let mut outer = vec![0; self.len() + 1];
        let mut next = self.len();
        for state in (0..=self.len()).rev() {
            if !self.is_within(state) {
                next = state;
            }
            if let Some(outer) = outer.get_mut(state) {
                *outer = short(next);
            }
        }
        self.outer = outer;
        Ok(())
    }

    /// No record is there whose every offer failed for certain.
    pub(super) fn none_failed(&self, history: &History) -> Result<(), Broken> {
        for call in history.calls() {
            if !matches!(call.done, Done::Failed | Done::Refused) {
                continue;
            }
            for (value, _) in history.batch(call) {
                let slot = self.slot_of(value).and_then(|slot| self.slots.get(slot));
                if slot.is_some_and(|slot| slot.call.is_none()) {
                    let what = Witness::of_call(format!("{value} was refused"), call);
                    return Err(Broken::new("a refused append had an effect", [what]));
                }
            }
        }
        Ok(())
    }
}
