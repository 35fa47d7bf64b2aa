//! Groups: one owner process each, by a lock file; one cursor each, in a slot file.
//!
//! `groups/<group>/lock` is held by the process whose members read for the group, `cursor` holds
//! its row. Members of one process compete by the row; another process can take it only when the
//! lock is free, which the system sees to when its holder dies.

mod cursor;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{Effect, Error, ErrorKind, Frontier, Group, PartitionId, Result, Retry};
use async_trait::async_trait;

use crate::disk::{Disk, DiskLock, OpenMode};
use crate::error::{blocking, of_io};
use crate::slot::Slot;
use cursor::{Row, goes_back};

/// The groups of one topic, as all members of this process use them.
///
/// Every call does its work on a blocking thread. A commit is synced when it returns; it needs no
/// room, and so works on a full disk.
///
/// # Cancel safety
/// A call that is dropped after its first poll may still take effect.
#[derive(Clone)]
pub struct Groups(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    topic: PathBuf,
    owner: String,
    known: Mutex<HashMap<Group, Arc<Mutex<Known>>>>,
}

/// What this process knows of a group. Only while it holds the lock is `row` the truth.
#[derive(Default)]
struct Known {
    lock: Option<Box<dyn DiskLock>>,
    slot: Option<Slot>,
    row: Option<Row>,
}

impl Groups {
    /// The groups of the topic in directory `topic`; `owner` is what others are told of this
    /// process.
    pub fn new(disk: Arc<dyn Disk>, topic: PathBuf, owner: String) -> Self {
        Self(Arc::new(Shared {
            disk,
            topic,
            owner,
            known: Mutex::default(),
        }))
    }

    /// All groups with their rows, by name; one whose cursor is broken has the error that says so.
    /// Blocks.
    pub fn list(&self) -> Result<Vec<(Group, Result<Lease>)>> {
        let entries = match self.0.disk.list(&self.0.all()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(of_io("listing the groups", e)),
        };
        let mut groups = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.dir) {
            // Half-made and half-deleted ones have names that no group can have.
            let Ok(group) = Group::new(&entry.name) else {
                continue;
            };
            match self.0.load(&group) {
                Ok(Some(row)) => groups.push((group, Ok(row.lease()))),
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::Corrupt => groups.push((group, Err(e))),
                Err(e) => return Err(e),
            }
        }
        groups.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(groups)
    }

    /// One group's row. Blocks.
    pub(crate) fn find(&self, group: &Group) -> Result<Option<Lease>> {
        Ok(self.0.load(group)?.map(|row| row.lease()))
    }

    /// Makes a group that starts at `at`; `false` when it is there. Blocks.
    pub fn create(&self, group: &Group, at: Frontier) -> Result<bool> {
        self.0.found(
            group,
            &Row {
                epoch: 0,
                counter: 0,
                attempts: 0,
                at,
                owner: None,
            },
        )
    }

    /// Deletes a group. Blocks.
    pub fn delete(&self, group: &Group) -> Result<()> {
        self.0.delete(group)
    }

    /// Lets go of every group: other processes can take them at once. Blocks. Commits of the
    /// stays that were held are `Fenced` from now on.
    pub fn let_go(&self) {
        for known in self.0.known().values() {
            let mut known = lock(known);
            if known.lock.is_some()
                && let Some(mut row) = known.row.clone()
            {
                row.owner = None;
                row.counter += 1;
                if let Some(slot) = &known.slot
                    && let Err(e) = slot.write(&row.encode(), false)
                {
                    // The next owner learns it from the lock instead.
                    tracing::debug!(error = %e, "a group could not be marked as free");
                }
            }
            *known = Known::default();
        }
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups")
            .field("topic", &self.0.topic)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone(group: &Group) -> Error {
    Error::not_found(format!(
        "there is no group \"{group}\"; create it, or subscribe to it"
    ))
}

fn fenced(group: &Group) -> Error {
    Error::new(
        ErrorKind::Fenced,
        Effect::None,
        Retry::Never,
        format!("another member of group \"{group}\" has taken over; subscribe again"),
    )
}

fn broken(group: &Group) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        Effect::None,
        Retry::Never,
        format!(
            "the cursor of group \"{group}\" cannot be read; delete the group and create it where its work stands (annals: groups delete, then groups create --from after:POSITION)"
        ),
    )
}

/// A failed write of a row: the old one or the new one stands.
fn unsure(what: &str, error: io::Error) -> Error {
    of_io(what, error).with_effect(Effect::Unknown)
}

impl Known {
    /// Writes and syncs a row, and takes it over.
    fn store(&mut self, row: Row) -> io::Result<()> {
        let slot = self.slot.as_ref().ok_or(io::ErrorKind::NotFound)?;
        slot.write(&row.encode(), true)?;
        self.row = Some(row);
        Ok(())
    }

    /// The row, if `tenancy` still owns it.
    fn owned(&self, group: &Group, tenancy: &Tenancy) -> Result<&Row> {
        self.row
            .as_ref()
            .filter(|row| {
                self.lock.is_some()
                    && row.owner.is_some()
                    && row.epoch == tenancy.epoch
                    && tenancy.partition == PartitionId::ONLY
            })
            .ok_or_else(|| fenced(group))
    }
}

