//! The backend through the contract, on a real directory, in memory and on a failing disk.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use annals_core::capability::{ByKey, Dedupe, Durability, Replay, Retention};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Budget, Expect, Fetched, Opened, ReadRange, Room, Stop,
    TopicSpec,
};
use annals_core::{
    Batch, Clock, Cursor, Effect, ErrorKind, Frontier, Group, Outcome, PartitionId, Position,
    Record, Recorded, Result, Start, Timestamp, TopicName,
};
use annals_embedded::disk::{Call, Disk, Fault, FaultyDisk};
use annals_embedded::log::Sizes;
use annals_embedded::{Builder, Embedded};

const GRACE: Duration = Duration::from_secs(20);
const ROOM: Room = Room {
    records: 1000,
    bytes: 1 << 20,
};

type Appending = Pin<Box<dyn Future<Output = Position>>>;

fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

fn spec() -> TopicSpec {
    TopicSpec::default()
}

fn small() -> Sizes {
    Sizes {
        segment: 8 << 10,
        reserve_first: 4 << 10,
        reserve_most: 8 << 10,
        group: 4 << 10,
        page: 4 << 10,
        ..Sizes::default()
    }
}

fn faulty() -> (FaultyDisk, Clock) {
    let clock = Clock::moved(Timestamp::from_millis(1_000_000));
    (FaultyDisk::new(clock.clone()), clock)
}

fn on(disk: &FaultyDisk) -> Embedded {
    Builder::memory()
        .disk(Arc::new(disk.clone()), "root")
        .sizes(small())
        .build()
        .unwrap()
}

async fn append(log: &Embedded, value: impl AsRef<str>) -> Outcome {
    let batch = Batch::from(Record::new(value.as_ref()).key("k"));
    match log
        .append(&topic(), &batch, &AppendOptions::default())
        .await
    {
        Ok(report) => report.into_outcomes().remove(0),
        Err(e) => Outcome::Rejected(e),
    }
}

async fn stored(log: &Embedded, value: impl AsRef<str>) -> Position {
    let outcome = append(log, value).await;
    let stored = outcome.stored().unwrap_or_else(|| panic!("{outcome:?}"));
    stored.position.unwrap()
}

async fn open(log: &Embedded, start: Start, stop: Stop) -> Result<Opened> {
    let from = log.locate(&topic(), &start).await?;
    log.read(
        &topic(),
        &ReadRange {
            from,
            stop,
            partitions: None,
            key: None,
            budget: Budget::new(1 << 20),
        },
    )
    .await
}

/// Everything up to `End`, with the signals on the way.
async fn read(log: &Embedded, start: Start, stop: Stop) -> Result<(Vec<Recorded>, Vec<Fetched>)> {
    let mut opened = open(log, start, stop).await?;
    let (mut records, mut signals) = (Vec::new(), Vec::new());
    loop {
        match opened.reader.fetch(ROOM, &mut records).await? {
            Fetched::Records => {}
            Fetched::End => {
                // It says so again.
                let again = opened.reader.fetch(ROOM, &mut records).await?;
                assert_eq!(again, Fetched::End);
                return Ok((records, signals));
            }
            signal => signals.push(signal),
        }
    }
}

fn values(records: &[Recorded]) -> Vec<String> {
    let text = |r: &Recorded| String::from_utf8(r.value().to_vec()).unwrap();
    records.iter().map(text).collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_directory_is_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let log = Builder::directory(&path).build().unwrap();
    assert!(log.topics().await.unwrap().is_empty());
    assert_eq!(kind(log.capabilities(&topic()).await), ErrorKind::NotFound);
    assert_eq!(
        kind(open(&log, Start::Latest, Stop::End).await),
        ErrorKind::NotFound
    );
    assert!(!path.exists(), "looking makes nothing");

    assert!(log.create(&topic(), &spec()).await.unwrap());
    assert!(!log.create(&topic(), &spec()).await.unwrap());
    assert_eq!(log.topics().await.unwrap(), [topic()]);
    for n in 0..3 {
        let at = stored(&log, n.to_string()).await;
        assert_eq!(at, Position::new(PartitionId::ONLY, n));
    }
    let (records, signals) = read(&log, Start::Beginning, Stop::End).await.unwrap();
    assert_eq!(values(&records), ["0", "1", "2"]);
    assert_eq!(signals, [Fetched::CaughtUp]);
    let first = records[0].position().unwrap();
    let description = log.describe(&topic()).await.unwrap();
    let end = description.end.unwrap();
    assert_eq!(end.covers(&first), Some(true));
    assert_eq!(
        description.capabilities.durability,
        Durability::Fsynced.into()
    );
    log.close(GRACE).await.unwrap();
    log.close(GRACE).await.unwrap();
    assert_eq!(
        append(&log, "x").await.error().unwrap().kind(),
        ErrorKind::Closed
    );
    assert_eq!(kind(log.capabilities(&topic()).await), ErrorKind::Closed);

    let log = Builder::directory(&path).build().unwrap();
    let (records, _) = read(&log, Start::After(end), Stop::End).await.unwrap();
    assert!(records.is_empty());
    assert_eq!(stored(&log, "3").await, Position::new(PartitionId::ONLY, 3));
}

