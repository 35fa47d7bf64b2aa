//! One topic of the sharded log: its shards and their lineage.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::capability::Retention;
use annals_core::driver::{Lease, Partition, first_leases};
use annals_core::{
    Cursor, Error, Frontier, Group, Origin, PartitionId, Position, Record, Rest, Result, Start,
    Stored, Timestamp,
};

use super::shard::Shard;
use crate::models::leases::Table;

/// Between two records' numbers, so that nobody counts on neighbours.
const STRIDE: u64 = 7;

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) incarnation: Arc<str>,
    pub(super) retention: Retention,
    pub(super) groups: BTreeMap<Group, Table>,
    shards: BTreeMap<PartitionId, Shard>,
    /// How many records were ever stored, in all shards.
    stored: u64,
    trimmed_by_hand: bool,
}

impl Topic {
    pub(super) fn new(incarnation: Arc<str>, retention: Retention, shards: u32) -> Self {
        let width = u64::MAX / u64::from(shards.max(1));
        let mut topic = Self {
            incarnation,
            retention,
            groups: BTreeMap::new(),
            shards: BTreeMap::new(),
            stored: 0,
            trimmed_by_hand: false,
        };
        for n in 0..u64::from(shards.max(1)) {
            let to = if n + 1 == u64::from(shards.max(1)) {
                u64::MAX
            } else {
                (n + 1) * width - 1
            };
            topic.open_shard(n * width..=to, Vec::new(), Timestamp::MIN);
        }
        topic
    }

    pub(super) fn kept_for(&self) -> Retention {
        if self.trimmed_by_hand {
            return Retention::Bytes(0);
        }
        self.retention
    }

