//! Saboteurs of *durable*.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::driver::{AppendOptions, Backend, Fetched, Reader, Room};
use annals_core::{AppendReport, Batch, Outcome, Recorded, Result, Stored, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "forgets_the_last_of_a_batch",
        mirrors: "acknowledges a batch whose last record it did not write, as a buffer that is flushed one short",
        model: Model::Sharded,
        law: "durable",
        make: |acted| Arc::new(OneShort(acted)),
    },
    Saboteur {
        name: "what_has_no_value_is_gone_after_a_restart",
        mirrors: "recovers a log up to records whose value is empty or null and takes those for padding, as scanners do that stop at zeros",
        model: Model::Sharded,
        law: "durable",
        make: |acted| {
            Arc::new(GoneAfterRestart(acted, AtomicBool::new(false), |r| {
                r.value().is_empty()
            }))
        },
    },
    Saboteur {
        name: "what_has_no_key_is_gone_after_a_restart",
        mirrors: "rebuilds its records from the index by key, where those without a key are not",
        model: Model::Log,
        law: "durable",
        make: |acted| {
            Arc::new(GoneAfterRestart(acted, AtomicBool::new(false), |r| {
                r.key().is_none()
            }))
        },
    },
    Saboteur {
        name: "large_records_are_gone_after_a_restart",
        mirrors: "keeps what does not fit a page apart, and forgets to flush that",
        model: Model::Log,
        law: "durable",
        make: |acted| {
            Arc::new(GoneAfterRestart(acted, AtomicBool::new(false), |r| {
                r.value().len() > 4_096
            }))
        },
    },
];

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

/// Once there was a restart such records are read no more.
#[derive(Debug)]
struct GoneAfterRestart(Acted, AtomicBool, fn(&Recorded) -> bool);

#[async_trait]
impl Hook for GoneAfterRestart {
    async fn fetch(
        &self,
        _passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        loop {
            let had = out.len();
            let told = below.fetch(room, out).await?;
            let before = out.len();
            if self.1.load(Ordering::SeqCst) {
                out.retain(|record| !(self.2)(record));
            }
            if out.len() == before {
                return Ok(told);
            }
            self.0.mark();
            if out.len() > had || told != Fetched::Records {
                return Ok(told);
            }
        }
    }
}

#[async_trait]
impl Sabotage for GoneAfterRestart {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> std::result::Result<(), Cannot> {
        if matches!(what, Disturb::Restart | Disturb::Kill) {
            self.1.store(true, Ordering::SeqCst);
        }
        below.disturb(topic, what).await
    }
}
