//! What a member reads: one reader per lease, merged fairly.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::keeper::{Held, Turn, over};
use crate::cursor::{Cursor, Frontier, Origin, Rest};
use crate::driver::{
    Arrived, Budget, Closed, Commits, Delivered, Fetched, Holder, Lease, Opened, Partition,
    ReadRange, Reader, Room, Source, Stop, Tenancy,
};
use crate::error::{Error, Result};
use crate::pending::BoxFuture;
use crate::position::PartitionId;
use crate::recorded::Recorded;
use crate::subscription::Pause;

use super::found;

/// The readers of one member's leases.
pub(super) struct Readers {
    held: Arc<Held>,
    origin: Arc<Origin>,
    budget: Budget,
    turns: mpsc::UnboundedReceiver<Turn>,
    keeper: AbortHandle,
    feeds: BTreeMap<PartitionId, Feed>,
    say: VecDeque<Arrived>,
    /// Whose turn it is to be asked first.
    first: usize,
}

/// The reading of one lease.
struct Feed {
    tenancy: Tenancy,
    from: Frontier,
    attempts: u32,
    held_back: bool,
    out: Vec<Recorded>,
    /// What was said after them.
    after: Option<Arrived>,
    pause: Pause,
    state: State,
}

enum State {
    Opening(Mutex<BoxFuture<Result<Opened>>>),
    /// Opening failed, or is to begin.
    Closed(Duration),
    Reading(Box<dyn Reader>),
    /// Reading failed and goes on after a pause.
    Resting(Box<dyn Reader>, Duration),
    /// All is read; what continues it must stand in the table before that is told.
    Ending(Arc<[Partition]>),
    Over,
}

/// What one step of a feed came to.
enum Step {
    Opened,
    Fetched(Fetched),
    Ended,
    Failed(Error),
}

enum Happened {
    Turn(Option<Turn>),
    Step(PartitionId, Step),
}

impl Readers {
    pub(super) fn new(
        held: Arc<Held>,
        origin: Arc<Origin>,
        bytes: usize,
        turns: mpsc::UnboundedReceiver<Turn>,
        keeper: AbortHandle,
    ) -> Self {
        Self {
            held,
            origin,
            budget: Budget::new(bytes),
            turns,
            keeper,
            feeds: BTreeMap::new(),
            say: VecDeque::new(),
            first: 0,
        }
    }

