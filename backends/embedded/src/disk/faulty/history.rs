//! The crash after each change, without running anything again.

use std::fmt;

use annals_core::Clock;

use super::{FaultyDisk, next_boot};
use crate::disk::BootId;
use crate::disk::image::{Change, Image};

/// Recorded changes of a [`FaultyDisk`].
#[derive(Clone)]
pub struct History {
    pub(super) first: Image,
    pub(super) changes: Vec<Change>,
    pub(super) boot: BootId,
    pub(super) clock: Clock,
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
