//! Replays and follows of events.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Event, broken};
use crate::cursor::{Cursor, Frontier};
use crate::driver::Lag;
use crate::error::{Error, Operation, Result};
use crate::position::PartitionId;
use crate::record::Key;
use crate::recorded::Recorded;
use crate::replay::{OpenReplay, Replay};
use crate::start::Until;
use crate::topic::Topic;

/// An event as it stands in the log: derefs to the event, and has the record that it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Typed<E> {
    event: E,
    record: Recorded,
}

impl<E> Typed<E> {
    /// The record: position, log time, headers, id.
    pub const fn record(&self) -> &Recorded {
        &self.record
    }

    /// The event, taken out.
    pub fn into_event(self) -> E {
        self.event
    }

    /// Both, taken out.
    pub fn into_parts(self) -> (E, Recorded) {
        (self.event, self.record)
    }
}

impl<E> Deref for Typed<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

impl<E> fmt::Debug for Typed<E> {
    /// The record without its payload; the event is the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// Events in order, and the cursor behind the last of them: store both in one transaction.
///
/// It may be empty: then only the cursor moved (over records that are no events here, say), or
/// the reading caught up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypedRecords<E> {
    list: Vec<Typed<E>>,
    cursor: Cursor,
    caught_up: bool,
}

impl<E> TypedRecords<E> {
    /// The place behind the last event, and behind what was passed over with it.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether everything acknowledged before the open has been handed out, with this batch or
    /// before it.
    pub const fn caught_up(&self) -> bool {
        self.caught_up
    }
}

impl<E> Deref for TypedRecords<E> {
    type Target = [Typed<E>];

    fn deref(&self) -> &[Typed<E>] {
        &self.list
    }
}

impl<E> IntoIterator for TypedRecords<E> {
    type Item = Typed<E>;
    type IntoIter = std::vec::IntoIter<Typed<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a TypedRecords<E> {
    type Item = &'a Typed<E>;
    type IntoIter = std::slice::Iter<'a, Typed<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// Opens a [`TypedReplay`]: `orders.replay(Start::Beginning).await?`. As
/// [`OpenReplay`], whose errors and cancel safety are these too.
#[must_use = "a replay is opened by awaiting this"]
pub struct OpenTypedReplay<E> {
    open: OpenReplay,
    topic: Topic,
    deny_unknown: bool,
    event: PhantomData<fn(E) -> E>,
}

impl<E: Event> OpenTypedReplay<E> {
    pub(super) const fn new(topic: Topic, open: OpenReplay) -> Self {
        Self {
            open,
            topic,
            deny_unknown: false,
            event: PhantomData,
        }
    }

    fn with(mut self, change: impl FnOnce(OpenReplay) -> OpenReplay) -> Self {
        self.open = change(self.open);
        self
    }

    /// Where it stops; as [`OpenReplay::until`].
    pub fn until(self, until: Until) -> Self {
        self.with(|open| open.until(until))
    }

    /// Only events of this key, found by an index; as [`OpenReplay::key`].
    pub fn key(self, key: impl Into<Key>) -> Self {
        self.with(|open| open.key(key))
    }

    /// Only events of this key, even where the whole range has to be read for it; as
    /// [`OpenReplay::scan_key`].
    pub fn scan_key(self, key: impl Into<Key>) -> Self {
        self.with(|open| open.scan_key(key))
    }

    /// Only these partitions; as [`OpenReplay::partitions`].
    pub fn partitions(self, partitions: impl IntoIterator<Item = PartitionId>) -> Self {
        self.with(|open| open.partitions(partitions))
    }

    /// How many bytes may be read ahead; as [`OpenReplay::buffer`].
    pub fn buffer(self, bytes: usize) -> Self {
        self.with(|open| open.buffer(bytes))
    }

    /// A record whose type `E` does not know, or that has none, is an error of kind `Decode`
    /// instead of being passed over: for readers that must account for every record.
    pub fn deny_unknown(mut self) -> Self {
        self.deny_unknown = true;
        self
    }
}

impl<E: Event> Future for OpenTypedReplay<E> {
    type Output = Result<TypedReplay<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let replay = ready!(Pin::new(&mut self.open).poll(cx))?;
        Poll::Ready(Ok(TypedReplay {
            cursor: replay.cursor().clone(),
            replay,
            waiting: Vec::new().into_iter(),
            caught_up: false,
            broken: None,
            skipped: 0,
            topic: self.topic.clone(),
            deny_unknown: self.deny_unknown,
            event: PhantomData,
        }))
    }
}

impl<E> fmt::Debug for OpenTypedReplay<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTypedReplay")
            .field("open", &self.open)
            .field("deny_unknown", &self.deny_unknown)
            .finish_non_exhaustive()
    }
}

