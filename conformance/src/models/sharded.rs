//! A sharded log in small, as Kinesis is: shards that split and merge.
//!
//! What it shows: keys hashed to shards, parents and children, requests of which any part may be
//! stored, positions with holes that do not fit 64 bits, small answers that may be empty,
//! retention by shard, groups over [`Leases`] that any process may take.

mod admin;
mod groups;
mod read;
mod shard;
#[cfg(test)]
mod tests;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{
    AppendCapabilities, Attempts, Batching, ByKey, Dedupe, Durability, GapSignal,
    GroupCapabilities, GroupNames, Incarnation, Limits, LogTime, Members, NoGroup, Order,
    Partitions, Provision, Receipt, Replay, Settle, Starts, Tail,
};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Clock, Cursor, Error, Group, Outcome, PartitionId, Result,
    Start, TopicName,
};
use async_trait::async_trait;

use super::connection::Connection;
use super::faults::{Call, Fault, Faults, no_answer, refused};
use super::requests::{RequestLimits, first_of_each_key, plain_only};
use super::service::{Service, check_cursor};
use topic::Topic;

const LIMITS: RequestLimits = RequestLimits {
    record_bytes: 1 << 20,
    batch_records: 500,
    batch_bytes: 5 << 20,
};

/// The sharded log itself, which outlives its clients. Clones are the same one.
#[derive(Clone, Debug)]
pub struct State(Arc<Service<Topic>>);

impl State {
    /// A sharded log without topics.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Service::new("model-sharded", clock)))
    }

    /// A new client: what another process would be.
    pub fn connect(&self) -> Sharded {
        Sharded {
            service: Arc::clone(&self.0),
            connection: self.0.connect(),
        }
    }

    /// What shall go wrong.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Drops all but the newest `keep` records of each shard, as if they had aged out; closed
    /// shards that are left with none, as what they continue is, are listed no more.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn trim(&self, topic: &TopicName, keep: usize) -> Result<()> {
        self.0.lock().get(topic)?.trim_to(keep);
        self.0.changed();
        Ok(())
    }

    /// Closes a shard and opens two children, each with half of its keys.
    ///
    /// # Errors
    /// `NotFound`; `Config` when the shard is closed or too small.
    pub fn split(
        &self,
        topic: &TopicName,
        shard: PartitionId,
    ) -> Result<(PartitionId, PartitionId)> {
        let now = self.0.clock.now();
        let children = self.0.lock().get(topic)?.split(now, shard)?;
        self.0.changed();
        Ok(children)
    }

    /// Closes two neighbours and opens one child with the keys of both.
    ///
    /// # Errors
    /// `NotFound`; `Config` when one is closed or they are no neighbours.
    pub fn merge(
        &self,
        topic: &TopicName,
        one: PartitionId,
        other: PartitionId,
    ) -> Result<PartitionId> {
        let now = self.0.clock.now();
        let child = self.0.lock().get(topic)?.merge(now, one, other)?;
        self.0.changed();
        Ok(child)
    }

    /// Where a record of this key would be stored now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn shard_of(&self, topic: &TopicName, key: &[u8]) -> Result<PartitionId> {
        self.0.lock().get(topic)?.shard_of(topic::hash(key))
    }
}

/// A client of the sharded log.
#[derive(Clone, Debug)]
pub struct Sharded {
    service: Arc<Service<Topic>>,
    connection: Connection,
}

impl Sharded {
    /// This client's connection, to kill it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Looks at a topic as it is now, retention applied.
    fn on<R>(&self, name: &TopicName, look: impl FnOnce(&mut Topic) -> Result<R>) -> Result<R> {
        self.connection.check()?;
        let mut topics = self.service.lock();
        let topic = topics.get(name)?;
        topic.retain(self.service.clock.now());
        look(topic)
    }

