//! Saboteurs of *rebuilt*: they harm what groups read, and not what replays do.

use std::sync::Arc;

use annals_core::driver::{Fetched, Reader, Room, Stop};
use annals_core::headers::Headers;
use annals_core::{Record, Recorded, Result, Timestamp, Value};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "group_stamps_on_receipt",
        mirrors: "gives the moment of receipt for the log's own time where records come by push",
        model: Model::Log,
        law: "rebuilt",
        make: |acted| {
            Arc::new(GroupPath(acted, |record| {
                let at = record.stored_at()?.as_millis();
                let late = Timestamp::from_millis(at + 1);
                Recorded::of(&record.clone().into_record(), record.position(), Some(late)).ok()
            }))
        },
    },
    Saboteur {
        name: "group_stamps_in_seconds",
        mirrors: "the log's own time goes by the path of groups in whole seconds, as in AMQP's timestamp and in Kinesis' JSON",
        model: Model::Log,
        law: "rebuilt",
        make: |acted| {
            Arc::new(GroupPath(acted, |record| {
                let at = record.stored_at()?;
                let second = Timestamp::from_millis(at.as_millis() / 1_000 * 1_000);
                let same = record.clone().into_record();
                (second != at)
                    .then(|| Recorded::of(&same, record.position(), Some(second)).ok())
                    .flatten()
            }))
        },
    },
    Saboteur {
        name: "group_loses_tombstones",
        mirrors: "a null value comes as an empty one by the path of groups alone, as from a client that copies into a buffer",
        model: Model::Sharded,
        law: "rebuilt",
        make: |acted| {
            Arc::new(GroupPath(acted, |record| {
                let empty = copy(record, Value::from(""), |_| true);
                record
                    .is_tombstone()
                    .then(|| rebuilt(record, &empty))
                    .flatten()
            }))
        },
    },
    Saboteur {
        name: "group_keeps_the_last_header",
        mirrors: "headers are a map by the path of groups, so that of two of one name one is lost",
        model: Model::Log,
        law: "rebuilt",
        make: |acted| {
            Arc::new(GroupPath(acted, |record| {
                let repeats = record.headers().filter(|(name, _)| *name == "h").count() > 1;
                let value = Value::from(record.value_bytes());
                let mut first = true;
                let fewer = copy(record, value, |name| {
                    name != "h" || !std::mem::take(&mut first)
                });
                repeats.then(|| rebuilt(record, &fewer)).flatten()
            }))
        },
    },
    Saboteur {
        name: "group_takes_no_aggregate_apart",
        mirrors: "the path of groups does not take apart what the path of replay does: two records come as one",
        model: Model::Sharded,
        law: "rebuilt",
        make: |acted| Arc::new(Together(acted)),
    },
];

/// Changes what is read where no end is asked for: by groups, and by who follows.
#[derive(Debug)]
struct GroupPath(Acted, fn(&Recorded) -> Option<Recorded>);

#[async_trait]
impl Hook for GroupPath {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        if is_group(passage) {
            for record in out.iter_mut().skip(before) {
                if let Some(other) = (self.1)(record) {
                    self.0.mark();
                    *record = other;
                }
            }
        }
        told
    }
}

impl Sabotage for GroupPath {}

fn is_group(passage: &Passage) -> bool {
    let range = passage.range.as_ref();
    range.is_some_and(|range| range.stop == Stop::Never)
}

fn copy(record: &Recorded, value: Value, mut keep: impl FnMut(&str) -> bool) -> Record {
    let mut headers = Headers::new();
    for (name, value) in record.headers() {
        if keep(name) {
            headers.push(name, value);
        }
    }
    let mut copy = Record::new(value)
        .headers(headers)
        .maybe_id(record.id().map(<[u8]>::to_vec));
    if let Some(key) = record.key_bytes() {
        copy = copy.key(key);
    }
    match record.timestamp() {
        Some(at) => copy.timestamp(at),
        None => copy,
    }
}

fn rebuilt(record: &Recorded, as_this: &Record) -> Option<Recorded> {
    Recorded::of(as_this, record.position(), record.stored_at()).ok()
}

/// Of two records of one answer the second is joined to the first.
#[derive(Debug)]
struct Together(Acted);

#[async_trait]
impl Hook for Together {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        // Now and then: an aggregate is rare.
        if is_group(passage) && out.len() >= before + 2 && passage.mark < 2 {
            let second = out.pop();
            if let (Some(first), Some(second)) = (out.pop(), second) {
                let value = [first.value(), second.value()].concat();
                let one = copy(&first, Value::from(value), |_| true);
                match Recorded::of(&one, second.position(), second.stored_at()) {
                    Ok(one) => {
                        self.0.mark();
                        passage.mark += 1;
                        out.push(one);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        told
    }
}

impl Sabotage for Together {}