#[tokio::test]
async fn one_writes_and_others_read() {
    let (disk, _clock) = faulty();
    let (one, two) = (on(&disk), on(&disk));
    one.create(&topic(), &spec()).await.unwrap();
    stored(&one, "a").await;
    let (records, _) = read(&two, Start::Earliest, Stop::End).await.unwrap();
    assert_eq!(values(&records), ["a"]);

    let mut follow = open(&two, Start::Beginning, Stop::Never)
        .await
        .unwrap()
        .reader;
    let mut seen = Vec::new();
    assert_eq!(
        follow.fetch(ROOM, &mut seen).await.unwrap(),
        Fetched::Records
    );
    assert_eq!(
        follow.fetch(ROOM, &mut seen).await.unwrap(),
        Fetched::CaughtUp
    );
    let wait = tokio::spawn(async move {
        while seen.len() < 2 {
            follow.fetch(ROOM, &mut seen).await.unwrap();
        }
        seen
    });
    stored(&one, "b").await;
    assert_eq!(values(&wait.await.unwrap()), ["a", "b"]);

    // On a disk of tests both are one process, so the first waits for itself for a while.
    let refused = append(&two, "c").await;
    let refused = refused.error().unwrap();
    assert_eq!(
        (refused.kind(), refused.effect()),
        (ErrorKind::Denied, Effect::None)
    );
    let pid = format!("pid {}", std::process::id());
    assert!(refused.to_string().contains(&pid), "{refused}");
    one.close(GRACE).await.unwrap();
    stored(&two, "c").await;
}

#[tokio::test]
async fn handles_of_one_process_share_a_directory_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let one = Builder::directory(&path).build().unwrap();
    let two = Builder::directory(dir.path().join(".").join("log"))
        .build()
        .unwrap();
    one.create(&topic(), &spec()).await.unwrap();
    stored(&one, "a").await;
    stored(&two, "b").await;
    one.close(GRACE).await.unwrap();
    stored(&two, "c").await;
    let odd = Builder::directory(&path).segment(1 << 20).build();
    assert_eq!(kind(odd), ErrorKind::Config);
    drop(two);
    let three = Builder::directory(&path).segment(1 << 20).build().unwrap();
    let (records, _) = read(&three, Start::Beginning, Stop::End).await.unwrap();
    assert_eq!(values(&records), ["a", "b", "c"]);
    stored(&three, "d").await;

    let named = |name: &str| {
        let url = format!("memory:{name}").parse().unwrap();
        Builder::new(annals_embedded::Config::of(&url).unwrap())
            .build()
            .unwrap()
    };
    let (one, two, own) = (named("shared-here"), named("shared-here"), named(""));
    one.create(&topic(), &spec()).await.unwrap();
    assert_eq!(two.topics().await.unwrap(), [topic()]);
    assert!(own.topics().await.unwrap().is_empty());
    let promised = two.capabilities(&topic()).await.unwrap();
    assert_eq!(promised.durability, Durability::Memory.into());
    drop((one, two));
    assert!(named("shared-here").topics().await.unwrap().is_empty());
}

#[tokio::test]
async fn bad_directories_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let log = Builder::directory(&path).build().unwrap();
        let error = log.create(&topic(), &spec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(error.effect(), Effect::None);
    }
}

