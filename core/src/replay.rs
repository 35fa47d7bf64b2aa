//! Ordered reading: replays, which end, and follows, which do not.

mod heal;
mod lane;
mod lineage;
mod listing;
mod merge;
mod open;
mod records;
mod stream;
mod track;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::cursor::Cursor;
use crate::driver::Lag;
use crate::error::{Error, Operation, Result};
use crate::recorded::Recorded;
use crate::signal::{Gap, Signal};

use merge::{Merge, Next};

pub(crate) use heal::retry;
pub use open::OpenReplay;
pub use records::Records;
pub use stream::RecordStream;

/// An open reading of a topic, in order: by partition, parents before children.
///
/// Made by [`Topic::replay`](crate::Topic::replay), which ends, and
/// [`Topic::follow`](crate::Topic::follow), which does not. Take what it has one by one with
/// [`next`](Self::next), in batches with [`next_batch`](Self::next_batch), with everything else it
/// has to say with [`next_signal`](Self::next_signal), or as a [stream](Self::into_stream); they
/// may be mixed.
///
/// What can heal is retried inside for as long as it takes, with pauses that grow up to five
/// seconds: bound a call from outside (`tokio::time::timeout`) where that is too long. Dropping a
/// replay ends its readers without waiting.
#[derive(Debug)]
pub struct Replay(Merge);

impl Replay {
    const fn new(merge: Merge) -> Self {
        Self(merge)
    }

    /// The next record; `None` at the end of the range.
    ///
    /// # Errors
    /// `Gap` when records are gone, told once with [`Error::gap`]: the next call goes on behind
    /// it. Any other error is final (`Closed`: the bus was closed), and every later call says it
    /// again.
    ///
    /// # Cancel safety
    /// Cancel safe: a call that is dropped takes nothing.
    // Not an `async fn`: the state of one is not inlined, and here it would cost each record.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "it waits, as no iterator does"
    )]
    pub fn next(&mut self) -> impl Future<Output = Result<Option<Recorded>>> + Send + Sync {
        NextRecord(self)
    }

    /// The next records with the cursor behind them; `None` at the end of the range. A batch may
    /// be empty: then only the cursor moved, or the reading caught up.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Cancel safe: a call that is dropped takes nothing.
    pub async fn next_batch(&mut self) -> Result<Option<Records>> {
        poll_fn(|cx| self.poll_batch(cx)).await
    }

    /// The next thing that there is to say; `None` at the end of the range.
    ///
    /// # Errors
    /// Every error is final, and every later call says it again; gaps are signals here.
    ///
    /// # Cancel safety
    /// Cancel safe: a call that is dropped takes nothing.
    pub async fn next_signal(&mut self) -> Result<Option<Signal>> {
        poll_fn(|cx| self.poll_signal(cx)).await
    }

    /// The place behind what has been handed out, exactly: going on from it
    /// ([`Start::After`](crate::Start::After)) gives what this replay would give next.
    pub fn cursor(&self) -> &Cursor {
        self.0.cursor()
    }

    /// How far what has been handed out is behind the end now; see [`Topic::lag`](crate::Topic::lag).
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot say.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn lag(&self) -> Result<Lag> {
        self.0.topic().lag(self.cursor()).await
    }

    /// The records as a [`Stream`](futures_core::Stream).
    pub const fn into_stream(self) -> RecordStream {
        RecordStream::new(self)
    }

    /// Ends all readers within `grace`; what has not ended by then is dropped.
    ///
    /// # Errors
    /// The first error of a reader that could not end in order; it has ended all the same.
    ///
    /// # Cancel safety
    /// Dropping it ends the readers without waiting.
    pub async fn close(self, grace: Duration) -> Result<()> {
        self.0.close(grace).await
    }

    #[cold]
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Recorded>>> {
        loop {
            match ready!(self.0.poll_next(cx))? {
                Next::Records => {
                    if let Some(record) = self.0.pop() {
                        return Poll::Ready(Ok(Some(record)));
                    }
                }
                Next::Gap(gap) => return Poll::Ready(Err(self.gap(gap))),
                Next::End => return Poll::Ready(Ok(None)),
                Next::CaughtUp | Next::Advanced => {}
            }
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Records>>> {
        let records = match ready!(self.0.poll_next(cx))? {
            Next::Records => self.0.take(),
            Next::CaughtUp | Next::Advanced => {
                self.0.skip_moves();
                Vec::new()
            }
            Next::Gap(gap) => return Poll::Ready(Err(self.gap(gap))),
            Next::End => return Poll::Ready(Ok(None)),
        };
        let cursor = self.0.cursor().clone();
        let records = Records::new(records, cursor, self.0.caught_up());
        Poll::Ready(Ok(Some(records)))
    }

    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Signal>>> {
        loop {
            let signal = match ready!(self.0.poll_next(cx))? {
                Next::Records => match self.0.pop() {
                    Some(record) => Signal::Record(record),
                    None => continue,
                },
                Next::CaughtUp => Signal::CaughtUp(self.cursor().clone()),
                Next::Advanced => Signal::Advanced(self.cursor().clone()),
                Next::Gap(gap) => Signal::Gap(gap),
                Next::End => return Poll::Ready(Ok(None)),
            };
            return Poll::Ready(Ok(Some(signal)));
        }
    }

    fn gap(&self, gap: Gap) -> Error {
        self.0.topic().place(Error::of_gap(gap), Operation::Read)
    }
}

/// A call of [`Replay::next`].
struct NextRecord<'r>(&'r mut Replay);

impl Future for NextRecord<'_> {
    type Output = Result<Option<Recorded>>;

    #[expect(
        clippy::inline_always,
        reason = "a record is copied once more for each call that it comes through"
    )]
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.0.pop() {
            Some(record) => Poll::Ready(Ok(Some(record))),
            None => self.0.poll_record(cx),
        }
    }
}
