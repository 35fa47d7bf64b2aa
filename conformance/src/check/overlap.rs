//! Whether a key is in two hands.

use super::{Broken, Counts, Evidence, Found};
use crate::history::{Hold, Tick};

/// Two clients hold a key at a time only where the earlier one's settlement does not hold.
///
/// `holds` is all that a group was handed ([`History::holds`]). A hold lasts from the answer that
/// gave it to the sending of its settlement; one whose stay has ended, but whose settlement was
/// accepted, lasts to that all the same. Several records of a key at one client are its own affair.
///
/// [`History::holds`]: crate::history::History::holds
pub fn overlap(holds: &[Hold]) -> Found {
    let mut counts = Counts::default();
    let mut keyed: Vec<&Hold> = holds.iter().filter(|hold| hold.key().is_some()).collect();
    keyed.sort_unstable_by_key(|hold| (hold.key(), hold.seen.tick));
    for holds in keyed.chunk_by(|one, two| one.key() == two.key()) {
        // The hold that lasts longest so far, and the one that lasts longest of other clients':
        // once for those whose settlement holds, once for all.
        let mut accepted = Longest::default();
        let mut all = Longest::default();
        for hold in holds {
            counts.add(Evidence::Deliveries);
            let now = hold.seen.tick;
            if let Some((earlier, until)) = accepted.beside(hold)
                && until > now
            {
                return Err(Broken::new(
                    "a key was handed to one client while another, whose settlement was then \
                     accepted, held it",
                    [earlier, *hold],
                ));
            }
            if all.beside(hold).is_some_and(|(_, until)| until > now) {
                counts.add(Evidence::Overlaps);
            }
            if let Some(settlement) = hold.settlement.filter(|_| hold.accepted()) {
                accepted.take(hold, settlement.start);
            }
            all.take(hold, hold.until());
        }
    }
    Ok(counts)
}

/// The longest hold, and the longest one of another client than that.
#[derive(Default)]
struct Longest<'h>(Option<(&'h Hold, Tick)>, Option<(&'h Hold, Tick)>);

impl<'h> Longest<'h> {
    fn beside(&self, hold: &Hold) -> Option<(&'h Hold, Tick)> {
        let other = |of: &(&Hold, Tick)| of.0.client != hold.client;
        self.0.filter(other).or(self.1.filter(other))
    }

    fn take(&mut self, hold: &'h Hold, until: Tick) {
        let longer = |than: Option<(&Hold, Tick)>| than.is_none_or(|(_, than)| until > than);
        if longer(self.0) {
            if self.0.is_some_and(|(of, _)| of.client != hold.client) {
                self.1 = self.0;
            }
            self.0 = Some((hold, until));
        } else if self.0.is_some_and(|(of, _)| of.client != hold.client) && longer(self.1) {
            self.1 = Some((hold, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{seen, v};
    use super::*;
    use crate::history::{Client, Done, NEVER, Settlement, Verdict};

    fn hold(client: u32, key: u32, from: Tick, settled: Option<(Tick, Done)>, gone: Tick) -> Hold {
        Hold {
            seen: seen(v(from).keyed(key), from, from),
            client: Client(client),
            settlement: settled.map(|(start, done)| Settlement {
                verdict: Some(Verdict::Done),
                start,
                end: start + 1,
                done,
            }),
            gone,
        }
    }

    #[test]
    fn one_hand_at_a_time() {
        let holds = [
            hold(1, 1, 1, Some((5, Done::Ok)), NEVER),
            hold(1, 1, 2, Some((4, Done::Ok)), NEVER),
            hold(2, 2, 3, Some((9, Done::Ok)), NEVER),
            hold(2, 1, 6, Some((8, Done::Ok)), NEVER),
            // Lost in a crash: no overlap, though never settled.
            hold(1, 2, 10, None, 11),
            hold(2, 2, 12, Some((14, Done::Ok)), NEVER),
        ];
        let counts = overlap(&holds).unwrap();
        assert_eq!(counts.of(Evidence::Overlaps), 0);
        assert_eq!(counts.of(Evidence::Deliveries), 6);
    }

    #[test]
    fn an_overlap_is_allowed_where_the_earlier_settlement_is_refused() {
        let later = hold(2, 1, 3, Some((6, Done::Ok)), NEVER);
        for earlier in [
            hold(1, 1, 1, Some((5, Done::Refused)), NEVER),
            hold(1, 1, 1, None, NEVER),
        ] {
            assert_eq!(
                overlap(&[earlier, later]).unwrap().of(Evidence::Overlaps),
                1
            );
        }
    }

    #[test]
    fn an_accepted_settlement_of_the_earlier_hand_is_shown() {
        let later = hold(2, 1, 3, Some((6, Done::Ok)), NEVER);
        for earlier in [
            hold(1, 1, 1, Some((5, Done::Ok)), NEVER),
            // A zombie's, after its stay was lost.
            hold(1, 1, 1, Some((7, Done::Ok)), 2),
        ] {
            let broken = overlap(&[earlier, later]).unwrap_err();
            assert_eq!(broken.evidence.len(), 2, "{broken}");
        }
        // Behind a longer one of the later hand's own.
        let holds = [
            hold(1, 1, 1, Some((8, Done::Ok)), NEVER),
            hold(2, 1, 2, Some((20, Done::Refused)), NEVER),
            hold(2, 1, 3, Some((30, Done::Refused)), NEVER),
        ];
        overlap(&holds).unwrap_err();
    }
}