#[tokio::test]
async fn cursors_of_others_are_refused() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    stored(&log, "a").await;
    let old = log.locate(&topic(), &Start::Latest).await.unwrap();
    let other = TopicName::new("other").unwrap();
    log.create(&other, &spec()).await.unwrap();
    let start = Start::After(old.clone());
    assert_eq!(kind(log.locate(&other, &start).await), ErrorKind::Config);

    log.delete(&topic()).await.unwrap();
    assert_eq!(kind(log.delete(&topic()).await), ErrorKind::NotFound);
    assert_eq!(
        kind(log.locate(&topic(), &start).await),
        ErrorKind::NotFound
    );
    log.create(&topic(), &spec()).await.unwrap();
    assert_eq!(kind(log.locate(&topic(), &start).await), ErrorKind::Config);
    let options = AppendOptions {
        expect: Some(Expect::End(old)),
        ..AppendOptions::default()
    };
    let batch = Batch::from(Record::new("b"));
    assert_eq!(
        kind(log.append(&topic(), &batch, &options).await),
        ErrorKind::Config
    );
    assert_eq!(stored(&log, "b").await, Position::new(PartitionId::ONLY, 0));
}

#[tokio::test]
async fn conditions_hold_or_conflict() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    let end = |log: Embedded| async move { log.locate(&topic(), &Start::Latest).await.unwrap() };
    let append_if = |expect: Expect| {
        let log = log.clone();
        async move {
            let options = AppendOptions {
                expect: Some(expect),
                ..AppendOptions::default()
            };
            let batch = Batch::from(Record::new("x").key("k"));
            log.append(&topic(), &batch, &options)
                .await
                .unwrap()
                .into_outcomes()
                .remove(0)
        }
    };
    let empty = end(log.clone()).await;
    assert!(
        append_if(Expect::End(empty.clone()))
            .await
            .stored()
            .is_some()
    );
    let late = append_if(Expect::End(empty)).await;
    assert_eq!(late.error().unwrap().kind(), ErrorKind::Conflict);
    let key_at = |last| Expect::KeyAt {
        key: "k".into(),
        last,
    };
    let at = |n| Some(Position::new(PartitionId::ONLY, n));
    assert!(append_if(key_at(None)).await.error().is_some());
    assert!(append_if(key_at(at(0))).await.stored().is_some());
    assert!(append_if(key_at(at(0))).await.error().is_some());
    assert!(
        append_if(Expect::End(end(log.clone()).await))
            .await
            .stored()
            .is_some()
    );
}

#[tokio::test]
async fn appends_keep_the_order_of_their_first_polls_while_the_log_opens() {
    for _ in 0..20 {
        let (disk, _clock) = faulty();
        {
            let log = on(&disk);
            log.create(&topic(), &spec()).await.unwrap();
            log.close(GRACE).await.unwrap();
        }
        let log = on(&disk);
        let mut waiting: Vec<(u64, Appending)> = Vec::new();
        let mut at = Vec::new();
        for n in 0..10 {
            let log = log.clone();
            let mut append: Appending = Box::pin(async move { stored(&log, n.to_string()).await });
            match std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await {
                Poll::Ready(position) => at.push((n, position)),
                Poll::Pending => waiting.push((n, append)),
            }
            tokio::task::yield_now().await;
        }
        // The last first: who is polled again later is not stored later.
        for (n, append) in waiting.into_iter().rev() {
            at.push((n, append.await));
        }
        for (n, position) in at {
            assert_eq!(position, Position::new(PartitionId::ONLY, n));
        }
    }
}

#[tokio::test]
async fn a_dropped_fetch_loses_nothing_and_room_is_kept() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    let all: Vec<String> = (0..200).map(|n| format!("{n:020}")).collect();
    for value in &all {
        stored(&log, value).await;
    }
    let mut reader = open(&log, Start::Beginning, Stop::End)
        .await
        .unwrap()
        .reader;
    let mut seen = Vec::new();
    let mut n = 0;
    loop {
        n += 1;
        let room = Room {
            records: 1 + n % 7,
            bytes: 100,
        };
        let before = seen.len();
        let result = {
            let mut fetch = std::pin::pin!(reader.fetch(room, &mut seen));
            if n % 2 == 0 {
                let first = std::future::poll_fn(|cx| Poll::Ready(fetch.as_mut().poll(cx)));
                match first.await {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                }
            } else {
                Some(fetch.await)
            }
        };
        assert!(seen.len() - before <= room.records);
        match result {
            None => tokio::task::yield_now().await,
            Some(result) => {
                if result.unwrap() == Fetched::End {
                    break;
                }
            }
        }
    }
    assert_eq!(values(&seen), all);
}

