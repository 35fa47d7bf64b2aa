//! Every crash point of a small history: killed, and without power.

use super::*;
use crate::disk::{Call, FaultyDisk};

/// Checks what a disk holds after a crash: all that was acknowledged, in order, nothing made up,
/// and batches whole; and that it can be gone on with.
fn judge(disk: &FaultyDisk, offered: &[String], acknowledged: usize, what: &str) {
    let here = place(disk.clone(), TINY);
    let topic = Topic::open(&here).unwrap_or_else(|e| panic!("{what}: {e}"));
    let seen = values(&all(&topic));
    let mut writer = Writer::open(&here).unwrap_or_else(|e| panic!("{what}: {e}"));
    let read = values(&all(writer.topic()));
    assert!(
        read.len() >= acknowledged,
        "{what}: {} of {acknowledged}",
        read.len()
    );
    assert!(
        seen.len() >= acknowledged && seen.len() <= read.len(),
        "{what}"
    );
    assert_eq!(read[..], offered[..read.len()], "{what}");
    assert_eq!(read.len() % 2, 0, "{what}: batches of two are whole");
    let next = put(&mut writer, "next");
    assert_eq!(next, read.len() as u64);
    let again = place(disk.after_power_loss(99), TINY);
    let writer = Writer::open(&again).unwrap_or_else(|e| panic!("{what}, again: {e}"));
    let mut expected = read;
    expected.push("next".to_owned());
    assert_eq!(values(&all(writer.topic())), expected, "{what}, again");
}

#[test]
fn nothing_acknowledged_is_lost_at_any_crash_point() {
    for run in 0..4 {
        let mut seed = Seed(run);
        let disk = FaultyDisk::new(clock());
        let here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Off);
        disk.record();
        let mut offered = Vec::new();
        let mut marks = vec![(0, 0)];
        for group in 0..8 {
            if group == 5 {
                writer = Writer::open(&here).unwrap();
            }
            let asks = (0..=seed.below(3))
                .map(|_| {
                    let values = [0; 2].map(|_| {
                        let len = 1 + seed.below(1200);
                        let value = format!("{:0>len$}", offered.len());
                        offered.push(value.clone());
                        Record::new(value)
                    });
                    (Batch::from(values), Condition::None, None)
                })
                .collect();
            for outcome in together(&mut writer, asks).concat() {
                at(&outcome);
            }
            marks.push((disk.recorded(), offered.len()));
        }
        assert!(writer.topic().read_segments().len() > 1);
        let history = disk.history();
        let mut moments = history.moments();
        let mut points = 0;
        loop {
            let at = moments.at();
            let acknowledged = marks.iter().rfind(|(m, _)| *m <= at).unwrap().1;
            judge(
                &moments.after_kill(),
                &offered,
                acknowledged,
                &format!("run {run}, killed at {at}"),
            );
            for loss in 0..4 {
                let disk = moments.after_power_loss(seed.next());
                let what = format!("run {run}, power lost at {at} ({loss})");
                judge(&disk, &offered, acknowledged, &what);
            }
            points += 1;
            if !moments.step() {
                break;
            }
        }
        assert!(points > 30, "{points}");
    }
}

/// What a trimmed log holds after a crash: nothing from `mark` on is missing, and nothing below
/// what had been trimmed durably, `trimmed`, comes back.
fn judge_trimmed(disk: &FaultyDisk, offered: &[String], bounds: [usize; 3], what: &str) {
    let [acknowledged, trimmed, mark] = bounds;
    let here = place(disk.clone(), TINY);
    let opened = Topic::open(&here).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut writer = Writer::open(&here).unwrap_or_else(|e| panic!("{what}: {e}"));
    for topic in [&opened, writer.topic()] {
        let earliest = usize::try_from(topic.reread_earliest().unwrap()).unwrap();
        assert!((trimmed..=mark).contains(&earliest), "{what}: {earliest}");
        let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
        let mut read = Vec::new();
        loop {
            match scan
                .fetch(ROOM, &mut read)
                .unwrap_or_else(|e| panic!("{what}: {e}"))
            {
                Fetch::Gap { from, to } => assert_eq!((from, to), (0, earliest as u64), "{what}"),
                Fetch::CaughtUp => break,
                _ => {}
            }
        }
        let read = values(&read);
        assert_eq!(read[..], offered[earliest..earliest + read.len()], "{what}");
        assert!(earliest + read.len() >= acknowledged, "{what}");
    }
    // What the crash left of removed segments is removed, but the one that holds the mark.
    let earliest = writer.topic().end().earliest;
    let firsts: Vec<u64> = writer.topic().read_segments().keys().copied().collect();
    assert!(
        firsts.iter().filter(|first| **first < earliest).count() <= 1,
        "{what}: {firsts:?}"
    );
    let segments = disk.list(writer.topic().dir()).unwrap();
    let segments = segments.iter().filter(|e| e.name.contains(".seg")).count();
    assert_eq!(segments, firsts.len(), "{what}");
    put(&mut writer, "next");
    writer.close().unwrap();
    drop(writer);
    assert_eq!(
        values(&all(Writer::open(&here).unwrap().topic()))
            .last()
            .unwrap(),
        "next"
    );
}

