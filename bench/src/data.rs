//! Where the data lies, and what it consists of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use annals_core::Record;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rustix::fs::{Advice, fadvise, fstatfs};

/// The bytes of a value.
pub(crate) const VALUE: usize = 256;
/// The records of a batch.
pub(crate) const BATCH: usize = 1_000;
/// Different keys.
pub(crate) const KEYS: u64 = 1_000_000;

/// The workspace's `target`, wherever cargo builds.
pub(crate) fn target() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).join("target")
}

/// A directory that is empty at first and gone at the end.
pub(crate) struct Data(PathBuf);

impl Data {
    /// `target/bench-data`.
    ///
    /// # Errors
    /// Where a sync means nothing: in memory.
    pub(crate) fn new() -> Result<Self> {
        let dir = target().join("bench-data");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let data = Self(dir);
        match file_system(data.path())? {
            "tmpfs" | "ramfs" => bail!(
                "{} lies in memory, where a sync costs nothing; put target on a disk",
                data.path().display()
            ),
            name => println!("data in {} ({name})", data.path().display()),
        }
        Ok(data)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A directory below it, gone at the end of one measurement.
    pub(crate) fn dir(&self, name: &str) -> Result<Self> {
        let dir = self.0.join(name);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// The file system's name, of those that matter here.
fn file_system(dir: &Path) -> Result<&'static str> {
    let magic = fstatfs(File::open(dir)?)?.f_type;
    Ok(match u32::try_from(magic).unwrap_or(0) {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x2FC1_2FC1 => "zfs",
        0x794C_7630 => "overlayfs",
        0x0102_1994 => "tmpfs",
        0x8584_58F6 => "ramfs",
        _ => "another file system",
    })
}

/// Takes every file below `dir` out of the page cache. The directories and inodes stay.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = File::open(&path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Records as an application has them: a key of 14 bytes, a value of [`VALUE`] that does not
/// compress.
pub(crate) struct Source {
    pool: Bytes,
    state: u64,
}

impl Source {
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let words = (0..1 << 15).flat_map(|_| step(&mut state).to_le_bytes());
        Self {
            pool: words.collect(),
            state,
        }
    }

    pub(crate) fn record(&mut self) -> Record {
        let drawn = step(&mut self.state);
        let room = (self.pool.len() - VALUE) as u64;
        let at = usize::try_from(drawn % room).unwrap_or(0);
        Record::new(self.pool.slice(at..at + VALUE)).key(format!("key-{:010}", drawn % KEYS))
    }

    pub(crate) fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    /// So many batches of [`BATCH`].
    pub(crate) fn batches(&mut self, count: usize) -> Vec<Vec<Record>> {
        (0..count).map(|_| self.records(BATCH)).collect()
    }
}

/// Xorshift: fast, and the same in every run.
fn step(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The key and value of a record of [`Source`].
pub(crate) fn key_and_value(record: &Record) -> (&[u8], &[u8]) {
    (
        record.key_bytes().map_or(&[], |key| &key[..]),
        record.value_bytes().map_or(&[], |value| &value[..]),
    )
}
