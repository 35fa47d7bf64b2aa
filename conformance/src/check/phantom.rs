//! What is there and should not be.

use super::{Broken, Counts, Evidence, Found, Witness};
use crate::history::{Fate, Offer, Seen, Strange, Tick, Value};

/// By value: when it was first offered.
fn first_offers(offers: &[Offer]) -> Vec<(Value, Tick)> {
    let mut first: Vec<(Value, Tick)> = offers.iter().map(|o| (o.value, o.start)).collect();
    first.sort_unstable();
    first.dedup_by_key(|(value, _)| *value);
    first
}

/// Everything seen was offered, and before it was seen.
pub fn phantom<'s, S: IntoIterator<Item = &'s Strange>>(
    offers: impl IntoIterator<Item = Offer>,
    seen: impl IntoIterator<Item = Seen>,
    strange: S,
) -> Found {
    if let Some(strange) = strange.into_iter().next() {
        return Err(Broken::new(
            "a record was read that nobody wrote",
            [strange],
        ));
    }
    let mut counts = Counts::default();
    let offers: Vec<Offer> = offers.into_iter().collect();
    for offer in &offers {
        counts.fate(offer.fate);
    }
    let first = first_offers(&offers);
    for seen in seen {
        counts.add(Evidence::Reads);
        let found = first.binary_search_by_key(&seen.value, |(value, _)| *value);
        match found.ok().and_then(|place| first.get(place)) {
            None => return Err(Broken::new("a record was read that nobody wrote", [&seen])),
            Some((_, start)) if *start > seen.tick => {
                let offer = offers.iter().find(|offer| offer.start == *start);
                let both = std::iter::once(Witness::from(&seen)).chain(offer.map(Witness::from));
                return Err(Broken::new("a record was read before it was written", both));
            }
            Some(_) => {}
        }
    }
    Ok(counts)
}

/// Nothing was seen whose every offer failed for certain.
pub fn rejected(
    offers: impl IntoIterator<Item = Offer>,
    seen: impl IntoIterator<Item = Seen>,
) -> Found {
    let mut counts = Counts::default();
    // Behind each other by value, those that did not fail first.
    let mut offers: Vec<(Value, bool, Offer)> = offers
        .into_iter()
        .map(|offer| (offer.value, offer.fate == Fate::Failed, offer))
        .collect();
    offers.sort_unstable_by_key(|(value, failed, offer)| (*value, *failed, offer.start));
    for (_, _, offer) in &offers {
        counts.fate(offer.fate);
    }
    for seen in seen {
        counts.add(Evidence::Reads);
        let place = offers.partition_point(|(value, ..)| *value < seen.value);
        if let Some((value, true, offer)) = offers.get(place)
            && *value == seen.value
        {
            return Err(Broken::new(
                "a record was read whose writer was told that it is not stored",
                [Witness::from(offer), Witness::from(&seen)],
            ));
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, offer, read, seen, v};
    use super::*;
    use crate::history::Reading;

    #[test]
    fn what_was_offered_may_be_read_whatever_was_said() {
        let mut offers = log(3);
        offers.push(offer(v(3), Fate::Unknown, 50));
        let counts = phantom(offers, read(0..4), []).unwrap();
        assert_eq!(counts.of(Evidence::Reads), 4);
    }

    #[test]
    fn what_nobody_wrote_is_named() {
        let broken = phantom(log(3), read([0, 7]), []).unwrap_err();
        assert!(broken.to_string().contains("given 1.7 at 0@7"), "{broken}");
        let early = [seen(v(2), 2, 4)];
        let broken = phantom(log(3), early, []).unwrap_err();
        assert_eq!(broken.evidence.len(), 2, "{broken}");
        let strange = Strange {
            position: None,
            reading: Reading(1),
            tick: 9,
            text: "control".into(),
        };
        let broken = phantom(log(3), read(0..3), [&strange]).unwrap_err();
        assert!(broken.to_string().contains("\"control\""), "{broken}");
    }

    #[test]
    fn another_key_is_another_value() {
        let broken = phantom(log(1), [seen(v(0).keyed(4), 0, 99)], []).unwrap_err();
        assert!(broken.to_string().contains("1.0 k4"), "{broken}");
    }

    #[test]
    fn what_failed_is_not_read_unless_it_was_offered_again() {
        let mut offers = log(3);
        offers.push(offer(v(3), Fate::Failed, 50));
        assert_eq!(
            rejected(offers.clone(), read(0..3))
                .unwrap()
                .of(Evidence::Failed),
            1
        );
        let broken = rejected(offers.clone(), read(0..4)).unwrap_err();
        assert_eq!(broken.evidence.len(), 2, "{broken}");
        offers.push(offer(v(3), Fate::Unknown, 60));
        rejected(offers, read(0..4)).unwrap();
    }
}
