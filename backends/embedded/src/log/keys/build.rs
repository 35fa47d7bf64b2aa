//! Making indexes: from a segment's records, beside it, in the background.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_core::{Effect, Error, ErrorKind, Result, Retry};

use super::format::{Row, encode};
use super::run::{Run, State};
use super::{Posting, Source, Target};
use crate::disk::{Disk, OpenMode};
use crate::log::frame::{FRAME_HEADER, FrameHeader, entries};
use crate::log::segment::{SEGMENT_HEADER, first_in_name, write_full};
use crate::log::topic::{Topic, lock};

const EXTENSION: &str = "idx";
/// What an index file is called while it is being written.
const UNFINISHED: &str = "idx.tmp";

impl Topic {
    /// Writes the indexes that sealed segments lack, the newest first, and removes what a crash
    /// left of earlier ones. An index is derived: nothing is lost when it cannot be written, and
    /// nothing is synced for it. Where the writer is another process it does nothing. Blocks.
    ///
    /// A segment of 64 MiB takes some tens of milliseconds, and 40 bytes of memory a record.
    ///
    /// # Errors
    /// `Corrupt`, naming the position, for a segment with a broken record; the disk's. The
    /// segments behind it are left as they are.
    pub fn index_sealed(&self) -> Result<()> {
        if !self.is_written_here() {
            return Ok(());
        }
        let fail = |e| self.io("indexing keys", e);
        let mut there = BTreeSet::new();
        let mut stray = Vec::new();
        for entry in self.disk.list(&self.dir).map_err(fail)? {
            if entry.name.ends_with(UNFINISHED) {
                stray.push(entry.name);
            } else if let Some(stem) = entry.name.strip_suffix(EXTENSION)
                && let Some(first) = first_in_name(&format!("{stem}seg"))
            {
                there.insert(first);
            }
        }
        let targets = self.sealed_targets();
        for first in &there {
            if !targets.iter().any(|target| target.first() == *first) {
                stray.push(format!("{first:020}.{EXTENSION}"));
            }
        }
        {
            let working = lock(&self.keys.working);
            for name in stray.iter().filter(|_| !working.stopped) {
                match self.disk.remove(&self.dir.join(name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
                    _ => {}
                }
            }
        }
        for target in targets.iter().filter(|t| !there.contains(&t.first())) {
            let working = lock(&self.keys.working);
            let kept = self.read_segments().contains_key(&target.first());
            if working.stopped {
                return Ok(());
            }
            if kept {
                let file = self.build(target)?;
                self.keep(target, &file).map_err(fail)?;
                self.keys.replace_table(target, file);
            }
        }
        Ok(())
    }

    /// Makes no more index files, and waits for the one that is being made: call it before others
    /// may write to the directory.
    pub(in crate::log) fn stop_indexing(&self) {
        lock(&self.keys.working).stopped = true;
    }

    /// Finds or makes the index of a sealed segment. Call it with the topic's `working` lock.
    pub(super) fn index_of(
        &self,
        target: &Target,
        anew: bool,
        may_write: bool,
        most: &mut usize,
    ) -> Result<Source> {
        let unusable = |_| self.corrupt(target.first(), "an index just made is broken");
        let path = target.segment.path.with_extension(EXTENSION);
        if let Some(extent) = &target.sealed
            && !anew
            && let Ok(run) = Run::open(&*self.disk, &path, extent)
        {
            return Ok(Source::Run(Arc::new(run)));
        }
        *most = most.checked_sub(1).ok_or_else(|| self.unindexed())?;
        let file = self.build(target)?;
        let mut kept = false;
        if may_write && self.is_written_here() {
            match self.keep(target, &file) {
                Ok(()) => kept = true,
                Err(e) => {
                    tracing::debug!(topic = %self.name, error = %e, "an index stays in memory");
                }
            }
        }
        // A file that proved broken once is not read again.
        let run = Run::of(file, (kept && !anew).then_some(path)).map_err(unusable)?;
        Ok(Source::Run(Arc::new(run)))
    }

    fn unindexed(&self) -> Error {
        Error::new(
            ErrorKind::Blocked,
            Effect::None,
            Retry::Backoff,
            "indexes of keys are missing and are being made, one for each try; try again",
        )
        .on_topic(&self.name)
    }

    /// The name of a sealed segment's index file, and whether it is whole; `None`: there is none.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::log) fn check_index(&self, first: u64) -> Result<Option<(String, State)>> {
        let target = self.target(first, &self.end());
        let Some((target, extent)) = target.and_then(|t| t.sealed.map(|extent| (t, extent))) else {
            return Ok(None);
        };
        let path = target.segment.path.with_extension(EXTENSION);
        match Run::check(&*self.disk, &path, &extent) {
            Ok(state) => Ok(Some((format!("{first:020}.{EXTENSION}"), state))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.io("reading an index", e)),
        }
    }

