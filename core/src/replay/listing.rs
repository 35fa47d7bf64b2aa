//! Going on from partition to partition: what continues one that ended, what vanished unread, what
//! was added.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cursor::{Cursor, Frontier, Rest};
use crate::defaults::LISTING_INTERVAL;
use crate::driver::{Partition, ReadRange, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::position::PartitionId;
use crate::signal::Gap;
use crate::time::Timestamp;
use crate::topic::Topic;

use super::heal::pause;
use super::lane::Lane;
use super::lineage::Lineage;
use super::merge::{Merge, Next, Turn};

/// A listing that has come, and what it was asked for.
pub(super) struct Listed {
    why: Why,
    /// `None`: the replay is being closed.
    listing: Option<Result<Vec<Partition>>>,
}

enum Why {
    /// This one ended, and what continues it, or the parents of that, are not known yet.
    Ended(PartitionId, Arc<[Partition]>, Option<Timestamp>),
    /// This one was not found: the topic is gone, or retention has passed the partition.
    Vanished(PartitionId, Error),
    /// It is time again.
    Time,
}

impl Merge {
    /// Names in the cursor what has to be named, and gives the lanes to begin with.
    pub(super) fn begin(&mut self) -> Vec<Lane> {
        let Some(lineage) = &mut self.lineage else {
            return Vec::new();
        };
        let ready = lineage.ready();
        let lanes = self.lanes_of(ready);
        if self.lost.is_empty() {
            self.name_unfinished();
        }
        self.check_caught_up();
        self.discover();
        lanes
    }

    fn name_unfinished(&mut self) {
        let unfinished = self.lineage.iter().flat_map(Lineage::unfinished);
        for id in unfinished.collect::<Vec<_>>() {
            if self.track.frontier(id).is_none() {
                let begun = self.begun(id);
                self.track.set(id, Frontier::START.begun(begun));
            }
        }
    }

    fn begun(&self, id: PartitionId) -> Option<Timestamp> {
        self.lineage.as_ref().and_then(|lineage| lineage.begun(id))
    }

    /// Lanes of partitions whose earliest record is still to be pinned although they wait.
    pub(super) fn unpinned(&self) -> Vec<Lane> {
        let Some(lineage) = &self.lineage else {
            return Vec::new();
        };
        let earliest = |id: &PartitionId| self.track.frontier(*id) == Some(Frontier::EARLIEST);
        let waiting = lineage.waiting().filter(earliest);
        waiting.filter_map(|id| self.lane_of(id)).collect()
    }

    /// Lanes of what can be opened; what is lost is told, and makes way for what continues it.
    fn lanes_of(&mut self, ready: Vec<PartitionId>) -> Vec<Lane> {
        let mut lanes = Vec::new();
        for id in ready {
            if self.lineage.as_ref().is_some_and(|l| l.is_lost(id)) {
                self.lost.push_back((id, Vec::new()));
            } else {
                lanes.extend(self.lane_of(id));
            }
        }
        lanes
    }

    /// Tells of the next partition of which what is unread is gone; whether there was one. The
    /// cursor passes it only once that has been handed out.
    pub(super) fn tell_lost(&mut self) -> bool {
        let Some((id, shown)) = self.lost.pop_front() else {
            return false;
        };
        let from = self.track.frontier(id).unwrap_or(Frontier::START);
        self.tell_gap(Gap {
            partition: id,
            from,
            to: None,
        });
        self.passing = Some((id, shown));
        true
    }

    /// Goes on behind a partition whose loss was told.
    pub(super) fn pass_lost(&mut self) -> bool {
        let Some((id, shown)) = self.passing.take() else {
            return false;
        };
        if self.lost.is_empty() {
            // Named before all of it was told, what continues the lost would say that they are
            // finished.
            self.name_unfinished();
        }
        self.finish_partition(id, &shown, None);
        true
    }

    fn lane_of(&self, id: PartitionId) -> Option<Lane> {
        let at = self.track.frontier(id).unwrap_or(Frontier::START);
        let at = at.begun(self.begun(id));
        let range = ReadRange {
            from: Cursor::new(
                Arc::clone(self.range.from.origin()),
                [(id, at)],
                Rest::Outside,
            ),
            stop: self.lineage.as_ref()?.stop_of(id)?,
            partitions: Some(vec![id]),
            key: self.range.key.clone(),
            budget: self.range.budget.clone(),
        };
        Some(Lane::new(Some(id), range))
    }

    /// Whether nothing can come any more.
    pub(super) fn is_done(&self) -> bool {
        let waits = !self.lost.is_empty() || self.passing.is_some();
        self.lanes == 0
            && self.listings == 0
            && !waits
            && !(self.grows() && self.range.stop == Stop::Never)
    }

    /// Whether partitions that are made later belong to it, children of none that it reads
    /// included.
    fn grows(&self) -> bool {
        let whole = self.lineage.as_ref().is_some_and(Lineage::is_whole);
        whole && matches!(self.range.stop, Stop::Never | Stop::Before(_))
    }

    /// All that a lane's partition held at the open has been handed out.
    pub(super) fn lane_caught_up(&mut self, partition: Option<PartitionId>) {
        match (partition, &mut self.lineage) {
            (Some(id), Some(lineage)) => {
                lineage.caught_up(id);
                self.check_caught_up();
            }
            _ => self.catch_up(),
        }
    }

    /// A lane's range ended within its partition.
    pub(super) fn lane_over(&mut self, partition: Option<PartitionId>) {
        if let (Some(id), Some(lineage)) = (partition, &mut self.lineage) {
            let ready = lineage.stopped(id);
            self.check_caught_up();
            let lanes = self.lanes_of(ready);
            self.start(lanes);
        }
    }

    fn check_caught_up(&mut self) {
        if self.lineage.as_ref().is_some_and(Lineage::is_caught_up) {
            self.catch_up();
        }
    }

    /// A lane's partition was read to its end, and the lane with it.
    pub(super) fn ended(
        &mut self,
        id: PartitionId,
        children: Arc<[Partition]>,
        clear: Option<Timestamp>,
    ) {
        let Some(lineage) = &self.lineage else {
            return;
        };
        // A child may have a parent that was made after the last listing. It must not be named in
        // the cursor before that one is, because naming it says that its ancestors are finished.
        let is_known = !children.is_empty() && lineage.knows_parents(&children);
        if lineage.is_whole() && !is_known {
            return self.list(Why::Ended(id, children, clear));
        }
        self.finish_partition(id, &children, clear);
    }

    /// A lane failed for good: its partition may have vanished, else the whole replay has failed.
    pub(super) fn give_up(&mut self, lane: &Lane, error: Error) {
        match lane.partition {
            Some(id) if error.kind() == ErrorKind::NotFound => {
                self.lanes = self.lanes.saturating_sub(1);
                self.list(Why::Vanished(id, error));
            }
            partition => self.fail(partition, error),
        }
    }

    /// A listing has come.
    pub(super) fn listed(&mut self, listed: Listed) {
        let Listed { why, listing } = listed;
        if !matches!(why, Why::Time) {
            self.listings = self.listings.saturating_sub(1);
        }
        let mut listing = match listing {
            None => return,
            Some(Err(error)) => return self.fail(None, error),
            Some(Ok(listing)) => listing,
        };
        match why {
            Why::Time => {
                self.learn(&listing);
                self.discover();
            }
            Why::Ended(id, children, clear) => {
                listing.extend(children.iter().cloned());
                self.finish_partition(id, &listing, clear);
            }
            Why::Vanished(id, error) => {
                if listing.iter().any(|partition| partition.id == id) {
                    return self.fail(Some(id), error);
                }
                self.lost.push_back((id, listing));
            }
        }
    }

    /// A partition is finished, and this was shown with its end: its children are named in the
    /// cursor, so it needs no longer be.
    fn finish_partition(&mut self, id: PartitionId, shown: &[Partition], clear: Option<Timestamp>) {
        self.learn(shown);
        let Some(lineage) = &mut self.lineage else {
            return;
        };
        let ready = lineage.finish(id, clear);
        let children = lineage.children(id).to_vec();
        if lineage.is_whole() && !children.is_empty() {
            self.track.remove(id);
        } else {
            self.track.set(id, Frontier::Ended { clear });
        }
        // The cursor keeps the evidence although it names the ended one no more: also for those
        // that are not in the range.
        for child in children {
            if let Some(at) = self.track.frontier(child) {
                self.track.set(child, at.begun(clear));
            }
        }
        self.told.push_back(Next::Advanced);
        self.check_caught_up();
        let lanes = self.lanes_of(ready);
        self.start(lanes);
    }

    /// Counts in partitions that were not known.
    fn learn(&mut self, shown: &[Partition]) {
        let Some(lineage) = self.lineage.as_mut().filter(|lineage| lineage.is_whole()) else {
            return;
        };
        let new = lineage.learn(shown);
        for id in &new {
            self.track
                .set(*id, Frontier::START.begun(lineage.begun(*id)));
            for parent in lineage.parents(*id) {
                // It was named as ended for want of a child.
                if lineage.is_finished(*parent) {
                    self.track.remove(*parent);
                }
            }
        }
        let ready = lineage.wake(new.into());
        let lanes = self.lanes_of(ready);
        self.start(lanes);
    }

    fn list(&mut self, why: Why) {
        self.listings += 1;
        self.list_after(Duration::ZERO, why);
    }

    fn discover(&mut self) {
        if self.grows() {
            self.list_after(LISTING_INTERVAL, Why::Time);
        }
    }

    fn list_after(&mut self, wait: Duration, why: Why) {
        let listing = list(self.topic().clone(), wait, self.stopping());
        self.push(Box::pin(async move {
            let listing = listing.await;
            Turn::Listed(Listed { why, listing })
        }));
    }
}

/// Lists the partitions after a pause, trying again what can heal; `None`: stopped before.
async fn list(
    topic: Topic,
    wait: Duration,
    mut stop: watch::Receiver<bool>,
) -> Option<Result<Vec<Partition>>> {
    let (bus, clock) = (topic.bus(), topic.bus().clock());
    let list = async {
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
        let mut failures = 0_u32;
        loop {
            match bus.backend.partitions(topic.name()).await {
                Err(error) if error.is_retryable() => {
                    failures = failures.saturating_add(1);
                    let wait = pause(clock, &error, failures);
                    tracing::debug!(%error, ?wait, "listing partitions failed; trying again");
                    clock.sleep(wait).await;
                }
                listing => return listing,
            }
        }
    };
    tokio::select! {
        biased;
        listing = list => Some(listing),
        _ = stop.wait_for(|stopped| *stopped) => None,
    }
}
