//! One write and one sync for a whole group.

use std::io;

use annals_core::{Effect, Error, ErrorKind, Retry};

use super::{Ready, Writer};
use crate::log::segment::{is_full, write_full};

/// Frames from this size on are written from where they were encoded; smaller ones are copied
/// together.
const ALONE: usize = 64 << 10;

impl Writer {
    /// One write and one sync for the whole group.
    pub(super) fn write(&mut self, group: &mut [Ready]) -> Result<(), (Error, Effect)> {
        let before = self.tail;
        let start = before.end.bytes;
        if self.end == start {
            return Ok(());
        }
        let written = self.write_frames(group);
        if let Err(e) = written {
            let full = is_full(&e);
            let error = self.topic.io("writing to the log", e);
            // Half a group may lie there: gone and synced, before anything else is written.
            let cut = self
                .file
                .set_len(start)
                .and_then(|()| self.file.sync_data());
            self.reserved = start;
            if full && cut.is_ok() {
                self.chain = before.chain();
                self.ids = None;
                return Err((error, Effect::None));
            }
            self.poison(&error);
            return Err((error, Effect::Unknown));
        }
        if let Err(e) = self.file.sync_data() {
            let error = Error::new(
                ErrorKind::Closed,
                Effect::Unknown,
                Retry::Never,
                "syncing the log failed, so the records may or may not be there; reopen the log to find out",
            )
            .on_topic(&self.topic.name)
            .with_source(e);
            self.poison(&error);
            return Err((error, Effect::Unknown));
        }
        self.reserved = self.reserved.max(self.end);
        Ok(())
    }

    fn write_frames(&mut self, group: &[Ready]) -> io::Result<()> {
        let frames = group
            .iter()
            .filter_map(|ready| Some((ready.frame.as_ref()?.offset, ready.encoded())));
        self.scratch.clear();
        let mut at = 0;
        let single = group.len() == 1;
        for (offset, encoded) in frames {
            let bytes = &encoded.frame;
            if single || bytes.len() >= ALONE {
                write_full(&*self.file, &self.scratch, at)?;
                self.scratch.clear();
                write_full(&*self.file, bytes, offset)?;
                continue;
            }
            if self.scratch.is_empty() {
                at = offset;
            }
            self.scratch.extend_from_slice(bytes);
            if self.scratch.len() >= 1 << 20 {
                write_full(&*self.file, &self.scratch, at)?;
                self.scratch.clear();
            }
        }
        write_full(&*self.file, &self.scratch, at)
    }
}
