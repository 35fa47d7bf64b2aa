//! The index of a sealed segment, opened: its filter and where its blocks begin are in memory, the
//! blocks themselves in the file.

use std::io;
use std::path::{Path, PathBuf};

use crc_fast::crc32_iscsi;

use super::Posting;
use super::filter::Filter;
use super::format::{BLOCK, Extent, Header, Row, Rows, place};
use crate::disk::{Disk, OpenMode};
use crate::log::frame::u64_at;
use crate::log::segment::read_full;

/// An index that can be asked.
#[derive(Debug)]
pub(super) struct Run {
    filter: Filter,
    /// Hash and ordinal of each block's first row.
    firsts: Vec<u64>,
    seal: u32,
    blocks: Blocks,
}

#[derive(Debug)]
enum Blocks {
    File(PathBuf),
    /// A whole index file that could not be written, or must not be.
    Memory(Vec<u8>),
}

/// Its file is gone, unreadable or broken: make it anew from the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unusable;

/// What became of an index file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::log) enum State {
    Whole,
    /// It is of another segment, or of one that was longer or shorter.
    Stale,
    /// A checksum is wrong, or bytes are missing.
    Broken,
}

impl From<io::Error> for Unusable {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Run {
    /// Opens the index file of a segment; `Unusable` also when it is of anything else.
    pub(super) fn open(disk: &dyn Disk, path: &Path, extent: &Extent) -> Result<Self, Unusable> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; BLOCK];
        read_full(&*file, &mut bytes, 0)?;
        let header = Header::decode(&bytes)
            .filter(|header| header.extent == *extent)
            .ok_or(Unusable)?;
        let seal = Header::seal(&bytes);
        let (at, len) = header.summary_at();
        if file.len()? != at + len as u64 {
            return Err(Unusable);
        }
        bytes.resize(len, 0);
        read_full(&*file, &mut bytes, at)?;
        Self::assemble(&header, seal, &bytes, Blocks::File(path.to_owned()))
    }

    /// Whether an index file is whole and of this segment: every checksum of it.
    pub(super) fn check(disk: &dyn Disk, path: &Path, extent: &Extent) -> io::Result<State> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; BLOCK];
        read_full(&*file, &mut bytes, 0)?;
        match Header::decode(&bytes) {
            None => return Ok(State::Broken),
            Some(header) if header.extent != *extent => return Ok(State::Stale),
            Some(_) => {}
        }
        let whole = Self::open(disk, path, extent).and_then(|run| {
            let mut reader = run.reader(disk)?;
            for (number, place) in run.firsts.iter().enumerate() {
                let first = reader.block(number, |rows| rows.get(0).map(Row::place))?;
                if first != Some(*place) {
                    return Err(Unusable);
                }
            }
            Ok(())
        });
        Ok(whole.map_or(State::Broken, |()| State::Whole))
    }

    /// Of an encoded index; `path`: it has been written there.
    pub(super) fn of(file: Vec<u8>, path: Option<PathBuf>) -> Result<Self, Unusable> {
        let header = Header::decode(&file).ok_or(Unusable)?;
        let seal = Header::seal(&file);
        let (at, _) = header.summary_at();
        let at = usize::try_from(at).map_err(|_| Unusable)?;
        let summary = file.get(at..).ok_or(Unusable)?.to_vec();
        let blocks = path.map_or(Blocks::Memory(file), Blocks::File);
        Self::assemble(&header, seal, &summary, blocks)
    }

    fn assemble(
        header: &Header,
        seal: u32,
        summary: &[u8],
        blocks: Blocks,
    ) -> Result<Self, Unusable> {
        if crc32_iscsi(summary) != header.summary {
            return Err(Unusable);
        }
        let filter = header.filter_lines as usize * Filter::LINE;
        let (filter, firsts) = summary.split_at_checked(filter).ok_or(Unusable)?;
        Ok(Self {
            filter: Filter::from_bytes(filter),
            firsts: firsts.chunks_exact(8).map(|b| u64_at(b, 0)).collect(),
            seal,
            blocks,
        })
    }

    /// False: no record of its segment has this hash.
    pub(super) fn may_hold(&self, hash: u32) -> bool {
        self.filter.may_hold(hash)
    }

    /// The newest record with this hash of those before ordinal `below`.
    pub(super) fn newest(
        &self,
        disk: &dyn Disk,
        hash: u32,
        below: u32,
    ) -> Result<Option<Posting>, Unusable> {
        let place = place(hash, below);
        // The last block that begins before the place has the row before it.
        let Some(block) = self
            .firsts
            .partition_point(|first| *first < place)
            .checked_sub(1)
        else {
            return Ok(None);
        };
        self.reader(disk)?.block(block, |rows| {
            let row = rows.before(place).checked_sub(1).and_then(|i| rows.get(i));
            row.filter(|row| row.hash() == hash).map(Row::posting)
        })
    }

    /// The first `most` records with this hash from ordinal `from` on, in order, and whether there
    /// are more.
    pub(super) fn from(
        &self,
        disk: &dyn Disk,
        hash: u32,
        from: u32,
        most: usize,
    ) -> Result<(Vec<Posting>, bool), Unusable> {
        if !self.filter.may_hold(hash) {
            return Ok((Vec::new(), false));
        }
        let place = place(hash, from);
        let behind = self.firsts.partition_point(|first| *first < place);
        let mut reader = self.reader(disk)?;
        let mut found = Vec::new();
        let mut more = false;
        for block in behind.saturating_sub(1)..self.firsts.len() {
            let ended = reader.block(block, |rows| {
                let from = rows.before(place);
                for row in (from..rows.len()).map_while(|index| rows.get(index)) {
                    more = row.hash() == hash && found.len() == most;
                    if row.hash() != hash || more {
                        return true;
                    }
                    found.push(row.posting());
                }
                false
            })?;
            if ended {
                break;
            }
        }
        Ok((found, more))
    }

    fn reader(&self, disk: &dyn Disk) -> Result<BlockReader<'_>, Unusable> {
        let source = match &self.blocks {
            Blocks::File(path) => Source::File(disk.open(path, OpenMode::Read)?, vec![0; BLOCK]),
            Blocks::Memory(bytes) => Source::Memory(bytes),
        };
        Ok(BlockReader {
            source,
            seal: self.seal,
        })
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let blocks = match &self.blocks {
            Blocks::File(_) => 0,
            Blocks::Memory(bytes) => bytes.len(),
        };
        self.filter.as_bytes().len() + self.firsts.len() * 8 + blocks
    }
}

