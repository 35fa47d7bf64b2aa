//! Records of a key, through rolls, openings and retention.

mod broken;

use std::path::PathBuf;
use std::time::Duration;

use annals_core::ErrorKind;
use bytes::Bytes;

use super::*;
use crate::disk::{MemoryDisk, OpenMode};

/// A key and its value, by position.
type Model = Vec<(Option<String>, String)>;

fn name(key: usize) -> String {
    format!("k{key}")
}

/// Appends batches of some records with few keys until there are `segments`.
fn fill(writer: &mut Writer, seed: &mut Seed, segments: usize, model: &mut Model) {
    while writer.topic().read_segments().len() < segments {
        let batch: Batch = (0..=seed.below(9))
            .map(|_| {
                let key = (seed.below(5) > 0).then(|| name(seed.below(6)));
                let value = format!("{}{}", model.len(), "x".repeat(seed.below(200)));
                model.push((key.clone(), value.clone()));
                match key {
                    Some(key) => Record::new(value).key(key),
                    None => Record::new(value),
                }
            })
            .collect();
        for outcome in together(writer, vec![(batch, Condition::None, None)]).concat() {
            at(&outcome);
        }
    }
}

fn of_key(model: &Model, key: &str, from: usize, to: usize) -> Vec<(u64, String)> {
    (0..)
        .zip(model)
        .take(to)
        .skip(from)
        .filter(|(_, (of, _))| of.as_deref() == Some(key))
        .map(|(position, (_, value))| (position, value.clone()))
        .collect()
}

fn scan(topic: &Arc<Topic>, key: &str, from: usize, stop: StopAt) -> Scan {
    Scan::new(Arc::clone(topic), from as u64, stop).of_key(Bytes::copy_from_slice(key.as_bytes()))
}

fn seen(records: &[Recorded]) -> Vec<(u64, String)> {
    records
        .iter()
        .map(|r| r.position().unwrap().number_u64().unwrap())
        .zip(values(records))
        .collect()
}

fn read(topic: &Arc<Topic>, key: &str, from: usize) -> Vec<(u64, String)> {
    let (records, end) = drain(&mut scan(topic, key, from, StopAt::Never), ROOM);
    assert_eq!(end.unwrap(), Fetch::CaughtUp);
    seen(&records)
}

fn judge(topic: &Arc<Topic>, model: &Model, what: &str) {
    for key in (0..7).map(name) {
        assert_eq!(
            read(topic, &key, 0),
            of_key(model, &key, 0, model.len()),
            "{what}, {key}"
        );
    }
}

/// Conditions on each key's newest record hold, and on any other do not.
fn judge_conditions(writer: &mut Writer, model: &mut Model, what: &str) {
    for key in (0..7).map(name) {
        let key_at = |last| Condition::KeyAt {
            key: Bytes::copy_from_slice(key.as_bytes()),
            last,
        };
        let last = of_key(model, &key, 0, model.len())
            .last()
            .map(|(at, _)| *at);
        let wrong = last.map_or(Some(0), |last| last.checked_sub(1));
        let refused = ask(writer, Record::new("w"), key_at(wrong));
        assert!(
            matches!(refused, Outcome::Rejected(e) if e.kind() == ErrorKind::Conflict),
            "{what}"
        );
        let value = format!("{what} {}", model.len());
        let stored = ask(
            writer,
            Record::new(value.clone()).key(key.clone()),
            key_at(last),
        );
        assert_eq!(at(&stored), model.len() as u64, "{what}, {key}");
        model.push((Some(key), value));
    }
}

fn index_path(topic: &Arc<Topic>, number: usize) -> PathBuf {
    let segments = topic.read_segments();
    segments
        .values()
        .nth(number)
        .unwrap()
        .path
        .with_extension("idx")
}

