//! A queue in small, as SQS FIFO behind SNS and a quorum queue are: nothing is read again.
//!
//! What it shows: groups that see only what is appended after they were made, appends that none
//! would see, deliveries that are lent for a while and settled each, keys of which one consumer has
//! the oldest messages, receive counts, answers of ten at most.

mod admin;
mod backlog;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{
    AppendCapabilities, Attempts, Batching, Dedupe, Durability, GroupCapabilities, GroupNames,
    Hold, Limits, LogTime, Members, NoGroup, Order, Partitions, Provision, Receipt, Retention,
    Settle, Starts,
};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, Settling,
    SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Clock, Cursor, Effect, Error, ErrorKind, Group, Outcome,
    Recorded, Result, Retry, Start, Stored, TopicName,
};
use async_trait::async_trait;
use bytes::Bytes;

use super::connection::Connection;
use super::faults::{Call, Fault, Faults, no_answer, refused};
use super::requests::{RequestLimits, plain_only, travelling};
use super::service::Service;
use backlog::Backlog;

const LIMITS: RequestLimits = RequestLimits {
    record_bytes: 256 << 10,
    batch_records: 10,
    batch_bytes: 256 << 10,
};

/// For how long a delivery is lent unless somebody asks for less, or extends it.
const HOLD: Hold = Hold {
    lease: Duration::from_secs(30),
    extend: true,
    most: Some(Duration::from_secs(12 * 60 * 60)),
};

/// The queue service itself, which outlives its clients. Clones are the same one.
#[derive(Clone, Debug)]
pub struct State(Arc<Service<Topic>>);

impl State {
    /// A service without topics.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Service::new("model-queue", clock)))
    }

    /// A new client: what another process would be.
    pub fn connect(&self) -> Queue {
        Queue {
            service: Arc::clone(&self.0),
            connection: self.0.connect(),
        }
    }

    /// What shall go wrong.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }
}

/// One topic: a backlog for each group.
#[derive(Debug, Default)]
struct Topic {
    groups: BTreeMap<Group, Backlog>,
    /// How many records it ever took.
    taken: u64,
    /// For how long a repeated id is dropped.
    dedupe: Option<Duration>,
    /// When each id was first taken.
    ids: HashMap<Bytes, Duration>,
}

impl Topic {
    /// Whether the id was taken within the window; remembers it.
    fn repeats(&mut self, id: Option<&Bytes>, now: Duration) -> bool {
        let (Some(window), Some(id)) = (self.dedupe, id) else {
            return false;
        };
        self.ids
            .retain(|_, first| now.saturating_sub(*first) < window);
        self.ids.contains_key(id) || self.ids.insert(id.clone(), now).is_some()
    }
}

/// A client of the queue.
#[derive(Clone, Debug)]
pub struct Queue {
    service: Arc<Service<Topic>>,
    connection: Connection,
}

impl Queue {
    /// This client's connection, to kill it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn on<R>(&self, name: &TopicName, look: impl FnOnce(&mut Topic) -> Result<R>) -> Result<R> {
        self.connection.check()?;
        look(self.service.lock().get(name)?)
    }

    fn on_group<R>(
        &self,
        name: &TopicName,
        group: &Group,
        look: impl FnOnce(&mut Backlog) -> R,
    ) -> Result<R> {
        self.on(name, |topic| {
            let backlog = topic.groups.get_mut(group);
            backlog.map(look).ok_or_else(no_group)
        })
    }
}

fn no_group() -> Error {
    Error::not_found("there is no such group; subscribe again")
}

