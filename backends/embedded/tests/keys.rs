//! One key's records through the contract: by the writer, by a process that only reads, with the
//! indexes made in the background and without them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::{Admin, TopicSpec};
use annals_core::{
    Bus, Clock, Cursor, ErrorKind, Record, Recorded, Signal, Start, Timestamp, Topic, TopicName,
    Until,
};
use annals_embedded::disk::{Disk, FaultyDisk};
use annals_embedded::log::Sizes;
use annals_embedded::{Builder, Embedded};
use tokio::sync::Notify;

const GRACE: Duration = Duration::from_secs(10);

fn sizes() -> Sizes {
    Sizes {
        segment: 8 << 10,
        reserve_first: 4 << 10,
        reserve_most: 8 << 10,
        group: 4 << 10,
        page: 4 << 10,
        ..Sizes::default()
    }
}

fn on(disk: &FaultyDisk) -> Embedded {
    Builder::directory("/log")
        .disk(Arc::new(disk.clone()), "log")
        .sizes(sizes())
        .build()
        .unwrap()
}

async fn keyed(topic: &Topic, key: &str, value: String) -> u64 {
    let appended = topic.append(Record::new(value).key(key)).await.unwrap();
    appended
        .last()
        .unwrap()
        .position
        .as_ref()
        .unwrap()
        .number_u64()
        .unwrap()
}

async fn of_key(topic: &Topic, start: impl Into<Start>, key: &str) -> Vec<Recorded> {
    let mut replay = topic.replay(start).key(key).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        records.push(record);
    }
    records
}

fn places(records: &[Recorded]) -> Vec<u64> {
    let at = |r: &Recorded| r.position().unwrap().number_u64().unwrap();
    records.iter().map(at).collect()
}

fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == extension)
}

