//! Reading a range of a topic.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Budget;
use crate::cursor::{Cursor, Frontier};
use crate::error::Result;
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;
use crate::time::Timestamp;

/// Where a reading stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// At the end as it was at the open: everything acknowledged before is read, perhaps more.
    End,
    /// Behind this cursor: in a partition that stands at `After` there behind that record, gone or
    /// not; at `Since` before that moment; at `Ended` at its end. At `Start`, or not named, nothing
    /// of it lies in the range, unless what is named continues it: then all of it does. Where there
    /// is lineage core sees to that, and asks [`Stop::Never`] of such a one.
    Through(Cursor),
    /// Before the first record whose log time is at or after this moment. For a moment to come:
    /// once the log's clock has passed it and everything before it has been read.
    Before(Timestamp),
    /// Never.
    Never,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRange {
    /// From behind this cursor.
    pub from: Cursor,
    /// Up to here.
    pub stop: Stop,
    /// Only these partitions, and not their children; `None`: all, those found later included.
    pub partitions: Option<Vec<PartitionId>>,
    /// Only records of this key. Where the capability `by_key` is `Scanned` a reader may push
    /// others all the same, which core drops.
    pub key: Option<Bytes>,
    /// Bytes that may be buffered, shared by the readers of one replay, or of one group member.
    pub budget: Budget,
}

/// How much a caller of `fetch` has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Records.
    pub records: usize,
    /// Bytes, by [`Recorded::len_bytes`].
    pub bytes: usize,
}

impl Room {
    /// No room: only signals are wanted.
    pub const NONE: Self = Self {
        records: 0,
        bytes: 0,
    };

    /// Whether nothing fits. At least one record fits any other room.
    pub const fn is_none(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// One partition as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// The service's name for it.
    pub name: Arc<str>,
    /// The partitions that it continues.
    pub parents: Vec<PartitionId>,
    /// Whether it still takes records.
    pub open: bool,
}

/// An open reading.
#[derive(Debug)]
pub struct Opened {
    /// The reader.
    pub reader: Box<dyn Reader>,
    /// The pinned start: opening again from here reads the same. `EARLIEST` and `Since` are
    /// resolved to a position, or a moment, as far as the service lets.
    pub from: Cursor,
    /// The pinned stop, where it could be said at the open.
    pub until: Option<Cursor>,
}

/// What a [`Reader`] has to say after the records it pushed.
#[derive(Clone, PartialEq, Debug)]
pub enum Fetched {
    /// Records were pushed; there may be more.
    Records,
    /// Everything acknowledged before the open has been pushed. Told once per reading, on a
    /// bounded one too before its `End` if it gets that far; never by a partition that has ended.
    CaughtUp,
    /// No record, but the frontier moved: said now and then while there are none to push, on a
    /// bounded reading too, whose fetch [`layer::Timeout`](crate::layer::Timeout) limits. Every few
    /// seconds is enough. Before the first record too: from `Start` to a `Start` with a later
    /// `clear`.
    Advanced {
        /// Of this partition.
        partition: PartitionId,
        /// To here.
        to: Frontier,
    },
    /// Records are gone. The reading goes on behind them by itself. It moves no cursor: whoever
    /// goes on from one before the next record is told again, unless an `Advanced` to a place behind
    /// what is gone follows. None is told for what lies behind the stop: gone or not, it was not
    /// asked for, and no `Advanced` may pass it.
    Gap {
        /// In this partition.
        partition: PartitionId,
        /// How far it had been read.
        from: Frontier,
        /// The first record still there, where the service says.
        to: Option<Position>,
    },
    /// The partition takes no more records, and all of its own were pushed.
    PartitionEnded {
        /// Which.
        partition: PartitionId,
        /// What continues it. Whether they are open does not matter here.
        children: Arc<[Partition]>,
        /// A moment before which surely nothing was stored in them, where one is known: the log
        /// time of the last record here, or when this partition was last seen open, less
        /// [`skew`](crate::Capabilities::skew). Their readers get it as the `clear` of their
        /// [`Frontier::Start`], which is how one that begins within retention proves that its
        /// first record is not gone.
        clear: Option<Timestamp>,
    },
    /// A partition that was not there at the open; a reader of all partitions reads it from its
    /// start.
    PartitionAdded(Partition),
    /// The range is read. It is final: every later call says so again and nothing else, whatever is
    /// stored, goes or is deleted meanwhile. Never because a partition has ended:
    /// that is `PartitionEnded`, whatever the stop is, unless the stop lies before its end.
    End,
}

/// An open reading of a range.
///
/// **Pace.** A reader of one partition may wait between its polls as the service wants it, for it
/// holds up no other; it is woken by nothing but its own fetch, which may be dropped meanwhile. A
/// retryable error, of a throttle say, is never final: core calls again, after a pause, for as long
/// as somebody reads.
///
/// **Gone under it.** Of a partition that retention takes away while it is read, `fetch` says
/// [`Fetched::Gap`] with `to: None` and then [`Fetched::PartitionEnded`] where it still knows what
/// continues it; else it fails with `NotFound`, and core, which no longer finds it listed, tells the
/// gap and goes on.
///
/// It is `Sync`, as all that a handle holds: a future in it that is only `Send` is kept in a
/// [`Mutex`](std::sync::Mutex) and reached by `get_mut`, which never blocks.
#[async_trait]
pub trait Reader: fmt::Debug + Send + Sync + 'static {
    /// Pushes at most `room` onto `out`, waiting until there is something to say.
    ///
    /// Records of a partition come in position order. Without room it still gives signals, and
    /// waits for one. After `Err` the pushed records are valid; a retryable error means: call
    /// again.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost; what had been read is pushed by the next call.
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched>;

    /// Ends it within `grace`. Dropping it ends it too, without waiting.
    async fn close(self: Box<Self>, grace: Duration) -> Result<()>;
}
