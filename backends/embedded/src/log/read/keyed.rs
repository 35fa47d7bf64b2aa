//! Reading one key's records through the index.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use annals_core::driver::Room;
use annals_core::{ErrorKind, Recorded, Result};
use bytes::Bytes;

use super::{Fetch, Page, Scan, StopAt, Wait};
use crate::disk::DiskFile;
use crate::log::frame::{ENTRY_HEADER, Entry, FrameHeader};
use crate::log::keys::{Posting, Target};
use crate::log::tail::End;
use crate::log::topic::Topic;

/// The postings that are taken from the index at once; few in tests, so that they ask again.
const AT_ONCE: usize = if cfg!(test) { 3 } else { 4096 };
/// Records no further apart than this are read with one read.
const NEAR: u64 = 16 << 10;
/// The segments that are asked in one call when they have nothing to show: where indexes are
/// missing, each takes the time of reading it.
const SEGMENTS: usize = 16;
/// What is read from a record's start on, before its length is known.
const GUESS: u64 = 4 << 10;

/// Where in the index a reading of one key stands.
pub(super) struct Keyed {
    key: Bytes,
    /// The postings that come next, of the segment below.
    waiting: VecDeque<Posting>,
    at: Option<At>,
    page: Page,
    /// A segment that cannot be asked: it is read as a whole.
    walked: Option<u64>,
    /// A segment whose index did not fit and was made anew.
    refitted: Option<u64>,
    /// Up to this position no record is as late as the stop's moment.
    in_time: u64,
}

/// The segment that is being asked.
struct At {
    target: Target,
    file: Option<Arc<dyn DiskFile>>,
    /// All postings before this position have been taken.
    taken: u64,
    /// The frame of the last record: most often the next one's too.
    frame: Option<(u32, FrameHeader)>,
}

/// A checked entry in the page, and its frame.
struct Found {
    entry: Entry,
    frame: FrameHeader,
    /// Where in the page it starts.
    start: usize,
}

impl Keyed {
    pub(super) fn new(key: Bytes) -> Self {
        Self {
            key,
            waiting: VecDeque::new(),
            at: None,
            page: Page::default(),
            walked: None,
            refitted: None,
            in_time: 0,
        }
    }

    pub(super) const fn key(&self) -> &Bytes {
        &self.key
    }

