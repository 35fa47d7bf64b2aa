//! Saboteurs of *lineage*.

use std::sync::Arc;

use annals_core::driver::{Backend, Fetched, Lease, Leases, Partition, Reader, Room};
use annals_core::{Group, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "the_second_parent_is_forgotten",
        mirrors: "knows one parent of a shard that came of a merge and reads it when that has ended, as connect's Kinesis input did (#2649)",
        model: Model::Sharded,
        law: "lineage",
        make: |acted| Arc::new(Parents { acted, keeps: 1 }),
    },
    Saboteur {
        name: "children_are_read_at_once",
        mirrors: "reads every shard that is listed from its start, parents or not, as consumers do that know no lineage",
        model: Model::Sharded,
        law: "lineage",
        make: |acted| Arc::new(Parents { acted, keeps: 0 }),
    },
    Saboteur {
        name: "a_leaf_is_left_out",
        mirrors: "goes on with the first of the shards that continue one, and never finds the other",
        model: Model::Sharded,
        law: "lineage",
        make: |acted| Arc::new(Leaf(acted)),
    },
    Saboteur {
        name: "a_group_forgets_the_second_parent",
        mirrors: "writes one parent of a merged shard into its lease table, so that only groups read it too early",
        model: Model::Sharded,
        law: "lineage",
        make: |acted| Arc::new(InGroups(acted)),
    },
];

/// Partitions are said to continue at most so many others.
#[derive(Debug)]
struct Parents {
    acted: Acted,
    keeps: usize,
}

impl Parents {
    fn cut(&self, partition: &mut Partition) {
        if partition.parents.len() > self.keeps {
            self.acted.mark();
            partition.parents.truncate(self.keeps);
        }
    }
}

#[async_trait]
impl Hook for Parents {
    async fn partitions(&self, below: &dyn Backend, topic: &TopicName) -> Result<Vec<Partition>> {
        let mut listed = below.partitions(topic).await?;
        for partition in &mut listed {
            self.cut(partition);
        }
        Ok(listed)
    }

    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        match below.fetch(room, out).await? {
            Fetched::PartitionEnded {
                partition,
                children,
                clear,
            } => {
                let mut children = children.to_vec();
                for child in &mut children {
                    self.cut(child);
                }
                Ok(Fetched::PartitionEnded {
                    partition,
                    children: children.into(),
                    clear,
                })
            }
            told => Ok(told),
        }
    }
}

impl Sabotage for Parents {}

#[derive(Debug)]
struct Leaf(Acted);

impl Leaf {
    /// The second one of those that continue one partition.
    fn without(&self, listed: Vec<Partition>) -> Vec<Partition> {
        let hidden: Vec<_> = listed
            .iter()
            .enumerate()
            .filter(|(at, one)| {
                one.parents.len() == 1
                    && listed
                        .iter()
                        .take(*at)
                        .any(|other| other.parents == one.parents)
            })
            .map(|(_, one)| one.id)
            .collect();
        if !hidden.is_empty() {
            self.0.mark();
        }
        let shown = listed.into_iter().filter(|one| !hidden.contains(&one.id));
        shown.collect()
    }
}

#[async_trait]
impl Hook for Leaf {
    async fn partitions(&self, below: &dyn Backend, topic: &TopicName) -> Result<Vec<Partition>> {
        Ok(self.without(below.partitions(topic).await?))
    }

    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        match below.fetch(room, out).await? {
            Fetched::PartitionEnded {
                partition,
                children,
                clear,
            } => Ok(Fetched::PartitionEnded {
                partition,
                children: self.without(children.to_vec()).into(),
                clear,
            }),
            told => Ok(told),
        }
    }
}

impl Sabotage for Leaf {}

#[derive(Debug)]
struct InGroups(Acted);

impl InGroups {
    fn cut(&self, leases: &[Lease]) -> Vec<Lease> {
        let mut leases = leases.to_vec();
        for lease in &mut leases {
            if lease.parents.len() > 1 {
                self.0.mark();
                lease.parents.truncate(1);
            }
        }
        leases
    }
}

#[async_trait]
impl Hook for InGroups {
    async fn found(&self, below: &dyn Leases, group: &Group, first: &[Lease]) -> Result<bool> {
        below.found(group, &self.cut(first)).await
    }

    async fn add(&self, below: &dyn Leases, group: &Group, children: &[Lease]) -> Result<()> {
        below.add(group, &self.cut(children)).await
    }

    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let table = below.load(group).await?;
        Ok(table.map(|table| self.cut(&table)))
    }
}

impl Sabotage for InGroups {}
