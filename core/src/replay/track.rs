//! The cursor of what has been handed out.

use std::sync::OnceLock;

use crate::cursor::{Cursor, Frontier};
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;

/// Follows what is handed out: a few nanoseconds per record, the cursor itself only when asked.
#[derive(Debug)]
pub(super) struct Track {
    /// Where everything but the last partition's newest record is counted in.
    base: Cursor,
    /// The newest record.
    last: Option<Position>,
    /// Made when asked for, forgotten when it is no longer true.
    shown: OnceLock<Cursor>,
}

impl Track {
    pub(super) fn new(base: Cursor) -> Self {
        Self {
            base,
            last: None,
            shown: OnceLock::new(),
        }
    }

    /// One record was handed out.
    #[inline]
    pub(super) fn handed(&mut self, position: Option<Position>) {
        let Some(position) = position else { return };
        if self
            .last
            .is_some_and(|last| last.partition() != position.partition())
        {
            self.fold();
        }
        self.last = Some(position);
        self.forget();
    }

    /// These were handed out.
    pub(super) fn handed_all(&mut self, records: &[Recorded]) {
        // Only the last record in a row of one partition counts.
        for row in records.chunk_by(|a, b| a.partition() == b.partition()) {
            self.handed(row.last().and_then(Recorded::position));
        }
    }

    /// Records up to here were handed out or were not asked for. Whether that moved anything.
    pub(super) fn passed(&mut self, position: Position) -> bool {
        let frontier = self.frontier(position.partition());
        let covered = frontier.is_some_and(|at| at.covers(&position) == Some(true));
        if !covered {
            self.handed(Some(position));
        }
        !covered
    }

    /// A partition falls under what holds for those that are not named.
    pub(super) fn remove(&mut self, partition: PartitionId) {
        self.fold();
        self.base.remove(partition);
        self.forget();
    }

    /// A partition's frontier moved without a record, or became known.
    pub(super) fn set(&mut self, partition: PartitionId, frontier: Frontier) {
        self.fold();
        self.base.set(partition, frontier);
        self.forget();
    }

    /// Starts anew from a cursor.
    pub(super) fn reset(&mut self, base: Cursor) {
        *self = Self::new(base);
    }

    /// How far a partition has been handed out.
    pub(super) fn frontier(&self, partition: PartitionId) -> Option<Frontier> {
        match self.last {
            Some(last) if last.partition() == partition => Some(Frontier::after(last)),
            _ => self.base.frontier(partition).copied(),
        }
    }

    pub(super) fn cursor(&self) -> &Cursor {
        self.shown.get_or_init(|| {
            let mut cursor = self.base.clone();
            if let Some(last) = self.last {
                cursor.set(last.partition(), Frontier::after(last));
            }
            cursor
        })
    }

    #[inline]
    fn forget(&mut self) {
        if self.shown.get().is_some() {
            self.forget_shown();
        }
    }

    #[cold]
    fn forget_shown(&mut self) {
        self.shown = OnceLock::new();
    }

    #[cold]
    fn fold(&mut self) {
        if let Some(last) = self.last.take() {
            self.base.set(last.partition(), Frontier::after(last));
        }
    }
}
