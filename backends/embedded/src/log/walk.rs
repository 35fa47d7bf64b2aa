//! Walking stored frames with every byte checked, and single entries.

use std::sync::Arc;

use annals_core::Result;

use super::frame::{Entry, FRAME_HEADER, FrameHeader, body_is_whole};
use super::segment::{SEGMENT_HEADER, Segment, View, read_full};
use super::topic::Topic;

/// What is read of an entry before its length is known.
const GUESS: usize = 512;

impl Topic {
    /// Calls `f` with header, body and offset of each frame of a segment from offset `from`, where
    /// the record `next` begins a frame or lies in the first one, to `limit`.
    ///
    /// # Errors
    /// `Corrupt`, naming the position, after the frames before it; `NotFound` when the segment is
    /// gone; the disk's.
    pub(super) fn walk(
        &self,
        segment: &Segment,
        from: u64,
        mut next: u64,
        limit: u64,
        mut f: impl FnMut(&FrameHeader, &[u8], u64),
    ) -> Result<()> {
        let fail = |e| self.io("reading a segment", e);
        let file = segment.open(&*self.disk).map_err(fail)?;
        let mut view = View::new(&*file, limit);
        let mut at = from;
        while at < limit {
            let header =
                FrameHeader::decode(view.at(at, FRAME_HEADER).map_err(fail)?, self.id.tag())
                    .filter(|header| header.first <= next)
                    .ok_or_else(|| self.corrupt_in(segment, next, "a frame's header is broken"))?;
            let body = view
                .at(at + FRAME_HEADER as u64, header.body as usize)
                .map_err(fail)?;
            if !body_is_whole(&header, body) {
                return Err(self.corrupt_in(segment, header.first, "a record is broken"));
            }
            f(&header, body, at);
            next = header.first + u64::from(header.count);
            at += header.whole();
        }
        Ok(())
    }

    /// Walks all durable frames that hold `from` or a later position.
    pub(super) fn walk_from(
        &self,
        from: u64,
        mut f: impl FnMut(&FrameHeader, &[u8], u64),
    ) -> Result<()> {
        let end = self.end();
        let mut next = from.max(end.earliest);
        while next < end.next {
            let (segment, limit) = self
                .segment_of(next, &end)
                .ok_or_else(|| self.corrupt(next, "a segment is missing"))?;
            let fail = |e| self.io("reading a segment", e);
            let file = segment.open(&*self.disk).map_err(fail)?;
            let at = segment
                .seek(&*file, limit, |mark| mark.position <= next)
                .map_err(fail)?
                .map_or(SEGMENT_HEADER, |mark| mark.offset);
            let before = next;
            self.walk(&segment, at, before, limit, |header, body, at| {
                next = header.first + u64::from(header.count);
                f(header, body, at);
            })?;
            if next == before {
                return Err(self.corrupt(next, "a frame is missing"));
            }
        }
        Ok(())
    }

    /// Calls `f` with the entry at `offset` of a segment, read and checked.
    ///
    /// # Errors
    /// `Corrupt` when there is none; the disk's.
    pub(super) fn with_entry<T>(
        &self,
        segment: &Arc<Segment>,
        position: u64,
        offset: u64,
        limit: u64,
        f: impl FnOnce(&Entry, &[u8]) -> T,
    ) -> Result<T> {
        let fail = |e| self.io("reading a record", e);
        let file = segment.open(&*self.disk).map_err(fail)?;
        let most = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(GUESS)];
        read_full(&*file, &mut bytes, offset).map_err(fail)?;
        let broken = || self.corrupt_in(segment, position, "a record is broken");
        let entry = Entry::decode(&bytes)
            .filter(|entry| entry.len as usize <= most)
            .ok_or_else(broken)?;
        let len = entry.len as usize;
        if len > bytes.len() {
            bytes.resize(len, 0);
            read_full(&*file, &mut bytes, offset).map_err(fail)?;
        }
        if !entry.is_whole(&bytes) {
            return Err(broken());
        }
        Ok(f(&entry, &bytes))
    }
}
