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

pub(crate) fn expired(partition: PartitionId) -> Error {
    Error::new(
        ErrorKind::Expired,
        Effect::None,
        Retry::Never,
        format!(
            "partition {partition} went to another member before what was settled here had been committed; those records come again there"
        ),
    )
    .in_partition(partition)
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