    fn check_cursor(&self, name: &TopicName, topic: &Topic, cursor: &Cursor) -> Result<()> {
        let origin = self.service.origin(name, &topic.incarnation);
        check_cursor(cursor, &origin)?;
        match cursor.places().find(|(id, _)| topic.shard(*id).is_none()) {
            None => Ok(()),
            Some((id, _)) => Err(Error::config(format!(
                "this cursor names shard {id}, which this topic never had"
            ))),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Sharded {
    fn scheme(&self) -> &'static str {
        self.service.scheme
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.on(topic, |topic| Ok(capabilities(topic)))
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        plain_only(options)?;
        LIMITS.check(batch)?;
        let fault = self.on(topic, |_| self.service.fault(Call::Append))?;
        let doomed =
            |index: usize| matches!(&fault, Some(Fault::Refuse(at)) if at.contains(&index));
        let arrives = fault != Some(Fault::Lose { done: false });
        let travels = first_of_each_key(batch);
        let now = self.service.clock.now();
        let mut outcomes = self.on(topic, |topic| {
            let each = batch.records().iter().zip(&travels).enumerate();
            each.map(|(index, (record, travels))| {
                Ok(match (travels, doomed(index)) {
                    (false, _) => Outcome::NotAttempted,
                    (true, true) => Outcome::Rejected(refused()),
                    (true, false) if !arrives => Outcome::Unknown(no_answer()),
                    (true, false) => Outcome::Stored(topic.store(now, record)?),
                })
            })
            .collect::<Result<Vec<_>>>()
        })?;
        self.service.changed();
        let answered = match (&fault, options.deadline) {
            (Some(Fault::Lose { .. }), _) => false,
            (Some(Fault::Delay(delay)), limit) => {
                let limit = limit.unwrap_or(*delay);
                self.service.clock.sleep(limit.min(*delay)).await;
                limit >= *delay
            }
            _ => true,
        };
        if !answered {
            for outcome in &mut outcomes {
                if matches!(outcome, Outcome::Stored(_)) {
                    *outcome = Outcome::Unknown(no_answer());
                }
            }
        }
        Ok(AppendReport::new(outcomes))
    }

    async fn locate(&self, name: &TopicName, start: &Start) -> Result<Cursor> {
        self.on(name, |topic| {
            if let Start::After(cursor) = start {
                self.check_cursor(name, topic, cursor)?;
                return Ok(cursor.clone());
            }
            let origin = self.service.origin(name, &topic.incarnation);
            Ok(topic.locate(origin, start))
        })
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.on(topic, |topic| Ok(topic.listed()))
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        read::open(self, topic, range)
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        Some(Arc::new(groups::ShardedLeases::new(self, topic)))
    }

    async fn subscribe(&self, _: &TopicName, _: &Group, _: &SubscribeOptions) -> Result<Inbound> {
        Err(Error::unsupported(
            "a sharded log has no groups of its own; they are run over its leases",
        ))
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        Some(Arc::new(admin::ShardedAdmin(self.clone())))
    }

    async fn close(&self, _: Duration) -> Result<()> {
        self.connection.kill();
        Ok(())
    }
}

fn capabilities(topic: &Topic) -> Capabilities {
    Capabilities {
        replay: Replay::Retained(topic.kept_for()).into(),
        source: Provision::Native.into(),
        order: Order::Partition.into(),
        starts: Starts::ALL.into(),
        group_starts: Starts::ALL.into(),
        log_time: LogTime::Arrival.into(),
        skew: Duration::ZERO.into(),
        tail: Tail::Exact.into(),
        gap: GapSignal::Exact.into(),
        incarnation: Incarnation::Exact.into(),
        by_key: ByKey::Scanned.into(),
        append: AppendCapabilities {
            batch: Batching::Unordered.into(),
            receipt: Receipt::Position.into(),
            conditional: false.into(),
            fenced: false.into(),
            dedupe: Dedupe::None.into(),
            resubmit: None.into(),
            in_flight: 1,
            parallel: 16,
            no_group: NoGroup::Kept.into(),
        },
        durability: Durability::Managed.into(),
        groups: GroupCapabilities {
            names: GroupNames::Any(u32::MAX).into(),
            members: Members::Leased.into(),
            settle: Settle::UpTo.into(),
            hold: None.into(),
            attempts: Attempts::Taken.into(),
            fenced: true.into(),
            forgotten_after: None.into(),
            share_reads: false.into(),
            kept: topic.kept_for().into(),
            given_up_after: None.into(),
        },
        partitions: Partitions::Lineage.into(),
        limits: Limits {
            record_bytes: Some(LIMITS.record_bytes as u64).into(),
            batch_records: Some(LIMITS.batch_records as u64).into(),
            batch_bytes: Some(LIMITS.batch_bytes as u64).into(),
            ..Limits::NONE
        },
        ..Capabilities::none()
    }
}
