//! Measuring two sides in turn.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of a comparison.
    pub(crate) rounds: usize,
    /// Rounds of a figure that has no other side.
    pub(crate) repeats: usize,
}

impl Effort {
    pub(crate) const fn new(quick: bool) -> Self {
        Self {
            rounds: if quick { 5 } else { 21 },
            repeats: if quick { 3 } else { 9 },
        }
    }
}

/// Records a second, of one side in one round.
#[derive(Clone, Copy)]
pub(crate) struct Rate(pub(crate) f64);

impl Rate {
    pub(crate) fn of(records: usize, took: Duration) -> Self {
        Self(records as f64 / took.as_secs_f64().max(1e-9))
    }
}

/// Times `work` on so many records.
pub(crate) fn timed(records: usize, work: impl FnOnce() -> Result<()>) -> Result<Rate> {
    let since = Instant::now();
    work()?;
    Ok(Rate::of(records, since.elapsed()))
}

/// What both sides did, round by round.
#[derive(Default)]
pub(crate) struct Pairs(Vec<(f64, f64)>);

/// One round to warm up, then `rounds`, who goes first by turns.
pub(crate) fn in_turn(
    rounds: usize,
    mut ours: impl FnMut() -> Result<Rate>,
    mut theirs: impl FnMut() -> Result<Rate>,
) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    for round in 0..=rounds {
        let (o, t) = if round % 2 == 0 {
            let o = ours()?;
            (o, theirs()?)
        } else {
            let t = theirs()?;
            (ours()?, t)
        };
        if round > 0 {
            pairs.0.push((o.0, t.0));
        }
    }
    Ok(pairs)
}

impl Pairs {
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ours(&self) -> Vec<f64> {
        self.0.iter().map(|pair| pair.0).collect()
    }

    pub(crate) fn theirs(&self) -> Vec<f64> {
        self.0.iter().map(|pair| pair.1).collect()
    }

    /// Ours divided by theirs, of each round.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.0.iter().map(|(ours, theirs)| ours / theirs).collect()
    }
}

/// The value that `share` of all are not above; linear between neighbours.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len().saturating_sub(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among the values"
    )]
    let below = place.floor() as usize;
    let at = |index: usize| sorted.get(index).or(sorted.last()).copied();
    let (Some(low), Some(high)) = (at(below), at(below + 1)) else {
        return f64::NAN;
    };
    low + (high - low) * (place - place.floor())
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [3.0, 1.0, 2.0, 4.0];
        assert!((median(&values) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 0.0) - 1.0).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 4.0).abs() < 1e-9);
        assert!((quantile(&values, 0.1) - 1.3).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_first_round_does_not_count_and_the_first_to_go_changes() {
        let order = std::cell::RefCell::new(String::new());
        let pairs = in_turn(
            3,
            || {
                order.borrow_mut().push('o');
                Ok(Rate(6.0))
            },
            || {
                order.borrow_mut().push('t');
                Ok(Rate(3.0))
            },
        )
        .unwrap();
        assert_eq!(order.into_inner(), "ottoottO".to_lowercase());
        assert_eq!(pairs.ratios(), [2.0, 2.0, 2.0]);
    }
}