    pub(super) fn shard(&self, id: PartitionId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    pub(super) fn listed(&self) -> Vec<Partition> {
        let listed = self.shards.values().filter(|shard| !shard.expired);
        listed.map(Shard::listed).collect()
    }

    pub(super) fn shard_of(&self, hash: u64) -> Result<PartitionId> {
        self.shards
            .values()
            .find(|shard| shard.closed.is_none() && shard.hashes.contains(&hash))
            .map(|shard| shard.id)
            .ok_or_else(|| Error::not_found("no open shard takes this key"))
    }

    /// A record without a key goes anywhere.
    pub(super) fn store(&mut self, now: Timestamp, record: &Record) -> Result<Stored> {
        let hash = record
            .key_bytes()
            .map_or_else(|| hash(&self.stored.to_le_bytes()), |key| hash(key));
        let id = self.shard_of(hash)?;
        let position = Position::wide(id, [0, 0, 1, (self.stored + 1) * STRIDE], 0);
        self.stored += 1;
        self.open(id)?.store(now, position, record)
    }

    pub(super) fn split(
        &mut self,
        now: Timestamp,
        id: PartitionId,
    ) -> Result<(PartitionId, PartitionId)> {
        let shard = self.open(id)?;
        let (from, to) = (*shard.hashes.start(), *shard.hashes.end());
        if from == to {
            return Err(Error::config("this shard is too small to be split"));
        }
        let middle = from + (to - from) / 2;
        let closed = shard.close(now);
        let low = self.open_shard(from..=middle, vec![id], closed);
        let high = self.open_shard(middle + 1..=to, vec![id], closed);
        self.name_children(&[id], &[low, high]);
        Ok((low, high))
    }

    pub(super) fn merge(
        &mut self,
        now: Timestamp,
        one: PartitionId,
        other: PartitionId,
    ) -> Result<PartitionId> {
        let a = self.open(one)?.hashes.clone();
        let b = self.open(other)?.hashes.clone();
        let (low, high) = if a.start() < b.start() {
            (a, b)
        } else {
            (b, a)
        };
        if low.end().checked_add(1) != Some(*high.start()) {
            return Err(Error::config("these shards are no neighbours"));
        }
        let mut closed = now;
        for id in [one, other] {
            closed = closed.max(self.open(id)?.close(now));
        }
        let child = self.open_shard(*low.start()..=*high.end(), vec![one, other], closed);
        self.name_children(&[one, other], &[child]);
        Ok(child)
    }

    fn open(&mut self, id: PartitionId) -> Result<&mut Shard> {
        match self.shards.get_mut(&id) {
            Some(shard) if shard.closed.is_none() => Ok(shard),
            Some(_) => Err(Error::config(format!("shard {id} is closed"))),
            None => Err(Error::not_found(format!("there is no shard {id}"))),
        }
    }

    fn open_shard(
        &mut self,
        hashes: std::ops::RangeInclusive<u64>,
        parents: Vec<PartitionId>,
        begun: Timestamp,
    ) -> PartitionId {
        let id = PartitionId::new(self.shards.len() as u64);
        self.shards
            .insert(id, Shard::new(id, hashes, parents, begun));
        id
    }

    fn name_children(&mut self, parents: &[PartitionId], children: &[PartitionId]) {
        for id in parents {
            if let Some(parent) = self.shards.get_mut(id) {
                parent.children = children.to_vec();
            }
        }
    }

    pub(super) fn children_of(&self, shard: &Shard) -> Arc<[Partition]> {
        let children = shard.children.iter().filter_map(|id| self.shard(*id));
        children.map(Shard::listed).collect()
    }

    pub(super) fn locate(&self, origin: Arc<Origin>, start: &Start) -> Cursor {
        let listed = self.shards.values().filter(|shard| !shard.expired);
        let places: Vec<_> = match start {
            Start::Beginning => Vec::new(),
            Start::Earliest => listed.map(|s| (s.id, Frontier::EARLIEST)).collect(),
            // Those that are listed no more too, where they held what is asked for: a gap.
            Start::Since(time) => {
                let since = Frontier::Since(*time);
                let asked = |s: &&Shard| !s.expired || s.lacks(&since);
                let shards = self.shards.values().filter(asked);
                shards.map(|s| (s.id, since)).collect()
            }
            // Shards that are made later are read from their start.
            Start::Latest | Start::After(_) => listed
                .filter(|shard| shard.closed.is_none())
                .map(|shard| {
                    let end = shard.last().map_or(Frontier::START, Frontier::after);
                    (shard.id, end)
                })
                .collect(),
        };
        Cursor::new(origin, places, Rest::FromStart)
    }

    /// Whether `ancestor` lies before a shard that `cursor` names.
    pub(super) fn is_before(&self, ancestor: PartitionId, cursor: &Cursor) -> bool {
        let mut line: Vec<PartitionId> = cursor.places().map(|(id, _)| id).collect();
        while let Some(id) = line.pop() {
            let parents = self.shard(id).map_or(&[][..], |shard| &shard.parents);
            if parents.contains(&ancestor) {
                return true;
            }
            line.extend(parents);
        }
        false
    }

    /// The rows of a group that starts at `cursor`: the shards it names, and all others that lie
    /// before none of these, gone or not.
    pub(super) fn first_rows(&self, cursor: &Cursor) -> Result<Vec<Lease>> {
        let all: Vec<Partition> = self.shards.values().map(Shard::listed).collect();
        let mut rows = first_leases(cursor, &all)?;
        for row in &mut rows {
            // Stored as the place that it is now: what goes afterwards is a gap.
            if row.at == Frontier::EARLIEST
                && let Some(shard) = self.shard(row.partition)
            {
                row.at = shard.kept_from();
            }
        }
        Ok(rows)
    }

    pub(super) fn retain(&mut self, now: Timestamp) {
        let retention = self.retention;
        for shard in self.shards.values_mut() {
            shard.retain(now, retention);
        }
    }

    pub(super) fn trim_to(&mut self, keep: usize) {
        self.trimmed_by_hand = true;
        // Parents first, which have the lower numbers: one is listed as long as a parent is.
        let ids: Vec<PartitionId> = self.shards.keys().copied().collect();
        for id in ids {
            let expired = |id: &PartitionId| self.shard(*id).is_none_or(|shard| shard.expired);
            let oldest = self
                .shard(id)
                .is_some_and(|s| s.parents.iter().all(expired));
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.trim_to(keep, oldest);
            }
        }
    }
}

/// FNV-1a with a last stir, so that short keys reach all shards.
pub(super) fn hash(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
