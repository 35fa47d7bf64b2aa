//! Saboteurs of *outcome per record*.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{
    AppendReport, Batch, Effect, Error, ErrorKind, Outcome, Result, Retry, Stored, TopicName,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "failed_entries_are_ignored",
        mirrors: "takes the answer to a batch for the answer to each of its entries, as omniqueue did with those that SQS lists as Failed",
        model: Model::Sharded,
        law: "outcome_per_record",
        make: |acted| Arc::new(FailedIgnored(acted)),
    },
    Saboteur {
        name: "a_lost_answer_is_called_none",
        mirrors: "says of a request whose answer was lost that it had no effect, as clients do that take every time-out for a failure",
        model: Model::Log,
        law: "outcome_per_record",
        make: |acted| Arc::new(LostIsNone(acted)),
    },
    Saboteur {
        name: "everything_is_unknown",
        mirrors: "never says that anything is stored, which is safe and of no use: fire and forget with a receipt",
        model: Model::Queue,
        law: "outcome_per_record",
        make: |acted| Arc::new(AllUnknown(acted)),
    },
    Saboteur {
        name: "outcomes_in_the_order_of_their_arrival",
        mirrors: "gives the outcomes of a request in another order than its records, as clients do that do not match the entries of an answer by their ids",
        model: Model::Sharded,
        law: "outcome_per_record",
        make: |acted| Arc::new(Shuffled(acted)),
    },
    Saboteur {
        name: "what_was_refused_goes_with_the_next_request",
        mirrors: "keeps what was refused in its buffer and sends it with the next batch, though its writer was told that it failed",
        model: Model::Queue,
        law: "outcome_per_record",
        make: |acted| Arc::new(PutAside(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_lost_answer_to_one_record_is_called_none",
        mirrors: "takes the time-out of a request of one record for a failure, and of a larger one for what it is: two paths, of which one was thought of",
        model: Model::Sharded,
        law: "outcome_per_record",
        make: |acted| Arc::new(OneIsNone(acted)),
    },
];

#[derive(Debug)]
struct FailedIgnored(Acted);

#[async_trait]
impl Hook for FailedIgnored {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let taken = |outcome| match outcome {
            Outcome::Rejected(_) => {
                self.0.mark();
                Outcome::Stored(Stored::somewhere())
            }
            other => other,
        };
        let outcomes = report.into_outcomes().into_iter().map(taken);
        Ok(AppendReport::new(outcomes.collect()))
    }
}

impl Sabotage for FailedIgnored {}

#[derive(Debug)]
struct LostIsNone(Acted);

#[async_trait]
impl Hook for LostIsNone {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let taken = |outcome| match outcome {
            Outcome::Unknown(_) => {
                self.0.mark();
                Outcome::Rejected(failed())
            }
            other => other,
        };
        let outcomes = report.into_outcomes().into_iter().map(taken);
        Ok(AppendReport::new(outcomes.collect()))
    }
}

impl Sabotage for LostIsNone {}

fn failed() -> Error {
    Error::new(
        ErrorKind::Timeout,
        Effect::None,
        Retry::Never,
        "the request took too long; try again",
    )
}

#[derive(Debug)]
struct AllUnknown(Acted);

#[async_trait]
impl Hook for AllUnknown {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let taken = |outcome| match outcome {
            Outcome::Stored(_) => {
                self.0.mark();
                Outcome::Unknown(failed().with_effect(Effect::Unknown))
            }
            other => other,
        };
        let outcomes = report.into_outcomes().into_iter().map(taken);
        Ok(AppendReport::new(outcomes.collect()))
    }
}

impl Sabotage for AllUnknown {}

#[derive(Debug)]
struct Shuffled(Acted);

#[async_trait]
impl Hook for Shuffled {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut outcomes = report.into_outcomes();
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_));
        if outcomes.iter().any(refused) && !outcomes.iter().all(refused) {
            self.0.mark();
            // The failures were answered first.
            outcomes.sort_by_key(|outcome| !refused(outcome));
            outcomes.rotate_left(1);
        }
        Ok(AppendReport::new(outcomes))
    }
}

impl Sabotage for Shuffled {}

#[derive(Debug)]
struct PutAside(Acted, Mutex<Option<Batch>>);

#[async_trait]
impl Hook for PutAside {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let aside = {
            let mut aside = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            aside.take()
        };
        if let Some(aside) = aside {
            self.0.mark();
            drop(below.append(topic, &aside, options).await?);
        }
        let report = below.append(topic, batch, options).await?;
        let refused = report.outcomes().iter().enumerate();
        let refused = refused.filter(|(_, outcome)| matches!(outcome, Outcome::Rejected(_)));
        let refused: Vec<usize> = refused.map(|(index, _)| index).collect();
        if !refused.is_empty() {
            let mut aside = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            *aside = Some(batch.select(refused));
        }
        Ok(report)
    }
}

impl Sabotage for PutAside {}

#[derive(Debug)]
struct OneIsNone(Acted);

#[async_trait]
impl Hook for OneIsNone {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut outcomes = report.into_outcomes();
        if let [Outcome::Unknown(error)] = outcomes.as_slice() {
            self.0.mark();
            let error = error.clone().with_effect(Effect::None);
            outcomes = vec![Outcome::Rejected(error)];
        }
        Ok(AppendReport::new(outcomes))
    }
}

impl Sabotage for OneIsNone {}
