//! Failing disks and flipped bits.

use annals_core::{Effect, ErrorKind};

use super::*;
use crate::disk::{Call, Fault, FaultyDisk, OpenMode};
use crate::log::verify::verify;

fn rejected(outcome: &Outcome) -> ErrorKind {
    match outcome {
        Outcome::Rejected(error) => {
            assert_eq!(error.effect(), Effect::None);
            error.kind()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_sync_is_unknown_and_closes_until_reopened() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    disk.faults()
        .inject(Fault::new(Call::Sync).on(".seg").errno(28));
    let asks = ["b", "c"].map(|v| (Record::new(v).into(), Condition::None, None));
    for outcome in together(&mut writer, asks.into()).concat() {
        let Outcome::Unknown(error) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Closed, Effect::Unknown)
        );
    }
    let next = ask(&mut writer, Record::new("d"), Condition::None);
    assert_eq!(rejected(&next), ErrorKind::Closed);
    assert_eq!(
        values(&all(writer.topic())),
        ["a"],
        "readers see no further"
    );
    // What is acknowledged after opening again outlives a loss of power, b and c or not.
    let mut writer = Writer::open(&here).unwrap();
    put(&mut writer, "d");
    for seed in 0..20 {
        let here = place(disk.after_power_loss(seed), TINY);
        let writer = Writer::open(&here).unwrap();
        assert_eq!(values(&all(writer.topic())), ["a", "b", "c", "d"]);
    }
}

#[test]
fn a_full_disk_refuses_without_effect_and_recovers() {
    for unsupported in [false, true] {
        let disk = FaultyDisk::new(clock());
        let here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Forever);
        if unsupported {
            let fault = Fault::new(Call::Reserve)
                .on(".seg")
                .times(u64::MAX)
                .unsupported();
            disk.faults().inject(fault);
        }
        let mut stored = Vec::new();
        let id = |n: usize| Record::new(format!("{n:0>900}")).id(n.to_string());
        disk.faults().room(Some(6_000));
        let mut refusals = 0;
        for n in 0..20 {
            match ask(&mut writer, id(n), Condition::None) {
                Outcome::Stored(_) => stored.push(format!("{n:0>900}")),
                other => {
                    assert_eq!(rejected(&other), ErrorKind::Blocked);
                    refusals += 1;
                }
            }
        }
        assert!(
            refusals > 2 && stored.len() > 2,
            "{refusals} {}",
            stored.len()
        );
        // What is stored is still known.
        assert_eq!(at(&ask(&mut writer, id(0), Condition::None)), 0);
        assert_eq!(values(&all(writer.topic())), stored);
        disk.faults().room(None);
        for n in 100..110 {
            assert_eq!(
                at(&ask(&mut writer, id(n), Condition::None)),
                stored.len() as u64
            );
            stored.push(format!("{n:0>900}"));
        }
        assert_eq!(values(&all(writer.topic())), stored);
        let here = place(disk.after_power_loss(1), TINY);
        assert_eq!(values(&all(Writer::open(&here).unwrap().topic())), stored);
    }
}

