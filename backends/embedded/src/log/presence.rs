//! Whether an open topic still stands where it was opened.

use std::io;

use annals_core::Result;

use super::segment::{first_in_name, path_of, read_header};
use super::topic::Topic;
use crate::disk::OpenMode;

impl Topic {
    /// Whether the topic is still there: not deleted, nor made anew, by another process. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_there(&self) -> Result<bool> {
        let look = || -> io::Result<bool> {
            let entries = self.disk.list(&self.dir)?;
            let Some(last) = entries.iter().filter_map(|e| first_in_name(&e.name)).max() else {
                return Ok(false);
            };
            let file = self.disk.open(&path_of(&self.dir, last), OpenMode::Read)?;
            Ok(match read_header(&*file)? {
                Ok(Some(header)) => header.topic == self.id,
                // Being begun, or broken: the reader meets it.
                _ => true,
            })
        };
        match look() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map_err(|e| self.io("looking for the topic", e)),
        }
    }
}
