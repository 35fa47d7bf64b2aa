//! Disks that leave out on purpose what the engine relies on: each stands for an engine that does
//! not ask for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_core::Timestamp;
use annals_embedded::disk::{
    BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, FaultyDisk, HeldBy, OpenMode, Reserved,
};

use crate::workload::ROOT;

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// Nothing: the engine as it is.
    None,
    /// The sync of files with this ending.
    Sync(&'static str),
    /// The sync of a group comes with the next write: it is acknowledged before it is durable.
    LateSync,
    /// The sync of the directories that `Where` says.
    SyncDir(Where),
    /// A torn end is not cut off.
    Cut,
    /// What survived a failed sync is not written again.
    Rewrite,
    /// Nobody sees that the page cache was lost.
    Boot,
    /// The low-water mark is not written at all.
    Mark,
    /// Segments that retention removes stay.
    Remove,
    /// A commit of a cursor is kept in memory.
    Cursor,
}

/// Which directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Where {
    Above,
    Root,
    Topic,
    Groups,
}

impl Lie {
    /// Whether no sync of such files reaches the disk, so that none can fail.
    pub(crate) fn spares(self, end: &str) -> bool {
        match self {
            Self::Sync(spared) => spared == end,
            Self::LateSync => end == ".seg",
            _ => false,
        }
    }

    pub(crate) fn over(self, disk: &FaultyDisk) -> Arc<dyn Disk> {
        if self == Self::None {
            return Arc::new(disk.clone());
        }
        Arc::new(Saboteur {
            disk: disk.clone(),
            lie: self,
        })
    }
}

#[derive(Debug)]
struct Saboteur {
    disk: FaultyDisk,
    lie: Lie,
}

fn depth(dir: &Path) -> Where {
    match dir.components().count() {
        0 | 1 if dir != Path::new(ROOT) => Where::Above,
        1 => Where::Root,
        2 => Where::Topic,
        _ => Where::Groups,
    }
}

impl Disk for Saboteur {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Liar {
            file: self.disk.open(path, mode)?,
            name: path.to_string_lossy().into_owned(),
            lie: self.lie,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let deleted = path.to_string_lossy().contains("/.");
        if self.lie == Lie::Remove && path.extension().is_some_and(|end| end == "seg") && !deleted {
            return Ok(());
        }
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.lie == Lie::SyncDir(depth(dir)) {
            return Ok(());
        }
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, HeldBy>> {
        self.disk.lock(path, owner)
    }

    fn watch(
        &self,
        path: &Path,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Box<dyn DiskWatch>> {
        self.disk.watch(path, wake)
    }

    fn boot(&self) -> BootId {
        if self.lie == Lie::Boot {
            return BootId([1; 16]);
        }
        self.disk.boot()
    }

    fn draw(&self) -> io::Result<u64> {
        self.disk.draw()
    }

    fn now(&self) -> Timestamp {
        self.disk.now()
    }
}

#[derive(Debug)]
struct Liar {
    file: Arc<dyn DiskFile>,
    name: String,
    lie: Lie,
}

impl Liar {
    fn is(&self, end: &str) -> bool {
        self.name.ends_with(end)
    }
}

impl DiskFile for Liar {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buf, at)
    }

    fn read_now_at(&self, buf: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.file.read_now_at(buf, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        match self.lie {
            Lie::Rewrite if self.is(".seg") => {
                let mut there = vec![0; bytes.len()];
                if self.file.read_at(&mut there, at)? == bytes.len() && there == bytes {
                    return Ok(bytes.len());
                }
            }
            Lie::LateSync if self.is(".seg") => self.file.sync_data()?,
            Lie::Mark if self.is("start") => return Ok(bytes.len()),
            Lie::Cursor if self.is("cursor") && at == 0 => return Ok(bytes.len()),
            _ => {}
        }
        self.file.write_at(bytes, at)
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<Reserved> {
        self.file.reserve(at, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.lie == Lie::Cut && self.is(".seg") {
            return Ok(());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.lie {
            Lie::Sync(end) if self.is(end) => Ok(()),
            Lie::LateSync if self.is(".seg") => Ok(()),
            _ => self.file.sync_data(),
        }
    }

    fn hold(&self) -> io::Result<()> {
        self.file.hold()
    }

    fn free(&self) -> io::Result<()> {
        self.file.free()
    }

    fn is_held(&self) -> io::Result<bool> {
        self.file.is_held()
    }
}
