//! What was acknowledged and is not there.

use std::collections::BTreeMap;

use super::{Broken, Counts, Evidence, Found, Witness, has, values};
use crate::history::{Fate, Offer, Seen, order};

/// Everything acknowledged is among what was seen.
///
/// `seen` is a reading to its end or to the markers; for a group all its members' lives, dead
/// letters included. What is lost is said to be the prefix, the middle or the suffix of what its
/// partition acknowledged, by positions; where none are said, by the order of acknowledgement.
pub fn lost(
    offers: impl IntoIterator<Item = Offer>,
    seen: impl IntoIterator<Item = Seen>,
) -> Found {
    let mut counts = Counts::default();
    let seen = values(seen);
    let mut acknowledged: Vec<Offer> = Vec::new();
    for offer in offers {
        counts.fate(offer.fate);
        if matches!(offer.fate, Fate::Stored { .. }) {
            acknowledged.push(offer);
        }
    }
    let lost = acknowledged
        .iter()
        .filter(|offer| !has(&seen, &offer.value));
    let Some(first) = lost.clone().next() else {
        counts.0.insert(
            Evidence::Reads,
            u64::try_from(seen.len()).unwrap_or(u64::MAX),
        );
        return Ok(counts);
    };
    let partition = |offer: &Offer| match offer.fate {
        Fate::Stored { at, .. } => at.map(|at| at.partition()),
        _ => None,
    };
    let mut beside: Vec<&Offer> = acknowledged
        .iter()
        .filter(|offer| partition(offer) == partition(first))
        .collect();
    beside.sort_by_key(|offer| match offer.fate {
        Fate::Stored { at: Some(at), .. } => (order(&at), offer.end),
        _ => ((0, [0; 4], 0), offer.end),
    });
    let gone: Vec<bool> = beside
        .iter()
        .map(|offer| !has(&seen, &offer.value))
        .collect();
    let mut per_part: BTreeMap<bool, usize> = BTreeMap::new();
    for gone in &gone {
        *per_part.entry(*gone).or_default() += 1;
    }
    let here = per_part.get(&true).copied().unwrap_or(0);
    let begins = gone.iter().take_while(|gone| **gone).count();
    let ends = gone.iter().rev().take_while(|gone| **gone).count();
    let part = match here {
        all if all == beside.len() => "the whole",
        all if all == begins => "the prefix",
        all if all == ends => "the suffix",
        _ => "the middle",
    };
    let all = lost.clone().count();
    let why = format!(
        "{all} of {} acknowledged records are lost, {part} of {} that were acknowledged{}",
        acknowledged.len(),
        beside.len(),
        partition(first).map_or_else(String::new, |p| format!(" in partition {p}")),
    );
    Err(Broken::new(why, lost.map(Witness::from)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, offer, read, v};
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let mut offers = log(10);
        offers.push(offer(v(10), Fate::Unknown, 50));
        offers.push(offer(v(11), Fate::Failed, 60));
        let counts = lost(offers, read(0..10)).unwrap();
        assert_eq!(counts.of(Evidence::Acknowledged), 10);
        assert_eq!(counts.of(Evidence::Unknown), 1);
        assert_eq!(counts.of(Evidence::Failed), 1);
        assert_eq!(counts.of(Evidence::Reads), 10);
        assert_eq!(
            counts.to_string(),
            "10 acknowledged, 1 unknown, 1 failed, 10 reads"
        );
    }

    #[test]
    fn what_is_lost_is_named_by_its_part() {
        for (there, part) in [
            (vec![2, 3, 4], "the prefix"),
            (vec![0, 3, 4], "the middle"),
            (vec![0, 1, 2], "the suffix"),
            (vec![1, 2, 3], "the middle"),
            (vec![], "the whole"),
        ] {
            let broken = lost(log(5), read(there)).unwrap_err();
            assert!(broken.why.contains(part), "{broken}");
        }
        let broken = lost(log(5), read([0, 1, 2, 4])).unwrap_err();
        assert_eq!(
            broken.to_string(),
            "1 of 5 acknowledged records are lost, the middle of 5 that were acknowledged in \
             partition 0\n  [7 .. 8] client 1 was told that 1.3 is stored at 0@3"
        );
    }
}
