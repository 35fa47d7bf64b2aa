//! What a key's newest record is, those of the group that is being made included.

use annals_core::Result;

use super::{Ready, Writer};
use crate::log::frame::{Entry, FrameHeader};
use crate::log::keys::Table;

/// How many missing indexes a group of appends makes, so that what waits behind it is not held up
/// for longer: reading a segment of 64 MiB takes some tens of milliseconds.
const INDEXES: usize = 1;

/// Where the keys of the group that is being made lie: filled by the first condition in it.
#[derive(Debug)]
pub(super) struct Provisional {
    table: Table,
    /// How many batches of the group it has taken in.
    taken: usize,
    /// How many missing indexes may still be made.
    indexes: usize,
}

impl Default for Provisional {
    fn default() -> Self {
        Self {
            table: Table::default(),
            taken: 0,
            indexes: INDEXES,
        }
    }
}

impl Writer {
    /// The newest record of a key, those of this group included.
    pub(super) fn newest_of(&mut self, key: &[u8], group: &[Ready]) -> Result<Option<u64>> {
        let base = self.topic.end().next;
        let Provisional {
            table,
            taken,
            indexes,
        } = &mut self.provisional;
        for ready in group.get(*taken..).unwrap_or_default() {
            let encoded = ready.encoded();
            if let Some(frame) = &ready.frame
                && let Some(header) = FrameHeader::decode(&encoded.frame, self.topic.id.tag())
            {
                let fits = self.topic.each_key(
                    base,
                    &header,
                    encoded.body(),
                    frame.offset,
                    |hash, posting| table.insert(hash, posting),
                );
                if !fits {
                    return Err(crate::log::keys::too_large(&self.topic));
                }
            }
        }
        *taken = group.len();
        let hash = self.topic.keys.hasher.hash(key);
        let mut below = u32::MAX;
        while let Some(posting) = table.newest(hash, below) {
            let frame = u64::from(posting.frame);
            let ready = group
                .iter()
                .rfind(|ready| ready.frame.as_ref().is_some_and(|f| f.offset == frame));
            let inside = (posting.entry - posting.frame) as usize;
            let bytes = ready.and_then(|ready| ready.encoded().frame.get(inside..));
            if bytes.is_some_and(|bytes| {
                Entry::decode(bytes).is_some_and(|entry| entry.key_of(bytes) == Some(key))
            }) {
                return Ok(Some(base + u64::from(posting.ordinal)));
            }
            below = posting.ordinal;
        }
        self.topic.newest_of(key, indexes)
    }
}
