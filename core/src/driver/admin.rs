//! Topics and groups as things that are made, described and deleted.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::capability::{Capabilities, Retention};
use crate::cursor::Cursor;
use crate::driver::Partition;
use crate::error::Result;
use crate::name::{Group, TopicName};
use crate::position::PartitionId;
use crate::start::Start;

/// What a new topic shall be. Unset fields are the backend's defaults; a field that the backend
/// cannot honour is `Unsupported`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicSpec {
    /// How many partitions.
    pub partitions: Option<u32>,
    /// How long records are kept.
    pub retention: Option<Retention>,
    /// For how long a repeated id is recognised.
    pub dedupe: Option<Duration>,
    /// Groups to make with it.
    pub groups: Vec<Group>,
    /// Which kind of topic, where the backend has several; a kind that it does not know is
    /// `Unsupported`.
    pub kind: Option<Cow<'static, str>>,
}

/// How far behind a reader is. What retention has removed is not counted: it cannot be read any
/// more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// In which partition; `None`: in the whole topic.
    pub partition: Option<PartitionId>,
    /// How many records, about so many where the service only estimates; those that members hold
    /// unsettled are among them. `None`: the service does not say.
    pub records: Option<u64>,
    /// How old the first unread record is; `None`: the service does not say, or there is none.
    pub age: Option<Duration>,
}

impl Lag {
    /// That of a whole topic from those of its partitions: records are added up, the age is the
    /// oldest. How many records one partition does not say the sum does not say either.
    ///
    /// ```
    /// use annals_core::Lag;
    /// let of = |records| Lag { records, ..Lag::default() };
    /// assert_eq!(Lag::sum(&[of(Some(2)), of(Some(3))]).records, Some(5));
    /// assert_eq!(Lag::sum(&[of(Some(2)), of(None)]).records, None);
    /// ```
    pub fn sum(partitions: &[Self]) -> Self {
        Self {
            partition: None,
            records: partitions.iter().map(|lag| lag.records).sum(),
            age: partitions.iter().filter_map(|lag| lag.age).max(),
        }
    }
}

/// A topic as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct Description {
    /// Its name.
    pub name: TopicName,
    /// What it promises.
    pub capabilities: Capabilities,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Which topic of that name; empty where the service does not show it.
    pub incarnation: Arc<str>,
    /// Its end now, where it can be known.
    pub end: Option<Cursor>,
    /// What else the backend has to say, as names and values.
    pub details: Vec<(&'static str, String)>,
}

/// A group as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// Its name.
    pub group: Group,
    /// What is committed, where the service keeps places.
    pub committed: Option<Cursor>,
    /// Who is in it now, as far as the service says.
    pub members: Vec<Arc<str>>,
}

/// Topics and groups as things.
///
/// Names come in order. Calls are single attempts; core does not try them again. Where the service
/// does not tell what was made now from what was there, the answer is the best that can be known:
/// people are told it, nothing else goes by it.
///
/// # Cancel safety
/// Dropped, what asks (`describe`, `topics`, `groups`, `lag`, `group_lag`) has no effect; what
/// makes or deletes may have done so, and says `false`, `AlreadyExists` or `NotFound` when it is
/// called again.
#[async_trait]
pub trait Admin: fmt::Debug + Send + Sync + 'static {
    /// Makes a topic. `true`: made now; `false`: it was there and is as asked. `AlreadyExists`
    /// when it is there and differs, naming what; what is there is never changed, its retention
    /// neither. A field that is unset differs from nothing; a time that the service counts in coarse
    /// steps is rounded up, and is as asked then.
    async fn create(&self, topic: &TopicName, spec: &TopicSpec) -> Result<bool>;

    /// A topic as it is; `NotFound`.
    async fn describe(&self, topic: &TopicName) -> Result<Description>;

    /// All topics, by name. What has a name at the service that is no topic's name is left out.
    async fn topics(&self) -> Result<Vec<TopicName>>;

    /// Deletes a topic with its records and groups; `NotFound`. Where it is made of several things
    /// at the service, the one that is listed goes last, so that a deletion that broke off can be
    /// made again. It may take the service a while until the name is free: `Blocked` to `create`,
    /// with [`Retry::After`](crate::Retry).
    async fn delete(&self, topic: &TopicName) -> Result<()>;

    /// A topic's groups, by name.
    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupStatus>>;

    /// Makes a group that starts at `start`; `None`: at the first record ever, on a queue at what
    /// is appended from now on. `Unsupported` for a start that `group_starts` does not have.
    /// `true`: made now; `false`: it was there, and stays where it is.
    async fn create_group(
        &self,
        topic: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool>;

    /// Deletes a group with its commits; `NotFound`; `Blocked` while a member is in it, where the
    /// service knows of one. Where it does not, members find themselves `Fenced` or `Expired`.
    async fn delete_group(&self, topic: &TopicName, group: &Group) -> Result<()>;

    /// How far `cursor` is behind the end, by partition; `Config` for a cursor of another topic.
    async fn lag(&self, topic: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>>;

    /// How far a group is behind the end, by partition; `NotFound`.
    async fn group_lag(&self, topic: &TopicName, group: &Group) -> Result<Vec<Lag>>;
}
