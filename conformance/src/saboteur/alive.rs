//! Saboteurs of *alive*.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Fetched, Leases, Mark, Reader, Room, Source,
};
use annals_core::{AppendReport, Batch, Error, Group, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "commits_no_more_after_a_failure",
        mirrors: "a group's commit that failed once is never made again and waits for ever, as librdkafka #2933",
        model: Model::Sharded,
        law: "alive",
        make: |acted| {
            Arc::new(DeadCommits {
                acted,
                dead: Mutex::default(),
            })
        },
    },
    Saboteur {
        name: "dies_with_its_channel",
        mirrors: "one call that the service refuses ends every other of its client, as a channel error does that closes the connection (lapin #70)",
        model: Model::Queue,
        law: "alive",
        make: |acted| {
            Arc::new(OneChannel {
                acted,
                dead: AtomicBool::new(false),
            })
        },
    },
    Saboteur {
        name: "is_silent_after_a_lost_connection",
        mirrors: "a reading that lost its connection waits for ever for a broker that is there again, and says nothing",
        model: Model::Log,
        law: "alive",
        make: |acted| Arc::new(Silent(acted)),
    },
    Saboteur {
        name: "does_not_say_how_far_it_is",
        mirrors: "a reading that finds nothing says nothing, so that its cursor stands still until it has aged out",
        model: Model::Log,
        law: "alive",
        make: |acted| Arc::new(Mute(acted)),
    },
    Saboteur {
        name: "lets_an_iterator_expire",
        mirrors: "keeps a shard's iterator over a pause of five minutes, when the service has forgotten it, and never asks for another",
        model: Model::Sharded,
        law: "alive",
        make: |acted| Arc::new(Expires(acted)),
    },
    Saboteur {
        name: "a_lease_taken_too_often_is_nobodys",
        mirrors: "after a few members have come and gone the group's row can no longer be taken, as if the last of them still had it",
        model: Model::Log,
        law: "alive",
        make: |acted| Arc::new(Nobodys(acted)),
    },
];

/// The groups that failed once.
#[derive(Debug)]
struct DeadCommits {
    acted: Acted,
    dead: Mutex<BTreeSet<Group>>,
}

impl DeadCommits {
    fn dead(&self) -> std::sync::MutexGuard<'_, BTreeSet<Group>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for DeadCommits {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        if self.dead().contains(group) {
            self.acted.mark();
            return pending().await;
        }
        let told = below.commit(group, marks).await;
        if told.as_ref().is_err_and(Error::is_retryable) {
            self.dead().insert(group.clone());
        }
        told
    }
}

impl Sabotage for DeadCommits {}

#[derive(Debug)]
struct OneChannel {
    acted: Acted,
    dead: AtomicBool,
}

#[async_trait]
impl Hook for OneChannel {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let told = below.append(topic, batch, options).await;
        if told.as_ref().is_err_and(|error| !error.is_retryable()) {
            self.dead.store(true, Ordering::SeqCst);
        }
        told
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        if self.dead.load(Ordering::SeqCst) {
            self.acted.mark();
            return pending().await;
        }
        below.fetch(room, out).await
    }
}

impl Sabotage for OneChannel {}

#[derive(Debug)]
struct Silent(Acted);

#[async_trait]
impl Hook for Silent {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        if passage.mark > 0 {
            self.0.mark();
            return pending().await;
        }
        let told = below.fetch(room, out).await;
        if let Err(error) = &told
            && error.is_retryable()
        {
            passage.mark = 1;
        }
        told
    }
}

impl Sabotage for Silent {}

#[derive(Debug)]
struct Mute(Acted);

#[async_trait]
impl Hook for Mute {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        loop {
            let told = below.fetch(room, out).await?;
            if !matches!(told, Fetched::Advanced { .. }) {
                return Ok(told);
            }
            self.0.mark();
        }
    }
}

impl Sabotage for Mute {}

/// How long an iterator is good for, in seconds.
const ITERATOR: u64 = 300;

#[derive(Debug)]
struct Expires(Acted);

#[async_trait]
impl Hook for Expires {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let asked = tokio::time::Instant::now();
        let told = below.fetch(room, out).await;
        if asked.elapsed().as_secs() >= ITERATOR || passage.mark > 0 {
            passage.mark = 1;
            self.0.mark();
            return pending().await;
        }
        told
    }
}

impl Sabotage for Expires {}

/// So many takes of one row are too many.
const TAKES: u64 = 3;

#[derive(Debug)]
struct Nobodys(Acted);

#[async_trait]
impl Hook for Nobodys {
    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &annals_core::driver::Lease,
        by: &Arc<str>,
    ) -> Result<Option<annals_core::driver::Tenancy>> {
        let taken = below.take(group, seen, by).await?;
        if taken.is_some_and(|stay| stay.epoch & 0xffff_ffff > TAKES) {
            self.0.mark();
            return Ok(None);
        }
        Ok(taken)
    }
}

impl Sabotage for Nobodys {}
