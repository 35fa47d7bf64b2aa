//! A place of `tail` that is broken, not merely older.

use annals_core::ErrorKind;

use super::*;
use crate::disk::{Call, Fault, FaultyDisk, OpenMode};
use crate::log::topic::lock;

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

/// What a reader beside a writer that was killed finds, with `tail` broken or gone.
fn shown(disk: &FaultyDisk) -> Vec<String> {
    values(&all(&Topic::open(&place(disk.clone(), TINY)).unwrap()))
}

#[test]
fn what_was_read_behind_a_broken_tail_outlives_the_power() {
    let disk = FaultyDisk::new(clock());
    let mut writer = made(&place(disk.clone(), TINY), Dedupe::Off);
    disk.record();
    let mut marks = vec![(0, 0)];
    let mut offered = Vec::new();
    for n in 0..12 {
        let value = format!("{n:0>900}");
        put(&mut writer, &value);
        offered.push(value);
        marks.push((disk.recorded(), offered.len()));
    }
    let history = disk.history();
    let mut moments = history.moments();
    let mut unacknowledged = 0;
    loop {
        let acknowledged = marks.iter().rfind(|(m, _)| *m <= moments.at()).unwrap().1;
        let killed = moments.after_kill();
        let lost = killed.after_kill();
        lost.remove(Path::new("orders/tail")).unwrap();
        for left in [broken(&killed, 0), broken(&killed, 1), lost] {
            let seen = shown(&left);
            assert!(
                seen.len() >= acknowledged,
                "{} of {acknowledged}",
                seen.len()
            );
            unacknowledged += usize::from(seen.len() > acknowledged);
            for seed in 0..4 {
                let later = shown(&left.after_power_loss(seed));
                assert!(later.len() >= seen.len() && later == offered[..later.len()]);
            }
        }
        if !moments.step() {
            break;
        }
    }
    assert!(unacknowledged > 0, "nothing unsynced was ever found");
}

#[test]
fn a_reader_that_cannot_make_it_durable_shows_nothing_new() {
    let disk = FaultyDisk::new(clock());
    put(&mut made(&place(disk.clone(), TINY), Dedupe::Off), "a");
    let left = broken(&disk, 0);
    left.faults().inject(Fault::new(Call::Sync).on(".seg"));
    let opened = Topic::open(&place(left.clone(), TINY));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(left.faults().fired(), 1);
}

#[test]
fn waiting_for_a_writer_holds_nobody_up() {
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
    let waits = Arc::clone(&foreign);
    let before = faults.calls(Call::Read);
    let refresh = std::thread::spawn(move || waits.refresh().map(|end| end.next));
    while faults.calls(Call::Read) < before + 4 {
        std::thread::yield_now();
    }
    // Where waiting locks, this is had only when the other one has given up.
    let nobody = lock(foreign.foreign.as_ref().unwrap());
    faults.resume();
    commit.join().unwrap();
    drop(nobody);
    assert_eq!(refresh.join().unwrap().unwrap(), 2);
    assert_eq!(foreign.refresh().unwrap().next, 2);
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
