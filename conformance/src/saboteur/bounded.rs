//! Saboteurs of *bounded*.

use std::sync::Arc;

use annals_core::driver::{Arrived, Delivered, Fetched, Reader, Room, Source};
use annals_core::{Recorded, Result};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "prefetches_into_a_channel",
        mirrors: "reads on into a channel without a bound, whatever its reader has room for, as clients do whose queue counts messages and not bytes",
        model: Model::Log,
        law: "bounded",
        make: |acted| Arc::new(Prefetches(acted)),
    },
    Saboteur {
        name: "ignores_the_room",
        mirrors: "hands over a whole page whoever asked for less, as a fetch size that is a hint",
        model: Model::Sharded,
        law: "bounded",
        make: |acted| Arc::new(IgnoresRoom(acted)),
    },
    Saboteur {
        name: "ignores_the_prefetch",
        mirrors: "a consumer whose prefetch count is never set on its channel: the broker pushes all it has",
        model: Model::Queue,
        law: "bounded",
        make: |acted| Arc::new(IgnoresPrefetch(acted)),
    },
    Saboteur {
        name: "always_has_a_page_more",
        mirrors: "asks for the next page whenever one is handed over, beside the buffer that was allowed",
        model: Model::Sharded,
        law: "bounded",
        make: |acted| Arc::new(PageMore(acted)),
    },
];

/// What was kept, as far as there is room.
fn hand_over(passage: &mut Passage, room: Room, out: &mut Vec<Recorded>) -> bool {
    let (mut taken, mut bytes) = (0, 0);
    for record in &passage.kept {
        bytes += record.len_bytes();
        let fits = taken < room.records && bytes <= room.bytes;
        if !(fits || (taken == 0 && !room.is_none())) {
            break;
        }
        taken += 1;
    }
    out.extend(passage.kept.drain(..taken));
    taken > 0
}

/// Room for all there is.
const ALL_THERE_IS: Room = Room {
    records: usize::MAX,
    bytes: usize::MAX,
};

#[derive(Debug)]
struct Prefetches(Acted);

#[async_trait]
impl Hook for Prefetches {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        if hand_over(passage, room, out) {
            return Ok(Fetched::Records);
        }
        let told = below.fetch(ALL_THERE_IS, &mut passage.kept).await?;
        if passage.kept.is_empty() {
            return Ok(told);
        }
        self.0.mark();
        hand_over(passage, room, out);
        Ok(Fetched::Records)
    }
}

impl Sabotage for Prefetches {}

#[derive(Debug)]
struct IgnoresRoom(Acted);

#[async_trait]
impl Hook for IgnoresRoom {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        if room.is_none() {
            return below.fetch(room, out).await;
        }
        self.0.mark();
        below.fetch(ALL_THERE_IS, out).await
    }
}

impl Sabotage for IgnoresRoom {}

#[derive(Debug)]
struct IgnoresPrefetch(Acted);

#[async_trait]
impl Hook for IgnoresPrefetch {
    async fn receive(
        &self,
        passage: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        // Ten come in one answer; it asks again while there are more.
        while passage.held.len() < 200 {
            let more = below.fetch(ALL_THERE_IS, &mut passage.held);
            match tokio::time::timeout(std::time::Duration::from_millis(1), more).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
            self.0.mark();
        }
        if passage.held.is_empty() || room.is_none() {
            return below.fetch(room, out).await;
        }
        let mut bytes = 0;
        let mut fits = |delivered: &Delivered| {
            bytes += delivered.record.len_bytes();
            bytes <= room.bytes
        };
        let taken = passage
            .held
            .iter()
            .take(room.records)
            .take_while(|d| fits(d));
        let taken = taken.count().max(1);
        out.extend(passage.held.drain(..taken));
        Ok(Arrived::Deliveries)
    }
}

impl Sabotage for IgnoresPrefetch {}

#[derive(Debug)]
struct PageMore(Acted);

#[async_trait]
impl Hook for PageMore {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        if room.is_none() {
            return below.fetch(room, out).await;
        }
        let mut told = Fetched::Records;
        if passage.kept.is_empty() {
            told = below.fetch(room, &mut passage.kept).await?;
        }
        if !hand_over(passage, room, out) {
            return Ok(told);
        }
        while told == Fetched::Records && passage.kept.len() < 30 {
            let more = below.fetch(ALL_THERE_IS, &mut passage.kept);
            match tokio::time::timeout(std::time::Duration::from_millis(1), more).await {
                Ok(Ok(Fetched::Records)) => self.0.mark(),
                _ => break,
            }
        }
        Ok(Fetched::Records)
    }
}

impl Sabotage for PageMore {}