#[test]
fn short_writes_are_finished() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    disk.faults()
        .inject(Fault::new(Call::Write).on(".seg").times(50).short(7));
    put(&mut writer, &"x".repeat(300));
    put(&mut writer, "y");
    assert_eq!(writer.rescan(), writer.topic().end().bytes);
    assert_eq!(all(writer.topic()).len(), 2);
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    for n in 0..3 {
        let batch: Batch = (0..2)
            .map(|i| {
                Record::new(format!("v{n}{i}"))
                    .key("k")
                    .header("h", "1")
                    .id("i")
            })
            .collect();
        ask(&mut writer, batch, Condition::None);
    }
    writer.close().unwrap();
    let whole = all(writer.topic());
    let end = writer.topic().end().bytes;
    let path = writer.topic().read_segments()[&0].path.clone();
    drop(writer);
    let mut found = 0;
    let header = (0..128).chain(4000..4096);
    for byte in header.chain(4096..end) {
        for bit in 0..8 {
            let disk = disk.after_power_loss(0);
            let file = disk.open(&path, OpenMode::Write).unwrap();
            let mut one = [0];
            file.read_at(&mut one, byte).unwrap();
            one[0] ^= 1 << bit;
            file.write_at(&one, byte).unwrap();
            let here = place(disk, TINY);
            let Ok(topic) = Topic::open(&here) else {
                found += 1;
                assert!(Writer::open(&here).is_err());
                continue;
            };
            let mut scan = Scan::new(Arc::clone(&topic), 0, StopAt::Never);
            let (read, end) = drain(&mut scan, ROOM);
            assert_eq!(read[..], whole[..read.len()], "byte {byte} bit {bit}");
            match end {
                Ok(_) => assert_eq!(read.len(), whole.len(), "byte {byte} bit {bit}"),
                Err(error) => {
                    found += 1;
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    assert_eq!(verify(&topic).unwrap_err().kind(), ErrorKind::Corrupt);
                    let error = Writer::open(&here).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    let place = format!("0@{}", read.len());
                    assert!(
                        read.len() % 2 == 1 || error.to_string().contains(&place),
                        "{error}"
                    );
                }
            }
        }
    }
    assert!(found > 4000, "{found}");
}

#[test]
fn a_topic_that_rests_wakes_before_it_writes_or_refuses_without_effect() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    writer.rest();
    // Too many open files: nothing may be written that could not be published.
    disk.faults()
        .inject(Fault::new(Call::Open).on("tail").errno(24));
    let outcome = ask(&mut writer, Record::new("b"), Condition::None);
    rejected(&outcome);
    assert!(writer.failed().is_none());
    put(&mut writer, "c");
    writer.rest();
    writer.sync_tail();
    assert!(!writer.owes_sync());
    // What another process sees, and what is there after a loss of power.
    let other = Topic::open(&here).unwrap();
    assert_eq!(values(&all(&other)), ["a", "c"]);
    let here = place(disk.after_power_loss(1), TINY);
    assert_eq!(values(&all(&Topic::open(&here).unwrap())), ["a", "c"]);
}

#[test]
fn reading_without_waiting_gives_the_same_and_leaves_the_rest_to_fetch() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    for frame in 0..30 {
        let batch: Batch = (0..=frame % 4)
            .map(|n| Record::new(format!("{frame}.{n}:{:>1$}", "", 40 * (frame % 7))))
            .collect();
        ask(&mut writer, batch, Condition::None);
    }
    let topic = writer.topic();
    let expected = all(topic);
    let room = Room {
        records: 3,
        bytes: 500,
    };
    for start in 0..expected.len() {
        let mut scan = Scan::new(Arc::clone(topic), start as u64, StopAt::Never);
        let mut out = Vec::new();
        assert!(!scan.fetch_now(room, &mut out), "no segment is open yet");
        let (mut now, mut waited) = (0, 0);
        loop {
            if scan.fetch_now(room, &mut out) {
                now += 1;
                continue;
            }
            waited += 1;
            if scan.fetch(room, &mut out).unwrap() == Fetch::CaughtUp {
                break;
            }
        }
        assert!(values(&out) == values(&expected[start..]), "from {start}");
        // To enter each of the segments, and to say the end; seldom for a record over a page.
        let segments = topic.read_segments().len();
        assert!(waited <= 2 * segments + 1, "{now} and {waited}");
    }
    // An error is for `fetch` to tell; what lies before it is not lost.
    let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
    let mut out = Vec::new();
    while scan.fetch(room, &mut out).unwrap() == Fetch::More && out.len() < 3 {}
    disk.faults()
        .inject(Fault::new(Call::Read).on(".seg").errno(5).times(2));
    while scan.fetch_now(room, &mut out) {}
    assert!(scan.fetch(room, &mut out).is_err());
    let (rest, end) = drain(&mut scan, room);
    assert_eq!(end.unwrap(), Fetch::CaughtUp);
    out.extend(rest);
    assert!(values(&out) == values(&expected));
}
