//! What a topic promises of groups.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Claim, Retention};
use crate::name::Group;

/// Which groups a topic can have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum GroupNames {
    /// None.
    None,
    /// Up to this many, of any name.
    Any(u32),
    /// Exactly this one.
    Only(#[serde(serialize_with = "name_of")] Group),
}

fn name_of<S: Serializer>(group: &Group, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(group.as_str())
}

/// Who gives a group's records to its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Members {
    /// The service assigns partitions.
    Assigned,
    /// Members take leases on partitions.
    Leased,
    /// One process owns the group at a time; members compete inside it.
    Local,
    /// The service hands out records one by one.
    Queue,
}

/// How deliveries are settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Settle {
    /// Everything up to a record.
    UpTo,
    /// Each record for itself.
    Each,
}

/// How long a delivery belongs to its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Hold {
    /// How long a delivery is lent at first, unless less is asked for
    /// ([`lease`](crate::OpenSubscription::lease)), and by how much core extends it each time.
    pub lease: Duration,
    /// Whether it can be made longer.
    pub extend: bool,
    /// At most, all in all, from the delivery on: core asks for no retry later than this.
    pub most: Option<Duration>,
}

/// What the service counts of a record's deliveries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Attempts {
    /// Exactly those handed to an application, across crashes.
    Handed,
    /// Across crashes, and also what was taken and not handed out, or handed out and not
    /// committed: an upper bound. No record of a queue becomes a dead letter by this number alone:
    /// over the limit it is handed out once more.
    Taken,
    /// Those within one tenancy.
    Session,
    /// Nothing.
    None,
}

/// What a topic's groups promise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GroupCapabilities {
    /// Which groups there can be.
    pub names: Claim<GroupNames>,
    /// Who gives records to members.
    pub members: Claim<Members>,
    /// How deliveries are settled.
    pub settle: Claim<Settle>,
    /// How long a delivery belongs to its receiver; `None`: as long as its partition does.
    pub hold: Claim<Option<Hold>>,
    /// What is counted of a record's deliveries.
    pub attempts: Claim<Attempts>,
    /// Whether a member that was replaced can settle nothing any more.
    pub fenced: Claim<bool>,
    /// After how long without members the service forgets a group.
    pub forgotten_after: Claim<Option<Duration>>,
    /// Whether groups share a limit on reading, so that one can slow another.
    pub share_reads: Claim<bool>,
    /// How long a record that a group has not settled is kept for it. Less than for ever: what is
    /// older is gone for this group, and where there is no replay nobody is told.
    pub kept: Claim<Retention>,
    /// After how many deliveries the service itself takes a record away unsettled (a redrive
    /// policy, a delivery limit), to wherever it was told to; `None`: never. A subscription whose
    /// `max_attempts` is not below it is refused: core could not keep it.
    pub given_up_after: Claim<Option<u32>>,
}
