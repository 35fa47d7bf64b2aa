//! Saboteurs of *end*.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{Backend, Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Cursor, Frontier, Position, Recorded, Result, Start, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "answers_a_cached_end",
        mirrors: "answers the end that it was told of last time, every other time, as offset caches do",
        model: Model::Log,
        law: "end",
        make: |acted| Arc::new(Cached(acted, Mutex::default())),
    },
    Saboteur {
        name: "the_end_chases_the_writers",
        mirrors: "asks for the end again at each page, so that a replay never ends while others append",
        model: Model::Log,
        law: "end",
        make: |acted| Arc::new(Chases(acted)),
    },
    Saboteur {
        name: "the_end_lags_one_behind",
        mirrors: "answers a high watermark that is one behind what was acknowledged, as a follower's is",
        model: Model::Sharded,
        law: "end",
        make: |acted| Arc::new(Lags(acted)),
    },
    Saboteur {
        name: "the_end_counts_what_is_kept",
        mirrors: "goes back when retention has taken something, as an end does that is the start and a count that are read one after the other",
        model: Model::Log,
        law: "end",
        make: |acted| Arc::new(Counts(acted, AtomicBool::new(false))),
    },
];

#[derive(Debug)]
struct Cached(Acted, Mutex<BTreeMap<TopicName, Cursor>>);

#[async_trait]
impl Hook for Cached {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let now = below.locate(topic, start).await?;
        if *start != Start::Latest {
            return Ok(now);
        }
        let mut ends = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = ends.remove(topic) else {
            ends.insert(topic.clone(), now.clone());
            return Ok(now);
        };
        if end != now {
            self.0.mark();
        }
        Ok(end)
    }
}

impl Sabotage for Cached {}

#[derive(Debug)]
struct Chases(Acted);

#[async_trait]
impl Hook for Chases {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        let chases = range.stop == Stop::End;
        if chases {
            range.stop = Stop::Never;
        }
        let mut opened = below.read(topic, &range).await?;
        if chases {
            opened.until = None;
        }
        Ok(opened)
    }

    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let chases = passage
            .range
            .as_ref()
            .is_some_and(|range| range.stop == Stop::End);
        if !chases {
            return below.fetch(room, out).await;
        }
        // Nothing more to read right now is the end, whenever that is.
        tokio::select! {
            biased;
            told = below.fetch(room, out) => {
                if passage.fetches > 1 {
                    self.0.mark();
                }
                told
            }
            () = std::future::ready(()) => Ok(Fetched::End),
        }
    }
}

impl Sabotage for Chases {}

#[derive(Debug)]
struct Lags(Acted);

#[async_trait]
impl Hook for Lags {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let mut end = below.locate(topic, start).await?;
        if *start != Start::Latest {
            return Ok(end);
        }
        step_back(&mut end, &self.0);
        Ok(end)
    }
}

/// Every partition ends one record before it does.
fn step_back(end: &mut Cursor, acted: &Acted) {
    for (id, at) in end.clone().places() {
        if let Frontier::After { position, .. } = at {
            let [a, b, c, number] = position.number();
            let before = Position::wide(id, [a, b, c, number.saturating_sub(1)], 0);
            acted.mark();
            end.set(id, Frontier::after(before));
        }
    }
}

impl Sabotage for Lags {}

#[derive(Debug)]
struct Counts(Acted, AtomicBool);

#[async_trait]
impl Hook for Counts {
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let mut end = below.locate(topic, start).await?;
        if *start == Start::Latest && self.1.load(Ordering::SeqCst) {
            step_back(&mut end, &self.0);
        }
        Ok(end)
    }
}

#[async_trait]
impl Sabotage for Counts {
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
