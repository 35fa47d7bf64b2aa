//! Saboteurs that break everything at once: the first that a suite must catch.

use std::sync::Arc;

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{AppendReport, Batch, Error, Outcome, Result, Stored, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "refuses_everything",
        mirrors: "refuses every append that it promised to take: a suite that skips what is refused passes it",
        model: Model::Log,
        law: "durable",
        make: |acted| Arc::new(Refuses(acted)),
    },
    Saboteur {
        name: "does_nothing",
        mirrors: "stores nothing and says Ok: a suite without minimum counts passes it",
        model: Model::Queue,
        law: "durable",
        make: |acted| Arc::new(Nothing(acted)),
    },
];

#[derive(Debug)]
struct Refuses(Acted);

#[async_trait]
impl Hook for Refuses {
    async fn append(
        &self,
        _: &dyn Backend,
        _: &TopicName,
        _: &Batch,
        _: &AppendOptions,
    ) -> Result<AppendReport> {
        self.0.mark();
        Err(Error::unsupported("this backend refuses everything"))
    }
}

impl Sabotage for Refuses {}

#[derive(Debug)]
struct Nothing(Acted);

#[async_trait]
impl Hook for Nothing {
    async fn append(
        &self,
        _: &dyn Backend,
        _: &TopicName,
        batch: &Batch,
        _: &AppendOptions,
    ) -> Result<AppendReport> {
        self.0.mark();
        let stored = Outcome::Stored(Stored::somewhere());
        Ok(AppendReport::all(batch.len(), &stored))
    }
}

impl Sabotage for Nothing {}
