//! Ending at a moment: nothing from before it comes afterwards.

use std::time::Duration;

use super::*;
use crate::disk::FaultyDisk;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// What a reading before `time` brings, once it says that it is whole.
fn before(topic: &Arc<Topic>, time: Timestamp) -> Vec<String> {
    assert!(topic.is_past(time).unwrap());
    let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Time(time));
    values(&drain(&mut scan, ROOM).0)
}

fn since(topic: &Arc<Topic>, time: Timestamp) -> Vec<String> {
    let mut scan = Scan::since(Arc::clone(topic), time, StopAt::Never).unwrap();
    values(&drain(&mut scan, ROOM).0)
}

#[test]
fn a_group_in_flight_from_before_the_moment_is_waited_for() {
    let clock = clock();
    let disk = FaultyDisk::new(clock.clone());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    let (topic, foreign) = (Arc::clone(writer.topic()), Topic::open(&here).unwrap());
    let faults = disk.faults();
    faults.stall(".seg");
    let commit = std::thread::spawn(move || {
        put(&mut writer, "b");
        writer
    });
    faults.stalled();
    clock.advance(Duration::from_millis(10));
    for topic in [&topic, &foreign] {
        assert!(!topic.is_past(at(1_005)).unwrap(), "b may still come");
        assert!(!topic.is_past(at(1_020)).unwrap(), "the clock is not there");
        assert!(topic.is_past(at(1_000)).unwrap(), "b is not before it");
    }
    faults.resume();
    let mut writer = commit.join().unwrap();
    put(&mut writer, "c");
    for topic in [&topic, &foreign] {
        assert_eq!(before(topic, at(1_005)), ["a", "b"]);
        assert_eq!(since(topic, at(1_005)), ["c"]);
        assert_eq!(before(topic, at(1_010)), ["a", "b"]);
    }
}

/// A clock that is set back, which the clock of tests is not: a later disk with an earlier clock.
#[test]
fn no_record_is_stamped_before_a_moment_that_a_reader_has_ended_at() {
    let clock = clock();
    let disk = FaultyDisk::new(clock.clone());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    clock.advance(Duration::from_millis(500));
    assert_eq!(before(writer.topic(), at(1_400)), ["a"]);
    writer.close().unwrap();
    for disk in [
        disk.after_kill_at(clock_at(900)),
        disk.after_power_loss(1).after_kill_at(clock_at(900)),
    ] {
        let here = place(disk, TINY);
        let mut writer = Writer::open(&here).unwrap();
        put(&mut writer, "b");
        let foreign = Topic::open(&here).unwrap();
        for topic in [writer.topic(), &foreign] {
            assert_eq!(before(topic, at(1_400)), ["a"]);
            assert_eq!(since(topic, at(1_400)), ["b"]);
        }
    }
}

#[test]
fn what_a_killed_writer_left_behind_the_end_may_still_come() {
    let clock = clock();
    let disk = FaultyDisk::new(clock.clone());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    let faults = disk.faults();
    faults.stall(".seg");
    let commit = std::thread::spawn(move || put(&mut writer, "b"));
    faults.stalled();
    let killed = disk.after_kill();
    faults.resume();
    commit.join().unwrap();
    clock.advance(Duration::from_millis(10));
    let here = place(killed, TINY);
    let foreign = Topic::open(&here).unwrap();
    assert_eq!(values(&all(&foreign)), ["a"]);
    assert!(!foreign.is_past(at(1_005)).unwrap());
    assert!(foreign.is_past(at(1_000)).unwrap(), "b is not before it");
    let writer = Writer::open(&here).unwrap();
    assert_eq!(before(writer.topic(), at(1_005)), ["a", "b"]);
    assert_eq!(before(&foreign, at(1_005)), ["a", "b"]);
}
