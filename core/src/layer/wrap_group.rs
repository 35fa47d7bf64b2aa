//! What a group is made of, with something round each attempt.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::attempt::{Around, Attempt, Pushed};
use crate::driver::{
    Arrived, Closed, Commits, Delivered, Inbound, Lease, Leases, Mark, Room, Settled, Settler,
    Settling, Source, Tenancy, Token, Verdict,
};
use crate::error::{Operation, Result};
use crate::name::{Group, TopicName};
use crate::position::PartitionId;

/// What the parts of one membership have in common.
#[derive(Clone, Debug)]
pub(super) struct Parts<A> {
    pub(super) by: A,
    pub(super) scheme: &'static str,
    pub(super) topic: TopicName,
    pub(super) group: Group,
}

impl<A> Parts<A> {
    const fn settles(&self, name: &'static str) -> Attempt<'_> {
        Attempt::changes(name, self.scheme, Operation::Settle)
            .on(&self.topic)
            .of(&self.group)
    }
}

/// An opened membership, wrapped.
pub(super) fn inbound<A: Around>(opened: Inbound, parts: &Parts<A>) -> Inbound {
    let settling = match opened.settling {
        Settling::UpTo(inner) => Settling::UpTo(Arc::new(Wrapped {
            inner,
            parts: parts.clone(),
        })),
        Settling::Each(inner) => Settling::Each(Arc::new(Wrapped {
            inner,
            parts: parts.clone(),
        })),
    };
    let source = Wrapped {
        inner: opened.source,
        parts: parts.clone(),
    };
    Inbound {
        source: Box::new(source),
        settling,
        existed: opened.existed,
    }
}

#[derive(Debug)]
struct Wrapped<A, T> {
    inner: T,
    parts: Parts<A>,
}

/// The partition that marks or stays are all of.
fn only(mut partitions: impl Iterator<Item = PartitionId>) -> Option<PartitionId> {
    let first = partitions.next()?;
    partitions.all(|other| other == first).then_some(first)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Source for Wrapped<A, Box<dyn Source>> {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        let parts = &self.parts;
        let attempt = Attempt::asks("receive", parts.scheme, Operation::Subscribe)
            .on(&parts.topic)
            .of(&parts.group)
            .waiting(true);
        let inner = &mut self.inner;
        let call = async {
            let before = out.len();
            let said = inner.fetch(room, out).await?;
            Ok(Pushed(said, out.len().saturating_sub(before)))
        };
        let Pushed(said, _) = parts.by.around(attempt, call).await?;
        Ok(said)
    }

    fn hold(&mut self, partition: PartitionId, held: bool) {
        self.inner.hold(partition, held);
    }

    async fn close(self: Box<Self>, grace: Duration) -> Result<Closed> {
        self.inner.close(grace).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Commits for Wrapped<A, Arc<dyn Commits>> {
    async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let partition = only(marks.iter().map(|mark| mark.tenancy.partition));
        let attempt = self.parts.settles("commit").within(partition);
        let call = self.inner.commit(marks);
        self.parts.by.around(attempt, call).await
    }

    async fn release(&self, tenancy: Tenancy) -> Result<()> {
        let attempt = self
            .parts
            .settles("release")
            .within(Some(tenancy.partition));
        let call = self.inner.release(tenancy);
        self.parts.by.around(attempt, call).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Settler for Wrapped<A, Arc<dyn Settler>> {
    async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>> {
        let attempt = self.parts.settles("settle").about(settlements.len());
        let call = self.inner.settle(settlements);
        self.parts.by.around(attempt, call).await
    }

    async fn extend(&self, tokens: &[Token], by: Duration) -> Result<Vec<Settled>> {
        let attempt = self.parts.settles("extend").about(tokens.len());
        let call = self.inner.extend(tokens, by);
        self.parts.by.around(attempt, call).await
    }

    fn release(&self, tokens: &[Token]) {
        self.inner.release(tokens);
    }

    fn held_for(&self, token: Token) -> Option<Duration> {
        self.inner.held_for(token)
    }
}

#[derive(Debug)]
pub(super) struct WrappedLeases<A> {
    pub(super) inner: Arc<dyn Leases>,
    pub(super) by: A,
    pub(super) scheme: &'static str,
    pub(super) topic: TopicName,
}

impl<A> WrappedLeases<A> {
    const fn changes<'a>(&'a self, name: &'static str, group: &'a Group) -> Attempt<'a> {
        Attempt::changes(name, self.scheme, Operation::Subscribe)
            .on(&self.topic)
            .of(group)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Leases for WrappedLeases<A> {
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>> {
        let attempt = Attempt::asks("load", self.scheme, Operation::Subscribe)
            .on(&self.topic)
            .of(group);
        self.by.around(attempt, self.inner.load(group)).await
    }

    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool> {
        let call = self.inner.found(group, first);
        self.by.around(self.changes("found", group), call).await
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        let call = self.inner.add(group, children);
        self.by.around(self.changes("add", group), call).await
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        let attempt = self.changes("take", group).within(Some(seen.partition));
        let call = self.inner.take(group, seen, by);
        self.by.around(attempt, call).await
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        let partition = only(held.iter().map(|tenancy| tenancy.partition));
        let attempt = self.changes("renew", group).within(partition);
        let call = self.inner.renew(group, held);
        self.by.around(attempt, call).await
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let partition = only(marks.iter().map(|mark| mark.tenancy.partition));
        let attempt = Attempt::changes("commit", self.scheme, Operation::Settle)
            .on(&self.topic)
            .of(group)
            .within(partition);
        let call = self.inner.commit(group, marks);
        self.by.around(attempt, call).await
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        let attempt = self
            .changes("release", group)
            .within(Some(tenancy.partition));
        let call = self.inner.release(group, tenancy);
        self.by.around(attempt, call).await
    }
}
