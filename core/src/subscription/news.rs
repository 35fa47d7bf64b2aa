//! What an application is told besides records: each failure once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Operation};
use crate::signal::Gap;

/// So many failures wait to be told; of a flood the first ones are kept. Gaps are never dropped:
/// those of a partition become one.
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
            match error.gap() {
                Some(gap) => add_gap(&mut told, gap.clone(), operation),
                None if told.len() < MOST => told.push_back((error, operation)),
                None => {}
            }
        }
        self.ring();
    }

    /// The oldest that has not been told.
    pub(crate) fn take(&self) -> Option<(Error, Operation)> {
        self.lock().pop_front()
    }

    /// The oldest that keeps something from being settled: a gap does not, and is left to be told
    /// where records are handed out.
    pub(crate) fn take_but_gaps(&self) -> Option<(Error, Operation)> {
        let mut told = self.lock();
        let index = told.iter().position(|(e, _)| e.kind() != ErrorKind::Gap)?;
        told.remove(index)
    }
}

/// Two gaps of a partition that nobody has heard of yet are one.
fn add_gap(told: &mut VecDeque<(Error, Operation)>, gap: Gap, operation: Operation) {
    let waiting = told.iter_mut().find_map(|(error, _)| {
        let first = error.gap()?.clone();
        (first.partition == gap.partition).then_some((error, first))
    });
    match waiting {
        Some((error, first)) => {
            let from = first.from;
            *error = Error::of_gap(Gap { from, ..gap });
        }
        None => told.push_back((Error::of_gap(gap), operation)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Frontier;
    use crate::position::{PartitionId, Position};

    fn gap(partition: u64, from: Frontier, to: u64) -> Error {
        let partition = PartitionId::new(partition);
        Error::of_gap(Gap {
            partition,
            from,
            to: Some(Position::new(partition, to)),
        })
    }

    #[test]
    fn a_flood_keeps_its_first_failures_and_every_gap() {
        let news = News::default();
        for _ in 0..2 * MOST {
            news.tell(Error::config("flood"), Operation::Settle);
        }
        for partition in 0..200 {
            news.tell(gap(partition, Frontier::START, 1), Operation::Subscribe);
        }
        let told: Vec<_> = std::iter::from_fn(|| news.take()).collect();
        assert_eq!(told.len(), MOST + 200);
    }

    #[test]
    fn gaps_of_a_partition_become_one_and_a_flush_does_not_take_them() {
        let news = News::default();
        let after = Frontier::after(Position::new(PartitionId::ONLY, 4));
        news.tell(gap(0, Frontier::START, 3), Operation::Subscribe);
        news.tell(gap(0, after, 9), Operation::Subscribe);
        news.tell(Error::config("other"), Operation::Settle);
        assert_eq!(news.take_but_gaps().unwrap().0.kind(), ErrorKind::Config);
        assert_eq!(news.take_but_gaps().map(|_| ()), None);
        let (error, _) = news.take().unwrap();
        let gap = error.gap().unwrap();
        let to = Position::new(PartitionId::ONLY, 9);
        assert_eq!((gap.from, gap.to), (Frontier::START, Some(to)));
        assert!(news.take().is_none());
    }
}
