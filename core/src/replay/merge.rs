//! Many readers, one sequence: whoever has something is heard next, and nobody waits for another.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::FutureExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::cursor::{Cursor, Frontier};
use crate::driver::{Fetched, Partition, ReadRange, Room, Stop};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::pending::BoxFuture;
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;
use crate::signal::Gap;
use crate::topic::Topic;

use super::heal::{REOPEN_AFTER, pause};
use super::lane::{Lane, turn};
use super::lineage::Lineage;
use super::listing::Listed;
use super::track::Track;

/// The most records of one turn: what they cost besides their bytes, 256 KiB, stays in the cache.
const ROOM_RECORDS: usize = 2_048;
/// After so many turns in one poll that had nothing to hand out, others get the thread.
const QUIET_TURNS: usize = 64;

/// What is next.
pub(super) enum Next {
    /// Records wait in front.
    Records,
    /// Everything acknowledged before the open has been handed out.
    CaughtUp,
    /// Only the cursor moved.
    Advanced,
    /// Records are gone.
    Gap(Gap),
    /// The range is read.
    End,
}

/// What ended a turn.
pub(super) enum Turn {
    Lane(Box<Lane>),
    Listed(Listed),
    /// A backend's reader panicked.
    Panicked(Option<PartitionId>),
}

/// The readers of one replay and what they brought.
///
/// A lane is in one of three places: under way (a turn in `turns`), in front (its records are
/// being handed out), or waiting among `turns`' finished ones, in the order in which they finished.
/// It gets its next turn when its records are handed out, so what is buffered here never exceeds
/// the rooms given.
pub(super) struct Merge {
    topic: Topic,
    /// What the readers of one partition each are made from.
    pub(super) range: ReadRange,
    /// Where partitions split and merge: there is one lane for each that is read.
    pub(super) lineage: Option<Lineage>,
    turns: Mutex<FuturesUnordered<BoxFuture<Turn>>>,
    stop: watch::Sender<bool>,
    /// Bytes that all rooms together may have.
    bytes: usize,
    /// Bytes of the rooms that are given.
    given: usize,
    /// Lanes that are not done.
    pub(super) lanes: usize,
    /// Listings under way that something waits for.
    pub(super) listings: usize,
    front: VecDeque<Recorded>,
    /// The lane whose records are in front; what it said is heard after them.
    speaker: Option<Box<Lane>>,
    /// What is to be told before anything else.
    pub(super) told: VecDeque<Next>,
    /// Partitions of which what is unread is gone, with what was listed instead: to be told.
    pub(super) lost: VecDeque<(PartitionId, Vec<Partition>)>,
    /// The one of these that is being told.
    pub(super) passing: Option<(PartitionId, Vec<Partition>)>,
    pub(super) track: Track,
    caught_up: bool,
    /// The last gap told of each partition, so that a reader that was opened again does not tell
    /// it again.
    last_gaps: BTreeMap<PartitionId, (Frontier, Option<Position>)>,
    over: Option<Result<()>>,
}

impl Merge {
    /// A reading of `range`, with this much room for what was read.
    pub(super) fn new(
        topic: Topic,
        range: ReadRange,
        lineage: Option<Lineage>,
        bytes: usize,
    ) -> Self {
        let track = Track::new(range.from.clone());
        Self {
            topic,
            range,
            lineage,
            turns: Mutex::new(FuturesUnordered::new()),
            stop: watch::Sender::new(false),
            bytes,
            given: 0,
            lanes: 0,
            listings: 0,
            front: VecDeque::new(),
            speaker: None,
            told: VecDeque::new(),
            lost: VecDeque::new(),
            passing: None,
            track,
            caught_up: false,
            last_gaps: BTreeMap::new(),
            over: None,
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) fn cursor(&self) -> &Cursor {
        self.track.cursor()
    }

    pub(super) const fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Takes over lanes; those without a reader open it in their first turn.
    pub(super) fn start(&mut self, lanes: Vec<Lane>) {
        self.lanes += lanes.len();
        for lane in lanes {
            self.launch(Box::new(lane), None);
        }
    }

    /// The next record that is here already; none once the bus is closed.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Recorded> {
        if self.topic.bus().is_closed() {
            return None;
        }
        // Looked at where it lies, so that it is moved once.
        let position = self.front.front()?.position();
        self.track.handed(position);
        self.front.pop_front()
    }

    /// Everything that is here already, and, where it says no more than that the cursor moved,
    /// what was said after it.
    pub(super) fn take(&mut self) -> Vec<Recorded> {
        let records = Vec::from(std::mem::take(&mut self.front));
        self.track.handed_all(&records);
        // The next batch will be about as large as this one.
        self.front = VecDeque::with_capacity(records.len());
        if let Some(lane) = self.speaker.take() {
            self.hear(lane);
        }
        self.skip_moves();
        records
    }

