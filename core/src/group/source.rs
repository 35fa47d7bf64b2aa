//! What a member reads: one reader per lease, merged fairly.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::feed::{Feed, Step};
use super::held::{Held, Turn, over};
use crate::cursor::Origin;
use crate::driver::{Arrived, Budget, Closed, Commits, Delivered, Fetched, Room, Source};
use crate::error::Result;
use crate::position::PartitionId;

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
            Some(Turn::Taken(tenancy, row, from)) => {
                let feed = Feed::new(tenancy, &row, from);
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
                Step::Ended(clear) => Arrived::Ended { tenancy, clear },
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
                if matches!(arrived, Arrived::Ended { .. }) {
                    self.feeds.remove(&id);
                }
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
