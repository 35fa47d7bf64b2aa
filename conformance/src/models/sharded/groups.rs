//! Groups of the sharded log: a table of leases that any client may take, as in DynamoDB.

use std::sync::Arc;

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{Error, Group, Result, TopicName};
use async_trait::async_trait;

use super::Sharded;
use crate::models::faults::Call;
use crate::models::leases::Table;

/// The groups of one topic, as one client sees them.
#[derive(Debug)]
pub(super) struct ShardedLeases {
    client: Sharded,
    topic: TopicName,
}

impl ShardedLeases {
    pub(super) fn new(client: &Sharded, topic: &TopicName) -> Self {
        Self {
            client: client.clone(),
            topic: topic.clone(),
        }
    }

    /// One conditional write, or a few.
    async fn write<R>(&self, group: &Group, act: impl FnOnce(&mut Table) -> R + Send) -> Result<R> {
        let lost = self.client.service.fault_whole(Call::Lease).await?;
        let done = self.client.on(&self.topic, |topic| {
            let table = topic.groups.get_mut(group);
            table
                .map(act)
                .ok_or_else(|| Error::not_found("there is no such group; subscribe again"))
        })?;
        lost.answer(done)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for ShardedLeases {
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>> {
        self.client.on(&self.topic, |topic| {
            Ok(topic.groups.get(group).map(Table::rows))
        })
    }

    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool> {
        self.client.on(&self.topic, |topic| {
            if topic.groups.contains_key(group) {
                return Ok(false);
            }
            let table = Table::new(first, self.client.service.epoch());
            topic.groups.insert(group.clone(), table);
            Ok(true)
        })
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        self.write(group, |table| table.add(children)).await
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        self.write(group, |table| table.take(seen, by)).await
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        let each = |table: &mut Table| held.iter().map(|stay| table.renew(*stay)).collect();
        self.write(group, each).await
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let each = |table: &mut Table| marks.iter().map(|mark| table.commit(mark)).collect();
        self.write(group, each).await
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        self.write(group, |table| table.release(tenancy)).await
    }
}
