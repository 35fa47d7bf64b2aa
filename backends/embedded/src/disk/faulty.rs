//! A disk in memory that fails on purpose: errors, short writes, a full disk, crashes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::{Clock, Timestamp};
use bytes::Bytes;

use super::image::{Change, Image};
use super::memory::MemoryDisk;
use super::{BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, HeldBy, OpenMode, Reserved};

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
    clock: Clock,
}

/// A call of [`Disk`] or [`DiskFile`] that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Call {
    /// [`Disk::open`].
    Open,
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::lock`].
    Lock,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::reserve`].
    Reserve,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`DiskFile::sync_data`].
    Sync,
}

/// One planned failure: which call, on which files, when, how often and how.
///
/// By default the next call fails once, with an I/O error.
#[derive(Clone, Debug)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    call: Call,
    name: Option<String>,
    skip: u64,
    times: u64,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Errno(i32),
    Short(usize),
    Unsupported,
}

/// The number of an I/O error on every system that has numbers (`EIO`).
const EIO: i32 = 5;

impl Fault {
    /// The next such call fails once, with an I/O error (errno 5).
    pub fn new(call: Call) -> Self {
        Self {
            call,
            name: None,
            skip: 0,
            times: 1,
            how: How::Errno(EIO),
        }
    }

    /// Only calls on paths that end with this text count, `.seg` say.
    pub fn on(mut self, end_of_path: impl Into<String>) -> Self {
        self.name = Some(end_of_path.into());
        self
    }

    /// Lets `calls` of them pass first. Default: 0.
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Fails so many of them. Default: 1; `u64::MAX` is for ever.
    pub fn times(mut self, calls: u64) -> Self {
        self.times = calls;
        self
    }

    /// Fails with this error number of the operating system, 28 for a full disk on Linux.
    ///
    /// A failed sync loses what it should have written: the cache still shows it, later syncs say
    /// `Ok`, and a power loss brings the old bytes back, as on real file systems.
    pub fn errno(mut self, errno: i32) -> Self {
        self.how = How::Errno(errno);
        self
    }

    /// Writes at most so many bytes and says how many. For [`Call::Write`]; other calls pass.
    pub fn short(mut self, bytes: usize) -> Self {
        self.how = How::Short(bytes);
        self
    }

    /// Answers that the file system cannot reserve. For [`Call::Reserve`]; other calls pass.
    pub fn unsupported(mut self) -> Self {
        self.how = How::Unsupported;
        self
    }
}

struct State {
    image: Image,
    history: Option<Vec<Change>>,
    first: Option<Box<Image>>,
    faults: Vec<Fault>,
    fired: u64,
    calls: BTreeMap<Call, u64>,
    room: Option<u64>,
    /// Bytes that each file has on the disk, holes not counted.
    allocated: BTreeMap<u64, u64>,
    cut: bool,
}

/// The hand on a [`FaultyDisk`]'s failures. Clones are the same hand.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a failure beside those that are planned already. Of several that meet one call the
    /// first one planned fires.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets all planned failures and makes room again.
    pub fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.room = None;
    }

    /// How many failures have fired so far: a test of failures asks for it, or it may have tested
    /// nothing.
    pub fn fired(&self) -> u64 {
        self.state().fired
    }

    /// How many calls of this kind there have been so far, failed ones included.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// From now on the disk has room for so many more bytes; `None`: for any number. What is
    /// reserved or written already can be written again on a full disk.
    pub fn room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// Cuts everybody off: from now on every call on this disk and its open files fails, as for
    /// a process that is no more.
    pub fn cut(&self) {
        self.state().cut = true;
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Faults")
            .field("planned", &state.faults.len())
            .field("fired", &state.fired)
            .field("room", &state.room)
            .finish_non_exhaustive()
    }
}

impl State {
    fn of(image: Image) -> Self {
        Self {
            image,
            history: None,
            first: None,
            faults: Vec::new(),
            fired: 0,
            calls: BTreeMap::new(),
            room: None,
            allocated: BTreeMap::new(),
            cut: false,
        }
    }

