//! One call of one client.

use std::ops::Range;

use annals_core::{PartitionId, Position};

use super::value::{KeyNo, Value};

/// A moment: every start and every end of a call has its own, in the order of real time.
pub type Tick = u64;

/// The end of a call that never returned.
pub const NEVER: Tick = Tick::MAX;

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Client(pub u32);

/// One reading: from an open to its end, close or crash. A group's member that comes back is
/// another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reading(pub u32);

/// What a reading is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// A range that ends.
    Replay,
    /// A range without end.
    Follow,
    /// A member of the group of this number.
    Member(u32),
}

/// What became of one record, as its writer was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is stored.
    Stored {
        /// Where, when that was said.
        at: Option<Position>,
        /// It had been stored before, as was said.
        duplicate: bool,
    },
    /// It is certainly not stored.
    Failed,
    /// It may be stored, now or later, or never.
    Unknown,
}

/// What an append was made to depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The last record of the topic is this one; `None`: there has never been one.
    EndAt(Option<Position>),
    /// The last record of the key is this one; `None`: there has never been one.
    KeyAt(KeyNo, Option<Position>),
}

/// What the subscriber decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It is handled.
    Done,
    /// Once more.
    Retry,
    /// To the dead letters.
    Reject,
    /// Given back untouched.
    Return,
}

/// What became of a call as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Done {
    /// It holds.
    Ok,
    /// It failed, and has no effect.
    Failed,
    /// It was refused because what it was made to depend on, or what it stood on, no longer held
    /// (a condition, an epoch, a tenancy): no effect.
    Refused,
    /// It may have had an effect, or have it later. So is a call that never returned.
    Unknown,
}

/// What a reading was told behind the records that a call gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Everything acknowledged before the open has been handed out.
    CaughtUp,
    /// The frontier of a partition moved, to this position where it names one.
    Advanced(PartitionId, Option<Position>),
    /// Records are gone, between these positions where they are said.
    Gap(PartitionId, Option<Position>, Option<Position>),
    /// A partition has given all it has; these continue it.
    Ended(PartitionId, Vec<PartitionId>),
    /// A partition is there that was not; these are its parents.
    Added(PartitionId, Vec<PartitionId>),
    /// A stay begins: the partition, its epoch, and after which position it goes on.
    Assigned(PartitionId, u64, Option<Position>),
    /// A stay is to end: the partition and its epoch.
    Revoking(PartitionId, u64),
    /// A stay has ended: the partition and its epoch.
    Lost(PartitionId, u64),
    /// The range is read.
    End,
}

/// What was called, with ranges into what was offered, seen and asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Records were offered.
    Append {
        /// Which of [`History::offers`](super::History::offers).
        offers: Range<u32>,
        /// What it was made to depend on.
        condition: Option<Box<Condition>>,
        /// The writer's epoch.
        epoch: Option<u64>,
        /// All or none was asked for.
        atomic: bool,
    },
    /// A reading was opened.
    Open(Reading),
    /// More was asked of a reading.
    Fetch {
        /// Of which.
        reading: Reading,
        /// The records that came, among all that was seen.
        seen: Range<u32>,
        /// What came behind them.
        signal: Option<Box<Signal>>,
    },
    /// One delivery was settled: the last one of this value in the reading.
    Settle(Reading, Value, Verdict),
    /// Everything up to this position was settled, by this tenancy's epoch.
    Commit(Reading, Position, u64),
    /// The end of the topic was asked; the answers lie in this range.
    End(Range<u32>),
    /// A reading was closed in order.
    Close(Reading),
    /// A reading ended without having been closed: its client was killed, or cut off for good.
    Crash(Reading),
    /// A fault was seen to fire.
    Fault(&'static str),
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Whose.
    pub client: Client,
    /// When it began.
    pub start: Tick,
    /// When it returned; [`NEVER`] when it did not.
    pub end: Tick,
    /// What became of it.
    pub done: Done,
    /// What it was.
    pub kind: Kind,
}

/// One record as a reading gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Which.
    pub value: Value,
    /// Where, when that was said.
    pub position: Option<Position>,
    /// To whom.
    pub reading: Reading,
    /// For how many times, as was said; 0 in replays.
    pub attempt: u32,
    /// When the call that gave it began.
    pub asked: Tick,
    /// When the call that gave it returned.
    pub tick: Tick,
}

/// A record that no client can have written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strange {
    /// Where, when that was said.
    pub position: Option<Position>,
    /// To whom.
    pub reading: Reading,
    /// When the call that gave it returned.
    pub tick: Tick,
    /// How its value begins.
    pub text: Box<str>,
}

/// By what positions sort: the partition, then the place in it.
pub const fn order(position: &Position) -> (u64, [u64; 4], u32) {
    (
        position.partition().get(),
        position.number(),
        position.sub(),
    )
}
