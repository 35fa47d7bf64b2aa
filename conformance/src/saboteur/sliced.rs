//! Saboteurs of *sliced*.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{Backend, Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Cursor, Frontier, Recorded, Result, Start, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "finds_keys_by_their_hash",
        mirrors: "takes another key of the same hash for the one that is looked for, as an index does that does not compare",
        model: Model::Log,
        law: "sliced",
        make: |acted| Arc::new(ByHash(acted)),
    },
    Saboteur {
        name: "searches_a_stale_index",
        mirrors: "finds of a key only what was there when its index was first used",
        model: Model::Log,
        law: "sliced",
        make: |acted| Arc::new(Stale(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_page_without_the_key_ends_the_search",
        mirrors: "takes a page of which the filter left nothing for the end, as callers of DynamoDB's filtered scans do",
        model: Model::Sharded,
        law: "sliced",
        make: |acted| Arc::new(EmptyPage(acted)),
    },
    Saboteur {
        name: "a_search_leaves_out_tombstones",
        mirrors: "finds of a key only what has a value, as a compacted view of the log does",
        model: Model::Log,
        law: "sliced",
        make: |acted| Arc::new(NoTombstones(acted)),
    },
    Saboteur {
        name: "a_search_ignores_its_times",
        mirrors: "looks for a key from the first record on, whatever moment was asked for",
        model: Model::Log,
        law: "sliced",
        make: |acted| Arc::new(Timeless(acted)),
    },
];

/// As Java's strings have it.
fn java(key: &[u8]) -> i32 {
    key.iter().fold(0, |hash: i32, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(*byte))
    })
}

#[derive(Debug)]
struct ByHash(Acted);

#[async_trait]
impl Hook for ByHash {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        // The index is not asked: its entries are looked through by hash.
        let mut all = range.clone();
        all.key = None;
        below.read(topic, &all).await
    }

    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let key = passage.range.as_ref().and_then(|range| range.key.clone());
        let Some(key) = key else {
            return below.fetch(room, out).await;
        };
        loop {
            let before = out.len();
            let told = below.fetch(room, out).await?;
            let mut of: Vec<Recorded> = out.split_off(before);
            of.retain(|record| record.key().is_some_and(|k| java(k) == java(&key)));
            if of.iter().any(|record| record.key() != Some(&key[..])) {
                self.0.mark();
            }
            out.append(&mut of);
            if out.len() > before || told != Fetched::Records {
                return Ok(told);
            }
        }
    }
}

impl Sabotage for ByHash {}

/// Where each topic ended when its index was made.
#[derive(Debug)]
struct Stale(Acted, Mutex<BTreeMap<TopicName, Cursor>>);

#[async_trait]
impl Hook for Stale {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        if range.key.is_none() {
            return below.read(topic, range).await;
        }
        let now = below.locate(topic, &Start::Latest).await?;
        let mut range = range.clone();
        {
            let mut ends = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let end = ends.entry(topic.clone()).or_insert_with(|| now.clone());
            if range.stop == Stop::End && *end != now {
                self.0.mark();
                range.stop = Stop::Through(end.clone());
            }
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Stale {}

#[derive(Debug)]
struct EmptyPage(Acted);

#[async_trait]
impl Hook for EmptyPage {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        let Some(key) = passage.range.as_ref().and_then(|range| range.key.clone()) else {
            return Ok(told);
        };
        let page = out.get(before..).unwrap_or_default();
        let some = !page.is_empty();
        if some && !page.iter().any(|record| record.key() == Some(&key[..])) {
            self.0.mark();
            return Ok(Fetched::End);
        }
        Ok(told)
    }
}

impl Sabotage for EmptyPage {}

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
        let keyed = passage.range.as_ref().is_some_and(|r| r.key.is_some());
        loop {
            let had = out.len();
            let told = below.fetch(room, out).await?;
            let before = out.len();
            if keyed {
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

#[derive(Debug)]
struct Timeless(Acted);

#[async_trait]
impl Hook for Timeless {
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let mut range = range.clone();
        let since =
            |(_, at): (_, &Frontier)| matches!(at, Frontier::Since(_)) && *at != Frontier::EARLIEST;
        if range.key.is_some() && range.from.places().any(since) {
            self.0.mark();
            range.from = Cursor::start(Arc::clone(range.from.origin()));
        }
        below.read(topic, &range).await
    }
}

impl Sabotage for Timeless {}