fn bytes_of(disk: &Arc<dyn Disk>, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn overwrite(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
}

fn indexes(disk: &Arc<dyn Disk>) -> usize {
    let names = disk.list(Path::new("orders")).unwrap();
    assert!(names.iter().all(|entry| !entry.name.ends_with("tmp")));
    names
        .iter()
        .filter(|entry| entry.name.ends_with("idx"))
        .count()
}

/// Opens for reading as another process does, hashes colliding as much as the writer's.
fn foreign(here: &Place, mask: u32) -> Arc<Topic> {
    let topic = Topic::open(here).unwrap();
    topic.keys.hasher.collide(mask);
    topic
}

#[test]
fn a_key_is_that_part_of_the_whole() {
    for mask in [u32::MAX, 3, 0] {
        for run in 0..4 {
            let mut seed = Seed(run);
            let clock = clock();
            let here = place(MemoryDisk::new(clock.clone()), TINY);
            let mut writer = made(&here, Dedupe::Off);
            writer.collide(mask.into());
            let reader = foreign(&here, mask);
            let mut model = Model::new();
            let mut moments = Vec::new();
            for round in 1..5 {
                clock.advance(Duration::from_millis(10));
                moments.push((clock.now(), model.len()));
                fill(&mut writer, &mut seed, 2 * round, &mut model);
                clock.advance(Duration::from_millis(10));
                // Made in the background or by whoever asks first, lost, made again.
                match seed.below(3) {
                    0 => writer.topic().index_sealed().unwrap(),
                    1 => {
                        let lost = index_path(writer.topic(), seed.below(round));
                        let _ = here.disk.remove(&lost);
                    }
                    _ => {}
                }
                if seed.below(2) == 0 {
                    writer = Writer::open(&here).unwrap();
                    writer.collide(mask.into());
                }
                let room = Room {
                    records: 1 + seed.below(9),
                    bytes: 1 + seed.below(900),
                };
                for topic in [writer.topic(), &reader] {
                    let key = name(seed.below(7));
                    let from = seed.below(model.len());
                    let (records, end) = drain(&mut scan(topic, &key, from, StopAt::Never), room);
                    assert_eq!(end.unwrap(), Fetch::CaughtUp);
                    let all = of_key(&model, &key, from, model.len());
                    assert_eq!(seen(&records), all, "mask {mask} run {run}");

                    let to = seed.below(model.len() + 1);
                    let mut until = scan(topic, &key, 0, StopAt::Position(to as u64));
                    let (records, end) = drain(&mut until, room);
                    assert_eq!(end.unwrap(), Fetch::End);
                    assert_eq!(seen(&records), of_key(&model, &key, 0, to));
                    assert_eq!(until.next_position(), to as u64);

                    let (time, first) = moments[seed.below(moments.len())];
                    let mut until = scan(topic, &key, 0, StopAt::Time(time));
                    let (records, end) = drain(&mut until, room);
                    assert_eq!(end.unwrap(), Fetch::End);
                    assert_eq!(seen(&records), of_key(&model, &key, 0, first));
                    assert_eq!(until.next_position(), first as u64);
                    let later = StopAt::Time(clock.now());
                    let (records, end) = drain(&mut scan(topic, &key, 0, later), room);
                    assert_eq!(end.unwrap(), Fetch::CaughtUp, "such a record may come");
                    assert_eq!(seen(&records), of_key(&model, &key, 0, model.len()));

                    let mut since = Scan::since(Arc::clone(topic), time, StopAt::Never)
                        .unwrap()
                        .of_key(key.clone().into());
                    let (records, _) = drain(&mut since, room);
                    assert_eq!(seen(&records), of_key(&model, &key, first, model.len()));
                }
                judge_conditions(&mut writer, &mut model, "in turn");
            }
        }
    }
}

#[test]
fn a_reading_of_a_key_goes_on_with_what_is_appended() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let topic = Arc::clone(writer.topic());
    let mut following =
        [&topic, &foreign(&here, u32::MAX)].map(|t| scan(t, "k1", 0, StopAt::Never));
    let (mut seed, mut model) = (Seed(5), Model::new());
    let mut read = [Vec::new(), Vec::new()];
    for segments in 1..6 {
        fill(&mut writer, &mut seed, segments, &mut model);
        for (scan, read) in following.iter_mut().zip(&mut read) {
            let (records, end) = drain(scan, ROOM);
            assert_eq!(end.unwrap(), Fetch::CaughtUp);
            read.extend(seen(&records));
            assert_eq!(*read, of_key(&model, "k1", 0, model.len()));
        }
        topic.index_sealed().unwrap();
    }
}

