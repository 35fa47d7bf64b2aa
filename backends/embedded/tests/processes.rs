//! Real second processes: writers that are killed, readers and members that live on.
//!
//! Each other process is this binary again, in a role; what it does it says line by line, and the
//! tests go by those lines.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

#[path = "processes/child.rs"]
mod child;
#[path = "processes/roles.rs"]
mod roles;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use annals_core::{ErrorKind, Record, Recorded, Start, Timestamp};
use child::{Child, ROLE, ROOT, WORD};
use roles::{TOPIC, bus};

/// Where other processes begin. By itself it asks for a role that there is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_a_role() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let (root, word) = (var(ROOT), var(WORD));
    let root = Path::new(&root);
    match var(ROLE).as_str() {
        "appends" => roles::appends(root).await,
        "floods" => roles::floods(root, &word).await,
        "follows" => roles::follows(root).await,
        "reads before" => roles::reads_before(root, &word).await,
        "fills" => roles::fills(root).await,
        "fails" => roles::fails(root).await,
        "works" => roles::works(root, &word).await,
        "" => {
            let mut other = Child::start("sings", root, "");
            assert_eq!(other.hear(), "there is no role \"sings\"");
            assert_eq!(other.line(), None);
        }
        odd => roles::say(format_args!("there is no role {odd:?}")),
    }
}

async fn read(root: &Path) -> Vec<Recorded> {
    let topic = bus(root).topic(TOPIC).await.unwrap();
    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        assert_eq!(
            record.position().unwrap().number_u64(),
            Some(records.len() as u64)
        );
        records.push(record);
    }
    records
}

