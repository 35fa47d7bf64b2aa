//! An open file of a faulty disk.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::fault::{Call, How};
use super::gate::Gate;
use super::state::State;
use crate::disk::image::Change;
use crate::disk::{DiskFile, Reserved};

pub(super) struct FaultyFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) gate: Arc<Gate>,
}

impl FaultyFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.state().pass(Call::Read, &self.path)?;
        self.file.read_at(buf, at)
    }

    fn read_now_at(&self, buf: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.state().pass(Call::Read, &self.path)?;
        self.file.read_now_at(buf, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut state = self.state();
        let most = match state.meet(Call::Write, &self.path)? {
            Some(How::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(How::Short(most)) => most.min(bytes.len()),
            Some(How::Unsupported) | None => bytes.len(),
        };
        let end = state.allocate(self.id, at.saturating_add(most as u64));
        let most = usize::try_from(end.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(most);
        if most == 0 && !bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let bytes = bytes.get(..most).unwrap_or(bytes);
        // Under the lock, so that the image sees changes in the order in which readers do.
        let written = self.file.write_at(bytes, at)?;
        state.note(Change::Write {
            id: self.id,
            at,
            bytes: Bytes::copy_from_slice(bytes),
        });
        Ok(written)
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<Reserved> {
        let mut state = self.state();
        match state.meet(Call::Reserve, &self.path)? {
            Some(How::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(How::Unsupported) => return Ok(Reserved::Unsupported),
            Some(How::Short(_)) | None => {}
        }
        let wanted = at.saturating_add(len);
        let end = state.allocate(self.id, wanted);
        // A failed reservation has extended the file all the same.
        if end > self.file.len()? {
            self.file.set_len(end)?;
            state.note(Change::SetLen {
                id: self.id,
                len: end,
            });
        }
        if end < wanted {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(Reserved::Done)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.pass(Call::SetLen, &self.path)?;
        self.file.set_len(len)?;
        state.free(self.id, len);
        state.note(Change::SetLen { id: self.id, len });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass(&self.path);
        let mut state = self.state();
        if let Err(e) = state.pass(Call::Sync, &self.path) {
            if !state.cut {
                state.note(Change::FailedSync { id: self.id });
            }
            return Err(e);
        }
        state.note(Change::Sync { id: self.id });
        Ok(())
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
