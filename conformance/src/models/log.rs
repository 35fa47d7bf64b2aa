//! A log in small: one partition in one total order, as the embedded log has it.
//!
//! What it shows: appends on a condition, ids and submissions that are recognised, epochs that
//! fence, an index by key, an exact end, retention with gaps, groups over
//! [`Leases`] that one process owns at a time.

mod admin;
mod groups;
mod read;
#[cfg(test)]
mod tests;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{
    AppendCapabilities, Attempts, Batching, ByKey, Dedupe, Durability, GapSignal,
    GroupCapabilities, GroupNames, Incarnation, Limits, LogTime, Members, NoGroup, Order,
    Partitions, Provision, Receipt, Replay, Retention, Settle, Starts, Tail,
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
use super::requests::RequestLimits;
use super::service::{Service, check_cursor};
use topic::Topic;

const LIMITS: RequestLimits = RequestLimits {
    record_bytes: 1 << 20,
    batch_records: 1_000,
    batch_bytes: 4 << 20,
};

/// The log itself, which outlives its clients. Clones are the same log.
#[derive(Clone, Debug)]
pub struct State(Arc<Service<Topic>>);

impl State {
    /// A log without topics.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Service::new("model-log", clock)))
    }

    /// A new client: what another process would be.
    pub fn connect(&self) -> Log {
        Log {
            service: Arc::clone(&self.0),
            connection: self.0.connect(),
        }
    }

    /// What shall go wrong.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Drops all but the newest `keep` records of a topic, as an operator would: from then on its
    /// history is no longer whole, and its capabilities say so.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn trim(&self, topic: &TopicName, keep: usize) -> Result<()> {
        self.0.lock().get(topic)?.trim_to(keep);
        self.0.changed();
        Ok(())
    }
}

/// A client of the log.
#[derive(Clone, Debug)]
pub struct Log {
    service: Arc<Service<Topic>>,
    connection: Connection,
}

impl Log {
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

    /// Refuses a cursor that is not of this topic or names a place that it never had.
    fn check_cursor(&self, name: &TopicName, topic: &Topic, cursor: &Cursor) -> Result<()> {
        let origin = self.service.origin(name, &topic.incarnation);
        check_cursor(cursor, &origin)?;
        if topic::next_of(cursor).is_some_and(|next| next <= topic.next()) {
            return Ok(());
        }
        Err(Error::config(
            "this cursor names a place that the log never had; take one that a reader gave",
        ))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Log {
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
        LIMITS.check(batch)?;
        let all = |outcome: Outcome| Ok(AppendReport::all(batch.len(), &outcome));
        let fault = self.on(topic, |_| self.service.fault(Call::Append))?;
        match &fault {
            Some(Fault::Lose { done: false }) => return all(Outcome::Unknown(no_answer())),
            // A batch is stored whole or not at all.
            Some(Fault::Refuse(_)) => return all(Outcome::Rejected(refused())),
            _ => {}
        }
        // Stored at the first poll, so that whoever is polled first is stored first.
        let outcomes = self.on(topic, |open| {
            if let Some(annals_core::driver::Expect::End(end)) = &options.expect {
                self.check_cursor(topic, open, end)?;
            }
            open.append(self.service.clock.now(), batch, options)
        })?;
        self.service.changed();
        match fault {
            Some(Fault::Lose { .. }) => all(Outcome::Unknown(no_answer())),
            Some(Fault::Delay(delay)) => {
                let limit = options.deadline.unwrap_or(delay);
                self.service.clock.sleep(limit.min(delay)).await;
                if limit < delay {
                    return all(Outcome::Unknown(no_answer()));
                }
                Ok(AppendReport::new(outcomes))
            }
            _ => Ok(AppendReport::new(outcomes)),
        }
    }

    async fn locate(&self, name: &TopicName, start: &Start) -> Result<Cursor> {
        self.on(name, |topic| {
            let origin = self.service.origin(name, &topic.incarnation);
            match start {
                Start::After(cursor) => {
                    self.check_cursor(name, topic, cursor)?;
                    Ok(cursor.clone())
                }
                start => Ok(topic::cursor(origin, topic.locate(start))),
            }
        })
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.on(topic, |_| Ok(vec![the_partition()]))
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        read::open(self, topic, range)
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        Some(Arc::new(groups::LogLeases::new(self, topic)))
    }

    async fn subscribe(&self, _: &TopicName, _: &Group, _: &SubscribeOptions) -> Result<Inbound> {
        Err(Error::unsupported(
            "this log has no groups of its own; they are run over its leases",
        ))
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        Some(Arc::new(admin::LogAdmin(self.clone())))
    }

    async fn close(&self, _: Duration) -> Result<()> {
        self.connection.kill();
        Ok(())
    }
}

fn the_partition() -> Partition {
    Partition {
        id: PartitionId::ONLY,
        name: "0".into(),
        parents: Vec::new(),
        open: true,
    }
}

fn capabilities(topic: &Topic) -> Capabilities {
    Capabilities {
        replay: match topic.kept_for() {
            Retention::Forever => Replay::Full,
            limit => Replay::Retained(limit),
        }
        .into(),
        source: Provision::Native.into(),
        order: Order::Total.into(),
        starts: Starts::ALL.into(),
        group_starts: Starts::ALL.into(),
        log_time: LogTime::Arrival.into(),
        skew: Duration::ZERO.into(),
        tail: Tail::Exact.into(),
        gap: GapSignal::Exact.into(),
        incarnation: Incarnation::Exact.into(),
        by_key: ByKey::Indexed.into(),
        append: AppendCapabilities {
            batch: Batching::Atomic.into(),
            receipt: Receipt::Position.into(),
            conditional: true.into(),
            fenced: true.into(),
            dedupe: Dedupe::Window(topic.dedupe).into(),
            resubmit: Some(topic.dedupe).into(),
            in_flight: 16,
            parallel: 16,
            no_group: NoGroup::Kept.into(),
        },
        durability: Durability::Managed.into(),
        groups: GroupCapabilities {
            names: GroupNames::Any(u32::MAX).into(),
            members: Members::Local.into(),
            settle: Settle::UpTo.into(),
            hold: None.into(),
            attempts: Attempts::Taken.into(),
            fenced: true.into(),
            forgotten_after: None.into(),
            share_reads: false.into(),
            kept: topic.kept_for().into(),
            given_up_after: None.into(),
        },
        partitions: Partitions::One.into(),
        limits: Limits {
            record_bytes: Some(LIMITS.record_bytes as u64).into(),
            batch_records: Some(LIMITS.batch_records as u64).into(),
            batch_bytes: Some(LIMITS.batch_bytes as u64).into(),
            ..Limits::NONE
        },
        ..Capabilities::none()
    }
}
