//! What the tests of reading share.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use annals_conformance::models::{log, sharded};
use annals_core::driver::{Backend, TopicSpec};
use annals_core::{
    Bus, Clock, Cursor, ErrorKind, PartitionId, Record, Recorded, Replay, Signal, Start, Stored,
    Timestamp, Topic, TopicName, Until,
};

pub(crate) fn clock() -> Clock {
    Clock::runtime(Timestamp::from_millis(1_000_000))
}

pub(crate) fn name() -> TopicName {
    TopicName::new("orders").unwrap()
}

/// A sharded log with one topic, on paused time.
pub(crate) struct Shards {
    pub(crate) state: sharded::State,
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
}

pub(crate) async fn shards(count: u32) -> Shards {
    let spec = TopicSpec {
        partitions: Some(count),
        ..TopicSpec::default()
    };
    shards_like(spec).await
}

pub(crate) async fn shards_like(spec: TopicSpec) -> Shards {
    let clock = clock();
    let state = sharded::State::new(clock.clone());
    let bus = Bus::new(state.connect()).with_clock(clock);
    let topic = bus.topic("orders").create_with(spec).await.unwrap();
    Shards { state, bus, topic }
}

impl Shards {
    pub(crate) fn split(&self, shard: u64) -> (u64, u64) {
        let (low, high) = self.state.split(&name(), id(shard)).unwrap();
        (low.get(), high.get())
    }

    pub(crate) fn merge(&self, one: u64, other: u64) -> u64 {
        let child = self.state.merge(&name(), id(one), id(other)).unwrap();
        child.get()
    }

    pub(crate) fn trim(&self, keep: usize) {
        self.state.trim(&name(), keep).unwrap();
    }

    pub(crate) fn shard_of(&self, key: &str) -> u64 {
        let shard = self.state.shard_of(&name(), key.as_bytes()).unwrap();
        shard.get()
    }

    /// The shards that take records.
    pub(crate) async fn open(&self) -> Vec<PartitionId> {
        let listed = self.state.connect().partitions(&name()).await.unwrap();
        let open = listed.iter().filter(|partition| partition.open);
        open.map(|partition| partition.id).collect()
    }

    /// Keys of which each of these shards takes one.
    pub(crate) fn keys(&self, shards: &[u64]) -> Vec<String> {
        let key = |shard: &u64| {
            let mut keys = (0..).map(|n| format!("k{n}"));
            keys.find(|key| self.shard_of(key) == *shard).unwrap()
        };
        shards.iter().map(key).collect()
    }
}

/// A log with one topic, on paused time.
pub(crate) struct OneLog {
    pub(crate) state: log::State,
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
}

pub(crate) async fn one_log() -> OneLog {
    let clock = clock();
    let state = log::State::new(clock.clone());
    let bus = Bus::new(state.connect()).with_clock(clock);
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    OneLog { state, bus, topic }
}

pub(crate) fn id(partition: u64) -> PartitionId {
    PartitionId::new(partition)
}

/// A record whose key is the text before the dash, where there is one.
pub(crate) fn record(value: &str) -> Record {
    let record = Record::new(value);
    match value.split_once('-') {
        Some((key, _)) => record.key(key),
        None => record,
    }
}

pub(crate) async fn append(topic: &Topic, values: &[&str]) -> Vec<Stored> {
    let batch: Vec<Record> = values.iter().map(|value| record(value)).collect();
    topic.append(batch).await.unwrap().records().to_vec()
}

pub(crate) fn text(record: &Recorded) -> String {
    String::from_utf8(record.value().to_vec()).unwrap()
}

/// The rest of a reading that ends: values, and gaps as `[gap PARTITION]`.
pub(crate) async fn rest(replay: &mut Replay) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match replay.next().await {
            Ok(Some(record)) => seen.push(text(&record)),
            Ok(None) => return seen,
            Err(error) if error.kind() == ErrorKind::Gap => {
                seen.push(format!("[gap {}]", error.gap().unwrap().partition));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What lies between.
pub(crate) async fn between(topic: &Topic, start: Start, until: Until) -> Vec<String> {
    rest(&mut topic.replay(start).until(until).await.unwrap()).await
}

pub(crate) async fn all(topic: &Topic, start: impl Into<Start>) -> Vec<String> {
    between(topic, start.into(), Until::End).await
}

/// A whole reading, cut behind each record: the values, and the cursor before the first, between
/// any two and behind the last.
pub(crate) async fn cuts(mut replay: Replay) -> (Vec<String>, Vec<Cursor>) {
    let mut values = Vec::new();
    let mut cursors = vec![replay.cursor().clone()];
    while let Some(record) = replay.next().await.unwrap() {
        values.push(text(&record));
        cursors.push(replay.cursor().clone());
    }
    (values, cursors)
}

/// What a follower has to say until it says nothing for an hour.
pub(crate) async fn signals(replay: &mut Replay) -> Vec<String> {
    let mut said = Vec::new();
    let hour = Duration::from_secs(3_600);
    while let Ok(signal) = tokio::time::timeout(hour, replay.next_signal()).await {
        match signal.unwrap() {
            None => {
                said.push("[end]".to_owned());
                return said;
            }
            Some(Signal::Record(record)) => said.push(text(&record)),
            Some(Signal::CaughtUp(_)) => said.push("[caught up]".to_owned()),
            Some(Signal::Advanced(_)) => {}
            Some(Signal::Gap(gap)) => said.push(format!("[gap {}]", gap.partition)),
        }
    }
    said
}

/// The cursor after a walk through text, as another process would have it.
pub(crate) fn through_text(cursor: &Cursor) -> Cursor {
    cursor.to_string().parse().unwrap()
}

pub(crate) fn sorted(values: &[String]) -> Vec<String> {
    let mut values = values.to_vec();
    values.sort();
    values
}

/// The values by key, each key's in the order in which they were read.
pub(crate) fn by_key(values: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for value in values {
        let key = value.split_once('-').map_or("", |(key, _)| key);
        keys.entry(key.to_owned()).or_default().push(value.clone());
    }
    if let Some(values) = keys.get_mut("") {
        values.sort();
    }
    keys
}
