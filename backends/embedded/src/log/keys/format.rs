//! The bytes of an index file; `FORMAT.md` describes them.

use annals_core::Timestamp;
use crc_fast::crc32_iscsi;

use super::Posting;
use super::filter::Filter;
use crate::log::frame::{i64_at, put, u32_at, u64_at};
use crate::log::options::TopicId;

const MAGIC: [u8; 8] = *b"annalidx";
const VERSION: u32 = 1;
/// The header and each block take this much.
pub(super) const BLOCK: usize = 4096;
const BLOCK_HEADER: usize = 16;
const POSTING: usize = 16;
/// The postings of a block.
const PER_BLOCK: usize = (BLOCK - BLOCK_HEADER) / POSTING;

/// Which sealed segment an index is of: what the segment's successor says about it. An index that
/// says anything else is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::log) struct Extent {
    pub(in crate::log) topic: TopicId,
    /// Its first position, and the one behind its last.
    pub(in crate::log) first: u64,
    pub(in crate::log) next: u64,
    /// Where its data ends, in bytes.
    pub(in crate::log) end: u64,
    /// Its last commit number and append time.
    pub(in crate::log) commit: u64,
    pub(in crate::log) time: Timestamp,
}

/// What an index file's first block says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) extent: Extent,
    pub(super) blocks: u32,
    pub(super) filter_lines: u32,
    /// The checksum of what follows the blocks: the filter and the blocks' first postings.
    pub(super) summary: u32,
}

impl Header {
    fn encode(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 12, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.extent.topic.0);
        for (at, number) in [
            (32, self.extent.first),
            (40, self.extent.next),
            (48, self.extent.end),
            (56, self.extent.commit),
            (64, self.extent.time.as_millis().cast_unsigned()),
        ] {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        for (at, number) in [
            (72, self.blocks),
            (76, self.filter_lines),
            (80, self.summary),
        ] {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        let crc = crc32_iscsi(bytes.get(12..).unwrap_or_default());
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// `None`: no header of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<BLOCK>()?;
        let whole = bytes.starts_with(&MAGIC)
            && u32_at(bytes, 8) == crc32_iscsi(bytes.get(12..)?)
            && u32_at(bytes, 12) == VERSION;
        let mut topic = [0; 16];
        topic.copy_from_slice(bytes.get(16..32)?);
        whole.then(|| Self {
            extent: Extent {
                topic: TopicId(topic),
                first: u64_at(bytes, 32),
                next: u64_at(bytes, 40),
                end: u64_at(bytes, 48),
                commit: u64_at(bytes, 56),
                time: Timestamp::from_millis(i64_at(bytes, 64)),
            },
            blocks: u32_at(bytes, 72),
            filter_lines: u32_at(bytes, 76),
            summary: u32_at(bytes, 80),
        })
    }

    /// What every block of the file carries: its header's checksum.
    pub(super) fn seal(bytes: &[u8]) -> u32 {
        u32_at(bytes, 8)
    }

    /// Where the summary starts, and how long it is.
    pub(super) const fn summary_at(&self) -> (u64, usize) {
        let at = (1 + self.blocks as u64) * BLOCK as u64;
        let len = self.filter_lines as usize * Filter::LINE + self.blocks as usize * 8;
        (at, len)
    }
}

/// A posting with its hash, in the order of an index: by hash, then by ordinal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Row(u128);

impl Row {
    pub(super) fn new(hash: u32, posting: Posting) -> Self {
        Self(
            u128::from(hash) << 96
                | u128::from(posting.ordinal) << 64
                | u128::from(posting.frame) << 32
                | u128::from(posting.entry),
        )
    }

    /// Hash and ordinal: what rows are looked for by.
    pub(super) const fn place(self) -> u64 {
        (self.0 >> 64) as u64
    }

    pub(super) const fn hash(self) -> u32 {
        (self.place() >> 32) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "a part of it is wanted")]
    pub(super) const fn posting(self) -> Posting {
        Posting {
            ordinal: (self.0 >> 64) as u32,
            frame: (self.0 >> 32) as u32,
            entry: self.0 as u32,
        }
    }
}

/// What rows with this hash from this ordinal on are not before.
pub(super) const fn place(hash: u32, ordinal: u32) -> u64 {
    (hash as u64) << 32 | ordinal as u64
}

/// A whole index file of these rows, which it sorts.
pub(super) fn encode(extent: &Extent, rows: &mut [Row]) -> Vec<u8> {
    rows.sort_unstable();
    let distinct = rows.chunk_by(|a, b| a.hash() == b.hash()).count();
    let mut filter = Filter::sized_for(distinct);
    for row in &*rows {
        filter.insert(row.hash());
    }
    let mut summary = filter.as_bytes().to_vec();
    for first in rows.iter().step_by(PER_BLOCK) {
        summary.extend_from_slice(&first.place().to_le_bytes());
    }
    let header = Header {
        extent: *extent,
        blocks: u32::try_from(rows.len().div_ceil(PER_BLOCK)).unwrap_or(u32::MAX),
        filter_lines: filter.lines(),
        summary: crc32_iscsi(&summary),
    }
    .encode();
    let seal = Header::seal(&header);
    let mut file =
        Vec::with_capacity(BLOCK + rows.len().div_ceil(PER_BLOCK) * BLOCK + summary.len());
    file.extend_from_slice(&header);
    for (number, rows) in (0..).zip(rows.chunks(PER_BLOCK)) {
        let mut block = [0; BLOCK];
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        put(&mut block, 4, &(seal ^ number).to_le_bytes());
        put(&mut block, 8, &count.to_le_bytes());
        for (index, row) in rows.iter().enumerate() {
            let at = BLOCK_HEADER + index * POSTING;
            let posting = row.posting();
            put(&mut block, at, &row.hash().to_le_bytes());
            put(&mut block, at + 4, &posting.ordinal.to_le_bytes());
            put(&mut block, at + 8, &posting.frame.to_le_bytes());
            put(&mut block, at + 12, &posting.entry.to_le_bytes());
        }
        let crc = crc32_iscsi(block.get(4..).unwrap_or_default());
        put(&mut block, 0, &crc.to_le_bytes());
        file.extend_from_slice(&block);
    }
    file.extend_from_slice(&summary);
    file
}

/// The rows of one block, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Rows<'a> {
    /// `None`: these bytes are not the block `number` of the file with this seal.
    pub(super) fn decode(bytes: &'a [u8], seal: u32, number: u32) -> Option<Self> {
        let bytes = bytes.get(..BLOCK)?;
        let count = u32_at(bytes, 8) as usize;
        let whole = u32_at(bytes, 0) == crc32_iscsi(bytes.get(4..)?)
            && u32_at(bytes, 4) == seal ^ number
            && (1..=PER_BLOCK).contains(&count);
        whole.then_some(Self { bytes, count })
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, index: usize) -> Option<Row> {
        let at = BLOCK_HEADER + index * POSTING;
        (index < self.count).then(|| {
            let posting = Posting {
                ordinal: u32_at(self.bytes, at + 4),
                frame: u32_at(self.bytes, at + 8),
                entry: u32_at(self.bytes, at + 12),
            };
            Row::new(u32_at(self.bytes, at), posting)
        })
    }

    /// How many rows stand before `place`.
    pub(super) fn before(&self, place: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.get(middle).is_some_and(|row| row.place() < place) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
