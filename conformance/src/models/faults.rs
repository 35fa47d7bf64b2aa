//! What goes wrong, by script.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{Effect, Error, ErrorKind, Retry};

/// Which calls a fault can happen to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// `Backend::append`.
    Append,
    /// `Reader::fetch`, and `Source::fetch` on the queue.
    Fetch,
    /// `Leases::take`, `renew`, `commit` and `release`.
    Lease,
    /// `Settler::settle` and `extend`.
    Settle,
}

/// What happens to one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// These records, or settlements, of the request are refused (by their place in it); the
    /// others go on. Calls that carry no list fail as a whole.
    Refuse(Vec<usize>),
    /// No answer: what was asked has happened or has not, and the caller cannot know.
    Lose {
        /// Whether it happened.
        done: bool,
    },
    /// The connection was gone before the request left.
    Disconnect,
    /// The service asks to come again after so long.
    Throttle(Duration),
    /// The answer takes this long.
    Delay(Duration),
}

/// A script of faults: for each [`Call`], what happens to the next ones, in order. An empty
/// script lets everything succeed. Clones are the same script.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    next: HashMap<Call, VecDeque<Option<Fault>>>,
    fired: usize,
}

impl Faults {
    /// Adds a fault for the next call of its kind that has none yet.
    pub fn inject(&self, call: Call, fault: Fault) -> &Self {
        self.add(call, Some(fault))
    }

    /// Lets the next call of its kind that has no fault yet pass.
    pub fn pass(&self, call: Call) -> &Self {
        self.add(call, None)
    }

    /// How many faults have happened so far.
    pub fn fired(&self) -> usize {
        self.lock().fired
    }

    /// How many are still to happen.
    pub fn left(&self) -> usize {
        let script = self.lock();
        script.next.values().flatten().flatten().count()
    }

    /// Forgets what has not happened yet.
    pub fn heal(&self) {
        self.lock().next.clear();
    }

    /// What happens to this call.
    pub(crate) fn take(&self, call: Call) -> Option<Fault> {
        let mut script = self.lock();
        let fault = script.next.get_mut(&call)?.pop_front()?;
        script.fired += usize::from(fault.is_some());
        fault
    }

    fn add(&self, call: Call, fault: Option<Fault>) -> &Self {
        self.lock().next.entry(call).or_default().push_back(fault);
        self
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request never left.
pub(crate) fn disconnected() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        Effect::None,
        Retry::Backoff,
        "the connection was lost before the request left; try again",
    )
}

/// The service asks to slow down.
pub(crate) fn throttled(after: Duration) -> Error {
    Error::new(
        ErrorKind::Throttled,
        Effect::None,
        Retry::After(after),
        "the service asks to slow down; try again later",
    )
}

/// One record or settlement was refused; the next attempt may succeed.
pub(crate) fn refused() -> Error {
    Error::new(
        ErrorKind::Throttled,
        Effect::None,
        Retry::Backoff,
        "the service refused this one for now; try again",
    )
}

/// The request left and no answer came.
pub(crate) fn no_answer() -> Error {
    Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Backoff,
        "the request left and no answer came; it may have happened",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_in_order_and_are_counted() {
        let faults = Faults::default();
        faults
            .pass(Call::Append)
            .inject(Call::Append, Fault::Disconnect)
            .inject(Call::Fetch, Fault::Lose { done: true });
        assert_eq!((faults.take(Call::Append), faults.fired()), (None, 0));
        assert_eq!(faults.take(Call::Append), Some(Fault::Disconnect));
        assert_eq!((faults.take(Call::Append), faults.fired()), (None, 1));
        assert_eq!(faults.left(), 1);
        faults.heal();
        assert_eq!((faults.take(Call::Fetch), faults.fired()), (None, 1));
    }
}