    /// Asks for the postings from `next` on, unless they have been taken already. False: the
    /// segment is to be read as a whole.
    fn ask(&mut self, topic: &Topic, next: u64, end: &End) -> Result<bool> {
        if let Some(at) = &self.at
            && (at.target.first()..at.taken).contains(&next)
        {
            return Ok(true);
        }
        let Some(target) = topic.target(next, end) else {
            return Ok(false);
        };
        let first = target.first();
        if self.walked == Some(first) {
            return Ok(false);
        }
        let hash = topic.keys.hasher.hash(&self.key);
        match topic.postings(&target, false, hash, next, AT_ONCE) {
            Ok(found) => self.take(target, found),
            Err(e) if is_for_the_walk(e.kind()) => {
                self.walk(first);
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    fn take(&mut self, target: Target, (found, more): (Vec<Posting>, bool)) {
        let taken = match found.last() {
            Some(last) if more => target.first() + u64::from(last.ordinal) + 1,
            _ => target.next,
        };
        self.waiting = found.into();
        match &mut self.at {
            Some(at) if at.target.first() == target.first() => {
                at.target = target;
                at.taken = taken;
            }
            at => {
                self.page = Page::default();
                *at = Some(At {
                    target,
                    file: None,
                    taken,
                    frame: None,
                });
            }
        }
    }

    /// Has the segment that begins with `first` read as a whole.
    fn walk(&mut self, first: u64) {
        self.walked = Some(first);
        self.waiting.clear();
        self.at = None;
        self.page = Page::default();
    }

    /// The record of the first posting that waits did not lie where the index says: asks an index
    /// made anew, or, when that does not fit either, gives up on it.
    fn ask_anew(&mut self, topic: &Topic, next: u64) {
        let Some(At { target, .. }) = self.at.take() else {
            return;
        };
        let first = target.first();
        if self.refitted == Some(first) {
            return self.walk(first);
        }
        tracing::warn!(
            topic = %topic.name,
            position = next,
            "an index does not fit its segment; it is made anew"
        );
        self.refitted = Some(first);
        let hash = topic.keys.hasher.hash(&self.key);
        match topic.postings(&target, true, hash, next, AT_ONCE) {
            Ok(found) => self.take(target, found),
            Err(_) => self.walk(first),
        }
    }
}

/// What is broken or gone is for the walk to tell: after the records before it, at its position.
const fn is_for_the_walk(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound)
}

impl At {
    /// Reads and checks the record of the first posting that waits; `None`: it is not there.
    fn look(
        &mut self,
        topic: &Topic,
        page: &mut Page,
        waiting: &VecDeque<Posting>,
    ) -> Result<Option<Found>> {
        let fail = |e| topic.io("reading a segment", e);
        let Some(posting) = waiting.front() else {
            return Ok(None);
        };
        let file = if let Some(file) = &self.file {
            Arc::clone(file)
        } else {
            let file = self.target.segment.open(&*topic.disk).map_err(fail)?;
            Arc::clone(self.file.insert(file))
        };
        let known = self.frame.filter(|(at, header)| {
            *at == posting.frame && posting.lies_in(self.target.first(), header)
        });
        let Some(frame) = (match known {
            Some((_, header)) => Some(header),
            None => topic.frame_of(&self.target, posting, &*file)?,
        }) else {
            return Ok(None);
        };
        self.frame = Some((posting.frame, frame));
        let offset = u64::from(posting.entry);
        if page.rest(offset) < ENTRY_HEADER {
            let span = span(waiting, topic.sizes.page as u64);
            self.fill(page, &*file, offset, span).map_err(fail)?;
        }
        let entry_at =
            |page: &Page| Entry::decode(page.bytes.get(page.index(offset)..).unwrap_or_default());
        let Some(entry) = entry_at(page) else {
            return Ok(None);
        };
        if page.rest(offset) < entry.len as usize {
            self.fill(page, &*file, offset, u64::from(entry.len))
                .map_err(fail)?;
        }
        let start = page.index(offset);
        let whole = page.bytes.get(start..).unwrap_or_default();
        Ok(entry.is_whole(whole).then_some(Found {
            entry,
            frame,
            start,
        }))
    }

    fn fill(&self, page: &mut Page, file: &dyn DiskFile, at: u64, len: u64) -> io::Result<()> {
        let len = len.min(self.target.limit.saturating_sub(at));
        page.fill(
            file,
            at,
            usize::try_from(len).unwrap_or(usize::MAX),
            Wait::ForDisk,
        )
    }
}

/// How much to read for the first posting that waits and those close behind it.
fn span(waiting: &VecDeque<Posting>, most: u64) -> u64 {
    let mut offsets = waiting.iter().map(|posting| u64::from(posting.entry));
    let Some(start) = offsets.next() else {
        return GUESS;
    };
    let mut last = start;
    for offset in offsets {
        // Not behind it in an index that lies.
        if offset < last || offset - last > NEAR || offset - start + GUESS > most {
            break;
        }
        last = offset;
    }
    last - start + GUESS
}

impl Scan {
    /// As [`Scan::fetch`], for one key, where the next record is kept. `None`: the segment of the
    /// next record cannot be asked, so it is to be read as a whole.
    pub(super) fn fetch_keyed(
        &mut self,
        end: &End,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Option<Fetch>> {
        self.settle_stop(end)?;
        if let Some(gap) = self.settle_since(end)? {
            return Ok(Some(gap));
        }
        let Some(keyed) = &mut self.keyed else {
            return Ok(None);
        };
        let (mut records, mut bytes) = (0, 0);
        let mut asked = 0;
        loop {
            let nothing_more = match self.stop {
                StopAt::Position(stop) if self.next >= stop => Some(Fetch::End),
                _ if self.next >= end.next => Some(Fetch::CaughtUp),
                _ => None,
            };
            if let Some(nothing_more) = nothing_more {
                let told = if records > 0 {
                    Fetch::More
                } else {
                    nothing_more
                };
                return Ok(Some(told));
            }
            if !keyed.ask(&self.topic, self.next, end)? {
                return Ok((records > 0).then_some(Fetch::More));
            }
            // A walk that came before is over.
            self.at = None;
            let Some(at) = &mut keyed.at else {
                return Ok(Some(Fetch::More));
            };
            let Some(posting) = keyed.waiting.front() else {
                asked += 1;
                self.next = match self.stop {
                    StopAt::Position(stop) => at.taken.min(stop),
                    _ => at.taken,
                };
                if asked == SEGMENTS {
                    return Ok(Some(Fetch::More));
                }
                continue;
            };
            let position = at.target.first() + u64::from(posting.ordinal);
            if let StopAt::Position(stop) = self.stop
                && position >= stop
            {
                self.next = stop;
                continue;
            }
            let found = match at.look(&self.topic, &mut keyed.page, &keyed.waiting) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    keyed.ask_anew(&self.topic, self.next);
                    continue;
                }
                Err(e) if is_for_the_walk(e.kind()) => {
                    let first = at.target.first();
                    keyed.walk(first);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let Found {
                entry,
                frame,
                start,
            } = found;
            let whole = keyed.page.bytes.get(start..).unwrap_or_default();
            if entry.key_of(whole) == Some(&keyed.key[..]) {
                if records > 0 && bytes + entry.payload() > room.bytes {
                    return Ok(Some(Fetch::More));
                }
                let parts = entry.parts(&keyed.page.bytes, start, position, frame.time);
                out.push(Recorded::within(keyed.page.bytes.clone(), parts)?);
                records += 1;
                bytes += entry.payload();
            }
            keyed.waiting.pop_front();
            self.next = position + 1;
            if records >= room.records || bytes >= room.bytes {
                return Ok(Some(Fetch::More));
            }
        }
    }

    /// Turns a stop at a moment into one at a position, once a record of any key is that late.
    fn settle_stop(&mut self, end: &End) -> Result<()> {
        let (StopAt::Time(time), Some(keyed)) = (self.stop, &mut self.keyed) else {
            return Ok(());
        };
        if end.next > keyed.in_time {
            let position = self.topic.position_at(time)?;
            if position < end.next {
                self.stop = StopAt::Position(position);
            } else {
                keyed.in_time = end.next;
            }
        }
        Ok(())
    }
}