#[tokio::test]
async fn times_are_places() {
    let (disk, clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    let mut times = Vec::new();
    for n in 0..4 {
        times.push(clock.now());
        stored(&log, n.to_string()).await;
        clock.advance(Duration::from_millis(10));
    }
    for (n, time) in times.iter().enumerate() {
        let (before, _) = read(&log, Start::Beginning, Stop::Before(*time))
            .await
            .unwrap();
        let (since, signals) = read(&log, Start::Since(*time), Stop::End).await.unwrap();
        assert_eq!(before.len(), n);
        assert_eq!(since.len(), 4 - n);
        assert_eq!(signals, [Fetched::CaughtUp]);
    }
    let (all, _) = read(&log, Start::Beginning, Stop::Before(clock.now()))
        .await
        .unwrap();
    assert_eq!(all.len(), 4);
    let lag = |start| {
        let log = log.clone();
        async move {
            let cursor = log.locate(&topic(), &start).await.unwrap();
            log.lag(&topic(), &cursor).await.unwrap().remove(0)
        }
    };
    let behind = lag(Start::Since(times[1])).await;
    assert_eq!(
        (behind.records, behind.age),
        (Some(3), Some(Duration::from_millis(30)))
    );
    let none = lag(Start::Latest).await;
    assert_eq!((none.records, none.age), (Some(0), None));
    assert_eq!(lag(Start::Beginning).await.records, Some(4));
}

#[tokio::test]
async fn retention_lets_go_of_whole_segments_and_readers_hear_of_it() {
    let (disk, clock) = faulty();
    let log = on(&disk);
    let keep = TopicSpec {
        retention: Some(Retention::Age(Duration::from_secs(60))),
        ..spec()
    };
    log.create(&topic(), &keep).await.unwrap();
    let promised = log.capabilities(&topic()).await.unwrap();
    let limit = Retention::Age(Duration::from_secs(60));
    assert_eq!(promised.replay, Replay::Retained(limit).into());
    let value = "x".repeat(1000);
    for _ in 0..20 {
        stored(&log, &value).await;
    }
    let mut slow = open(&log, Start::Beginning, Stop::Never)
        .await
        .unwrap()
        .reader;
    let one = Room {
        records: 1,
        bytes: 1,
    };
    let mut seen = Vec::new();
    assert_eq!(slow.fetch(one, &mut seen).await.unwrap(), Fetched::Records);
    clock.advance(Duration::from_secs(120));
    for _ in 0..20 {
        stored(&log, &value).await;
    }
    let earliest = || async {
        let (records, signals) = read(&log, Start::Earliest, Stop::End).await.unwrap();
        assert_eq!(
            signals,
            [Fetched::CaughtUp],
            "no gap is told to who accepts it"
        );
        records[0].position().unwrap().number_u64().unwrap()
    };
    let kept = || async {
        let details = log.describe(&topic()).await.unwrap().details;
        let kept = details.into_iter().find(|(name, _)| *name == "earliest");
        kept.unwrap().1
    };
    while kept().await == "0" {
        tokio::task::yield_now().await;
    }
    let earliest = earliest().await;
    assert!((15..=20).contains(&earliest), "{earliest}");
    let (records, signals) = read(&log, Start::Beginning, Stop::End).await.unwrap();
    let to = Some(Position::new(PartitionId::ONLY, earliest));
    let gap = |from| Fetched::Gap {
        partition: PartitionId::ONLY,
        from,
        to,
    };
    assert_eq!(signals, [gap(Frontier::START), Fetched::CaughtUp]);
    assert_eq!(records[0].position(), to);

    // The one in the middle reads on, as far as it is still there, and is told where it is not.
    let mut gaps = 0;
    while seen.last().and_then(Recorded::position) != Some(Position::new(PartitionId::ONLY, 39)) {
        if let Fetched::Gap { to: behind, .. } = slow.fetch(one, &mut seen).await.unwrap() {
            assert_eq!(behind, to);
            gaps += 1;
        }
    }
    assert_eq!(gaps, 1);
    // The next process sees the same.
    let next = on(&disk.after_kill());
    let (records, _) = read(&next, Start::Earliest, Stop::End).await.unwrap();
    assert_eq!(records[0].position(), to);
}

#[tokio::test]
async fn topics_are_as_asked_for_or_refused() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    let odd = [
        TopicSpec {
            partitions: Some(2),
            ..spec()
        },
        TopicSpec {
            kind: Some("compacted".into()),
            ..spec()
        },
    ];
    for spec in odd {
        assert_eq!(
            kind(log.create(&topic(), &spec).await),
            ErrorKind::Unsupported
        );
    }
    assert!(log.topics().await.unwrap().is_empty());
    let asked = TopicSpec {
        partitions: Some(1),
        dedupe: Some(Duration::from_secs(60)),
        groups: vec![Group::new("billing").unwrap()],
        ..spec()
    };
    assert!(log.create(&topic(), &asked).await.unwrap());
    assert!(!log.create(&topic(), &asked).await.unwrap());
    let promised = log.capabilities(&topic()).await.unwrap();
    assert_eq!(
        promised.append.dedupe,
        Dedupe::Window(Duration::from_secs(60)).into()
    );
    assert_eq!(promised.by_key, ByKey::Indexed.into());
    let other = TopicSpec {
        dedupe: Some(Duration::from_secs(61)),
        ..spec()
    };
    let error = log.create(&topic(), &other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("60s"), "{error}");
    // A name that the log's own files could be taken for.
    for name in ["lock", "tail", "start", "groups", "new-x"] {
        let name = TopicName::new(name).unwrap();
        assert!(log.create(&name, &spec()).await.unwrap());
    }
}

