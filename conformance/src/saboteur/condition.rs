//! Saboteurs of *condition*.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{AppendOptions, Backend, Expect};
use annals_core::{AppendReport, Batch, ErrorKind, Outcome, Result, Start, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "checks_the_condition_then_appends",
        mirrors: "asks whether the condition holds, and appends by a second request: a rival comes between, as with expected versions that are checked by the client",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(CheckThenAppend(acted)),
    },
    Saboteur {
        name: "ignores_conditions_on_a_key",
        mirrors: "takes a condition that it does not know and appends all the same, as services do with headers that they do not know",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(Ignores(acted)),
    },
    Saboteur {
        name: "a_repeat_conflicts_with_itself",
        mirrors: "judges a repeat by its condition before it looks at its ids: the writer whose answer was lost is told that a rival was faster",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(OwnRival(acted)),
    },
    Saboteur {
        name: "a_refusal_leaves_its_records",
        mirrors: "stores a batch and then finds that its condition does not hold, as a check behind the write does",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(Leaves(acted)),
    },
    Saboteur {
        name: "an_atomic_append_forgets_its_condition",
        mirrors: "has a path of its own for transactions, which takes no condition",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(Beside(acted, |options| options.atomic)),
    },
    Saboteur {
        name: "a_fenced_append_forgets_its_condition",
        mirrors: "checks the epoch in place of the condition, as one field of a request that stands for either",
        model: Model::Log,
        law: "condition",
        make: |acted| Arc::new(Beside(acted, |options| options.epoch.is_some())),
    },
];

#[derive(Debug)]
struct CheckThenAppend(Acted);

#[async_trait]
impl Hook for CheckThenAppend {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let Some(Expect::End(end)) = &options.expect else {
            return below.append(topic, batch, options).await;
        };
        let now = below.locate(topic, &Start::Latest).await?;
        if now != *end {
            return below.append(topic, batch, options).await;
        }
        tokio::time::sleep(Duration::from_micros(50)).await;
        if below.locate(topic, &Start::Latest).await? != *end {
            self.0.mark();
        }
        let options = AppendOptions {
            expect: None,
            ..options.clone()
        };
        below.append(topic, batch, &options).await
    }
}

impl Sabotage for CheckThenAppend {}

#[derive(Debug)]
struct Ignores(Acted);

#[async_trait]
impl Hook for Ignores {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let mut options = options.clone();
        if let Some(Expect::KeyAt { last: Some(_), .. }) = options.expect {
            self.0.mark();
            options.expect = None;
        }
        below.append(topic, batch, &options).await
    }
}

impl Sabotage for Ignores {}

/// Without ids and with submissions of its own a repeat is not recognised where a condition is
/// judged first.
#[derive(Debug)]
struct OwnRival(Acted);

#[async_trait]
impl Hook for OwnRival {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if options.expect.is_none() || batch.is_empty() {
            return below.append(topic, batch, options).await;
        }
        // Appended under the same condition, of nobody's id: what a log says that asks it first.
        let report = below.append(topic, batch, options).await?;
        let repeated = |outcome: &Outcome| outcome.stored().is_some_and(|s| s.duplicate);
        if report.outcomes().iter().any(repeated) {
            self.0.mark();
            let conflict = annals_core::Error::new(
                ErrorKind::Conflict,
                annals_core::Effect::None,
                annals_core::Retry::Never,
                "a rival was faster; read again and decide again",
            );
            return Ok(AppendReport::all(batch.len(), &Outcome::Rejected(conflict)));
        }
        Ok(report)
    }
}

impl Sabotage for OwnRival {}

#[derive(Debug)]
struct Leaves(Acted);

#[async_trait]
impl Hook for Leaves {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let refused = |outcome: &Outcome| {
            let error = outcome.error();
            error.is_some_and(|error| error.kind() == ErrorKind::Conflict)
        };
        if batch.len() > 1 && report.outcomes().iter().all(refused) {
            self.0.mark();
            let options = AppendOptions {
                expect: None,
                ..options.clone()
            };
            drop(below.append(topic, batch, &options).await?);
        }
        Ok(report)
    }
}

impl Sabotage for Leaves {}

/// No condition beside another option.
#[derive(Debug)]
struct Beside(Acted, fn(&AppendOptions) -> bool);

#[async_trait]
impl Hook for Beside {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let mut options = options.clone();
        if (self.1)(&options) && options.expect.take().is_some() {
            self.0.mark();
        }
        below.append(topic, batch, &options).await
    }
}

impl Sabotage for Beside {}