fn value(record: &Recorded) -> &str {
    std::str::from_utf8(record.value()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_writes_and_the_next_goes_on_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut one = Child::start("appends", root, "");
    assert_eq!(one.ask("a"), "stored 0");
    let mut reader = Child::start("follows", root, "");
    assert_eq!(reader.hear(), "0 a");
    let mut two = Child::start("appends", root, "");
    let refused = two.ask("x");
    assert!(refused.starts_with("Denied: "), "{refused}");
    let who = format!("pid {}", one.pid());
    assert!(refused.contains(&who), "{refused} does not name {who}");
    assert_eq!(one.ask("b"), "stored 1");
    assert_eq!(reader.hear(), "1 b");
    one.kill();
    // The same handle, once there is nobody in its way.
    assert_eq!(two.ask("c"), "stored 2");
    assert_eq!(reader.hear(), "2 c", "the reader lives on");
    two.kill();
    let mut three = Child::start("appends", root, "");
    assert_eq!(three.ask("d"), "stored 3");
    assert_eq!(reader.hear(), "3 d");
    let read = read(root).await;
    assert_eq!(
        read.iter().map(value).collect::<Vec<_>>(),
        ["a", "b", "c", "d"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_ends_its_process_becomes_a_dead_letter_and_no_other_does() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let first = bus(root);
    first.topic("dead").create_if_missing().await.unwrap();
    let topic = first.topic(TOPIC).create_if_missing().await.unwrap();
    topic
        .append(["a", "bad", "b", "c"].map(Record::new))
        .await
        .unwrap();
    first.close(Duration::from_secs(5)).await.unwrap();
    let mut lives = Vec::new();
    loop {
        assert!(lives.len() < 9, "never found: {lives:?}");
        let mut member = Child::start("fails", root, "");
        let mut life = Vec::new();
        while let Some(line) = member.line() {
            life.push(line);
            if life.last().is_some_and(|last| last == "c") {
                break;
            }
        }
        member.kill();
        lives.push(life);
        if lives
            .last()
            .is_some_and(|life| life.ends_with(&["c".to_owned()]))
        {
            break;
        }
    }
    assert_eq!(lives, [vec!["a", "bad 1"], vec!["bad 2"], vec!["b", "c"]]);
    let dead = bus(root).topic("dead").await.unwrap();
    let mut dead = dead.replay(Start::Beginning).await.unwrap();
    assert_eq!(value(&dead.next().await.unwrap().unwrap()), "bad");
    assert_eq!(dead.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_need_the_writers_process_and_that_is_told_at_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let first = bus(root);
    first.topic("dead").create_if_missing().await.unwrap();
    first.close(Duration::from_secs(5)).await.unwrap();
    let mut writer = Child::start("appends", root, "");
    assert_eq!(writer.ask("a"), "stored 0");

    let topic = bus(root).topic(TOPIC).await.unwrap();
    let error = topic.subscribe("g").dead_letters("dead").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let who = format!("pid {}", writer.pid());
    assert!(error.to_string().contains(&who), "{error}");
    // Without letters a member needs no writer's place.
    let member = topic.subscribe("g").await.unwrap();
    let delivery = member.next().await.unwrap().unwrap();
    assert_eq!(value(&delivery), "a");
    drop(delivery);
    member.close(Duration::from_secs(5)).await.unwrap();

    writer.kill();
    let member = topic.subscribe("g").dead_letters("dead").await.unwrap();
    let delivery = member.next().await.unwrap().unwrap();
    delivery.reject("bad");
    member.close(Duration::from_secs(5)).await.unwrap();
    let dead = topic.bus().topic("dead").await.unwrap();
    let mut letters = dead.replay(Start::Beginning).await.unwrap();
    assert_eq!(value(&letters.next().await.unwrap().unwrap()), "a");
}

/// What each killed writer was told is stored: where, by its name, task and number.
type Acknowledged = BTreeMap<(usize, usize, usize), usize>;

fn note(acknowledged: &mut Acknowledged, line: &str) {
    let mut numbers = line.split(' ').map(|n| n.parse::<usize>().unwrap());
    let mut next = || numbers.next().unwrap();
    let batch = (next(), next(), next());
    assert!(acknowledged.insert(batch, next()).is_none());
}

/// Everything acknowledged is there, where it was said to be; batches are whole and there once;
/// what was not acknowledged is at most what each task had in flight.
fn judge(records: &[Recorded], acknowledged: &Acknowledged) {
    let mut found = Acknowledged::new();
    let mut at = 0;
    while at < records.len() {
        let field = |at: usize, n: usize| -> usize {
            let text = value(&records[at]);
            text.split(' ').nth(n).unwrap().parse().unwrap()
        };
        let batch = (field(at, 0), field(at, 1), field(at, 2));
        assert!(
            found.insert(batch, at).is_none(),
            "{batch:?} is there twice"
        );
        let count = field(at, 4);
        for i in 0..count {
            assert!(at + i < records.len(), "{batch:?} is cut off");
            let here = (field(at + i, 0), field(at + i, 1), field(at + i, 2));
            assert_eq!(
                (here, field(at + i, 3)),
                (batch, i),
                "{batch:?} is not whole"
            );
        }
        at += count;
    }
    for (batch, at) in acknowledged {
        assert_eq!(found.get(batch), Some(at), "{batch:?} was acknowledged");
    }
    for (name, task, n) in found.keys() {
        assert!(
            *n == 0 || acknowledged.contains_key(&(*name, *task, *n - 1)),
            "{name} {task} {n} was never offered"
        );
    }
}

/// `ANNALS_DEPTH=full` kills more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_killed_writers() {
    let full = std::env::var("ANNALS_DEPTH").is_ok_and(|depth| depth == "full");
    let (kills, most) = if full { (210, 24) } else { (24, 60) };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut acknowledged = Acknowledged::new();
    let mut seed: usize = 7;
    let mut follower = None;
    for round in 0..kills {
        let mut writer = Child::start("floods", root, &round.to_string());
        assert_eq!(writer.hear(), "open");
        let reader = follower.get_or_insert_with(|| Child::start("follows", root, ""));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..(seed >> 33) % most {
            note(&mut acknowledged, &writer.hear());
        }
        writer.kill();
        while let Some(line) = writer.line() {
            note(&mut acknowledged, &line);
        }
        // The reader in another process passes everything that was acknowledged.
        if let Some(last) = acknowledged.values().max() {
            loop {
                let line = reader.hear();
                let at: usize = line.split(' ').next().unwrap().parse().unwrap();
                if at >= *last {
                    break;
                }
            }
        }
        judge(&read(root).await, &acknowledged);
    }
    assert!(acknowledged.len() > 10 * kills, "{}", acknowledged.len());
    let mut last = Child::start("appends", root, "");
    assert!(last.ask("9999 0 0 0 1 ").starts_with("stored "));
    judge(&read(root).await, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_owns_a_group_and_another_takes_over_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut writer = Child::start("appends", root, "");
    for n in 0..6 {
        assert_eq!(writer.ask("v"), format!("stored {n}"));
    }
    let mut owner = Child::start("works", root, "one");
    assert_eq!(owner.hear(), "joined");
    for n in 0..3 {
        assert_eq!(owner.hear(), format!("committed {n}"));
    }
    let mut other = Child::start("works", root, "two");
    assert_eq!(other.hear(), "joined");
    for n in 3..6 {
        assert_eq!(owner.hear(), format!("got {n}"));
    }
    // More than one lease of the owner's, which says nothing to the other one.
    assert!(other.is_silent(Duration::from_millis(900)), "it stands by");
    assert_eq!(writer.ask("v"), "stored 6");
    assert_eq!(owner.hear(), "got 6", "the owner still owns it");
    owner.kill();
    // Nothing that was committed comes again, and nothing that was not is missing.
    for n in 3..7 {
        assert_eq!(other.hear(), format!("got {n}"));
    }
    assert_eq!(writer.ask("v"), "stored 7");
    assert_eq!(other.hear(), "got 7");
}

/// A disk that is full for real: the system lets no file of this process grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_a_batch_is_refused_whole_and_with_room_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Child::start("fills", dir.path(), "");
    let said = process.hear();
    let (stored, refused) = said.split_once(": ").unwrap();
    assert_eq!(refused, "Blocked None", "{said}");
    let stored: usize = stored.parse().unwrap();
    assert!((10..100).contains(&stored), "{said}");
    // Another process sees what was acknowledged and nothing of what was refused.
    assert_eq!(read(dir.path()).await.len(), stored);
    assert_eq!(process.ask("room"), "200 stored");
    let records = read(dir.path()).await;
    assert_eq!(records.len(), 200);
    for (n, record) in records.iter().enumerate() {
        assert!(value(record).starts_with(&format!("{n} ")));
    }
}

/// A process that commits holds `tail`: a reader in another process that is to end at a moment
/// waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_another_process_waits_for_what_is_being_committed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut writer = Child::start("appends", root, "");
    assert_eq!(writer.ask("a"), "stored 0");
    let tail = std::fs::File::open(root.join(TOPIC).join("tail")).unwrap();
    tail.lock().unwrap();
    let moment = Timestamp::now().as_millis() + 1;
    let mut reader = Child::start("reads before", root, &moment.to_string());
    assert_eq!(reader.hear(), "a");
    assert_eq!(reader.hear(), "caught up");
    assert!(reader.is_silent(Duration::from_millis(300)));
    tail.unlock().unwrap();
    assert_eq!(reader.hear(), "end");
    assert_eq!(writer.ask("b"), "stored 1");
    let mut reader = Child::start("reads before", root, &moment.to_string());
    assert_eq!(reader.hear(), "a");
    assert_eq!(
        reader.line().unwrap(),
        "end",
        "b came at the moment or later"
    );
}
