//! What a backend promises for a topic as it is configured now: data, not prose.

mod need;
mod rows;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::name::Group;

pub use need::Need;

/// A promise, or the admission that the service would not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Claim<T> {
    /// It is so.
    Is(T),
    /// The service does not say (RabbitMQ policies without its management API, say). A
    /// [`Need`] for it fails.
    Unverified,
}

impl<T> Claim<T> {
    /// The promise, where there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unverified => None,
        }
    }
}

impl<T: PartialEq> Claim<T> {
    /// Whether exactly this is promised.
    pub fn is(&self, value: &T) -> bool {
        self.known() == Some(value)
    }
}

impl<T> From<T> for Claim<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

impl<T: fmt::Debug> fmt::Display for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => value.fmt(f),
            Self::Unverified => f.write_str("Unverified"),
        }
    }
}

/// How much of a topic can be read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Replay {
    /// Nothing: what was settled is gone.
    None,
    /// From a time, by push, within a window.
    Window(Duration),
    /// What retention has kept.
    Retained(Retention),
    /// Everything ever written.
    Full,
}

/// How long records are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Retention {
    /// For ever.
    Forever,
    /// At least this long.
    Age(Duration),
    /// At least the newest this many bytes.
    Bytes(u64),
}

/// Who provides replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Provision {
    /// The service itself.
    Native,
    /// annals, together with the named thing (a journal).
    Composed(&'static str),
}

/// What is kept of a topic's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum History {
    /// Every record.
    Every,
    /// The newest record of each key (Kafka compaction); state rebuilt from it has no past.
    LatestPerKey,
}

/// Which records keep their order, also when part of a batch fails and is retried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Order {
    /// None.
    None,
    /// Those of one key.
    Key,
    /// Those of one partition, and so those of one key.
    Partition,
    /// All of the topic.
    Total,
}

/// Which starts may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Starts {
    /// [`Start::Beginning`](crate::Start::Beginning).
    pub beginning: bool,
    /// [`Start::Earliest`](crate::Start::Earliest).
    pub earliest: bool,
    /// [`Start::Latest`](crate::Start::Latest).
    pub latest: bool,
    /// [`Start::After`](crate::Start::After).
    pub after: bool,
    /// [`Start::Since`](crate::Start::Since), and how coarse: older records than asked for may
    /// come, by at most this much.
    pub since: Option<Duration>,
}

impl Starts {
    /// None of them.
    pub const NONE: Self = Self {
        beginning: false,
        earliest: false,
        latest: false,
        after: false,
        since: None,
    };
    /// All of them, times to the millisecond.
    pub const ALL: Self = Self {
        beginning: true,
        earliest: true,
        latest: true,
        after: true,
        since: Some(Duration::from_millis(1)),
    };
}

/// What `stored_at` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum LogTime {
    /// The moment the log took the record.
    Arrival,
    /// What the writer said.
    Writer,
    /// Nothing: the log has no time.
    None,
}

/// How well the end of a topic can be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Tail {
    /// Asked of the service.
    Exact,
    /// Seen while reading.
    Observed,
    /// Not at all: [`Topic::end`](crate::Topic::end) is `Unsupported`.
    Absent,
}

/// How sure a gap signal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum GapSignal {
    /// Told exactly when records are missing. A range that lies wholly in what is gone may have
    /// held some, and is told too.
    Exact,
    /// Always told when records are missing, and perhaps when none are.
    Possible,
    /// There is no replay, and so no gap.
    None,
}

/// Whether a recreated topic can be told from its namesake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Incarnation {
    /// Yes: its cursors are refused.
    Exact,
    /// No.
    Absent,
}

/// How one key's records are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum ByKey {
    /// By an index.
    Indexed,
    /// By reading everything: only [`scan_key`](crate::OpenReplay::scan_key) does it.
    Scanned,
    /// Not at all.
    None,
}

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

/// When an acknowledged record is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Durability {
    /// It is on disk, synced.
    Fsynced,
    /// It is in the memory of a majority, not necessarily synced.
    Replicated,
    /// As the managed service promises.
    Managed,
    /// It is in this process's memory: gone with it.
    Memory,
}

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

/// How many partitions a topic has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Partitions {
    /// One.
    One,
    /// This many, for ever.
    Fixed(u32),
    /// They can be added, and then keys move.
    Growing,
    /// They split and merge, with parents and children.
    Lineage,
    /// One per key, unseen; also where nothing has an order.
    Implicit,
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

