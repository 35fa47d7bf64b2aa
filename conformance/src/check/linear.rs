//! Whether appends, ends and refusals happened one by one, in an order that real time allows.
//!
//! The final replay is the order of the appends, and says which of the unknown ones happened; an
//! append has one place in it, an answer to where the end is one state between two places. A
//! refusal may lie in every state in which its condition does not hold. There is such an order if
//! and only if no call lies behind one that began after it had returned, so it is enough to go
//! through the places once with the latest start so far.

mod log;
mod refusals;

use annals_core::Position;

use super::{Broken, Counts, Evidence, Found, Witness};
use crate::history::{Call, Condition, Done, History, Kind, NEVER, Seen, Tick};
use log::Log;

/// A call with a place in the order: from when to when it may have happened.
#[derive(Clone, Copy)]
struct Window<'h> {
    start: Tick,
    end: Tick,
    /// Whose start that is.
    call: Option<&'h Call>,
}

/// The conditional appends, the other appends, and the answers to where the end is, are
/// linearizable: each took effect at one moment between its start and its end, or, where it was
/// refused or failed, none.
///
/// For topics of one partition; `last` is the final replay of all that was ever stored. A batch
/// under a condition is one step: it is there in one piece, from its first record on. Every value
/// is there once; one that is offered again with the same condition, as after a lost answer, is
/// answered with its first place.
pub fn linear(history: &History, last: impl IntoIterator<Item = Seen>) -> Found {
    let mut counts = Counts::default();
    let mut log = Log::new(last)?;
    let mut refused = Vec::new();
    let mut ends = Vec::new();
    for call in history.calls() {
        match &call.kind {
            Kind::Append { condition, .. } => {
                let condition = condition.as_deref();
                for (_, fate) in history.batch(call) {
                    counts.fate(*fate);
                }
                match (call.done, condition) {
                    (Done::Refused, Some(condition)) => {
                        counts.add(Evidence::Refused);
                        refused.push((call, *condition));
                    }
                    _ => log.append(history, call, condition, &mut counts)?,
                }
            }
            Kind::End(_) if call.done == Done::Ok => {
                for (_, position) in history.ends(call) {
                    counts.add(Evidence::Ends);
                    ends.push((log.state_at(*position), call));
                }
            }
            _ => {}
        }
    }
    log.all_allowed()?;
    log.none_failed(history)?;
    ends.sort_unstable_by_key(|(state, call)| (*state, call.start));
    let bounds = in_order(&log, &ends)?;
    refusals::place(&log, &bounds, &mut refused)?;
    Ok(counts)
}

/// By state: the latest start of all that lies before it, and the earliest end behind it.
struct Bounds<'h> {
    before: Vec<Window<'h>>,
    behind: Vec<Window<'h>>,
}

/// Goes through the order once.
fn in_order<'h>(log: &Log<'h>, ends: &[(usize, &'h Call)]) -> Result<Bounds<'h>, Broken> {
    let mut latest = Window {
        start: 0,
        end: NEVER,
        call: None,
    };
    let check = |latest: &mut Window<'h>, next: Window<'h>| {
        if latest.start > next.end {
            return Err(contradiction(*latest, next));
        }
        if next.start > latest.start {
            *latest = next;
        }
        Ok(())
    };
    let mut before = Vec::with_capacity(log.len() + 1);
    let mut answers = ends.iter().peekable();
    for state in 0..=log.len() {
        if let Some(slot) = state.checked_sub(1)
            && let Some(window) = log.window(slot)
        {
            check(&mut latest, window)?;
        }
        before.push(latest);
        while let Some((_, call)) = answers.next_if(|(at, _)| *at == state) {
            if log.is_within(state) {
                return Err(Broken::new(
                    "the end was said to be within a batch under a condition",
                    [Witness::of_call("the end was asked", call)],
                ));
            }
            check(&mut latest, window_of(call))?;
        }
    }
    let mut earliest = Window {
        start: 0,
        end: NEVER,
        call: None,
    };
    let mut behind = Vec::with_capacity(log.len() + 1);
    let mut answers = ends.iter().rev().peekable();
    for state in (0..=log.len()).rev() {
        if let Some(window) = log.window(state)
            && window.end < earliest.end
        {
            earliest = window;
        }
        behind.push(earliest);
        while let Some((_, call)) = answers.next_if(|(at, _)| *at == state) {
            if call.end < earliest.end {
                earliest = window_of(call);
            }
        }
    }
    behind.reverse();
    Ok(Bounds { before, behind })
}

const fn window_of(call: &Call) -> Window<'_> {
    Window {
        start: call.start,
        end: call.end,
        call: Some(call),
    }
}

/// `first` lies before `second` in the order, and began after it had returned.
fn contradiction(first: Window<'_>, second: Window<'_>) -> Broken {
    let shown = [(first, "before"), (second, "behind")].map(|(window, where_)| {
        let what = match window.call.map(|call| &call.kind) {
            Some(Kind::End(_)) => "an answer to where the end is",
            _ => "an append",
        };
        Witness::new(
            format!("{what} that the final replay puts {where_} the other"),
            window.start,
            window.end,
        )
    });
    Broken::new(
        "of two calls the one that began after the other had returned took effect before it",
        shown,
    )
}

/// The states in which a condition holds, first and last; `None`: none.
fn holds(log: &Log<'_>, condition: &Condition) -> Option<(usize, usize)> {
    match condition {
        Condition::EndAt(position) => {
            let state = log.state_at(*position);
            Some((state, state))
        }
        Condition::KeyAt(key, position) => log.key_states(*key, *position),
    }
}

fn condition_text(condition: &Condition) -> String {
    let place = |position: &Option<Position>| match position {
        Some(position) => position.to_string(),
        None => "nothing".to_owned(),
    };
    match condition {
        Condition::EndAt(position) => format!("if the end is {}", place(position)),
        Condition::KeyAt(key, position) => format!("if {key} is at {}", place(position)),
    }
}

#[cfg(test)]
mod tests;
