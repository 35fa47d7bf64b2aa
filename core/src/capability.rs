//! What a backend promises for a topic as it is configured now: data, not prose.

mod append;
mod claim;
mod groups;
mod limits;
mod need;
mod rows;

use std::time::Duration;

use serde::Serialize;

pub use append::{AppendCapabilities, Batching, Dedupe, NoGroup, Receipt};
pub use claim::Claim;
pub use groups::{Attempts, GroupCapabilities, GroupNames, Hold, Members, Settle};
pub use limits::Limits;
pub use need::Need;

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
