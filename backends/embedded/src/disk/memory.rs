//! A disk in memory, for `memory:` and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use annals_core::{Clock, Timestamp};

use super::pages::Pages;
use super::{BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, HeldBy, OpenMode, Reserved};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// A disk in memory. It behaves as a local file system does, keeps everything for as long as the
/// value lives, never runs full and never fails; [`FaultyDisk`](super::FaultyDisk) does.
///
/// The root directory is there from the start; a leading `/` means nothing. Its boot id is
/// constant: nothing survives it that could have been lost.
pub struct MemoryDisk {
    nodes: Mutex<BTreeMap<PathBuf, Node>>,
    next: AtomicU64,
    boot: BootId,
    clock: Clock,
}

/// What stands at a path.
#[derive(Clone)]
pub(super) enum Node {
    Dir(Arc<Watched>),
    File(Arc<Inode>),
}

impl Node {
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Dir(watched) => watched.id,
            Self::File(inode) => inode.watched.id,
        }
    }

    fn watched(&self) -> &Arc<Watched> {
        match self {
            Self::Dir(watched) => watched,
            Self::File(inode) => &inode.watched,
        }
    }
}

/// A file, apart from its names.
pub(super) struct Inode {
    watched: Arc<Watched>,
    pages: RwLock<Pages>,
    owner: Mutex<Option<String>>,
    /// Which opening holds it; 0: none.
    holder: AtomicU64,
}

/// A file or directory and who wants to hear of its changes.
pub(super) struct Watched {
    id: u64,
    watchers: Mutex<Vec<Arc<Watcher>>>,
    count: AtomicUsize,
}

struct Watcher {
    wake: Wake,
    live: AtomicBool,
}

impl Watched {
    fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            watchers: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        // Whoever adds a watch reads the file afterwards, so a count that is read too early
        // loses nothing.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watchers = self.list().clone();
        for watcher in watchers {
            if watcher.live.load(Ordering::SeqCst) {
                (watcher.wake)();
            }
        }
    }
}

/// Paths without root and dots, so that `/a` and `a` are one.
fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .collect()
}

fn error(kind: io::ErrorKind, path: &Path, what: &str) -> io::Error {
    io::Error::new(kind, format!("{}: {what}", path.display()))
}

impl MemoryDisk {
    /// An empty disk whose [`now`](Disk::now) is `clock`'s.
    pub fn new(clock: Clock) -> Self {
        Self::with_boot(clock, BootId(*b"annals in memory"))
    }

