//! Whether a follower tells truly when it has caught up.

use super::{Broken, Counts, Evidence, Found, Witness};
use crate::history::{Fate, Offer, Signal, Step, Tick, Value};

/// `CaughtUp` comes once, after everything that was acknowledged before the open was asked for,
/// and nothing comes twice.
///
/// `steps` is what one reading from the beginning was given; `opened` is when its open began.
pub fn seam<'s, S: IntoIterator<Item = Step<'s>>>(
    steps: S,
    offers: impl IntoIterator<Item = Offer>,
    opened: Tick,
) -> Found {
    let mut counts = Counts::default();
    let mut caught_up = None;
    let mut before: Vec<Value> = Vec::new();
    let mut given = Vec::new();
    for step in steps {
        match step {
            Step::Seen(seen) => {
                counts.add(Evidence::Reads);
                given.push(*seen);
                if caught_up.is_none() {
                    before.push(seen.value);
                } else {
                    counts.add(Evidence::Behind);
                }
            }
            Step::Signal(Signal::CaughtUp, tick) => {
                if let Some(first) = caught_up {
                    let both = [first, tick].map(|at| Witness::new("it has caught up", at, at));
                    return Err(Broken::new("a reading caught up twice", both));
                }
                caught_up = Some(tick);
            }
            Step::Signal(..) => {}
        }
    }
    let by_value = |s: &crate::history::Seen| (s.value, s.position.map(|p| (p.number(), p.sub())));
    given.sort_by_key(|seen| (by_value(seen), seen.tick));
    for pair in given.windows(2) {
        if let [one, two] = pair
            && by_value(one) == by_value(two)
        {
            return Err(Broken::new("a reading was given a record twice", pair));
        }
    }
    let Some(tick) = caught_up else {
        let open = Witness::new("the reading was opened", opened, opened);
        return Err(Broken::new("a reading never caught up", [open]));
    };
    before.sort_unstable();
    for offer in offers {
        if !matches!(offer.fate, Fate::Stored { .. }) || offer.end > opened {
            continue;
        }
        counts.add(Evidence::Before);
        if before.binary_search(&offer.value).is_err() {
            let signal = Witness::new("the reading was told that it had caught up", tick, tick);
            return Err(Broken::new(
                "a reading caught up without a record that was acknowledged before its open",
                [Witness::from(&offer), signal],
            ));
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, read};
    use super::*;

    /// Reads `numbers` of ten, of which six were acknowledged before the open; caught up before
    /// each of these places.
    fn given(numbers: &[u64], caught_up: &[usize]) -> Found {
        let seen = read(numbers.iter().copied());
        let mut steps: Vec<Step<'_>> = Vec::new();
        for place in 0..=seen.len() {
            for _ in caught_up.iter().filter(|at| **at == place) {
                steps.push(Step::Signal(&Signal::CaughtUp, 1_000 + place as u64));
            }
            steps.extend(seen.get(place).map(Step::Seen));
        }
        seam(steps, log(10), 12)
    }

    #[test]
    fn once_and_not_too_early() {
        for place in [6, 7, 10] {
            let counts = given(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[place]).unwrap();
            assert_eq!(counts.of(Evidence::Before), 6);
            assert_eq!(counts.of(Evidence::Behind), 10 - place as u64);
        }
    }

    #[test]
    fn what_is_wrong_at_the_seam_is_shown() {
        let all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        for (broken, why) in [
            (given(&all, &[5]), "without a record"),
            (given(&all, &[0]), "without a record"),
            (given(&all, &[6, 9]), "caught up twice"),
            (given(&all, &[]), "never"),
            (
                given(&[0, 1, 2, 3, 4, 5, 5, 6], &[6]),
                "given a record twice",
            ),
        ] {
            let broken = broken.unwrap_err();
            assert!(broken.why.contains(why), "{broken}");
        }
    }
}