/// Sealing, trimming at the close, the low-water mark and the removal of segments.
#[test]
fn trimmed_and_closed_logs_are_whole_at_any_crash_point() {
    for run in 0..2 {
        let mut seed = Seed(run + 71);
        let disk = FaultyDisk::new(clock());
        let here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Off);
        disk.record();
        let mut offered = Vec::new();
        // When how many were acknowledged, and which marks were asked for and granted.
        let mut marks = vec![(0, [0, 0, 0])];
        let mut bounds = [0, 0, 0];
        for step in 0..16 {
            if step % 5 == 4 {
                writer.close().unwrap();
                writer = Writer::open(&here).unwrap();
            }
            if step % 4 == 3 {
                let to = offered.len() - seed.below(4);
                bounds[2] = bounds[2].max(to);
                marks.push((disk.recorded(), bounds));
                writer.topic().trim(to as u64).unwrap();
                bounds[1] = bounds[2];
            } else {
                for _ in 0..=seed.below(3) {
                    let len = 1 + seed.below(2500);
                    offered.push(format!("{:0>len$}", offered.len()));
                    put(&mut writer, offered.last().unwrap());
                }
                bounds[0] = offered.len();
            }
            marks.push((disk.recorded(), bounds));
        }
        writer.close().unwrap();
        offered.push("next".to_owned());
        let history = disk.history();
        let mut moments = history.moments();
        loop {
            let at = moments.at();
            let bounds = marks.iter().rfind(|(m, _)| *m <= at).unwrap().1;
            let what = format!("run {run}, killed at {at}");
            judge_trimmed(&moments.after_kill(), &offered, bounds, &what);
            for loss in 0..3 {
                let what = format!("run {run}, power lost at {at} ({loss})");
                let disk = moments.after_power_loss(seed.next());
                judge_trimmed(&disk, &offered, bounds, &what);
            }
            if !moments.step() {
                break;
            }
        }
        assert!(bounds[2] > 10 && disk.faults().calls(Call::Remove) > 3);
    }
}

/// The recovery itself is cut short, again and again.
#[test]
fn nothing_acknowledged_is_lost_by_a_crash_in_recovery() {
    let disk = FaultyDisk::new(clock());
    let here = place(disk.clone(), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let offered: Vec<String> = (0..6).map(|n| format!("{n:0>700}")).collect();
    disk.record();
    for pair in offered.chunks(2) {
        let batch: Batch = pair.iter().map(Record::new).collect();
        ask(&mut writer, batch, Condition::None);
    }
    let history = disk.history();
    let mut moments = history.moments();
    loop {
        for disk in [moments.after_kill(), moments.after_power_loss(3)] {
            let known = values(&all(&Topic::open(&place(disk.clone(), TINY)).unwrap())).len();
            disk.record();
            drop(Writer::open(&place(disk.clone(), TINY)).unwrap());
            let inner = disk.history();
            let mut cuts = inner.moments();
            loop {
                judge(&cuts.after_kill(), &offered, known, "killed in recovery");
                for seed in 0..3 {
                    let lost = cuts.after_power_loss(seed);
                    judge(&lost, &offered, known, "power lost in recovery");
                }
                if !cuts.step() {
                    break;
                }
            }
        }
        if !moments.step() {
            break;
        }
    }
}
