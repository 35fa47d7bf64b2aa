//! Why something is there, or handed out, twice.

use super::{Broken, Counts, Evidence, Found, Witness};
use crate::history::{Fate, Hold, Offer, Seen, Tick, Value, Verdict, order};

/// Everything that lies at two places was offered by a call whose answer was lost
/// ([`Fate::Unknown`]), or during which a fault fired (`faults`, in order).
///
/// `seen` may hold several readings: one place that was read twice is no repeat. Where positions
/// are not said, everything that was read twice is.
pub fn stored_twice(
    offers: impl IntoIterator<Item = Offer>,
    seen: impl IntoIterator<Item = Seen>,
    faults: &[Tick],
) -> Found {
    let mut counts = Counts::default();
    let mut offers: Vec<Offer> = offers.into_iter().collect();
    offers.sort_unstable_by_key(|offer| (offer.value, offer.start));
    let mut seen: Vec<Seen> = seen.into_iter().collect();
    let place = |seen: &Seen| (seen.value, seen.position.as_ref().map(order));
    seen.sort_by_key(|seen| (place(seen), seen.tick));
    seen.dedup_by(|two, one| place(two) == place(one) && one.position.is_some());
    for pair in seen.windows(2) {
        counts.add(Evidence::Reads);
        let [one, two] = pair else { continue };
        if one.value != two.value {
            continue;
        }
        let mine = of(&offers, one.value);
        let fired = |offer: &Offer| {
            let next = faults.get(faults.partition_point(|tick| *tick < offer.start));
            next.is_some_and(|tick| *tick < offer.end)
        };
        if (mine.iter()).any(|offer| offer.fate == Fate::Unknown || fired(offer)) {
            counts.add(Evidence::Retried);
        } else {
            let offers = mine.iter().map(Witness::from);
            return Err(Broken::new(
                "a record is stored twice though no answer was lost",
                pair.iter().map(Witness::from).chain(offers),
            ));
        }
    }
    Ok(counts)
}

/// The offers of one value.
fn of(offers: &[Offer], value: Value) -> &[Offer] {
    let first = offers.partition_point(|offer| offer.value < value);
    let rest = offers.get(first..).unwrap_or_default();
    let many = rest.partition_point(|offer| offer.value == value);
    rest.get(..many).unwrap_or_default()
}

/// Nothing is handed out once more by a call that began after it was settled as handled.
///
/// `holds` is all that a group was handed ([`History::holds`]). The other repeats are counted by
/// cause: the life or the stay ended; or it was not, or not in time, settled as handled.
///
/// [`History::holds`]: crate::history::History::holds
pub fn delivered_twice(holds: &[Hold]) -> Found {
    let mut counts = Counts::default();
    let what = |hold: &Hold| (hold.seen.value, hold.seen.position.as_ref().map(order));
    let mut holds: Vec<&Hold> = holds.iter().collect();
    holds.sort_by_key(|hold| (what(hold), hold.seen.tick));
    // The earlier delivery of the record at hand whose settlement was the first to hold.
    let mut settled: Option<&Hold> = None;
    let end = |hold: &Hold| hold.settlement.map(|settlement| settlement.end);
    for (place, hold) in holds.iter().enumerate() {
        counts.add(Evidence::Deliveries);
        let before = place.checked_sub(1).and_then(|before| holds.get(before));
        let Some(before) = before.filter(|before| what(before) == what(hold)) else {
            settled = None;
            continue;
        };
        if before.accepted() && settled.is_none_or(|first| end(before) < end(first)) {
            settled = Some(before);
        }
        if let Some(first) = settled
            && end(first).is_some_and(|end| end < hold.seen.asked)
        {
            return Err(Broken::new(
                "a record was handed out again after it had been settled",
                [first, *hold],
            ));
        }
        let back = before.settlement.and_then(|settlement| settlement.verdict);
        let given_back = matches!(back, Some(Verdict::Retry | Verdict::Return));
        counts.add(if before.gone < hold.seen.tick && !given_back {
            Evidence::Crashed
        } else {
            Evidence::Redelivered
        });
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, offer, read, seen, v};
    use super::*;
    use crate::history::{Client, Done, NEVER, Settlement};

    #[test]
    fn a_lost_answer_explains_a_repeat() {
        let twice = || read(0..3).into_iter().chain([seen(v(1), 9, 5_000)]);
        let broken = stored_twice(log(3), twice(), &[]).unwrap_err();
        assert_eq!(broken.evidence.len(), 3, "{broken}");
        let mut offers = log(3);
        offers.push(offer(v(1), Fate::Unknown, 70));
        let counts = stored_twice(offers, twice(), &[]).unwrap();
        assert_eq!(counts.of(Evidence::Retried), 1);
        // The call of 1.1 lies between 3 and 4; a tick is one event's.
        let mut offers = log(3);
        offers[1].end = 6;
        stored_twice(offers.clone(), twice(), &[4]).unwrap();
        stored_twice(offers, twice(), &[2, 8]).unwrap_err();
    }

    #[test]
    fn one_place_read_twice_is_no_repeat() {
        let two = read(0..3).into_iter().chain(read(0..3));
        assert_eq!(
            stored_twice(log(3), two, &[])
                .unwrap()
                .of(Evidence::Retried),
            0
        );
    }

    fn hold(asked: Tick, settlement: Option<(Option<Verdict>, Tick, Done)>, gone: Tick) -> Hold {
        Hold {
            seen: Seen {
                asked,
                ..seen(v(1), 1, asked + 1)
            },
            client: Client(1),
            settlement: settlement.map(|(verdict, start, done)| Settlement {
                verdict,
                start,
                end: start + 1,
                done,
            }),
            gone,
        }
    }

    #[test]
    fn what_was_settled_does_not_return() {
        let done = Some((Some(Verdict::Done), 5, Done::Ok));
        let broken = delivered_twice(&[hold(1, done, 20), hold(30, None, NEVER)]).unwrap_err();
        assert_eq!(broken.evidence.len(), 2, "{broken}");
        // Not with a redelivery in between either.
        let three = [hold(1, done, 20), hold(2, None, 20), hold(30, None, NEVER)];
        delivered_twice(&three).unwrap_err();
        let up_to = Some((None, 5, Done::Ok));
        delivered_twice(&[hold(1, up_to, 20), hold(30, None, NEVER)]).unwrap_err();
    }

    #[test]
    fn repeats_are_counted_by_cause() {
        for (settlement, gone, cause) in [
            (None, 20, Evidence::Crashed),
            (None, NEVER, Evidence::Redelivered),
            (
                Some((Some(Verdict::Retry), 5, Done::Ok)),
                20,
                Evidence::Redelivered,
            ),
            (
                Some((Some(Verdict::Done), 5, Done::Refused)),
                NEVER,
                Evidence::Redelivered,
            ),
            (
                Some((Some(Verdict::Done), 5, Done::Unknown)),
                20,
                Evidence::Crashed,
            ),
            // Asked before the settlement had returned.
            (
                Some((Some(Verdict::Done), 29, Done::Ok)),
                NEVER,
                Evidence::Redelivered,
            ),
        ] {
            let holds = [hold(1, settlement, gone), hold(30, None, NEVER)];
            let counts = delivered_twice(&holds).unwrap();
            assert_eq!(counts.of(cause), 1, "{settlement:?}");
        }
    }
}
