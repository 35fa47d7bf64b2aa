//! Which records go into the next request: the order of keys, and what waits for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::Most;
use crate::batch::Batch;
use crate::record::Record;

/// Whether two records have one key.
pub(super) fn has_repeats(batch: &Batch) -> bool {
    if batch.len() < 2 {
        return false;
    }
    let mut seen = HashSet::with_capacity(batch.len());
    let mut keys = batch.records().iter().filter_map(Record::key_bytes);
    keys.any(|key| !seen.insert(key))
}

/// The records of one append that are not settled: those that may be sent, those that wait for a
/// retry, and behind each the next one of its key, which becomes ready only after it.
#[derive(Debug)]
pub(super) struct Lanes {
    /// May be sent now; the earliest first.
    ready: BinaryHeap<Reverse<usize>>,
    /// Failed, and to be sent again after a pause.
    held: Vec<usize>,
    /// Never to be sent again, and nothing of their key behind them.
    barred: HashSet<usize>,
    /// The next record of the same key.
    next: Vec<Option<usize>>,
    /// Whether a request may carry several records of a key.
    together: bool,
}

impl Lanes {
    pub(super) fn new(batch: &Batch, together: bool) -> Self {
        let mut last = HashMap::with_capacity(batch.len());
        let mut next = vec![None; batch.len()];
        let mut ready = Vec::with_capacity(batch.len());
        for (index, record) in batch.records().iter().enumerate() {
            let before = record.key_bytes().and_then(|key| last.insert(key, index));
            match before.and_then(|before: usize| next.get_mut(before)) {
                Some(next) => *next = Some(index),
                None => ready.push(Reverse(index)),
            }
        }
        Self {
            ready: ready.into(),
            held: Vec::new(),
            barred: HashSet::new(),
            next,
            together,
        }
    }

    /// The next record of the same key.
    pub(super) fn after(&self, index: usize) -> Option<usize> {
        self.next.get(index).copied().flatten()
    }

    /// The next request, in the order of the batch: as many as fit.
    pub(super) fn take(&mut self, batch: &Batch, most: &Most, request: &mut Vec<usize>) {
        request.clear();
        let mut bytes = 0_usize;
        // Those behind a record of this request; what does not fit waits until that is stored.
        let mut behind: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
        loop {
            let from_behind = match (self.ready.peek(), behind.peek()) {
                (Some(ready), Some(behind)) => behind > ready,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => break,
            };
            let from = if from_behind {
                &mut behind
            } else {
                &mut self.ready
            };
            let Some(Reverse(index)) = from.peek().copied() else {
                break;
            };
            let len = batch.records().get(index).map_or(0, Record::len_bytes);
            bytes = bytes.saturating_add(len);
            if !request.is_empty() && (request.len() >= most.records || bytes > most.bytes) {
                break;
            }
            from.pop();
            request.push(index);
            if self.together
                && let Some(next) = self.after(index)
                && !self.barred.contains(&next)
            {
                behind.push(Reverse(next));
            }
        }
    }

    /// Everything has been sent.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
    }

    /// The record may be sent now.
    pub(super) fn ready(&mut self, index: usize) {
        if !self.barred.contains(&index) {
            self.ready.push(Reverse(index));
        }
    }

    /// The record waits for a pause.
    pub(super) fn hold(&mut self, index: usize) {
        self.held.push(index);
    }

    /// What waits for a pause.
    pub(super) fn held(&self) -> &[usize] {
        &self.held
    }

    /// Whether anything that waits may be sent again; `whole`: whether all of it may.
    pub(super) fn any_held(&self, whole: bool) -> bool {
        if whole && !self.barred.is_empty() {
            return false;
        }
        !self.held.is_empty()
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Never sends those of `doubtful` again that are not `covered` now.
    pub(super) fn bar(
        &mut self,
        doubtful: impl Iterator<Item = usize>,
        covered: impl Fn(usize) -> bool,
    ) {
        self.barred
            .extend(doubtful.filter(|index| !covered(*index)));
        if !self.barred.is_empty() {
            self.held.retain(|index| !self.barred.contains(index));
            self.ready
                .retain(|Reverse(index)| !self.barred.contains(index));
        }
    }

    /// The pause is over: what waited may be sent.
    pub(super) fn release(&mut self) {
        self.ready.extend(self.held.drain(..).map(Reverse));
    }
}
