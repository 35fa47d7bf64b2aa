//! Saboteurs of *key order*.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Fetched, Reader, Room, Source,
};
use annals_core::{
    AppendReport, Batch, Effect, Error, ErrorKind, Outcome, Recorded, Result, Retry, TopicName,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "the_refused_go_behind_their_successors",
        mirrors: "stores what follows a refused record and leaves the refused one for a later request, as vector's retries of partial failures did (#359)",
        model: Model::Log,
        law: "key_order",
        make: |acted| Arc::new(Behind(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_batch_is_stored_by_hash",
        mirrors: "stores a batch in the order of its hash table, not in the writer's",
        model: Model::Log,
        law: "key_order",
        make: |acted| Arc::new(ByHash(acted)),
    },
    Saboteur {
        name: "an_answer_is_handed_out_backwards",
        mirrors: "hands out the messages of one answer last first, as a stack of prefetched ones does",
        model: Model::Queue,
        law: "key_order",
        make: |acted| Arc::new(Backwards(acted)),
    },
    Saboteur {
        name: "a_request_under_way_is_overtaken",
        mirrors: "lets the second of two requests under way be stored first, as Kafka's retries do with several in flight and no idempotence",
        model: Model::Log,
        law: "key_order",
        make: |acted| Arc::new(Overtaken(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_restart_forgets_the_order",
        mirrors: "rebuilds its index at a restart by time stamps, of which several are equal",
        model: Model::Sharded,
        law: "key_order",
        make: |acted| Arc::new(Replayed(acted, AtomicBool::new(false))),
    },
];

/// What was appended before the last restart comes in pairs the wrong way round.
#[derive(Debug)]
struct Replayed(Acted, AtomicBool);

#[async_trait]
impl Hook for Replayed {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        let restarted = self.1.load(Ordering::SeqCst);
        for pair in out.get_mut(before..).unwrap_or_default().chunks_mut(2) {
            if restarted && pair.len() == 2 {
                self.0.mark();
                pair.reverse();
            }
        }
        Ok(told)
    }
}

#[async_trait]
impl Sabotage for Replayed {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> std::result::Result<(), Cannot> {
        if matches!(what, Disturb::Restart | Disturb::Kill) {
            self.1.store(true, Ordering::SeqCst);
        }
        below.disturb(topic, what).await
    }
}

/// The first record of each request whose key comes again in it waits once.
#[derive(Debug)]
struct Behind(Acted, Mutex<BTreeSet<(u128, u32)>>);

impl Behind {
    /// Which record is left for later.
    fn left(&self, batch: &Batch) -> Option<usize> {
        let first = batch.records().first()?.key_bytes()?;
        let again = batch.records().iter().skip(1);
        if !again.into_iter().any(|r| r.key_bytes() == Some(first)) {
            return None;
        }
        let submission = batch.submission(0)?;
        let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((submission.batch, submission.index))
            .then_some(0)
    }
}

#[async_trait]
impl Hook for Behind {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if self.left(batch).is_none() {
            return below.append(topic, batch, options).await;
        }
        self.0.mark();
        let rest = batch.select(1..batch.len());
        let report = below.append(topic, &rest, options).await?;
        let refused = Outcome::Rejected(Error::new(
            ErrorKind::Throttled,
            Effect::None,
            Retry::Backoff,
            "the service refused this one for now; try again",
        ));
        let outcomes = std::iter::once(refused).chain(report.into_outcomes());
        Ok(AppendReport::new(outcomes.collect()))
    }
}

impl Sabotage for Behind {}

#[derive(Debug)]
struct ByHash(Acted);

#[async_trait]
impl Hook for ByHash {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let hash = |index: &usize| {
            let value = batch.records().get(*index).and_then(|r| r.value_bytes());
            let bytes = value.into_iter().flatten();
            bytes.fold(7_u64, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u64::from(*byte)) ^ (hash >> 7)
            })
        };
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(hash);
        if batch.len() > 1 {
            self.0.mark();
        }
        let stored = batch.select(order.iter().copied());
        let report = below.append(topic, &stored, options).await?;
        let mut outcomes = vec![Outcome::NotAttempted; batch.len()];
        for (index, outcome) in order.into_iter().zip(report.into_outcomes()) {
            if let Some(place) = outcomes.get_mut(index) {
                *place = outcome;
            }
        }
        Ok(AppendReport::new(outcomes))
    }
}

impl Sabotage for ByHash {}

#[derive(Debug)]
struct Backwards(Acted);

#[async_trait]
impl Hook for Backwards {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        if let Some(answer) = out.get_mut(before..)
            && answer.len() > 1
        {
            self.0.mark();
            answer.reverse();
        }
        told
    }
}

impl Sabotage for Backwards {}

/// Every other request that comes while none is under way waits a little.
#[derive(Debug)]
struct Overtaken(Acted, Mutex<usize>);

#[async_trait]
impl Hook for Overtaken {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let waits = {
            let mut calls = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            *calls += 1;
            *calls % 3 == 1
        };
        if waits {
            self.0.mark();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        below.append(topic, batch, options).await
    }
}

impl Sabotage for Overtaken {}
