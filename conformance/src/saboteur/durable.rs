//! Saboteurs of *durable*.

use std::sync::Arc;

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{AppendReport, Batch, Outcome, Result, Stored, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[Saboteur {
    name: "forgets_the_last_of_a_batch",
    mirrors: "acknowledges a batch whose last record it did not write, as a buffer that is flushed one short",
    model: Model::Sharded,
    law: "durable",
    make: |acted| Arc::new(OneShort(acted)),
}];

#[derive(Debug)]
struct OneShort(Acted);

#[async_trait]
impl Hook for OneShort {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let Some(last) = batch.len().checked_sub(1).filter(|last| *last > 0) else {
            return below.append(topic, batch, options).await;
        };
        self.0.mark();
        let report = below.append(topic, &batch.select(0..last), options).await?;
        let mut outcomes = report.into_outcomes();
        outcomes.push(Outcome::Stored(Stored::somewhere()));
        Ok(AppendReport::new(outcomes))
    }
}

impl Sabotage for OneShort {}