    /// Counts the call and says which failure meets it.
    fn meet(&mut self, call: Call, path: &Path) -> io::Result<Option<How>> {
        if self.cut {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the disk is cut off",
            ));
        }
        *self.calls.entry(call).or_default() += 1;
        let text = path.to_string_lossy();
        let mut met = None;
        for fault in &mut self.faults {
            let here = fault.name.as_ref().is_none_or(|end| text.ends_with(end));
            if fault.call != call || !here || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if met.is_none() {
                fault.times -= 1;
                met = Some(fault.how);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        self.fired += u64::from(met.is_some());
        Ok(met)
    }

    /// As [`meet`](Self::meet), for calls that can only fail with an error.
    fn pass(&mut self, call: Call, path: &Path) -> io::Result<()> {
        match self.meet(call, path)? {
            Some(How::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(How::Short(_) | How::Unsupported) | None => Ok(()),
        }
    }

    fn note(&mut self, change: Change) {
        self.image.apply(&change);
        if let Some(history) = &mut self.history {
            history.push(change);
        }
    }

    /// Takes room for the file up to `end`, and says up to where there is some.
    fn allocate(&mut self, id: u64, end: u64) -> u64 {
        let has = self.allocated.entry(id).or_default();
        let mut wanted = end.saturating_sub(*has);
        if let Some(room) = &mut self.room {
            wanted = wanted.min(*room);
            *room -= wanted;
        }
        *has += wanted;
        end.min(*has)
    }

    fn free(&mut self, id: u64, from: u64) {
        if let Some(has) = self.allocated.get_mut(&id) {
            let freed = has.saturating_sub(from);
            *has -= freed;
            if let Some(room) = &mut self.room {
                *room += freed;
            }
        }
    }
}

impl FaultyDisk {
    /// An empty disk without failures so far, whose [`now`](Disk::now) is `clock`'s.
    pub fn new(clock: Clock) -> Self {
        let memory = Arc::new(MemoryDisk::with_boot(clock.clone(), BootId([1; 16])));
        Self {
            memory,
            state: Arc::new(Mutex::new(State::of(Image::new()))),
            clock,
        }
    }

    fn from_image(image: Image, boot: BootId, clock: Clock) -> Self {
        let memory = MemoryDisk::with_boot(clock.clone(), boot);
        image.fill(&memory);
        Self {
            memory: Arc::new(memory),
            state: Arc::new(Mutex::new(State::of(image))),
            clock,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hand on its failures.
    pub fn faults(&self) -> Faults {
        Faults(Arc::clone(&self.state))
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

    fn now(&self) -> Timestamp {
        self.memory.now()
    }
}

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    id: u64,
    path: PathBuf,
    state: Arc<Mutex<State>>,
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
}

/// Recorded changes of a [`FaultyDisk`].
#[derive(Clone)]
pub struct History {
    first: Image,
    changes: Vec<Change>,
    boot: BootId,
    clock: Clock,
}

impl History {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The moments of the history one by one, beginning before the first change.
    pub fn moments(&self) -> Moments<'_> {
        Moments {
            history: self,
            image: self.first.clone(),
            done: 0,
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

/// A moment in a [`History`], which can be moved on.
#[derive(Clone)]
pub struct Moments<'a> {
    history: &'a History,
    image: Image,
    done: usize,
}

impl Moments<'_> {
    /// How many changes have been made by this moment: compare it with
    /// [`FaultyDisk::recorded`] to know what had been acknowledged.
    pub fn at(&self) -> usize {
        self.done
    }

    /// Moves on by one change; `false` at the end.
    pub fn step(&mut self) -> bool {
        let Some(change) = self.history.changes.get(self.done) else {
            return false;
        };
        self.image.apply(change);
        self.done += 1;
        true
    }

    /// [`FaultyDisk::after_kill`] at this moment.
    pub fn after_kill(&self) -> FaultyDisk {
        FaultyDisk::from_image(
            self.image.clone(),
            self.history.boot,
            self.history.clock.clone(),
        )
    }

    /// [`FaultyDisk::after_power_loss`] at this moment.
    pub fn after_power_loss(&self, seed: u64) -> FaultyDisk {
        FaultyDisk::from_image(
            self.image.survivors(seed),
            next_boot(self.history.boot),
            self.history.clock.clone(),
        )
    }
}

impl fmt::Debug for Moments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moments")
            .field("at", &self.done)
            .finish_non_exhaustive()
    }
}
