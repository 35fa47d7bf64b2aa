//! Frames and entries: one caller's batch as bytes, all numbers little-endian.

use std::ops::Range;

use annals_core::{PartitionId, Parts, Position, Timestamp};
use crc_fast::crc32_iscsi;

/// The bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;
/// The bytes of an entry's fixed header.
pub const ENTRY_HEADER: usize = 20;
/// Frames start at multiples of this.
pub const ALIGN: usize = 8;
/// The longest body of one frame: what one batch may hold.
pub const MAX_BODY: usize = 64 << 20;
/// The longest id of a record.
pub const MAX_ID: usize = u16::MAX as usize;

pub(crate) const FRAME_MAGIC: [u8; 4] = *b"anF1";
const NO_KEY: u32 = u32::MAX;
const NULL_VALUE: u8 = 1;
const HAS_ID: u8 = 2;
const HAS_TIMESTAMP: u8 = 4;
const HAS_HEADERS: u8 = 8;

/// A number out of a header; zero past its end, which no caller asks for.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// See [`u32_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// See [`u32_at`].
pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    u64_at(bytes, at).cast_signed()
}

/// Writes `bytes` over `into[at..]`; nothing where they do not fit, which no caller asks for.
pub(crate) fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Rounds up to where the next frame may start.
pub const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// What stands before the entries of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The bytes of all entries.
    pub body: u32,
    /// How many entries; at least one.
    pub count: u32,
    /// The first entry's position.
    pub first: u64,
    /// The group of frames that became durable together.
    pub commit: u64,
    /// When the log took them; never less than in an earlier frame.
    pub time: Timestamp,
    /// The fencing epoch in force.
    pub epoch: u64,
    /// How many bytes before this frame its group starts.
    pub group: u32,
    /// [`fold_check`] over the entries' checksums: binds the header to its entries.
    pub check: u32,
    /// The first eight bytes of the topic's id: a frame inside a record's value, copied from
    /// another topic, is none of this one.
    pub topic: u64,
}

impl FrameHeader {
    /// As bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        put(&mut bytes, 0, &FRAME_MAGIC);
        put(&mut bytes, 8, &self.body.to_le_bytes());
        put(&mut bytes, 12, &self.count.to_le_bytes());
        put(&mut bytes, 16, &self.first.to_le_bytes());
        put(&mut bytes, 24, &self.commit.to_le_bytes());
        put(&mut bytes, 32, &self.time.as_millis().to_le_bytes());
        put(&mut bytes, 40, &self.epoch.to_le_bytes());
        put(&mut bytes, 48, &self.group.to_le_bytes());
        put(&mut bytes, 52, &self.check.to_le_bytes());
        put(&mut bytes, 56, &self.topic.to_le_bytes());
        let crc = crc32_iscsi(bytes.get(8..).unwrap_or_default());
        put(&mut bytes, 4, &crc.to_le_bytes());
        bytes
    }

    /// Takes the first bytes of `bytes` for a header; `None` when they are none, or one of
    /// another topic.
    pub fn decode(bytes: &[u8], topic: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<FRAME_HEADER>()?;
        if !bytes.starts_with(&FRAME_MAGIC)
            || u32_at(bytes, 4) != crc32_iscsi(bytes.get(8..).unwrap_or_default())
        {
            return None;
        }
        let header = Self {
            body: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            first: u64_at(bytes, 16),
            commit: u64_at(bytes, 24),
            time: Timestamp::from_millis(i64_at(bytes, 32)),
            epoch: u64_at(bytes, 40),
            group: u32_at(bytes, 48),
            check: u32_at(bytes, 52),
            topic: u64_at(bytes, 56),
        };
        let holds = header.count > 0
            && header.topic == topic
            && header.body as usize <= MAX_BODY
            && header.body as usize / ENTRY_HEADER >= header.count as usize
            && header.first.checked_add(u64::from(header.count)).is_some();
        holds.then_some(header)
    }

    /// Header, entries and the zeros up to the next frame.
    pub const fn whole(&self) -> u64 {
        (FRAME_HEADER + aligned(self.body as usize)) as u64
    }
}

/// Takes the next entry's checksum into a frame's check.
pub const fn fold_check(check: u32, crc: u32) -> u32 {
    check.wrapping_mul(0x9e37_79b1).wrapping_add(crc)
}

/// One record's lengths, as its entry header has them. Everything else is arithmetic on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The checksum of everything behind it.
    pub crc: u32,
    /// The whole entry, this header included.
    pub len: u32,
    key: u32,
    headers: u32,
    id: u16,
    flags: u8,
}

