//! Saboteurs of *poison*.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Leases, Mark, Room, Settled, Settler, Source,
    Token, Verdict,
};
use annals_core::headers::Headers;
use annals_core::{
    AppendReport, Batch, Group, Outcome, Record, Result, Stored, TopicName, letters,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "dropped_at_the_limit",
        mirrors: "says a dead letter is stored and stores none: a queue whose redrive policy names no queue",
        model: Model::Log,
        law: "poison",
        make: |acted| Arc::new(Letters(acted, Harm::Drops)),
    },
    Saboteur {
        name: "buried_twice",
        mirrors: "sends a dead letter, then sends it again, as a producer does that retries without idempotence",
        model: Model::Sharded,
        law: "poison",
        make: |acted| Arc::new(Letters(acted, Harm::Doubles)),
    },
    Saboteur {
        name: "letters_without_a_reason",
        mirrors: "stores a dead letter as the bare record, as SQS' redrive does: nobody knows why it is there",
        model: Model::Queue,
        law: "poison",
        make: |acted| Arc::new(Letters(acted, Harm::Bares)),
    },
    Saboteur {
        name: "a_delay_blocks_all_keys",
        mirrors: "while one record waits for its retry nothing else is lent: a paused consumer, a head of line",
        model: Model::Queue,
        law: "poison",
        make: |acted| Arc::new(Blocks(acted, Mutex::default())),
    },
    Saboteur {
        name: "attempts_of_the_innocent",
        mirrors: "counts an attempt with every commit, so that whoever is first after a crash is over the limit",
        model: Model::Log,
        law: "poison",
        make: |acted| Arc::new(Counts(acted)),
    },
];

#[derive(Clone, Copy, Debug)]
enum Harm {
    Drops,
    Doubles,
    Bares,
}

/// Harms dead letters and nothing else.
#[derive(Debug)]
struct Letters(Acted, Harm);

#[async_trait]
impl Hook for Letters {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let says = |record: &Record| {
            record
                .header_list()
                .iter()
                .any(|(name, _)| name == letters::REASON)
        };
        if !batch.records().iter().any(says) {
            return below.append(topic, batch, options).await;
        }
        self.0.mark();
        match self.1 {
            Harm::Drops => {
                let stored = Outcome::Stored(Stored::somewhere());
                Ok(AppendReport::all(batch.len(), &stored))
            }
            Harm::Doubles => {
                let _ = below.append(topic, batch, options).await?;
                below.append(topic, batch, options).await
            }
            Harm::Bares => {
                let bare: Batch = batch.records().iter().map(bare).collect();
                below.append(topic, &bare, options).await
            }
        }
    }
}

fn bare(record: &Record) -> Record {
    let mut headers = Headers::new();
    for (name, value) in record.header_list() {
        if name != letters::REASON {
            headers.push(name, value);
        }
    }
    record.clone().headers(headers)
}

impl Sabotage for Letters {}

/// How long nothing is to be lent, from when on.
#[derive(Debug)]
struct Blocks(Acted, Mutex<Option<Duration>>);

#[async_trait]
impl Hook for Blocks {
    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        for (_, verdict) in settlements {
            if let Verdict::Retry { after } = verdict
                && !after.is_zero()
            {
                self.0.mark();
                let mut wait = self.1.lock().unwrap_or_else(PoisonError::into_inner);
                *wait = (*wait).max(Some(*after));
            }
        }
        below.settle(settlements).await
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let wait = *self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
            *self.1.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        below.fetch(room, out).await
    }
}

impl Sabotage for Blocks {}

#[derive(Debug)]
struct Counts(Acted);

#[async_trait]
impl Hook for Counts {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let mut marks = marks.to_vec();
        for mark in &mut marks {
            self.0.mark();
            mark.attempts += 3;
        }
        below.commit(group, &marks).await
    }
}

impl Sabotage for Counts {}
