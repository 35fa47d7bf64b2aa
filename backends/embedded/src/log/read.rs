//! Reading a topic in order, never beyond its durable end.

mod keyed;
mod since;

use std::fmt;
use std::io;
use std::sync::Arc;

use annals_core::driver::Room;
use annals_core::{Buffer, ErrorKind, Recorded, Result, Timestamp};
use bytes::{Bytes, BytesMut};

use self::keyed::Keyed;
use super::frame::{ENTRY_HEADER, Entry, FRAME_HEADER, FrameHeader, MAX_BODY, aligned};
use super::segment::{Segment, read_full};
use super::topic::Topic;
use crate::disk::DiskFile;

/// What is read at most without waiting: what a thread that has other work can spare.
const AT_ONCE: usize = 512 << 10;

/// Where a [`Scan`] stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StopAt {
    /// Nowhere.
    #[default]
    Never,
    /// Before this position.
    Position(u64),
    /// Before the first record whose append time is at or after this moment. Told only when such
    /// a record is there: at the end of the log it may still come.
    Time(Timestamp),
}

/// What [`Scan::fetch`] has to say after the records that it pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// There may be more.
    More,
    /// There is nothing more below the durable end.
    CaughtUp,
    /// Records from `from` up to `to`, exclusive, are gone; the next call goes on at `to`.
    Gap {
        /// The first position that is missing.
        from: u64,
        /// The oldest one that is kept.
        to: u64,
    },
    /// The stop was reached.
    End,
}

/// One ordered reading of a topic. Calls block.
pub struct Scan {
    topic: Arc<Topic>,
    next: u64,
    /// Nothing older than this is asked for, and nothing else has been met so far.
    since: Option<Timestamp>,
    stop: StopAt,
    /// Only records of this key.
    keyed: Option<Box<Keyed>>,
    at: Option<Place>,
    page: Page,
    /// Entries of the page that are whole, where they start in it and their positions: empty
    /// between calls.
    checked: Vec<(Entry, usize, u64)>,
}

/// Where in which segment it stands.
struct Place {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    offset: u64,
    frame: Option<OpenFrame>,
    /// The position behind the last frame that was met.
    reached: u64,
}

/// A frame of which entries are still to come.
#[derive(Clone, Copy)]
struct OpenFrame {
    left: u32,
    /// How many of these lie before the start: stepped over unread.
    before: u32,
    /// Where the next frame starts.
    end: u64,
    /// Where its entries end.
    body_end: u64,
    time: Timestamp,
}

/// The bytes read last, shared with the records that lie in them.
#[derive(Default)]
struct Page {
    bytes: Buffer,
    start: u64,
}

impl Page {
    /// What it holds from `offset` on.
    fn rest(&self, offset: u64) -> usize {
        offset
            .checked_sub(self.start)
            .and_then(|from| usize::try_from(from).ok())
            .map_or(0, |from| self.bytes.len().saturating_sub(from))
    }

    /// Where `offset` lies in it.
    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    /// Reads `len` bytes at `offset`, into the old page when no record keeps it; nothing, when
    /// that is not to be had without waiting.
    fn fill(&mut self, file: &dyn DiskFile, offset: u64, len: usize, wait: Wait) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.bytes)
            .try_into_mut()
            .unwrap_or_default();
        if buffer.capacity() < len {
            buffer = BytesMut::zeroed(len);
        } else {
            buffer.resize(len, 0);
        }
        let got = match wait {
            Wait::ForDisk => read_full(file, &mut buffer, offset)?,
            Wait::Never => file.read_now_at(&mut buffer, offset)?.unwrap_or(0),
        };
        buffer.truncate(got);
        self.bytes = buffer.freeze().into();
        self.start = offset;
        Ok(())
    }
}

/// Whether a reading may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForDisk,
    Never,
}

impl Scan {
    /// A reading that begins at `next`, whether or not that record is there yet.
    pub fn new(topic: Arc<Topic>, next: u64, stop: StopAt) -> Self {
        Self {
            topic,
            next,
            since: None,
            stop,
            keyed: None,
            at: None,
            page: Page::default(),
            checked: Vec::new(),
        }
    }

    /// Only records of this key, by the index: what is passed over is neither read nor checked.
    /// Where a segment has no index yet, the first to ask makes it.
    #[must_use]
    pub fn of_key(mut self, key: Bytes) -> Self {
        self.keyed = Some(Box::new(Keyed::new(key)));
        self
    }

    /// The position that it looks at next: all before it has been pushed, or passed over.
    pub const fn next_position(&self) -> u64 {
        self.next
    }

