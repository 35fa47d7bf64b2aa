//! A batch of records with the cursor behind it.

use std::ops::Deref;

use crate::cursor::Cursor;
use crate::recorded::Recorded;

/// Records in order, and the cursor behind the last of them: store both in one transaction.
///
/// It may be empty: then only the cursor moved, or the reading caught up.
#[derive(Clone, PartialEq, Debug)]
pub struct Records {
    list: Vec<Recorded>,
    cursor: Cursor,
    caught_up: bool,
}

impl Records {
    /// A batch, for tests of code that takes one.
    pub const fn new(records: Vec<Recorded>, cursor: Cursor, caught_up: bool) -> Self {
        Self {
            list: records,
            cursor,
            caught_up,
        }
    }

    /// The place behind the last record.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether everything acknowledged before the open has been handed out, with this batch or
    /// before it.
    pub const fn caught_up(&self) -> bool {
        self.caught_up
    }
}

impl Deref for Records {
    type Target = [Recorded];

    fn deref(&self) -> &[Recorded] {
        &self.list
    }
}

impl IntoIterator for Records {
    type Item = Recorded;
    type IntoIter = std::vec::IntoIter<Recorded>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a Recorded;
    type IntoIter = std::slice::Iter<'a, Recorded>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
