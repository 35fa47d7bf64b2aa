//! The sharded model with shards that are gone for good.

#![allow(
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part of it"
)]

use std::sync::Arc;
use std::time::Duration;

use annals_conformance::models::sharded::Sharded;
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Cursor, Error, Group, PartitionId, Result, Start, TopicName,
};
use async_trait::async_trait;

/// The log, whose shards cannot even be opened once they are listed no more, where that is said.
#[derive(Debug)]
pub struct Gone(pub Sharded, pub bool);

#[async_trait]
impl Backend for Gone {
    fn scheme(&self) -> &'static str {
        self.0.scheme()
    }
    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.0.capabilities(topic).await
    }
    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.0.append(topic, batch, options).await
    }
    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        self.0.locate(topic, start).await
    }
    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.0.partitions(topic).await
    }
    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        let listed = self.0.partitions(topic).await?;
        let is_gone = |id: &PartitionId| listed.iter().all(|p| p.id != *id);
        if self.1 && range.partitions.iter().flatten().any(is_gone) {
            return Err(Error::not_found("there is no such shard"));
        }
        self.0.read(topic, range).await
    }
    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        self.0.leases(topic)
    }
    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        self.0.subscribe(topic, group, options).await
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        self.0.admin()
    }
    async fn close(&self, grace: Duration) -> Result<()> {
        self.0.close(grace).await
    }
}
