//! The file layer: everything the log asks of a disk, so that a disk in memory, or one that
//! crashes on purpose, can stand in its place.

mod faulty;
mod image;
mod memory;
mod pages;
mod real;
#[cfg(test)]
mod tests;
mod watch;

pub use faulty::{Call, Fault, Faults, FaultyDisk, History, Moments};
pub use memory::MemoryDisk;
pub use real::RealDisk;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_core::Timestamp;

/// A place for files. Calls block; the log makes them on its blocking jobs only.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file. [`OpenMode::CreateNew`] fails with `AlreadyExists` when it is there.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// What stands in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes one directory; its parent must be there. `AlreadyExists` when it is.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory, replacing a file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, or an empty directory.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable: creations, renames and removals in it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file (made if it is not there) for as long as the returned
    /// value lives, leaving `owner` in it for others to read. Never waits.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, HeldBy>>;
    /// Calls `wake` after each change of the file or directory, until the returned value is
    /// dropped; the release of a lock on the file counts as one, and is told before the lock is
    /// free or after it. Calls may be spurious and may be merged; one that is due is never lost.
    /// `wake` runs on a thread that all watches share: it must neither block nor use the disk.
    fn watch(
        &self,
        path: &Path,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Box<dyn DiskWatch>>;
    /// Changes exactly when the page cache is lost.
    fn boot(&self) -> BootId;
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// A number that nobody was given before, by this process or another: random, unless the disk
    /// is only simulated.
    fn draw(&self) -> io::Result<u64>;
}

/// An open file. Positions are absolute: one file may be used from several threads.
#[expect(
    clippy::len_without_is_empty,
    reason = "nobody asks whether a file is empty"
)]
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in bytes, reserved ones included.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most `buf.len()` bytes; 0 means the end of the file. May be short.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// As [`read_at`](Self::read_at), if that needs no waiting for a device: what lies in memory.
    /// `None`: it would, or nobody can say. Short where only the first part lies in memory.
    fn read_now_at(&self, buf: &mut [u8], at: u64) -> io::Result<Option<usize>>;
    /// Writes some of `bytes` and says how many; may be short.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Asks for room for `len` bytes at `at`, so that later writes there cannot run out of it.
    /// Extends the length. After an error the length may have changed all the same.
    fn reserve(&self, at: u64, len: u64) -> io::Result<Reserved>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes data and length durable. After an error unsynced bytes may be lost, and a second
    /// call that says `Ok` proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// Marks the file as in use, for other openings to see, until [`free`](Self::free), or until
    /// this opening or its process ends. One opening at a time: it waits for the other, and for
    /// the moment in which somebody looks.
    fn hold(&self) -> io::Result<()>;
    /// Ends [`hold`](Self::hold).
    fn free(&self) -> io::Result<()>;
    /// Whether another opening holds the file, a [`lock`](Disk::lock) on it included. Needs no right to write to it.
    fn is_held(&self) -> io::Result<bool>;
}

/// Held: the lock is. Dropped: it is free.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// Held: the watch runs. Dropped: its `wake` is not called any more, except for a call that is
/// already under way.
pub trait DiskWatch: fmt::Debug + Send + Sync {}

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; the file must be there.
    Read,
    /// For reading and writing; the file must be there.
    Write,
    /// For reading and writing; the file must not be there.
    CreateNew,
}

/// What [`DiskFile::reserve`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// The room is there.
    Done,
    /// This file system cannot reserve; writes may meet a full disk.
    Unsupported,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub dir: bool,
}

/// Who holds a lock: what its owner wrote into the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldBy {
    /// The owner's own words (the embedded log writes `pid 1234`).
    pub owner: String,
}

/// One life of the page cache. Equal ids: everything written since is still seen by readers,
/// synced or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BootId(pub [u8; 16]);
