//! Saboteurs of *truthful*.

use std::sync::Arc;

use annals_core::driver::{Arrived, Delivered, Fetched, Reader, Room, Source};
use annals_core::{Record, Recorded, Result};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "takes_apart_what_looks_like_an_aggregate",
        mirrors: "takes a value apart for its first four bytes, as consumers do that do not look at an aggregate's digest",
        model: Model::Sharded,
        law: "truthful",
        make: |acted| Arc::new(Deaggregates(acted)),
    },
    Saboteur {
        name: "wraps_what_comes_again",
        mirrors: "hands out a message that was given back with an envelope round it, as SNS puts round what it publishes unless delivery is raw",
        model: Model::Queue,
        law: "truthful",
        make: |acted| Arc::new(Wraps(acted)),
    },
    Saboteur {
        name: "surfaces_a_control_record",
        mirrors: "hands out a marker that the log keeps for itself, as consumers do that do not skip Kafka's control records",
        model: Model::Log,
        law: "truthful",
        make: |acted| Arc::new(ControlRecord(acted)),
    },
];

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

#[derive(Debug)]
struct Deaggregates(Acted);

#[async_trait]
impl Hook for Deaggregates {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        for record in out.iter_mut().skip(before) {
            if let Some(inner) = record.value().strip_prefix(b"\xf3\x89\x9a\xc2") {
                self.0.mark();
                let inner = Record::new(inner.to_vec());
                *record = Recorded::of(&inner, record.position(), record.stored_at())?;
            }
        }
        Ok(told)
    }
}

impl Sabotage for Deaggregates {}

#[derive(Debug)]
struct Wraps(Acted);

#[async_trait]
impl Hook for Wraps {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        for again in out.iter_mut().skip(before).filter(|d| d.attempt > 1) {
            self.0.mark();
            let value = [b"{\"Message\":\"", again.record.value(), b"\"}"].concat();
            again.record = Recorded::of(&Record::new(value), None, again.record.stored_at())?;
        }
        Ok(told)
    }
}

impl Sabotage for Wraps {}
