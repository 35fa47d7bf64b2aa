//! Reading as a member of a group.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Room;
use crate::cursor::Frontier;
use crate::error::{Error, Result};
use crate::name::Group;
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;
use crate::start::Start;
use crate::time::Timestamp;

/// One stay of one partition at one member of a group: what fences a zombie. A partition that
/// comes back to the same member comes with a new epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tenancy {
    /// The partition.
    pub partition: PartitionId,
    /// Grows with every stay of one group, and is not used again for another group of the topic's
    /// and the group's name: a zombie of one that was deleted and made again would settle what
    /// is not its own. Where a deletion takes the counter with it, a new group begins at a number
    /// that no other had: drawn at random, or a time.
    pub epoch: u64,
}

/// A delivery's handle at a service that settles each; only its issuer can read it.
///
/// It carries the epoch of the connection that it came by: one of an ended epoch fails locally as
/// `Expired` and never reaches the service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// Which connection, or stay; not used again, as that of a [`Tenancy`] is not.
    pub epoch: u64,
    /// Which delivery of it.
    pub slot: u64,
}

/// By what right a delivery is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Holder {
    /// As part of a partition ([`Settling::UpTo`]).
    Tenancy(Tenancy),
    /// By itself ([`Settling::Each`]).
    Token(Token),
}

/// A record handed to a member.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The record.
    pub record: Recorded,
    /// By what right it is held.
    pub holder: Holder,
    /// The how-manieth delivery this is, as far as the service counts (capability `attempts`); 1
    /// where it does not. On [`Settling::UpTo`] core counts from the lease's own number.
    pub attempt: u32,
}

/// What a [`Source`] has to say after the deliveries it pushed.
#[derive(Clone, PartialEq, Debug)]
pub enum Arrived {
    /// Deliveries were pushed; there may be more.
    Deliveries,
    /// Nothing is left for now. Who cannot tell need not: nothing waits for it.
    CaughtUp,
    /// A partition is this member's from here on. Nothing of it is held back
    /// ([`Source::hold`]), whatever was in an earlier stay, which this ends where it has not ended.
    /// Before its first delivery: one of a stay that was never assigned ends the membership with an
    /// error, and so does one that does not lie behind the one before it in its stay.
    Assigned {
        /// The stay.
        tenancy: Tenancy,
        /// Where it goes on.
        from: Frontier,
        /// How often the record there has been handed out already.
        attempts: u32,
    },
    /// The partition goes to somebody else: finish what is in flight within `grace`, or within the
    /// member's own where that is less, commit, then [`Commits::release`]. Said while the member
    /// leaves too, and of a stay that a commit has ended (fenced, or committed as `Ended`): it is
    /// released then all the same. Each stay is released once, however often this is said; not
    /// after its `Lost`.
    Revoking {
        /// The stay that ends.
        tenancy: Tenancy,
        /// For how long it still holds.
        grace: Duration,
    },
    /// The partition is gone: whatever is in flight of it can no longer be settled. Core answers
    /// nothing.
    Lost {
        /// The stay that ended.
        tenancy: Tenancy,
    },
    /// No record, but the frontier moved.
    Advanced {
        /// The stay.
        tenancy: Tenancy,
        /// To here.
        to: Frontier,
    },
    /// Records are gone. It moves no mark, unless an `Advanced` follows; and no mark passes it,
    /// nor what follows it, before [`Subscription::next`](crate::Subscription::next) has told it.
    /// A source that goes on from a commit before it says it again.
    Gap {
        /// The stay.
        tenancy: Tenancy,
        /// How far the group had read.
        from: Frontier,
        /// The first record still there, where the service says.
        to: Option<Position>,
    },
    /// The partition has given all its records: the last of its stay. Once all is settled core
    /// commits [`Frontier::Ended`], and the stay has ended with that: released only if it is revoked.
    Ended {
        /// The stay.
        tenancy: Tenancy,
        /// As in [`Fetched::PartitionEnded`](super::Fetched::PartitionEnded).
        clear: Option<Timestamp>,
    },
}

