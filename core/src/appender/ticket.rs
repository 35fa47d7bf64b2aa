//! What becomes of a submitted record, for whoever wants to know.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::outcome::Stored;

/// The outcomes of records that were accepted one after another: one allocation for many tickets.
#[derive(Debug, Default)]
pub(super) struct Cell(Mutex<Outcomes>);

#[derive(Debug, Default)]
struct Outcomes {
    results: Vec<Option<Result<Stored>>>,
    wakers: Vec<Option<Waker>>,
}

/// How many records share a [`Cell`].
pub(super) const CELL_RECORDS: usize = 64;

/// A record's place in a [`Cell`].
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) cell: Arc<Cell>,
    pub(super) index: usize,
}

fn put<T>(list: &mut Vec<Option<T>>, index: usize, value: T) {
    if list.len() <= index {
        list.reserve(CELL_RECORDS.saturating_sub(list.len()));
        list.resize_with(index.saturating_add(1), || None);
    }
    if let Some(place) = list.get_mut(index) {
        *place = Some(value);
    }
}

impl Slot {
    /// Says what became of the record; only the first word counts.
    pub(super) fn settle(&self, result: Result<Stored>) {
        let waker = {
            let mut outcomes = self.cell.0.lock().unwrap_or_else(PoisonError::into_inner);
            if outcomes
                .results
                .get(self.index)
                .is_some_and(Option::is_some)
            {
                return;
            }
            put(&mut outcomes.results, self.index, result);
            outcomes.wakers.get_mut(self.index).and_then(Option::take)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What becomes of one record that an [`Appender`](crate::Appender) has accepted: a future of its
/// place.
///
/// # Errors
/// What the append failed with; [`Error::effect`](crate::Error::effect) says whether the record
/// may be stored all the same. A record that was not sent because an earlier one of its key was
/// not stored has that one's kind, no effect, and its error as the source.
///
/// # Cancel safety
/// Dropping it cancels nothing: the record is sent all the same. It may be polled again after it
/// was ready.
#[must_use = "a ticket says whether the record is stored; flush tells of failures too"]
pub struct Ticket(Slot);

impl Ticket {
    pub(super) fn new(slot: Slot) -> Self {
        Self(slot)
    }
}

impl Future for Ticket {
    type Output = Result<Stored>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = &self.0;
        let mut outcomes = slot.cell.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(result)) = outcomes.results.get(slot.index) {
            return Poll::Ready(result.clone());
        }
        put(&mut outcomes.wakers, slot.index, cx.waker().clone());
        Poll::Pending
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("index", &self.0.index)
            .finish_non_exhaustive()
    }
}
