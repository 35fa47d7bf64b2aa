//! Whether a follower skips or steps back.

use std::collections::BTreeMap;

use annals_core::PartitionId;

use super::{Broken, Counts, Evidence, Found, Witness, has, values};
use crate::history::{Offer, Seen, Signal, Step, order};

/// In each partition a follower is given what the final replay has, one record behind the other,
/// and misses nothing that it was owed.
///
/// `steps` is what it was given, to the markers; `last` the final replay; `owed` what was
/// acknowledged to appends that began after the open ([`History::owed`]). A told gap may be
/// jumped over. Records that lie before the first one left of their partition were trimmed since.
///
/// [`History::owed`]: crate::history::History::owed
pub fn follow<'s, S: IntoIterator<Item = Step<'s>>>(
    steps: S,
    last: impl IntoIterator<Item = Seen>,
    owed: impl IntoIterator<Item = Offer>,
) -> Found {
    let mut counts = Counts::default();
    let mut last: Vec<Seen> = last.into_iter().filter(|s| s.position.is_some()).collect();
    last.sort_by_key(|seen| seen.position.as_ref().map(order));
    last.dedup_by_key(|seen| seen.position);
    let place = |seen: &Seen| {
        let wanted = seen.position.as_ref().map(order);
        last.binary_search_by_key(&wanted, |seen| seen.position.as_ref().map(order))
    };
    let partition = |seen: &Seen| seen.position.map(|position| position.partition());
    // Where each partition's last step was; a gap lifts the demand to be next to it.
    let mut at: BTreeMap<PartitionId, (&Seen, bool)> = BTreeMap::new();
    let mut given = Vec::new();
    for step in steps {
        let seen = match step {
            Step::Seen(seen) => seen,
            Step::Signal(Signal::Gap(partition, ..), _) => {
                counts.add(Evidence::Gaps);
                if let Some((_, gap)) = at.get_mut(partition) {
                    *gap = true;
                }
                continue;
            }
            Step::Signal(..) => continue,
        };
        counts.add(Evidence::Reads);
        given.push(*seen);
        let Some(in_partition) = partition(seen) else {
            continue;
        };
        let before = at.insert(in_partition, (seen, false));
        if let Some((before, _)) = before
            && seen.position <= before.position
        {
            let why = if seen.position == before.position {
                "a follower was given a record twice"
            } else {
                "a follower stepped back"
            };
            return Err(Broken::new(why, [before, seen]));
        }
        let now = match place(seen) {
            Ok(now) => now,
            // Trimmed since: nothing of its partition that is left lies before it.
            Err(next) => {
                let left = next.checked_sub(1).and_then(|before| last.get(before));
                if left.is_some_and(|left| partition(left) == Some(in_partition)) {
                    let why = "a follower was given a record that the final replay does not have";
                    return Err(Broken::new(why, [seen]));
                }
                continue;
            }
        };
        if let Some((before, false)) = before {
            counts.add(Evidence::Steps);
            let expected = match place(before) {
                Ok(place) => place + 1,
                Err(first) => first,
            };
            if let Some(missed) = last.get(expected)
                && expected < now
            {
                let three = [before, seen, missed].map(Witness::from);
                return Err(Broken::new("a follower skipped a record", three));
            }
        }
    }
    let given = values(given);
    for offer in owed {
        counts.add(Evidence::Acknowledged);
        if !has(&given, &offer.value) && counts.of(Evidence::Gaps) == 0 {
            return Err(Broken::new(
                "a follower missed a record that was appended after its open",
                [&offer],
            ));
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, read};
    use super::*;

    fn given(numbers: &[u64]) -> Found {
        let seen = read(numbers.iter().copied());
        follow(
            seen.iter().map(Step::Seen),
            read(0..10),
            log(10).split_off(6),
        )
    }

    #[test]
    fn one_behind_the_other() {
        let counts = given(&[4, 5, 6, 7, 8, 9]).unwrap();
        assert_eq!(counts.of(Evidence::Steps), 5);
        assert_eq!(counts.of(Evidence::Acknowledged), 4);
    }

    #[test]
    fn what_is_skipped_stepped_back_from_or_missed_is_shown() {
        for (numbers, why, shown) in [
            (&[5, 6, 8, 9][..], "skipped", 3),
            (&[5, 6, 5, 6, 7, 8, 9], "stepped back", 2),
            (&[5, 6, 6, 7, 8, 9], "twice", 2),
            (&[7, 8, 9], "missed", 1),
            (&[5, 6, 7], "missed", 1),
            (&[8, 9, 10], "does not have", 1),
        ] {
            let broken = given(numbers).unwrap_err();
            assert!(broken.why.contains(why), "{broken}");
            assert_eq!(broken.evidence.len(), shown, "{broken}");
        }
    }

    #[test]
    fn a_gap_that_was_told_is_no_skip_and_trimmed_records_are_no_phantoms() {
        let seen = read([0, 1, 6, 7]);
        let gap = Signal::Gap(PartitionId::ONLY, None, None);
        let mut steps: Vec<Step<'_>> = seen.iter().map(Step::Seen).collect();
        steps.insert(2, Step::Signal(&gap, 1_500));
        let counts = follow(steps.clone(), read(4..8), []).unwrap();
        assert_eq!(counts.of(Evidence::Gaps), 1);
        steps.remove(2);
        let broken = follow(steps, read(4..8), []).unwrap_err();
        assert!(broken.why.contains("skipped"), "{broken}");
    }
}
