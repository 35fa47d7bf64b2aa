//! Saboteurs of *atomic batch*.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{AppendOptions, Backend, Fetched, Reader, Room, Stop};
use annals_core::{AppendReport, Batch, ErrorKind, Outcome, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "a_batch_is_flushed_by_halves",
        mirrors: "writes a batch in two pieces, each of which is shown at once, and a process that ends between them leaves the first: a buffer that is flushed when it is full",
        model: Model::Log,
        law: "atomic_batch",
        make: |acted| Arc::new(Halves(acted)),
    },
    Saboteur {
        name: "stores_what_is_left_of_a_batch",
        mirrors: "leaves out the record that is too large and stores the others, as batch calls do whose entries fail one by one",
        model: Model::Log,
        law: "atomic_batch",
        make: |acted| Arc::new(LeftOver(acted)),
    },
    Saboteur {
        name: "the_end_lies_within_a_batch",
        mirrors: "ends a reading at a page's edge instead of at a batch's, as readers do that count records and not batches",
        model: Model::Log,
        law: "atomic_batch",
        make: |acted| Arc::new(Within(acted)),
    },
];

#[derive(Debug)]
struct Halves(Acted);

#[async_trait]
impl Hook for Halves {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if batch.len() < 20 || options.expect.is_some() {
            return below.append(topic, batch, options).await;
        }
        self.0.mark();
        let half = batch.len() / 2;
        let first = below.append(topic, &batch.select(0..half), options).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let rest = batch.select(half..batch.len());
        let rest = below.append(topic, &rest, options).await?;
        let outcomes = first.into_outcomes().into_iter();
        Ok(AppendReport::new(
            outcomes.chain(rest.into_outcomes()).collect(),
        ))
    }
}

impl Sabotage for Halves {}

#[derive(Debug)]
struct LeftOver(Acted);

#[async_trait]
impl Hook for LeftOver {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let told = below.append(topic, batch, options).await;
        let error = match &told {
            Err(error) if error.kind() == ErrorKind::TooLarge && options.atomic => error.clone(),
            _ => return told,
        };
        let small = batch.records().iter().enumerate();
        let small = small.filter(|(_, record)| record.len_bytes() <= 1 << 20);
        let small: Vec<usize> = small.map(|(index, _)| index).take(1_000).collect();
        self.0.mark();
        drop(below.append(topic, &batch.select(small), options).await?);
        Ok(AppendReport::all(batch.len(), &Outcome::Rejected(error)))
    }
}

impl Sabotage for LeftOver {}

/// The last record of a whole page is left for the next one, and a reading to the end ends there.
#[derive(Debug)]
struct Within(Acted);

#[async_trait]
impl Hook for Within {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let ends = passage
            .range
            .as_ref()
            .is_some_and(|range| range.stop == Stop::End);
        let before = out.len();
        let told = below.fetch(room, out).await?;
        // A page of a hundred; whoever reads it again sees more.
        let read = passage.passed + out.len() - before;
        if ends && told == Fetched::Records && read % 100 == 99 && passage.mark == 0 {
            passage.mark = 1;
            self.0.mark();
        }
        if passage.mark == 1 {
            out.truncate(before);
            return Ok(Fetched::End);
        }
        Ok(told)
    }
}

impl Sabotage for Within {}
