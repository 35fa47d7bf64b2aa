//! Syncs that hang.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

/// Holds syncs up for as long as it is shut.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<Shut>,
    changed: Condvar,
}

#[derive(Default)]
struct Shut {
    /// Files whose path ends so.
    name: Option<String>,
    waiting: usize,
}

impl Gate {
    pub(super) fn shut(&self, name: Option<String>) {
        let mut shut = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        shut.name = name;
        drop(shut);
        self.changed.notify_all();
    }

    /// Waits until the gate is open for `path`.
    pub(super) fn pass(&self, path: &Path) {
        let mut shut = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = path.to_string_lossy();
        let is_shut = |shut: &mut Shut| {
            shut.name
                .as_ref()
                .is_some_and(|end| text.ends_with(end.as_str()))
        };
        if !is_shut(&mut shut) {
            return;
        }
        shut.waiting += 1;
        self.changed.notify_all();
        let shut = self.changed.wait_while(shut, is_shut);
        shut.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }

    /// Waits until somebody waits at it.
    pub(super) fn meet(&self) {
        let shut = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(shut, |shut| shut.waiting == 0));
    }
}
