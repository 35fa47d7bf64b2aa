//! Saboteurs of *located*.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{AppendReport, Batch, Outcome, Position, Result, Stored, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "one_place_for_a_whole_batch",
        mirrors: "answers every record of a batch with the place of the first, as clients do that do not add the index to Kafka's base offset",
        model: Model::Sharded,
        law: "located",
        make: |acted| Arc::new(BaseOnly(acted)),
    },
    Saboteur {
        name: "counts_the_refused_in",
        mirrors: "finds a record's place by its index in the batch although earlier ones were refused, as base plus index does after a partial failure",
        model: Model::Sharded,
        law: "located",
        make: |acted| Arc::new(CountsRefused(acted)),
    },
    Saboteur {
        name: "counts_from_zero_after_a_restart",
        mirrors: "names places from the beginning again once it was restarted, as a counter in memory does",
        model: Model::Log,
        law: "located",
        make: |acted| Arc::new(FromZero(acted, AtomicU64::new(NEVER))),
    },
    Saboteur {
        name: "the_place_of_what_has_no_value_is_one_off",
        mirrors: "counts places by the bytes of values, of which a null one has none",
        model: Model::Log,
        law: "located",
        make: |acted| Arc::new(NoValue(acted)),
    },
];

/// The report with other receipts.
fn renamed(
    report: AppendReport,
    mut rename: impl FnMut(&Outcome, Position) -> Position,
) -> AppendReport {
    let mut outcomes = report.into_outcomes();
    for outcome in &mut outcomes {
        let Some(position) = outcome.stored().and_then(|stored| stored.position) else {
            rename(outcome, Position::new(annals_core::PartitionId::ONLY, 0));
            continue;
        };
        *outcome = Outcome::Stored(Stored::at(rename(outcome, position)));
    }
    AppendReport::new(outcomes)
}

#[derive(Debug)]
struct BaseOnly(Acted);

#[async_trait]
impl Hook for BaseOnly {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut base = None;
        Ok(renamed(report, |outcome, position| {
            if outcome.stored().is_none() {
                return position;
            }
            let base = *base.get_or_insert(position);
            if base != position {
                self.0.mark();
            }
            base
        }))
    }
}

impl Sabotage for BaseOnly {}

#[derive(Debug)]
struct CountsRefused(Acted);

#[async_trait]
impl Hook for CountsRefused {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut refused = 0;
        Ok(renamed(report, |outcome, position| {
            if matches!(outcome, Outcome::Rejected(_)) {
                refused += 1;
            }
            if outcome.stored().is_none() || refused == 0 {
                return position;
            }
            self.0.mark();
            let [a, b, c, number] = position.number();
            Position::wide(position.partition(), [a, b, c, number + refused], 0)
        }))
    }
}

impl Sabotage for CountsRefused {}

/// It was not restarted yet, or has not appended since.
const NEVER: u64 = u64::MAX;
const RESTARTED: u64 = u64::MAX - 1;

#[derive(Debug)]
struct FromZero(Acted, AtomicU64);

#[async_trait]
impl Hook for FromZero {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        Ok(renamed(report, |_, position| {
            let number = position.number_u64().unwrap_or(0);
            let base = match self.1.load(Ordering::SeqCst) {
                NEVER => return position,
                RESTARTED => {
                    self.1.store(number, Ordering::SeqCst);
                    number
                }
                base => base,
            };
            self.0.mark();
            Position::new(position.partition(), number.saturating_sub(base))
        }))
    }
}

#[async_trait]
impl Sabotage for FromZero {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        if matches!(what, Disturb::Restart | Disturb::Kill) {
            self.1.store(RESTARTED, Ordering::SeqCst);
        }
        below.disturb(topic, what).await
    }
}

#[derive(Debug)]
struct NoValue(Acted);

#[async_trait]
impl Hook for NoValue {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut outcomes = report.into_outcomes();
        for (record, outcome) in batch.records().iter().zip(&mut outcomes) {
            if let (None, Outcome::Stored(stored)) = (record.value_bytes(), outcome)
                && let Some(place) = stored.position
                && let Some(number) = place.number_u64()
            {
                self.0.mark();
                stored.position = Some(Position::new(place.partition(), number + 1));
            }
        }
        Ok(AppendReport::new(outcomes))
    }
}

impl Sabotage for NoValue {}
