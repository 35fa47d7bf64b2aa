//! Where a reading starts and where it stops.

use crate::cursor::Cursor;
use crate::time::Timestamp;

/// Where a reading, or a new group, starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// At the first record ever. If that one is gone, or cannot be proven to be there, the first
    /// `next` is an error of kind `Gap`: history that is no longer whole is never a silent, wrong
    /// sum.
    Beginning,
    /// At the oldest record that is still kept, knowingly.
    Earliest,
    /// Behind the last record at the moment of the call.
    Latest,
    /// Behind a cursor that a reader gave. One that lies behind the topic's end, as after a
    /// restore of an older copy, is refused where the backend can tell (the embedded log).
    After(Cursor),
    /// At the first record whose log time is at or after this moment. If such records are gone,
    /// or may be, the first `next` is an error of kind `Gap`. Partitions that are made after the
    /// open are read from their start: before a moment that is still to come that may be older records.
    Since(Timestamp),
}

impl From<Cursor> for Start {
    fn from(cursor: Cursor) -> Self {
        Self::After(cursor)
    }
}

impl From<&Cursor> for Start {
    fn from(cursor: &Cursor) -> Self {
        Self::After(cursor.clone())
    }
}

/// `None`, as where no cursor was stored yet, is [`Start::Beginning`].
impl From<Option<Cursor>> for Start {
    fn from(cursor: Option<Cursor>) -> Self {
        cursor.map_or(Self::Beginning, Self::After)
    }
}

/// Where a replay stops.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Until {
    /// At the end as it was when the replay was opened: everything acknowledged before that is
    /// read, perhaps a little more.
    #[default]
    End,
    /// Behind this cursor, its records included.
    Through(Cursor),
    /// Before the first record whose log time is at or after this moment. A moment to come is
    /// waited for: the reading ends once the log's clock has passed it.
    Before(Timestamp),
}
