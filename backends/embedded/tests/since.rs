//! Beginning at a moment: what of it retention has removed is told, and nothing else is.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::{
    Admin, AppendOptions, Backend, Budget, Fetched, Opened, ReadRange, Room, Stop, TopicSpec,
};
use annals_core::{
    Batch, Clock, Frontier, Group, PartitionId, Position, Record, Recorded, Start, Timestamp,
    TopicName,
};
use annals_embedded::disk::FaultyDisk;
use annals_embedded::log::Sizes;
use annals_embedded::{Builder, Embedded};

const ROOM: Room = Room {
    records: 1000,
    bytes: 1 << 20,
};
const AGE: Duration = Duration::from_secs(60);
/// More than a segment holds.
const MANY: usize = 20;

fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

fn at(number: u64) -> Position {
    Position::new(PartitionId::ONLY, number)
}

fn later(time: Timestamp) -> Timestamp {
    time.saturating_add(Duration::from_millis(1))
}

fn on(disk: &FaultyDisk) -> Embedded {
    Builder::memory()
        .disk(Arc::new(disk.clone()), "root")
        .sizes(Sizes {
            segment: 8 << 10,
            reserve_first: 4 << 10,
            reserve_most: 8 << 10,
            group: 4 << 10,
            page: 4 << 10,
            ..Sizes::default()
        })
        .build()
        .unwrap()
}

/// A log that keeps for [`AGE`], its disk and its clock.
async fn world() -> (Embedded, FaultyDisk, Clock) {
    let clock = Clock::moved(Timestamp::from_millis(1_000_000));
    let disk = FaultyDisk::new(clock.clone());
    let log = on(&disk);
    let keep = TopicSpec {
        retention: Some(Retention::Age(AGE)),
        ..TopicSpec::default()
    };
    log.create(&topic(), &keep).await.unwrap();
    (log, disk, clock)
}

/// Stores records of the keys `k` and `l` in turn, all at one moment, which it answers.
async fn fill(log: &Embedded, clock: &Clock, count: usize) -> Timestamp {
    let value = "x".repeat(1000);
    for n in 0..count {
        let key = if n % 2 == 0 { "k" } else { "l" };
        let batch = Batch::from(Record::new(value.as_str()).key(key));
        let options = AppendOptions::default();
        let report = log.append(&topic(), &batch, &options).await.unwrap();
        let outcome = report.into_outcomes().remove(0);
        assert!(outcome.stored().is_some(), "{outcome:?}");
    }
    clock.now()
}

/// Waits until retention has removed what is older than [`AGE`], but for a segment; answers the
/// oldest that is kept.
async fn trimmed(log: &Embedded, least: u64) -> u64 {
    loop {
        let details = log.describe(&topic()).await.unwrap().details;
        let earliest = details.iter().find(|(name, _)| *name == "earliest");
        let earliest: u64 = earliest.unwrap().1.parse().unwrap();
        if earliest >= least {
            return earliest;
        }
        tokio::task::yield_now().await;
    }
}

async fn open(log: &Embedded, start: Start, stop: Stop, key: Option<&'static str>) -> Opened {
    let from = log.locate(&topic(), &start).await.unwrap();
    let range = ReadRange {
        from,
        stop,
        partitions: None,
        key: key.map(Into::into),
        budget: Budget::new(1 << 20),
    };
    log.read(&topic(), &range).await.unwrap()
}

fn place(opened: &Opened) -> Frontier {
    let place = opened.from.frontier(PartitionId::ONLY).copied();
    place.unwrap_or(Frontier::START)
}