struct BlockReader<'a> {
    source: Source<'a>,
    seal: u32,
}

enum Source<'a> {
    File(std::sync::Arc<dyn crate::disk::DiskFile>, Vec<u8>),
    Memory(&'a [u8]),
}

impl BlockReader<'_> {
    /// Calls `f` with the rows of a block.
    fn block<T>(&mut self, number: usize, f: impl FnOnce(Rows<'_>) -> T) -> Result<T, Unusable> {
        let at = (1 + number) * BLOCK;
        let bytes = match &mut self.source {
            Source::File(file, bytes) => {
                read_full(&**file, bytes, at as u64)?;
                &bytes[..]
            }
            Source::Memory(bytes) => bytes.get(at..).unwrap_or_default(),
        };
        let number = u32::try_from(number).map_err(|_| Unusable)?;
        Rows::decode(bytes, self.seal, number)
            .map(f)
            .ok_or(Unusable)
    }
}

#[cfg(test)]
mod tests {
    use annals_core::{Clock, Timestamp};

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::log::keys::format::encode;
    use crate::log::options::TopicId;

    #[test]
    fn answers_across_blocks_as_a_plain_list_does() {
        let disk = MemoryDisk::new(Clock::moved(Timestamp::from_millis(0)));
        let extent = Extent {
            topic: TopicId([7; 16]),
            first: 0,
            next: 3000,
            end: 1 << 20,
            commit: 9,
            time: Timestamp::from_millis(0),
        };
        // One hash fills blocks of its own, others share one, and some are at the very ends.
        let hash = |ordinal: u32| match ordinal % 6 {
            0..3 => 1 << 20,
            3 => ordinal % 9 * 1000,
            4 => u32::MAX,
            _ => ordinal.wrapping_mul(0x9e37_79b1),
        };
        let posting = |ordinal| Posting {
            ordinal,
            frame: ordinal * 10,
            entry: ordinal * 10 + 64,
        };
        let mut rows: Vec<_> = (0..3000).map(|n| Row::new(hash(n), posting(n))).collect();
        let file = encode(&extent, &mut rows);
        assert!(file.len() > 12 * BLOCK);
        let path = Path::new("an.idx");
        let written = disk.open(path, OpenMode::CreateNew).unwrap();
        written.write_at(&file, 0).unwrap();
        for run in [
            Run::open(&disk, path, &extent).unwrap(),
            Run::of(file.clone(), None).unwrap(),
            Run::of(file, Some(path.to_owned())).unwrap(),
        ] {
            for of in [0, 1 << 20, 3000, u32::MAX, hash(5), hash(2999), 77] {
                let all: Vec<_> = (0..3000).filter(|n| hash(*n) == of).map(posting).collect();
                for bound in [0, 1, 2, 700, 701, 1500, 2998, 2999, 3000] {
                    let newest = all.iter().rfind(|p| p.ordinal < bound).copied();
                    assert_eq!(run.newest(&disk, of, bound), Ok(newest), "{of} {bound}");
                    let from: Vec<_> = all.iter().filter(|p| p.ordinal >= bound).copied().collect();
                    for most in [1, 255, 256, 3000] {
                        let (found, more) = run.from(&disk, of, bound, most).unwrap();
                        assert_eq!(found, from[..most.min(from.len())], "{of} {bound} {most}");
                        assert_eq!(more, from.len() > most, "{of} {bound} {most}");
                    }
                }
            }
        }
    }
}
