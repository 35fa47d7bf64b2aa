//! [mockall] doubles of the [driver traits](crate::driver), for tests of code that uses annals.
//!
//! With a double a test says what the service answers, call by call: an outcome that is unknown, a
//! throttled append, a gap. Everything above the backend is the real thing: splitting, retries,
//! merging, cursors. Where a test wants a log that works, and fails now and then, use the
//! embedded log's `Memory` instead.
//!
//! A call that nothing was said about panics, and names the method; so does one more than was
//! said, and one less when the double is dropped. [`Bus::new`](crate::Bus::new) takes a
//! [`MockBackend`]; it asks for [`scheme`](crate::driver::Backend::scheme) at any time and for
//! [`capabilities`](crate::driver::Backend::capabilities) once per opened topic.
//! [`Capabilities::none`](crate::Capabilities::none) claims nothing, which is enough to append;
//! claim what the code under test needs.
//!
//! A double answers at once and cannot wait: a reader or a source that has no more to say ends with
//! [`Fetched::End`] or an error, for one that is `CaughtUp` again and again is a loop without a
//! pause.
//!
//! # Examples
//!
//! What a service of one's own makes of three bad days:
//!
//! ```
//! use std::time::Duration;
//! use annals_core::capability::{Replay, Starts};
//! use annals_core::driver::{Fetched, Opened};
//! use annals_core::mock::{MockBackend, MockReader};
//! use annals_core::*;
//!
//! // The code under test.
//! async fn order(orders: &Topic) -> &'static str {
//!     match orders.append(Record::new("placed").key("order-17")).await {
//!         Ok(_) => "thank you",
//!         Err(e) if e.effect() == Effect::Unknown => "we are checking whether we have your order",
//!         Err(e) if e.kind() == ErrorKind::Throttled => "please come back later",
//!         Err(_) => "sorry",
//!     }
//! }
//!
//! async fn count(orders: &Topic) -> Result<usize> {
//!     let mut replay = orders.replay(Start::Beginning).await?;
//!     let mut count = 0;
//!     while replay.next().await?.is_some() {
//!         count += 1;
//!     }
//!     Ok(count)
//! }
//!
//! fn backend() -> MockBackend {
//!     let mut backend = MockBackend::new();
//!     backend.expect_scheme().return_const("mock");
//!     backend.expect_capabilities().returning(|_| {
//!         Ok(Capabilities { replay: Replay::Full.into(), starts: Starts::ALL.into(), ..Capabilities::none() })
//!     });
//!     backend
//! }
//!
//! // Pauses between attempts go by tokio's time, which a paused runtime jumps over.
//! fn bus(backend: MockBackend) -> Bus {
//!     Bus::new(backend).with_clock(Clock::runtime(Timestamp::EPOCH))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<()> {
//! // Unknown: the request left and no answer came. It is not tried again, for that might store it twice.
//! let mut lost = backend();
//! lost.expect_append().times(1).returning(|_, batch, _| {
//!     let error = Error::new(ErrorKind::Timeout, Effect::Unknown, Retry::Backoff, "no answer");
//!     Ok(AppendReport::all(batch.len(), &Outcome::Unknown(error)))
//! });
//! let orders = bus(lost).topic("orders").await?;
//! assert_eq!(order(&orders).await, "we are checking whether we have your order");
//!
//! // Throttled once: tried again, so the caller never sees it. For ever: it does.
//! let slow_down = || Error::new(ErrorKind::Throttled, Effect::None, Retry::After(Duration::from_secs(1)), "slow down");
//! let mut busy = backend();
//! let mut answers = [Err(slow_down()), Ok(())].into_iter();
//! busy.expect_append().times(2).returning(move |_, batch, _| {
//!     answers.next().unwrap_or(Ok(()))?;
//!     Ok(AppendReport::all(batch.len(), &Outcome::Stored(Stored::somewhere())))
//! });
//! assert_eq!(order(&bus(busy).topic("orders").await?).await, "thank you");
//! let mut stuck = backend();
//! stuck.expect_append().times(2..).returning(move |_, _, _| Err(slow_down()));
//! assert_eq!(order(&bus(stuck).topic("orders").await?).await, "please come back later");
//!
//! // Gap: history is no longer whole, so there is no sum.
//! let mut trimmed = backend();
//! let origin = std::sync::Arc::new(Origin {
//!     scheme: "mock".into(),
//!     topic: TopicName::new("orders")?,
//!     incarnation: "1".into(),
//! });
//! trimmed.expect_locate().returning(move |_, _| Ok(Cursor::start(origin.clone())));
//! trimmed.expect_read().times(1).returning(|_, range| {
//!     let mut reader = MockReader::new();
//!     reader.expect_fetch().returning(|_, _| {
//!         let to = Some(Position::new(PartitionId::ONLY, 40));
//!         Ok(Fetched::Gap { partition: PartitionId::ONLY, from: Frontier::START, to })
//!     });
//!     Ok(Opened { reader: Box::new(reader), from: range.from.clone(), until: None })
//! });
//! let error = count(&bus(trimmed).topic("orders").await?).await.unwrap_err();
//! assert_eq!(error.gap().and_then(|gap| gap.to), Some(Position::new(PartitionId::ONLY, 40)));
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::batch::Batch;
use crate::capability::Capabilities;
use crate::cursor::Cursor;
use crate::driver::{
    Admin, AppendOptions, Arrived, Backend, Closed, Commits, Delivered, Description, Fetched,
    GroupStatus, Inbound, Lag, Lease, Leases, Mark, Opened, Partition, ReadRange, Reader, Room,
    Settled, Settler, Source, SubscribeOptions, Tenancy, Token, TopicSpec, Verdict,
};
use crate::error::Result;
use crate::name::{Group, TopicName};
use crate::outcome::AppendReport;
use crate::position::PartitionId;
use crate::recorded::Recorded;
use crate::start::Start;

