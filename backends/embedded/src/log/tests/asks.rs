//! Conditions, repeats, fences, gaps.

use std::time::Duration;

use annals_core::ErrorKind;
use bytes::Bytes;

use super::*;
use crate::disk::MemoryDisk;

fn key_at(key: &str, last: Option<u64>) -> Condition {
    Condition::KeyAt {
        key: Bytes::copy_from_slice(key.as_bytes()),
        last,
    }
}

fn kind(outcome: &Outcome) -> ErrorKind {
    match outcome {
        Outcome::Rejected(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

fn keyed(key: &str) -> Record {
    Record::new(key).key(key)
}

#[test]
fn conditions_hold_across_groups_openings_and_colliding_hashes() {
    for mask in [u64::MAX, 0] {
        let here = place(MemoryDisk::new(clock()), TINY);
        let mut writer = made(&here, Dedupe::Off);
        writer.collide(mask);
        put(&mut writer, "no key");
        assert_eq!(at(&ask(&mut writer, keyed("a"), key_at("a", None))), 1);
        assert_eq!(at(&ask(&mut writer, keyed("b"), key_at("b", None))), 2);
        // The newest of all hashes is b's when everything collides.
        assert_eq!(at(&ask(&mut writer, keyed("a"), key_at("a", Some(1)))), 3);
        let late = ask(&mut writer, keyed("a"), key_at("a", Some(1)));
        assert_eq!(kind(&late), ErrorKind::Conflict);
        // In one group: the second sees the first.
        let both = together(
            &mut writer,
            vec![
                (keyed("a").into(), key_at("a", Some(3)), None),
                (keyed("a").into(), key_at("a", Some(3)), None),
                (keyed("c").into(), key_at("a", Some(4)), None),
                (Record::new("end").into(), Condition::End(6), None),
                (Record::new("end").into(), Condition::End(6), None),
            ],
        );
        assert_eq!(at(&both[0][0]), 4);
        assert_eq!(kind(&both[1][0]), ErrorKind::Conflict);
        assert_eq!((at(&both[2][0]), at(&both[3][0])), (5, 6));
        assert_eq!(kind(&both[4][0]), ErrorKind::Conflict);
        let mut writer = Writer::open(&here).unwrap();
        writer.collide(mask);
        let stale = ask(&mut writer, keyed("a"), key_at("a", Some(3)));
        assert_eq!(kind(&stale), ErrorKind::Conflict);
        assert_eq!(at(&ask(&mut writer, keyed("a"), key_at("a", Some(4)))), 7);
        assert_eq!(all(writer.topic()).len(), 8, "a refusal has no effect");
    }
}

#[test]
fn a_repeat_answers_the_first_position() {
    for mask in [u64::MAX, 0] {
        let here = place(MemoryDisk::new(clock()), TINY);
        let mut writer = made(&here, Dedupe::Forever);
        writer.collide(mask);
        let id = |id: &str| Record::new(id).id(id).key("k");
        let first = together(
            &mut writer,
            vec![
                (
                    vec![id("a"), id("b"), id("a")].into(),
                    Condition::None,
                    None,
                ),
                (vec![id("b"), id("c")].into(), Condition::None, None),
            ],
        );
        let places: Vec<_> = first.iter().flatten().map(at).collect();
        assert_eq!(places, [0, 1, 0, 1, 2]);
        let duplicates: Vec<_> = first
            .iter()
            .flatten()
            .map(|o| o.stored().unwrap().duplicate)
            .collect();
        assert_eq!(duplicates, [false, false, true, true, false]);
        let mut writer = Writer::open(&here).unwrap();
        writer.collide(mask);
        assert_eq!(at(&ask(&mut writer, id("c"), Condition::None)), 2);
        // It does not conflict with itself, nor is it fenced: it is stored.
        let won = ask(&mut writer, id("d"), key_at("k", Some(2)));
        let again = together(
            &mut writer,
            vec![(id("d").into(), key_at("k", Some(2)), None)],
        );
        assert_eq!((at(&won), at(&again[0][0])), (3, 3));
        assert!(again[0][0].stored().unwrap().duplicate);
        // A refused one is not remembered.
        let lost = ask(&mut writer, id("e"), key_at("k", Some(2)));
        assert_eq!(kind(&lost), ErrorKind::Conflict);
        assert_eq!(at(&ask(&mut writer, id("e"), Condition::None)), 4);
        assert_eq!(values(&all(writer.topic())), ["a", "b", "c", "d", "e"]);
    }
}

#[test]
fn a_window_is_measured_in_append_times_and_survives_opening() {
    let clock = clock();
    let here = place(MemoryDisk::new(clock.clone()), TINY);
    let window = Duration::from_millis(100);
    let mut writer = made(&here, Dedupe::Window(window));
    let id = || Record::new("v").id("i");
    assert_eq!(at(&ask(&mut writer, id(), Condition::None)), 0);
    clock.advance(window);
    let mut writer = Writer::open(&here).unwrap();
    assert_eq!(at(&ask(&mut writer, id(), Condition::None)), 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(at(&ask(&mut writer, id(), Condition::None)), 1);
    let mut writer = Writer::open(&here).unwrap();
    assert_eq!(at(&ask(&mut writer, id(), Condition::None)), 1);
}

#[test]
fn a_fence_holds_across_groups_rolls_and_openings() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let by = |writer: &mut Writer, epoch| {
        let record = Record::new("x".repeat(3000));
        together(writer, vec![(record.into(), Condition::None, epoch)])[0][0].clone()
    };
    assert_eq!(at(&by(&mut writer, Some(5))), 0);
    assert_eq!(kind(&by(&mut writer, Some(4))), ErrorKind::Fenced);
    assert_eq!(at(&by(&mut writer, Some(5))), 1);
    assert_eq!(at(&by(&mut writer, None)), 2);
    for _ in 0..4 {
        by(&mut writer, None);
    }
    let end = writer.topic().end();
    writer.topic().trim(end.next).unwrap();
    drop(writer);
    let mut writer = Writer::open(&here).unwrap();
    assert_eq!(kind(&by(&mut writer, Some(4))), ErrorKind::Fenced);
    assert!(by(&mut writer, Some(6)).stored().is_some());
    // A refused append raises no fence.
    let refused = together(
        &mut writer,
        vec![
            (Record::new("v").into(), Condition::End(0), Some(9)),
            (Record::new("v").into(), Condition::None, Some(6)),
        ],
    );
    assert_eq!(kind(&refused[0][0]), ErrorKind::Conflict);
    assert!(refused[1][0].stored().is_some());
}

#[test]
fn trimmed_records_are_a_gap_and_a_hole_is_corrupt() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let foreign = Topic::open(&here).unwrap();
    for _ in 0..8 {
        put(&mut writer, &"x".repeat(3000));
    }
    let sealed = writer.topic().sealed();
    let second = writer
        .topic()
        .read_segments()
        .keys()
        .copied()
        .nth(1)
        .unwrap();
    assert!(sealed.len() >= 2);
    let gap = Fetch::Gap {
        from: 0,
        to: second,
    };
    writer.topic().trim(second).unwrap();
    for topic in [writer.topic(), &foreign] {
        let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
        assert_eq!(drain(&mut scan, ROOM).1.unwrap(), gap);
        let (records, end) = drain(&mut scan, ROOM);
        assert_eq!(end.unwrap(), Fetch::CaughtUp);
        assert_eq!(records[0].position().unwrap().number_u64(), Some(second));
        assert_eq!(records.len() as u64, 8 - second);
    }
    let third = writer
        .topic()
        .read_segments()
        .keys()
        .copied()
        .nth(1)
        .unwrap();
    let path = writer.topic().read_segments()[&third].path.clone();
    here.disk.remove(&path).unwrap();
    let mut scan = Scan::new(Arc::clone(writer.topic()), second, StopAt::Never);
    let (records, end) = drain(&mut scan, ROOM);
    assert_eq!(records.len() as u64, third - second);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Writer::open(&here).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut scan = Scan::new(Topic::open(&here).unwrap(), second, StopAt::Never);
    let (records, end) = drain(&mut scan, ROOM);
    assert_eq!(records.len() as u64, third - second);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Corrupt);
}