    /// Waits for the first thing to happen, asking the feeds in turn so that none starves.
    async fn happen(&mut self, room: Room) -> Happened {
        let Self {
            held,
            origin,
            budget,
            turns,
            feeds,
            first,
            ..
        } = self;
        let mut steps: Vec<_> = feeds
            .iter_mut()
            // What is buffered comes before what the reader says next.
            .filter(|(_, feed)| feed.out.is_empty() && !feed.held_back)
            .map(|(id, feed)| (*id, Box::pin(feed.step(held, origin, budget, room))))
            .collect();
        if !steps.is_empty() {
            *first = first.wrapping_add(1) % steps.len();
            steps.rotate_left(*first);
        }
        let mut turn = pin!(turns.recv());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(turn) = turn.as_mut().poll(cx) {
                return Poll::Ready(Happened::Turn(turn));
            }
            for (id, step) in &mut steps {
                if let Poll::Ready(step) = step.as_mut().poll(cx) {
                    return Poll::Ready(Happened::Step(*id, step));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn turn(&mut self, turn: Option<Turn>) -> Result<()> {
        match turn {
            Some(Turn::Taken(tenancy, row)) => {
                let feed = Feed::new(tenancy, &row);
                if let Some(old) = self.feeds.insert(tenancy.partition, feed) {
                    let tenancy = old.tenancy;
                    self.say.push_back(Arrived::Lost { tenancy });
                }
                Ok(())
            }
            Some(Turn::Lost(tenancy)) => {
                let feed = self.feeds.get(&tenancy.partition);
                if feed.is_some_and(|feed| feed.tenancy == tenancy) {
                    self.feeds.remove(&tenancy.partition);
                }
                self.say.push_back(Arrived::Lost { tenancy });
                Ok(())
            }
            Some(Turn::Failed(error)) => Err(error),
            None => Err(over()),
        }
    }

    /// Moves what is buffered; `true` when that was anything.
    fn drain(&mut self, room: &mut Room, out: &mut Vec<Delivered>) -> bool {
        let before = out.len();
        for feed in self.feeds.values_mut() {
            if !feed.held_back {
                feed.drain(room, out);
            }
        }
        out.len() > before
    }
}

impl Feed {
    fn new(tenancy: Tenancy, row: &Lease) -> Self {
        Self {
            tenancy,
            from: row.at,
            attempts: row.attempts,
            held_back: false,
            out: Vec::new(),
            after: None,
            pause: Pause::new(),
            state: State::Closed(Duration::ZERO),
        }
    }

    fn drain(&mut self, room: &mut Room, out: &mut Vec<Delivered>) {
        let mut taken = 0;
        for record in &self.out {
            if room.is_none() {
                break;
            }
            room.records -= 1;
            room.bytes = room.bytes.saturating_sub(record.len_bytes());
            taken += 1;
        }
        let tenancy = self.tenancy;
        out.extend(self.out.drain(..taken).map(|record| Delivered {
            record,
            holder: Holder::Tenancy(tenancy),
            attempt: 1,
        }));
    }

    /// Goes on until there is something to say.
    ///
    /// # Cancel safety
    /// Cancel safe: how far it came is in `self`.
    async fn step(
        &mut self,
        held: &Held,
        origin: &Arc<Origin>,
        budget: &Budget,
        room: Room,
    ) -> Step {
        let clock = held.topic.bus().clock();
        loop {
            match &mut self.state {
                State::Closed(wait) => {
                    let wait = *wait;
                    if !wait.is_zero() {
                        clock.sleep(wait).await;
                    }
                    let opening = open(held, origin, budget, self.tenancy.partition, self.from);
                    self.state = State::Opening(Mutex::new(opening));
                }
                State::Opening(opening) => {
                    let opening = opening.get_mut().unwrap_or_else(PoisonError::into_inner);
                    match opening.as_mut().await {
                        Ok(opened) => {
                            self.pause.reset();
                            self.state = State::Reading(opened.reader);
                            return Step::Opened;
                        }
                        Err(error) => {
                            let wait = self.pause.after(&error);
                            self.state = State::Closed(wait);
                            if !error.is_retryable() {
                                return Step::Failed(error);
                            }
                            tracing::debug!(error = %error, "a reader could not be opened and is tried again");
                        }
                    }
                }
                State::Resting(_, wait) => {
                    clock.sleep(*wait).await;
                    let state = std::mem::replace(&mut self.state, State::Over);
                    if let State::Resting(reader, _) = state {
                        self.state = State::Reading(reader);
                    }
                }
                State::Reading(reader) => match reader.fetch(room, &mut self.out).await {
                    Ok(Fetched::PartitionEnded { children, .. }) => {
                        self.pause.reset();
                        self.state = State::Ending(children);
                    }
                    Ok(fetched) => {
                        self.pause.reset();
                        if fetched == Fetched::End {
                            self.state = State::Over;
                        }
                        return Step::Fetched(fetched);
                    }
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(error = %error, "reading failed and is tried again");
                        let wait = self.pause.after(&error);
                        let state = std::mem::replace(&mut self.state, State::Over);
                        if let State::Reading(reader) = state {
                            self.state = State::Resting(reader, wait);
                        }
                        if !self.out.is_empty() {
                            return Step::Fetched(Fetched::Records);
                        }
                    }
                    Err(error) => return Step::Failed(error),
                },
                State::Ending(children) => {
                    let rows: Vec<Lease> = children
                        .iter()
                        .map(|child| found::row(child, Frontier::Start))
                        .collect();
                    if let Err(error) = held.leases.add(&held.group, &rows).await {
                        if !error.is_retryable() {
                            return Step::Failed(error);
                        }
                        clock.sleep(self.pause.after(&error)).await;
                        continue;
                    }
                    self.state = State::Over;
                    return Step::Ended;
                }
                State::Over => std::future::pending().await,
            }
        }
    }
}

/// Opens a reader of one partition.
fn open(
    held: &Held,
    origin: &Arc<Origin>,
    budget: &Budget,
    partition: PartitionId,
    from: Frontier,
) -> BoxFuture<Result<Opened>> {
    let range = ReadRange {
        from: Cursor::new(Arc::clone(origin), [(partition, from)], Rest::Outside),
        stop: Stop::Never,
        partitions: Some(vec![partition]),
        key: None,
        budget: budget.clone(),
    };
    let topic = held.topic.clone();
    Box::pin(async move { topic.bus().backend.read(topic.name(), &range).await })
}

#[async_trait]
impl Source for Readers {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        let mut room = room;
        loop {
            if let Some(arrived) = self.say.pop_front() {
                return Ok(arrived);
            }
            if self.drain(&mut room, out) {
                return Ok(Arrived::Deliveries);
            }
            let mut drained = self.feeds.values_mut().filter(|feed| feed.out.is_empty());
            if let Some(arrived) = drained.find_map(|feed| feed.after.take()) {
                return Ok(arrived);
            }
            let (id, step) = match self.happen(room).await {
                Happened::Turn(turn) => {
                    self.turn(turn)?;
                    continue;
                }
                Happened::Step(id, step) => (id, step),
            };
            let Some(feed) = self.feeds.get_mut(&id) else {
                continue;
            };
            feed.drain(&mut room, out);
            let tenancy = feed.tenancy;
            let arrived = match step {
                Step::Opened => Arrived::Assigned {
                    tenancy,
                    from: feed.from,
                    attempts: feed.attempts,
                },
                Step::Ended => Arrived::Ended { tenancy },
                Step::Failed(error) => return Err(error.in_partition(id)),
                Step::Fetched(fetched) => match fetched {
                    Fetched::CaughtUp => Arrived::CaughtUp,
                    Fetched::Advanced { to, .. } => Arrived::Advanced { tenancy, to },
                    Fetched::Gap { from, to, .. } => Arrived::Gap { tenancy, from, to },
                    Fetched::Records
                    | Fetched::PartitionEnded { .. }
                    | Fetched::PartitionAdded(_)
                    | Fetched::End => Arrived::Deliveries,
                },
            };
            // What did not fit comes before what was said after it.
            if feed.out.is_empty() {
                return Ok(arrived);
            }
            feed.after = Some(arrived);
            return Ok(Arrived::Deliveries);
        }
    }

    fn hold(&mut self, partition: PartitionId, held: bool) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.held_back = held;
        }
    }

    async fn close(mut self: Box<Self>, _: Duration) -> Result<Closed> {
        self.keeper.abort();
        self.feeds.clear();
        let mut failed = None;
        for tenancy in self.held.all() {
            if let Err(error) = self.held.release(tenancy).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or_else(|| Ok(Closed::default()), Err)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("group", &self.held.group)
            .field("leases", &self.feeds.len())
            .finish_non_exhaustive()
    }
}