/// An open reading of a topic's events, in the order of a [`Replay`].
///
/// What is no event of type `E` (see [`Event`]) is passed over: the cursor moves,
/// [`skipped`](Self::skipped) counts. What is one and cannot be read is an error, told once and in
/// its place.
pub struct TypedReplay<E> {
    replay: Replay,
    topic: Topic,
    /// Read and not yet looked at.
    waiting: std::vec::IntoIter<Recorded>,
    /// Behind what was handed out or passed over; never past a record that could not be read
    /// before the call behind its error.
    cursor: Cursor,
    caught_up: bool,
    /// The error behind a batch that ended before it.
    broken: Option<Error>,
    skipped: u64,
    deny_unknown: bool,
    event: PhantomData<fn(E) -> E>,
}

impl<E: Event> TypedReplay<E> {
    /// The next event; `None` at the end of the range.
    ///
    /// # Errors
    /// `Decode` for a record of a known type that is no such event, naming topic, partition, type
    /// and position, and for one whose type is no text. It is told once: until the next call the cursor stands before that record,
    /// and the next call goes on behind it. `Gap` when records are gone, also told once. Any other
    /// error is final.
    ///
    /// # Cancel safety
    /// Cancel safe: a call that is dropped takes nothing.
    pub async fn next(&mut self) -> Result<Option<Typed<E>>> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        loop {
            while let Some(record) = self.waiting.next() {
                if let Some(typed) = self.look(record)? {
                    return Ok(Some(typed));
                }
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next events with the cursor behind them; `None` at the end of the range. A batch may
    /// be empty: then only the cursor moved, or the reading caught up. Before a record that
    /// cannot be read a batch ends; the error comes with the next call.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Cancel safe: a call that is dropped takes nothing.
    pub async fn next_batch(&mut self) -> Result<Option<TypedRecords<E>>> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        if self.waiting.as_slice().is_empty() && !self.fill().await? {
            return Ok(None);
        }
        let mut list = Vec::with_capacity(self.waiting.len());
        while let Some(record) = self.waiting.next() {
            match self.look(record) {
                Ok(typed) => list.extend(typed),
                Err(error) if list.is_empty() => return Err(error),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        let whole = self.broken.is_none();
        if whole {
            self.cursor.clone_from(self.replay.cursor());
        }
        Ok(Some(TypedRecords {
            list,
            cursor: self.cursor.clone(),
            caught_up: self.caught_up && whole,
        }))
    }

    /// Makes an event of a record. The cursor moves over it unless it cannot be read.
    fn look(&mut self, record: Recorded) -> Result<Option<Typed<E>>> {
        let event = record.event::<E>();
        let event = event.and_then(|event| match event {
            None if self.deny_unknown => Err(unknown(&record)),
            event => Ok(event),
        });
        let event = event.map_err(|error| self.topic.place(error, Operation::Read))?;
        if let Some(position) = record.position() {
            self.cursor
                .set(position.partition(), Frontier::after(position));
        }
        self.skipped += u64::from(event.is_none());
        Ok(event.map(|event| Typed { event, record }))
    }

    /// Reads on when nothing waits; whether there is more.
    async fn fill(&mut self) -> Result<bool> {
        self.cursor.clone_from(self.replay.cursor());
        let Some(records) = self.replay.next_batch().await? else {
            self.cursor.clone_from(self.replay.cursor());
            return Ok(false);
        };
        self.caught_up = records.caught_up();
        if records.is_empty() {
            self.cursor.clone_from(records.cursor());
        }
        self.waiting = records.into_iter();
        Ok(true)
    }
}

impl<E> TypedReplay<E> {
    /// The place behind what has been handed out or passed over: going on from it
    /// ([`Start::After`](crate::Start::After)) gives what this replay would give next. After a
    /// `Decode` error it stands before the record that could not be read.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// How many records were passed over so far, because their type is unknown or because they
    /// have none.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How far what has been handed out is behind the end now; as [`Replay::lag`].
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot say.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn lag(&self) -> Result<Lag> {
        self.topic.lag(&self.cursor).await
    }

    /// Ends it within `grace`; as [`Replay::close`].
    ///
    /// # Errors
    /// The first error of a reader that could not end in order; it has ended all the same.
    ///
    /// # Cancel safety
    /// Dropping it ends the readers without waiting.
    pub async fn close(self, grace: Duration) -> Result<()> {
        self.replay.close(grace).await
    }
}

fn unknown(record: &Recorded) -> Error {
    let place = record
        .position()
        .map_or_else(String::new, |position| format!(" at {position}"));
    let error = broken(match record.event_type() {
        // A foreign header may be of any length.
        Some(event_type) => format!(
            "the record{place} has the event type {:?}, which this reader does not know; teach it, or do not deny unknown types",
            event_type.chars().take(64).collect::<String>()
        ),
        None => format!(
            "the record{place} has no event type in the header {:?}; it was written by somebody else, or do not deny unknown types",
            super::EVENT_TYPE
        ),
    });
    match record.position() {
        Some(position) => error.in_partition(position.partition()),
        None => error,
    }
}

impl<E> fmt::Debug for TypedReplay<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReplay")
            .field("replay", &self.replay)
            .field("cursor", &self.cursor)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}
