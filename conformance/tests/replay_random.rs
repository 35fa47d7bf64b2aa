//! Random schedules of splits, merges, appends, trims, faults and readings that stop and go on:
//! whatever happens, each line of readings gives exactly what was appended, parents before children,
//! each key in order; and where something is gone, and only there, it is told.
//!
//! A failure prints its seed; `ANNALS_SEED=N` runs that one alone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test may panic"
)]

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_conformance::models::{Call, Fault};
use annals_core::driver::Backend;
use annals_core::{
    Cursor, Error, PartitionId, Record, Recorded, Replay, Signal, Start, Timestamp, Topic, Until,
};

use reading::*;

const SEEDS: u64 = 30;
const STEPS: usize = 60;

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.roll(from.len())])
    }
}

/// What one line of readings, each from the last one's cursor, has seen.
#[derive(Clone, Default)]
struct Line {
    /// What lay before its start.
    skipped: BTreeSet<String>,
    since: Option<Timestamp>,
    seen: Vec<(PartitionId, String)>,
    /// Partitions in which records were told to be gone.
    gaps: BTreeSet<PartitionId>,
}

/// Where each record was stored.
type Homes = BTreeMap<String, PartitionId>;

impl Line {
    fn see(&mut self, record: &Recorded) {
        let partition = record.position().unwrap().partition();
        self.seen.push((partition, text(record)));
    }

    /// The error is a gap.
    fn miss(&mut self, error: &Error) {
        let gap = error.gap().unwrap_or_else(|| panic!("{error}"));
        self.gaps.insert(gap.partition);
    }

    /// Whether it was told that something is gone of this partition, or of what continues it: one
    /// that vanished long ago is not known any more.
    fn is_told(&self, partition: PartitionId, parents: &Parents) -> bool {
        let mut gaps = self.gaps.iter().copied();
        gaps.any(|gap| line_of(gap, parents).contains(&partition))
    }

    fn values(&self) -> BTreeSet<String> {
        let seen = self.seen.iter().map(|(_, value)| value.clone());
        seen.chain(self.skipped.iter().cloned()).collect()
    }
}

struct Reading {
    replay: Replay,
    line: Line,
    /// What had been acknowledged when it was opened.
    acknowledged: BTreeSet<String>,
    caught_up: bool,
    follows: bool,
}

impl Reading {
    /// Everything acknowledged before the open has been read, or told to be gone.
    fn check_caught_up(&self, homes: &Homes, parents: &Parents) {
        let seen = self.line.values();
        let untold = |value: &&String| !self.line.is_told(homes[*value], parents);
        let missing = self.acknowledged.difference(&seen).filter(untold);
        let missing: Vec<_> = missing.collect();
        assert!(
            missing.is_empty() || self.line.since.is_some(),
            "told too early, without {missing:?}"
        );
    }

    /// Goes on a little; `false` at the end.
    async fn step(&mut self, dice: &mut Dice, homes: &Homes, parents: &Parents) -> bool {
        let brief = Duration::from_millis(dice.roll(400) as u64);
        match dice.roll(3) {
            0 => match tokio::time::timeout(brief, self.replay.next()).await {
                Ok(Ok(Some(record))) => self.line.see(&record),
                Ok(Ok(None)) => return self.end(homes, parents),
                Ok(Err(error)) => self.line.miss(&error),
                Err(_) => {}
            },
            1 => match tokio::time::timeout(brief, self.replay.next_batch()).await {
                Ok(Ok(Some(batch))) => {
                    for record in &batch {
                        self.line.see(record);
                    }
                    if batch.caught_up() {
                        self.check_caught_up(homes, parents);
                        self.caught_up = true;
                    }
                }
                Ok(Ok(None)) => return self.end(homes, parents),
                Ok(Err(error)) => self.line.miss(&error),
                Err(_) => {}
            },
            _ => match tokio::time::timeout(brief, self.replay.next_signal()).await {
                Ok(Ok(Some(Signal::Record(record)))) => self.line.see(&record),
                Ok(Ok(Some(Signal::CaughtUp(cursor)))) => {
                    assert!(!self.caught_up, "told twice");
                    assert_eq!(&cursor, self.replay.cursor());
                    self.check_caught_up(homes, parents);
                    self.caught_up = true;
                }
                Ok(Ok(Some(Signal::Advanced(_)))) | Err(_) => {}
                Ok(Ok(Some(Signal::Gap(gap)))) => {
                    self.line.gaps.insert(gap.partition);
                }
                Ok(Ok(None)) => return self.end(homes, parents),
                Ok(Err(error)) => self.line.miss(&error),
            },
        }
        true
    }

