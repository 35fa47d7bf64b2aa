//! Saboteurs of *cursor round trip*.

use std::sync::Arc;

use annals_core::driver::{Backend, Opened, ReadRange, Stop};
use annals_core::{Cursor, Frontier, Origin, Result, Start, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "takes_a_foreign_cursor",
        mirrors: "reads from whatever number another topic's cursor holds, as clients do whose offsets are bare numbers",
        model: Model::Log,
        law: "cursor_round_trip",
        make: |acted| Arc::new(Foreign(acted)),
    },
    Saboteur {
        name: "takes_a_cursor_of_the_deleted_topic",
        mirrors: "goes by the name alone when a topic was made again, as Kafka's clients did before topics had ids",
        model: Model::Log,
        law: "cursor_round_trip",
        make: |acted| Arc::new(Deleted(acted)),
    },
    Saboteur {
        name: "loses_the_places_beyond_ten",
        mirrors: "keeps the first ten places of a stored cursor, as a field of fixed length does",
        model: Model::Sharded,
        law: "cursor_round_trip",
        make: |acted| Arc::new(Ten(acted)),
    },
];

/// The cursor as if it were of another origin.
fn of(cursor: &Cursor, origin: Origin) -> Cursor {
    let places: Vec<_> = cursor.places().map(|(id, at)| (id, *at)).collect();
    Cursor::new(Arc::new(origin), places, cursor.rest())
}

/// The start and the range, with their cursors changed.
fn changed_start(start: &Start, change: impl Fn(&Cursor) -> Cursor) -> Start {
    match start {
        Start::After(cursor) => Start::After(change(cursor)),
        start => start.clone(),
    }
}

fn changed_range(range: &ReadRange, change: impl Fn(&Cursor) -> Cursor) -> ReadRange {
    let mut range = range.clone();
    range.from = change(&range.from);
    if let Stop::Through(to) = &range.stop {
        range.stop = Stop::Through(change(to));
    }
    range
}

#[derive(Debug)]
struct Foreign(Acted);

impl Foreign {
    async fn origin(&self, below: &dyn Backend, topic: &TopicName) -> Result<Origin> {
        let end = below.locate(topic, &Start::Latest).await?;
        Ok((**end.origin()).clone())
    }

    fn own(&self, cursor: &Cursor, origin: &Origin) -> Cursor {
        if cursor.origin().topic == origin.topic {
            return cursor.clone();
        }
        self.0.mark();
        of(cursor, origin.clone())
    }
}

#[async_trait]
impl Hook for Foreign {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let origin = self.origin(below, topic).await?;
        let start = changed_start(start, |cursor| self.own(cursor, &origin));
        below.locate(topic, &start).await
    }

    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let origin = self.origin(below, topic).await?;
        let range = changed_range(range, |cursor| self.own(cursor, &origin));
        below.read(topic, &range).await
    }
}

impl Sabotage for Foreign {}

#[derive(Debug)]
struct Deleted(Acted);

impl Deleted {
    async fn incarnation(&self, below: &dyn Backend, topic: &TopicName) -> Result<Arc<str>> {
        let end = below.locate(topic, &Start::Latest).await?;
        Ok(Arc::clone(&end.origin().incarnation))
    }

    fn renewed(&self, cursor: &Cursor, incarnation: &Arc<str>) -> Cursor {
        if cursor.origin().incarnation == *incarnation {
            return cursor.clone();
        }
        self.0.mark();
        let mut origin = (**cursor.origin()).clone();
        origin.incarnation = Arc::clone(incarnation);
        of(cursor, origin)
    }
}

#[async_trait]
impl Hook for Deleted {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let now = self.incarnation(below, topic).await?;
        let start = changed_start(start, |cursor| self.renewed(cursor, &now));
        below.locate(topic, &start).await
    }

    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let now = self.incarnation(below, topic).await?;
        let range = changed_range(range, |cursor| self.renewed(cursor, &now));
        below.read(topic, &range).await
    }
}

impl Sabotage for Deleted {}

#[derive(Debug)]
struct Ten(Acted);

#[async_trait]
impl Hook for Ten {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let mut located = below.locate(topic, start).await?;
        let beyond: Vec<_> = match start {
            Start::After(_) => located.places().map(|(id, _)| id).skip(10).collect(),
            _ => Vec::new(),
        };
        for id in beyond {
            if located.frontier(id) != Some(&Frontier::START) {
                self.0.mark();
                located.remove(id);
            }
        }
        Ok(located)
    }
}

impl Sabotage for Ten {}
