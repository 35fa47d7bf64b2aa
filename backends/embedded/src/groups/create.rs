//! Making and deleting groups: a group's directory comes and goes as a whole.

use std::io;
use std::path::Path;

use annals_core::{Effect, Error, ErrorKind, Group, Result, Retry};

use super::cursor::Row;
use super::{Known, Shared, failed, gone, lock};
use crate::disk::{Disk, DiskLock};
use crate::error::of_io;
use crate::slot::Slot;

/// Where the epochs of a new group begin. Deleting a group leaves nothing of it, and a stay of one
/// that had the same name must not be taken for one of this: drawn, so that it is another number,
/// with more room above it than any group needs.
fn first_epoch(disk: &dyn Disk, group: &Group) -> Result<u64> {
    let drawn = disk.draw().map_err(|e| {
        let what = format!("drawing the first epoch of group \"{group}\" in groups/{group}");
        of_io(&what, e)
    })?;
    Ok(drawn >> 1)
}

impl Shared {
    /// Makes the names of the groups durable: whoever made or deleted one may have been killed
    /// before they were, and nothing may rest on them until then.
    pub(super) fn settle_names(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.all())?;
        self.disk.sync_dir(&self.topic)
    }

    /// One process at a time makes and deletes groups.
    fn changing(&self, group: &Group) -> Result<Box<dyn DiskLock>> {
        let failed = |what, e| {
            let what = format!("{what} for group \"{group}\" in groups/{group}");
            of_io(&what, e)
        };
        match self.disk.create_dir(&self.all()) {
            Ok(()) => self
                .disk
                .sync_dir(&self.topic)
                .map_err(|e| failed("making the directory of groups", e))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("making the directory of groups", e)),
        }
        self.disk
            .lock(&self.all().join(".lock"), &self.owner)
            .map_err(|e| failed("locking the groups", e))?
            .map_err(|held| {
                Error::new(
                    ErrorKind::Blocked,
                    Effect::None,
                    Retry::Backoff,
                    format!(
                        "group \"{group}\" (groups/{group}) waits for another process ({}) that is creating or deleting a group; try again",
                        held.owner
                    ),
                )
            })
    }

    pub(super) fn found(&self, group: &Group, row: &Row) -> Result<bool> {
        // Members of this process wait for each other; the lock file is for the others.
        let mine = self.of(group);
        let _mine = lock(&mine);
        if self.read(group)?.is_some() {
            self.settle_names().map_err(|e| {
                of_io(
                    &format!("syncing the name of group \"{group}\" in groups/{group}"),
                    e,
                )
            })?;
            return Ok(false);
        }
        let _changing = self.changing(group)?;
        let new = self.all().join(".new");
        let row = Row {
            epoch: first_epoch(&*self.disk, group)?,
            ..row.clone()
        };
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
            of_io(&format!("making group \"{group}\" in groups/{group}"), e)
        })
    }

    pub(super) fn delete(&self, group: &Group) -> Result<()> {
        let known = self.of(group);
        let mut known = lock(&known);
        let blocked = |who: &str| {
            Error::new(
                ErrorKind::Blocked,
                Effect::None,
                Retry::Backoff,
                format!(
                    "group \"{group}\" (groups/{group}/lock) has a member in {who}; close it first"
                ),
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
        let _changing = self.changing(group)?;
        let dir = self.dir(group);
        let held = match self.disk.lock(&dir.join("lock"), &self.owner) {
            Ok(Ok(held)) => held,
            Ok(Err(by)) => return Err(blocked(&by.owner)),
            Err(e) => return Err(failed("taking the lock", group, "lock", e)),
        };
        let old = self.all().join(".old");
        let remove = || -> io::Result<()> {
            self.settle_names()?;
            clear(&*self.disk, &old)?;
            self.disk.rename(&dir, &old)?;
            self.disk.sync_dir(&self.all())?;
            clear(&*self.disk, &old)
        };
        let removed = remove()
            .map_err(|e| of_io(&format!("deleting group \"{group}\" in groups/{group}"), e));
        drop(held);
        *known = Known::default();
        removed
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
