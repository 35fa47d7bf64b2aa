//! Whether deliveries of one right can still be settled.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether deliveries of one right (a stay, or a token) can still be settled.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    flag: AtomicBool,
    told: AtomicBool,
    notify: Notify,
}

impl Gone {
    /// They cannot, from here on.
    pub(crate) fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Whether the application is to be told that something was settled too late: once a right.
    pub(crate) fn tell_once(&self) -> bool {
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// Waits until they cannot.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting.
    pub(crate) async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }
}
