//! Saboteurs of *dedupe*.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{AppendReport, Batch, Outcome, Record, Result, Stored, TopicName};
use async_trait::async_trait;
use bytes::Bytes;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "the_window_is_lost_at_a_restart",
        mirrors: "keeps the ids in memory only: after a restart a repeat is stored again, as with Kafka's idempotent producers, whose state is their process's",
        model: Model::Log,
        law: "dedupe",
        make: |acted| Arc::new(LostAtRestart(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_rejected_id_is_remembered",
        mirrors: "remembers the id before the record is stored: what was refused is taken for a repeat when it is sent again, and lost",
        model: Model::Log,
        law: "dedupe",
        make: |acted| Arc::new(RemembersRejected(acted, Mutex::default())),
    },
    Saboteur {
        name: "ids_are_compared_by_their_first_bytes",
        mirrors: "cuts ids to the length of its column and takes two that begin alike for one",
        model: Model::Queue,
        law: "dedupe",
        make: |acted| Arc::new(Cut(acted)),
    },
    Saboteur {
        name: "only_the_last_hundred_ids_are_known",
        mirrors: "bounds its window by a count that nobody was told of, as RabbitMQ's deduplication plugin does by its cache's size",
        model: Model::Queue,
        law: "dedupe",
        make: |acted| Arc::new(LastHundred(acted, Mutex::default())),
    },
    Saboteur {
        name: "an_empty_id_is_none",
        mirrors: "takes an id of no bytes for a record without one, as fields do whose default is the empty string",
        model: Model::Log,
        law: "dedupe",
        make: |acted| Arc::new(Changed(acted, |id, _| (!id.is_empty()).then(|| id.clone()))),
    },
    Saboteur {
        name: "long_ids_are_cut",
        mirrors: "keeps the first 128 bytes of an id, as many as SQS takes, and says nothing",
        model: Model::Log,
        law: "dedupe",
        make: |acted| Arc::new(Changed(acted, |id, _| Some(id.slice(..id.len().min(128))))),
    },
    Saboteur {
        name: "ids_of_atomic_batches_are_not_looked_at",
        mirrors: "writes transactions by a path of their own, which does not ask the window",
        model: Model::Log,
        law: "dedupe",
        make: |acted| {
            Arc::new(Changed(acted, |id, options| {
                (!options.atomic).then(|| id.clone())
            }))
        },
    },
];

/// The same batch without these records' ids; submissions are others, so nothing is recognised.
fn nameless(batch: &Batch, forgotten: impl Fn(&[u8]) -> bool) -> Batch {
    let records = batch.records().iter().map(|record| {
        let forgets = record.id_bytes().is_some_and(|id| forgotten(id));
        if forgets {
            record.clone().maybe_id(None::<String>)
        } else {
            record.clone()
        }
    });
    records.collect()
}

fn ids(batch: &Batch) -> impl Iterator<Item = Vec<u8>> + '_ {
    let ids = batch.records().iter().filter_map(Record::id_bytes);
    ids.map(|id| id.to_vec())
}

/// Ids that were appended.
type Seen = BTreeSet<Vec<u8>>;

/// The ids of this life, and those of earlier ones.
#[derive(Debug)]
struct LostAtRestart(Acted, Mutex<(Seen, Seen)>);

#[async_trait]
impl Hook for LostAtRestart {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let forgotten = {
            let mut lives = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            lives.0.extend(ids(batch));
            lives.1.clone()
        };
        if !ids(batch).any(|id| forgotten.contains(&id)) {
            return below.append(topic, batch, options).await;
        }
        self.0.mark();
        let batch = nameless(batch, |id| forgotten.contains(id));
        below.append(topic, &batch, options).await
    }
}

#[async_trait]
impl Sabotage for LostAtRestart {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> std::result::Result<(), Cannot> {
        if matches!(what, Disturb::Restart | Disturb::Kill) {
            let mut lives = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let life = std::mem::take(&mut lives.0);
            lives.1.extend(life);
        }
        below.disturb(topic, what).await
    }
}

#[derive(Debug)]
struct RemembersRejected(Acted, Mutex<Seen>);

#[async_trait]
impl Hook for RemembersRejected {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let remembered = {
            let rejected = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            batch.len() > 1 && ids(batch).any(|id| rejected.contains(&id))
        };
        if remembered {
            self.0.mark();
            let repeat = Outcome::Stored(Stored::somewhere().as_duplicate());
            return Ok(AppendReport::all(batch.len(), &repeat));
        }
        let report = below.append(topic, batch, options).await?;
        let rejected = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_));
        if report.outcomes().iter().any(rejected) {
            let mut remembered = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.extend(ids(batch));
        }
        Ok(report)
    }
}

impl Sabotage for RemembersRejected {}

#[derive(Debug)]
struct Cut(Acted);

#[async_trait]
impl Hook for Cut {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let records = batch.records().iter().map(|record| {
            let id = record.id_bytes().filter(|id| id.len() > 32);
            match id.map(|id| id.slice(..32)) {
                Some(short) => {
                    self.0.mark();
                    record.clone().id(short)
                }
                None => record.clone(),
            }
        });
        let batch: Batch = records.collect();
        below.append(topic, &batch, options).await
    }
}

impl Sabotage for Cut {}

#[derive(Debug)]
struct LastHundred(Acted, Mutex<Vec<Vec<u8>>>);

#[async_trait]
impl Hook for LastHundred {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let forgotten: Seen = {
            let mut known = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let old = known.len().saturating_sub(100);
            let recent: Seen = known.iter().skip(old).cloned().collect();
            let forgotten = known.iter().take(old);
            let forgotten = forgotten.filter(|id| !recent.contains(*id)).cloned();
            let forgotten = forgotten.collect();
            known.extend(ids(batch));
            forgotten
        };
        if !ids(batch).any(|id| forgotten.contains(&id)) {
            return below.append(topic, batch, options).await;
        }
        self.0.mark();
        let batch = nameless(batch, |id| forgotten.contains(id));
        below.append(topic, &batch, options).await
    }
}

impl Sabotage for LastHundred {}

/// The ids that reach the window are others, or none.
#[derive(Debug)]
struct Changed(Acted, fn(&Bytes, &AppendOptions) -> Option<Bytes>);

#[async_trait]
impl Hook for Changed {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let change = |record: &Record| {
            let Some(id) = record.id_bytes() else {
                return record.clone();
            };
            let other = (self.1)(id, options);
            if other.as_ref() == Some(id) {
                return record.clone();
            }
            self.0.mark();
            let changed = Record::new(record.value_bytes().cloned());
            let changed = changed
                .headers(record.header_list().clone())
                .maybe_id(other);
            match record.key_bytes() {
                Some(key) => changed.key(key.clone()),
                None => changed,
            }
        };
        if batch.records().iter().all(|r| r.id_bytes().is_none()) {
            return below.append(topic, batch, options).await;
        }
        let changed: Vec<Record> = batch.records().iter().map(change).collect();
        if changed == batch.records() {
            return below.append(topic, batch, options).await;
        }
        below.append(topic, &Batch::new(changed), options).await
    }
}

impl Sabotage for Changed {}
