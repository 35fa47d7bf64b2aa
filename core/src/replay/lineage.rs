//! Which partitions of a topic with lineage are read, and when: each once all its parents have
//! ended. No I/O here; what there is to open is answered, what has happened is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cursor::{Cursor, Frontier, Rest};
use crate::driver::{Partition, Stop};
use crate::position::PartitionId;
use crate::time::Timestamp;

/// One partition, and what this replay has to do with it.
#[derive(Debug)]
struct Node {
    parents: Vec<PartitionId>,
    children: Vec<PartitionId>,
    /// Whether a listing has shown it, and whether the start names it.
    listed: bool,
    named: bool,
    /// Whether it took records when it was first listed.
    open: bool,
    /// Whether it may hold records that were acknowledged before the replay was opened.
    before: bool,
    /// Whether some of those may still be unread.
    owes: bool,
    /// It has ended, and nothing that continues it was stored before this moment.
    clear: Option<Timestamp>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// To be read once its parents have ended.
    Waiting,
    /// There is a lane for it.
    Reading,
    /// Read to its end, here or before the start.
    Finished,
    /// The range stops before its end, so what continues it is not in the range.
    Stopped,
    /// Not asked for; what continues it waits for its parents in its place.
    Skipped { passed: bool },
}

impl Node {
    /// One that no listing shows.
    const VANISHED: Self = Self {
        parents: Vec::new(),
        children: Vec::new(),
        listed: false,
        named: false,
        open: false,
        before: true,
        owes: false,
        clear: None,
        state: State::Waiting,
    };
}

/// The partitions of one replay.
#[derive(Debug)]
pub(super) struct Lineage {
    nodes: BTreeMap<PartitionId, Node>,
    /// Whether what continues a partition is read too: not where partitions were chosen.
    whole: bool,
    stop: Stop,
    /// Finished before the start: unnamed ancestors of what the start names.
    finished_at_start: BTreeSet<PartitionId>,
    /// The same of `Stop::Through`.
    finished_at_stop: BTreeSet<PartitionId>,
    /// How many partitions owe records from before the open.
    owing: usize,
}

impl Lineage {
    /// The partitions that are still to be read from `from`, by a listing that was asked for after
    /// the start was pinned.
    pub(super) fn new(from: &Cursor, stop: &Stop, listing: &[Partition]) -> Self {
        let mut lineage = Self {
            nodes: BTreeMap::new(),
            whole: from.rest() == Rest::FromStart,
            stop: stop.clone(),
            finished_at_start: BTreeSet::new(),
            finished_at_stop: BTreeSet::new(),
            owing: 0,
        };
        for partition in listing {
            lineage.add_listed(partition);
        }
        // What is named and listed no more is told as a gap, or read if it is there after all.
        for (id, _) in from.places() {
            lineage.add_vanished(id);
        }
        lineage.finished_at_start = lineage.ancestors(from.places().map(|(id, _)| id));
        if lineage.whole {
            // So is what only the stop names: it lies in the range.
            if let Stop::Through(to) = stop {
                for (id, _) in to.places() {
                    lineage.add_vanished(id);
                }
            }
            lineage.add_vanished_parents();
        }
        lineage.link();
        lineage.mark_stop();
        let ids: Vec<PartitionId> = lineage.nodes.keys().copied().collect();
        for id in ids {
            let state = match from.frontier(id) {
                Some(Frontier::Ended { .. }) => State::Finished,
                None if !lineage.whole => State::Skipped { passed: false },
                None if lineage.finished_at_start.contains(&id) => State::Finished,
                _ => State::Waiting,
            };
            if let Some(node) = lineage.nodes.get_mut(&id) {
                node.named = from.frontier(id).is_some();
                if let Some(Frontier::Ended { clear }) = from.frontier(id) {
                    node.clear = *clear;
                }
            }
            lineage.settle_state(id, state, true);
        }
        lineage
    }

    /// Whether children are followed.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether everything acknowledged before the open has been read.
    pub(super) fn is_caught_up(&self) -> bool {
        self.owing == 0
    }

    /// Where the reading of one partition stops; `None`: all of it lies behind the stop.
    pub(super) fn stop_of(&self, id: PartitionId) -> Option<Stop> {
        let Stop::Through(to) = &self.stop else {
            return Some(self.stop.clone());
        };
        match to.frontier(id) {
            // What it continues lies in the range, and nobody knows any more what that was.
            Some(Frontier::Start { .. }) => self.is_lost(id).then_some(Stop::Never),
            Some(_) => Some(self.stop.clone()),
            None if self.finished_at_stop.contains(&id) => Some(Stop::Never),
            // What continues it is not known any more: begun before the start, it was finished
            // by a stop that names others. Rather a gap too many than one that is not told.
            None => self.nodes.get(&id).and_then(|node| {
                let passed = to.rest() == Rest::FromStart && to.places().len() > 0;
                (passed && node.named && !node.listed).then_some(Stop::Never)
            }),
        }
    }

