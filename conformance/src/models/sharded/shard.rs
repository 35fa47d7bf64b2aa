//! One shard: its records, its place in the lineage, and what is gone of it.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use annals_core::capability::Retention;
use annals_core::driver::Partition;
use annals_core::{Frontier, PartitionId, Position, Record, Recorded, Result, Stored, Timestamp};

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: PartitionId,
    /// Which hashes of keys it takes.
    pub(super) hashes: RangeInclusive<u64>,
    pub(super) parents: Vec<PartitionId>,
    pub(super) children: Vec<PartitionId>,
    /// When it took its last record; `None`: it is open.
    pub(super) closed: Option<Timestamp>,
    /// Retention has passed its end: it is listed no more.
    pub(super) expired: bool,
    records: VecDeque<Recorded>,
    bytes: usize,
    /// The newest record that was ever stored, and where and when those that are gone were.
    last: Option<Position>,
    gone: Vec<(Position, Timestamp)>,
    /// The log time of the newest one: it never goes back, from parents to children neither.
    newest: Timestamp,
}

impl Shard {
    pub(super) fn new(
        id: PartitionId,
        hashes: RangeInclusive<u64>,
        parents: Vec<PartitionId>,
        begun: Timestamp,
    ) -> Self {
        Self {
            id,
            hashes,
            parents,
            children: Vec::new(),
            closed: None,
            expired: false,
            records: VecDeque::new(),
            bytes: 0,
            last: None,
            gone: Vec::new(),
            newest: begun,
        }
    }

    /// It takes no more records; the moment of that, which is not before its newest record.
    pub(super) fn close(&mut self, now: Timestamp) -> Timestamp {
        self.newest = self.newest.max(now);
        self.closed = Some(self.newest);
        self.newest
    }

    pub(super) fn listed(&self) -> Partition {
        Partition {
            id: self.id,
            name: format!("shardId-{:012}", self.id.get()).into(),
            parents: self.parents.clone(),
            open: self.closed.is_none(),
        }
    }

    pub(super) fn store(
        &mut self,
        now: Timestamp,
        position: Position,
        record: &Record,
    ) -> Result<Stored> {
        self.newest = self.newest.max(now);
        let recorded = Recorded::of(record, Some(position), Some(self.newest))?;
        self.bytes += recorded.len_bytes();
        self.last = Some(position);
        self.records.push_back(recorded);
        Ok(Stored::at(position))
    }

    /// The newest record that was ever stored here, gone or not.
    pub(super) fn last(&self) -> Option<Position> {
        self.last
    }

    /// The records that a reading from `frontier` has still to read.
    pub(super) fn after(&self, frontier: &Frontier) -> impl Iterator<Item = &Recorded> {
        let read = match frontier {
            Frontier::Start { .. } => 0,
            Frontier::Since(time) => self
                .records
                .partition_point(|r| r.stored_at() < Some(*time)),
            Frontier::After { position, .. } => self
                .records
                .partition_point(|r| r.position() <= Some(*position)),
            Frontier::Ended { .. } => self.records.len(),
        };
        self.records.iter().skip(read)
    }

    /// Whether records behind `frontier` are gone.
    pub(super) fn lacks(&self, frontier: &Frontier) -> bool {
        self.missing(frontier).is_some()
    }

    /// When the first record behind `frontier` that is gone was stored.
    pub(super) fn missing(&self, frontier: &Frontier) -> Option<Timestamp> {
        let before = |time: Timestamp| self.gone.partition_point(|(_, stored)| *stored < time);
        let first = match frontier {
            // Who asks for the earliest that is kept misses nothing.
            Frontier::Ended { .. } | &Frontier::EARLIEST => return None,
            Frontier::Start { clear } => clear.map_or(0, before),
            Frontier::Since(time) => before(*time),
            Frontier::After { position, clear } => {
                let read = self.gone.partition_point(|(gone, _)| gone <= position);
                read.max(clear.map_or(0, before))
            }
        };
        self.gone.get(first).map(|(_, stored)| *stored)
    }

    /// Behind everything that is gone: where a reading goes on after a gap.
    pub(super) fn kept_from(&self) -> Frontier {
        let gone = self.gone.last();
        gone.map_or(Frontier::START, |(position, _)| Frontier::after(*position))
    }

    pub(super) fn retain(&mut self, now: Timestamp, retention: Retention) {
        while let Some(oldest) = self.records.front() {
            let gone = match retention {
                Retention::Forever => false,
                Retention::Age(age) => oldest.stored_at().is_some_and(|at| now.since(at) > age),
                Retention::Bytes(bytes) => (self.bytes - oldest.len_bytes()) as u64 >= bytes,
            };
            if !gone {
                break;
            }
            self.drop_oldest();
        }
        if let (Some(closed), Retention::Age(age)) = (self.closed, retention)
            && now.since(closed) > age
        {
            self.expired = true;
        }
    }

    /// `oldest`: no shard that it continues is listed.
    pub(super) fn trim_to(&mut self, keep: usize, oldest: bool) {
        while self.records.len() > keep {
            self.drop_oldest();
        }
        self.expired |= oldest && self.closed.is_some() && self.records.is_empty();
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.records.pop_front() {
            self.bytes -= oldest.len_bytes();
            self.gone.extend(oldest.position().zip(oldest.stored_at()));
        }
    }
}
