//! Bad input and bad disks: a clear error, nothing lost.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Bus, Clock, Effect, Error, ErrorKind, Record, Start, Topic};
use annals_embedded::disk::{Call, Fault, FaultyDisk};
use annals_embedded::{Builder, Config, Embedded};

const EACCES: i32 = 13;
const EROFS: i32 = 30;
const GRACE: Duration = Duration::from_secs(20);

fn at(root: &Path) -> Embedded {
    Builder::directory(root).build().unwrap()
}

fn on(disk: &FaultyDisk) -> Bus {
    let builder = Builder::memory().disk(Arc::new(disk.clone()), "root");
    Bus::new(builder.build().unwrap())
}

async fn values(topic: &Topic) -> (Vec<String>, Option<Error>) {
    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    let mut values = Vec::new();
    loop {
        match replay.next().await {
            Ok(Some(record)) => values.push(String::from_utf8_lossy(record.value()).into_owned()),
            Ok(None) => return (values, None),
            Err(e) => return (values, Some(e)),
        }
    }
}

#[tokio::test]
async fn names_that_could_be_paths_are_refused_before_the_disk_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let bus = Bus::new(at(&root));
    let long = "x".repeat(129);
    for name in [
        "",
        long.as_str(),
        "a/b",
        "a\\b",
        "..",
        "../up",
        ".",
        ".lock",
        ".new-a",
        "a..b",
        "a b",
        "a\0",
        "\u{e9}",
    ] {
        let error = bus.topic(name).create_if_missing().await.unwrap_err();
        let told = (error.kind(), error.effect());
        assert_eq!(told, (ErrorKind::Config, Effect::None), "{name:?}: {error}");
        assert!(error.to_string().contains("name of a topic"), "{error}");
    }
    assert!(!root.exists());
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    for name in ["", "a/b", "..", ".new"] {
        let error = topic.subscribe(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}: {error}");
    }
    assert!(!root.join("orders").join("groups").exists());
}

#[tokio::test]
async fn a_record_over_the_limit_is_too_large_and_stores_nothing() {
    let bus = on(&FaultyDisk::new(Clock::system()));
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    let limit = topic.capabilities().limits.record_bytes.known();
    let limit = usize::try_from(limit.copied().unwrap().unwrap()).unwrap();
    let error = topic
        .append([Record::new("a"), Record::new(vec![0; limit + 1])])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    topic.append(Record::new("b")).await.unwrap();
    let (read, _) = values(&topic).await;
    let stored = error.outcomes().iter().filter(|o| o.stored().is_some());
    assert_eq!(read.len(), 1 + stored.count());
    assert_eq!(read.last().map(String::as_str), Some("b"));
    topic.append(Record::new(vec![b'x'; limit])).await.unwrap();
    let (read, _) = values(&topic).await;
    assert_eq!(read.last().unwrap().len(), limit);
}

#[tokio::test]
async fn a_disk_that_may_only_be_read_is_denied_to_writers_and_read_by_readers() {
    for errno in [EACCES, EROFS] {
        let disk = FaultyDisk::new(Clock::system());
        let deny = || {
            for call in [Call::CreateDir, Call::Lock, Call::Write, Call::Reserve] {
                let fault = Fault::new(call).times(u64::MAX).errno(errno);
                disk.faults().inject(fault);
            }
        };
        deny();
        let error = on(&disk).topic("orders").create_if_missing().await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Denied);
        disk.faults().clear();
        let bus = on(&disk);
        let topic = bus.topic("orders").create_if_missing().await.unwrap();
        topic.append(Record::new("a")).await.unwrap();
        bus.close(GRACE).await.unwrap();
        deny();
        let topic = on(&disk).topic("orders").await.unwrap();
        let error = topic.append(Record::new("b")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.effect(), Effect::None);
        let (read, error) = values(&topic).await;
        assert!(error.is_none());
        assert_eq!(read, ["a"]);
    }
}

/// The first segment of a topic with six records in batches of two, closed.
async fn written(root: &Path) -> PathBuf {
    let bus = Bus::new(at(root));
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    for n in 0..3 {
        let batch = [0, 1].map(|i| Record::new(format!("value {}", 2 * n + i)).key("k"));
        topic.append(batch).await.unwrap();
    }
    bus.close(GRACE).await.unwrap();
    root.join("orders/00000000000000000000.seg")
}