    /// All partitions that are not read to their end. A cursor has to name each, because naming
    /// one says that its unnamed ancestors are finished.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = PartitionId> {
        self.nodes
            .iter()
            .filter(|(_, node)| {
                matches!(node.state, State::Waiting | State::Reading | State::Stopped)
            })
            .map(|(id, _)| *id)
    }

    /// Those that still wait for a parent.
    pub(super) fn waiting(&self) -> impl Iterator<Item = PartitionId> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.state == State::Waiting)
            .map(|(id, _)| *id)
    }

    /// Whether it vanished before anything told of it: what it held, and what it continues and
    /// nobody knows any more, is gone.
    pub(super) fn is_lost(&self, id: PartitionId) -> bool {
        let node = self.nodes.get(&id);
        node.is_some_and(|node| !node.listed && !node.named)
    }

    /// A moment before which nothing was stored in a partition: by then one that it continues had
    /// not ended.
    pub(super) fn begun(&self, id: PartitionId) -> Option<Timestamp> {
        let parents = self.parents(id).iter().filter_map(|id| self.nodes.get(id));
        parents.filter_map(|parent| parent.clear).max()
    }

    /// What a partition continues, as far as it is known.
    pub(super) fn parents(&self, id: PartitionId) -> &[PartitionId] {
        self.nodes.get(&id).map_or(&[], |node| &node.parents)
    }

    /// What continues a partition, as far as it is known.
    pub(super) fn children(&self, id: PartitionId) -> &[PartitionId] {
        self.nodes.get(&id).map_or(&[], |node| &node.children)
    }

    /// Whether the partition was read to its end.
    pub(super) fn is_finished(&self, id: PartitionId) -> bool {
        self.state(id) == Some(State::Finished)
    }

    /// Whether all parents of these are known, so that they can be named in a cursor.
    pub(super) fn knows_parents(&self, partitions: &[Partition]) -> bool {
        let ids: BTreeSet<PartitionId> = partitions.iter().map(|p| p.id).collect();
        let mut parents = partitions.iter().flat_map(|p| &p.parents);
        parents.all(|id| self.nodes.contains_key(id) || ids.contains(id))
    }

    /// Counts in what a listing, or the end of a partition, shows; the partitions that are new.
    pub(super) fn learn(&mut self, partitions: &[Partition]) -> Vec<PartitionId> {
        let mut new: Vec<PartitionId> = Vec::new();
        let mut found = false;
        for partition in partitions {
            if self.add_listed(partition) {
                new.push(partition.id);
            } else if let Some(node) = self.nodes.get_mut(&partition.id)
                && !node.listed
            {
                // It had vanished, and what it continues tells of it.
                node.listed = true;
                node.parents.clone_from(&partition.parents);
                found = true;
            }
        }
        if new.is_empty() && !found {
            return new;
        }
        new.extend(self.add_vanished_parents());
        self.link();
        self.mark_stop();
        // Parents first: what a child may hold follows from theirs.
        let mut left: VecDeque<PartitionId> = new.iter().copied().collect();
        let mut turns = left.len() * left.len();
        while let Some(id) = left.pop_front() {
            let parents = self.nodes.get(&id).map_or(&[][..], |node| &node.parents);
            if turns > 0 && parents.iter().any(|parent| left.contains(parent)) {
                turns -= 1;
                left.push_back(id);
                continue;
            }
            // A child of one that was open at the open of the replay began after it.
            let before = self.nodes.get(&id).is_some_and(|node| {
                let mut parents = node.parents.iter().filter_map(|id| self.nodes.get(id));
                (!node.parents.is_empty() || !node.open)
                    && parents.all(|parent| parent.before && !parent.open)
            });
            let state = if self.stop == Stop::End && !before {
                State::Stopped
            } else {
                State::Waiting
            };
            self.settle_state(id, state, before);
        }
        new
    }

    /// Which of all partitions can be opened now.
    pub(super) fn ready(&mut self) -> Vec<PartitionId> {
        let all = self.nodes.keys().copied().collect();
        self.wake(all)
    }

    /// A partition has been read to its end, and nothing that continues it is older than `clear`;
    /// what can be opened now.
    pub(super) fn finish(&mut self, id: PartitionId, clear: Option<Timestamp>) -> Vec<PartitionId> {
        self.caught_up(id);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Vec::new();
        };
        node.state = State::Finished;
        node.clear = clear;
        let children = node.children.iter().copied().collect();
        self.wake(children)
    }

    /// The range stopped within a partition; what can be opened now.
    pub(super) fn stopped(&mut self, id: PartitionId) -> Vec<PartitionId> {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.state = State::Stopped;
        }
        if self.stop == Stop::End {
            self.caught_up(id);
        }
        let children = self.children(id).iter().copied().collect();
        self.wake(children)
    }

    /// All that a partition held at the open has been read.
    pub(super) fn caught_up(&mut self, id: PartitionId) {
        if let Some(node) = self.nodes.get_mut(&id)
            && std::mem::take(&mut node.owes)
        {
            self.owing = self.owing.saturating_sub(1);
        }
    }

    fn state(&self, id: PartitionId) -> Option<State> {
        self.nodes.get(&id).map(|node| node.state)
    }

    fn add_listed(&mut self, partition: &Partition) -> bool {
        self.add(
            partition.id,
            Node {
                parents: partition.parents.clone(),
                listed: true,
                open: partition.open,
                ..Node::VANISHED
            },
        )
    }

    fn add_vanished(&mut self, id: PartitionId) -> bool {
        self.add(id, Node::VANISHED)
    }

    /// Adds a partition unless it is known.
    fn add(&mut self, id: PartitionId, node: Node) -> bool {
        let is_new = !self.nodes.contains_key(&id);
        if is_new {
            self.nodes.insert(id, node);
        }
        is_new
    }

    /// Adds parents that no listing shows any more, unless they were finished before the start.
    fn add_vanished_parents(&mut self) -> Vec<PartitionId> {
        let read = &self.finished_at_start;
        let parents: BTreeSet<PartitionId> = self
            .nodes
            .iter()
            .filter(|(id, node)| node.state == State::Waiting && !read.contains(id))
            .flat_map(|(_, node)| node.parents.iter().copied())
            .filter(|parent| !read.contains(parent))
            .collect();
        let mut new = Vec::new();
        for id in parents {
            if self.add_vanished(id) {
                new.push(id);
            }
        }
        new
    }

    /// Tells parents of their children.
    fn link(&mut self) {
        let edges: Vec<(PartitionId, PartitionId)> = self
            .nodes
            .iter()
            .flat_map(|(id, node)| node.parents.iter().map(|parent| (*parent, *id)))
            .collect();
        for (parent, child) in edges {
            if let Some(node) = self.nodes.get_mut(&parent)
                && !node.children.contains(&child)
            {
                node.children.push(child);
            }
        }
    }

    fn mark_stop(&mut self) {
        if let Stop::Through(to) = &self.stop
            && to.rest() == Rest::FromStart
        {
            self.finished_at_stop = self.ancestors(to.places().map(|(id, _)| id));
        }
    }

    /// All that these continue.
    fn ancestors(&self, of: impl Iterator<Item = PartitionId>) -> BTreeSet<PartitionId> {
        let mut found = BTreeSet::new();
        let mut line: Vec<PartitionId> = of.collect();
        while let Some(id) = line.pop() {
            let parents = self.nodes.get(&id).map_or(&[][..], |node| &node.parents);
            for parent in parents {
                if found.insert(*parent) {
                    line.push(*parent);
                }
            }
        }
        found
    }

    fn settle_state(&mut self, id: PartitionId, state: State, before: bool) {
        let outside = state == State::Waiting && self.stop_of(id).is_none();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.state = if outside { State::Stopped } else { state };
        node.before = before;
        node.owes = before && matches!(node.state, State::Waiting | State::Stopped);
        self.owing += usize::from(node.owes);
    }

    /// Which of these, and of what waits behind them, can be opened now.
    pub(super) fn wake(&mut self, mut line: VecDeque<PartitionId>) -> Vec<PartitionId> {
        let mut open = Vec::new();
        while let Some(id) = line.pop_front() {
            let passes = |parent: &PartitionId| match self.state(*parent) {
                None | Some(State::Finished) => true,
                Some(State::Skipped { passed }) => passed,
                // A cursor may stop within a parent and behind records of its child: one that
                // was pinned at what was kept of each.
                Some(State::Stopped) => matches!(self.stop, Stop::Through(_)),
                Some(State::Waiting | State::Reading) => false,
            };
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            if !node.parents.iter().all(passes) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            match node.state {
                State::Waiting => {
                    node.state = State::Reading;
                    open.push(id);
                }
                State::Skipped { passed: false } => {
                    node.state = State::Skipped { passed: true };
                    line.extend(&node.children);
                }
                _ => {}
            }
        }
        open
    }
}
