//! Groups: one owner process each, by a lock file; one cursor each, in a slot file.
//!
//! `groups/<group>/lock` is held by the process whose members read for the group, `cursor` holds
//! its row. Members of one process compete by the row; another process can take it only when the
//! lock is free, which the system sees to when its holder dies.

mod create;
mod cursor;
mod ended;
mod tenancy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{
    Effect, Error, ErrorKind, Frontier, Group, PartitionId, Result, Retry, TopicName,
};
use async_trait::async_trait;

use crate::disk::{Disk, DiskLock, OpenMode};
use crate::error::{blocking, of_io};
use crate::slot::Slot;
use cursor::Row;

pub(crate) use ended::Ended;

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
        self.0.named(self.listed())
    }

    fn listed(&self) -> Result<Vec<(Group, Result<Lease>)>> {
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
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    groups.push((group, self.0.named(Err(e))));
                }
                Err(e) => return Err(e),
            }
        }
        groups.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(groups)
    }

    /// One group's row. Blocks.
    pub(crate) fn find(&self, group: &Group) -> Result<Option<Lease>> {
        let row = self.0.named(self.0.load(group))?;
        Ok(row.map(|row| row.lease()))
    }

    /// Makes a group that starts at `at`; `false` when it is there. Blocks.
    pub fn create(&self, group: &Group, at: Frontier) -> Result<bool> {
        let row = Row {
            epoch: 0,
            counter: 0,
            attempts: 0,
            at,
            owner: None,
        };
        self.0.named(self.0.found(group, &row))
    }

    /// Deletes a group. Blocks.
    pub fn delete(&self, group: &Group) -> Result<()> {
        self.0.named(self.0.delete(group))
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
            "the cursor of group \"{group}\" cannot be read from groups/{group}/cursor; delete the group and create it where its work stands (annals: groups delete, then groups create --from after:POSITION)"
        ),
    )
}

/// A failure at a file of a group; `what` was being done: "reading the cursor".
fn failed(what: &str, group: &Group, file: &str, error: io::Error) -> Error {
    let what = format!("{what} of group \"{group}\" in groups/{group}/{file}");
    of_io(&what, error)
}

impl Shared {
    /// An error says of which topic it is.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let name = self.topic.file_name().and_then(|name| name.to_str());
            match name.map(TopicName::new) {
                Some(Ok(name)) => error.on_topic(&name),
                _ => error,
            }
        })
    }

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
                Err(e) => Err(failed("reading the cursor", group, "cursor", e)),
            },
            Err(e) => Err(failed("reading the cursor", group, "cursor", e)),
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
                Err(e) => return Err(failed("looking for the owner", group, "lock", e)),
            }
        }
        Ok(Some(row))
    }
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
        blocking(move || this.0.named(this.0.found(&group, &row))).await
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        if !children.is_empty() {
            only(children)?;
        }
        match self.load(group).await? {
            Some(_) => Ok(()),
            None => self.0.named(Err(gone(group))),
        }
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        let (this, group) = (self.clone(), group.clone());
        let (seen, by) = (seen.clone(), Arc::clone(by));
        blocking(move || this.0.named(this.0.take(&group, &seen, &by))).await
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        let (this, group, held) = (self.clone(), group.clone(), held.to_vec());
        let renew = move || {
            let renewed = this.0.renew(&group, &held).into_iter();
            Ok(renewed.map(|one| this.0.named(one)).collect())
        };
        blocking(renew).await
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let (this, group, marks) = (self.clone(), group.clone(), marks.to_vec());
        let commit = move || {
            let committed = this.0.commit(&group, &marks).into_iter();
            Ok(committed.map(|one| this.0.named(one)).collect())
        };
        blocking(commit).await
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        let (this, group) = (self.clone(), group.clone());
        blocking(move || this.0.named(this.0.release(&group, tenancy))).await
    }
}
