//! Saboteurs of *gap told*.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::driver::{Backend, Fetched, Lease, Leases, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Frontier, Group, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "jumps_in_silence",
        mirrors: "goes on behind what retention took and tells nobody, as an expired iterator does that is replaced by TRIM_HORIZON",
        model: Model::Log,
        law: "gap_told",
        make: |acted| Arc::new(Silent(acted)),
    },
    Saboteur {
        name: "a_group_is_reset",
        mirrors: "sets a group whose place is gone to the earliest that is kept, as auto.offset.reset does (librdkafka #521)",
        model: Model::Sharded,
        law: "gap_told",
        make: |acted| Arc::new(Reset(acted, AtomicBool::new(false))),
    },
    Saboteur {
        name: "the_beginning_is_what_is_kept",
        mirrors: "takes the first record that is kept for the first ever, as most consumers do",
        model: Model::Sharded,
        law: "gap_told",
        make: |acted| Arc::new(Kept(acted)),
    },
    Saboteur {
        name: "tells_the_gap_too_late",
        mirrors: "hands out the first records behind a gap before it tells of it, as an error callback on another thread does",
        model: Model::Log,
        law: "gap_told",
        make: |acted| Arc::new(TooLate(acted)),
    },
    Saboteur {
        name: "tells_one_gap_a_reading",
        mirrors: "remembers that it has told of a gap, and tells of no other",
        model: Model::Log,
        law: "gap_told",
        make: |acted| Arc::new(Once(acted)),
    },
    Saboteur {
        name: "a_bounded_reading_tells_no_gap",
        mirrors: "tells of gaps on its live path alone: what stops at a moment begins where there is something",
        model: Model::Log,
        law: "gap_told",
        make: |acted| Arc::new(Bounded(acted)),
    },
];

#[derive(Debug)]
struct Silent(Acted);

#[async_trait]
impl Hook for Silent {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        if matches!(told, Fetched::Gap { .. }) {
            self.0.mark();
            return below.fetch(room, out).await;
        }
        Ok(told)
    }
}

impl Sabotage for Silent {}

#[derive(Debug)]
struct Reset(Acted, AtomicBool);

#[async_trait]
impl Hook for Reset {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let mut table = below.load(group).await?;
        if self.1.load(Ordering::SeqCst) {
            for lease in table.iter_mut().flatten() {
                if !lease.at.is_ended() && lease.at != Frontier::EARLIEST {
                    self.0.mark();
                    lease.at = Frontier::EARLIEST;
                }
            }
        }
        Ok(table)
    }
}

#[async_trait]
impl Sabotage for Reset {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        self.1
            .fetch_or(matches!(what, Disturb::Trim { .. }), Ordering::SeqCst);
        below.disturb(topic, what).await
    }
}

#[derive(Debug)]
struct Kept(Acted);

#[async_trait]
impl Hook for Kept {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        for (partition, at) in range.from.clone().places() {
            if *at == Frontier::START {
                self.0.mark();
                range.from.set(partition, Frontier::EARLIEST);
            }
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Kept {}

#[derive(Debug)]
struct TooLate(Acted);

#[async_trait]
impl Hook for TooLate {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        if !matches!(told, Fetched::Gap { to: Some(_), .. }) || room.is_none() {
            return Ok(told);
        }
        self.0.mark();
        below.fetch(room, out).await?;
        Ok(told)
    }
}

impl Sabotage for TooLate {}

/// The gap is passed over as a frontier that does not move.
fn hidden(told: Fetched, acted: &Acted) -> Fetched {
    match told {
        Fetched::Gap {
            partition, from, ..
        } => {
            acted.mark();
            Fetched::Advanced {
                partition,
                to: from,
            }
        }
        told => told,
    }
}

#[derive(Debug)]
struct Once(Acted);

#[async_trait]
impl Hook for Once {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        if matches!(told, Fetched::Gap { .. }) {
            passage.mark += 1;
        }
        Ok(if passage.mark > 1 {
            hidden(told, &self.0)
        } else {
            told
        })
    }
}

impl Sabotage for Once {}

#[derive(Debug)]
struct Bounded(Acted);

#[async_trait]
impl Hook for Bounded {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await?;
        let range = passage.range.as_ref();
        Ok(match range.map(|range| &range.stop) {
            Some(Stop::Before(_)) => hidden(told, &self.0),
            _ => told,
        })
    }
}

impl Sabotage for Bounded {}