/// Limits, as the service counts them. Core checks and cuts by plain sizes
/// ([`Record::len_bytes`](crate::Record::len_bytes)); what encoding adds is the backend's to see to
/// (the driver's rule 3). A record over one is `TooLarge`, and so is a batch that has to
/// go whole; any other batch is split. `None`: no limit but memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// Bytes of one record as the service counts them.
    pub record_bytes: Claim<Option<u64>>,
    /// Records of one append call.
    pub batch_records: Claim<Option<u64>>,
    /// Bytes of one append call.
    pub batch_bytes: Claim<Option<u64>>,
    /// Headers of one record.
    pub headers: Claim<Option<u32>>,
    /// Bytes of a key.
    pub key_bytes: Claim<Option<u64>>,
    /// What one answer of the service may bring over a buffer's bound, in bytes.
    pub slack_bytes: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        record_bytes: Claim::Is(None),
        batch_records: Claim::Is(None),
        batch_bytes: Claim::Is(None),
        headers: Claim::Is(None),
        key_bytes: Claim::Is(None),
        slack_bytes: 0,
    };
}

/// What a backend promises for a topic as it is configured now: a snapshot, taken when the topic
/// is opened.
///
/// Over-asking fails: a [`Need`] that is not met is an error at open, and nothing degrades.
/// Promising less than is true is legal; promising more is what the conformance suite is for.
///
/// # Examples
/// ```
/// use annals_core::capability::{Capabilities, Dedupe, Order};
/// # let topic_capabilities = Capabilities { order: Order::Total.into(), ..Capabilities::none() };
/// let has: &Capabilities = &topic_capabilities; // topic.capabilities()
/// assert!(has.orders_keys());
/// assert!(has.append.dedupe.is(&Dedupe::None)); // so a retry of what is unknown may repeat it
/// for (name, value) in has.rows() {
///     println!("{name}: {value}");
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Capabilities {
    /// How much can be read again.
    pub replay: Claim<Replay>,
    /// Who provides it; says nothing where there is none.
    pub source: Claim<Provision>,
    /// What is kept of the history.
    pub history: Claim<History>,
    /// What keeps its order.
    pub order: Claim<Order>,
    /// Whether adding partitions moves keys to others without lineage.
    pub keys_move: Claim<bool>,
    /// Which starts a replay may use.
    pub starts: Claim<Starts>,
    /// Which starts a new group may use.
    pub group_starts: Claim<Starts>,
    /// What `stored_at` is.
    pub log_time: Claim<LogTime>,
    /// How far log time may be off, or go back between neighbours.
    pub skew: Claim<Duration>,
    /// How well the end can be known.
    pub tail: Claim<Tail>,
    /// How sure a gap signal is.
    pub gap: Claim<GapSignal>,
    /// Whether a recreated topic is told from its namesake.
    pub incarnation: Claim<Incarnation>,
    /// How one key's records are found.
    pub by_key: Claim<ByKey>,
    /// What an append promises.
    pub append: AppendCapabilities,
    /// When an acknowledged record is safe.
    pub durability: Claim<Durability>,
    /// What groups promise.
    pub groups: GroupCapabilities,
    /// How many partitions there are.
    pub partitions: Claim<Partitions>,
    /// Limits.
    pub limits: Limits,
}

impl Capabilities {
    /// Promises nothing: what a backend starts from, with struct update syntax.
    pub const fn none() -> Self {
        Self {
            replay: Claim::Is(Replay::None),
            source: Claim::Is(Provision::Native),
            history: Claim::Is(History::Every),
            order: Claim::Is(Order::None),
            keys_move: Claim::Is(false),
            starts: Claim::Is(Starts::NONE),
            group_starts: Claim::Is(Starts::NONE),
            log_time: Claim::Is(LogTime::None),
            skew: Claim::Is(Duration::ZERO),
            tail: Claim::Is(Tail::Absent),
            gap: Claim::Is(GapSignal::None),
            incarnation: Claim::Is(Incarnation::Absent),
            by_key: Claim::Is(ByKey::None),
            append: AppendCapabilities {
                batch: Claim::Is(Batching::PerRecord),
                receipt: Claim::Is(Receipt::None),
                conditional: Claim::Is(false),
                fenced: Claim::Is(false),
                dedupe: Claim::Is(Dedupe::None),
                resubmit: Claim::Is(None),
                in_flight: 1,
                parallel: 1,
                no_group: Claim::Unverified,
            },
            durability: Claim::Unverified,
            groups: GroupCapabilities {
                names: Claim::Is(GroupNames::None),
                members: Claim::Unverified,
                settle: Claim::Unverified,
                hold: Claim::Is(None),
                attempts: Claim::Is(Attempts::None),
                fenced: Claim::Is(false),
                forgotten_after: Claim::Is(None),
                share_reads: Claim::Is(false),
                kept: Claim::Unverified,
                given_up_after: Claim::Unverified,
            },
            partitions: Claim::Unverified,
            limits: Limits::NONE,
        }
    }

    /// Whether records of one key keep their order.
    pub fn orders_keys(&self) -> bool {
        self.order.known().is_some_and(|order| *order >= Order::Key)
    }

    /// Which of `needs` are not met, each with the reason; empty when all are. A promise that is
    /// [`Unverified`](Claim::Unverified) meets none.
    pub fn missing(&self, needs: &[Need]) -> Vec<(Need, String)> {
        needs
            .iter()
            .filter_map(|need| need.unmet_by(self).map(|why| (need.clone(), why)))
            .collect()
    }
}
