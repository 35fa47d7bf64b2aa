//! How the suite reaches a backend, disturbs it and measures it.

mod gate;
mod models;
mod plain;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::Backend;
use annals_core::{Clock, Error, Group, Need, PartitionId, Result, TopicName};
use async_trait::async_trait;

pub use crate::models::{Call, Fault};
pub use gate::Gate;
pub use models::{LogHarness, QueueHarness, ShardedHarness};
pub use plain::Plain;

/// What the harness cannot do, and why: a case that needs it is not exercised, which the report
/// shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cannot(pub String);

impl Cannot {
    /// For this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The harness cannot, because the service would not.
impl From<Error> for Cannot {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which time a backend lives in, which decides the runtime that its laws run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    /// tokio's, paused: it jumps ahead when nobody has anything to do. One thread, the same trace
    /// for the same seed. Only for backends without threads and I/O of their own.
    Virtual,
    /// The real one, or one that the harness moves itself: a runtime of several threads.
    Real,
}

/// What a case wants of its topic. Unset fields are the harness's own choice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// The topic's name, or its end where the harness gives its topics a prefix; unset: any.
    pub name: Option<String>,
    /// What it must promise.
    pub needs: Vec<Need>,
    /// How many partitions; more than one where the shape has several, if unset.
    pub partitions: Option<u32>,
    /// How long records are kept; for ever, or as long as can be, if unset.
    pub retention: Option<Retention>,
    /// For how long a repeated id is recognised.
    pub dedupe: Option<Duration>,
    /// Groups that are there before the first append.
    pub groups: Vec<Group>,
}

impl Want {
    /// Whether only one who makes the topic can give it: a topic that is just there cannot be.
    pub(crate) fn makes_demands(&self) -> bool {
        self.partitions.is_some()
            || self.retention.is_some()
            || self.dedupe.is_some()
            || !self.groups.is_empty()
    }

    /// A topic with these groups.
    ///
    /// # Errors
    /// `Config` for what is no group's name.
    pub fn groups(names: &[&str]) -> Result<Self> {
        let groups = names.iter().map(Group::new).collect::<Result<_>>()?;
        Ok(Self {
            groups,
            ..Self::default()
        })
    }
}

/// What is done to a service or its clients. Everything that has happened so far stays stored as
/// the capability `durability` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disturb {
    /// The service, or for a log on disk the process that has it, ends in good order and starts
    /// again. Clients made so far may be of no use any more.
    Restart,
    /// The clients made so far die as processes do that are killed: nothing of theirs is given
    /// back, flushed or told, and every call of theirs that is under way or comes later fails. What
    /// the service holds in memory only is lost with a service that lives in the client's process.
    Kill,
    /// The clients made so far lose their connections, and get no new ones until [`Heal`](Self::Heal).
    Cut,
    /// Ends what [`Cut`](Self::Cut), [`Delay`](Self::Delay) and [`Fault`](Self::Fault) began.
    Heal,
    /// Every answer takes this long from now on.
    Delay(Duration),
    /// Retention takes all but about the newest `keep` records of each partition; at least one
    /// record goes.
    Trim {
        /// How many stay.
        keep: usize,
    },
    /// A partition is split in two.
    Split(PartitionId),
    /// Two neighbours become one.
    Merge(PartitionId, PartitionId),
    /// The next call of this kind, by any client, fares like this.
    Fault(Call, Fault),
    /// Time passes: a moved or virtual clock is moved, a real one is waited for if it is short.
    Pass(Duration),
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Meter {
    /// Bytes of records that the service has handed to clients, read or received, since the
    /// harness was made.
    BytesPulled,
    /// Calls that clients have made.
    Calls,
}

/// How a backend is reached, disturbed and measured: what the author of a backend writes to have
/// it judged.
///
/// One harness serves one law; every case gets topics of its own from it. What it cannot do it
/// refuses with [`Cannot`] and a reason, never in silence: the report says what was not exercised.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync + 'static {
    /// Whose laws these are: `memory`, `embedded`, `kafka`, …
    fn name(&self) -> String;

    /// Which service, and which version of it, if there is one apart.
    fn service(&self) -> (String, String);

    /// Which time it lives in. Asked before there is a runtime.
    fn time(&self) -> Time;

    /// The clock that the backend goes by. Asked on the runtime.
    fn clock(&self) -> Clock;

    /// A new and empty topic like this.
    ///
    /// # Errors
    /// [`Cannot`] where there is no such topic to be had.
    async fn topic(&self, want: &Want) -> Result<TopicName, Cannot>;

    /// A new client: each call's is what another process would be.
    ///
    /// # Errors
    /// The backend's own.
    async fn connect(&self) -> Result<Arc<dyn Backend>>;

    /// Does this, and returns once it is done.
    ///
    /// # Errors
    /// [`Cannot`] where it cannot be done here.
    async fn disturb(&self, topic: &TopicName, what: Disturb) -> Result<(), Cannot>;

    /// How many faults have been seen to happen: a fault that was asked for and never met a call is
    /// none.
    fn fired(&self) -> usize;

    /// What has been measured since the harness was made.
    ///
    /// # Errors
    /// [`Cannot`] where nobody counts it.
    async fn meter(&self, what: Meter) -> Result<u64, Cannot>;

    /// Removes what the harness made.
    async fn clean(&self);
}