#[tokio::test]
async fn another_version_of_the_format_is_unsupported() {
    let dir = tempfile::tempdir().unwrap();
    let segment = written(dir.path()).await;
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[12..16].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[12..4096]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&segment, &bytes).unwrap();
    let bus = Bus::new(at(dir.path()));
    let asked = [
        bus.topic("orders").await.unwrap_err(),
        bus.topic("orders").create_if_missing().await.unwrap_err(),
    ];
    for error in asked {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
    }
    assert_eq!(
        std::fs::read(&segment).unwrap(),
        bytes,
        "nothing was changed"
    );
}

#[tokio::test]
async fn a_flipped_bit_is_corrupt_on_every_way_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let segment = written(root).await;
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.windows(7).position(|w| w == b"value 3").unwrap();
    bytes[place] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();
    let names = |error: &Error| {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(
            error.topic().map(ToString::to_string).as_deref(),
            Some("orders")
        );
        assert!(error.to_string().contains("0@3"), "{error}");
    };
    let log = at(root);
    let bus = Bus::new(log.clone());
    let topic = bus.topic("orders").await.unwrap();
    let (read, error) = values(&topic).await;
    assert_eq!(read, ["value 0", "value 1", "value 2"]);
    names(&error.unwrap());

    let billing = topic.subscribe("billing").await.unwrap();
    let mut handed = Vec::new();
    let error = loop {
        match billing.next().await {
            Ok(Some(delivery)) => {
                handed.push(String::from_utf8_lossy(delivery.value()).into_owned());
                delivery.done();
            }
            Ok(None) => panic!("it ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(handed, ["value 0", "value 1", "value 2"]);
    names(&error);
    // It is not passed over in silence afterwards either.
    if let Ok(Some(delivery)) = billing.next().await {
        panic!("{:?}", delivery.value());
    }

    let error = log.verify(topic.name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("orders"), "{error}");
    // Appending goes on behind it, and hides nothing.
    topic.append(Record::new("more")).await.unwrap();
    let (read, error) = values(&topic).await;
    assert_eq!(read.len(), 3);
    names(&error.unwrap());
}

/// A lost tail is neither waited for, at full speed or at all, nor taken for a shorter log.
#[tokio::test]
async fn a_last_segment_that_is_gone_or_emptied_is_corrupt() {
    for emptied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file:{}?segment=64KiB", dir.path().display());
        let config = Config::of(&url.parse().unwrap()).unwrap();
        let open = || Builder::new(config.clone()).build().unwrap();
        let bus = Bus::new(open());
        let topic = bus.topic("orders").create_if_missing().await.unwrap();
        for _ in 0..8 {
            topic
                .append(Record::new(vec![b'x'; 20_000]).key("k"))
                .await
                .unwrap();
        }
        bus.close(GRACE).await.unwrap();
        let mut segments: Vec<PathBuf> = std::fs::read_dir(dir.path().join("orders"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "seg"))
            .collect();
        segments.sort();
        let last = segments.pop().unwrap();
        assert!(!segments.is_empty());
        if emptied {
            std::fs::write(&last, b"").unwrap();
        } else {
            std::fs::remove_file(&last).unwrap();
        }
        let log = open();
        let topic = Bus::new(log.clone()).topic("orders").await.unwrap();
        let read = tokio::time::timeout(GRACE, values(&topic));
        let (read, error) = read.await.expect("it goes round and round");
        assert_eq!(
            error.expect("the lost records are told").kind(),
            ErrorKind::Corrupt
        );
        let first = last.file_stem().and_then(|name| name.to_str()).unwrap();
        assert_eq!(read.len(), first.parse::<usize>().unwrap(), "all before it");
        let mut keyed = topic.replay(Start::Beginning).key("k").await.unwrap();
        let error = tokio::time::timeout(GRACE, async {
            loop {
                match keyed.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ends as if nothing was lost"),
                    Err(error) => break error,
                }
            }
        });
        assert_eq!(error.await.unwrap().kind(), ErrorKind::Corrupt);
        let error = log.verify(topic.name()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_backend_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path()).await);
    let file = Bus::new(at(dir.path())).topic("orders").await.unwrap();
    let memory = Bus::new(Builder::memory().build().unwrap());
    let memory = memory.topic("orders").create_if_missing().await.unwrap();
    memory.append(Record::new("a")).await.unwrap();
    let theirs = memory.end().await.unwrap();
    let error = file.replay(theirs.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let error = file.subscribe("billing").start(theirs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let (read, _) = values(&file).await;
    assert_eq!(read.len(), 6);
}
