//! What an application is told besides records: each failure once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, Operation};

/// So many failures wait to be told; of a flood the first ones are kept. (Gaps wait in the ledger,
/// where none is dropped.)
const MOST: usize = 64;

/// Failures that wait to be told, whether the membership is to end, and the bell for whoever waits
/// for anything.
#[derive(Debug, Default)]
pub(crate) struct News {
    told: Mutex<VecDeque<(Error, Operation)>>,
    leaving: AtomicBool,
    /// Rung when there may be something new to find.
    pub(crate) bell: Notify,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Error, Operation)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The membership is to end: nothing more is taken for it.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Wakes everybody who waits.
    pub(crate) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// To be told once.
    pub(crate) fn tell(&self, error: Error, operation: Operation) {
        {
            let mut told = self.lock();
            if told.len() < MOST {
                told.push_back((error, operation));
            }
        }
        self.ring();
    }

    /// The oldest that has not been told.
    pub(crate) fn take(&self) -> Option<(Error, Operation)> {
        self.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_its_first_failures() {
        let news = News::default();
        for number in 0..2 * MOST {
            news.tell(Error::config(number.to_string()), Operation::Settle);
        }
        let told: Vec<_> = std::iter::from_fn(|| news.take()).collect();
        let last = told.last().map(|(error, _)| error.message().to_owned());
        assert_eq!((told.len(), last), (MOST, Some((MOST - 1).to_string())));
    }
}
