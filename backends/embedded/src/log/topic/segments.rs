//! A topic's segments: their headers, in the order of their positions, and what is missing.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use annals_core::{Error, Result, TopicName};

use super::Topic;
use super::retention::low_water;
use crate::disk::{Disk, OpenMode};
use crate::error::of_io;
use crate::log::recover::scan;
use crate::log::segment::{
    SEGMENT_HEADER, Segment, SegmentHeader, Segments, file_name, first_in_name, path_of,
    read_header,
};
use crate::log::tail::End;
use crate::slot::Slot;

impl Topic {
    pub(in crate::log) fn read_segments(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the directory again, for segments that another process made or removed.
    pub(in crate::log) fn reload(&self) -> Result<()> {
        let known = self.read_segments().clone();
        let start = self
            .start(OpenMode::Read)
            .map_err(|e| self.io("reading start", e))?;
        let (segments, earliest) =
            load_kept(&*self.disk, &self.dir, &self.name, &known, start.as_ref())?;
        self.raise(earliest);
        self.keys.retain(|first| segments.contains_key(&first));
        *self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner) = segments;
        Ok(())
    }

    /// The segment in which `position` lies or will lie, and where its data ends.
    pub(in crate::log) fn segment_of(
        &self,
        position: u64,
        end: &End,
    ) -> Option<(Arc<Segment>, u64)> {
        let segments = self.read_segments();
        let (first, segment) = segments.range(..=position).next_back()?;
        let limit = if *first == end.segment {
            end.bytes
        } else {
            // Without the segment behind it, although the log goes on, nobody says where its records
            // end: whoever reads on finds out where they stop being whole.
            segments
                .range(first + 1..)
                .next()
                .filter(|(_, next)| next.header.continues(&segment.header))
                .map_or(u64::MAX, |(_, next)| next.header.previous_end)
        };
        Some((Arc::clone(segment), limit))
    }

    /// The segment that should begin at `position` cannot be read.
    pub(in crate::log) fn hole(&self, position: u64) -> Error {
        let file = file_name(position);
        let there = self
            .disk
            .open(&path_of(&self.dir, position), OpenMode::Read);
        let what = match there {
            Err(e) if e.kind() == io::ErrorKind::NotFound => format!("segment {file} is missing"),
            _ => format!("the header of segment {file} is broken"),
        };
        self.corrupt(position, &what)
    }

    /// The first position that a missing segment leaves in doubt; `None`: none is missing.
    pub(in crate::log) fn first_hole(&self) -> Option<Error> {
        let segments = self.read_segments().clone();
        let earliest = self.end().earliest;
        if is_whole(&segments, earliest) {
            return None;
        }
        let mut expected = earliest;
        if segments
            .keys()
            .next()
            .is_some_and(|first| *first <= earliest)
        {
            let mut pairs = segments.values().zip(segments.values().skip(1));
            let (before, behind) = pairs.find(|(a, b)| !b.header.continues(&a.header))?;
            expected = behind.header.previous;
            if let Ok(file) = before.open(&*self.disk)
                && let Ok(found) = scan(
                    &*file,
                    self.id.tag(),
                    SEGMENT_HEADER,
                    before.header.chain(),
                    None,
                )
            {
                expected = found.chain.next;
            }
        }
        Some(self.hole(expected))
    }
}

/// [`load`] beside a writer whose retention goes on: what seems to be missing may have been
/// removed since the low-water mark was read, and then the mark has moved. Returns the mark too.
pub(super) fn load_kept(
    disk: &dyn Disk,
    dir: &Path,
    name: &TopicName,
    known: &Segments,
    start: Option<&Slot>,
) -> Result<(Segments, u64)> {
    let mark = || match start.map_or(Ok(None), Slot::read) {
        Ok(value) => Ok(low_water(value.as_deref())),
        Err(e) => Err(of_io("reading start", e).on_topic(name)),
    };
    let mut earliest = mark()?;
    loop {
        let segments = load(disk, dir, name, known, earliest)?;
        let now = if is_whole(&segments, earliest) {
            earliest
        } else {
            mark()?
        };
        if now == earliest {
            return Ok((segments, earliest));
        }
        earliest = now;
    }
}

/// Whether nothing is missing above the low-water mark: each segment continues the one before it.
pub(in crate::log) fn is_whole(segments: &Segments, earliest: u64) -> bool {
    let mut pairs = segments.values().zip(segments.values().skip(1));
    let first = segments.keys().next();
    first.is_some_and(|first| *first <= earliest)
        && pairs.all(|(before, segment)| segment.header.continues(&before.header))
}

/// Reads the headers of all segments; those of `known` are not read again. What has no valid
/// header is left out: the last one is the recovery's to judge, and one before it is a hole where
/// the chain of headers asks for it, a stray file where it does not. A hole leaves what is on both
/// sides of it to be read.
fn load(
    disk: &dyn Disk,
    dir: &Path,
    name: &TopicName,
    known: &Segments,
    earliest: u64,
) -> Result<Segments> {
    let fail = |e| of_io("opening the topic's segments", e).on_topic(name);
    let mut firsts: Vec<u64> = disk
        .list(dir)
        .map_err(fail)?
        .iter()
        .filter_map(|entry| first_in_name(&entry.name))
        .collect();
    firsts.sort_unstable();
    let mut segments = Segments::new();
    for first in firsts {
        if let Some(segment) = known.get(&first) {
            segments.insert(first, Arc::clone(segment));
            continue;
        }
        let path = path_of(dir, first);
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            // Retention in another process was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(fail(e)),
        };
        match read_header(&*file).map_err(fail)? {
            Ok(Some(header)) if header.first == first => {
                segments.insert(first, Arc::new(Segment::new(path, header)));
            }
            Err(version) => {
                return Err(Error::unsupported(format!(
                    "a segment has format version {version}, this build knows version 1; use a newer build"
                ))
                .on_topic(name));
            }
            _ => {}
        }
    }
    let mut chain = Segments::new();
    let mut behind: Option<SegmentHeader> = None;
    for (first, segment) in segments.into_iter().rev() {
        match &behind {
            // A stray file: the segment behind it knows another one before it.
            Some(behind) if first > behind.previous => continue,
            // A crash brought some of the segments back that retention had removed: none of what
            // they hold is kept. The next opening for writing removes them.
            Some(behind) if !behind.continues(&segment.header) && behind.first <= earliest => break,
            _ => {}
        }
        behind = Some(segment.header);
        chain.insert(first, segment);
    }
    Ok(chain)
}
