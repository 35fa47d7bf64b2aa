//! Room for the next group: how many batches it takes, in which segment.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use annals_core::Result;

use super::{Request, Writer};
use crate::disk::{OpenMode, Reserved};
use crate::log::segment::{SEGMENT_HEADER, Segment, SegmentHeader, is_full, path_of, write_full};

impl Writer {
    /// Finds how many of `waiting` make the next group, in a segment with room for all of them.
    pub(super) fn make_room(&mut self, waiting: &VecDeque<Request>) -> Result<usize> {
        let sizes = self.topic.sizes;
        loop {
            let space = sizes.segment.saturating_sub(self.end).min(sizes.group);
            let left = sizes
                .records
                .saturating_sub(self.chain.next - self.segment.header.first);
            let (mut count, mut bytes, mut records) = (0, 0, 0);
            for request in waiting {
                let len = request.batch.len_bytes() as u64;
                let many = records + request.batch.records() as u64;
                let fits = bytes + len <= space && many <= left;
                let alone = count == 0 && self.end == SEGMENT_HEADER;
                let large = count == 0
                    && len > sizes.group
                    && self.end + len <= sizes.segment
                    && many <= left;
                if !fits && !alone && !large {
                    break;
                }
                count += 1;
                bytes += len;
                records = many;
            }
            if count == 0 {
                if waiting.is_empty() {
                    return Ok(0);
                }
                self.roll()?;
                continue;
            }
            loop {
                match self.reserve(bytes) {
                    Ok(()) => return Ok(count),
                    Err(e) if count == 1 || self.failed.is_some() => return Err(e),
                    // Some of them may still fit.
                    Err(_) => {
                        count = count.div_ceil(2).min(count - 1);
                        bytes = waiting
                            .iter()
                            .take(count)
                            .map(|r| r.batch.len_bytes() as u64)
                            .sum();
                    }
                }
            }
        }
    }

    /// Asks for room for `bytes` more, and some to spare.
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        let need = self.end + bytes;
        if need <= self.reserved {
            return Ok(());
        }
        let sizes = self.topic.sizes;
        let spare = (self.reserved + self.step)
            .min(sizes.segment.max(need))
            .max(need);
        let mut result = Ok(());
        for to in [spare, need] {
            match self.file.reserve(self.reserved, to - self.reserved) {
                Ok(Reserved::Done) => {
                    self.reserved = to;
                    self.step = (self.step * 2).min(sizes.reserve_most);
                    return Ok(());
                }
                Ok(Reserved::Unsupported) => return Ok(()),
                Err(e) => {
                    // A reservation that failed may have changed the length.
                    let undone = self.file.set_len(self.reserved);
                    let blocked = is_full(&e);
                    let error = self.topic.io("making room for an append", e);
                    if undone.is_err() || !blocked {
                        self.poison(&error);
                    }
                    result = Err(error);
                    if !blocked {
                        break;
                    }
                }
            }
        }
        result
    }

    /// Begins the next segment: durable, with its directory entry, before anything is in it.
    fn roll(&mut self) -> Result<()> {
        let disk = &self.topic.disk;
        let header = SegmentHeader {
            topic: self.topic.id,
            first: self.chain.next,
            epoch: self.chain.epoch,
            commit: self.chain.commit,
            time: self.chain.time,
            previous: self.segment.header.first,
            previous_end: self.end,
            settings: self.topic.settings,
        };
        let path = path_of(&self.topic.dir, header.first);
        let made = disk.open(&path, OpenMode::CreateNew).and_then(|file| {
            match file.reserve(0, SEGMENT_HEADER) {
                Ok(_) => write_full(&*file, &header.encode(), 0).map(|()| file),
                Err(e) => Err(e),
            }
        });
        let file = match made {
            Ok(file) => file,
            Err(e) => {
                let full = is_full(&e);
                let removed = disk.remove(&path);
                let error = self.topic.io("beginning a segment", e);
                if !full || removed.is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                    self.poison(&error);
                }
                return Err(error);
            }
        };
        if let Err(e) = file
            .sync_data()
            .and_then(|()| disk.sync_dir(&self.topic.dir))
        {
            let error = self.topic.io("syncing a new segment", e);
            self.poison(&error);
            return Err(error);
        }
        // Room only: where its data ends stands in the new segment's header.
        let _ = self.file.set_len(self.end);
        let segment = Arc::new(Segment::new(path, header));
        segment.share(&file);
        self.topic
            .segments
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(header.first, Arc::clone(&segment));
        self.segment = segment;
        self.file = file;
        self.end = SEGMENT_HEADER;
        self.reserved = SEGMENT_HEADER;
        self.publish();
        Ok(())
    }
}
