//! Who wants to hear of changes on a disk in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskWatch;

pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A file or directory and who wants to hear of its changes.
pub(in crate::disk) struct Watched {
    pub(super) id: u64,
    watchers: Mutex<Vec<Arc<Watcher>>>,
    count: AtomicUsize,
}

struct Watcher {
    wake: Wake,
    live: AtomicBool,
}

impl Watched {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            watchers: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// Calls `wake` after each change, until the returned value is dropped.
    pub(super) fn watch(watched: &Arc<Self>, wake: Wake) -> Box<dyn DiskWatch> {
        let watcher = Arc::new(Watcher {
            wake,
            live: AtomicBool::new(true),
        });
        watched.list().push(Arc::clone(&watcher));
        watched.count.fetch_add(1, Ordering::SeqCst);
        Box::new(MemoryWatch {
            watched: Arc::clone(watched),
            watcher,
        })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        // Whoever adds a watch reads the file afterwards, so a count that is read too early
        // loses nothing.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watchers = self.list().clone();
        for watcher in watchers {
            if watcher.live.load(Ordering::SeqCst) {
                (watcher.wake)();
            }
        }
    }
}

struct MemoryWatch {
    watched: Arc<Watched>,
    watcher: Arc<Watcher>,
}

impl DiskWatch for MemoryWatch {}

impl fmt::Debug for MemoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryWatch")
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.watcher.live.store(false, Ordering::SeqCst);
        self.watched
            .list()
            .retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.watched.count.fetch_sub(1, Ordering::SeqCst);
    }
}
