//! The backend with failures between the caller and the log.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Cursor, Effect, Error, ErrorKind, Group, Outcome, Result,
    Retry, Start, TopicName,
};
use async_trait::async_trait;

use super::faults::{Faults, OnTheWay};
use crate::backend::Embedded;

#[derive(Debug)]
pub(super) struct Flaky {
    pub(super) inner: Embedded,
    pub(super) faults: Faults,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Flaky {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.inner.capabilities(topic).await
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let met = self.faults.meet();
        if let Some(OnTheWay::Throttled(after)) = met {
            return Err(Error::new(
                ErrorKind::Throttled,
                Effect::None,
                Retry::After(after),
                "the log asks to slow down; try again later",
            ));
        }
        let report = self.inner.append(topic, batch, options).await?;
        if met == Some(OnTheWay::LostReply) {
            let error = Error::new(
                ErrorKind::Timeout,
                Effect::Unknown,
                Retry::Backoff,
                "the request left and no answer came; it may have happened",
            );
            return Ok(AppendReport::all(batch.len(), &Outcome::Unknown(error)));
        }
        Ok(report)
    }

    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        self.inner.locate(topic, start).await
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.inner.partitions(topic).await
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        self.inner.read(topic, range).await
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        self.inner.leases(topic)
    }

    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        self.inner.subscribe(topic, group, options).await
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        self.inner.admin()
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.inner.close(grace).await
    }
}
