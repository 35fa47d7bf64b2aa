//! Whether a place stays what it was, and is what was said.

use super::{Broken, Counts, Evidence, Found, Witness};
use crate::history::{Fate, Offer, Seen, order};

/// By place, then by time.
fn by_place(seen: impl IntoIterator<Item = Seen>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = seen.into_iter().filter(|s| s.position.is_some()).collect();
    seen.sort_by_key(|s| (s.position.as_ref().map(order), s.tick));
    seen
}

/// One place holds one value: over readings, members and restarts.
pub fn stable(seen: impl IntoIterator<Item = Seen>) -> Found {
    let mut counts = Counts::default();
    let seen = by_place(seen);
    for pair in seen.windows(2) {
        counts.add(Evidence::Reads);
        if let [one, two] = pair
            && one.position == two.position
        {
            counts.add(Evidence::Compared);
            if one.value != two.value {
                return Err(Broken::new("one position holds two values", [one, two]));
            }
        }
    }
    Ok(counts)
}

/// What was acknowledged at a place was seen there, and nothing else was.
///
/// `seen` is a reading of all that was acknowledged, less what was trimmed before its first record.
pub fn located(
    offers: impl IntoIterator<Item = Offer>,
    seen: impl IntoIterator<Item = Seen>,
) -> Found {
    let mut counts = Counts::default();
    let seen = by_place(seen);
    for offer in offers {
        let Fate::Stored { at: Some(at), .. } = offer.fate else {
            continue;
        };
        let place = seen.partition_point(|s| {
            s.position
                .as_ref()
                .is_some_and(|position| order(position) < order(&at))
        });
        match seen.get(place) {
            Some(there) if there.position == Some(at) => {
                counts.add(Evidence::Compared);
                if there.value != offer.value {
                    return Err(Broken::new(
                        "another record is at the position that was acknowledged",
                        [Witness::from(&offer), Witness::from(there)],
                    ));
                }
            }
            // Before the first record of its partition that is left: it was trimmed.
            next => {
                let mine = |s: &Seen| s.position.is_some_and(|p| p.partition() == at.partition());
                let before = place.checked_sub(1).and_then(|before| seen.get(before));
                let next = next.filter(|next| mine(next));
                let before = before.filter(|before| mine(before));
                if next.is_none() || before.is_some() {
                    let beside = before.into_iter().chain(next).map(Witness::from);
                    return Err(Broken::new(
                        "there is no record at the position that was acknowledged",
                        std::iter::once(Witness::from(&offer)).chain(beside),
                    ));
                }
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, read, seen, v};
    use super::*;

    #[test]
    fn readings_agree() {
        let twice = read(0..5).into_iter().chain(read(2..7));
        assert_eq!(stable(twice).unwrap().of(Evidence::Compared), 3);
        let moved = read(0..5).into_iter().chain([seen(v(9), 3, 2_000)]);
        let broken = stable(moved).unwrap_err();
        assert_eq!(
            broken.to_string(),
            "one position holds two values\n  [1003] reading 0 was given 1.3 at 0@3\n  \
             [2000] reading 0 was given 1.9 at 0@3"
        );
    }

    #[test]
    fn records_are_where_they_were_said_to_be() {
        assert_eq!(
            located(log(5), read(0..5)).unwrap().of(Evidence::Compared),
            5
        );
        // Trimmed.
        assert_eq!(
            located(log(5), read(2..5)).unwrap().of(Evidence::Compared),
            3
        );
        let base = [seen(v(0), 0, 9), seen(v(2), 1, 9), seen(v(1), 2, 9)];
        let broken = located(log(3), base).unwrap_err();
        assert!(broken.why.starts_with("another record"), "{broken}");
        for hole in [vec![0, 1, 3], vec![0, 1, 2], vec![]] {
            let broken = located(log(4), read(hole)).unwrap_err();
            assert!(broken.why.starts_with("there is no record"), "{broken}");
        }
    }
}
