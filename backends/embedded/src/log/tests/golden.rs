//! A log that an earlier version wrote is read for ever.

use std::path::PathBuf;
use std::time::Duration;

use annals_core::Value;

use super::*;
use crate::disk::{MemoryDisk, OpenMode, RealDisk};
use crate::log::verify::verify;

fn records() -> Vec<Record> {
    vec![
        Record::new("placed")
            .key("order-17")
            .header("trace", "4bf9"),
        Record::new(Value::NULL).key("order-17"),
        Record::new("").key(""),
        Record::new("paid")
            .id("id-1")
            .timestamp(Timestamp::from_millis(-5))
            .header("a", Value::NULL)
            .header("a", "2"),
    ]
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// What version 1 writes, by file name.
fn written() -> Vec<(String, Vec<u8>)> {
    let here = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&here, Dedupe::Window(Duration::from_millis(60_000)));
    let asks = records()
        .chunks(2)
        .map(|pair| (Batch::new(pair.to_vec()), Condition::None, Some(3)))
        .collect();
    together(&mut writer, asks);
    ask(&mut writer, Record::new("x".repeat(3000)), Condition::None);
    ask(&mut writer, Record::new("y".repeat(3000)), Condition::None);
    writer.topic().index_sealed().unwrap();
    writer.close().unwrap();
    let dir = Path::new("orders");
    let mut files = Vec::new();
    for entry in here.disk.list(dir).unwrap() {
        let file = here
            .disk
            .open(&dir.join(&entry.name), OpenMode::Read)
            .unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        files.push((entry.name, bytes));
    }
    files.sort();
    files
}

/// The same log as one of before there were indexes has it.
fn without_indexes() -> Arc<Topic> {
    let here = place(MemoryDisk::new(clock()), TINY);
    here.disk.create_dir(Path::new("orders")).unwrap();
    for entry in std::fs::read_dir(directory().join("orders")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "idx") {
            let name = Path::new("orders").join(path.file_name().unwrap());
            let file = here.disk.open(&name, OpenMode::CreateNew).unwrap();
            file.write_at(&std::fs::read(&path).unwrap(), 0).unwrap();
        }
    }
    Topic::open(&here).unwrap()
}

#[test]
fn version_1_is_read_and_written_byte_by_byte() {
    let here = Place {
        root: directory(),
        ..place(RealDisk::new(clock()), TINY)
    };
    let topic = Topic::open(&here).unwrap();
    let read = all(&topic);
    assert_eq!(read.len(), 6);
    for (read, record) in read.iter().zip(records()) {
        assert_eq!(read.clone().into_record(), record);
        assert_eq!(read.stored_at(), Some(Timestamp::from_millis(1_000)));
    }
    assert_eq!(verify(&topic).unwrap().segments, 2);
    assert_eq!(
        topic.settings().dedupe,
        Dedupe::Window(Duration::from_secs(60))
    );
    let of_key = |topic: &Arc<Topic>| {
        let scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
        let (read, end) = drain(&mut scan.of_key("order-17".into()), ROOM);
        assert_eq!(end.unwrap(), Fetch::CaughtUp);
        read
    };
    assert_eq!(of_key(&topic), read[..2]);
    assert_eq!(of_key(&without_indexes()), read[..2]);
    let files = written();
    assert!(files.iter().any(|(name, _)| name.ends_with("idx")));
    for (name, bytes) in files {
        let golden = std::fs::read(directory().join("orders").join(&name)).unwrap();
        assert_eq!(
            golden, bytes,
            "{name}: a change of the format is a new version"
        );
    }
}
