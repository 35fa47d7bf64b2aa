//! What would be left of a disk after a crash: its durable state, and what waits for a sync.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;

use super::memory::MemoryDisk;
use super::pages::Pages;

/// What a disk writes at once; a write may be torn between two.
const SECTOR: usize = 512;

/// One change of a disk, by the numbers of files and directories (the root is 0).
#[derive(Clone)]
pub(super) enum Change {
    Create {
        id: u64,
        dir: u64,
        name: String,
        is_dir: bool,
    },
    Rename {
        id: u64,
        from: (u64, String),
        to: (u64, String),
    },
    Remove {
        dir: u64,
        name: String,
    },
    SyncDir {
        dir: u64,
    },
    Write {
        id: u64,
        at: u64,
        bytes: Bytes,
    },
    SetLen {
        id: u64,
        len: u64,
    },
    Sync {
        id: u64,
    },
    /// A sync that failed: what it should have written is not on the disk and counts as clean.
    FailedSync {
        id: u64,
    },
}

#[derive(Clone, Default)]
struct File {
    durable: Pages,
    pending: Vec<Edit>,
}

#[derive(Clone)]
enum Edit {
    Write { at: u64, bytes: Bytes },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Dir {
    durable: BTreeMap<String, u64>,
    pending: Vec<(String, Option<u64>)>,
}

/// Durable state and unsynced changes of a whole disk.
#[derive(Clone)]
pub(super) struct Image {
    files: BTreeMap<u64, File>,
    dirs: BTreeMap<u64, Dir>,
}

impl Image {
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(0, Dir::default())]),
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create {
                id,
                dir,
                name,
                is_dir,
            } => {
                if *is_dir {
                    self.dirs.insert(*id, Dir::default());
                } else {
                    self.files.insert(*id, File::default());
                }
                self.link(*dir, name, Some(*id));
            }
            Change::Rename { id, from, to } => {
                self.link(to.0, &to.1, Some(*id));
                self.link(from.0, &from.1, None);
            }
            Change::Remove { dir, name } => self.link(*dir, name, None),
            Change::SyncDir { dir } => {
                if let Some(dir) = self.dirs.get_mut(dir) {
                    for (name, id) in std::mem::take(&mut dir.pending) {
                        enter(&mut dir.durable, name, id);
                    }
                }
                self.forget_unlinked();
            }
            Change::Write { id, at, bytes } => self.edit(
                *id,
                Edit::Write {
                    at: *at,
                    bytes: bytes.clone(),
                },
            ),
            Change::SetLen { id, len } => self.edit(*id, Edit::SetLen(*len)),
            Change::Sync { id } => {
                if let Some(file) = self.files.get_mut(id) {
                    for edit in std::mem::take(&mut file.pending) {
                        edit.apply(&mut file.durable);
                    }
                }
            }
            Change::FailedSync { id } => {
                if let Some(file) = self.files.get_mut(id) {
                    // Lengths go through the journal of the file system; the data is lost.
                    let mut len = file.durable.len();
                    for edit in std::mem::take(&mut file.pending) {
                        len = edit.len_after(len);
                        file.durable.set_len(len);
                    }
                }
            }
        }
    }

    fn link(&mut self, dir: u64, name: &str, id: Option<u64>) {
        if let Some(dir) = self.dirs.get_mut(&dir) {
            dir.pending.push((name.to_owned(), id));
        }
    }

    fn edit(&mut self, id: u64, edit: Edit) {
        if let Some(file) = self.files.get_mut(&id) {
            file.pending.push(edit);
        }
    }

    fn forget_unlinked(&mut self) {
        let linked: BTreeSet<u64> = self
            .dirs
            .values()
            .flat_map(|dir| {
                let pending = dir.pending.iter().filter_map(|(_, id)| *id);
                dir.durable.values().copied().chain(pending)
            })
            .collect();
        self.files.retain(|id, _| linked.contains(id));
    }

    /// What everybody sees as long as the page cache lives.
    pub(super) fn fill(&self, disk: &MemoryDisk) {
        // What is unlinked and may come back has its number still.
        for id in self.files.keys().chain(self.dirs.keys()) {
            disk.number_above(*id);
        }
        let mut open = vec![(0, PathBuf::new())];
        while let Some((id, path)) = open.pop() {
            let Some(dir) = self.dirs.get(&id) else {
                continue;
            };
            let mut entries = dir.durable.clone();
            for (name, id) in &dir.pending {
                enter(&mut entries, name.clone(), *id);
            }
            for (name, id) in entries {
                let path = path.join(name);
                if let Some(file) = self.files.get(&id) {
                    let mut pages = file.durable.clone();
                    for edit in &file.pending {
                        edit.apply(&mut pages);
                    }
                    disk.plant(&path, id, Some(pages));
                } else if self.dirs.contains_key(&id) {
                    disk.plant(&path, id, None);
                    open.push((id, path));
                }
            }
        }
    }

    /// What is left when the page cache is gone: everything synced, and of the rest what `seed`
    /// chooses, write by write, sector by sector, entry by entry. Returns the image that belongs
    /// to it, all of it durable.
    pub(super) fn survivors(&self, seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Some crashes lose everything and some nothing; most are between.
        let keep = dice.below(5);
        let mut choose = || dice.below(4) < keep;
        let mut left = Self::new();
        left.dirs.clear();
        for (id, dir) in &self.dirs {
            let mut durable = dir.durable.clone();
            for (name, to) in &dir.pending {
                if choose() {
                    enter(&mut durable, name.clone(), *to);
                }
            }
            let dir = Dir {
                durable,
                pending: Vec::new(),
            };
            left.dirs.insert(*id, dir);
        }
        for (id, file) in &self.files {
            let mut durable = file.durable.clone();
            for edit in &file.pending {
                if choose() {
                    durable.set_len(edit.len_after(durable.len()));
                }
                if let Edit::Write { at, bytes } = edit {
                    let mut at = *at;
                    let mut rest = bytes.as_ref();
                    while !rest.is_empty() {
                        let to_border =
                            SECTOR - usize::try_from(at % SECTOR as u64).unwrap_or_default();
                        let (sector, behind) = rest.split_at(to_border.min(rest.len()));
                        if choose() {
                            durable.write_below_len(sector, at);
                        }
                        at += sector.len() as u64;
                        rest = behind;
                    }
                }
            }
            let file = File {
                durable,
                pending: Vec::new(),
            };
            left.files.insert(*id, file);
        }
        left.prune();
        left
    }

    /// Drops what no path leads to, and second paths to one directory.
    fn prune(&mut self) {
        let mut seen = BTreeSet::new();
        let mut open = vec![0];
        while let Some(id) = open.pop() {
            seen.insert(id);
            let known: BTreeSet<u64> = self.dirs.keys().chain(self.files.keys()).copied().collect();
            let Some(dir) = self.dirs.get_mut(&id) else {
                continue;
            };
            dir.durable
                .retain(|_, id| known.contains(id) && seen.insert(*id));
            open.extend(dir.durable.values().copied());
        }
        self.dirs.retain(|id, _| seen.contains(id));
        self.files.retain(|id, _| seen.contains(id));
    }
}

fn enter(entries: &mut BTreeMap<String, u64>, name: String, id: Option<u64>) {
    match id {
        Some(id) => {
            entries.insert(name, id);
        }
        None => {
            entries.remove(&name);
        }
    }
}

impl Edit {
    fn apply(&self, pages: &mut Pages) {
        match self {
            Self::Write { at, bytes } => pages.write_at(bytes, *at),
            Self::SetLen(len) => pages.set_len(*len),
        }
    }

    fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { at, bytes } => len.max(at + bytes.len() as u64),
            Self::SetLen(len) => *len,
        }
    }
}

/// A small generator (splitmix64): the same seed gives the same crash for ever, which a library's
/// generator does not promise across its versions.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}
