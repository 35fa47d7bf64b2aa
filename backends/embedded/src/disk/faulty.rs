//! A disk in memory that fails on purpose: errors, short writes, a full disk, crashes.

mod fault;
mod faults;
mod file;
mod gate;
mod history;
mod state;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::{Clock, Timestamp};

use super::image::{Change, Image};
use super::memory::MemoryDisk;
use super::{BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, HeldBy, OpenMode};
pub use fault::{Call, Fault};
pub use faults::Faults;
use file::FaultyFile;
use gate::Gate;
pub use history::{History, Moments};
use state::State;

/// A [`MemoryDisk`] with [`Faults`], whose crashes can be looked at.
///
/// It tells what is durable from what is only in the page cache: a write or a length needs
/// `sync_data` of its file, a creation, renaming or removal `sync_dir` of its directory. So it can
/// say what a crash would leave, as a new disk: [`after_kill`](Self::after_kill) and
/// [`after_power_loss`](Self::after_power_loss). The old disk goes on unless it is
/// [`cut`](Faults::cut).
///
/// Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    memory: Arc<MemoryDisk>,
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    clock: Clock,
}

impl FaultyDisk {
    /// An empty disk without failures so far, whose [`now`](Disk::now) is `clock`'s.
    pub fn new(clock: Clock) -> Self {
        let memory = Arc::new(MemoryDisk::with_boot(clock.clone(), BootId([1; 16])));
        Self {
            memory,
            state: Arc::new(Mutex::new(State::of(Image::new()))),
            gate: Arc::default(),
            clock,
        }
    }

    fn from_image(image: Image, boot: BootId, clock: Clock) -> Self {
        let memory = MemoryDisk::with_boot(clock.clone(), boot);
        image.fill(&memory);
        Self {
            memory: Arc::new(memory),
            state: Arc::new(Mutex::new(State::of(image))),
            gate: Arc::default(),
            clock,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hand on its failures.
    pub fn faults(&self) -> Faults {
        Faults(Arc::clone(&self.state), Arc::clone(&self.gate))
    }

    /// The disk as the next process finds it when this one is killed now: everything written is
    /// there, synced or not; locks are free, handles and watches gone. The boot id is the same.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let image = self.state().image.clone();
        Self::from_image(image, self.memory.boot(), self.clock.clone())
    }

    /// The disk after a power loss now: what was synced, and of the rest what `seed` chooses,
    /// sector (512 bytes) by sector, length by length, entry by entry. The boot id is a new one.
    /// The same state and seed give the same disk.
    #[must_use]
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let image = self.state().image.survivors(seed);
        Self::from_image(image, next_boot(self.memory.boot()), self.clock.clone())
    }

    /// As [`after_kill`](Self::after_kill), with another clock: the machine's was set meanwhile.
    #[must_use]
    pub fn after_kill_at(&self, clock: Clock) -> Self {
        let image = self.state().image.clone();
        Self::from_image(image, self.memory.boot(), clock)
    }

    /// Records all changes from now on, for [`history`](Self::history). Memory grows with each.
    pub fn record(&self) {
        let mut state = self.state();
        state.first = Some(Box::new(state.image.clone()));
        state.history = Some(Vec::new());
    }

    /// How many changes have been recorded: a mark of this moment in the history.
    pub fn recorded(&self) -> usize {
        self.state().history.as_ref().map_or(0, Vec::len)
    }

    /// All changes since [`record`](Self::record), to look at a crash after each of them without
    /// running anything again; empty where nothing was recorded.
    pub fn history(&self) -> History {
        let state = self.state();
        History {
            first: state.first.as_deref().unwrap_or(&state.image).clone(),
            changes: state.history.clone().unwrap_or_default(),
            boot: self.memory.boot(),
            clock: self.clock.clone(),
        }
    }

    fn wrap(&self, file: Arc<dyn DiskFile>, id: u64, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            file,
            id,
            path: path.to_owned(),
            state: Arc::clone(&self.state),
            gate: Arc::clone(&self.gate),
        })
    }

    fn id_at(&self, path: &Path) -> io::Result<u64> {
        self.memory
            .id_at(path)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn place(&self, path: &Path) -> io::Result<(u64, String)> {
        self.memory
            .place(path)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn next_boot(boot: BootId) -> BootId {
    BootId(u128::from_be_bytes(boot.0).wrapping_add(1).to_be_bytes())
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk")
            .field("boot", &self.memory.boot())
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.pass(Call::Open, path)?;
        let file = self.memory.open(path, mode)?;
        let id = self.id_at(path)?;
        if mode == OpenMode::CreateNew {
            let (dir, name) = self.place(path)?;
            state.note(Change::Create {
                id,
                dir,
                name,
                is_dir: false,
            });
        }
        Ok(self.wrap(file, id, path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        if self.state().cut {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        self.memory.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.pass(Call::CreateDir, dir)?;
        self.memory.create_dir(dir)?;
        let (parent, name) = self.place(dir)?;
        state.note(Change::Create {
            id: self.id_at(dir)?,
            dir: parent,
            name,
            is_dir: true,
        });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.pass(Call::Rename, from)?;
        let id = self.id_at(from)?;
        let (old, new) = (self.place(from)?, self.place(to)?);
        let replaced = self.memory.id_at(to);
        self.memory.rename(from, to)?;
        if let Some(replaced) = replaced.filter(|replaced| *replaced != id) {
            state.free(replaced, 0);
        }
        state.note(Change::Rename {
            id,
            from: old,
            to: new,
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.pass(Call::Remove, path)?;
        let id = self.id_at(path)?;
        let (dir, name) = self.place(path)?;
        self.memory.remove(path)?;
        state.free(id, 0);
        state.note(Change::Remove { dir, name });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.pass(Call::SyncDir, dir)?;
        self.memory.sync_dir(dir)?;
        let dir = self.id_at(dir)?;
        state.note(Change::SyncDir { dir });
        Ok(())
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, HeldBy>> {
        let mut state = self.state();
        state.pass(Call::Lock, path)?;
        let before = self.memory.id_at(path);
        let lock = self.memory.lock(path, owner)?;
        if before.is_none() {
            let (dir, name) = self.place(path)?;
            state.note(Change::Create {
                id: self.id_at(path)?,
                dir,
                name,
                is_dir: false,
            });
        }
        Ok(lock)
    }

    fn watch(
        &self,
        path: &Path,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Box<dyn DiskWatch>> {
        self.memory.watch(path, wake)
    }

    fn boot(&self) -> BootId {
        self.memory.boot()
    }

    fn draw(&self) -> io::Result<u64> {
        self.memory.draw()
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }
}
