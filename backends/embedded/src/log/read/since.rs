//! Beginning at a moment, and what of that retention has removed.

use std::io;
use std::sync::Arc;

use annals_core::{Result, Timestamp};

use super::{Fetch, Scan, StopAt};
use crate::log::frame::{FRAME_HEADER, FrameHeader};
use crate::log::segment::read_full;
use crate::log::tail::End;
use crate::log::topic::Topic;

impl Scan {
    /// A reading that begins at the first record whose append time is at or after `time`. Where
    /// such records are gone it stands before all of them, so that the first answer is the gap;
    /// the least moment stands for the oldest record that is kept, and misses none.
    ///
    /// # Errors
    /// The disk's.
    pub fn since(topic: Arc<Topic>, time: Timestamp, stop: StopAt) -> Result<Self> {
        // In this order: what is removed in between is missed, and then that is seen.
        let next = topic.position_at(time)?;
        let earliest = topic.earliest_now()?;
        let mut scan = Self::new(topic, next, stop);
        if time == Timestamp::MIN {
            return Ok(scan);
        }
        scan.since = Some(time);
        if scan.misses(earliest)? {
            scan.next = 0;
        }
        Ok(scan)
    }

    /// Whether it has met nothing yet that is as late as the moment that it began at.
    pub const fn is_early(&self) -> bool {
        self.since.is_some()
    }

    /// Whether anything that was asked for lies before `earliest`.
    fn misses(&self, earliest: u64) -> Result<bool> {
        match (self.since, self.stop) {
            (Some(since), StopAt::Time(stop)) if stop <= since => Ok(false),
            (Some(since), _) => {
                let gone = self.topic.newest_gone(earliest)?;
                Ok(gone.is_some_and(|gone| gone >= since))
            }
            (None, _) => Ok(true),
        }
    }

    /// Goes on at `earliest`, what lies before it being gone.
    pub(super) fn pass(&mut self, earliest: u64) -> Result<Fetch> {
        if !self.misses(earliest)? {
            self.next = earliest;
            return Ok(Fetch::More);
        }
        // What is kept is as late as the newest that is gone.
        self.since = None;
        let from = std::mem::replace(&mut self.next, earliest);
        Ok(Fetch::Gap { from, to: earliest })
    }

    /// Passes over what is older than the moment that it began at. By key no frame is met that
    /// would show it.
    pub(super) fn settle_since(&mut self, end: &End) -> Result<Option<Fetch>> {
        let Some(since) = self.since else {
            return Ok(None);
        };
        let position = self.topic.position_at(since)?;
        let earliest = self.topic.end().earliest;
        if self.next < earliest && self.misses(earliest)? {
            return self.pass(earliest).map(Some);
        }
        if position < end.next {
            self.since = None;
        }
        self.next = self.next.max(position.min(end.next));
        Ok(None)
    }
}

impl Topic {
    /// The position of the first record whose append time is at or after `time`; the next
    /// position when there is none yet. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn position_at(&self, time: Timestamp) -> Result<u64> {
        let end = self.refresh()?;
        // The last segment before which everything is older: it holds the first that is not, or
        // the one behind it begins with it.
        let (segment, limit) = {
            let segments = self.read_segments();
            let mut found = None;
            for segment in segments.values() {
                if found.is_some() && segment.header.time >= time {
                    break;
                }
                found = Some(segment.header.first);
            }
            drop(segments);
            match found.and_then(|first| self.segment_of(first, &end)) {
                Some(found) => found,
                None => return Ok(end.earliest),
            }
        };
        let fail = |e| self.io("reading a segment", e);
        let file = match segment.open(&*self.disk) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.reread_earliest(),
            Err(e) => return Err(fail(e)),
        };
        let found = segment
            .seek(&*file, limit, |mark| mark.time < time)
            .map_err(fail)?;
        let position = match found {
            None => segment.header.first,
            Some(mark) if mark.time >= time => mark.position,
            // The last frame that is older: what looks for the time begins behind it.
            Some(mark) => {
                let mut header = [0; FRAME_HEADER];
                read_full(&*file, &mut header, mark.offset).map_err(fail)?;
                FrameHeader::decode(&header, self.id.tag())
                    .map_or(mark.position, |h| h.first + u64::from(h.count))
            }
        };
        Ok(position.max(end.earliest))
    }

    /// The oldest position that is kept now. Blocks where the writer is another process, which
    /// moves it without a word in `tail`.
    ///
    /// # Errors
    /// The disk's.
    pub fn earliest_now(&self) -> Result<u64> {
        if self.is_written_here() {
            return Ok(self.end().earliest);
        }
        self.reread_earliest()
    }

    /// The append time of the newest record before `earliest`, which is gone; `None`: there never
    /// was one. Blocks.
    ///
    /// A segment's header says how late the record before it was, and append times never
    /// decrease: so this is exact, however long ago the record was removed. Where that cannot be
    /// read any more it is the latest that there can be.
    fn newest_gone(&self, earliest: u64) -> Result<Option<Timestamp>> {
        let Some(last) = earliest.checked_sub(1) else {
            return Ok(None);
        };
        let behind = {
            let segments = self.read_segments();
            let oldest = segments.first_key_value();
            let behind = oldest.filter(|(first, _)| **first > last);
            let behind = segments
                .get(&earliest)
                .or(behind.map(|(_, segment)| segment));
            behind.map(|segment| segment.header.time)
        };
        if behind.is_some() {
            return Ok(behind);
        }
        // Kept records lie in one segment with the last one that is gone.
        let Some((segment, limit)) = self.segment_of(last, &self.end()) else {
            return Ok(Some(Timestamp::MAX));
        };
        let fail = |e| self.io("reading a segment", e);
        let file = match segment.open(&*self.disk) {
            Ok(file) => file,
            // Retention went on: more is gone than was asked about.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Timestamp::MAX)),
            Err(e) => return Err(fail(e)),
        };
        let found = segment
            .seek(&*file, limit, |mark| mark.position <= last)
            .map_err(fail)?;
        let mut header = [0; FRAME_HEADER];
        if let Some(mark) = found {
            read_full(&*file, &mut header, mark.offset).map_err(fail)?;
        }
        let frame = FrameHeader::decode(&header, self.id.tag())
            .filter(|frame| (frame.first..frame.first + u64::from(frame.count)).contains(&last));
        Ok(Some(frame.map_or(Timestamp::MAX, |frame| frame.time)))
    }
}
