//! Whether batches are whole.

use super::{Broken, Counts, Evidence, Found, Witness, has, values};
use crate::history::{Offer, Seen};

/// Each reading has all or nothing of every batch that was asked to be atomic.
///
/// Each of `readings` was read to an end: one that was left in mid-batch says nothing.
pub fn atomic<S: IntoIterator<Item = Seen>>(
    offers: impl IntoIterator<Item = Offer>,
    readings: impl IntoIterator<Item = S>,
) -> Found {
    let mut counts = Counts::default();
    let offers: Vec<Offer> = offers.into_iter().filter(|offer| offer.atomic).collect();
    for (number, reading) in readings.into_iter().enumerate() {
        let seen = values(reading);
        for batch in offers.chunk_by(|one, two| one.call == two.call) {
            let (there, gone): (Vec<&Offer>, Vec<&Offer>) =
                batch.iter().partition(|offer| has(&seen, &offer.value));
            if let (Some(one), Some(other)) = (there.first(), gone.first()) {
                return Err(Broken::new(
                    format!(
                        "reading {} of those compared has {} of the {} records of an atomic batch: \
                         {} but not {}",
                        number + 1,
                        there.len(),
                        batch.len(),
                        one.value,
                        other.value
                    ),
                    [*one, *other].map(Witness::from),
                ));
            }
            counts.add(if there.is_empty() {
                Evidence::Nothing
            } else {
                Evidence::Whole
            });
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{log, read};
    use super::*;

    /// Two batches of three.
    fn batches() -> Vec<Offer> {
        let mut offers = log(6);
        for (place, offer) in offers.iter_mut().enumerate() {
            offer.call = place / 3;
            offer.atomic = true;
        }
        offers
    }

    #[test]
    fn all_or_nothing() {
        let readings = [read(0..0), read(0..3), read(0..6)];
        let counts = atomic(batches(), readings).unwrap();
        assert_eq!(counts.of(Evidence::Whole), 3);
        assert_eq!(counts.of(Evidence::Nothing), 3);
    }

    #[test]
    fn a_part_is_shown() {
        for part in [vec![0, 1, 2, 3], vec![0, 1, 2, 5], vec![1, 2]] {
            let broken = atomic(batches(), [read(0..6), read(part)]).unwrap_err();
            assert!(broken.why.starts_with("reading 2"), "{broken}");
            assert_eq!(broken.evidence.len(), 2);
        }
        let mut partial = batches();
        for offer in &mut partial {
            offer.atomic = false;
        }
        atomic(partial, [read([0])]).unwrap();
    }
}
