//! What the other processes do. They say one line for each thing that has happened.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use annals_core::driver::{Admin, AppendOptions, Backend, TopicSpec};
use annals_core::{
    Bus, ErrorKind, Outcome, Record, Signal, Start, Timestamp, Topic, TopicName, Until,
};
use annals_embedded::{Builder, Embedded};

use super::child::MARK;

pub(crate) const TOPIC: &str = "orders";

fn log(root: &Path) -> Embedded {
    Builder::directory(root).segment(64 << 10).build().unwrap()
}

pub(crate) fn bus(root: &Path) -> Bus {
    Bus::new(log(root))
}

pub(crate) fn say(line: impl std::fmt::Display) {
    // One write a line, so that a kill leaves whole lines.
    let line = format!("{MARK}{line}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The next line that it is told; `None` when there are no more.
fn hear() -> Option<String> {
    std::io::stdin().lines().next().map(Result::unwrap)
}

/// Waits for the topic, which another process makes.
async fn topic(bus: &Bus) -> Topic {
    loop {
        match bus.topic(TOPIC).await {
            Ok(topic) => return topic,
            Err(e) if e.kind() == ErrorKind::NotFound => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Appends each line that it reads, when it has read it.
pub(crate) async fn appends(root: &Path) {
    let bus = bus(root);
    while let Some(line) = hear() {
        let appended = async {
            let topic = bus.topic(TOPIC).create_if_missing().await?;
            let appended = topic.append(Record::new(line.as_str())).await?;
            Ok::<_, annals_core::Error>(appended.last().unwrap().position.unwrap())
        };
        match appended.await {
            Ok(at) => say(format_args!("stored {}", at.number_u64().unwrap())),
            Err(e) => say(format_args!("{:?}: {e}", e.kind())),
        }
    }
}

/// Works until a record ends it, as a fault in a handler might.
pub(crate) async fn fails(root: &Path) {
    let topic = bus(root).topic(TOPIC).await.unwrap();
    let join = topic.subscribe("g").max_attempts(2).dead_letters("dead");
    let member = join.await.unwrap();
    while let Some(delivery) = member.next().await.unwrap() {
        let value = String::from_utf8(delivery.value().to_vec()).unwrap();
        if value == "bad" {
            say(format_args!("bad {}", delivery.attempt()));
            std::process::abort();
        }
        delivery.done_and_wait().await.unwrap();
        say(value);
    }
}

/// Appends batches of two until no file may grow any more; goes on when it is told to, with room.
pub(crate) async fn fills(root: &Path) {
    let log = log(root);
    let topic = TopicName::new(TOPIC).unwrap();
    log.create(&topic, &TopicSpec::default()).await.unwrap();
    let before = getrlimit(Resource::Fsize);
    let grow_to = |bytes| {
        let limit = Rlimit {
            current: bytes,
            ..before
        };
        setrlimit(Resource::Fsize, limit).unwrap();
    };
    grow_to(Some(30_000));
    let mut next = 0;
    for _ in 0..3 {
        loop {
            let batch = [0, 1].map(|i| Record::new(format!("{} {:x>500}", next + i, "")));
            let options = AppendOptions::default();
            // One attempt: a topic's own append would wait for room.
            let report = log.append(&topic, &batch.into(), &options).await.unwrap();
            match report.outcomes() {
                [Outcome::Stored(_), Outcome::Stored(last)] => {
                    assert_eq!(last.position.unwrap().number_u64(), Some(next + 1));
                    next += 2;
                }
                [Outcome::Rejected(e), Outcome::Rejected(_)] => {
                    say(format_args!("{next}: {:?} {:?}", e.kind(), e.effect()));
                    break;
                }
                other => panic!("{other:?}"),
            }
            if next == 200 {
                say("200 stored");
                return;
            }
        }
        assert_eq!(hear().as_deref(), Some("room"));
        grow_to(before.current);
    }
}

/// Appends batches from several tasks until it is killed; `name` tells its records from others'.
pub(crate) async fn floods(root: &Path, name: &str) {
    let bus = bus(root);
    let topic = bus.topic(TOPIC).create_if_missing().await.unwrap();
    say("open");
    let mut tasks = Vec::new();
    for task in 0..4_usize {
        let (topic, name) = (topic.clone(), name.to_owned());
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                let count = 1 + (n + task) % 4;
                let fill = (n * 797 + task * 131) % 1500;
                let batch: Vec<Record> = (0..count)
                    .map(|i| Record::new(format!("{name} {task} {n} {i} {count} {:x>fill$}", "")))
                    .collect();
                let appended = topic.append(batch).await.unwrap();
                let first = appended.records().first().unwrap().position.unwrap();
                say(format_args!(
                    "{name} {task} {n} {}",
                    first.number_u64().unwrap()
                ));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Says each record that it reads, for ever.
pub(crate) async fn follows(root: &Path) {
    let bus = bus(root);
    let topic = topic(&bus).await;
    let mut feed = topic.follow(Start::Beginning).await.unwrap();
    while let Some(record) = feed.next().await.unwrap() {
        let at = record.position().unwrap().number_u64().unwrap();
        say(format_args!(
            "{at} {}",
            String::from_utf8_lossy(record.value())
        ));
    }
}

/// Reads what came before a moment.
pub(crate) async fn reads_before(root: &Path, millis: &str) {
    let bus = bus(root);
    let topic = topic(&bus).await;
    let moment = Timestamp::from_millis(millis.parse().unwrap());
    let mut replay = topic
        .replay(Start::Beginning)
        .until(Until::Before(moment))
        .await
        .unwrap();
    while let Some(signal) = replay.next_signal().await.unwrap() {
        match signal {
            Signal::Record(record) => say(String::from_utf8_lossy(record.value())),
            Signal::CaughtUp(_) => say("caught up"),
            _ => {}
        }
    }
    say("end");
}

/// Works in a group: commits its first three records, and keeps what comes later.
pub(crate) async fn works(root: &Path, name: &str) {
    let bus = bus(root);
    let topic = topic(&bus).await;
    let billing = topic
        .subscribe("billing")
        .lease(Duration::from_millis(600))
        .member(name)
        .await
        .unwrap();
    say("joined");
    let mut kept = Vec::new();
    while let Some(delivery) = billing.next().await.unwrap() {
        let at = delivery.position().unwrap().number_u64().unwrap();
        if at < 3 {
            delivery.done_and_wait().await.unwrap();
            say(format_args!("committed {at}"));
        } else {
            say(format_args!("got {at}"));
            kept.push(delivery);
        }
    }
}
