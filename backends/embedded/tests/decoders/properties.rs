//! What holds of the log's decoders whatever bytes they get. Plain functions: the fuzz targets
//! call them too.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use annals_core::driver::Room;
use annals_core::{Clock, PartitionId, Position, Record, Recorded, Timestamp, TopicName};
use annals_embedded::disk::{Disk, FaultyDisk, OpenMode};
use annals_embedded::log::frame::{
    ENTRY_HEADER, Entry, EntryParts, FRAME_HEADER, FrameHeader, body_is_whole, entries, fold_check,
    put_entry,
};
use annals_embedded::log::{
    Condition, Encoded, Fetch, Place, Request, Scan, Settings, Sizes, StopAt, Topic, TopicId,
    Writer, create,
};
use crc_fast::crc32_iscsi;

use super::bytes::Bytes;

/// An entry is refused or lies within its bytes, and every entry survives the bytes.
pub fn entry(data: &[u8]) {
    let mut end = 0;
    for (at, entry) in entries(data) {
        assert_eq!(at, end);
        end = at + entry.len as usize;
        assert!(end <= data.len() && entry.len as usize >= ENTRY_HEADER);
        let bytes = &data[at..end];
        assert_eq!(entry.key().is_some(), entry.key_of(bytes).is_some());
        assert_eq!(entry.id().is_some(), entry.id_of(bytes).is_some());
        let parts = entry.parts(data, at, 7, Timestamp::from_millis(1));
        let recorded = Recorded::within(bytes::Bytes::copy_from_slice(data), parts).unwrap();
        assert_eq!(recorded.key(), entry.key_of(bytes));
        assert_eq!(recorded.id(), entry.id_of(bytes));
        assert!(recorded.headers().count() <= bytes.len());
        // What the header's lengths leave over is the value: nothing lies outside, or twice.
        let spans = [
            entry.key_of(bytes),
            entry.id_of(bytes),
            Some(recorded.value()),
        ];
        let spans: usize = spans.into_iter().flatten().map(<[u8]>::len).sum();
        assert!(spans <= entry.payload());
    }
    let mut bytes = Bytes(data);
    let (key, value, id) = (bytes.maybe(), bytes.maybe(), bytes.maybe());
    let timestamp = Some(Timestamp::from_millis(bytes.number().cast_signed()));
    let timestamp = timestamp.filter(|_| bytes.byte() % 2 == 0);
    let mut headers = annals_core::headers::Headers::new();
    for _ in 0..bytes.byte() % 3 {
        headers.push(&bytes.text(), bytes.maybe());
    }
    let parts = EntryParts {
        key,
        value,
        id,
        headers: headers.as_encoded(),
        timestamp,
    };
    let mut out = Vec::new();
    put_entry(&mut out, &parts);
    assert_eq!(out.len(), parts.size());
    let crc = crc32_iscsi(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    let entry = Entry::decode(&out).unwrap();
    assert!(entry.is_whole(&out));
    let stored = Timestamp::from_millis(9);
    let there = entry.parts(&out, 0, 7, stored);
    let recorded = Recorded::within(bytes::Bytes::from(out), there).unwrap();
    assert_eq!(recorded.key(), key);
    assert_eq!(recorded.value(), value.unwrap_or_default());
    assert_eq!(recorded.is_tombstone(), value.is_none());
    assert_eq!(recorded.id(), id);
    assert!(recorded.headers().eq(headers.iter()));
    assert_eq!(recorded.timestamp().is_some(), timestamp.is_some());
    assert_eq!(
        recorded.position(),
        Some(Position::new(PartitionId::ONLY, 7))
    );
}

/// A frame's header is refused or the very bytes that it would be written as.
pub fn frame(data: &[u8]) {
    let mut bytes = data.to_vec();
    let topic = data.get(56..64).map_or(0, |topic| {
        u64::from_le_bytes(<[u8; 8]>::try_from(topic).unwrap())
    });
    for mended in [false, true] {
        if mended {
            // Past the magic and the checksum, which hardly any chance gets right.
            bytes.resize(bytes.len().max(FRAME_HEADER), 0);
            let model = FrameHeader {
                body: 0,
                count: 1,
                first: 0,
                commit: 0,
                time: Timestamp::from_millis(0),
                epoch: 0,
                group: 0,
                check: 0,
                topic: 0,
            };
            bytes[..4].copy_from_slice(&model.encode()[..4]);
            let crc = crc32_iscsi(&bytes[8..FRAME_HEADER]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let Some(header) = FrameHeader::decode(&bytes, topic) else {
            continue;
        };
        assert_eq!(header.encode(), bytes[..FRAME_HEADER]);
        assert!(header.whole() >= FRAME_HEADER as u64 + u64::from(header.body));
        assert!(FrameHeader::decode(&bytes, topic ^ 1).is_none());
        let body = &bytes[FRAME_HEADER..];
        let body = &body[..body.len().min(header.body as usize)];
        if body_is_whole(&header, body) {
            let read: Vec<_> = entries(body).collect();
            assert_eq!(read.len(), header.count as usize);
            let check = read
                .iter()
                .fold(0, |check, (_, e)| fold_check(check, e.crc));
            assert_eq!(check, header.check);
        }
    }
}

struct Made {
    disk: FaultyDisk,
    records: Vec<Recorded>,
    index: PathBuf,
    bytes: Vec<u8>,
}

fn place(disk: &FaultyDisk) -> Place {
    Place {
        disk: Arc::new(disk.clone()),
        root: PathBuf::new(),
        name: TopicName::new("orders").unwrap(),
        sizes: Sizes {
            segment: 4096 + 300,
            reserve_first: 512,
            ..Sizes::default()
        },
    }
}

/// Two segments, the first with an index.
fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let disk = FaultyDisk::new(Clock::moved(Timestamp::from_millis(1_000)));
        let here = place(&disk);
        let id = TopicId([7; 16]);
        create(&*here.disk, &here.root, &here.name, id, Settings::default()).unwrap();
        let mut writer = Writer::open(&here).unwrap();
        for n in 0..4 {
            let batch = Record::new(format!("value {n}")).key(format!("k{}", n % 2));
            let (answer, _receiver) = tokio::sync::oneshot::channel();
            let mut waiting = VecDeque::from([Request {
                batch: Encoded::new(&batch.into(), Vec::new()).unwrap(),
                condition: Condition::None,
                epoch: None,
                answer,
            }]);
            while !waiting.is_empty() {
                writer.commit(&mut waiting, drop);
            }
        }
        writer.topic().index_sealed().unwrap();
        assert_eq!(writer.topic().sealed().len(), 1);
        writer.close().unwrap();
        let records = read(&Topic::open(&here).unwrap(), None);
        assert_eq!(records.len(), 4);
        let index = Path::new("orders").join("00000000000000000000.idx");
        let file = disk.open(&index, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        Made {
            disk,
            records,
            index,
            bytes,
        }
    })
}

fn read(topic: &Arc<Topic>, key: Option<&'static str>) -> Vec<Recorded> {
    let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
    if let Some(key) = key {
        scan = scan.of_key(bytes::Bytes::from_static(key.as_bytes()));
    }
    let room = Room {
        records: 100,
        bytes: 1 << 20,
    };
    let mut records = Vec::new();
    while scan.fetch(room, &mut records).unwrap() != Fetch::CaughtUp {}
    records
}

/// Whatever stands in an index file, with right checksums or wrong ones: readers find the records
/// of a key, all of them and no other.
pub fn index(data: &[u8]) {
    const BLOCK: usize = 4096;
    let made = made();
    let disk = made.disk.after_kill();
    let mut file = made.bytes.clone();
    // Each three bytes change one; an odd first byte mends the checksums afterwards.
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let fields = [
        0, 12, 16, 32, 40, 48, 56, 64, 72, 76, 80, 4096, 4104, 4112, 4120, 8192,
    ];
    for change in rest.chunks_exact(3) {
        let at = fields[usize::from(change[0]) % fields.len()] + usize::from(change[1] % 32);
        if let Some(byte) = file.get_mut(at) {
            *byte = change[2];
        }
    }
    if first % 4 == 3 {
        file.truncate(file.len() * usize::from(*first) / 256);
    }
    if first % 2 == 1 && file.len() > 2 * BLOCK {
        let summary = crc32_iscsi(&file[2 * BLOCK..]);
        file[80..84].copy_from_slice(&summary.to_le_bytes());
        let seal = crc32_iscsi(&file[12..BLOCK]);
        file[8..12].copy_from_slice(&seal.to_le_bytes());
        file[BLOCK + 4..BLOCK + 8].copy_from_slice(&seal.to_le_bytes());
        let block = crc32_iscsi(&file[BLOCK + 4..2 * BLOCK]);
        file[BLOCK..BLOCK + 4].copy_from_slice(&block.to_le_bytes());
    }
    let there = disk.open(&made.index, OpenMode::Write).unwrap();
    there.set_len(0).unwrap();
    assert_eq!(there.write_at(&file, 0).unwrap(), file.len());
    let topic = Topic::open(&place(&disk)).unwrap();
    for key in ["k0", "k1", "k2"] {
        let of_key = made.records.iter();
        let of_key: Vec<_> = of_key
            .filter(|record| record.key() == Some(key.as_bytes()))
            .cloned()
            .collect();
        let found = read(&topic, Some(key));
        // A forged index with right checksums is as good as the writer's: it may hide records,
        // and never gives ones of another key.
        let same = found == of_key;
        let forged = first % 2 == 1 && found.iter().all(|record| of_key.contains(record));
        assert!(same || forged, "{key}: {found:?}");
    }
    assert_eq!(read(&topic, None), made.records);
}
