//! Groups of the log: a table of leases that one process owns at a time.

use std::sync::Arc;

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{Error, Group, Result, TopicName};
use async_trait::async_trait;

use super::Log;
use crate::models::connection::Trace;
use crate::models::faults::Call;
use crate::models::leases::Table;

/// One group.
#[derive(Debug)]
pub(super) struct LogGroup {
    pub(super) table: Table,
    /// The process whose members compete for it; the others stand by until it is gone.
    owner: Option<Trace>,
}

impl LogGroup {
    pub(super) fn new(first: &[Lease], epoch: u64) -> Self {
        Self {
            table: Table::new(first, epoch),
            owner: None,
        }
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owner.as_ref().is_some_and(Trace::lives)
    }
}

/// The groups of one topic, as one client sees them.
#[derive(Debug)]
pub(super) struct LogLeases {
    log: Log,
    topic: TopicName,
}

impl LogLeases {
    pub(super) fn new(log: &Log, topic: &TopicName) -> Self {
        Self {
            log: log.clone(),
            topic: topic.clone(),
        }
    }

    fn on<R>(&self, group: &Group, act: impl FnOnce(&mut LogGroup) -> R) -> Result<R> {
        self.log.on(&self.topic, |topic| {
            let group = topic.groups.get_mut(group);
            group
                .map(act)
                .ok_or_else(|| Error::not_found("there is no such group; subscribe again"))
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for LogLeases {
    async fn load(&self, group: &Group) -> Result<Option<Vec<Lease>>> {
        self.log.on(&self.topic, |topic| {
            Ok(topic.groups.get(group).map(|group| group.table.rows()))
        })
    }

    async fn found(&self, group: &Group, first: &[Lease]) -> Result<bool> {
        self.log.on(&self.topic, |topic| {
            if topic.groups.contains_key(group) {
                return Ok(false);
            }
            let made = LogGroup::new(first, self.log.service.epoch());
            topic.groups.insert(group.clone(), made);
            Ok(true)
        })
    }

    async fn add(&self, group: &Group, children: &[Lease]) -> Result<()> {
        self.on(group, |group| group.table.add(children))
    }

    async fn take(&self, group: &Group, seen: &Lease, by: &Arc<str>) -> Result<Option<Tenancy>> {
        let lost = self.log.service.fault_whole(Call::Lease).await?;
        let taken = self.on(group, |group| {
            let me = &self.log.connection;
            if group
                .owner
                .as_ref()
                .is_some_and(|owner| owner.lives() && !owner.is(me))
            {
                return None;
            }
            let tenancy = group.table.take(seen, by)?;
            group.owner = Some(me.trace());
            Some(tenancy)
        })?;
        lost.answer(taken)
    }

    async fn renew(&self, group: &Group, held: &[Tenancy]) -> Result<Vec<Result<()>>> {
        let lost = self.log.service.fault_whole(Call::Lease).await?;
        let renewed = self.on(group, |group| {
            held.iter().map(|stay| group.table.renew(*stay)).collect()
        })?;
        lost.answer(renewed)
    }

    async fn commit(&self, group: &Group, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let lost = self.log.service.fault_whole(Call::Lease).await?;
        let committed = self.on(group, |group| {
            marks.iter().map(|mark| group.table.commit(mark)).collect()
        })?;
        lost.answer(committed)
    }

    async fn release(&self, group: &Group, tenancy: Tenancy) -> Result<()> {
        let lost = self.log.service.fault_whole(Call::Lease).await?;
        self.on(group, |group| {
            group.table.release(tenancy);
            // With nothing held, another process may have it.
            if group.table.rows().iter().all(|row| row.owner.is_none()) {
                group.owner = None;
            }
        })?;
        lost.answer(())
    }
}
