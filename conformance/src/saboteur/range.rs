//! Saboteurs of *range*.

use std::sync::Arc;

use annals_core::driver::{Backend, Opened, ReadRange};
use annals_core::{Cursor, Frontier, Position, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[Saboteur {
    name: "inclusive_after",
    mirrors: "reads the cursor's own record again: localstack's AFTER_SEQUENCE_NUMBER (#10117)",
    model: Model::Log,
    law: "range",
    make: |acted| Arc::new(InclusiveAfter(acted)),
}];

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

fn one_back(cursor: &Cursor) -> Option<Cursor> {
    let (partition, place) = cursor.places().next()?;
    let before = place.position()?.number_u64()?.checked_sub(1)?;
    let mut moved = cursor.clone();
    moved.set(partition, Frontier::after(Position::new(partition, before)));
    Some(moved)
}

impl Sabotage for InclusiveAfter {}