    /// Forgets what says no more than that the cursor moved: a batch tells by itself.
    pub(super) fn skip_moves(&mut self) {
        while let Some(Next::CaughtUp | Next::Advanced) = self.told.front() {
            self.told.pop_front();
        }
    }

    /// Waits until something is next. Everything is kept in `self`, so a caller may stop polling
    /// at any time and come back.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next>> {
        for _ in 0..QUIET_TURNS {
            if self.topic.bus().is_closed() {
                let error = Bus::closed_error();
                return Poll::Ready(Err(self.topic.place(error, Operation::Read)));
            }
            if !self.front.is_empty() {
                return Poll::Ready(Ok(Next::Records));
            }
            if let Some(lane) = self.speaker.take() {
                self.hear(lane);
            }
            if let Some(next) = self.told.pop_front() {
                return Poll::Ready(Ok(next));
            }
            if let Some(over) = &self.over {
                return Poll::Ready(over.clone().map(|()| Next::End));
            }
            if self.pass_lost() || self.tell_lost() {
                continue;
            }
            if self.is_done() {
                self.finish();
                continue;
            }
            let turns = self.turns.get_mut().unwrap_or_else(PoisonError::into_inner);
            match ready!(std::pin::Pin::new(turns).poll_next(cx)) {
                Some(Turn::Lane(lane)) => self.listen(lane),
                Some(Turn::Listed(listed)) => self.listed(listed),
                Some(Turn::Panicked(partition)) => self.fail(partition, panicked()),
                None => self.finish(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A turn is done: its records come first.
    fn listen(&mut self, mut lane: Box<Lane>) {
        self.given = self.given.saturating_sub(lane.room.bytes);
        if let Some(pinned) = lane.pinned.take() {
            self.pin(&lane, pinned);
        }
        if let Some(key) = &self.range.key {
            for position in lane.records.iter().filter_map(Recorded::position) {
                lane.passed.insert(position.partition(), position);
            }
            lane.records
                .retain(|r| r.key().is_some_and(|k| *k == **key));
        }
        self.front = VecDeque::from(std::mem::take(&mut lane.records));
        self.speaker = Some(lane);
    }

    /// Counts in where a reading was pinned; nothing of it has been handed out yet.
    pub(super) fn pin(&mut self, lane: &Lane, pinned: Cursor) {
        let Some(partitions) = &lane.range.partitions else {
            self.track.reset(pinned);
            return;
        };
        for partition in partitions {
            if let Some(frontier) = pinned.frontier(*partition) {
                self.track.set(*partition, *frontier);
            }
        }
    }

    /// What a lane said after its records, which have been handed out by now.
    fn hear(&mut self, mut lane: Box<Lane>) {
        lane.records = Vec::from(std::mem::take(&mut self.front));
        let mut moved = false;
        for (_, passed) in std::mem::take(&mut lane.passed) {
            moved |= self.track.passed(passed);
        }
        if moved {
            // The last records of a partition were of other keys.
            self.told.push_back(Next::Advanced);
        }
        let said = std::mem::replace(&mut lane.said, Ok(Fetched::Records));
        let fetched = match said {
            Ok(fetched) => fetched,
            Err(error) if error.is_retryable() => return self.heal(lane, &error),
            Err(error) => return self.give_up(&lane, error),
        };
        lane.failures = 0;
        match fetched {
            Fetched::Records | Fetched::PartitionAdded(_) => {}
            Fetched::CaughtUp => self.lane_caught_up(lane.partition),
            Fetched::Advanced { partition, to } => {
                self.track.set(partition, to);
                self.told.push_back(Next::Advanced);
            }
            Fetched::Gap {
                partition,
                from,
                to,
            } => self.tell_gap(Gap {
                partition,
                from,
                to,
            }),
            Fetched::PartitionEnded {
                partition,
                children,
                clear,
            } => {
                if lane.partition == Some(partition) {
                    self.lanes = self.lanes.saturating_sub(1);
                    return self.ended(partition, children, clear);
                }
                self.track.set(partition, Frontier::Ended { clear });
                self.told.push_back(Next::Advanced);
            }
            Fetched::End => {
                self.lanes = self.lanes.saturating_sub(1);
                return self.lane_over(lane.partition);
            }
        }
        self.launch(lane, None);
    }

    pub(super) fn tell_gap(&mut self, gap: Gap) {
        // More may have gone since it was told.
        let told = self.last_gaps.get(&gap.partition);
        let is_told = told.is_some_and(|(from, to)| {
            *from == gap.from
                && (gap.to == *to || gap.to.is_some_and(|new| to.is_some_and(|to| new <= to)))
        });
        if !is_told {
            self.last_gaps.insert(gap.partition, (gap.from, gap.to));
            self.told.push_back(Next::Gap(gap));
        }
    }

    pub(super) fn catch_up(&mut self) {
        if !std::mem::replace(&mut self.caught_up, true) {
            self.told.push_back(Next::CaughtUp);
        }
    }

    /// No lane is left.
    fn finish(&mut self) {
        self.over = Some(Ok(()));
        if self.range.stop == Stop::End {
            self.catch_up();
        }
        self.drop_turns();
    }

    fn heal(&mut self, mut lane: Box<Lane>, error: &Error) {
        lane.failures = lane.failures.saturating_add(1);
        let wait = pause(self.topic.bus().clock(), error, lane.failures);
        tracing::debug!(%error, failures = lane.failures, ?wait, "reading failed; trying again");
        if lane.reader.is_none() || lane.failures.is_multiple_of(REOPEN_AFTER) {
            lane.reader = None;
            // Everything that the lane brought has been handed out, so the cursor is where it is.
            lane.range.from = match lane.partition {
                None => self.cursor().clone(),
                Some(partition) => {
                    let mut from = lane.range.from.clone();
                    if let Some(frontier) = self.track.frontier(partition) {
                        from.set(partition, frontier);
                    }
                    from
                }
            };
        }
        self.launch(lane, Some(wait));
    }

    pub(super) fn fail(&mut self, partition: Option<PartitionId>, error: Error) {
        let error = match partition {
            Some(partition) => error.in_partition(partition),
            None => error,
        };
        self.over = Some(Err(self.topic.place(error, Operation::Read)));
        self.drop_turns();
    }

    /// Nothing is read in vain behind the end, or an error.
    fn drop_turns(&mut self) {
        self.turns
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Gives a lane its next turn and its share of the room.
    fn launch(&mut self, mut lane: Box<Lane>, pause: Option<Duration>) {
        let share = self.bytes / self.lanes.max(1);
        let bytes = share.min(self.bytes.saturating_sub(self.given)).max(1);
        self.given += bytes;
        lane.room = Room {
            records: ROOM_RECORDS,
            bytes,
        };
        let partition = lane.partition;
        let turn = turn(self.topic.clone(), lane, pause, self.stop.subscribe());
        // A reader that panics takes its lane with it: an error, where it would look like an end.
        let turn = AssertUnwindSafe(turn).catch_unwind();
        self.push(Box::pin(async move {
            turn.await.map_or(Turn::Panicked(partition), Turn::Lane)
        }));
    }

    pub(super) fn push(&mut self, turn: BoxFuture<Turn>) {
        self.turns
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .push(turn);
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ends all readers within `grace`, together.
    pub(super) async fn close(mut self, grace: Duration) -> Result<()> {
        self.stop.send_replace(true);
        let turns = std::mem::take(self.turns.get_mut().unwrap_or_else(PoisonError::into_inner));
        let clock = self.topic.bus().clock().clone();
        let ends: FuturesUnordered<BoxFuture<Result<()>>> = FuturesUnordered::new();
        if let Some(reader) = self.speaker.take().and_then(|lane| lane.reader) {
            ends.push(Box::pin(async move { reader.close(grace).await }));
        }
        for turn in turns {
            ends.push(Box::pin(async move {
                let reader = match turn.await {
                    Turn::Lane(lane) => lane.reader,
                    Turn::Listed(_) | Turn::Panicked(_) => None,
                };
                match reader {
                    Some(reader) => reader.close(grace).await,
                    None => Ok(()),
                }
            }));
        }
        let all = async {
            let mut ends = ends;
            let mut result = Ok(());
            while let Some(end) =
                std::future::poll_fn(|cx| std::pin::Pin::new(&mut ends).poll_next(cx)).await
            {
                result = result.and(end);
            }
            result
        };
        // Readers that have not ended by then end by being dropped.
        let result = clock.timeout(grace, all).await.unwrap_or(Ok(()));
        result.map_err(|e| self.topic.place(e, Operation::Close))
    }
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::Internal,
        Effect::None,
        Retry::Never,
        "the backend's reader panicked; what follows is not read, replay again from the cursor",
    )
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("topic", self.topic.name())
            .field("lanes", &self.lanes)
            .field("front", &self.front.len())
            .field("caught_up", &self.caught_up)
            .field("cursor", self.cursor())
            .finish_non_exhaustive()
    }
}
