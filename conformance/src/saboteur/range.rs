//! Saboteurs of *range*.

use std::sync::Arc;

use annals_core::driver::{Backend, Opened, ReadRange, Stop};
use annals_core::{Cursor, Frontier, Position, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "inclusive_after",
        mirrors: "reads the cursor's own record again: localstack's AFTER_SEQUENCE_NUMBER (#10117)",
        model: Model::Log,
        law: "range",
        make: |acted| Arc::new(InclusiveAfter(acted)),
    },
    Saboteur {
        name: "through_stops_one_short",
        mirrors: "leaves out the record that the range ends with, as an exclusive end offset does that was meant to be inclusive",
        model: Model::Sharded,
        law: "range",
        make: |acted| Arc::new(OneShort(acted)),
    },
    Saboteur {
        name: "an_end_before_the_start_is_no_end",
        mirrors: "reads on to the end of the log where a range is empty, as a difference of two offsets that wraps around does",
        model: Model::Log,
        law: "range",
        make: |acted| Arc::new(Wraps(acted)),
    },
];

#[derive(Debug)]
struct InclusiveAfter(Acted);

#[async_trait]
impl Hook for InclusiveAfter {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        if let Some(from) = one_back(&range.from) {
            self.0.mark();
            range.from = from;
        }
        below.read(topic, &range).await
    }
}

/// The same cursor, every partition just before the record that it stands behind.
fn one_back(cursor: &Cursor) -> Option<Cursor> {
    let mut moved = cursor.clone();
    let mut any = false;
    for (partition, place) in cursor.places() {
        let Some(position) = place.position() else {
            continue;
        };
        let [a, b, c, number] = position.number();
        let before = Position::wide(partition, [a, b, c, number.checked_sub(1)?], u32::MAX);
        moved.set(partition, Frontier::after(before));
        any = true;
    }
    any.then_some(moved)
}

impl Sabotage for InclusiveAfter {}

#[derive(Debug)]
struct OneShort(Acted);

#[async_trait]
impl Hook for OneShort {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        if let Stop::Through(to) = &range.stop
            && let Some(short) = one_back(to)
        {
            self.0.mark();
            range.stop = Stop::Through(short);
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for OneShort {}

#[derive(Debug)]
struct Wraps(Acted);

#[async_trait]
impl Hook for Wraps {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        if let Stop::Through(to) = &range.stop
            && to.origin() == range.from.origin()
            && range.from.places().any(|(id, from)| {
                let end = to.frontier(id).and_then(Frontier::position);
                end.is_some_and(|end| from.position() > Some(end))
            })
        {
            self.0.mark();
            range.stop = Stop::End;
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Wraps {}
