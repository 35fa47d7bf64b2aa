//! Memberships, settlements and leases with a hook at each crossing.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{
    Arrived, Closed, Commits, Delivered, Lease, Leases, Mark, Room, Settled, Settler, Source,
    Tenancy, Token, Verdict,
};
use annals_core::{Group, PartitionId, Result};
use async_trait::async_trait;

use super::{Hook, Passage};

#[derive(Debug)]
pub(super) struct TapSource {
    below: Box<dyn Source>,
    hook: Arc<dyn Hook>,
    passage: Passage,
}

impl TapSource {
    pub(super) fn new(below: Box<dyn Source>, hook: Arc<dyn Hook>, passage: Passage) -> Self {
        Self {
            below,
            hook,
            passage,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Source for TapSource {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        let before = out.len();
        self.passage.fetches += 1;
        let below = &mut *self.below;
        let told = self.hook.receive(&mut self.passage, below, room, out).await;
        self.passage.passed += out.len().saturating_sub(before);
        told
    }

    fn hold(&mut self, partition: PartitionId, held: bool) {
        self.below.hold(partition, held);
    }

    async fn close(self: Box<Self>, grace: Duration) -> Result<Closed> {
        self.below.close(grace).await
    }
}

#[derive(Debug)]
pub(super) struct TapCommits {
    below: Arc<dyn Commits>,
    hook: Arc<dyn Hook>,
}

impl TapCommits {
    pub(super) fn new(below: Arc<dyn Commits>, hook: Arc<dyn Hook>) -> Self {
        Self { below, hook }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Commits for TapCommits {
    async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        self.hook.commit(&*self.below, marks).await
    }

    async fn release(&self, tenancy: Tenancy) -> Result<()> {
        self.below.release(tenancy).await
    }
}

#[derive(Debug)]
pub(super) struct TapSettler {
    below: Arc<dyn Settler>,
    hook: Arc<dyn Hook>,
}

impl TapSettler {
    pub(super) fn new(below: Arc<dyn Settler>, hook: Arc<dyn Hook>) -> Self {
        Self { below, hook }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Settler for TapSettler {
    async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>> {
        self.hook.settle(&*self.below, settlements).await
    }

    async fn extend(&self, tokens: &[Token], by: Duration) -> Result<Vec<Settled>> {
        self.hook.extend(&*self.below, tokens, by).await
    }

    fn release(&self, tokens: &[Token]) {
        self.hook.give_back(&*self.below, tokens);
    }

    fn held_for(&self, token: Token) -> Option<Duration> {
        self.below.held_for(token)
    }
}

#[derive(Debug)]
pub(super) struct TapLeases {
    below: Arc<dyn Leases>,
    hook: Arc<dyn Hook>,
}

impl TapLeases {
    pub(super) fn new(below: Arc<dyn Leases>, hook: Arc<dyn Hook>) -> Self {
        Self { below, hook }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for TapLeases {
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>> {
        self.hook.load(&*self.below, group).await
    }

    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool> {
        self.hook.found(&*self.below, group, first).await
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        self.hook.add(&*self.below, group, children).await
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        self.hook.take(&*self.below, group, seen, by).await
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        self.hook.renew(&*self.below, group, held).await
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        self.hook.commit_lease(&*self.below, group, marks).await
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        self.hook.release(&*self.below, group, tenancy).await
    }
}