impl Entry {
    /// Takes the first bytes of `bytes` for an entry header, without looking at the checksum.
    /// `None` when its lengths cannot be.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<ENTRY_HEADER>()?;
        let entry = Self {
            crc: u32_at(bytes, 0),
            len: u32_at(bytes, 4),
            key: u32_at(bytes, 8),
            headers: u32_at(bytes, 12),
            id: u16::from_le_bytes([bytes[16], bytes[17]]),
            flags: bytes[18],
        };
        let value = (entry.len as usize).checked_sub(entry.value_at())?;
        let known = entry.flags & !(NULL_VALUE | HAS_ID | HAS_TIMESTAMP | HAS_HEADERS) == 0;
        let holds = known
            && bytes[19] == 0
            && entry.len as usize <= MAX_BODY
            && (value == 0 || entry.flags & NULL_VALUE == 0);
        holds.then_some(entry)
    }

    /// Whether the checksum over the whole entry (`bytes` start with it) holds.
    #[inline]
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes
            .get(4..self.len as usize)
            .is_some_and(|covered| crc32_iscsi(covered) == self.crc)
    }

    #[inline]
    const fn key_len(&self) -> usize {
        if self.key == NO_KEY {
            0
        } else {
            self.key as usize
        }
    }

    #[inline]
    const fn id_at(&self) -> usize {
        ENTRY_HEADER
            + if self.flags & HAS_TIMESTAMP == 0 {
                0
            } else {
                8
            }
    }

    #[inline]
    const fn value_at(&self) -> usize {
        self.id_at() + self.id as usize + self.headers as usize + self.key_len()
    }

    /// Where the key lies, counted from the entry's first byte.
    #[inline]
    pub fn key(&self) -> Option<Range<usize>> {
        let start = self.id_at() + self.id as usize + self.headers as usize;
        (self.key != NO_KEY).then(|| start..start + self.key_len())
    }

    /// Where the id lies, counted from the entry's first byte.
    #[inline]
    pub fn id(&self) -> Option<Range<usize>> {
        let start = self.id_at();
        (self.flags & HAS_ID != 0).then(|| start..start + self.id as usize)
    }

    /// The bytes of id, headers, key and value.
    #[inline]
    pub const fn payload(&self) -> usize {
        self.len as usize - self.id_at()
    }

    /// The key in an entry's bytes.
    pub fn key_of<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.key().and_then(|range| bytes.get(range))
    }

    /// The id in an entry's bytes.
    pub fn id_of<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.id().and_then(|range| bytes.get(range))
    }

    /// Where its parts lie in a page in which it starts at `at`.
    #[inline]
    pub fn parts(&self, page: &[u8], at: usize, position: u64, stored_at: Timestamp) -> Parts {
        let shift = |range: Range<usize>| range.start + at..range.end + at;
        let headers = self.id_at() + self.id as usize;
        Parts {
            key: self.key().map(shift),
            value: (self.flags & NULL_VALUE == 0)
                .then(|| shift(self.value_at()..self.len as usize)),
            id: self.id().map(shift),
            headers: (self.flags & HAS_HEADERS != 0)
                .then(|| shift(headers..headers + self.headers as usize)),
            timestamp: (self.flags & HAS_TIMESTAMP != 0)
                .then(|| Timestamp::from_millis(i64_at(page, at + ENTRY_HEADER))),
            stored_at: Some(stored_at),
            position: Some(Position::new(PartitionId::ONLY, position)),
        }
    }
}

/// What [`put_entry`] writes.
#[derive(Clone, Copy, Debug)]
pub struct EntryParts<'a> {
    /// `None`: no key.
    pub key: Option<&'a [u8]>,
    /// `None`: null.
    pub value: Option<&'a [u8]>,
    /// `None`: no id.
    pub id: Option<&'a [u8]>,
    /// In core's encoding; empty: none.
    pub headers: &'a [u8],
    /// The writer's timestamp.
    pub timestamp: Option<Timestamp>,
}

impl EntryParts<'_> {
    /// The bytes that the entry takes.
    pub fn size(&self) -> usize {
        ENTRY_HEADER
            + self.timestamp.map_or(0, |_| 8)
            + self.id.map_or(0, <[u8]>::len)
            + self.headers.len()
            + self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
    }

    /// Whether every length fits its field; checked before [`put_entry`].
    pub fn fits(&self) -> bool {
        self.size() <= MAX_BODY && self.id.is_none_or(|id| id.len() <= MAX_ID)
    }
}

/// Appends an entry, its checksum still zero: that comes in a second pass over all entries, which
/// is twice as fast as in the copy loop.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`fits` bounds every length below u32::MAX, the id's below u16::MAX"
)]
pub fn put_entry(out: &mut Vec<u8>, parts: &EntryParts<'_>) {
    let mut header = [0; ENTRY_HEADER];
    let mut flags = 0;
    if parts.value.is_none() {
        flags |= NULL_VALUE;
    }
    if parts.id.is_some() {
        flags |= HAS_ID;
    }
    if parts.timestamp.is_some() {
        flags |= HAS_TIMESTAMP;
    }
    if !parts.headers.is_empty() {
        flags |= HAS_HEADERS;
    }
    put(&mut header, 4, &(parts.size() as u32).to_le_bytes());
    let key = parts.key.map_or(NO_KEY, |key| key.len() as u32);
    put(&mut header, 8, &key.to_le_bytes());
    put(&mut header, 12, &(parts.headers.len() as u32).to_le_bytes());
    let id = parts.id.map_or(0, <[u8]>::len) as u16;
    put(&mut header, 16, &id.to_le_bytes());
    header[18] = flags;
    out.extend_from_slice(&header);
    if let Some(timestamp) = parts.timestamp {
        out.extend_from_slice(&timestamp.as_millis().to_le_bytes());
    }
    out.extend_from_slice(parts.id.unwrap_or_default());
    out.extend_from_slice(parts.headers);
    out.extend_from_slice(parts.key.unwrap_or_default());
    out.extend_from_slice(parts.value.unwrap_or_default());
}

/// Walks the entries of a body without looking at checksums; ends early where lengths are broken.
pub fn entries(body: &[u8]) -> impl Iterator<Item = (usize, Entry)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let entry = Entry::decode(body.get(at..)?)?;
        let start = at;
        at += entry.len as usize;
        (at <= body.len()).then_some((start, entry))
    })
}

/// Whether `body` is exactly what `header` says: count, lengths, every checksum, the check.
pub fn body_is_whole(header: &FrameHeader, body: &[u8]) -> bool {
    let (mut count, mut end, mut check) = (0, 0, 0);
    for (at, entry) in entries(body) {
        if !body.get(at..).is_some_and(|bytes| entry.is_whole(bytes)) {
            return false;
        }
        count += 1;
        end = at + entry.len as usize;
        check = fold_check(check, entry.crc);
    }
    count == header.count && end == body.len() && check == header.check
}
