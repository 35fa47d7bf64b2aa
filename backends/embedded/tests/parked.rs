//! What is parked, dropped or hangs holds nobody else up, and a reading that ends at a moment has
//! waited for what came before it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use annals_core::driver::{
    Admin, AppendOptions, Backend, Budget, Fetched, ReadRange, Reader, Room, Stop, TopicSpec,
};
use annals_core::{Batch, Clock, Outcome, Record, Recorded, Start, Timestamp, TopicName};
use annals_embedded::disk::{Faults, FaultyDisk};
use annals_embedded::{Builder, Embedded};

/// Longer than anything takes that is not stuck.
const STUCK: Duration = Duration::from_secs(20);
const ROOM: Room = Room {
    records: 1000,
    bytes: 1 << 20,
};

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn on(disk: &FaultyDisk) -> Embedded {
    Builder::memory()
        .disk(Arc::new(disk.clone()), "root")
        .build()
        .unwrap()
}

async fn append(log: &Embedded, topic: &TopicName, value: &str) -> u64 {
    let batch = Batch::from(Record::new(value));
    let options = AppendOptions::default();
    let append = log.append(topic, &batch, &options);
    let report = tokio::time::timeout(STUCK, append)
        .await
        .unwrap_or_else(|_| panic!("stuck: {value}"))
        .unwrap();
    match report.into_outcomes().remove(0) {
        Outcome::Stored(stored) => stored.position.unwrap().number_u64().unwrap(),
        other => panic!("{value}: {other:?}"),
    }
}

/// Polls once.
async fn once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Every call that may wait in a topic's line, polled once and parked for ever.
#[tokio::test]
async fn a_parked_call_holds_no_append_up() {
    let (busy, quiet) = (topic("busy"), topic("quiet"));
    let spec = TopicSpec::default();
    for parked in 0..4 {
        let disk = FaultyDisk::new(Clock::system());
        let log = on(&disk);
        for name in [&busy, &quiet] {
            log.create(name, &spec).await.unwrap();
        }
        log.close(STUCK).await.unwrap();
        // Writes here, and has not opened the quiet topic yet.
        let log = on(&disk);
        append(&log, &busy, "a").await;
        let batch = Batch::from(Record::new("parked"));
        let options = AppendOptions::default();
        let mut call: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match parked {
            0 => Box::pin(async { drop(log.append(&quiet, &batch, &options).await) }),
            1 => Box::pin(async { drop(log.capabilities(&quiet).await) }),
            2 => Box::pin(async { drop(log.create(&quiet, &spec).await) }),
            _ => Box::pin(async {
                log.lag_of(&quiet).await;
            }),
        };
        let _ = once(&mut call).await;
        let at = append(&log, &quiet, "b").await;
        assert_eq!(at, u64::from(parked == 0), "the order of the first polls");
        append(&log, &busy, "c").await;
        // And who waits behind a parked one in the line.
        let mut waiting = Vec::new();
        for value in ["d", "e"] {
            let mut next = Box::pin(append(&log, &quiet, value));
            let _ = once(&mut next).await;
            waiting.push(next);
        }
        let last = append(&log, &quiet, "f").await;
        assert_eq!(last, at + 3);
        drop((call, waiting));
    }
}

/// The same with a creation that waits behind a deletion.
#[tokio::test]
async fn a_parked_creation_or_deletion_holds_nobody_up() {
    let name = topic("orders");
    let spec = TopicSpec::default();
    let disk = FaultyDisk::new(Clock::system());
    let log = on(&disk);
    log.create(&name, &spec).await.unwrap();
    let mut delete = Box::pin(log.delete(&name));
    assert!(once(&mut delete).await.is_pending());
    let mut create = Box::pin(log.create(&name, &spec));
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    let _ = once(&mut create).await;
    let made = tokio::time::timeout(STUCK, log.create(&name, &spec));
    made.await.unwrap_or_else(|_| panic!("stuck")).unwrap();
    drop((delete, create));
}

trait LagOf {
    async fn lag_of(&self, topic: &TopicName) -> u64;
}

impl LagOf for Embedded {
    async fn lag_of(&self, topic: &TopicName) -> u64 {
        let cursor = self.locate(topic, &Start::Beginning).await.unwrap();
        let mut lag = self.lag(topic, &cursor).await.unwrap();
        lag.remove(0).records.unwrap()
    }
}

async fn before(log: &Embedded, name: &TopicName, time: Timestamp) -> Box<dyn Reader> {
    let range = ReadRange {
        from: log.locate(name, &Start::Beginning).await.unwrap(),
        stop: Stop::Before(time),
        partitions: None,
        key: None,
        budget: Budget::new(1 << 20),
    };
    log.read(name, &range).await.unwrap().reader
}

fn values(records: &[Recorded]) -> Vec<String> {
    let text = |r: &Recorded| String::from_utf8(r.value().to_vec()).unwrap();
    records.iter().map(text).collect()
}

struct Stalled(Faults);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// An append is stamped, the clock passes the moment, and only then the append becomes durable:
/// the reader of the writer's process and the one of another wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_a_moment_is_all_that_was_stamped_before_it() {
    let clock = Clock::moved(Timestamp::from_millis(1_000));
    let disk = FaultyDisk::new(clock.clone());
    let name = topic("orders");
    let (writer, other) = (on(&disk), on(&disk));
    writer.create(&name, &TopicSpec::default()).await.unwrap();
    append(&writer, &name, "a").await;
    let faults = disk.faults();
    faults.stall(".seg");
    // A test that fails must not wait for the sync that it holds up.
    let stalled = Stalled(faults.clone());
    let late = {
        let (writer, name) = (writer.clone(), name.clone());
        tokio::spawn(async move { append(&writer, &name, "b").await })
    };
    let met = faults.clone();
    tokio::task::spawn_blocking(move || met.stalled())
        .await
        .unwrap();
    clock.advance(Duration::from_millis(10));
    let moment = Timestamp::from_millis(1_005);
    let (mut tasks, mut caught_up) = (Vec::new(), Vec::new());
    for log in [&writer, &other] {
        let mut reader = before(log, &name, moment).await;
        let (told, hears) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        caught_up.push(hears);
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                match reader.fetch(ROOM, &mut seen).await.unwrap() {
                    Fetched::CaughtUp => drop(told.take().unwrap().send(())),
                    Fetched::End => return values(&seen),
                    _ => {}
                }
            }
        }));
    }
    for told in caught_up {
        told.await.unwrap();
    }
    assert!(tasks.iter().all(|task| !task.is_finished()));
    drop(stalled);
    late.await.unwrap();
    for task in tasks {
        let seen = tokio::time::timeout(STUCK, task).await;
        assert_eq!(seen.unwrap().unwrap(), ["a", "b"]);
    }
}
