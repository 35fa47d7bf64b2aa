//! The hand on a disk's failures.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::{Call, Fault};
use super::gate::Gate;
use super::state::State;

/// The hand on a [`FaultyDisk`](super::FaultyDisk)'s failures. Clones are the same hand.
#[derive(Clone)]
pub struct Faults(pub(super) Arc<Mutex<State>>, pub(super) Arc<Gate>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a failure beside those that are planned already. Of several that meet one call the
    /// first one planned fires.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets all planned failures and makes room again.
    pub fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.room = None;
    }

    /// How many failures have fired so far: a test of failures asks for it, or it may have tested
    /// nothing.
    pub fn fired(&self) -> u64 {
        self.state().fired
    }

    /// How many calls of this kind there have been so far, failed ones included.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// From now on the disk has room for so many more bytes; `None`: for any number. What is
    /// reserved or written already can be written again on a full disk.
    pub fn room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// From now on syncs of files whose path ends with `end_of_path` hang until
    /// [`resume`](Self::resume).
    pub fn stall(&self, end_of_path: impl Into<String>) {
        self.1.shut(Some(end_of_path.into()));
    }

    /// Blocks until a sync hangs.
    pub fn stalled(&self) {
        self.1.meet();
    }

    /// Lets the syncs that hang go on.
    pub fn resume(&self) {
        self.1.shut(None);
    }

    /// Cuts everybody off: from now on every call on this disk and its open files fails, as for
    /// a process that is no more.
    pub fn cut(&self) {
        self.state().cut = true;
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Faults")
            .field("planned", &state.faults.len())
            .field("fired", &state.fired)
            .field("room", &state.room)
            .finish_non_exhaustive()
    }
}
