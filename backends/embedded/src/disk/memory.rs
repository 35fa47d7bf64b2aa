//! A disk in memory, for `memory:` and for tests.

mod file;
mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use annals_core::{Clock, Timestamp};

use super::pages::Pages;
use super::{BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, HeldBy, OpenMode};
use file::{MemoryFile, MemoryLock};
use watched::{Wake, Watched};

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
        self.number_above(id);
    }

    /// Gives numbers above this one only: it is in use.
    pub(super) fn number_above(&self, id: u64) {
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
        Ok(Watched::watch(self.node(&clean(path))?.watched(), wake))
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn draw(&self) -> io::Result<u64> {
        // Far apart, and the same again for the same history.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
