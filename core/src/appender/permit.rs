//! Room in an appender, had and not had.

use std::fmt;

use super::{Appender, Ticket};
use crate::driver::Reserved;
use crate::error::{Effect, Error, ErrorKind, Operation, Retry};
use crate::record::Record;

/// What a record takes besides its bytes, so that empty records are bounded too.
const OVERHEAD: usize = size_of::<Record>();

/// What a record takes of the budget.
pub(super) fn cost(record: &Record) -> usize {
    with_overhead(record.len_bytes())
}

pub(super) fn with_overhead(bytes: usize) -> usize {
    bytes.saturating_add(OVERHEAD)
}

/// Room for one record in an [`Appender`], from [`Appender::reserve`]; dropped, it is given back.
#[derive(Debug)]
#[must_use = "room that is not used blocks others until it is dropped"]
pub struct Permit {
    appender: Appender,
    bytes: usize,
    room: Reserved,
}

impl Permit {
    pub(super) fn new(appender: Appender, bytes: usize, room: Reserved) -> Self {
        Self {
            appender,
            bytes,
            room,
        }
    }

    /// The bytes that a record may have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Accepts a record of at most the reserved bytes; never waits.
    ///
    /// # Errors
    /// [`Full`], of kind `TooLarge` when the record is larger than what was reserved or than a
    /// limit of the topic, or `Closed`.
    pub fn submit(self, record: Record) -> Result<Ticket, Full> {
        let shared = &self.appender.0.shared;
        let has = record.len_bytes();
        if has > self.bytes {
            let error = Error::new(
                ErrorKind::TooLarge,
                Effect::None,
                Retry::Never,
                format!(
                    "the record has {has} bytes and the permit {}; reserve what the record needs",
                    self.bytes
                ),
            );
            return Err(Full::new(
                record,
                shared.topic.place(error, Operation::Append),
            ));
        }
        if let Err(error) = self.appender.check(&record) {
            return Err(Full::new(record, error));
        }
        let mut room = self.room;
        room.shrink_to(cost(&record));
        shared.accept(record, room)
    }
}

/// A record that was not accepted, given back with the reason: no room (`Blocked`), `TooLarge` or
/// `Closed`.
pub struct Full(Box<(Record, Error)>);

impl Full {
    pub(super) fn new(record: Record, error: Error) -> Self {
        Self(Box::new((record, error)))
    }

    /// The record.
    pub fn into_record(self) -> Record {
        self.0.0
    }

    /// Why it was not accepted.
    pub fn error(&self) -> &Error {
        &self.0.1
    }

    /// The kind of [`error`](Self::error).
    pub fn kind(&self) -> ErrorKind {
        self.0.1.kind()
    }
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        full.0.1
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}

impl std::error::Error for Full {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.1.source()
    }
}
