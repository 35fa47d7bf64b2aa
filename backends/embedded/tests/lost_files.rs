//! Files of a topic that are lost, broken or strange: what is whole is read, what is lost is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::Admin;
use annals_core::{Bus, Clock, Effect, Error, ErrorKind, Group, Record, Start, Topic};
use annals_embedded::disk::{Call, Fault, FaultyDisk};
use annals_embedded::{Builder, Config, Embedded};

const GRACE: Duration = Duration::from_secs(20);

fn open(root: &Path) -> Embedded {
    let url = format!("file:{}?segment=64KiB", root.display());
    let config = Config::of(&url.parse().unwrap()).unwrap();
    Builder::new(config).build().unwrap()
}

async fn count(topic: &Topic, keyed: bool) -> (usize, Option<Error>) {
    let replay = topic.replay(Start::Beginning);
    let replay = if keyed { replay.key("k") } else { replay };
    let mut replay = replay.await.unwrap();
    let mut read = 0;
    loop {
        match replay.next().await {
            Ok(Some(_)) => read += 1,
            Ok(None) => return (read, None),
            Err(e) => return (read, Some(e)),
        }
    }
}

/// A closed topic of sixteen records in segments of three or so, with a group in it.
async fn written(root: &Path) -> Vec<PathBuf> {
    let bus = Bus::new(open(root));
    let topic = bus
        .topic("orders")
        .create_if_missing()
        .groups(["billing"])
        .await
        .unwrap();
    for _ in 0..16 {
        let record = Record::new(vec![b'x'; 20_000]).key("k");
        topic.append(record).await.unwrap();
    }
    bus.close(GRACE).await.unwrap();
    let mut segments: Vec<PathBuf> = std::fs::read_dir(root.join("orders"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    assert!(segments.len() >= 4);
    segments
}

fn first(segment: &Path) -> usize {
    let name = segment.file_stem().and_then(|name| name.to_str());
    name.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_lost_segment_in_the_middle_leaves_the_records_before_it() {
    for how in ["removed", "header", "first removed"] {
        let dir = tempfile::tempdir().unwrap();
        let segments = written(dir.path()).await;
        let lost = &segments[if how == "first removed" { 0 } else { 2 }];
        if how == "header" {
            let mut bytes = std::fs::read(lost).unwrap();
            bytes[100] ^= 1;
            std::fs::write(lost, bytes).unwrap();
        } else {
            std::fs::remove_file(lost).unwrap();
        }
        let name = lost.file_name().unwrap().to_str().unwrap();
        let told = |error: Option<(ErrorKind, String)>| {
            let (kind, text) = error.unwrap_or_else(|| panic!("{how}: it is told"));
            assert_eq!(kind, ErrorKind::Corrupt, "{how}: {text}");
            assert!(text.contains(name), "{how}: {text}");
            let position = format!("0@{};", first(lost));
            assert!(text.contains(&position), "{how}: {text}");
        };
        let of = |e: Error| (e.kind(), e.to_string());
        let log = open(dir.path());
        let bus = Bus::new(log.clone());
        let topic = bus.topic("orders").await.unwrap();
        for keyed in [false, true] {
            let (read, error) = tokio::time::timeout(GRACE, count(&topic, keyed))
                .await
                .unwrap();
            assert_eq!(read, first(lost), "{how}");
            told(error.map(of));
        }
        told(log.verify(topic.name()).await.err().map(of));
        let groups = log.groups(topic.name()).await.unwrap();
        assert_eq!(groups.len(), 1);
        let billing = Group::new("billing").unwrap();
        let lag = log.group_lag(topic.name(), &billing).await.unwrap();
        assert_eq!(lag[0].records, Some(16));
        told(
            topic
                .append(Record::new("more"))
                .await
                .err()
                .map(|e| (e.kind(), e.to_string())),
        );
        let (read, error) = count(&topic, false).await;
        assert_eq!(read, first(lost), "{how}");
        told(error.map(of));
    }
}

#[tokio::test]
async fn a_stray_file_between_the_segments_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let segments = written(dir.path()).await;
    let stray = format!("{:020}.seg", first(&segments[2]) + 1);
    std::fs::copy(&segments[1], dir.path().join("orders").join(stray)).unwrap();
    let log = open(dir.path());
    let topic = Bus::new(log.clone()).topic("orders").await.unwrap();
    for keyed in [false, true] {
        let (read, error) = count(&topic, keyed).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(read, 16);
    }
    log.verify(topic.name()).await.unwrap();
    topic.append(Record::new("more")).await.unwrap();
    assert_eq!(count(&topic, false).await.0, 17);
}

#[tokio::test]
async fn a_lost_tail_or_start_is_made_anew() {
    for lost in ["tail", "start"] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path()).await;
        let file = dir.path().join("orders").join(lost);
        std::fs::remove_file(&file).unwrap();
        let log = open(dir.path());
        let topic = Bus::new(log.clone()).topic("orders").await.unwrap();
        let (read, error) = count(&topic, false).await;
        assert!(error.is_none(), "{lost}: {error:?}");
        assert_eq!(read, 16, "{lost}");
        assert!(!file.exists(), "reading changes nothing");
        log.verify(topic.name()).await.unwrap();
        // One that waits at the end is told of what is appended then.
        let mut follow = topic.follow(topic.end().await.unwrap()).await.unwrap();
        let other = Bus::new(open(dir.path()));
        let writer = other.topic("orders").await.unwrap();
        writer.append(Record::new("more")).await.unwrap();
        assert!(file.exists(), "{lost}");
        let more = tokio::time::timeout(GRACE, follow.next()).await.unwrap();
        assert_eq!(more.unwrap().unwrap().value(), b"more");
        assert_eq!(count(&writer, false).await.0, 17, "{lost}");
        assert_eq!(count(&topic, false).await.0, 17, "{lost}");
    }
}

#[tokio::test]
async fn a_lost_start_of_a_trimmed_topic_is_corrupt_and_no_topic_that_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let segments = written(dir.path()).await;
    std::fs::remove_file(&segments[0]).unwrap();
    std::fs::remove_file(dir.path().join("orders/start")).unwrap();
    let bus = Bus::new(open(dir.path()));
    for create in [false, true] {
        let topic = bus.topic("orders");
        let topic = if create {
            topic.create_if_missing()
        } else {
            topic
        };
        let error = topic.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("\"start\""), "{error}");
    }
}

#[tokio::test]
async fn a_group_that_has_lost_its_cursor_is_corrupt_and_not_new() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path()).await;
    std::fs::remove_file(dir.path().join("orders/groups/billing/cursor")).unwrap();
    let log = open(dir.path());
    let topic = Bus::new(log.clone()).topic("orders").await.unwrap();
    let billing = Group::new("billing").unwrap();
    let asked = [
        topic.subscribe("billing").await.err(),
        log.create_group(topic.name(), &billing, None).await.err(),
        log.group_lag(topic.name(), &billing).await.err(),
    ];
    for error in asked {
        assert_eq!(error.unwrap().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_topic_that_is_there_but_perhaps_not_durably_is_unknown() {
    let disk = FaultyDisk::new(Clock::system());
    let builder = Builder::memory().disk(Arc::new(disk.clone()), "root");
    let bus = Bus::new(builder.build().unwrap());
    bus.topic("first").create_if_missing().await.unwrap();
    // The new directory's is the first sync of a directory, the root's the second.
    disk.faults()
        .inject(Fault::new(Call::SyncDir).skip(1).errno(24));
    let error = bus.topic("orders").create_if_missing().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Blocked, "{error}");
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    bus.topic("orders").await.unwrap();
}