/// How a source's deliveries are settled.
#[derive(Clone, Debug)]
pub enum Settling {
    /// Everything up to a record.
    UpTo(Arc<dyn Commits>),
    /// Each by itself.
    Each(Arc<dyn Settler>),
}

/// An open membership.
#[derive(Debug)]
pub struct Inbound {
    /// What arrives.
    pub source: Box<dyn Source>,
    /// How it is settled.
    pub settling: Settling,
    /// Whether the group was there before, as far as can be known: traces show it.
    pub existed: bool,
}

/// How a member joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscribeOptions {
    /// Where a new group starts; an old one goes on at its commit.
    pub start: Option<Start>,
    /// This member's name, where the service knows members by name.
    pub member: Option<Arc<str>>,
    /// How much may be handed out and unsettled.
    pub in_flight: Room,
    /// For how long a member that says nothing keeps what it holds: what was asked for, unset
    /// [`Hold::lease`](crate::capability::Hold::lease), else the default. A service that can lends
    /// for so long; core extends by this or by `Hold::lease`, whichever is less.
    pub lease: Duration,
    /// How long a revocation waits for what is in flight.
    pub grace: Duration,
}

/// What a service is told of one delivery. Rejecting is core's: the dead letter first, then
/// `Done`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It is handled.
    Done,
    /// Hand it out again, not before this long. Where order is claimed a record with a key comes
    /// so only when the member leaves: else core keeps it by [`Settler::extend`] and hands it out
    /// again itself, so that nothing is retried behind later records of its key which are held
    /// here.
    Retry {
        /// How long: never over [`Hold::most`](crate::capability::Hold::most). A service that
        /// counts in whole seconds rounds up.
        after: Duration,
    },
    /// Give it back untouched: it was never handled. Where order is claimed the later records of
    /// its key go back with it, the earlier ones first.
    Return,
}

/// What became of a settlement.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It holds.
    Yes,
    /// The delivery was no longer ours: it has no effect. Said of `extend`, core drops the delivery
    /// and gives the later records of its key back, none of which has been handed out.
    Expired,
    /// It failed and has no effect.
    Failed(Error),
    /// It may hold.
    Unknown(Error),
}

/// What a closing source gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Closed {
    /// Deliveries that others may have at once.
    pub returned: u64,
    /// Deliveries that could not be given back.
    pub left: u64,
    /// When those return by themselves, at the latest.
    pub within: Option<Duration>,
}

/// A commit: everything of a stay up to a frontier is settled, and every gap in it told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// By what right.
    pub tenancy: Tenancy,
    /// Up to here.
    pub to: Frontier,
    /// How often the first record behind it has been handed out. Where the capability `attempts`
    /// is `Handed` or `Taken` this alone may be new; elsewhere no mark is sent for it.
    pub attempts: u32,
}