/// The positions of all records up to `End`, and the gaps on the way.
async fn read(mut opened: Opened) -> (Vec<u64>, Vec<(Frontier, Option<Position>)>) {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match opened.reader.fetch(ROOM, &mut records).await.unwrap() {
            Fetched::Gap { from, to, .. } => {
                assert!(records.is_empty(), "the gap comes first");
                gaps.push((from, to));
            }
            Fetched::End => {
                let number = |r: &Recorded| r.position().unwrap().number_u64().unwrap();
                return (records.iter().map(number).collect(), gaps);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_gone_since_a_moment_is_told_and_what_is_older_is_not() {
    let (log, disk, clock) = world().await;
    let reader = on(&disk);
    let older = fill(&log, &clock, MANY).await;
    let opened = open(&reader, Start::Since(older), Stop::End, None).await;
    assert_eq!((read(opened).await.0.len(), MANY), (MANY, MANY));
    clock.advance(AGE * 2);
    let newer = fill(&log, &clock, MANY).await;
    let earliest = trimmed(&log, 15).await;
    assert!(earliest <= MANY as u64);
    let all: Vec<u64> = (earliest..2 * MANY as u64).collect();
    let new: Vec<u64> = (MANY as u64..2 * MANY as u64).collect();
    let of = |records: &[u64], key| match key {
        Some("k") => records.iter().copied().filter(|n| n % 2 == 0).collect(),
        Some(_) => Vec::new(),
        None => records.to_vec(),
    };
    for (who, log) in [
        ("the writer", &log),
        ("a reader", &reader),
        ("the next", &on(&disk.after_kill())),
    ] {
        for key in [None, Some("k"), Some("of none")] {
            for time in [older, Timestamp::from_millis(0)] {
                let opened = open(log, Start::Since(time), Stop::End, key).await;
                let since = Frontier::Since(time);
                assert_eq!(place(&opened), since, "{who} {key:?}: told again next time");
                let gap = vec![(since, Some(at(earliest)))];
                assert_eq!(read(opened).await, (of(&all, key), gap), "{who} {key:?}");
            }
            let opened = open(log, Start::Earliest, Stop::End, key).await;
            assert_eq!(place(&opened), Frontier::after(at(earliest - 1)), "{who}");
            assert_eq!(read(opened).await, (of(&all, key), vec![]), "{who} {key:?}");
            for time in [later(older), newer] {
                let opened = open(log, Start::Since(time), Stop::End, key).await;
                assert_eq!(place(&opened), Frontier::after(at(MANY as u64 - 1)));
                assert_eq!(read(opened).await, (of(&new, key), vec![]), "{who} {key:?}");
            }
            // What asks for nothing misses nothing.
            let opened = open(log, Start::Since(older), Stop::Before(older), key).await;
            assert_eq!(read(opened).await, (vec![], vec![]), "{who} {key:?}");
        }
    }
}

#[tokio::test]
async fn a_moment_to_come_stays_one_until_a_record_is_as_late() {
    let (log, disk, clock) = world().await;
    let reader = on(&disk);
    let old = fill(&log, &clock, 1).await;
    let time = old.saturating_add(AGE * 10);
    let (mut awake, mut asleep) = (Vec::new(), Vec::new());
    for (who, log) in [("the writer", &log), ("a reader", &reader)] {
        for key in [None, Some("k"), Some("of none")] {
            for readers in [&mut awake, &mut asleep] {
                let opened = open(log, Start::Since(time), Stop::Never, key).await;
                assert_eq!(place(&opened), Frontier::Since(time));
                let mut reader = opened.reader;
                let first = reader.fetch(ROOM, &mut Vec::new()).await.unwrap();
                assert_eq!(first, Fetched::CaughtUp);
                readers.push((who, key, reader));
            }
        }
    }
    // Older records come and go again: neither is asked for, and the place does not move.
    fill(&log, &clock, MANY).await;
    clock.advance(AGE * 2);
    fill(&log, &clock, MANY).await;
    trimmed(&log, 15).await;
    clock.advance(AGE * 20);
    fill(&log, &clock, 1).await;
    let late = at(2 * MANY as u64 + 1);
    for (who, key, reader) in &mut awake {
        let mut records = Vec::new();
        let said = reader.fetch(ROOM, &mut records).await.unwrap();
        if *key == Some("of none") {
            let advanced = Fetched::Advanced {
                partition: PartitionId::ONLY,
                to: Frontier::after(late),
            };
            assert_eq!(said, advanced, "{who}");
        } else {
            assert_eq!(said, Fetched::Records, "{who} {key:?}");
            assert_eq!(records[0].position(), Some(late), "{who} {key:?}");
        }
    }
    // What is as late has come and gone for those who did not look: a gap.
    fill(&log, &clock, MANY).await;
    clock.advance(AGE * 2);
    fill(&log, &clock, MANY).await;
    let earliest = trimmed(&log, 3 * MANY as u64 - 5).await;
    for (who, key, reader) in &mut asleep {
        let said = reader.fetch(ROOM, &mut Vec::new()).await.unwrap();
        let gap = Fetched::Gap {
            partition: PartitionId::ONLY,
            from: Frontier::Since(time),
            to: Some(at(earliest)),
        };
        assert_eq!(said, gap, "{who} {key:?}");
    }
}

#[tokio::test]
async fn the_earliest_is_pinned_at_the_open_and_what_goes_afterwards_is_a_gap() {
    let (log, disk, clock) = world().await;
    let reader = on(&disk);
    let empty = open(&log, Start::Earliest, Stop::Never, None).await;
    assert_eq!(place(&empty), Frontier::START, "nothing was ever before it");
    fill(&log, &clock, MANY).await;
    clock.advance(AGE * 2);
    fill(&log, &clock, MANY).await;
    let first = trimmed(&log, 15).await;
    let mut opened = Vec::new();
    for log in [&log, &reader] {
        opened.push(open(log, Start::Earliest, Stop::Never, None).await);
    }
    let group = Group::new("g").unwrap();
    assert!(
        log.create_group(&topic(), &group, Some(Start::Earliest))
            .await
            .unwrap()
    );
    clock.advance(AGE * 2);
    fill(&log, &clock, MANY).await;
    let earliest = trimmed(&log, first + 15).await;
    let committed = log.groups(&topic()).await.unwrap().remove(0).committed;
    let from = Frontier::after(at(first - 1));
    let committed = committed.unwrap().frontier(PartitionId::ONLY).copied();
    assert_eq!(
        committed,
        Some(from),
        "a group's start is stored as a place"
    );
    for mut opened in opened {
        assert_eq!(place(&opened), from);
        let said = opened.reader.fetch(ROOM, &mut Vec::new()).await.unwrap();
        let gap = Fetched::Gap {
            partition: PartitionId::ONLY,
            from,
            to: Some(at(earliest)),
        };
        assert_eq!(said, gap);
    }
}
