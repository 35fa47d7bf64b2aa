//! What a topic promises of appends.

use std::time::Duration;

use serde::Serialize;

use super::Claim;

/// What of a batch is stored when not all of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Batching {
    /// All or nothing, for any batch within the limits.
    Atomic,
    /// All or nothing for records of one key, each record for itself otherwise. Where a service has
    /// room for fewer bytes of one key than of a whole request, an atomic append over that is
    /// `TooLarge`, and any other is cut (the driver's rule 3).
    AtomicPerKey,
    /// A prefix.
    Prefix,
    /// Any part, in the order of the batch.
    PerRecord,
    /// Any part, in any order, also when all of it is stored: no request carries two records of a
    /// key, whatever the caller allows.
    Unordered,
}

/// What an append says of the place of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Receipt {
    /// Its position, save where `Stored::position` is `None`.
    Position,
    /// Nothing.
    None,
}

/// For how long a repeated id is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Dedupe {
    /// Not at all.
    None,
    /// This long after the first, whatever key or partition it comes with.
    Window(Duration),
    /// As long as the record is kept.
    Forever,
}

/// What becomes of an append that no group would ever see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum NoGroup {
    /// It is kept: groups made later see it.
    Kept,
    /// It is refused by the service.
    Refused,
    /// It is refused by annals, by knowledge that may be this old.
    Checked(Duration),
}

/// What an append promises.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AppendCapabilities {
    /// What of a batch is stored when not all of it is.
    pub batch: Claim<Batching>,
    /// What the receipt says.
    pub receipt: Claim<Receipt>,
    /// Whether an append may depend on what was stored before.
    pub conditional: Claim<bool>,
    /// Whether an append can carry an epoch that fences older ones.
    pub fenced: Claim<bool>,
    /// For how long a repeated id is recognised.
    pub dedupe: Claim<Dedupe>,
    /// For how long the same [`Submission`](crate::Submission) by this client is recognised.
    pub resubmit: Claim<Option<Duration>>,
    /// How many appends may be under way at once with the order that `order` claims (of a key, a
    /// partition, all) fixed at their first poll; at least 1, which says that they have to be made
    /// one after another, or in any order ([`parallel`](Self::parallel)). Appends that an
    /// application itself makes side by side reach the backend so, which keeps a key's order
    /// among them by itself where it says more than 1.
    pub in_flight: u32,
    /// How many may be under way at once if no key is in two of them: at least `in_flight`, which
    /// says more, for here either may be stored before the other. An appender makes so many. Where
    /// `order` is `Total` they are the same.
    pub parallel: u32,
    /// What becomes of an append that no group would see.
    pub no_group: Claim<NoGroup>,
}
