//! A client's side: whether it is still there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use annals_core::{Error, Result};
use tokio::sync::Notify;

/// One client's connection to a model; clones are the same connection.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Client>);

#[derive(Debug)]
pub(super) struct Client {
    closed: AtomicBool,
    changes: Arc<Notify>,
}

impl Connection {
    pub(super) fn new(changes: Arc<Notify>) -> Self {
        Self(Arc::new(Client {
            closed: AtomicBool::new(false),
            changes,
        }))
    }

    /// Ends the client at once, as if its process had died: every call of it that is under way
    /// or comes later is `Closed`, and nothing it held is given back.
    pub fn kill(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        // Wakes the calls that wait, so that they see it.
        self.0.changes.notify_waiters();
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.closed.load(Ordering::SeqCst)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        Err(Error::closed(
            "this connection was closed; connect again to go on",
        ))
    }

    /// What the service remembers of the client: it does not keep it alive.
    pub(super) fn trace(&self) -> Trace {
        Trace(Arc::downgrade(&self.0))
    }
}

/// Who did something, as long as that client lives: until it is closed, killed, or nothing of it
/// is held any more.
#[derive(Clone, Debug)]
pub(super) struct Trace(Weak<Client>);

impl Trace {
    pub(super) fn lives(&self) -> bool {
        self.0
            .upgrade()
            .is_some_and(|client| !client.closed.load(Ordering::SeqCst))
    }

    pub(super) fn is(&self, client: &Connection) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&client.0))
    }
}