/// The crate that the doubles are made with: its `Sequence`, its `predicate`.
pub use mockall;

mockall::mock! {
    /// A double of [`Backend`].
    pub Backend {}

    #[async_trait]
    impl Backend for Backend {
        fn scheme(&self) -> &'static str;
        async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities>;
        async fn append(
            &self,
            topic: &TopicName,
            batch: &Batch,
            options: &AppendOptions,
        ) -> Result<AppendReport>;
        async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor>;
        async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>>;
        async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened>;
        fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>>;
        async fn subscribe(
            &self,
            topic: &TopicName,
            group: &Group,
            options: &SubscribeOptions,
        ) -> Result<Inbound>;
        fn admin(&self) -> Option<Arc<dyn Admin>>;
        async fn close(&self, grace: Duration) -> Result<()>;
    }
}

mockall::mock! {
    /// A double of [`Reader`].
    pub Reader {}

    #[async_trait]
    impl Reader for Reader {
        async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched>;
        async fn close(self: Box<Self>, grace: Duration) -> Result<()>;
    }
}

mockall::mock! {
    /// A double of [`Source`].
    pub Source {}

    #[async_trait]
    impl Source for Source {
        async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived>;
        fn hold(&mut self, partition: PartitionId, held: bool);
        async fn close(self: Box<Self>, grace: Duration) -> Result<Closed>;
    }
}

mockall::mock! {
    /// A double of [`Commits`].
    pub Commits {}

    #[async_trait]
    impl Commits for Commits {
        async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>>;
        async fn release(&self, tenancy: Tenancy) -> Result<()>;
    }
}

mockall::mock! {
    /// A double of [`Settler`].
    pub Settler {}

    #[async_trait]
    impl Settler for Settler {
        async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>>;
        async fn extend(&self, tokens: &[Token], by: Duration) -> Result<Vec<Settled>>;
        fn release(&self, tokens: &[Token]);
        fn held_for(&self, token: Token) -> Option<Duration>;
    }
}

mockall::mock! {
    /// A double of [`Leases`].
    pub Leases {}

    #[async_trait]
    impl Leases for Leases {
        async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>>;
        async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool>;
        async fn add(&self, group: &Group, children: &[Lease]) -> Result<()>;
        async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>>;
        async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>>;
        async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>>;
        async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()>;
    }
}

mockall::mock! {
    /// A double of [`Admin`].
    pub Admin {}

    #[async_trait]
    impl Admin for Admin {
        async fn create(&self, topic: &TopicName, spec: &TopicSpec) -> Result<bool>;
        async fn describe(&self, topic: &TopicName) -> Result<Description>;
        async fn topics(&self) -> Result<Vec<TopicName>>;
        async fn delete(&self, topic: &TopicName) -> Result<()>;
        async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupStatus>>;
        async fn create_group(
        &self,
        topic: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool>;
        async fn delete_group(&self, topic: &TopicName, group: &Group) -> Result<()>;
        async fn lag(&self, topic: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>>;
        async fn group_lag(&self, topic: &TopicName, group: &Group) -> Result<Vec<Lag>>;
    }
}

macro_rules! shown {
    ($($double:ident)*) => {$(
        impl fmt::Debug for $double {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($double))
            }
        }
    )*};
}

shown!(MockBackend MockReader MockSource MockCommits MockSettler MockLeases MockAdmin);