fn indexes(disk: &FaultyDisk) -> Vec<PathBuf> {
    let dir = Path::new("log/orders");
    let names = disk.list(dir).unwrap();
    let indexes = names.iter().filter(|entry| is_a(&entry.name, "idx"));
    indexes.map(|entry| dir.join(&entry.name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_read_by_the_index_here_and_in_other_processes() {
    let clock = Clock::moved(Timestamp::from_millis(1_000_000));
    let disk = FaultyDisk::new(clock.clone());
    let changed = Arc::new(Notify::new());
    let bus = Bus::new(on(&disk)).with_clock(clock.clone());
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    let woken = Arc::clone(&changed);
    let _watch = disk
        .watch(
            Path::new("log/orders"),
            Arc::new(move || woken.notify_one()),
        )
        .unwrap();
    let mut places_of = [Vec::new(), Vec::new(), Vec::new()];
    let mut middle = None;
    for n in 0..60 {
        if n == 30 {
            middle = Some((topic.end().await.unwrap(), clock.now()));
            clock.advance(Duration::from_secs(1));
        }
        let key = n % 3;
        let at = keyed(&topic, &format!("order-{key}"), "x".repeat(400 + n)).await;
        places_of[key].push(at);
    }
    let (middle, time) = middle.unwrap();
    // The background job, not a reader, makes them.
    let sealed = || {
        let names = disk.list(Path::new("log/orders")).unwrap();
        names.iter().filter(|e| is_a(&e.name, "seg")).count() - 1
    };
    assert!(sealed() >= 3);
    while indexes(&disk).len() < sealed() {
        changed.notified().await;
    }

    let elsewhere = Bus::new(on(&disk)).with_clock(clock.clone());
    let reading = elsewhere.topic("orders").await.unwrap();
    for removed in [false, true] {
        if removed {
            for index in indexes(&disk) {
                disk.remove(&index).unwrap();
            }
        }
        for topic in [&topic, &reading] {
            for (key, all) in places_of.iter().enumerate() {
                let key = format!("order-{key}");
                assert_eq!(places(&of_key(topic, Start::Beginning, &key).await), *all);
                let late = all
                    .iter()
                    .copied()
                    .filter(|at| *at >= 30)
                    .collect::<Vec<_>>();
                let early = all
                    .iter()
                    .copied()
                    .filter(|at| *at < 30)
                    .collect::<Vec<_>>();
                assert_eq!(places(&of_key(topic, &middle, &key).await), late);
                let since = Start::Since(time.saturating_add(Duration::from_millis(1)));
                assert_eq!(places(&of_key(topic, since, &key).await), late);
                for until in [
                    Until::Through(middle.clone()),
                    Until::Before(time.saturating_add(Duration::from_millis(1))),
                ] {
                    let mut replay = topic
                        .replay(Start::Beginning)
                        .until(until)
                        .key(key.as_str())
                        .await
                        .unwrap();
                    let mut read = Vec::new();
                    while let Some(record) = replay.next().await.unwrap() {
                        read.push(record);
                    }
                    assert_eq!(places(&read), early);
                    // What comes after is what is left, whoever's it is.
                    let cursor: Cursor = replay.cursor().clone();
                    assert_eq!(places(&of_key(topic, &cursor, &key).await), late);
                }
            }
            assert!(of_key(topic, Start::Beginning, "order-9").await.is_empty());
        }
    }
    let stale = topic
        .append(Record::new("v").key("order-1"))
        .if_key_at("order-1", None)
        .await
        .unwrap_err();
    let stale = annals_core::Error::from(stale);
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    elsewhere.close(GRACE).await.unwrap();
    bus.close(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_from_a_key_is_a_gap() {
    let clock = Clock::moved(Timestamp::from_millis(1_000_000));
    let disk = FaultyDisk::new(clock.clone());
    let log = on(&disk);
    let name = TopicName::new("orders").unwrap();
    let keep = TopicSpec {
        retention: Some(Retention::Age(Duration::from_secs(60))),
        ..TopicSpec::default()
    };
    log.create(&name, &keep).await.unwrap();
    let bus = Bus::new(log).with_clock(clock.clone());
    let topic = bus.topic("orders").await.unwrap();
    let once = topic.append(Record::new("x").key("once")).await.unwrap();
    let once = once.last().unwrap().position.unwrap();
    for n in 0..40 {
        if n == 20 {
            clock.advance(Duration::from_secs(120));
        }
        keyed(&topic, &format!("order-{}", n % 2), "x".repeat(1000)).await;
    }
    while topic
        .replay(Start::Earliest)
        .await
        .unwrap()
        .next()
        .await
        .unwrap()
        .unwrap()
        .position()
        == Some(annals_core::Position::new(
            annals_core::PartitionId::ONLY,
            0,
        ))
    {
        tokio::task::yield_now().await;
    }
    let elsewhere = Bus::new(on(&disk)).with_clock(clock.clone());
    for topic in [&topic, &elsewhere.topic("orders").await.unwrap()] {
        let kept = places(&of_key(topic, Start::Earliest, "order-1").await);
        assert!(kept.len() >= 10 && kept.len() < 20, "{kept:?}");
        let mut replay = topic.replay(Start::Beginning).key("order-1").await.unwrap();
        let mut gaps = 0;
        let mut read = Vec::new();
        while let Some(signal) = replay.next_signal().await.unwrap() {
            match signal {
                Signal::Gap { .. } => {
                    assert!(read.is_empty());
                    gaps += 1;
                }
                Signal::Record(record) => read.push(record),
                _ => {}
            }
        }
        assert_eq!((gaps, places(&read)), (1, kept));
    }
    // Nobody else has written the key: what retention took is not told as a rival's record.
    let at = |last| topic.append(Record::new("y")).if_key_at("once", last);
    let refused = at(Some(&once)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let text = refused.error().to_string();
    assert!(text.contains("no record that is kept"), "{text}");
    at(None).await.unwrap();
    bus.close(GRACE).await.unwrap();
}