#[tokio::test]
async fn a_directory_that_holds_no_topic_is_none_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let log = Builder::directory(dir.path()).build().unwrap();
    let [empty, foreign] = ["empty", "foreign"].map(|name| TopicName::new(name).unwrap());
    let file = dir.path().join("foreign/notes.txt");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::create_dir(dir.path().join("foreign")).unwrap();
    std::fs::write(&file, "mine").unwrap();

    assert_eq!(log.topics().await.unwrap(), []);
    for name in [&empty, &foreign] {
        assert_eq!(kind(log.describe(name).await), ErrorKind::NotFound);
        assert_eq!(kind(log.delete(name).await), ErrorKind::NotFound);
    }
    let error = log.create(&foreign, &spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("something else"), "{error}");
    assert!(log.create(&empty, &spec()).await.unwrap());
    assert_eq!(log.topics().await.unwrap(), [empty]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    log.close(GRACE).await.unwrap();
}

#[tokio::test]
async fn groups_are_administered() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    let billing = Group::new("billing").unwrap();
    for n in 0..3 {
        stored(&log, n.to_string()).await;
    }
    assert_eq!(
        kind(log.group_lag(&topic(), &billing).await),
        ErrorKind::NotFound
    );
    assert!(
        log.create_group(&topic(), &billing, Some(Start::Latest))
            .await
            .unwrap()
    );
    assert!(!log.create_group(&topic(), &billing, None).await.unwrap());
    stored(&log, "3").await;
    let lag = log.group_lag(&topic(), &billing).await.unwrap();
    assert_eq!(lag[0].records, Some(1));
    let groups = log.groups(&topic()).await.unwrap();
    assert_eq!(groups[0].group, billing);
    let at = Position::new(PartitionId::ONLY, 2);
    let committed: &Cursor = groups[0].committed.as_ref().unwrap();
    assert_eq!(committed.covers(&at), Some(true));
    assert!(
        log.leases(&topic())
            .unwrap()
            .load(&billing)
            .await
            .unwrap()
            .is_some()
    );
    log.delete_group(&topic(), &billing).await.unwrap();
    assert!(log.groups(&topic()).await.unwrap().is_empty());
}

