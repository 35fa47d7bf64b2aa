//! Stays at a group's partition: taken, kept, moved on and given back.

use std::io;
use std::sync::Arc;

use annals_core::driver::{Lease, Mark, Tenancy};
use annals_core::{Effect, Error, Group, PartitionId, Result};

use super::cursor::{Row, goes_back};
use super::{Known, Shared, broken, failed, fenced, gone, lock};
use crate::disk::OpenMode;
use crate::error::of_io;
use crate::slot::Slot;

/// A failed write of a row: the old one or the new one stands.
fn unsure(what: &str, group: &Group, error: io::Error) -> Error {
    failed(what, group, "cursor", error).with_effect(Effect::Unknown)
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
    pub(super) fn take(
        &self,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        let known = self.of(group);
        let mut known = lock(&known);
        let mut fresh = None;
        if known.lock.is_none() {
            let dir = self.dir(group);
            let locked = match self.disk.lock(&dir.join("lock"), &self.owner) {
                Ok(Ok(locked)) => locked,
                Ok(Err(_)) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone(group)),
                Err(e) => return Err(failed("taking the lock", group, "lock", e)),
            };
            self.settle_names().map_err(|e| {
                of_io(
                    &format!("syncing the name of group \"{group}\" in groups/{group}"),
                    e,
                )
            })?;
            // Only now nobody else can change it.
            let row = self.read(group)?.ok_or_else(|| gone(group))?;
            let slot = Slot::open(&*self.disk, &dir.join("cursor"), OpenMode::Write)
                .map_err(|e| failed("opening the cursor", group, "cursor", e))?;
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
            .map_err(|e| unsure("taking the lease", group, e))?;
        if let Some(locked) = fresh {
            known.lock = Some(locked);
        }
        Ok(Some(Tenancy {
            partition: PartitionId::ONLY,
            epoch,
        }))
    }

    pub(super) fn renew(&self, group: &Group, held: &[Tenancy]) -> Vec<Result<()>> {
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

    pub(super) fn commit(&self, group: &Group, marks: &[Mark]) -> Vec<Result<()>> {
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
                    .map_err(|e| unsure("committing the cursor", group, e))
            })
            .collect()
    }

    pub(super) fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
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
        stored.map_err(|e| unsure("releasing the lease", group, e))
    }
}
