//! The oracle of [`linear`](super::linear()): tries every order (Wing and Gong's search with Lowe's
//! memo), on histories of at most 64 calls.

use std::collections::BTreeSet;

use annals_core::Position;

use crate::history::{Call, Condition, Done, Fate, History, Kind, NEVER, Seen, Value};

struct Search<'h> {
    history: &'h History,
    calls: Vec<&'h Call>,
    /// What the log must be in the end.
    last: Vec<(Value, Position)>,
    tried: BTreeSet<(u64, usize)>,
}

/// Whether there is an order of all calls that real time allows, that explains every answer, and
/// that leaves the final replay.
pub(super) fn linearizable(history: &History, last: &[Seen]) -> bool {
    let calls = history.calls().iter();
    let calls = calls.filter(|call| match call.kind {
        Kind::Append { .. } => true,
        Kind::End(_) => call.done == Done::Ok,
        _ => false,
    });
    let mut search = Search {
        history,
        calls: calls.collect(),
        last: last
            .iter()
            .map(|seen| (seen.value, seen.position.unwrap()))
            .collect(),
        tried: BTreeSet::new(),
    };
    assert!(search.calls.len() <= 64);
    search.from(0, 0)
}

impl Search<'_> {
    /// From here: these calls have happened, and the log is this long. It is always a beginning of
    /// what it is in the end: nothing is ever taken away.
    fn from(&mut self, happened: u64, length: usize) -> bool {
        if !self.tried.insert((happened, length)) {
            return false;
        }
        let open = |place: &usize| happened & (1 << place) == 0;
        let left: Vec<usize> = (0..self.calls.len()).filter(open).collect();
        // What is unknown need not have happened.
        let must = |place: &&usize| self.calls[**place].done != Done::Unknown;
        if length == self.last.len() && !left.iter().any(|place| must(&place)) {
            return true;
        }
        let returned = |place: &usize| self.calls[*place].end;
        let earliest = left
            .iter()
            .filter(must)
            .map(returned)
            .min()
            .unwrap_or(NEVER);
        for place in left {
            let call = self.calls[place];
            if call.start > earliest {
                continue;
            }
            for length in self.after(call, length) {
                if self.from(happened | 1 << place, length) {
                    return true;
                }
            }
        }
        false
    }

    fn meets(&self, condition: Option<&Condition>, length: usize) -> bool {
        let log = &self.last[..length];
        match condition {
            None => true,
            Some(Condition::EndAt(at)) => log.last().map(|(_, position)| *position) == *at,
            Some(Condition::KeyAt(key, at)) => {
                let mine = log.iter().rev().find(|(value, _)| value.key == Some(*key));
                mine.map(|(_, position)| *position) == *at
            }
        }
    }

    /// How long the log may be after this call, if it may happen now at all.
    fn after(&self, call: &Call, length: usize) -> Vec<usize> {
        let Kind::Append { condition, .. } = &call.kind else {
            let at = self.history.ends(call)[0].1;
            let is = length.checked_sub(1).map(|last| self.last[last].1);
            return Vec::from_iter((at == is).then_some(length));
        };
        let meets = self.meets(condition.as_deref(), length);
        let batch = self.history.batch(call);
        let there = |value: &Value| self.last[..length].iter().any(|(is, _)| is == value);
        let at = |value: &Value, fate: &Fate| match fate {
            Fate::Stored { at: Some(at), .. } => self.last.contains(&(*value, *at)),
            _ => true,
        };
        let all_at = batch.iter().all(|(value, fate)| at(value, fate));
        let again = batch.iter().all(|(value, _)| there(value));
        let next = self.last.get(length..length + batch.len());
        // Nothing is there twice.
        let first = !batch.iter().any(|(value, _)| there(value));
        let fits = next.filter(|_| first).is_some_and(|next| {
            next.iter()
                .map(|(value, _)| value)
                .eq(batch.iter().map(|(value, _)| value))
        });
        let mut after = Vec::new();
        match call.done {
            Done::Ok if again && all_at => after.push(length),
            Done::Ok if fits && all_at && meets => after.push(length + batch.len()),
            Done::Refused if !meets => after.push(length),
            Done::Failed => after.push(length),
            Done::Unknown => {
                after.push(length);
                if fits && meets {
                    after.push(length + batch.len());
                }
            }
            _ => {}
        }
        after
    }
}
