//! What settling can fail by.

use crate::driver::Settled;
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::position::PartitionId;

/// The answer of a service to a settlement, as an error where it has no effect.
pub(crate) fn answer(settled: Settled) -> Result<()> {
    match settled {
        Settled::Yes => Ok(()),
        Settled::Expired => Err(late()),
        Settled::Failed(error) => Err(error.with_effect(Effect::None)),
        Settled::Unknown(error) => Err(error.with_effect(Effect::Unknown)),
    }
}

/// Whether another has the right by now.
pub(crate) fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Expired)
}

pub(crate) fn late() -> Error {
    Error::new(
        ErrorKind::Expired,
        Effect::None,
        Retry::Never,
        "a delivery was settled after its hold had run out; the record comes again, handle it faster or ask for a longer lease",
    )
}

/// The partition is gone; `doubted`: with a commit under way that may hold.
pub(crate) fn expired(partition: PartitionId, doubted: bool) -> Error {
    let (effect, rest) = if doubted {
        (
            Effect::Unknown,
            "while it was being committed; those records may be settled, or come again there",
        )
    } else {
        (
            Effect::None,
            "before what was settled here had been committed; those records come again there",
        )
    };
    let message = format!("partition {partition} went to another member {rest}");
    Error::new(ErrorKind::Expired, effect, Retry::Never, message).in_partition(partition)
}

/// For who waits for a commit that fails and goes on being tried.
pub(crate) fn still_tried(error: &Error) -> Error {
    Error::new(
        error.kind(),
        Effect::Unknown,
        Retry::Never,
        format!(
            "it is settled here and not committed yet, which is still being tried; flush to wait for it: {}",
            error.message()
        ),
    )
    .with_source(error.clone())
}

/// What the service did not answer in time.
pub(crate) fn silent(what: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Backoff,
        format!("the service did not answer a {what} in time; it is tried again"),
    )
}

pub(crate) fn unassigned(partition: PartitionId) -> Error {
    internal(
        Retry::Never,
        &format!(
            "the backend gave records of partition {partition} without assigning it first; they cannot be settled"
        ),
    )
    .in_partition(partition)
}

pub(crate) fn backwards(partition: PartitionId) -> Error {
    internal(
        Retry::Never,
        &format!(
            "the backend gave a record of partition {partition} that does not lie behind the one before it; nothing more of it can be settled"
        ),
    )
    .in_partition(partition)
}

pub(crate) fn panicked() -> Error {
    internal(
        Retry::Never,
        "a task of the subscription panicked, most likely in the backend; subscribe again",
    )
}

pub(crate) fn closed() -> Error {
    Error::closed("the subscription is closed; what was not settled comes again to others")
}

pub(crate) fn unanswered() -> Error {
    internal(
        Retry::Backoff,
        "the backend answered fewer settlements than it was asked for",
    )
}

pub(crate) fn without_place() -> Error {
    internal(
        Retry::Never,
        "the backend gave a record that is settled by its place and has none",
    )
}

fn internal(retry: Retry, message: &str) -> Error {
    Error::new(ErrorKind::Internal, Effect::Unknown, retry, message)
}
