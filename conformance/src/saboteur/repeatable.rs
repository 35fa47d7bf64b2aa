//! Saboteurs of *repeatable*.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_core::driver::{AppendOptions, Backend, Fetched, Reader, Room, Stop};
use annals_core::{AppendReport, Batch, Frontier, Record, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "an_empty_fetch_ends_the_replay",
        mirrors: "takes an answer without records for the end, as doris did of Kinesis (#67874)",
        model: Model::Sharded,
        law: "repeatable",
        make: |acted| Arc::new(EmptyEnds(acted)),
    },
    Saboteur {
        name: "pages_shift_when_others_append",
        mirrors: "skips a record when something was appended between two pages, as paging by an offset from the newest does",
        model: Model::Log,
        law: "repeatable",
        make: |acted| Arc::new(Shifts(acted, AtomicUsize::new(0))),
    },
    Saboteur {
        name: "a_full_page_repeats_its_edge",
        mirrors: "hands out the last record of a page of a thousand again with the next one, as inclusive continuation tokens do",
        model: Model::Log,
        law: "repeatable",
        make: |acted| Arc::new(Edge(acted)),
    },
    Saboteur {
        name: "ids_are_lost_from_the_middle",
        mirrors: "reads the rest of a segment by a path that knows no ids, as readers do whose first page is decoded apart",
        model: Model::Sharded,
        law: "repeatable",
        make: |acted| Arc::new(OtherPath(acted)),
    },
];

#[derive(Debug)]
struct EmptyEnds(Acted);

#[async_trait]
impl Hook for EmptyEnds {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        if matches!(told, Fetched::Advanced { .. }) {
            self.0.mark();
            return Ok(Fetched::End);
        }
        Ok(told)
    }
}

impl Sabotage for EmptyEnds {}

#[derive(Debug)]
struct Shifts(Acted, AtomicUsize);

#[async_trait]
impl Hook for Shifts {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.1.fetch_add(1, Ordering::SeqCst);
        below.append(topic, batch, options).await
    }

    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        let bounded = passage
            .range
            .as_ref()
            .is_some_and(|range| matches!(range.stop, Stop::Through(_)));
        let appended = self.1.load(Ordering::SeqCst);
        if bounded && passage.fetches > 1 && passage.mark < appended && before < out.len() {
            self.0.mark();
            out.remove(before);
        }
        passage.mark = appended;
        Ok(told)
    }
}

impl Sabotage for Shifts {}

#[derive(Debug)]
struct Edge(Acted);

#[async_trait]
impl Hook for Edge {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        if let Some(edge) = passage.kept.pop() {
            out.push(edge);
        }
        let told = below.fetch(room, out).await?;
        if out.len() - before >= 1_000 {
            self.0.mark();
            passage.kept.extend(out.last().cloned());
        }
        Ok(told)
    }
}

impl Sabotage for Edge {}

#[derive(Debug)]
struct OtherPath(Acted);

#[async_trait]
impl Hook for OtherPath {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let had = out.len();
        let told = below.fetch(room, out).await?;
        let after = |(_, at): (_, &Frontier)| matches!(at, Frontier::After { .. });
        let range = passage.range.as_ref();
        if range.is_some_and(|range| range.from.places().any(after)) {
            for read in out.iter_mut().skip(had).filter(|read| read.id().is_some()) {
                self.0.mark();
                let whole = read.clone().into_record();
                let key = whole.key_bytes().cloned();
                let record = Record::new(whole.value_bytes().cloned());
                let record = record.headers(whole.header_list().clone());
                let record = match key {
                    Some(key) => record.key(key),
                    None => record,
                };
                *read = Recorded::of(&record, read.position(), read.stored_at())?;
            }
        }
        Ok(told)
    }
}

impl Sabotage for OtherPath {}
