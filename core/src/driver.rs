//! What a backend author implements: a small object-safe set of traits, crossed once per batch.
//!
//! | trait | is | who calls it |
//! | --- | --- | --- |
//! | [`Backend`] | one connection to a service | [`Bus`](crate::Bus) and the handles |
//! | [`Reader`] | an open reading of a range | core's merge, under replay, follow and groups |
//! | [`Source`] | membership of a group where the service has groups | core's subscription |
//! | [`Commits`] | settling up to a record | core's watermark |
//! | [`Settler`] | settling each delivery | core's subscription |
//! | [`Leases`] | what a group needs where the service has none | core's group runner |
//! | [`Admin`] | topics and groups as things | [`Bus`](crate::Bus), the command line |
//!
//! [`first_leases`] gives the rows that a new group's table begins with.
//!
//! No trait has default bodies: a wrapper that forgets a method does not compile. Write
//! `#[deny(clippy::missing_trait_methods)]` on wrappers all the same, for the day when one gets one.
//!
//! # The rules
//!
//! 1. A backend makes *one attempt*, with the service's SDK's own retries off. Retries, splitting
//!    to limits, the order of keys, attempt limits, watermarks, dead letters and the timing of
//!    keep-alives are core's. A backend never sleeps for one partition while others could go on:
//!    it answers `Throttled`, [`Retry::After`](crate::Retry).
//! 2. `Err` from [`Backend::append`] means that nothing was stored, for sure: also a refusal of the
//!    whole request (a throttle) by a service that says so. Else, once a request has left, the
//!    answer is `Ok(report)` with one outcome per record. `Unknown` is decided by what the service
//!    promises, not by the error's looks.
//! 3. One request never carries two records of a key unless the service stores a request's records
//!    of one key whole or as a prefix, or the caller allowed holes and it keeps their order. Core
//!    cuts batches by plain sizes ([`Record::len_bytes`](crate::Record::len_bytes)); a backend
//!    that counts encoded ones sends what fits, of each key the first ones, and answers
//!    `NotAttempted` for the rest, which core sends again at once. A record that fits no request is
//!    `Rejected` as `TooLarge`; `Err` as `TooLarge` is for a batch that must go whole.
//! 4. [`Backend::append`]'s order is fixed at its first poll: whoever is polled first is stored
//!    first, as far as the topic claims order, where
//!    [`in_flight`](crate::capability::AppendCapabilities::in_flight) is above one.
//! 5. [`Backend::read`] and [`Backend::subscribe`] return only once their start is pinned.
//!    *Where a start is*: a [`Frontier::START`](crate::Frontier) (also that of a partition which
//!    the cursor leaves to [`Rest::FromStart`](crate::Rest)) is the first record ever; a reader
//!    there tells a gap first when that record is gone or cannot be proven to be there. A
//!    [`Frontier::EARLIEST`](crate::Frontier::EARLIEST) is the oldest record that is kept when the
//!    reading opens; nothing that was gone by then is a gap, and [`Opened::from`] says in its
//!    stead, where the backend can, what it was pinned to. Any other
//!    [`Frontier::Since`](crate::Frontier::Since) is the first record ever that is not older: a
//!    reader there tells a gap first when such a record is gone, or may be, whatever the service
//!    makes of a time that is too old.
//! 6. For readers and sources: a signal follows all records pushed before it. No room still yields signals. At
//!    least one record fits any room that is not zero. After `Err` the pushed records are valid;
//!    a retryable error means: call again, after a pause that core makes; any other ends it. Every
//!    fetch is cancel safe: what was taken off the wire
//!    is pushed now or by the next call.
//! 7. `End` holds everything acknowledged before the open: where a service shows records late, it
//!    is concluded from an answer that was asked for so much later. A closed partition's last answer is no
//!    end: say [`Fetched::PartitionEnded`] and let core go on to its children.
//! 8. A gap is told before any later record. Where positions have holes by nature, never conclude
//!    one by arithmetic.
//! 9. A revocation is answered only after outstanding commits have returned. Settling with an ended
//!    tenancy is `Fenced` or `Expired` and has no effect.
//! 10. What a service can carry as it is travels without any envelope. Null and empty values,
//!     repeated and null headers, empty and binary keys either survive or are `Unsupported` with no
//!     effect. Headers of one name keep their order, those of different names where the service
//!     has any. What a foreign writer left and the backend cannot take apart is given as it is, as
//!     a value: an error would end every reader and member there.
//! 11. Blocking work never runs on an async worker; what is buffered is bounded by bytes. A reader
//!     that is given no room keeps no [`Reserved`] bytes that others wait for if it can read them
//!     again.
//! 12. Every call may be dropped at any poll, and the handle goes on working. Where its docs say
//!     nothing else, a call that only asks then has no effect, and one that changes something may
//!     have had its effect, now or later, or have none.
//! 13. Spans and moments are those of one [`Clock`](crate::Clock), which a backend's builder takes.
//!     What is measured against the service's own ([`Settler::held_for`]) is counted from before
//!     the request that it began with.

mod admin;
mod budget;
mod group;
mod read;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::batch::Batch;
use crate::capability::Capabilities;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::name::{Group, TopicName};
use crate::outcome::AppendReport;
use crate::position::Position;
use crate::record::Key;
use crate::start::Start;