    /// The topic.
    pub const fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Pushes the next records: at least one, when there is one and the room is not zero; no more
    /// than `room`, unless a single one is larger; at most what one page of the disk holds, so an
    /// answer of [`Fetch::More`] may have pushed none.
    ///
    /// # Errors
    /// `Corrupt`, naming the position, after the records before it were pushed; calling again
    /// answers the same. The disk's.
    pub fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetch> {
        let end = self.topic.refresh()?;
        if let StopAt::Position(stop) = self.stop
            && self.next >= stop
        {
            return Ok(Fetch::End);
        }
        if self.next < end.earliest && self.at.is_none() {
            return self.pass(end.earliest);
        }
        if self.next >= end.next {
            return Ok(Fetch::CaughtUp);
        }
        if room.records == 0 || room.bytes == 0 {
            return Ok(Fetch::More);
        }
        if self.keyed.is_some()
            && let Some(fetched) = self.fetch_keyed(&end, room, out)?
        {
            return Ok(fetched);
        }
        let Some((segment, limit)) = self.topic.segment_of(self.next, &end) else {
            return self.missing();
        };
        if self
            .at
            .as_ref()
            .is_none_or(|at| at.segment.header.first != segment.header.first)
        {
            match self.enter(&segment, limit) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return self.missing(),
                Err(e) => return Err(self.topic.io("reading a segment", e)),
            }
        }
        self.walk(limit, room, out, Wait::ForDisk)
    }

    /// As [`fetch`](Self::fetch), as far as that needs nothing but memory: the rest of the page,
    /// or more of the segment that is being read from the page cache. False: nothing was pushed,
    /// and `fetch` has more to say. Does not block.
    pub fn fetch_now(&mut self, room: Room, out: &mut Vec<Recorded>) -> bool {
        let end = self.topic.end();
        let stopped = matches!(self.stop, StopAt::Position(stop) if self.next >= stop);
        if self.next >= end.next || stopped || room.is_none() || self.keyed.is_some() {
            return false;
        }
        let Some((segment, limit)) = self.topic.segment_of(self.next, &end) else {
            return false;
        };
        if self
            .at
            .as_ref()
            .is_none_or(|at| at.segment.header.first != segment.header.first)
        {
            return false;
        }
        let had = out.len();
        // An error is for `fetch` to meet again.
        let _ = self.walk(limit, room, out, Wait::Never);
        out.len() > had
    }

    /// A segment that should hold the next record is not there: retention, or a loss.
    fn missing(&mut self) -> Result<Fetch> {
        self.at = None;
        let earliest = self.topic.reread_earliest()?;
        if earliest > self.next {
            return self.pass(earliest);
        }
        self.topic.reload()?;
        Err(self.topic.hole(self.next))
    }

    fn enter(&mut self, segment: &Arc<Segment>, limit: u64) -> io::Result<()> {
        let file = segment.open(&*self.topic.disk)?;
        let offset = if self.next == segment.header.first {
            super::segment::SEGMENT_HEADER
        } else {
            segment
                .seek(&*file, limit, |mark| mark.position <= self.next)?
                .map_or(super::segment::SEGMENT_HEADER, |mark| mark.offset)
        };
        self.page = Page::default();
        self.at = Some(Place {
            segment: Arc::clone(segment),
            file,
            offset,
            frame: None,
            reached: segment.header.first,
        });
        Ok(())
    }

    fn walk(
        &mut self,
        limit: u64,
        room: Room,
        out: &mut Vec<Recorded>,
        wait: Wait,
    ) -> Result<Fetch> {
        let Self {
            topic,
            next,
            since,
            stop,
            keyed,
            at: Some(at),
            page,
            checked,
        } = self
        else {
            return Ok(Fetch::More);
        };
        let stop_at = match *stop {
            StopAt::Position(stop) => stop,
            StopAt::Never | StopAt::Time(_) => u64::MAX,
        };
        let at_once = match wait {
            Wait::ForDisk => topic.sizes.page,
            Wait::Never => topic.sizes.page.min(AT_ONCE),
        };
        let (mut records, mut bytes) = (0, 0);
        let mut filled = false;
        // Makes sure that the page holds `len` bytes at `offset`; false: read enough for one call.
        // No call has records of two pages, so that with its records its page is free again.
        let mut ensure = |page: &mut Page,
                          offset: u64,
                          len: usize,
                          (next, records): (u64, usize)|
         -> Result<bool> {
            if page.rest(offset) >= len {
                return Ok(true);
            }
            if records > 0
                || (filled && len <= topic.sizes.page)
                || (wait == Wait::Never && len > AT_ONCE)
            {
                return Ok(false);
            }
            let most = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
            page.fill(&*at.file, offset, len.max(at_once).min(most), wait)
                .map_err(|e| topic.io("reading a segment", e))?;
            filled = true;
            if page.rest(offset) >= len {
                return Ok(true);
            }
            match wait {
                Wait::ForDisk => Err(topic.corrupt_in(&at.segment, next, "a record is cut off")),
                Wait::Never => Ok(false),
            }
        };
        loop {
            let Some(frame) = &mut at.frame else {
                if at.offset >= limit {
                    return Ok(Fetch::More);
                }
                match ensure(page, at.offset, FRAME_HEADER, (*next, records)) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Fetch::More),
                    // It ends here, and the log goes on.
                    Err(e) if e.kind() == ErrorKind::Corrupt && limit == u64::MAX => {
                        return Err(topic.hole(at.reached));
                    }
                    Err(e) => return Err(e),
                }
                let header = page.bytes.get(page.index(at.offset)..).unwrap_or_default();
                let Some(header) = FrameHeader::decode(header, topic.id.tag()) else {
                    return Err(topic.corrupt_in(&at.segment, *next, "a frame's header is broken"));
                };
                let last = header.first + u64::from(header.count);
                if header.first > *next {
                    return Err(topic.corrupt_in(&at.segment, *next, "a frame is missing"));
                }
                at.reached = last;
                if let StopAt::Time(stop) = *stop
                    && header.time >= stop
                {
                    return Ok(Fetch::End);
                }
                if last <= *next || since.is_some_and(|since| header.time < since) {
                    *next = last.max(*next);
                    at.offset += header.whole();
                    continue;
                }
                *since = None;
                let body = at.offset + FRAME_HEADER as u64;
                at.frame = Some(OpenFrame {
                    left: header.count,
                    before: u32::try_from(next.saturating_sub(header.first)).unwrap_or(u32::MAX),
                    end: body + aligned(header.body as usize) as u64,
                    body_end: body + u64::from(header.body),
                    time: header.time,
                });
                at.offset = body;
                *next = (*next).max(header.first);
                continue;
            };
            // All that can be checked in a row is checked first: records that are made in between
            // would hold the checks up.
            let run = loop {
                if frame.left == 0 {
                    break Run::Frame;
                }
                if records >= room.records || bytes >= room.bytes || *next >= stop_at {
                    break Run::Full;
                }
                let start = page.index(at.offset);
                let rest = page.bytes.get(start..).unwrap_or_default();
                if rest.len() < ENTRY_HEADER {
                    break Run::Short(ENTRY_HEADER);
                }
                let Some(entry) = Entry::decode(rest)
                    .filter(|entry| at.offset + u64::from(entry.len) <= frame.body_end)
                else {
                    break Run::Broken;
                };
                let len = entry.len as usize;
                debug_assert!(len <= MAX_BODY);
                if frame.before == 0 {
                    if records > 0 && bytes + entry.payload() > room.bytes {
                        break Run::Full;
                    }
                    if rest.len() < len {
                        break Run::Short(len);
                    }
                    if !entry.is_whole(rest) {
                        break Run::Broken;
                    }
                    if keyed
                        .as_ref()
                        .is_none_or(|keyed| entry.key_of(rest) == Some(&keyed.key()[..]))
                    {
                        checked.push((entry, start, *next));
                        records += 1;
                        bytes += entry.payload();
                    }
                    *next += 1;
                } else {
                    frame.before -= 1;
                }
                at.offset += len as u64;
                frame.left -= 1;
            };
            let (time, end) = (frame.time, frame.end);
            let parts = checked
                .drain(..)
                .map(|(entry, start, position)| entry.parts(&page.bytes, start, position, time));
            Recorded::extend_within(out, &page.bytes, parts)?;
            match run {
                Run::Frame => {
                    at.offset = end;
                    at.frame = None;
                }
                Run::Full => return Ok(Fetch::More),
                Run::Short(len) => {
                    if !ensure(page, at.offset, len, (*next, records))? {
                        return Ok(Fetch::More);
                    }
                }
                Run::Broken => {
                    return Err(topic.corrupt_in(&at.segment, *next, "a record is broken"));
                }
            }
        }
    }
}

/// Why a run of entries ends.
enum Run {
    /// They were the frame's last.
    Frame,
    /// The room or the stop is reached.
    Full,
    /// The next one needs so many bytes, which the page has not.
    Short(usize),
    Broken,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("topic", self.topic.name())
            .field("next", &self.next)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
