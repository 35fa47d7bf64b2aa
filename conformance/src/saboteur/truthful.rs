//! Saboteurs of *truthful*.

use std::sync::Arc;

use annals_core::driver::{Fetched, Reader, Room};
use annals_core::{Record, Recorded, Result};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[Saboteur {
    name: "surfaces_a_control_record",
    mirrors: "hands out a marker that the log keeps for itself, as consumers do that do not skip Kafka's control records",
    model: Model::Log,
    law: "truthful",
    make: |acted| Arc::new(ControlRecord(acted)),
}];

#[derive(Debug)]
struct ControlRecord(Acted);

#[async_trait]
impl Hook for ControlRecord {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        if passage.mark == 0
            && let Some(last) = out.last()
        {
            passage.mark = 1;
            self.0.mark();
            let marker = Recorded::of(
                &Record::new("\0\0\0\0commit"),
                last.position(),
                last.stored_at(),
            )?;
            out.push(marker);
        }
        Ok(told)
    }
}

impl Sabotage for ControlRecord {}