fn unseen() -> Error {
    Error::new(
        ErrorKind::NoGroup,
        Effect::None,
        Retry::Never,
        "the topic has no group, so nobody would ever see this record; make one first",
    )
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Queue {
    fn scheme(&self) -> &'static str {
        self.service.scheme
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.on(topic, |topic| Ok(capabilities(topic.dedupe)))
    }

    async fn append(
        &self,
        name: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        plain_only(options)?;
        LIMITS.check(batch)?;
        let fault = self.on(name, |_| self.service.fault(Call::Append))?;
        let doomed =
            |index: usize| matches!(&fault, Some(Fault::Refuse(at)) if at.contains(&index));
        let arrives = fault != Some(Fault::Lose { done: false });
        let (now, elapsed) = (self.service.clock.now(), self.service.clock.elapsed());
        let mut outcomes = self.on(name, |topic| {
            if topic.groups.is_empty() {
                let unseen = Outcome::Rejected(unseen());
                return Ok(vec![unseen; batch.len()]);
            }
            let travels = travelling(batch, options);
            let each = batch.records().iter().zip(travels).enumerate();
            each.map(|(index, (record, travels))| {
                if !travels {
                    return Ok(Outcome::NotAttempted);
                }
                if doomed(index) {
                    return Ok(Outcome::Rejected(refused()));
                }
                if !arrives {
                    return Ok(Outcome::Unknown(no_answer()));
                }
                let repeats = topic.repeats(record.id_bytes(), elapsed);
                if repeats {
                    return Ok(Outcome::Stored(Stored::somewhere().as_duplicate()));
                }
                let record = Recorded::of(record, None, Some(now))?;
                topic.taken += 1;
                for backlog in topic.groups.values_mut() {
                    backlog.push(record.clone());
                }
                Ok(Outcome::Stored(Stored::somewhere()))
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

    async fn locate(&self, _: &TopicName, _: &Start) -> Result<Cursor> {
        Err(no_replay())
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.on(topic, |_| Ok(Vec::new()))
    }

    async fn read(&self, _: &TopicName, _: &ReadRange) -> Result<Opened> {
        Err(no_replay())
    }

    fn leases(&self, _: &TopicName) -> Option<Arc<dyn Leases>> {
        None
    }

    async fn subscribe(
        &self,
        name: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let existed = self.on(name, |topic| {
            if topic.groups.contains_key(group) {
                return Ok(true);
            }
            if topic.taken > 0 && options.start != Some(Start::Latest) {
                return Err(Error::not_found(format!(
                    "there is no group \"{group}\", and what was appended before it would be lost to it; name it in create_if_missing().groups([..]) before the first append, or ask for Start::Latest"
                )));
            }
            topic.groups.insert(group.clone(), Backlog::default());
            Ok(false)
        })?;
        let lease = options.lease.min(HOLD.lease);
        let member = member::join(self, name, group, lease)?;
        Ok(Inbound {
            source: Box::new(member::QueueSource(Arc::clone(&member))),
            settling: Settling::Each(member),
            existed,
        })
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        Some(Arc::new(admin::QueueAdmin(self.clone())))
    }

    async fn close(&self, _: Duration) -> Result<()> {
        self.connection.kill();
        Ok(())
    }
}

fn no_replay() -> Error {
    Error::unsupported("a queue keeps nothing that was settled; it cannot be replayed")
}

fn capabilities(dedupe: Option<Duration>) -> Capabilities {
    Capabilities {
        source: Provision::Native.into(),
        order: Order::Key.into(),
        group_starts: Starts {
            latest: true,
            ..Starts::NONE
        }
        .into(),
        log_time: LogTime::Arrival.into(),
        append: AppendCapabilities {
            batch: Batching::PerRecord.into(),
            receipt: Receipt::None.into(),
            conditional: false.into(),
            fenced: false.into(),
            dedupe: dedupe.map_or(Dedupe::None, Dedupe::Window).into(),
            resubmit: None.into(),
            in_flight: 1,
            parallel: 1,
            no_group: NoGroup::Refused.into(),
        },
        durability: Durability::Managed.into(),
        groups: GroupCapabilities {
            names: GroupNames::Any(u32::MAX).into(),
            members: Members::Queue.into(),
            settle: Settle::Each.into(),
            hold: Some(HOLD).into(),
            attempts: Attempts::Taken.into(),
            fenced: true.into(),
            forgotten_after: None.into(),
            share_reads: false.into(),
            kept: Retention::Forever.into(),
            given_up_after: None.into(),
        },
        partitions: Partitions::Implicit.into(),
        limits: Limits {
            record_bytes: Some(LIMITS.record_bytes as u64).into(),
            batch_records: Some(LIMITS.batch_records as u64).into(),
            batch_bytes: Some(LIMITS.batch_bytes as u64).into(),
            ..Limits::NONE
        },
        ..Capabilities::none()
    }
}
