//! The least that a log can do: bytes into a file, and out of it.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use annals_core::{Batch, Record};
use annals_embedded::log::Encoded;
use anyhow::{Context, Result, bail};
use crc_fast::crc32_iscsi;
use rustix::fs::{FallocateFlags, fallocate};

/// What one read takes: the embedded log's default.
const CHUNK: usize = 512 << 10;
const SEGMENT_HEADER: u64 = 4096;
const FRAME_HEADER: usize = 64;

/// The bytes that the embedded log writes for these records.
pub(crate) fn frame(records: &[Record]) -> Result<Vec<u8>> {
    let batch = Batch::from(records.to_vec());
    Ok(Encoded::new(&batch, Vec::new())?.into_buffer())
}

/// How a file gets its room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// With each write.
    Grow,
    /// Ahead, by `fallocate`, doubling from 64 KiB to 16 MiB as the embedded log does.
    Ahead,
}

/// A file that is written to its end and synced.
pub(crate) struct Writer {
    file: File,
    room: Room,
    end: u64,
    reserved: u64,
    step: u64,
}

impl Writer {
    pub(crate) fn new(path: &Path, room: Room) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(path)?;
        Ok(Self {
            file,
            room,
            end: 0,
            reserved: 0,
            step: 64 << 10,
        })
    }

    /// One write and one fdatasync.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        if self.room == Room::Ahead && self.end + len > self.reserved {
            let more = self.step.max(len);
            fallocate(&self.file, FallocateFlags::empty(), self.reserved, more)?;
            self.reserved += more;
            self.step = (self.step * 2).min(16 << 20);
        }
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        self.end += len;
        Ok(())
    }
}

/// The segment files of a topic, in order.
pub(crate) fn segments(topic: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(topic)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let four = bytes.get(at..at + 4).context("a number is cut off")?;
    Ok(u32::from_le_bytes(four.try_into()?) as usize)
}

/// Reads segments in chunks of 512 KiB and checks each entry; how many there were.
pub(crate) fn read(segments: &[PathBuf]) -> Result<usize> {
    let mut buffer = vec![0; CHUNK];
    let mut entries = 0;
    for path in segments {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let (mut start, mut held) = (SEGMENT_HEADER, 0);
        let mut at = SEGMENT_HEADER;
        let mut left = 0;
        while at < len {
            let need = if left == 0 { FRAME_HEADER } else { 8 };
            let mut from = usize::try_from(at - start)?;
            // What begins at `from`, whole.
            let size = |from: usize, held: usize, buffer: &[u8]| -> Result<usize> {
                if left == 0 || from + need > held {
                    return Ok(need);
                }
                number(buffer, from + 4)
            };
            if from + size(from, held, &buffer)? > held {
                held = file.read_at(&mut buffer, at)?;
                (start, from) = (at, 0);
            }
            let size = size(from, held, &buffer)?;
            let Some(bytes) = buffer.get(from..(from + size).min(held)) else {
                bail!("a read went outside of its buffer");
            };
            if bytes.len() < size {
                bail!("{} is cut off", path.display());
            }
            if left == 0 {
                if !bytes.starts_with(b"anF1") {
                    // Room that was never written to.
                    break;
                }
                left = number(bytes, 12)?;
                at += FRAME_HEADER as u64;
                continue;
            }
            if crc32_iscsi(bytes.get(4..).unwrap_or_default()) as usize != number(bytes, 0)? {
                bail!("{} is broken", path.display());
            }
            black_box(bytes);
            entries += 1;
            left -= 1;
            at += size as u64;
            if left == 0 {
                at = at.next_multiple_of(8);
            }
        }
    }
    Ok(entries)
}