    /// The bytes of a sealed segment's index.
    fn build(&self, target: &Target) -> Result<Vec<u8>> {
        let Some(extent) = &target.sealed else {
            return Err(self.corrupt(target.first(), "a segment that grows was to be indexed"));
        };
        let mut rows = Vec::new();
        let mut fits = true;
        self.walk(
            &target.segment,
            SEGMENT_HEADER,
            target.first(),
            target.limit,
            |header, body, at| {
                fits &= self.each_key(target.first(), header, body, at, |hash, posting| {
                    rows.push(Row::new(hash, posting));
                });
            },
        )?;
        if !fits {
            return Err(too_large(self));
        }
        Ok(encode(extent, &mut rows))
    }

    /// Calls `f` with each keyed record of a frame at offset `at` of a segment that begins with
    /// position `first`; false: an offset does not fit a posting.
    pub(in crate::log) fn each_key(
        &self,
        first: u64,
        header: &FrameHeader,
        body: &[u8],
        at: u64,
        mut f: impl FnMut(u32, Posting),
    ) -> bool {
        for ((inside, entry), position) in entries(body).zip(header.first..) {
            let Some(key) = body.get(inside..).and_then(|bytes| entry.key_of(bytes)) else {
                continue;
            };
            let place = (
                u32::try_from(position.saturating_sub(first)),
                u32::try_from(at),
                u32::try_from(at + (FRAME_HEADER + inside) as u64),
            );
            let (Ok(ordinal), Ok(frame), Ok(entry)) = place else {
                return false;
            };
            let posting = Posting {
                ordinal,
                frame,
                entry,
            };
            f(self.keys.hasher.hash(key), posting);
        }
        true
    }

    /// Writes an index beside its segment: readers see it whole or not at all, unless power is
    /// lost, and then checksums tell.
    fn keep(&self, target: &Target, file: &[u8]) -> io::Result<()> {
        let path = target.segment.path.with_extension(EXTENSION);
        let unfinished = target.segment.path.with_extension(UNFINISHED);
        match self.disk.remove(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let written = write_new(&*self.disk, &unfinished, file)
            .and_then(|()| self.disk.rename(&unfinished, &path));
        if written.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove(&unfinished);
        }
        written
    }
}

fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_full(&*disk.open(path, OpenMode::CreateNew)?, bytes, 0)
}

pub(in crate::log) fn too_large(topic: &Topic) -> Error {
    Error::unsupported(
        "a segment of 4 GiB and more cannot be asked for a key; use a smaller segment size",
    )
    .on_topic(&topic.name)
}

#[cfg(test)]
impl Topic {
    /// A segment's index with valid checksums and every position, frame and record so much off.
    pub(in crate::log) fn lie(&self, first: u64, by: (u32, u32, u32)) -> Vec<u8> {
        let targets = self.sealed_targets();
        let target = targets.iter().find(|t| t.first() == first).unwrap();
        let mut rows = Vec::new();
        self.walk(
            &target.segment,
            SEGMENT_HEADER,
            first,
            target.limit,
            |header, body, at| {
                self.each_key(first, header, body, at, |hash, posting| {
                    let off = Posting {
                        ordinal: posting.ordinal + by.0,
                        frame: posting.frame + by.1,
                        entry: posting.entry + by.2,
                    };
                    rows.push(Row::new(hash, off));
                });
            },
        )
        .unwrap();
        encode(target.sealed.as_ref().unwrap(), &mut rows)
    }
}
