//! Whether a key is in its writers' order.

use super::{Broken, Counts, Evidence, Found};
use crate::history::Seen;

/// The first occurrences of what one writer wrote with one key ascend, in the order of `seen`:
/// one reading's, or all a group was handed. Records without a key have no order.
pub fn key_order(seen: impl IntoIterator<Item = Seen>) -> Found {
    let mut counts = Counts::default();
    let mut keyed: Vec<(usize, Seen)> = seen
        .into_iter()
        .filter(|seen| seen.value.key.is_some())
        .enumerate()
        .collect();
    keyed.sort_unstable_by_key(|(place, seen)| (seen.value, *place));
    keyed.dedup_by_key(|(_, seen)| seen.value);
    let lane = |seen: &Seen| (seen.value.writer, seen.value.key);
    keyed.sort_unstable_by_key(|(place, seen)| (lane(seen), *place));
    for pair in keyed.windows(2) {
        if let [(_, one), (_, two)] = pair
            && lane(one) == lane(two)
        {
            counts.add(Evidence::Ascents);
            if one.value.counter > two.value.counter {
                return Err(Broken::new(
                    "a record came behind a later one of its writer and key",
                    [one, two],
                ));
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{seen, v};
    use super::*;

    fn keyed(order: &[(u64, u32)]) -> Vec<Seen> {
        let places = order.iter().zip(0..);
        places
            .map(|((counter, key), n)| seen(v(*counter).keyed(*key), n, n + 1))
            .collect()
    }

    #[test]
    fn first_occurrences_ascend() {
        // Repeats, other keys and records without one may lie anywhere.
        let good = keyed(&[(1, 1), (5, 2), (2, 1), (1, 1), (4, 0), (3, 0), (3, 1)]);
        assert_eq!(key_order(good).unwrap().of(Evidence::Ascents), 2);
    }

    #[test]
    fn a_successor_that_came_first_is_shown() {
        let bad = keyed(&[(1, 1), (3, 1), (9, 2), (2, 1), (3, 1)]);
        let broken = key_order(bad).unwrap_err();
        let shown: Vec<_> = broken.evidence.iter().map(|w| w.start).collect();
        assert_eq!(shown, [2, 4]);
    }
}
