//! One attempt as the layers see it, and what they may learn from its answer.

use std::fmt;

use crate::capability::Capabilities;
use crate::cursor::Cursor;
use crate::driver::{
    Arrived, Description, Fetched, GroupStatus, Inbound, Lag, Lease, Opened, Partition, Settled,
    Tenancy,
};
use crate::error::{Effect, Error, ErrorKind, Operation, Result};
use crate::name::{Group, TopicName};
use crate::outcome::{AppendReport, Outcome};
use crate::position::PartitionId;

/// One call of one driver method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    /// The method.
    pub(super) name: &'static str,
    pub(super) operation: Operation,
    /// Of the backend below.
    pub(super) scheme: &'static str,
    /// What is left of it when no answer comes.
    pub(super) effect: Effect,
    /// Whether it may wait for ever, because there may be nothing to say.
    pub(super) waits: bool,
    pub(super) topic: Option<&'a TopicName>,
    pub(super) group: Option<&'a Group>,
    pub(super) partition: Option<PartitionId>,
    /// How many records or deliveries it is about, where that is known beforehand.
    pub(super) records: Option<usize>,
}

impl<'a> Attempt<'a> {
    /// A call that changes nothing.
    pub(super) const fn asks(
        name: &'static str,
        scheme: &'static str,
        operation: Operation,
    ) -> Self {
        Self {
            name,
            operation,
            scheme,
            effect: Effect::None,
            waits: false,
            topic: None,
            group: None,
            partition: None,
            records: None,
        }
    }

    /// A call that changes something.
    pub(super) const fn changes(
        name: &'static str,
        scheme: &'static str,
        operation: Operation,
    ) -> Self {
        Self {
            effect: Effect::Unknown,
            ..Self::asks(name, scheme, operation)
        }
    }

    pub(super) const fn on(mut self, topic: &'a TopicName) -> Self {
        self.topic = Some(topic);
        self
    }

    pub(super) const fn of(mut self, group: &'a Group) -> Self {
        self.group = Some(group);
        self
    }

    pub(super) const fn within(mut self, partition: Option<PartitionId>) -> Self {
        self.partition = partition;
        self
    }

    pub(super) const fn about(mut self, records: usize) -> Self {
        self.records = Some(records);
        self
    }

    pub(super) const fn waiting(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }
}

/// What one layer does round each attempt.
pub(super) trait Around: Clone + fmt::Debug + Send + Sync + 'static {
    /// For how long an attempt may take at most.
    fn limit(&self) -> Option<std::time::Duration>;

    /// Runs an attempt, whose first poll is within the first poll of this.
    fn around<T: Answer>(
        &self,
        attempt: Attempt<'_>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;
}

/// An answer of a backend.
pub(super) trait Answer: Sized + Send {
    /// How many records it brought.
    fn records(&self) -> Option<usize> {
        None
    }

    /// The first failure in it.
    fn failure(&self) -> Option<ErrorKind> {
        None
    }

    /// What stands in for it when it did not come in time.
    fn late(error: Error, _attempt: &Attempt<'_>) -> Result<Self> {
        Err(error)
    }
}

impl Answer for AppendReport {
    fn failure(&self) -> Option<ErrorKind> {
        self.outcomes()
            .iter()
            .find_map(|outcome| outcome.error().map(Error::kind))
    }

    /// The request may have left: nothing is known of any record.
    fn late(error: Error, attempt: &Attempt<'_>) -> Result<Self> {
        let records = attempt.records.unwrap_or(0);
        Ok(Self::all(records, &Outcome::Unknown(error)))
    }
}

impl Answer for Vec<Settled> {
    fn failure(&self) -> Option<ErrorKind> {
        self.iter().find_map(|settled| match settled {
            Settled::Yes => None,
            Settled::Expired => Some(ErrorKind::Expired),
            Settled::Failed(error) | Settled::Unknown(error) => Some(error.kind()),
        })
    }

    fn late(error: Error, attempt: &Attempt<'_>) -> Result<Self> {
        let records = attempt.records.unwrap_or(0);
        Ok(vec![Settled::Unknown(error); records])
    }
}

impl Answer for Vec<Result<()>> {
    fn failure(&self) -> Option<ErrorKind> {
        self.iter()
            .find_map(|result| result.as_ref().err().map(Error::kind))
    }
}

/// What a fetch said, and how many records it pushed before.
pub(super) struct Pushed<T>(pub(super) T, pub(super) usize);

impl Answer for Pushed<Fetched> {
    fn records(&self) -> Option<usize> {
        Some(self.1)
    }
}

impl Answer for Pushed<Arrived> {
    fn records(&self) -> Option<usize> {
        Some(self.1)
    }
}

macro_rules! plain {
    ($($answer:ty),* $(,)?) => {$(
        impl Answer for $answer {}
    )*};
}

plain!(
    (),
    bool,
    Capabilities,
    Cursor,
    Description,
    Inbound,
    Opened,
    Option<Tenancy>,
    Option<Vec<Lease>>,
    Vec<GroupStatus>,
    Vec<Lag>,
    Vec<Partition>,
    Vec<TopicName>,
);
