//! Every bit of a small log, flipped: what is broken is told with its place, or costs nothing.
//!
//! `ANNALS_DEPTH=full` flips every bit, and of padding, of which there is far more than of anything
//! else, one of each byte; without it two of each byte, and few of the padding.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_core::driver::Room;
use annals_core::{
    Clock, Error, ErrorKind, Frontier, Group, PartitionId, Position, Record, Recorded, Result,
    Timestamp, TopicName,
};
use annals_embedded::Groups;
use annals_embedded::disk::{Disk, FaultyDisk, OpenMode};
use annals_embedded::log::{
    Condition, Encoded, Fetch, Place, Request, Scan, Settings, Sizes, StopAt, Topic, TopicId,
    Writer, create,
};
use bytes::Bytes;

const KEYS: [&str; 3] = ["k0", "k1", "k2"];
/// Where the group stands.
const SETTLED: u64 = 9;

fn place(disk: &FaultyDisk) -> Place {
    Place {
        disk: Arc::new(disk.clone()),
        root: PathBuf::new(),
        name: TopicName::new("orders").unwrap(),
        sizes: Sizes {
            segment: 4096 + 700,
            records: 64,
            reserve_first: 512,
            reserve_most: 512,
            group: 4 << 10,
            page: 4096,
        },
    }
}

fn groups(disk: &FaultyDisk) -> Groups {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Groups::new(disk, PathBuf::from("orders"), "me".to_owned())
}

/// Three segments, of which the first is trimmed in part, two indexes, a group.
fn made() -> FaultyDisk {
    let disk = FaultyDisk::new(Clock::moved(Timestamp::from_millis(1_000)));
    let here = place(&disk);
    let id = TopicId([7; 16]);
    create(&*here.disk, &here.root, &here.name, id, Settings::default()).unwrap();
    let mut writer = Writer::open(&here).unwrap();
    for n in 0..9_usize {
        let batch = (0..2)
            .map(|i| {
                let key = KEYS[(n + i) % KEYS.len()];
                let record = Record::new(format!("value {n} {i}")).key(key);
                record.header("h", "1").id(format!("{n}.{i}"))
            })
            .collect();
        let (answer, mut receiver) = tokio::sync::oneshot::channel();
        let mut waiting = VecDeque::from([Request {
            batch: Encoded::new(&batch, Vec::new()).unwrap(),
            condition: Condition::None,
            epoch: Some(3),
            answer,
        }]);
        while !waiting.is_empty() {
            writer.commit(&mut waiting, drop);
        }
        receiver.try_recv().unwrap();
    }
    writer.topic().trim(1).unwrap();
    writer.topic().index_sealed().unwrap();
    assert_eq!(writer.topic().sealed().len(), 2);
    let at = Frontier::after(Position::new(PartitionId::ONLY, SETTLED));
    groups(&disk).create(&Group::new("g").unwrap(), at).unwrap();
    writer.close().unwrap();
    disk
}

fn read(topic: &Arc<Topic>, key: Option<&'static str>) -> (Vec<Recorded>, Result<()>) {
    let mut scan = Scan::new(Arc::clone(topic), topic.end().earliest, StopAt::Never);
    if let Some(key) = key {
        scan = scan.of_key(Bytes::from_static(key.as_bytes()));
    }
    let room = Room {
        records: 100,
        bytes: 1 << 20,
    };
    let mut records = Vec::new();
    loop {
        match scan.fetch(room, &mut records) {
            Ok(Fetch::CaughtUp) => return (records, Ok(())),
            Ok(_) => {}
            Err(e) => return (records, Err(e)),
        }
    }
}

/// Says what is broken, and where.
fn is_told(error: &Error) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::Corrupt && text.contains("orders") && text.contains("position 0@")
}

/// The records as they were, or those before the broken one and where that is.
fn judge(topic: &Arc<Topic>, whole: &[Recorded]) -> std::result::Result<bool, String> {
    // A broken low-water mark may be an earlier one: nothing is lost then.
    let from = usize::try_from(topic.end().earliest).unwrap();
    let (records, end) = read(topic, None);
    let expected = whole.get(from..).unwrap_or_default();
    if !expected.starts_with(&records) {
        return Err(format!("{} other records from {from}", records.len()));
    }
    let found = match end {
        Ok(()) if records.len() == expected.len() => false,
        Ok(()) => return Err(format!("{} records and no word", records.len())),
        Err(e) if is_told(&e) => true,
        Err(e) => return Err(format!("reading said {e}")),
    };
    for key in KEYS {
        let (records, end) = read(topic, Some(key));
        let of_key = expected.iter().filter(|r| r.key() == Some(key.as_bytes()));
        let of_key: Vec<_> = of_key.cloned().collect();
        let right = match &end {
            Ok(()) => records == of_key,
            Err(e) => found && of_key.starts_with(&records) && is_told(e),
        };
        if !right {
            return Err(format!("{key}: {} records, {end:?}", records.len()));
        }
    }
    Ok(found)
}