    fn end(&self, homes: &Homes, parents: &Parents) -> bool {
        assert!(!self.follows, "a follower ended");
        self.check_caught_up(homes, parents);
        false
    }
}

struct World {
    shards: Shards,
    dice: Dice,
    /// Whether retention takes records.
    trims: bool,
    /// All that was appended, in order.
    appended: Vec<String>,
    homes: Homes,
    parents: Parents,
    readings: Vec<Reading>,
    /// Where readings stood, as text, and what they had seen by then.
    stands: Vec<(String, Line)>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = u32::try_from(dice.roll(3) + 1).unwrap();
        Self {
            shards: shards(count).await,
            dice,
            trims: seed % 2 == 1,
            appended: Vec::new(),
            homes: Homes::new(),
            parents: Parents::new(),
            readings: Vec::new(),
            stands: Vec::new(),
        }
    }

    async fn act(&mut self) {
        match self.dice.roll(13) {
            12 if self.trims => self.shards.trim(self.dice.roll(4)),
            0..=2 => self.append().await,
            3 => self.reshape().await,
            4 => self.trouble(),
            5 => tokio::time::advance(Duration::from_millis(self.dice.roll(900) as u64)).await,
            6 | 7 => self.open().await,
            _ => self.read().await,
        }
    }

    async fn append(&mut self) {
        let faults = self.shards.state.faults();
        match self.dice.roll(6) {
            0 => faults.inject(Call::Append, Fault::Refuse(vec![0])),
            1 => faults.inject(Call::Append, Fault::Refuse(vec![1, 3])),
            2 => faults.inject(Call::Append, Fault::Throttle(Duration::from_millis(200))),
            3 => faults.inject(Call::Append, Fault::Disconnect),
            4 => faults.inject(Call::Append, Fault::Delay(Duration::from_millis(50))),
            _ => faults,
        };
        let mut batch: Vec<Record> = Vec::new();
        for _ in 0..=self.dice.roll(5) {
            let number = self.appended.len();
            let value = match self.dice.roll(10) {
                9 => format!("{number}"),
                key => format!("k{key}-{number}"),
            };
            batch.push(record(&value));
            self.appended.push(value);
        }
        let first = self.appended.len() - batch.len();
        let stored = self.shards.topic.append(batch).await.unwrap();
        let homes = stored.records().iter().map(|s| s.partition.unwrap());
        let values = self.appended[first..].iter().cloned();
        self.homes.extend(values.zip(homes));
    }

    async fn reshape(&mut self) {
        let open = self.shards.open().await;
        let (one, other) = (
            *self.dice.pick(&open).unwrap(),
            *self.dice.pick(&open).unwrap(),
        );
        // Of two that are no neighbours, or the same, the first is split.
        let merged = one != other && self.shards.state.merge(&name(), one, other).is_ok();
        if !merged && open.len() < 8 {
            self.shards.state.split(&name(), one).unwrap();
        }
        self.see_parents().await;
    }

    async fn see_parents(&mut self) {
        let backend = self.shards.state.connect();
        let listed = backend.partitions(&name()).await.unwrap();
        self.parents
            .extend(listed.into_iter().map(|p| (p.id, p.parents)));
    }

    fn trouble(&mut self) {
        let faults = self.shards.state.faults();
        for _ in 0..self.dice.roll(4) {
            faults.pass(Call::Fetch);
        }
        let fault = match self.dice.roll(5) {
            0 => Fault::Throttle(Duration::from_millis(700)),
            1 => Fault::Disconnect,
            2 => Fault::Lose { done: true },
            3 => Fault::Lose { done: false },
            _ => Fault::Delay(Duration::from_millis(800)),
        };
        faults.inject(Call::Fetch, fault);
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.appended.iter().cloned().collect()
    }

    async fn open(&mut self) {
        let now = self.shards.bus.clock().now();
        let (start, line) = match self.dice.roll(6) {
            0 => (Start::Beginning, Line::default()),
            1 => {
                // What is gone by now is accepted.
                let kept = all(&self.shards.topic, Start::Earliest).await;
                let kept: BTreeSet<String> = kept.into_iter().collect();
                let line = Line {
                    skipped: &self.acknowledged() - &kept,
                    ..Line::default()
                };
                (Start::Earliest, line)
            }
            2 => {
                let line = Line {
                    skipped: self.acknowledged(),
                    ..Line::default()
                };
                (Start::Latest, line)
            }
            3 if !self.trims => {
                let ago = Duration::from_millis(self.dice.roll(4_000) as u64);
                let since = now.as_millis() - i64::try_from(ago.as_millis()).unwrap();
                let since = Timestamp::from_millis(since);
                let line = Line {
                    since: Some(since),
                    ..Line::default()
                };
                (Start::Since(since), line)
            }
            _ => match self.dice.pick(&self.stands) {
                Some((text, line)) => (Start::After(text.parse().unwrap()), line.clone()),
                None => (Start::Beginning, Line::default()),
            },
        };
        let follows = self.dice.roll(2) == 0;
        let acknowledged = self.acknowledged();
        let open = if follows {
            self.shards.topic.follow(start)
        } else {
            self.shards.topic.replay(start)
        };
        // Rooms of a few records, or of all.
        let open = open.buffer([40, 200, 1 << 20][self.dice.roll(3)]);
        let reading = Reading {
            replay: open.await.unwrap(),
            line,
            acknowledged,
            caught_up: false,
            follows,
        };
        self.stand(&reading);
        self.readings.push(reading);
        if self.readings.len() > 4 {
            let oldest = self.readings.remove(0);
            self.stand(&oldest);
        }
    }

    async fn read(&mut self) {
        if self.readings.is_empty() {
            return;
        }
        let which = self.dice.roll(self.readings.len());
        let mut reading = self.readings.swap_remove(which);
        for _ in 0..self.dice.roll(8) {
            if !reading
                .step(&mut self.dice, &self.homes, &self.parents)
                .await
            {
                self.stand(&reading);
                return;
            }
            if self.dice.roll(4) == 0 {
                self.stand(&reading);
            }
        }
        self.readings.push(reading);
    }

    fn stand(&mut self, reading: &Reading) {
        let text = reading.replay.cursor().to_string();
        self.stands.push((text, reading.line.clone()));
    }

    /// Whether a line that has read to the end has read what it should.
    fn check(&self, line: &Line, stored: &BTreeMap<String, Timestamp>) {
        let expected: Vec<String> = self
            .appended
            .iter()
            .filter(|value| !line.skipped.contains(*value))
            .filter(|value| line.since.is_none_or(|since| stored[*value] >= since))
            .cloned()
            .collect();
        let seen: Vec<String> = line.seen.iter().map(|(_, value)| value.clone()).collect();
        // What is missing was told, and what was told is missing.
        let values = line.values();
        let (kept, gone): (Vec<String>, Vec<String>) = expected
            .into_iter()
            .partition(|value| values.contains(value));
        assert_eq!(by_key(&seen), by_key(&kept));
        for value in &gone {
            assert!(line.is_told(self.homes[value], &self.parents), "{value}");
        }
        let gone: BTreeSet<PartitionId> = gone.iter().map(|value| self.homes[value]).collect();
        for gap in &line.gaps {
            // Of one that never held anything nobody can tell that any more.
            let empty = !self.homes.values().any(|home| home == gap);
            let missing = !line_of(*gap, &self.parents).is_disjoint(&gone);
            assert!(missing || empty, "nothing is gone of {gap}");
        }
        let mut last: BTreeMap<PartitionId, usize> = BTreeMap::new();
        for (at, (partition, _)) in line.seen.iter().enumerate() {
            last.insert(*partition, at);
        }
        for (at, (partition, value)) in line.seen.iter().enumerate() {
            for parent in &self.parents[partition] {
                let parent_ended = last.get(parent).is_none_or(|last| *last < at);
                assert!(parent_ended, "{value} came before the end of {parent}");
            }
        }
    }

    async fn finish(mut self) {
        self.shards.state.faults().heal();
        self.see_parents().await;
        let topic = self.shards.topic.clone();
        let mut stored = BTreeMap::new();
        let mut whole = topic.replay(Start::Earliest).await.unwrap();
        while let Some(record) = whole.next().await.unwrap() {
            stored.insert(text(&record), record.stored_at().unwrap());
        }
        assert!(self.trims || stored.len() == self.appended.len());
        for mut reading in std::mem::take(&mut self.readings) {
            self.stand(&reading);
            let quiet = Duration::from_secs(100);
            while let Ok(record) = tokio::time::timeout(quiet, reading.replay.next()).await {
                match record {
                    Ok(Some(record)) => reading.line.see(&record),
                    Ok(None) => break,
                    Err(error) => reading.line.miss(&error),
                }
            }
            if reading.follows {
                self.check(&reading.line, &stored);
            }
            self.stand(&reading);
        }
        for (text, line) in &self.stands {
            let mut line = line.clone();
            let cursor: Cursor = text.parse().unwrap();
            let mut rest = topic.replay(&cursor).await.unwrap();
            while let Some(record) = rest.next().await.transpose() {
                match record {
                    Ok(record) => line.see(&record),
                    Err(error) => line.miss(&error),
                }
            }
            self.check(&line, &stored);
        }
        for _ in 0..20 {
            self.check_range(&topic, &stored).await;
        }
    }

    /// A range between any two cursors is what the second had seen and the first had not.
    async fn check_range(&mut self, topic: &Topic, stored: &BTreeMap<String, Timestamp>) {
        let stands: Vec<_> = self
            .stands
            .iter()
            .filter(|(_, l)| l.since.is_none())
            .collect();
        let (Some((from, before)), Some((to, after))) = (
            self.dice.pick(&stands).copied(),
            self.dice.pick(&stands).copied(),
        ) else {
            return;
        };
        let until = Until::Through(to.parse().unwrap());
        let read = between(topic, Start::After(from.parse().unwrap()), until).await;
        let expected: BTreeSet<String> = &after.values() - &before.values();
        let within = |value: &&String| expected.contains(*value);
        let (kept, gone): (Vec<String>, Vec<String>) = self
            .appended
            .iter()
            .filter(within)
            .cloned()
            .partition(|value| stored.contains_key(value));
        let (gaps, read): (Vec<String>, Vec<String>) =
            read.into_iter().partition(|said| said.starts_with("[gap"));
        assert_eq!(by_key(&read), by_key(&kept), "{from} to {to}");
        // What the first was told of lies behind it, and so do the ancestors of what it names:
        // those that had vanished are told with the partition that continues them.
        let from: Cursor = from.parse().unwrap();
        let named: BTreeSet<PartitionId> = from.places().map(|(id, _)| id).collect();
        let lines = named.iter().flat_map(|id| line_of(*id, &self.parents));
        let behind: BTreeSet<PartitionId> = lines.filter(|id| !named.contains(id)).collect();
        let missing = gone
            .iter()
            .any(|value| !behind.contains(&self.homes[value]));
        let told = !gaps.is_empty() || !before.gaps.is_empty();
        assert!(!missing || told, "{from} to {to}");
    }
}

/// A partition and all that it continues.
fn line_of(partition: PartitionId, parents: &Parents) -> BTreeSet<PartitionId> {
    let mut found = BTreeSet::new();
    let mut line = vec![partition];
    while let Some(id) = line.pop() {
        if found.insert(id) {
            line.extend(parents.get(&id).into_iter().flatten());
        }
    }
    found
}

type Parents = BTreeMap<PartitionId, Vec<PartitionId>>;

#[test]
fn every_line_of_readings_gives_what_was_appended() {
    let one = std::env::var("ANNALS_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds = one.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut stands = 0;
    for seed in seeds {
        println!("ANNALS_SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        stands += runtime.block_on(async {
            let mut world = World::new(seed).await;
            for _ in 0..STEPS {
                world.act().await;
            }
            let stands = world.stands.len();
            world.finish().await;
            stands
        });
    }
    println!("{stands} cursors were gone on from");
    assert!(one.is_some() || stands > 600);
}
