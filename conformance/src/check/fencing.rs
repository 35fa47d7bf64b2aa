//! Whether an old epoch still has an effect.

use super::{Broken, Counts, Evidence, Found};
use crate::history::{Act, Done};

/// What began under an epoch after a newer one had acted neither held nor was seen.
///
/// An epoch has acted once something under it has returned as done.
pub fn fenced(acts: &[Act]) -> Found {
    let mut counts = Counts::default();
    let mut ended: Vec<&Act> = acts.iter().filter(|act| act.done == Done::Ok).collect();
    ended.sort_unstable_by_key(|act| act.end);
    let mut ended = ended.into_iter().peekable();
    let mut begun: Vec<&Act> = acts.iter().collect();
    begun.sort_unstable_by_key(|act| act.start);
    let mut newest: Option<&Act> = None;
    for act in begun {
        counts.add(Evidence::Acts);
        while let Some(done) = ended.next_if(|done| done.end < act.start) {
            if newest.is_none_or(|newest| done.epoch > newest.epoch) {
                newest = Some(done);
            }
        }
        let Some(newer) = newest.filter(|newest| newest.epoch > act.epoch) else {
            continue;
        };
        counts.add(Evidence::Crossings);
        if act.done == Done::Ok || act.seen {
            let why = format!(
                "epoch {} had an effect after epoch {} had acted",
                act.epoch, newer.epoch
            );
            return Err(Broken::new(why, [newer, act]));
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{NEVER, Tick};

    fn act(epoch: u64, start: Tick, end: Tick, done: Done, seen: bool) -> Act {
        Act {
            epoch,
            start,
            end,
            done,
            seen,
        }
    }

    #[test]
    fn the_old_one_is_refused() {
        let acts = [
            act(1, 1, 2, Done::Ok, true),
            // At the same time as the newer one: either order is right.
            act(1, 3, 6, Done::Ok, true),
            act(2, 4, 5, Done::Ok, true),
            act(1, 7, 8, Done::Refused, false),
            act(1, 9, NEVER, Done::Unknown, false),
            act(2, 10, 11, Done::Ok, true),
        ];
        let counts = fenced(&acts).unwrap();
        assert_eq!(counts.of(Evidence::Crossings), 2);
        assert_eq!(counts.of(Evidence::Acts), 6);
    }

    #[test]
    fn an_effect_of_the_old_one_is_shown_whatever_it_was_told() {
        let newer = act(2, 1, 2, Done::Ok, true);
        for old in [
            act(1, 3, 4, Done::Ok, false),
            act(1, 3, 4, Done::Refused, true),
            act(1, 3, NEVER, Done::Unknown, true),
        ] {
            let broken = fenced(&[newer, old]).unwrap_err();
            assert_eq!(broken.evidence.len(), 2, "{broken}");
        }
        // A newer one that failed has not acted.
        let failed = act(2, 1, 2, Done::Failed, false);
        fenced(&[failed, act(1, 3, 4, Done::Ok, true)]).unwrap();
    }
}
