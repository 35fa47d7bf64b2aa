//! A place of `tail` that is broken, not merely older.

use annals_core::ErrorKind;

use super::*;
use crate::disk::{FaultyDisk, OpenMode};

/// Flips a bit of the value in each place of `tail`, one at a time.
fn broken(disk: &FaultyDisk, place: u64) -> FaultyDisk {
    let disk = disk.after_kill();
    let file = disk
        .open(Path::new("orders/tail"), OpenMode::Write)
        .unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, place * 4096 + 20).unwrap();
    file.write_at(&[byte[0] ^ 1], place * 4096 + 20).unwrap();
    disk
}

#[test]
fn a_broken_place_of_tail_hides_nothing_that_was_acknowledged() {
    let disk = FaultyDisk::new(clock());
    let mut writer = made(&place(disk.clone(), TINY), Dedupe::Off);
    let mut put_all = Vec::new();
    for n in 0..50 {
        let value = format!("value {n} of a length that makes several segments {n:0>200}");
        put(&mut writer, &value);
        put_all.push(value);
        for slot in 0..2 {
            let here = place(broken(&disk, slot), TINY);
            let topic = Topic::open(&here).unwrap();
            assert_eq!(values(&all(&topic)), put_all, "{slot} is broken");
            // Nothing is believed that was found before the file was mended.
            let mut next = Writer::open(&here).unwrap();
            assert_eq!(values(&all(next.topic())), put_all, "{slot} is broken");
            put(&mut next, "later");
            topic.refresh().unwrap();
            assert_eq!(all(&topic).len(), put_all.len() + 1);
        }
    }
    assert!(writer.topic().sealed().len() > 1);
}

#[test]
fn what_is_not_durable_is_not_read_behind_a_broken_tail() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    let foreign = Topic::open(&here).unwrap();
    let file = disk
        .open(Path::new("orders/tail"), OpenMode::Write)
        .unwrap();
    for place in [0, 4096] {
        file.write_at(&[0xff], place + 20).unwrap();
    }
    let faults = disk.faults();
    faults.stall(".seg");
    let commit = std::thread::spawn(move || put(&mut writer, "b"));
    faults.stalled();
    assert_eq!(foreign.refresh().unwrap_err().kind(), ErrorKind::Blocked);
    faults.resume();
    assert_eq!(commit.join().unwrap(), 1);
    foreign.refresh().unwrap();
    assert_eq!(values(&all(&foreign)), ["a", "b"]);
}

#[test]
fn verify_tells_of_a_broken_place() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    assert!(verify::verify(writer.topic()).unwrap().broken.is_empty());
    for slot in 0..2 {
        let topic = Topic::open(&place(broken(&disk, slot), TINY)).unwrap();
        let verified = verify::verify(&topic).unwrap();
        assert_eq!((verified.records, verified.broken.len()), (1, 1));
        assert!(verified.broken[0].contains("tail"));
    }
}