impl Shared {
    fn all(&self) -> PathBuf {
        self.topic.join("groups")
    }

    fn dir(&self, group: &Group) -> PathBuf {
        self.all().join(group.as_str())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Group, Arc<Mutex<Known>>>> {
        lock(&self.known)
    }

    fn of(&self, group: &Group) -> Arc<Mutex<Known>> {
        Arc::clone(self.known().entry(group.clone()).or_default())
    }

    /// Reads a row from disk; `None` when there is no such group.
    fn read(&self, group: &Group) -> Result<Option<Row>> {
        let path = self.dir(group).join("cursor");
        let read = || Slot::open(&*self.disk, &path, OpenMode::Read)?.read();
        match read() {
            Ok(Some(bytes)) => Row::decode(&bytes).map(Some).ok_or_else(|| broken(group)),
            Ok(None) => Err(broken(group)),
            // A group's directory comes and goes as a whole: without the cursor it is damaged.
            Err(e) if e.kind() == io::ErrorKind::NotFound => match self.disk.list(&self.dir(group))
            {
                Ok(_) => Err(broken(group)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(of_io("reading a group's cursor", e)),
            },
            Err(e) => Err(of_io("reading a group's cursor", e)),
        }
    }

    fn load(&self, group: &Group) -> Result<Option<Row>> {
        let known = self.of(group);
        let known = lock(&known);
        if known.lock.is_some() {
            return Ok(known.row.clone());
        }
        let Some(mut row) = self.read(group)? else {
            return Ok(None);
        };
        // An owner whose process is gone owns nothing. Looking takes no lock, so it keeps nobody
        // from taking the group, and a directory that may only be read is enough.
        if row.owner.is_some() {
            let lock = self
                .disk
                .open(&self.dir(group).join("lock"), OpenMode::Read);
            match lock.and_then(|lock| lock.is_held()) {
                Ok(true) => {}
                Ok(false) => row.owner = None,
                // No lock file: nobody has ever held it, or not since the power was lost.
                Err(e) if e.kind() == io::ErrorKind::NotFound => row.owner = None,
                Err(e) => return Err(of_io("looking for a group's owner", e)),
            }
        }
        Ok(Some(row))
    }

    /// One process at a time makes and deletes groups.
    fn changing(&self) -> Result<Box<dyn DiskLock>> {
        match self.disk.create_dir(&self.all()) {
            Ok(()) => self
                .disk
                .sync_dir(&self.topic)
                .map_err(|e| of_io("making the directory of groups", e))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(of_io("making the directory of groups", e)),
        }
        self.disk
            .lock(&self.all().join(".lock"), &self.owner)
            .map_err(|e| of_io("locking the groups", e))?
            .map_err(|held| {
                Error::new(
                    ErrorKind::Blocked,
                    Effect::None,
                    Retry::Backoff,
                    format!(
                        "another process ({}) is creating or deleting a group; try again",
                        held.owner
                    ),
                )
            })
    }

    fn found(&self, group: &Group, row: &Row) -> Result<bool> {
        // Members of this process wait for each other; the lock file is for the others.
        let mine = self.of(group);
        let _mine = lock(&mine);
        if self.read(group)?.is_some() {
            return Ok(false);
        }
        let _changing = self.changing()?;
        let new = self.all().join(".new");
        let make = || -> io::Result<bool> {
            clear(&*self.disk, &new)?;
            self.disk.create_dir(&new)?;
            Slot::create(&*self.disk, &new.join("cursor"))?.write(&row.encode(), true)?;
            self.disk.sync_dir(&new)?;
            match self.disk.rename(&new, &self.dir(group)) {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    clear(&*self.disk, &new)?;
                    return Ok(false);
                }
                other => other?,
            }
            self.disk.sync_dir(&self.all())?;
            Ok(true)
        };
        make().map_err(|e| {
            // What is left is removed by the next attempt too.
            let _ = clear(&*self.disk, &new);
            of_io("making a group", e)
        })
    }

    fn delete(&self, group: &Group) -> Result<()> {
        let known = self.of(group);
        let mut known = lock(&known);
        let blocked = |who: &str| {
            Error::new(
                ErrorKind::Blocked,
                Effect::None,
                Retry::Backoff,
                format!("group \"{group}\" has a member in {who}; close it first"),
            )
        };
        if known.lock.is_some() {
            return Err(blocked("this process"));
        }
        match self.read(group) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(gone(group)),
            // Deleting it is the way out.
            Err(e) if e.kind() == ErrorKind::Corrupt => {}
            Err(e) => return Err(e),
        }
        let _changing = self.changing()?;
        let dir = self.dir(group);
        let held = match self.disk.lock(&dir.join("lock"), &self.owner) {
            Ok(Ok(held)) => held,
            Ok(Err(by)) => return Err(blocked(&by.owner)),
            Err(e) => return Err(of_io("locking a group", e)),
        };
        let old = self.all().join(".old");
        let remove = || -> io::Result<()> {
            clear(&*self.disk, &old)?;
            self.disk.rename(&dir, &old)?;
            self.disk.sync_dir(&self.all())?;
            clear(&*self.disk, &old)
        };
        let removed = remove().map_err(|e| of_io("deleting a group", e));
        drop(held);
        *known = Known::default();
        removed
    }

    fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        let known = self.of(group);
        let mut known = lock(&known);
        let mut fresh = None;
        if known.lock.is_none() {
            let dir = self.dir(group);
            let locked = match self.disk.lock(&dir.join("lock"), &self.owner) {
                Ok(Ok(locked)) => locked,
                Ok(Err(_)) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone(group)),
                Err(e) => return Err(of_io("locking a group", e)),
            };
            // Only now nobody else can change it.
            let row = self.read(group)?.ok_or_else(|| gone(group))?;
            let slot = Slot::open(&*self.disk, &dir.join("cursor"), OpenMode::Write)
                .map_err(|e| of_io("opening a group's cursor", e))?;
            known.slot = Some(slot);
            known.row = Some(row);
            fresh = Some(locked);
        }
        let Some(row) = known.row.clone() else {
            return Err(broken(group));
        };
        let unchanged = row.counter == seen.counter
            && row.at == seen.at
            && row.attempts == seen.attempts
            && seen.partition == PartitionId::ONLY;
        if !unchanged {
            // A lock that was taken just now goes with `fresh`.
            return Ok(None);
        }
        let epoch = row.epoch + 1;
        let next = Row {
            epoch,
            counter: row.counter + 1,
            owner: Some(Arc::clone(by)),
            ..row
        };
        known
            .store(next)
            .map_err(|e| unsure("taking a group's lease", e))?;
        if let Some(locked) = fresh {
            known.lock = Some(locked);
        }
        Ok(Some(Tenancy {
            partition: PartitionId::ONLY,
            epoch,
        }))
    }

    fn renew(&self, group: &Group, held: &[Tenancy]) -> Vec<Result<()>> {
        let known = self.of(group);
        let mut known = lock(&known);
        held.iter()
            .map(|tenancy| {
                let mut row = known.owned(group, tenancy)?.clone();
                // Members of other processes go by the lock, so this stays in memory.
                row.counter += 1;
                known.row = Some(row);
                Ok(())
            })
            .collect()
    }

    fn commit(&self, group: &Group, marks: &[Mark]) -> Vec<Result<()>> {
        let known = self.of(group);
        let mut known = lock(&known);
        marks
            .iter()
            .map(|mark| {
                let row = known.owned(group, &mark.tenancy)?;
                if goes_back(&row.at, &mark.to)
                    || (row.at == mark.to && row.attempts == mark.attempts)
                {
                    return Ok(());
                }
                let next = Row {
                    counter: row.counter + 1,
                    at: mark.to,
                    attempts: mark.attempts,
                    ..row.clone()
                };
                known
                    .store(next)
                    .map_err(|e| unsure("committing a group's cursor", e))
            })
            .collect()
    }

    fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        let known = self.of(group);
        let mut known = lock(&known);
        let row = known.owned(group, &tenancy)?;
        let next = Row {
            counter: row.counter + 1,
            owner: None,
            ..row.clone()
        };
        // Free in any case: the lock says so even where the row could not.
        let stored = known.store(next);
        *known = Known::default();
        stored.map_err(|e| unsure("releasing a group's lease", e))
    }
}

/// Removes a directory of files, if it is there.
fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        disk.remove(&dir.join(entry.name))?;
    }
    disk.remove(dir)
}

fn only(first: &[Lease]) -> Result<&Lease> {
    match first {
        [lease] if lease.partition == PartitionId::ONLY => Ok(lease),
        _ => Err(Error::unsupported(
            "a topic of the embedded log has one partition, number 0",
        )),
    }
}

#[async_trait]
impl Leases for Groups {
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>> {
        let (this, group) = (self.clone(), group.clone());
        blocking(move || Ok(this.find(&group)?.map(|lease| vec![lease]))).await
    }

    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool> {
        let row = Row::of(only(first)?);
        let (this, group) = (self.clone(), group.clone());
        blocking(move || this.0.found(&group, &row)).await
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        if !children.is_empty() {
            only(children)?;
        }
        match self.load(group).await? {
            Some(_) => Ok(()),
            None => Err(gone(group)),
        }
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        let (this, group) = (self.clone(), group.clone());
        let (seen, by) = (seen.clone(), Arc::clone(by));
        blocking(move || this.0.take(&group, &seen, &by)).await
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        let (this, group, held) = (self.clone(), group.clone(), held.to_vec());
        blocking(move || Ok(this.0.renew(&group, &held))).await
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let (this, group, marks) = (self.clone(), group.clone(), marks.to_vec());
        blocking(move || Ok(this.0.commit(&group, &marks))).await
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        let (this, group) = (self.clone(), group.clone());
        blocking(move || this.0.release(&group, tenancy)).await
    }
}
