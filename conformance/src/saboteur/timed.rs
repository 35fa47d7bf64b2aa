//! Saboteurs of *timed*.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Backend, Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Frontier, Recorded, Result, Timestamp, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "starts_at_the_chunk",
        mirrors: "starts at the chunk that holds the moment, as a RabbitMQ stream does (stream client #222)",
        model: Model::Sharded,
        law: "timed",
        make: |acted| Arc::new(Chunk(acted)),
    },
    Saboteur {
        name: "takes_the_end_in",
        mirrors: "reads what is stamped with the end of the range too, as a comparison with ≤ does",
        model: Model::Log,
        law: "timed",
        make: |acted| Arc::new(Inclusive(acted)),
    },
    Saboteur {
        name: "goes_by_the_writers_clock",
        mirrors: "compares the moment with the writer's timestamp instead of the log's, as Kafka does with CreateTime",
        model: Model::Sharded,
        law: "timed",
        make: |acted| Arc::new(WritersClock(acted)),
    },
    Saboteur {
        name: "a_moment_is_no_end_behind_a_place",
        mirrors: "takes the stop from the kind of its start: from behind a record it reads to the end",
        model: Model::Log,
        law: "timed",
        make: |acted| Arc::new(EndAfterPlace(acted)),
    },
];

#[derive(Debug)]
struct Chunk(Acted);

#[async_trait]
impl Hook for Chunk {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        for (partition, at) in range.from.clone().places() {
            if let Frontier::Since(time) = at
                && *time > Timestamp::MIN
            {
                self.0.mark();
                let chunk = time.saturating_sub(Duration::from_millis(4));
                range.from.set(partition, Frontier::Since(chunk));
            }
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Chunk {}

#[derive(Debug)]
struct Inclusive(Acted);

#[async_trait]
impl Hook for Inclusive {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        if let Stop::Before(time) = range.stop {
            self.0.mark();
            range.stop = Stop::Before(time.saturating_add(Duration::from_millis(1)));
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Inclusive {}

#[derive(Debug)]
struct WritersClock(Acted);

#[async_trait]
impl Hook for WritersClock {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        let since = passage
            .range
            .as_ref()
            .and_then(|range| match range.from.places().next() {
                Some((_, Frontier::Since(time))) if *time > Timestamp::MIN => Some(*time),
                _ => None,
            });
        if let Some(since) = since {
            out.retain(|record| {
                let stays = record.timestamp().is_none_or(|written| written >= since);
                if !stays {
                    self.0.mark();
                }
                stays
            });
        }
        Ok(told)
    }
}

impl Sabotage for WritersClock {}

#[derive(Debug)]
struct EndAfterPlace(Acted);

#[async_trait]
impl Hook for EndAfterPlace {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        let after = |(_, at): (_, &Frontier)| matches!(at, Frontier::After { .. });
        if matches!(range.stop, Stop::Before(_)) && range.from.places().any(after) {
            self.0.mark();
            range.stop = Stop::End;
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for EndAfterPlace {}
