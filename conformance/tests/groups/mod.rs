//! What the tests of groups share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    missing_docs,
    reason = "each test binary uses its part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::driver::Backend;
use annals_core::{Bus, Clock, Delivery, Record, Recorded, Start, Subscription, Timestamp, Topic};

/// Longer than anything that is waited for, in virtual time.
pub const SOON: Duration = Duration::from_secs(120);
pub const LEASE: Duration = Duration::from_secs(10);

/// Paused tokio time, counted from a day that is not the epoch.
pub fn clock() -> Clock {
    Clock::runtime(Timestamp::from_millis(1_000_000))
}

pub fn bus(backend: impl Backend, clock: &Clock) -> Bus {
    Bus::new(backend).with_clock(clock.clone())
}

/// A record whose key is the text before the dash.
pub fn record(value: &str) -> Record {
    let record = Record::new(value);
    match value.split_once('-') {
        Some((key, _)) => record.key(key),
        None => record,
    }
}

pub async fn append<S: AsRef<str>>(topic: &Topic, values: impl IntoIterator<Item = S>) {
    let records: Vec<Record> = values.into_iter().map(|v| record(v.as_ref())).collect();
    topic.append(records).await.unwrap();
}

/// `a-1`, `a-2`, …
pub fn numbered(key: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{key}-{n}")).collect()
}

pub fn text(record: &Recorded) -> String {
    String::from_utf8(record.value().to_vec()).unwrap()
}

/// The next delivery, which must come soon.
pub async fn next(subscription: &Subscription) -> Delivery {
    let next = tokio::time::timeout(SOON, subscription.next()).await;
    next.expect("waits in vain")
        .expect("the subscription failed")
        .expect("the subscription ended")
}

/// The next so many, each settled.
pub async fn handle(subscription: &Subscription, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let delivery = next(subscription).await;
        values.push(text(&delivery));
        delivery.done();
    }
    values
}

/// Whether nothing comes within `time`.
pub async fn is_quiet(subscription: &Subscription, time: Duration) -> bool {
    tokio::time::timeout(time, subscription.next())
        .await
        .is_err()
}

/// Everything that a topic holds, from its beginning.
pub async fn everything(topic: &Topic) -> Vec<Recorded> {
    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    let mut all = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        all.push(record);
    }
    all
}

/// The text of a header.
pub fn header(record: &Recorded, name: &str) -> String {
    let value = record.header(name).flatten().expect("no such header");
    String::from_utf8(value.to_vec()).unwrap()
}

/// What handlers saw, in order, and what overlapped.
#[derive(Clone, Default, Debug)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default, Debug)]
struct Seen {
    by_key: BTreeMap<String, Vec<String>>,
    running: BTreeSet<String>,
    overlaps: usize,
    most: usize,
}

impl Watch {
    pub fn begin(&self, record: &Recorded) {
        let key = String::from_utf8(record.key().unwrap_or_default().to_vec()).unwrap();
        let mut seen = self.0.lock().unwrap();
        let free = seen.running.insert(key.clone());
        seen.overlaps += usize::from(!free);
        seen.most = seen.most.max(seen.running.len());
        seen.by_key.entry(key).or_default().push(text(record));
    }

    pub fn end(&self, record: &Recorded) {
        let key = String::from_utf8(record.key().unwrap_or_default().to_vec()).unwrap();
        self.0.lock().unwrap().running.remove(&key);
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().by_key.values().map(Vec::len).sum()
    }

    /// The most keys at a time.
    pub fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    pub fn of(&self, key: &str) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .by_key
            .get(key)
            .cloned()
            .unwrap_or_default()
    }

    pub fn overlaps(&self) -> usize {
        self.0.lock().unwrap().overlaps
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// By a seed that is printed, so that a failure can be seen again with `ANNALS_SEED`.
    pub fn new(default: u64) -> Self {
        let seed = std::env::var("ANNALS_SEED").ok();
        let seed = seed.map_or(default, |seed| {
            seed.parse().expect("ANNALS_SEED is a number")
        });
        println!("ANNALS_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// Many lives of a group: what each was handed, and what is known to be committed.
#[derive(Default, Debug)]
pub struct Lives {
    handed: BTreeMap<String, usize>,
    committed: BTreeSet<String>,
    repeated: usize,
    story: String,
}

impl Lives {
    pub fn begin(&mut self, life: usize) {
        let _ = write!(self.story, "\nlife {life}:");
    }

    /// A record was handed out: never one that is committed.
    pub fn handed(&mut self, value: &str) {
        let _ = write!(self.story, " {value}");
        assert!(
            !self.committed.contains(value),
            "{value} was committed and comes again{}",
            self.story
        );
        let times = self.handed.entry(value.to_owned()).or_default();
        *times += 1;
        self.repeated += usize::from(*times > 1);
    }

    /// These are settled for good.
    pub fn committed(&mut self, values: impl IntoIterator<Item = String>) {
        let _ = write!(self.story, " |");
        self.committed.extend(values);
    }

    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// All lives together were handed everything.
    pub fn assert_all(&self, values: &[String]) {
        for value in values {
            assert!(
                self.handed.contains_key(value),
                "{value} was never handed out{}",
                self.story
            );
        }
    }

    pub fn is_all(&self, values: &[String]) -> bool {
        values.iter().all(|value| self.handed.contains_key(value))
    }
}