pub use crate::group::first_leases;
pub use admin::{Admin, Description, GroupStatus, Lag, TopicSpec};
pub use budget::{Budget, Reserved};
pub use group::{
    Arrived, Closed, Commits, Delivered, Holder, Inbound, Lease, Leases, Mark, Settled, Settler,
    Settling, Source, SubscribeOptions, Tenancy, Token, Verdict,
};
pub use read::{Fetched, Opened, Partition, ReadRange, Reader, Room, Stop};

/// A condition on an append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// The topic ends exactly at this cursor.
    End(Cursor),
    /// The last record of `key` is `last`; `None`: there is none.
    KeyAt {
        /// The key.
        key: Key,
        /// Its last record.
        last: Option<Position>,
    },
}

/// How one attempt to append is made. Core asks for nothing that the topic's capabilities do not
/// offer, and never for one record to be atomic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AppendOptions {
    /// Store only if this holds; else every record is `Rejected` with `Conflict`. Repeated with
    /// the same ids it answers the first positions and does not conflict with itself.
    pub expect: Option<Expect>,
    /// Store only if no higher epoch has been seen; else `Fenced`.
    pub epoch: Option<u64>,
    /// All or nothing.
    pub atomic: bool,
    /// A request may carry several records of a key even where some may be stored without the
    /// ones before them. A backend says what became of each; that one was passed, and is
    /// `Overtaken`, core says, which never sends an `Unknown` one again that was passed.
    pub allow_holes: bool,
    /// Give up after this long; what may have been stored by then is `Unknown`.
    pub deadline: Option<Duration>,
}

/// One connection to a service: the whole of what a backend is.
///
/// Also implemented for `Arc<B>`. What one service alone can do (reshard, redrive, trim) is
/// inherent to its backend's type.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The backend's name in cursors and errors (`file`, `kafka`, …): one per backend, whatever
    /// schemes its URLs may have.
    fn scheme(&self) -> &'static str;

    /// What `topic` promises as it is configured now. `NotFound` when there is no such topic.
    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities>;

    /// Makes one attempt to store `batch`, which core has cut to the limits by plain sizes.
    ///
    /// `Err`: nothing was stored. `Ok`: one outcome per record, in order.
    ///
    /// **An empty batch comes too**, and must not reach a service that refuses one: it asks
    /// whether this process may append, before a subscription with dead letters begins. `Denied`
    /// where it may not, else an empty report.
    ///
    /// # Cancel safety
    /// Dropped before its first poll it has no effect; dropped later, each record may be stored.
    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport>;

    /// The place that `start` means, now. `Unsupported` where `starts` has none.
    ///
    /// | start | cursor (`rest` is always [`FromStart`](crate::Rest::FromStart), save for `After`) |
    /// | --- | --- |
    /// | `Beginning` | names no partition ([`Cursor::start`]): whatever lost its first record is told as a gap |
    /// | `Earliest` | every listed partition at [`Frontier::EARLIEST`](crate::Frontier::EARLIEST): no gap for what is gone when it opens |
    /// | `Since(t)` | every listed partition at [`Frontier::Since`](crate::Frontier::Since), and one that is listed no more where it is known to have held such records: core tells the gap |
    /// | `Latest` | every open partition at its end at the moment of the call: `Start` only if it never had a record. Where the service tells no end, `Since` a moment that is surely not after the call; then `tail` is `Absent`, and `Topic::end`, which asks this too, is refused |
    /// | `After(c)` | `c` itself, once its origin is checked; `Config` when it is of another topic, backend or incarnation |
    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor>;

    /// The partitions that are there now; none where they cannot be seen. An ended one, also an
    /// empty one, is listed until retention has passed its end, and at least as long as any of its
    /// parents: core takes an unread partition that is listed no more for a [`Gap`](crate::Gap),
    /// unless something else tells of it (a cursor, its parent's end) and [`read`](Self::read)
    /// finds it.
    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>>;

    /// Opens a reading. Returns once its start is pinned. `NotFound` for a partition that is there
    /// no more.
    ///
    /// Core hands over `range.partitions` whenever the cursor's rest is
    /// [`Outside`](crate::Rest::Outside), and exactly one partition at a time where the capability
    /// `partitions` is `Lineage`.
    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened>;

    /// `Some`: core runs the groups over [`Backend::read`] and these leases, and
    /// [`Backend::subscribe`] is never called.
    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>>;

    /// Joins a group of the service. Returns once the group's start is stored. A group that is not
    /// there is made only where nothing can have been lost to it, or where the start asked for
    /// says so (`Latest`); else `NotFound`, naming the ways out.
    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound>;

    /// The administration, where there is one.
    fn admin(&self) -> Option<Arc<dyn Admin>>;

    /// Ends everything within `grace`: accepted appends get their outcomes, later calls are
    /// `Closed`. A second call is `Ok`. A reader or source that is still open gives what it has, or
    /// is `Closed` at its next fetch: whoever closes ends them first.
    async fn close(&self, grace: Duration) -> Result<()>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn scheme(&self) -> &'static str {
        (**self).scheme()
    }
    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        (**self).capabilities(topic).await
    }
    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        (**self).append(topic, batch, options).await
    }
    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        (**self).locate(topic, start).await
    }
    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        (**self).partitions(topic).await
    }
    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        (**self).read(topic, range).await
    }
    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        (**self).leases(topic)
    }
    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        (**self).subscribe(topic, group, options).await
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        (**self).admin()
    }
    async fn close(&self, grace: Duration) -> Result<()> {
        (**self).close(grace).await
    }
}