/// Membership of a group, where the service has groups of its own.
///
/// One task of core owns it and calls [`fetch`](Self::fetch) again and again, drops the call
/// whenever there is more room or something to [`hold`](Self::hold), and ends with
/// [`close`](Self::close). The driver's rules for readers hold here too.
///
/// # What is said when
/// Where deliveries are settled one by one ([`Settling::Each`]) the source pushes them, each with a
/// [`Holder::Token`], and says no more than [`Arrived::Deliveries`] and `CaughtUp`, or a `Gap`.
///
/// Where they are settled up to a record ([`Settling::UpTo`]) they come in stays. A stay begins with
/// `Assigned`; then come, in the order of the partition, its deliveries, `Advanced` and `Gap`; at
/// the end of the partition, `Ended`, and no more of those. A signal follows the deliveries of
/// the same call and lies behind them. `Revoking` may come at any time, and then `Lost` if the
/// service gives the partition away before core has released it. A later stay of the partition has
/// a greater epoch. Stays of different partitions are independent.
///
/// | said | what core does |
/// | --- | --- |
/// | `Assigned` | goes on from there |
/// | a delivery | hands it out, in the order of its key; settled, it moves the mark |
/// | `Advanced` | moves the mark once all before it is settled |
/// | `Gap` | tells it in its place; the mark waits for that |
/// | `Ended` | commits `Ended` once all before it is settled, at once |
/// | `Revoking` | drops what no handler has, waits for the rest, commits, [`Commits::release`]: once |
/// | `Lost` | forgets the stay; tells the application if what was settled is not committed |
/// | `Err` that can be retried | calls again after a pause; what lasts is told |
/// | any other `Err` | ends the membership: nothing is fetched any more, and it waits to be closed |
///
/// A stay ends with the answer to [`Commits::release`], with the commit of `Ended`, with `Lost`,
/// with a mark that is answered `Fenced` or `Expired`, and with the partition's next `Assigned`.
/// What is said of it afterwards is left out (a `Revoking` is answered, as said there); if that was a
/// delivery, `Advanced`, `Gap` or `Ended`, the partition is held back until its next `Assigned`,
/// because the source would read on for nobody. Nothing is lost by that: it was not committed.
///
/// # Room
/// What was pushed counts against [`SubscribeOptions::in_flight`] until it is settled, or given
/// back; on a queue until the service has answered that. `room` is what is left. It is nothing while
/// a quarter of it is not free yet and something waits to be handed out, on a queue while nobody
/// waits, and everywhere while the member leaves: signals are then still taken, deliveries not.
/// What waits inside a source counts against nothing of core's: it is the source's to bound, to
/// extend and to give back. It never pushes a delivery whose hold has run out, and core extends only
/// what was pushed. On a queue core asks for as many records as somebody waits for; a source takes
/// ahead no more than one answer of the service brings over that.
///
/// # Who gives back what
/// When the member leaves core gives back what no handler has, by [`Verdict::Return`] on a queue
/// (elsewhere it goes with its partition), waits for handlers, commits and settles. Then, or once
/// its part of the grace is over, `close` is called: the source gives back what waits inside it, and its partitions, released or not.
/// What handlers still have then nobody can settle any more.
///
/// Dropped, it leaves the group without waiting.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Pushes at most `room` onto `out`, waiting until there is something to say: without room, on
    /// a queue, for ever. A long poll at the service is a fraction of the lease, because a
    /// delivery's hold may have begun as early as the poll.
    ///
    /// An error that cannot be retried ends the membership for good: a message that cannot be taken
    /// apart is delivered as it is.
    ///
    /// # Cancel safety
    /// Cancel safe: a delivery that was taken off the wire is pushed by the next call.
    async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived>;

    /// Stops (`true`) and resumes handing out one partition's records: while too much is settled
    /// behind one that is not; while it is being revoked, and it is resumed when its stay has
    /// ended; and when something was said of a stay that has ended, until the next one. Never
    /// called where each delivery is settled by itself.
    fn hold(&mut self, partition: PartitionId, held: bool);

    /// Leaves the group within `grace`. Core has settled and given back by then what was pushed, as
    /// far as it could; the source gives back what waits inside it, and counts that alone. Of
    /// what handlers still have, [`Settler::release`] may be called afterwards, nothing else.
    async fn close(self: Box<Self>, grace: Duration) -> Result<Closed>;
}

/// Settling up to a record.
///
/// # Cancel safety
/// Dropped, a commit may hold or not, now or later; the same marks may be committed again. Core has
/// one call to [`commit`](Self::commit) of a membership under way at a time, and sends the next when
/// it has returned, or was given up after
/// [`RETRY_FOR`](crate::defaults::RETRY_FOR). One that was given up may thus arrive behind the next,
/// and [`Mark`] has no number to tell: it goes back, and so has no effect.
#[async_trait]
pub trait Commits: fmt::Debug + Send + Sync + 'static {
    /// Stores marks, each for itself; results in the same order. A mark of an ended stay is
    /// `Fenced` or `Expired` and has no effect; one that goes back has none either. Any frontier
    /// may come: the one that the stay was assigned with, where only the attempts are new, what
    /// [`Arrived::Advanced`] said, and `Ended`. Core waits
    /// [`RETRY_FOR`](crate::defaults::RETRY_FOR) at most, and no longer than a revocation allows.
    async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>>;

    /// Answers a revocation: this stay ends now. Called after outstanding commits have returned or
    /// were given up, at the latest when nine tenths of the grace are over; of a stay that has ended
    /// already as soon as it is revoked. `Fenced` and `Expired` say that the service has ended it
    /// too. Any other `Err`: the service may not know it yet; one that can be retried is tried again
    /// until the grace is over, then the stay has ended here in any case, and that is told.
    async fn release(&self, tenancy: Tenancy) -> Result<()>;
}

