//! Finds each refusal a state in which its condition does not hold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::log::Log;
use super::{Bounds, condition_text, holds};
use crate::check::{Broken, Witness};
use crate::history::{Call, Condition, Tick};

/// Each in the earliest state that is left to it: behind all that had returned before it began,
/// other refusals included. No later state of one leaves more to another.
pub(super) fn place(
    log: &Log<'_>,
    bounds: &Bounds<'_>,
    refused: &mut [(&Call, Condition)],
) -> Result<(), Broken> {
    refused.sort_unstable_by_key(|(call, _)| call.start);
    let mut placed: BinaryHeap<Reverse<(Tick, usize)>> = BinaryHeap::new();
    // The latest state of a refusal that had returned before this one began.
    let mut chain = 0;
    for (call, condition) in refused {
        while let Some(Reverse((end, state))) = placed.peek()
            && *end < call.start
        {
            chain = chain.max(*state);
            placed.pop();
        }
        // What is behind this state, or before it, leaves room for the call.
        let first = bounds.behind.partition_point(|w| w.end < call.start);
        let last = bounds.before.partition_point(|w| w.start <= call.end);
        let mut state = log.outer(first.max(chain));
        if let Some((from, to)) = holds(log, condition)
            && (from..=to).contains(&state)
        {
            state = log.outer(to + 1);
        }
        if state >= last || state > log.len() {
            let what = format!("an append {} was refused", condition_text(condition));
            return Err(Broken::new(
                "an append was refused though its condition held all the time",
                [Witness::of_call(what, call)],
            ));
        }
        placed.push(Reverse((call.end, state)));
    }
    Ok(())
}
