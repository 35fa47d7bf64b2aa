//! A wrapper round a backend that looks at, or changes, what crosses it: one [`Hook`] with a method
//! for each crossing, each of which does by default what was asked for.

mod group;
mod reading;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{
    Admin, AppendOptions, Arrived, Backend, Commits, Delivered, Fetched, Inbound, Lease, Leases,
    Mark, Opened, Partition, ReadRange, Reader, Room, Settled, Settler, Source, SubscribeOptions,
    Tenancy, Token, Verdict,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Cursor, Group, Recorded, Result, Start, TopicName,
};
use async_trait::async_trait;

use group::{TapCommits, TapLeases, TapSettler, TapSource};
use reading::TapReader;

/// One open reading or membership, with room for what a hook wants to remember of it.
#[derive(Debug)]
pub struct Passage {
    /// Of which topic.
    pub topic: TopicName,
    /// Which range, of a reading.
    pub range: Option<ReadRange>,
    /// Of which group, of a membership.
    pub group: Option<Group>,
    /// How many fetches there have been, this one included.
    pub fetches: usize,
    /// How many records have passed.
    pub passed: usize,
    /// Records that a hook keeps for later.
    pub kept: Vec<Recorded>,
    /// Deliveries that a hook keeps for later.
    pub held: Vec<Delivered>,
    /// A mark of the hook's own.
    pub mark: usize,
}

impl Passage {
    fn new(topic: &TopicName) -> Self {
        Self {
            topic: topic.clone(),
            range: None,
            group: None,
            fetches: 0,
            passed: 0,
            kept: Vec::new(),
            held: Vec::new(),
            mark: 0,
        }
    }
}

/// What happens at each crossing. `below` is what is wrapped.
#[async_trait]
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// What the topic is said to promise.
    fn capabilities(&self, _topic: &TopicName, has: Capabilities) -> Capabilities {
        has
    }

    /// One attempt to append.
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        below.append(topic, batch, options).await
    }

    /// The place that a start means.
    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        below.locate(topic, start).await
    }

    /// The list of partitions.
    async fn partitions(&self, below: &dyn Backend, topic: &TopicName) -> Result<Vec<Partition>> {
        below.partitions(topic).await
    }

    /// The open of a reading.
    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        below.read(topic, range).await
    }

    /// A fetch of a reading.
    async fn fetch(
        &self,
        _passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        below.fetch(room, out).await
    }

    /// The open of a membership.
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        below.subscribe(topic, group, options).await
    }

    /// A fetch of a membership.
    async fn receive(
        &self,
        _passage: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        below.fetch(room, out).await
    }

    /// A settlement of deliveries.
    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        below.settle(settlements).await
    }

    /// An extension of deliveries.
    async fn extend(
        &self,
        below: &dyn Settler,
        tokens: &[Token],
        by: Duration,
    ) -> Result<Vec<Settled>> {
        below.extend(tokens, by).await
    }

    /// Deliveries given back from a drop.
    fn give_back(&self, below: &dyn Settler, tokens: &[Token]) {
        below.release(tokens);
    }

    /// A commit of a source's own groups.
    async fn commit(&self, below: &dyn Commits, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        below.commit(marks).await
    }

    /// A group's table, read.
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        below.load(group).await
    }

    /// A group's table, made.
    async fn found(&self, below: &dyn Leases, group: &Group, first: &[Lease]) -> Result<bool> {
        below.found(group, first).await
    }

    /// Rows added to a group's table.
    async fn add(&self, below: &dyn Leases, group: &Group, children: &[Lease]) -> Result<()> {
        below.add(group, children).await
    }

    /// A lease taken.
    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        below.take(group, seen, by).await
    }

    /// Leases renewed.
    async fn renew(
        &self,
        below: &dyn Leases,
        group: &Group,
        held: &[Tenancy],
    ) -> Result<Vec<Result<()>>> {
        below.renew(group, held).await
    }

    /// A commit into a group's table.
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        below.commit(group, marks).await
    }

    /// A lease given back.
    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        below.release(group, tenancy).await
    }

    /// The administration.
    fn admin(&self, below: Option<Arc<dyn Admin>>) -> Option<Arc<dyn Admin>> {
        below
    }

    /// The end of a client.
    async fn close(&self, below: &dyn Backend, grace: Duration) -> Result<()> {
        below.close(grace).await
    }
}

/// A backend with a hook at each crossing.
#[derive(Clone, Debug)]
pub struct Tap {
    below: Arc<dyn Backend>,
    hook: Arc<dyn Hook>,
}

impl Tap {
    /// Round `below`.
    pub fn new(below: Arc<dyn Backend>, hook: Arc<dyn Hook>) -> Self {
        Self { below, hook }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Tap {
    fn scheme(&self) -> &'static str {
        self.below.scheme()
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        let has = self.below.capabilities(topic).await?;
        Ok(self.hook.capabilities(topic, has))
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.hook.append(&*self.below, topic, batch, options).await
    }

    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        self.hook.locate(&*self.below, topic, start).await
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.hook.partitions(&*self.below, topic).await
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        let opened = self.hook.read(&*self.below, topic, range).await?;
        let mut passage = Passage::new(topic);
        passage.range = Some(range.clone());
        Ok(Opened {
            reader: Box::new(TapReader::new(
                opened.reader,
                Arc::clone(&self.hook),
                passage,
            )),
            ..opened
        })
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        let below = self.below.leases(topic)?;
        Some(Arc::new(TapLeases::new(below, Arc::clone(&self.hook))))
    }

    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let inbound = self
            .hook
            .subscribe(&*self.below, topic, group, options)
            .await?;
        let mut passage = Passage::new(topic);
        passage.group = Some(group.clone());
        let hook = || Arc::clone(&self.hook);
        Ok(Inbound {
            source: Box::new(TapSource::new(inbound.source, hook(), passage)),
            settling: match inbound.settling {
                annals_core::driver::Settling::UpTo(commits) => {
                    annals_core::driver::Settling::UpTo(Arc::new(TapCommits::new(commits, hook())))
                }
                annals_core::driver::Settling::Each(settler) => {
                    annals_core::driver::Settling::Each(Arc::new(TapSettler::new(settler, hook())))
                }
            },
            existed: inbound.existed,
        })
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        self.hook.admin(self.below.admin())
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.hook.close(&*self.below, grace).await
    }
}
