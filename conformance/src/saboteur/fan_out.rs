//! Saboteurs of *fan-out*.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    Arrived, Backend, Delivered, Inbound, Lease, Leases, Mark, Room, Source, SubscribeOptions,
    Tenancy,
};
use annals_core::{Group, PartitionId, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "groups_share_a_queue",
        mirrors: "all groups of a topic consume from one queue, and so share its records out: sea-streamer's Redis consumer groups of one name",
        model: Model::Queue,
        law: "fan_out",
        make: |acted| Arc::new(OneQueue(acted, Mutex::default())),
    },
    Saboteur {
        name: "groups_share_a_table",
        mirrors: "the table of leases is named for the topic and not for the group: KCL applications of one name",
        model: Model::Sharded,
        law: "fan_out",
        make: |acted| Arc::new(OneTable(acted, Mutex::default())),
    },
    Saboteur {
        name: "commits_move_every_group",
        mirrors: "the place of a group is the topic's: what one group has committed the others skip",
        model: Model::Log,
        law: "fan_out",
        make: |acted| Arc::new(OneCursor(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_slow_group_blocks",
        mirrors: "one group's full buffer stops the connection that all groups read by: AMQP's flow on a shared connection",
        model: Model::Queue,
        law: "fan_out",
        make: |acted| Arc::new(Blocks(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_partition_is_read_for_two",
        mirrors: "the third group that reads a partition waits until one of the others leaves it: a limit on reads that is shared and not declared",
        model: Model::Sharded,
        law: "fan_out",
        make: |acted| Arc::new(Two(acted, Mutex::default())),
    },
];

/// The group that came first stands for all.
fn first_of(first: &Mutex<Option<Group>>, group: &Group, acted: &Acted) -> Group {
    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
    let first = first.get_or_insert_with(|| group.clone());
    if first != group {
        acted.mark();
    }
    first.clone()
}

#[derive(Debug)]
struct OneQueue(Acted, Mutex<Option<Group>>);

#[async_trait]
impl Hook for OneQueue {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let shared = first_of(&self.1, group, &self.0);
        match below.subscribe(topic, &shared, options).await {
            // That one is of another topic.
            Err(_) => below.subscribe(topic, group, options).await,
            inbound => inbound,
        }
    }
}

impl Sabotage for OneQueue {}

#[derive(Debug)]
struct OneTable(Acted, Mutex<Option<Group>>);

impl OneTable {
    async fn shared(&self, below: &dyn Leases, group: &Group) -> Group {
        let shared = first_of(&self.1, group, &self.0);
        match below.load(&shared).await {
            Ok(Some(_)) => shared,
            // That one is of another topic.
            _ => group.clone(),
        }
    }
}

#[async_trait]
impl Hook for OneTable {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        below.load(&self.shared(below, group).await).await
    }

    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        below.take(&self.shared(below, group).await, seen, by).await
    }

    async fn renew(
        &self,
        below: &dyn Leases,
        group: &Group,
        held: &[Tenancy],
    ) -> Result<Vec<Result<()>>> {
        below.renew(&self.shared(below, group).await, held).await
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        below.commit(&self.shared(below, group).await, marks).await
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        below
            .release(&self.shared(below, group).await, tenancy)
            .await
    }
}

impl Sabotage for OneTable {}

/// Shows every group the farthest place that any has committed.
#[derive(Debug)]
struct OneCursor(Acted, Mutex<Vec<Group>>);

#[async_trait]
impl Hook for OneCursor {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let Some(mut rows) = below.load(group).await? else {
            return Ok(None);
        };
        let others = {
            let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            if !seen.contains(group) {
                seen.push(group.clone());
            }
            seen.clone()
        };
        for other in others.iter().filter(|other| *other != group) {
            for theirs in below.load(other).await?.into_iter().flatten() {
                let mine = rows
                    .iter_mut()
                    .find(|row| row.partition == theirs.partition);
                if let (Some(mine), Some(at)) = (mine, theirs.at.position())
                    && mine.at.covers(at) == Some(false)
                {
                    self.0.mark();
                    mine.at = theirs.at;
                }
            }
        }
        Ok(Some(rows))
    }
}

impl Sabotage for OneCursor {}

/// A group that was handed some is waited for by the others until it is handed something again.
#[derive(Debug)]
struct Blocks(Acted, Mutex<Option<(TopicName, Group)>>);

#[async_trait]
impl Hook for Blocks {
    async fn receive(
        &self,
        passage: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let me = passage
            .group
            .clone()
            .map(|group| (passage.topic.clone(), group));
        let is_full = {
            let mut full = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            if full
                .as_ref()
                .is_some_and(|(topic, _)| *topic != passage.topic)
            {
                *full = None;
            }
            full.is_some() && *full != me
        };
        if is_full {
            self.0.mark();
            return std::future::pending().await;
        }
        let told = below.fetch(room, out).await;
        if passage.passed + out.len() >= 8 && passage.passed < 100 {
            let mut full = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            *full = me;
        }
        told
    }
}

impl Sabotage for Blocks {}

/// Which groups read a partition.
#[derive(Debug)]
struct Two(Acted, Mutex<BTreeMap<PartitionId, BTreeSet<Group>>>);

#[async_trait]
impl Hook for Two {
    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        let is_full = {
            let readers = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let there = readers.get(&seen.partition);
            there.is_some_and(|there| there.len() >= 2 && !there.contains(group))
        };
        if is_full {
            self.0.mark();
            return Ok(None);
        }
        let taken = below.take(group, seen, by).await?;
        if taken.is_some() {
            let mut readers = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let there = readers.entry(seen.partition).or_default();
            there.insert(group.clone());
        }
        Ok(taken)
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        {
            let mut readers = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let there = readers.entry(tenancy.partition).or_default();
            there.remove(group);
        }
        below.release(group, tenancy).await
    }
}

impl Sabotage for Two {}
