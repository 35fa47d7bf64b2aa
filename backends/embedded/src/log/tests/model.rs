//! Random appends, rolls, openings and readings against a plain vector.

use std::time::Duration;

use annals_core::{Key, Value};
use bytes::Bytes;

use super::*;
use crate::disk::{FaultyDisk, MemoryDisk};
use crate::log::verify::verify;

fn record(seed: &mut Seed) -> Record {
    let bytes = |seed: &mut Seed, most: usize| -> Vec<u8> {
        let len = seed.below(most);
        (0..len).map(|_| seed.next().to_le_bytes()[0]).collect()
    };
    let large = if seed.below(40) == 0 { 3000 } else { 60 };
    let value = match seed.below(6) {
        0 => Value::NULL,
        1 => Value::from(""),
        _ => Value::from(bytes(seed, large)),
    };
    let mut record = Record::new(value);
    if seed.below(3) > 0 {
        record = record.key(Key::from(format!("k{}", seed.below(4)).into_bytes()));
    } else if seed.below(2) == 0 {
        record = record.key("");
    }
    for _ in 0..seed.below(3) {
        record = match seed.below(2) {
            0 => record.header("h", Value::NULL),
            _ => record.header("h", bytes(seed, 9)),
        };
    }
    if seed.below(3) == 0 {
        record = record.timestamp(Timestamp::from_millis(seed.next().cast_signed()));
    }
    if seed.below(4) == 0 {
        record = record.id(bytes(seed, 20));
    }
    record
}

#[test]
fn equals_a_vector_through_rolls_and_openings() {
    for run in 0..30 {
        let mut seed = Seed(run);
        let clock = clock();
        let mut disk = FaultyDisk::new(clock.clone());
        let mut here = place(disk.clone(), TINY);
        let mut writer = made(&here, Dedupe::Off);
        let mut model: Vec<(Record, Timestamp)> = Vec::new();
        for step in 0..60 {
            match seed.below(12) {
                0 => {
                    if seed.below(2) == 0 {
                        writer.close().unwrap();
                    }
                    disk = match seed.below(3) {
                        0 => disk.after_kill(),
                        1 => disk.after_power_loss(seed.next()),
                        _ => disk,
                    };
                    here.disk = Arc::new(disk.clone());
                    writer = Writer::open(&here).unwrap();
                }
                1 => assert!(clock.advance(Duration::from_millis(seed.next() % 5))),
                _ => {
                    let asks: Vec<Ask> = (0..=seed.below(4))
                        .map(|_| {
                            let count = 1 + seed.below(12);
                            let batch = (0..count).map(|_| record(&mut seed)).collect();
                            (batch, Condition::None, None)
                        })
                        .collect();
                    let records: Vec<Record> = asks
                        .iter()
                        .flat_map(|(batch, ..)| batch.records().to_vec())
                        .collect();
                    for outcomes in together(&mut writer, asks) {
                        for outcome in outcomes {
                            assert_eq!(at(&outcome), model.len() as u64, "run {run} step {step}");
                            model.push((Record::new(""), clock.now()));
                        }
                    }
                    let start = model.len() - records.len();
                    for (slot, record) in model[start..].iter_mut().zip(records) {
                        slot.0 = record;
                    }
                }
            }
            if step % 10 == 9 {
                check(&writer, &here, &model, &mut seed);
            }
        }
        assert!(writer.topic().read_segments().len() > 2);
        assert_eq!(verify(writer.topic()).unwrap().records, model.len() as u64);
    }
}

fn check(writer: &Writer, here: &Place, model: &[(Record, Timestamp)], seed: &mut Seed) {
    let foreign = Topic::open(here).unwrap();
    for topic in [writer.topic(), &foreign] {
        let room = Room {
            records: 1 + seed.below(50),
            bytes: 1 + seed.below(2000),
        };
        let from = seed.below(model.len() + 1);
        let mut scan = Scan::new(Arc::clone(topic), from as u64, StopAt::Never);
        let (read, end) = drain(&mut scan, room);
        assert_eq!(end.unwrap(), Fetch::CaughtUp);
        compare(&read, &model[from..], from);

        let key = format!("k{}", seed.below(4));
        let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never)
            .of_key(Bytes::copy_from_slice(key.as_bytes()));
        let (read, _) = drain(&mut scan, room);
        let of_key: Vec<_> = model
            .iter()
            .map(|(record, _)| record)
            .filter(|record| record.key_bytes().is_some_and(|k| k == key.as_bytes()))
            .collect();
        assert_eq!(read.len(), of_key.len());

        let time = Timestamp::from_millis(998 + i64::try_from(seed.below(40)).unwrap());
        let first = model.partition_point(|(_, at)| *at < time);
        let mut since = Scan::since(Arc::clone(topic), time, StopAt::Never).unwrap();
        compare(&drain(&mut since, room).0, &model[first..], first);
        let mut before = Scan::new(Arc::clone(topic), 0, StopAt::Time(time));
        let (read, end) = drain(&mut before, room);
        compare(&read, &model[..first], 0);
        let expected = if first == model.len() {
            Fetch::CaughtUp
        } else {
            Fetch::End
        };
        assert_eq!(end.unwrap(), expected);
        let to = seed.below(model.len() + 1);
        let mut until = Scan::new(Arc::clone(topic), 0, StopAt::Position(to as u64));
        let (read, end) = drain(&mut until, room);
        compare(&read, &model[..to], 0);
        assert_eq!(end.unwrap(), Fetch::End);
    }
}

fn compare(read: &[Recorded], model: &[(Record, Timestamp)], from: usize) {
    assert_eq!(read.len(), model.len());
    for (index, (read, (record, time))) in read.iter().zip(model).enumerate() {
        assert_eq!(
            read.position().unwrap().number_u64(),
            Some((from + index) as u64)
        );
        assert_eq!(read.stored_at(), Some(*time));
        assert_eq!(read.clone().into_record(), *record);
    }
}

#[test]
fn a_record_longer_than_a_page_a_group_and_a_segment_is_read_whole() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    let long = "x".repeat(20_000);
    for value in ["a", &long, "b", &long] {
        put(&mut writer, value);
    }
    assert_eq!(values(&all(writer.topic())), ["a", &long, "b", &long]);
}

#[test]
fn append_time_never_goes_back() {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Off);
    put(&mut writer, "a");
    writer.last_append_at(Timestamp::from_millis(5_000));
    put(&mut writer, "b");
    put(&mut writer, "c");
    let times: Vec<_> = all(writer.topic())
        .iter()
        .map(|r| r.stored_at().unwrap().as_millis())
        .collect();
    assert_eq!(times, [1_000, 5_000, 5_000]);
}
