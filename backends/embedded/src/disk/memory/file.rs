//! An open file of a disk in memory, and its lock.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Inode;
use crate::disk::pages::Pages;
use crate::disk::{DiskFile, DiskLock, Reserved};

pub(super) struct MemoryFile {
    pub(super) inode: Arc<Inode>,
    /// Tells openings of one file apart.
    pub(super) opening: u64,
    pub(super) writes: bool,
}

impl MemoryFile {
    fn change(&self, change: impl FnOnce(&mut Pages)) -> io::Result<()> {
        if !self.writes {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file was opened for reading",
            ));
        }
        change(
            &mut self
                .inode
                .pages
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.inode.watched.changed();
        Ok(())
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile")
            .field("id", &self.inode.watched.id)
            .finish_non_exhaustive()
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let pages = self.inode.pages.read();
        Ok(pages.unwrap_or_else(PoisonError::into_inner).len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let pages = self.inode.pages.read();
        Ok(pages
            .unwrap_or_else(PoisonError::into_inner)
            .read_at(buf, at))
    }

    fn read_now_at(&self, buf: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.read_at(buf, at).map(Some)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.change(|pages| pages.write_at(bytes, at))?;
        Ok(bytes.len())
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<Reserved> {
        self.change(|pages| pages.set_len(pages.len().max(at.saturating_add(len))))?;
        Ok(Reserved::Done)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|pages| pages.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn hold(&self) -> io::Result<()> {
        let holder = &self.inode.holder;
        let free = |at: u64| at == 0 || at == self.opening;
        let take = |at| free(at).then_some(self.opening);
        while holder
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_err()
        {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn free(&self) -> io::Result<()> {
        // Not held by this opening: nothing to end.
        let _ =
            self.inode
                .holder
                .compare_exchange(self.opening, 0, Ordering::SeqCst, Ordering::SeqCst);
        Ok(())
    }

    fn is_held(&self) -> io::Result<bool> {
        let holder = self.inode.holder.load(Ordering::SeqCst);
        let locked = self.inode.owner.lock();
        let locked = locked.unwrap_or_else(PoisonError::into_inner).is_some();
        Ok(locked || (holder != 0 && holder != self.opening))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let _ = self.free();
    }
}

pub(super) struct MemoryLock(pub(super) Arc<Inode>);

impl DiskLock for MemoryLock {}

impl fmt::Debug for MemoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryLock")
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        *self.0.owner.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.watched.changed();
    }
}
