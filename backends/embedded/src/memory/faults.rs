//! What goes wrong in a log that is made for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::{Call, Fault, Faults as DiskFaults};

/// The hand on the failures of a [`Memory`](crate::Memory). Clones are the same hand.
///
/// Failures of the disk and failures on the way to it are planned apart; of those on the way, each
/// append meets the next one.
#[derive(Clone, Debug)]
pub struct Faults {
    disk: DiskFaults,
    way: Arc<Mutex<Way>>,
}

#[derive(Debug, Default)]
struct Way {
    next: VecDeque<OnTheWay>,
    fired: u64,
}

/// What happens to one attempt to append between the caller and the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnTheWay {
    LostReply,
    Throttled(Duration),
}

impl Faults {
    pub(super) fn new(disk: DiskFaults) -> Self {
        Self {
            disk,
            way: Arc::default(),
        }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is no room: appends and new topics are `Blocked`, with no effect, and
    /// tried again by core. Reading, settling and committing go on. Until [`clear`](Self::clear).
    pub fn fill_disk(&self) {
        self.disk.room(Some(0));
    }

    /// The next sync of records fails: what was being written is `Unknown`, and the log is
    /// `Closed` until it is opened again, as by [`Memory::restart`](crate::Memory::restart).
    pub fn fail_sync(&self) {
        self.disk.inject(Fault::new(Call::Sync).on(".seg"));
    }

    /// The replies to the next `attempts` appends are lost: what was asked is done, and each
    /// record is `Unknown` with `Timeout`. Core tries again only what has an id, on a topic with
    /// a dedupe window, or where the caller allows duplicates.
    pub fn lose_replies(&self, attempts: usize) {
        self.plan(attempts, OnTheWay::LostReply);
    }

    /// The next `attempts` appends are `Throttled`, with no effect, and asked to come again not
    /// before `after`; core tries again by the clock.
    pub fn throttle(&self, attempts: usize, after: Duration) {
        self.plan(attempts, OnTheWay::Throttled(after));
    }

    fn plan(&self, attempts: usize, what: OnTheWay) {
        let mut way = self.way();
        way.next.extend(std::iter::repeat_n(what, attempts));
    }

    /// Any other failure of the disk, call by call and file by file.
    pub fn disk(&self) -> &DiskFaults {
        &self.disk
    }

    /// Forgets all planned failures, and makes room again.
    pub fn clear(&self) {
        self.disk.clear();
        self.way().next.clear();
    }

    /// How many planned failures have fired so far: a test of failures asks for it, or it may
    /// have tested nothing. Refusals by a full disk are not counted.
    pub fn fired(&self) -> u64 {
        self.disk.fired() + self.way().fired
    }

    /// What happens to the attempt that is made now.
    pub(super) fn meet(&self) -> Option<OnTheWay> {
        let mut way = self.way();
        let met = way.next.pop_front();
        way.fired += u64::from(met.is_some());
        met
    }
}
