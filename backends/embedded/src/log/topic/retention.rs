//! The low-water mark in `start`, and what is removed below it.

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use annals_core::{Error, Result, Timestamp};

use super::{Topic, lock};
use crate::disk::{Disk, OpenMode};
use crate::log::frame::u64_at;
use crate::log::segment::path_of;
use crate::slot::Slot;

impl Topic {
    /// The low-water mark's file: rarely needed, so it is not kept open.
    pub(super) fn start(&self, mode: OpenMode) -> io::Result<Option<Slot>> {
        open_start(&*self.disk, &self.dir, mode)
    }

    /// The oldest position that is kept, read again from disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn reread_earliest(&self) -> Result<u64> {
        let value = self
            .start(OpenMode::Read)
            .and_then(|start| start.as_ref().map_or(Ok(None), Slot::read))
            .map_err(|e| self.io("reading start", e))?;
        let earliest = low_water(value.as_deref());
        self.raise(earliest);
        Ok(self.end().earliest)
    }

    pub(super) fn raise(&self, earliest: u64) {
        self.end.send_if_modified(|end| {
            let higher = earliest > end.earliest;
            end.earliest = end.earliest.max(earliest);
            higher
        });
    }

    /// Makes `earliest` the low-water mark, durably; then removes whole sealed segments below it.
    /// A crash in between leaves files that the next opening for writing removes. A mark past the
    /// active segment's start removes all but that one.
    ///
    /// # Errors
    /// `Unsupported` where the writer is another process; the disk's.
    pub fn trim(&self, earliest: u64) -> Result<()> {
        if !self.is_written_here() {
            return Err(Error::unsupported(
                "the topic is written by another process; trim it there",
            )
            .on_topic(&self.name));
        }
        let _trimming = lock(&self.trimming);
        let active = self.read_segments().last_key_value().map_or(0, |(k, _)| *k);
        let earliest = earliest.min(self.end().next);
        if earliest <= self.end().earliest {
            return Ok(());
        }
        self.start(OpenMode::Write)
            .and_then(|start| {
                let start = start.ok_or(io::ErrorKind::NotFound)?;
                start.write(&earliest.to_le_bytes(), true)
            })
            .map_err(|e| self.io("moving the low-water mark", e))?;
        self.raise(earliest);
        self.remove_below(earliest.min(active))
    }

    /// Removes sealed segments all of whose records lie below `earliest`, oldest first.
    pub(in crate::log) fn remove_below(&self, earliest: u64) -> Result<()> {
        let mut removed = false;
        loop {
            let oldest = {
                let segments = self.read_segments();
                let mut firsts = segments.iter();
                match (firsts.next(), firsts.next()) {
                    (Some((first, segment)), Some((next, _))) if *next <= earliest => {
                        Some((*first, segment.path.clone()))
                    }
                    _ => None,
                }
            };
            let Some((first, path)) = oldest else { break };
            // So that no index is left behind by whoever is making it.
            let _working = lock(&self.keys.working);
            for path in [path.with_extension("idx"), path] {
                match self.disk.remove(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(self.io("removing a segment", e));
                    }
                    _ => {}
                }
            }
            self.segments
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&first);
            removed = true;
        }
        if removed {
            let segments = self.read_segments();
            self.keys.retain(|first| segments.contains_key(&first));
            drop(segments);
            self.disk
                .sync_dir(&self.dir)
                .map_err(|e| self.io("removing segments", e))?;
        }
        Ok(())
    }

    /// First position, bytes and last append time of each sealed segment, oldest first: what
    /// retention decides by. The position behind it is the next one's first.
    pub fn sealed(&self) -> Vec<(u64, u64, Timestamp)> {
        let segments = self.read_segments();
        segments
            .values()
            .zip(segments.values().skip(1))
            .filter(|(segment, next)| next.header.continues(&segment.header))
            .map(|(segment, next)| {
                (
                    segment.header.first,
                    next.header.previous_end,
                    next.header.time,
                )
            })
            .collect()
    }
}

/// The low-water mark's file. Where it is lost and nothing has been trimmed, the mark can only be
/// 0: that is `None`, and for writing the file is made anew.
pub(super) fn open_start(disk: &dyn Disk, dir: &Path, mode: OpenMode) -> io::Result<Option<Slot>> {
    let path = dir.join("start");
    let error = match Slot::open(disk, &path, mode) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => e,
        other => return other.map(Some),
    };
    let first = disk.open(&path_of(dir, 0), OpenMode::Read);
    if first.is_err() {
        return Err(error);
    }
    if mode == OpenMode::Read {
        return Ok(None);
    }
    let start = Slot::create(disk, &path)?;
    start.write(&0_u64.to_le_bytes(), true)?;
    disk.sync_dir(dir)?;
    Ok(Some(start))
}

pub(super) fn low_water(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| u64_at(bytes, 0))
}
