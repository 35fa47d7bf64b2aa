//! Saboteurs of *no skip*.

use std::sync::Arc;

use annals_core::driver::{Backend, Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Recorded, Result, Start, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "passes_an_append_in_flight",
        mirrors: "goes on behind the newest record though an older one becomes visible later, as Marten's high-water mark did (#1629)",
        model: Model::Log,
        law: "no_skip",
        make: |acted| Arc::new(Passes(acted)),
    },
    Saboteur {
        name: "goes_on_at_the_end_after_a_failure",
        mirrors: "opens again at the end once a fetch has failed, as consumers do that reconnect with the start they were configured with",
        model: Model::Log,
        law: "no_skip",
        make: |acted| Arc::new(Jumps(acted)),
    },
    Saboteur {
        name: "starts_at_the_first_look",
        mirrors: "finds the end at the first fetch instead of at the open, as a LATEST shard iterator that is asked for lazily does",
        model: Model::Sharded,
        law: "no_skip",
        make: |acted| Arc::new(Lazy(acted)),
    },
    Saboteur {
        name: "a_follower_is_not_woken_by_tombstones",
        mirrors: "leaves out of its live path what has no value, and keeps it in its replay: a feed of changes that filters deletions",
        model: Model::Sharded,
        law: "no_skip",
        make: |acted| Arc::new(NoTombstones(acted)),
    },
];

fn follows(passage: &Passage) -> bool {
    let range = passage.range.as_ref();
    range.is_some_and(|range| range.stop == Stop::Never)
}

fn began_at_a_place(passage: &Passage) -> bool {
    let range = passage.range.as_ref();
    range.is_some_and(|range| range.from.places().any(|(_, at)| at.position().is_some()))
}

#[derive(Debug)]
struct Passes(Acted);

#[async_trait]
impl Hook for Passes {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        // Some at once behind the end that it began at: the first was still in flight.
        if told == Fetched::CaughtUp && passage.passed == 0 && began_at_a_place(passage) {
            passage.mark = 1;
        } else if passage.mark == 1 && follows(passage) && out.len() > before + 2 {
            self.0.mark();
            out.remove(before);
        }
        Ok(told)
    }
}

impl Sabotage for Passes {}

#[derive(Debug)]
struct Jumps(Acted);

#[async_trait]
impl Hook for Jumps {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        if told.is_err() && follows(passage) {
            passage.mark = 1;
        } else if passage.mark == 1 && out.len() > before {
            passage.mark = 0;
            self.0.mark();
            out.truncate(before);
            return Ok(Fetched::Records);
        }
        told
    }
}

impl Sabotage for Jumps {}

#[derive(Debug)]
struct Lazy(Acted);

/// A reader that is opened when it is first looked at.
#[derive(Debug)]
struct Unopened {
    acted: Acted,
    waiting: Box<dyn Reader>,
    skips: bool,
}

#[async_trait]
impl Reader for Unopened {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        while self.skips {
            let mut passed = Vec::new();
            let all = Room {
                records: usize::MAX,
                bytes: usize::MAX,
            };
            let told = tokio::select! {
                biased;
                told = self.waiting.fetch(all, &mut passed) => told?,
                () = std::future::ready(()) => break,
            };
            if !passed.is_empty() {
                self.acted.mark();
            } else if !matches!(told, Fetched::Advanced { .. }) {
                self.skips = told != Fetched::Records;
                return Ok(told);
            }
        }
        self.skips = false;
        self.waiting.fetch(room, out).await
    }

    async fn close(self: Box<Self>, grace: std::time::Duration) -> Result<()> {
        self.waiting.close(grace).await
    }
}

#[async_trait]
impl Hook for Lazy {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let end = below.locate(topic, &Start::Latest).await?;
        let at_the_end = range
            .from
            .places()
            .all(|(id, at)| end.frontier(id) == Some(at));
        let opened = below.read(topic, range).await?;
        Ok(Opened {
            reader: Box::new(Unopened {
                acted: self.0.clone(),
                waiting: opened.reader,
                skips: at_the_end && range.stop == Stop::Never,
            }),
            ..opened
        })
    }
}

impl Sabotage for Lazy {}

#[derive(Debug)]
struct NoTombstones(Acted);

#[async_trait]
impl Hook for NoTombstones {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let live = passage
            .range
            .as_ref()
            .is_some_and(|r| r.stop == Stop::Never);
        loop {
            let had = out.len();
            let told = below.fetch(room, out).await?;
            let before = out.len();
            if live {
                out.retain(|record| !record.is_tombstone());
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

impl Sabotage for NoTombstones {}