/// Whether the flip was told to somebody.
fn flipped(disk: &FaultyDisk, whole: &[Recorded]) -> std::result::Result<bool, String> {
    let mut found = false;
    let here = place(disk);
    match Topic::open(&here) {
        Ok(topic) => {
            found |= judge(&topic, whole)?;
            let verified = annals_embedded::log::verify::verify(&topic);
            match verified {
                Ok(verified) if found => return Err(format!("verified: {verified:?}")),
                Ok(verified) => found |= !verified.unfit.is_empty() || !verified.broken.is_empty(),
                Err(e) if is_told(&e) => found = true,
                Err(e) => return Err(format!("verifying said {e}")),
            }
        }
        Err(e) if is_told(&e) => found = true,
        Err(e) => return Err(format!("opening said {e}")),
    }
    match groups(disk).list().map_err(|e| e.to_string())?.as_slice() {
        [(_, Ok(lease))] => match lease.at {
            Frontier::After { position, .. } if position.number_u64() == Some(SETTLED) => {}
            at => return Err(format!("the group stands at {at:?}")),
        },
        [(_, Err(e))] if e.kind() == ErrorKind::Corrupt && e.to_string().contains("\"g\"") => {
            found = true;
        }
        other => return Err(format!("groups {other:?}")),
    }
    match Writer::open(&here) {
        Ok(writer) => judge(writer.topic(), whole).map_err(|e| format!("writing: {e}"))?,
        Err(e) if is_told(&e) => true,
        Err(e) => return Err(format!("writing said {e}")),
    };
    Ok(found)
}

fn files(disk: &FaultyDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![PathBuf::from("orders")];
    while let Some(dir) = open.pop() {
        for entry in disk.list(&dir).unwrap() {
            let path = dir.join(&entry.name);
            if entry.dir {
                open.push(path);
                continue;
            }
            let file = disk.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            let mut done = 0;
            while done < bytes.len() {
                done += file.read_at(&mut bytes[done..], done as u64).unwrap();
            }
            files.insert(path, bytes);
        }
    }
    files
}

fn full() -> bool {
    std::env::var("ANNALS_DEPTH").is_ok_and(|depth| depth == "full")
}

/// The bits to flip, by byte.
fn bits(file: &[u8]) -> Vec<(usize, usize)> {
    let full = full();
    let mut bits = Vec::new();
    for at in 0..file.len() {
        let window = file.get(at.saturating_sub(3)..(at + 4).min(file.len()));
        let padding = window.is_some_and(|window| window.iter().all(|byte| *byte == 0));
        match (padding, full) {
            (false, true) => bits.extend((0..8).map(|bit| (at, bit))),
            (false, false) => bits.extend([(at, at % 8), (at, (at + 3) % 8)]),
            (true, true) => bits.push((at, at % 8)),
            (true, false) if at % 509 == 0 => bits.push((at, at % 8)),
            (true, false) => {}
        }
    }
    bits
}

#[test]
fn every_flipped_bit_of_every_file_is_told_or_harmless() {
    let disk = made();
    let whole = {
        let topic = Topic::open(&place(&disk)).unwrap();
        let mut all = Scan::new(topic, 0, StopAt::Never);
        let room = Room {
            records: 100,
            bytes: 1 << 20,
        };
        let mut records = Vec::new();
        while all.fetch(room, &mut records).unwrap() != Fetch::CaughtUp {}
        // The trimmed one still lies there: where the mark is broken it comes back.
        assert_eq!(records.len(), 17);
        let untrimmed = Record::new("value 0 0")
            .key("k0")
            .header("h", "1")
            .id("0.0");
        let stored = records.first().and_then(Recorded::stored_at);
        let position = Position::new(PartitionId::ONLY, 0);
        let first = Recorded::of(&untrimmed, Some(position), stored).unwrap();
        records.insert(0, first);
        records
    };
    let files = files(&disk);
    let kinds: std::collections::BTreeSet<_> = files
        .keys()
        .map(|path| path.file_name().unwrap().to_string_lossy())
        .collect();
    for kind in ["tail", "start", "cursor"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    assert_eq!(kinds.iter().filter(|k| k.contains(".idx")).count(), 2);
    let work: Vec<(&Path, usize, usize)> = files
        .iter()
        .flat_map(|(path, file)| {
            let bits = bits(file).into_iter();
            bits.map(move |(at, bit)| (path.as_path(), at, bit))
        })
        .collect();
    let (next, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((path, at, bit)) = work.get(next.fetch_add(1, Ordering::SeqCst)) {
                    // The page cache lived on, or not.
                    let disk = if (at + bit) % 2 == 0 {
                        disk.after_kill()
                    } else {
                        disk.after_power_loss(0)
                    };
                    let file = disk.open(path, OpenMode::Write).unwrap();
                    let mut one = [0];
                    file.read_at(&mut one, *at as u64).unwrap();
                    one[0] ^= 1 << bit;
                    file.write_at(&one, *at as u64).unwrap();
                    match flipped(&disk, &whole) {
                        Ok(found) => told.fetch_add(usize::from(found), Ordering::SeqCst),
                        Err(e) => panic!("{} byte {at} bit {bit}: {e}", path.display()),
                    };
                }
            });
        }
    });
    let told = told.into_inner();
    println!("{} bits flipped, {told} told", work.len());
    assert!(work.len() > 4000 && told > 4000, "{told} of {}", work.len());
}
