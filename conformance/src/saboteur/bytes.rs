//! Saboteurs of *bytes*.

use std::sync::Arc;

use annals_core::driver::{AppendOptions, Backend};
use annals_core::headers::Headers;
use annals_core::{AppendReport, Batch, Record, Result, Timestamp, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "keys_that_are_no_text_are_dropped",
        mirrors: "carries a key only where it is text and stores the record without one otherwise, as sea-streamer's Kafka does with keys",
        model: Model::Log,
        law: "bytes",
        make: |acted| Arc::new(Changes(acted, key_dropped)),
    },
    Saboteur {
        name: "null_becomes_empty",
        mirrors: "stores an empty value for null, so that a tombstone deletes nothing: clients whose body is never null",
        model: Model::Sharded,
        law: "bytes",
        make: |acted| Arc::new(Changes(acted, null_is_empty)),
    },
    Saboteur {
        name: "of_repeated_headers_the_last_one_stays",
        mirrors: "keeps headers in a map, as most clients of AMQP and SQS do",
        model: Model::Queue,
        law: "bytes",
        make: |acted| Arc::new(Changes(acted, headers_in_a_map)),
    },
    Saboteur {
        name: "timestamps_lose_their_milliseconds",
        mirrors: "keeps the writer's time in whole seconds, as AMQP's timestamp property does",
        model: Model::Log,
        law: "bytes",
        make: |acted| Arc::new(Changes(acted, whole_seconds)),
    },
    Saboteur {
        name: "counts_characters_for_bytes",
        mirrors: "measures what is text by its characters against a limit of bytes, and cuts it off there",
        model: Model::Queue,
        law: "bytes",
        make: |acted| Arc::new(Changes(acted, cut_off)),
    },
];

/// What it makes of a record; `None`: it leaves it alone.
type Change = fn(&Record) -> Option<Record>;

#[derive(Debug)]
struct Changes(Acted, Change);

#[async_trait]
impl Hook for Changes {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if !batch
            .records()
            .iter()
            .any(|record| (self.1)(record).is_some())
        {
            return below.append(topic, batch, options).await;
        }
        let changed = batch.records().iter().map(|record| match (self.1)(record) {
            Some(changed) => {
                self.0.mark();
                changed
            }
            None => record.clone(),
        });
        let batch: Batch = changed.collect();
        below.append(topic, &batch, options).await
    }
}

impl Sabotage for Changes {}

/// The same without its key.
fn keyless(record: &Record) -> Record {
    let value = record.value_bytes().cloned();
    let copy = Record::new(value.map_or(annals_core::Value::NULL, annals_core::Value::from));
    let copy = copy
        .headers(record.header_list().clone())
        .maybe_id(record.id_bytes().cloned());
    match record.written_at() {
        Some(time) => copy.timestamp(time),
        None => copy,
    }
}

fn key_dropped(record: &Record) -> Option<Record> {
    let key = record.key_bytes()?;
    std::str::from_utf8(key).is_err().then(|| keyless(record))
}

fn null_is_empty(record: &Record) -> Option<Record> {
    if record.value_bytes().is_some() {
        return None;
    }
    let copy = Record::new("")
        .headers(record.header_list().clone())
        .maybe_id(record.id_bytes().cloned());
    Some(match record.key_bytes() {
        Some(key) => copy.key(key.clone()),
        None => copy,
    })
}

fn headers_in_a_map(record: &Record) -> Option<Record> {
    let all: Vec<_> = record.header_list().iter().collect();
    let mut kept = Headers::new();
    for (at, (name, value)) in all.iter().enumerate() {
        if !all.iter().skip(at + 1).any(|(later, _)| later == name) {
            kept.push(name, *value);
        }
    }
    (kept.len() < all.len()).then(|| record.clone().headers(kept))
}

fn whole_seconds(record: &Record) -> Option<Record> {
    let millis = record.written_at()?.as_millis();
    let whole = millis
        - millis
            .rem_euclid(1_000)
            .min(millis.saturating_sub(i64::MIN));
    (whole != millis).then(|| record.clone().timestamp(Timestamp::from_millis(whole)))
}

/// The limit of a value that is text, in characters; what is longer in bytes is cut at so many.
fn cut_off(record: &Record) -> Option<Record> {
    let value = record.value_bytes()?;
    let text = std::str::from_utf8(value).ok()?;
    let characters = text.chars().count();
    if characters == text.len() || text.len() < 20 {
        return None;
    }
    let cut = Record::new(value.slice(..characters)).headers(record.header_list().clone());
    let cut = cut.maybe_id(record.id_bytes().cloned());
    Some(match record.key_bytes() {
        Some(key) => cut.key(key.clone()),
        None => cut,
    })
}
