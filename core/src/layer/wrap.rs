//! A backend, its readers and its administration with something round each attempt.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::attempt::{Around, Attempt, Pushed};
use super::wrap_group::{Parts, WrappedLeases, inbound};
use crate::batch::Batch;
use crate::capability::Capabilities;
use crate::cursor::Cursor;
use crate::driver::{
    Admin, AppendOptions, Backend, Description, Fetched, GroupStatus, Inbound, Lag, Leases, Opened,
    Partition, ReadRange, Reader, Room, Stop, SubscribeOptions, TopicSpec,
};
use crate::error::{Operation, Result};
use crate::name::{Group, TopicName};
use crate::outcome::AppendReport;
use crate::position::PartitionId;
use crate::recorded::Recorded;
use crate::start::Start;

#[derive(Debug)]
pub(super) struct Wrapped<A> {
    pub(super) inner: Arc<dyn Backend>,
    pub(super) by: A,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Backend for Wrapped<A> {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        let attempt = Attempt::asks("capabilities", self.scheme(), Operation::Open).on(topic);
        let call = self.inner.capabilities(topic);
        self.by.around(attempt, call).await
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let attempt = Attempt::changes("append", self.scheme(), Operation::Append)
            .on(topic)
            .about(batch.len());
        let sooner;
        let options = match self.by.limit() {
            Some(limit) if options.deadline.is_none_or(|deadline| deadline > limit) => {
                // So that a backend that can tell what it has not sent has the chance to.
                sooner = AppendOptions {
                    deadline: Some(limit),
                    ..options.clone()
                };
                &sooner
            }
            _ => options,
        };
        let call = self.inner.append(topic, batch, options);
        self.by.around(attempt, call).await
    }

    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        let attempt = Attempt::asks("locate", self.scheme(), Operation::Read).on(topic);
        let call = self.inner.locate(topic, start);
        self.by.around(attempt, call).await
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        let attempt = Attempt::asks("partitions", self.scheme(), Operation::Read).on(topic);
        let call = self.inner.partitions(topic);
        self.by.around(attempt, call).await
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        let partition = match range.partitions.as_deref() {
            Some([one]) => Some(*one),
            _ => None,
        };
        let attempt = Attempt::asks("read", self.scheme(), Operation::Read)
            .on(topic)
            .within(partition);
        let call = self.inner.read(topic, range);
        let opened = self.by.around(attempt, call).await?;
        let reader = WrappedReader {
            inner: opened.reader,
            by: self.by.clone(),
            scheme: self.scheme(),
            topic: topic.clone(),
            partition,
            ends: matches!(range.stop, Stop::End | Stop::Through(_)),
        };
        Ok(Opened {
            reader: Box::new(reader),
            ..opened
        })
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        let inner = self.inner.leases(topic)?;
        Some(Arc::new(WrappedLeases {
            inner,
            by: self.by.clone(),
            scheme: self.scheme(),
            topic: topic.clone(),
        }))
    }

    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let attempt = Attempt::changes("subscribe", self.scheme(), Operation::Subscribe)
            .on(topic)
            .of(group);
        let call = self.inner.subscribe(topic, group, options);
        let opened = self.by.around(attempt, call).await?;
        let parts = Parts {
            by: self.by.clone(),
            scheme: self.scheme(),
            topic: topic.clone(),
            group: group.clone(),
        };
        Ok(inbound(opened, &parts))
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        let inner = self.inner.admin()?;
        Some(Arc::new(WrappedAdmin {
            inner,
            by: self.by.clone(),
            scheme: self.scheme(),
        }))
    }

    /// It has its own limit.
    async fn close(&self, grace: Duration) -> Result<()> {
        self.inner.close(grace).await
    }
}

#[derive(Debug)]
struct WrappedReader<A> {
    inner: Box<dyn Reader>,
    by: A,
    scheme: &'static str,
    topic: TopicName,
    partition: Option<PartitionId>,
    /// Whether there is always something left to say until it ends.
    ends: bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Reader for WrappedReader<A> {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        let attempt = Attempt::asks("fetch", self.scheme, Operation::Read)
            .on(&self.topic)
            .within(self.partition)
            .waiting(!self.ends || room.is_none());
        let inner = &mut self.inner;
        let call = async {
            let before = out.len();
            let said = inner.fetch(room, out).await?;
            Ok(Pushed(said, out.len().saturating_sub(before)))
        };
        let Pushed(said, _) = self.by.around(attempt, call).await?;
        Ok(said)
    }

    async fn close(self: Box<Self>, grace: Duration) -> Result<()> {
        self.inner.close(grace).await
    }
}

#[derive(Debug)]
struct WrappedAdmin<A> {
    inner: Arc<dyn Admin>,
    by: A,
    scheme: &'static str,
}

impl<A> WrappedAdmin<A> {
    const fn asks<'a>(&self, name: &'static str) -> Attempt<'a> {
        Attempt::asks(name, self.scheme, Operation::Admin)
    }

    const fn changes<'a>(&self, name: &'static str) -> Attempt<'a> {
        Attempt::changes(name, self.scheme, Operation::Admin)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Admin for WrappedAdmin<A> {
    async fn create(&self, topic: &TopicName, spec: &TopicSpec) -> Result<bool> {
        let call = self.inner.create(topic, spec);
        self.by.around(self.changes("create").on(topic), call).await
    }

    async fn describe(&self, topic: &TopicName) -> Result<Description> {
        let call = self.inner.describe(topic);
        self.by.around(self.asks("describe").on(topic), call).await
    }

    async fn topics(&self) -> Result<Vec<TopicName>> {
        self.by
            .around(self.asks("topics"), self.inner.topics())
            .await
    }

    async fn delete(&self, topic: &TopicName) -> Result<()> {
        let call = self.inner.delete(topic);
        self.by.around(self.changes("delete").on(topic), call).await
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupStatus>> {
        let call = self.inner.groups(topic);
        self.by.around(self.asks("groups").on(topic), call).await
    }

    async fn create_group(
        &self,
        topic: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool> {
        let attempt = self.changes("create_group").on(topic).of(group);
        let call = self.inner.create_group(topic, group, start);
        self.by.around(attempt, call).await
    }

    async fn delete_group(&self, topic: &TopicName, group: &Group) -> Result<()> {
        let attempt = self.changes("delete_group").on(topic).of(group);
        let call = self.inner.delete_group(topic, group);
        self.by.around(attempt, call).await
    }

    async fn lag(&self, topic: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>> {
        let call = self.inner.lag(topic, cursor);
        self.by.around(self.asks("lag").on(topic), call).await
    }

    async fn group_lag(&self, topic: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        let attempt = self.asks("group_lag").on(topic).of(group);
        let call = self.inner.group_lag(topic, group);
        self.by.around(attempt, call).await
    }
}