#[tokio::test]
async fn creation_and_deletion_are_whole_whenever_the_power_goes() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    disk.record();
    log.create(&topic(), &spec()).await.unwrap();
    let made = disk.recorded();
    stored(&log, "a").await;
    let written = disk.recorded();
    log.delete(&topic()).await.unwrap();
    let history = disk.history();
    let mut moments = history.moments();
    loop {
        let lost = (0..3).map(|seed| moments.after_power_loss(seed));
        for crashed in lost.chain([moments.after_kill()]) {
            let left = on(&crashed);
            let there = !left.topics().await.unwrap().is_empty();
            assert!(there || moments.at() < made || moments.at() > written);
            assert!(!there || moments.at() < history.len());
            if there {
                let (records, _) = read(&left, Start::Beginning, Stop::End).await.unwrap();
                assert!(moments.at() != written || values(&records) == ["a"]);
            } else {
                assert!(left.create(&topic(), &spec()).await.unwrap());
            }
            stored(&left, "b").await;
            left.delete(&topic()).await.unwrap();
            left.close(GRACE).await.unwrap();
            // Nothing is left but the lock.
            let entries = crashed.list("root".as_ref()).unwrap();
            assert_eq!(entries.len(), 1, "{entries:?}");
        }
        if !moments.step() {
            break;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_blocked_and_a_failed_sync_closes_the_log() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    stored(&log, "a").await;
    disk.faults().room(Some(0));
    let mut full = append(&log, "x").await;
    for _ in 0..1000 {
        if full.stored().is_none() {
            break;
        }
        full = append(&log, "x".repeat(100)).await;
    }
    assert!(matches!(full, Outcome::Rejected(_)), "{full:?}");
    assert_eq!(full.error().unwrap().kind(), ErrorKind::Blocked);
    disk.faults().room(None);
    stored(&log, "y").await;

    disk.faults()
        .inject(Fault::new(Call::Sync).on(".seg").errno(28));
    let lost = append(&log, "b").await;
    assert!(matches!(lost, Outcome::Unknown(_)), "{lost:?}");
    let closed = append(&log, "c").await;
    assert_eq!(closed.error().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(disk.faults().fired(), 1);
    log.close(GRACE).await.ok();
    let log = on(&disk);
    let (records, _) = read(&log, Start::Beginning, Stop::End).await.unwrap();
    assert!(records.len() >= 2);
    stored(&log, "d").await;
}

/// Also those of another process, for which a topic of the same name is not the same topic.
#[tokio::test]
async fn a_topic_made_anew_ends_the_followers_of_the_old_one() {
    let (disk, _clock) = faulty();
    let (one, two) = (on(&disk), on(&disk));
    one.create(&topic(), &spec()).await.unwrap();
    stored(&one, "a").await;
    let mut follow = open(&two, Start::Beginning, Stop::Never)
        .await
        .unwrap()
        .reader;
    let mut seen = Vec::new();
    while follow.fetch(ROOM, &mut seen).await.unwrap() != Fetched::CaughtUp {}
    one.delete(&topic()).await.unwrap();
    one.create(&topic(), &spec()).await.unwrap();
    stored(&one, "b").await;
    let ended = tokio::time::timeout(GRACE, follow.fetch(ROOM, &mut seen)).await;
    assert_eq!(kind(ended.unwrap()), ErrorKind::NotFound);
    assert_eq!(values(&seen), ["a"]);
}

#[tokio::test]
async fn a_deleted_topic_ends_its_followers() {
    let (disk, _clock) = faulty();
    let log = on(&disk);
    log.create(&topic(), &spec()).await.unwrap();
    let mut follow = open(&log, Start::Beginning, Stop::Never)
        .await
        .unwrap()
        .reader;
    let mut seen = Vec::new();
    assert_eq!(
        follow.fetch(ROOM, &mut seen).await.unwrap(),
        Fetched::CaughtUp
    );
    let ended = tokio::spawn(async move { follow.fetch(ROOM, &mut seen).await });
    tokio::task::yield_now().await;
    log.delete(&topic()).await.unwrap();
    let error = ended.await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Closed | ErrorKind::NotFound),
        "{error}"
    );
}

#[tokio::test]
async fn verify_counts_what_is_whole_and_names_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = Builder::directory(dir.path()).build().unwrap();
    log.create(&topic(), &spec()).await.unwrap();
    for n in 0..5 {
        stored(&log, format!("value {n}")).await;
    }
    let written = log.verify(&topic()).await.unwrap();
    assert_eq!((written.segments, written.records), (1, 5));
    log.close(GRACE).await.unwrap();

    let path = dir.path().join("orders/00000000000000000000.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let broken = bytes
        .windows(7)
        .position(|window| window == b"value 3")
        .unwrap();
    bytes[broken] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let log = Builder::directory(dir.path()).build().unwrap();
    let error = log.verify(&topic()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .to_string()
            .starts_with("file read \"orders\": a stored record is broken in 00000000000000000000.seg at position 0@3"),
        "{error}"
    );
    let nowhere = TopicName::new("nowhere").unwrap();
    let error = log.verify(&nowhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
