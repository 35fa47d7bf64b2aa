//! What a key's newest record is, those of the group that is being made included.

use annals_core::Result;

use super::{Ready, Writer, remember};
use crate::log::frame::{FrameHeader, entries};
use crate::log::table::Keys;

impl Writer {
    /// The newest record of a key, those of this group included.
    pub(super) fn newest_of(&mut self, key: &[u8], group: &[Ready]) -> Result<Option<u64>> {
        if self.keys.is_none() {
            let mut keys = Keys::new(self.mask);
            self.each_frame(self.topic.end().earliest, |header, body, offset| {
                remember(Some(&mut keys), None, header, body, offset);
            })?;
            for ready in group {
                self.remember_ready(ready, Some(&mut keys), None);
            }
            self.keys = Some(keys);
        }
        let Some(spot) = self.keys.as_ref().and_then(|keys| keys.get(key)) else {
            return Ok(None);
        };
        let earliest = self.topic.end().earliest;
        if spot.position < earliest {
            return Ok(None);
        }
        if self.with_entry(&spot, group, |entry, bytes| {
            entry.key_of(bytes) == Some(key)
        })? {
            return Ok(Some(spot.position));
        }
        // Another key with the same hash came later: look at everything.
        let mut newest = None;
        let mut note = |header: &FrameHeader, body: &[u8]| {
            for ((at, entry), position) in entries(body).zip(header.first..) {
                if position >= earliest
                    && body.get(at..).and_then(|bytes| entry.key_of(bytes)) == Some(key)
                {
                    newest = Some(position);
                }
            }
        };
        self.each_frame(earliest, |header, body, _| note(header, body))?;
        for ready in group.iter().filter(|ready| ready.frame.is_some()) {
            let encoded = ready.encoded();
            if let Some(header) = FrameHeader::decode(&encoded.frame, self.topic.id.tag()) {
                note(&header, encoded.body());
            }
        }
        Ok(newest)
    }
}