#[test]
fn since_a_moment_to_come_passes_over_what_comes_before_it() {
    let clock = clock();
    let here = place(MemoryDisk::new(clock.clone()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let time = clock.now().saturating_add(Duration::from_millis(5));
    let mut since = Scan::since(Arc::clone(writer.topic()), time, StopAt::Never)
        .unwrap()
        .of_key("k".into());
    ask(&mut writer, Record::new("before").key("k"), Condition::None);
    clock.advance(Duration::from_millis(5));
    ask(&mut writer, Record::new("after").key("k"), Condition::None);
    assert_eq!(values(&drain(&mut since, ROOM).0), ["after"]);
}

#[test]
fn a_trimmed_key_is_a_gap_and_its_indexes_go_with_the_segments() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let (mut seed, mut model) = (Seed(3), Model::new());
    fill(&mut writer, &mut seed, 5, &mut model);
    let topic = Arc::clone(writer.topic());
    topic.index_sealed().unwrap();
    assert_eq!(indexes(&here.disk), 4);
    let reader = foreign(&here, u32::MAX);
    judge(&reader, &model, "whole");
    let inside = topic.sealed()[2].0 + 2;
    topic.trim(inside).unwrap();
    assert_eq!(indexes(&here.disk), 2);
    for topic in [&topic, &reader, &foreign(&here, u32::MAX)] {
        let mut scan = scan(topic, "k2", 0, StopAt::Never);
        let gap = Fetch::Gap {
            from: 0,
            to: inside,
        };
        assert_eq!(scan.fetch(ROOM, &mut Vec::new()).unwrap(), gap);
        let kept = of_key(&model, "k2", usize::try_from(inside).unwrap(), model.len());
        assert_eq!(seen(&drain(&mut scan, ROOM).0), kept);
    }
    // What is gone counts as never there.
    ask(&mut writer, Record::new("v").key("old"), Condition::None);
    let old = model.len() as u64;
    model.push((Some("old".to_owned()), "v".to_owned()));
    put(&mut writer, "behind");
    topic.trim(old + 1).unwrap();
    let none = Condition::KeyAt {
        key: "old".into(),
        last: None,
    };
    assert_eq!(at(&ask(&mut writer, Record::new("w"), none)), old + 2);
    // An index without its segment does not stay.
    drop(writer);
    here.disk
        .open(
            Path::new("orders/00000000000000000000.idx"),
            OpenMode::CreateNew,
        )
        .unwrap();
    here.disk
        .open(
            Path::new("orders/00000000000000000000.idx.tmp"),
            OpenMode::CreateNew,
        )
        .unwrap();
    Writer::open(&here).unwrap().topic().index_sealed().unwrap();
    assert_eq!(indexes(&here.disk), topic.sealed().len());
}

#[test]
fn a_segment_is_sealed_by_its_records() {
    let sizes = Sizes {
        records: 10,
        ..TINY
    };
    let here = place(MemoryDisk::new(clock()), sizes);
    let mut writer = made(&here, Dedupe::Off);
    let batch =
        |records: usize| -> Batch { (0..records).map(|_| Record::new("v").key("k")).collect() };
    let asks = [4, 4, 4, 25, 1].map(|n| (batch(n), Condition::None, None));
    for outcome in together(&mut writer, asks.into()).concat() {
        at(&outcome);
    }
    let firsts: Vec<_> = writer.topic().read_segments().keys().copied().collect();
    assert_eq!(firsts, [0, 8, 12, 37]);
    assert_eq!(read(writer.topic(), "k", 0).len(), 38);
}

/// Appends, readings of a key, the making of indexes and retention, all at once.
#[test]
fn those_who_ask_at_once_are_answered_alike() {
    const ROUNDS: u64 = 400;
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let topic = Arc::clone(writer.topic());
    let done = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for reader in [&topic, &topic, &foreign(&here, u32::MAX)].map(Arc::clone) {
            scope.spawn(move || {
                let mut scan = scan(&reader, "k", 0, StopAt::Never);
                let mut expected = 0;
                while expected < 2 * ROUNDS {
                    let mut records = Vec::new();
                    let fetched = scan.fetch(ROOM, &mut records).unwrap();
                    for (at, _) in seen(&records) {
                        assert_eq!(at, expected);
                        expected += 2;
                    }
                    if let Fetch::Gap { from, to } = fetched {
                        assert!(from <= expected && expected <= to, "{from} {expected} {to}");
                        expected = to.next_multiple_of(2);
                    }
                    std::thread::yield_now();
                }
            });
        }
        scope.spawn(|| {
            while !done.load(ordering) {
                topic.index_sealed().unwrap();
                topic.keys.keep_at_most(300);
                let sealed = topic.sealed();
                if let Some((first, ..)) = sealed.len().checked_sub(12).map(|i| sealed[i]) {
                    topic.trim(first).unwrap();
                }
            }
        });
        let mut last = None;
        for _ in 0..ROUNDS {
            let condition = Condition::KeyAt {
                key: "k".into(),
                last,
            };
            let batch: Batch = vec![Record::new("v").key("k"), Record::new("x".repeat(300))].into();
            last = Some(at(&ask(&mut writer, batch, condition)));
        }
        done.store(true, ordering);
    });
}