    pub(super) fn with_boot(clock: Clock, boot: BootId) -> Self {
        let nodes = BTreeMap::from([(PathBuf::new(), Node::Dir(Watched::new(0)))]);
        Self {
            nodes: Mutex::new(nodes),
            next: AtomicU64::new(1),
            boot,
            clock,
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a file or directory of a crash image in place.
    pub(super) fn plant(&self, path: &Path, id: u64, pages: Option<Pages>) {
        let watched = Watched::new(id);
        let node = match pages {
            Some(pages) => Node::File(Arc::new(Inode {
                watched,
                pages: RwLock::new(pages),
                owner: Mutex::default(),
                holder: AtomicU64::new(0),
            })),
            None => Node::Dir(watched),
        };
        self.nodes().insert(clean(path), node);
        self.next.fetch_max(id + 1, Ordering::Relaxed);
    }

    /// The number of what stands at a path.
    pub(super) fn id_at(&self, path: &Path) -> Option<u64> {
        self.nodes().get(&clean(path)).map(Node::id)
    }

    /// The number of the directory that a path lies in, and the path's last name.
    pub(super) fn place(&self, path: &Path) -> Option<(u64, String)> {
        let path = clean(path);
        let name = path.file_name()?.to_string_lossy().into_owned();
        let parent = self.nodes().get(path.parent()?).map(Node::id)?;
        Some((parent, name))
    }

    fn parent(nodes: &BTreeMap<PathBuf, Node>, path: &Path) -> io::Result<Arc<Watched>> {
        let parent = path
            .parent()
            .ok_or_else(|| error(io::ErrorKind::InvalidInput, path, "has no directory"))?;
        match nodes.get(parent) {
            Some(Node::Dir(watched)) => Ok(Arc::clone(watched)),
            Some(Node::File(_)) => Err(error(
                io::ErrorKind::NotADirectory,
                parent,
                "is a file, no directory",
            )),
            None => Err(error(io::ErrorKind::NotFound, parent, "no such directory")),
        }
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        self.nodes()
            .get(path)
            .cloned()
            .ok_or_else(|| error(io::ErrorKind::NotFound, path, "not there"))
    }

    fn open_inode(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<Inode>> {
        let path = clean(path);
        if mode != OpenMode::CreateNew {
            return match self.node(&path)? {
                Node::File(inode) => Ok(inode),
                Node::Dir(_) => Err(error(
                    io::ErrorKind::IsADirectory,
                    &path,
                    "is a directory, no file",
                )),
            };
        }
        let (inode, parent) = {
            let mut nodes = self.nodes();
            let parent = Self::parent(&nodes, &path)?;
            if nodes.contains_key(&path) {
                return Err(error(io::ErrorKind::AlreadyExists, &path, "is there"));
            }
            let inode = Arc::new(Inode {
                watched: Watched::new(self.fresh()),
                pages: RwLock::default(),
                owner: Mutex::default(),
                holder: AtomicU64::new(0),
            });
            nodes.insert(path, Node::File(Arc::clone(&inode)));
            (inode, parent)
        };
        parent.changed();
        Ok(inode)
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk")
            .field("nodes", &self.nodes().len())
            .finish_non_exhaustive()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.open_inode(path, mode)?;
        Ok(Arc::new(MemoryFile {
            inode,
            opening: self.fresh(),
            writes: mode != OpenMode::Read,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = clean(dir);
        let nodes = self.nodes();
        match nodes.get(&dir) {
            Some(Node::Dir(_)) => {}
            Some(Node::File(_)) => {
                let what = "is a file, no directory";
                return Err(error(io::ErrorKind::NotADirectory, &dir, what));
            }
            None => return Err(error(io::ErrorKind::NotFound, &dir, "not there")),
        }
        let entries = nodes
            .range(dir.clone()..)
            .take_while(|(path, _)| path.starts_with(&dir))
            .filter(|(path, _)| path.parent() == Some(&dir))
            .filter_map(|(path, node)| {
                Some(DirEntry {
                    name: path.file_name()?.to_string_lossy().into_owned(),
                    dir: matches!(node, Node::Dir(_)),
                })
            })
            .collect();
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = clean(dir);
        let parent = {
            let mut nodes = self.nodes();
            if nodes.contains_key(&dir) {
                return Err(error(io::ErrorKind::AlreadyExists, &dir, "is there"));
            }
            let parent = Self::parent(&nodes, &dir)?;
            nodes.insert(dir, Node::Dir(Watched::new(self.fresh())));
            parent
        };
        parent.changed();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (clean(from), clean(to));
        let changed = {
            let mut nodes = self.nodes();
            let node = nodes
                .get(&from)
                .cloned()
                .ok_or_else(|| error(io::ErrorKind::NotFound, &from, "not there"))?;
            let parents = [Self::parent(&nodes, &from)?, Self::parent(&nodes, &to)?];
            let replaced = nodes.get(&to).cloned();
            match (&node, &replaced) {
                (_, None) | (Node::File(_), Some(Node::File(_))) => {}
                _ => return Err(error(io::ErrorKind::AlreadyExists, &to, "is there")),
            }
            let below: Vec<PathBuf> = nodes
                .range(from.clone()..)
                .map(|(path, _)| path)
                .take_while(|path| path.starts_with(&from))
                .cloned()
                .collect();
            for path in below {
                if let (Some(node), Ok(rest)) = (nodes.remove(&path), path.strip_prefix(&from)) {
                    nodes.insert(clean(&to.join(rest)), node);
                }
            }
            let mut changed: Vec<_> = parents.into();
            changed.push(Arc::clone(node.watched()));
            changed.extend(replaced.map(|node| Arc::clone(node.watched())));
            changed
        };
        for watched in changed {
            watched.changed();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = clean(path);
        let (parent, node) = {
            let mut nodes = self.nodes();
            let parent = Self::parent(&nodes, &path)?;
            let below = nodes
                .range(path.clone()..)
                .take_while(|(other, _)| other.starts_with(&path))
                .count();
            if below > 1 {
                let what = "is a directory that is not empty";
                return Err(error(io::ErrorKind::DirectoryNotEmpty, &path, what));
            }
            let node = nodes
                .remove(&path)
                .ok_or_else(|| error(io::ErrorKind::NotFound, &path, "not there"))?;
            (parent, node)
        };
        parent.changed();
        node.watched().changed();
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.node(&clean(dir))? {
            Node::Dir(_) => Ok(()),
            Node::File(_) => Err(error(
                io::ErrorKind::NotADirectory,
                dir,
                "is a file, no directory",
            )),
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, HeldBy>> {
        let inode = match self.open_inode(path, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.open_inode(path, OpenMode::Write)?
            }
            other => other?,
        };
        {
            let mut held = inode.owner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(owner) = &*held {
                return Ok(Err(HeldBy {
                    owner: owner.clone(),
                }));
            }
            *held = Some(owner.to_owned());
        }
        Ok(Ok(Box::new(MemoryLock(inode))))
    }

    fn watch(&self, path: &Path, wake: Wake) -> io::Result<Box<dyn DiskWatch>> {
        let watched = Arc::clone(self.node(&clean(path))?.watched());
        let watcher = Arc::new(Watcher {
            wake,
            live: AtomicBool::new(true),
        });
        watched.list().push(Arc::clone(&watcher));
        watched.count.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemoryWatch { watched, watcher }))
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

struct MemoryFile {
    inode: Arc<Inode>,
    /// Tells openings of one file apart.
    opening: u64,
    writes: bool,
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

struct MemoryLock(Arc<Inode>);

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

struct MemoryWatch {
    watched: Arc<Watched>,
    watcher: Arc<Watcher>,
}

impl DiskWatch for MemoryWatch {}

impl fmt::Debug for MemoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryWatch")
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.watcher.live.store(false, Ordering::SeqCst);
        self.watched
            .list()
            .retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.watched.count.fetch_sub(1, Ordering::SeqCst);
    }
}