/// Settling each delivery.
///
/// Any number of tokens comes in one call: the backend makes as many requests as the service needs,
/// in the order given. `Err` says that none of it had an effect; once a request has left, the
/// answer is one [`Settled`] a token. A token ends with `Yes` to a verdict,
/// with `Expired` and with [`release`](Self::release), and never comes again.
///
/// # Cancel safety
/// Dropped, each settlement may hold or not.
#[async_trait]
pub trait Settler: fmt::Debug + Send + Sync + 'static {
    /// Settles; results in the same order.
    async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>>;

    /// Holds deliveries for `by` from now, or for what is left of
    /// [`Hold::most`](crate::capability::Hold::most); `Expired` when nothing is. Results in the
    /// same order.
    async fn extend(&self, tokens: &[Token], by: Duration) -> Result<Vec<Settled>>;

    /// Gives deliveries back from a `Drop`: never blocks, never fails, may be late.
    fn release(&self, tokens: &[Token]);

    /// For how long from now a delivery is surely ours; `Some(ZERO)`: no longer; `None`: for as
    /// long as the connection. A span, not a moment: the service's clock is not core's. Counted
    /// from before the request that lent it (the start of a long poll). Core asks before it hands
    /// a delivery out that has waited here. A settlement that is answered only after this has run
    /// out is [`Settled::Unknown`], unless the service says what became of it.
    fn held_for(&self, token: Token) -> Option<Duration>;
}

/// One partition's row in a group's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The partition.
    pub partition: PartitionId,
    /// Who holds it.
    pub owner: Option<Arc<str>>,
    /// Changes with every take, renewal, commit and release: what tells a live holder from a dead
    /// one, and what `take` compares together with the owner.
    pub counter: u64,
    /// What is committed.
    pub at: Frontier,
    /// The partitions that must be committed as `Ended` first.
    pub parents: Vec<PartitionId>,
    /// How often the first record behind `at` has been handed out, as the last [`Mark`] said. A
    /// backend that stores it declares [`Attempts::Taken`](crate::capability::Attempts::Taken).
    pub attempts: u32,
}

/// What a group needs where the service has none: a table with one row per partition, whose every
/// change is conditional on what was seen.
///
/// # Cancel safety
/// Dropped, a change may hold or not, now or later: the table says, when it is loaded again. A lease
/// that was taken so is nobody's until its time has run out. A commit that was given up may arrive
/// behind the next one of its stay ([`Commits`] says when core gives up): where frontiers cannot be
/// compared in the table, make each write conditional on the
/// [`counter`](Lease::counter) that this holder last saw, which the next one has changed.
///
/// # Rows
/// A row that stands at `Ended` may be removed once its partition is listed no more and every row
/// that continues it has left its start: a parent without a row counts as finished. Before that it
/// holds the evidence (`clear`) for its children, and a partition that is listed and has no row is
/// added again.
#[async_trait]
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// The table; `None` when there is no such group. Creates nothing.
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>>;

    /// Makes the group with these rows: all or nothing, and only if it is not there. `false`:
    /// somebody else made it.
    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool>;

    /// Adds rows for children; those that are there stay as they are.
    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()>;

    /// Takes a lease if its row is still as `seen`, by owner and counter; `None`: it is not, or its holder cannot be
    /// replaced now.
    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>>;

    /// Says that these stays go on; results in the same order, `Fenced` for an ended one.
    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>>;

    /// Stores marks; results in the same order. A mark of an ended stay is `Fenced`, and has no
    /// effect; one that goes back has none either, and is `Ok`.
    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>>;

    /// Ends a stay so that another member can take the lease at once.
    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()>;
}

const _: () = assert!(size_of::<Token>() == 16);
