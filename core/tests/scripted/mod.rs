//! A backend that answers as it is told, request by request, and remembers what it was sent.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part of it"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::capability::{Batching, Order};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Bus, Capabilities, Clock, Cursor, Effect, Error, ErrorKind, Group,
    Outcome, PartitionId, Position, Record, Result, Retry, Start, Stored, Submission, Timestamp,
    Topic, TopicName,
};
use async_trait::async_trait;
use tokio::sync::Semaphore;

/// What one record of a request becomes.
#[derive(Clone, Debug)]
pub enum Say {
    Store,
    Refuse(Retry),
    RefuseAs(ErrorKind),
    Lose,
    Skip,
}

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These outcomes; records past the list are stored.
    Each(Vec<Say>),
    /// The same for all.
    All(Say),
    /// `Err`.
    Fail(Error),
    /// A report of this length.
    Length(usize),
    /// Never.
    Hang,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Sent {
    pub values: Vec<String>,
    pub submissions: Vec<Submission>,
    pub options: AppendOptions,
    pub at: Duration,
}

#[derive(Debug)]
struct Shared {
    capabilities: Capabilities,
    clock: Clock,
    script: Mutex<VecDeque<Answer>>,
    sent: Mutex<Vec<Sent>>,
    stored: Mutex<Vec<String>>,
    /// A request that has arrived waits for one of these; `None`: it does not.
    gate: Option<Semaphore>,
}

#[derive(Clone, Debug)]
pub struct Scripted(Arc<Shared>);

pub fn error(kind: ErrorKind, effect: Effect, retry: Retry) -> Error {
    Error::new(kind, effect, retry, "as scripted")
}

pub fn each(says: impl Into<Vec<Say>>) -> Answer {
    Answer::Each(says.into())
}

pub const THROTTLE: Say = Say::Refuse(Retry::Backoff);
pub const REFUSE: Say = Say::Refuse(Retry::Never);

/// Capabilities of a log that stores records singly.
pub fn capabilities(batch: Batching) -> Capabilities {
    let mut has = Capabilities::none();
    has.order = Order::Key.into();
    has.append.batch = batch.into();
    has
}

impl Scripted {
    pub fn new(capabilities: Capabilities, script: impl IntoIterator<Item = Answer>) -> Self {
        Self::build(capabilities, script, None)
    }

    /// Requests wait until they are let through.
    pub fn gated(capabilities: Capabilities, script: impl IntoIterator<Item = Answer>) -> Self {
        Self::build(capabilities, script, Some(Semaphore::new(0)))
    }

    fn build(
        capabilities: Capabilities,
        script: impl IntoIterator<Item = Answer>,
        gate: Option<Semaphore>,
    ) -> Self {
        Self(Arc::new(Shared {
            capabilities,
            clock: Clock::runtime(Timestamp::EPOCH),
            script: Mutex::new(script.into_iter().collect()),
            sent: Mutex::default(),
            stored: Mutex::default(),
            gate,
        }))
    }

    pub async fn topic(&self) -> Topic {
        let bus = Bus::new(self.clone()).with_clock(self.0.clock.clone());
        bus.topic("scripted").await.unwrap()
    }

    pub fn let_through(&self, requests: usize) {
        self.0.gate.as_ref().unwrap().add_permits(requests);
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.0.sent.lock().unwrap().clone()
    }

    /// The values of each request.
    pub fn requests(&self) -> Vec<String> {
        self.sent().iter().map(|s| s.values.join(" ")).collect()
    }

    /// What is stored, in order.
    pub fn stored(&self) -> Vec<String> {
        self.0.stored.lock().unwrap().clone()
    }
}

/// `a1`: value `a1`, key `a`; `-1`: no key.
pub fn record(name: &str) -> Record {
    let record = Record::new(name);
    match name.split_at(1).0 {
        "-" => record,
        key => record.key(key),
    }
}

pub fn records(names: &str) -> Batch {
    names.split_whitespace().map(record).collect()
}

pub fn shown(outcomes: &[Outcome]) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Stored(_) => "stored".to_owned(),
        Outcome::Rejected(error) => format!("{:?}", error.kind()),
        Outcome::Unknown(error) => {
            assert_eq!(error.effect(), Effect::Unknown);
            "unknown".to_owned()
        }
        Outcome::NotAttempted => "not".to_owned(),
    };
    outcomes.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn unused<T>() -> Result<T> {
    Err(Error::unsupported("the scripted backend only appends"))
}

#[async_trait]
impl Backend for Scripted {
    fn scheme(&self) -> &'static str {
        "scripted"
    }
    async fn capabilities(&self, _: &TopicName) -> Result<Capabilities> {
        Ok(self.0.capabilities.clone())
    }
    async fn append(
        &self,
        _: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let values: Vec<String> = batch
            .records()
            .iter()
            .map(|r| String::from_utf8(r.value_bytes().unwrap().to_vec()).unwrap())
            .collect();
        self.0.sent.lock().unwrap().push(Sent {
            submissions: (0..batch.len())
                .filter_map(|i| batch.submission(i))
                .collect(),
            values: values.clone(),
            options: options.clone(),
            at: self.0.clock.elapsed(),
        });
        let next = self.0.script.lock().unwrap().pop_front();
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        let says = match next.unwrap_or(Answer::All(Say::Store)) {
            Answer::Each(says) => says,
            Answer::All(say) => vec![say; values.len()],
            Answer::Fail(error) => return Err(error),
            Answer::Length(len) => {
                return Ok(AppendReport::all(
                    len,
                    &Outcome::Stored(Stored::somewhere()),
                ));
            }
            Answer::Hang => std::future::pending().await,
        };
        let mut stored = self.0.stored.lock().unwrap();
        let mut says = says.into_iter();
        let outcomes = values
            .into_iter()
            .map(|value| match says.next().unwrap_or(Say::Store) {
                Say::Store => {
                    stored.push(value);
                    let number = stored.len() as u64;
                    Outcome::Stored(Stored::at(Position::new(PartitionId::ONLY, number)))
                }
                Say::Refuse(retry) => {
                    Outcome::Rejected(error(ErrorKind::Throttled, Effect::None, retry))
                }
                Say::RefuseAs(kind) => Outcome::Rejected(error(kind, Effect::None, Retry::Never)),
                Say::Lose => {
                    Outcome::Unknown(error(ErrorKind::Timeout, Effect::Unknown, Retry::Backoff))
                }
                Say::Skip => Outcome::NotAttempted,
            });
        Ok(AppendReport::new(outcomes.collect()))
    }
    async fn locate(&self, _: &TopicName, _: &Start) -> Result<Cursor> {
        unused()
    }
    async fn partitions(&self, _: &TopicName) -> Result<Vec<Partition>> {
        unused()
    }
    async fn read(&self, _: &TopicName, _: &ReadRange) -> Result<Opened> {
        unused()
    }
    fn leases(&self, _: &TopicName) -> Option<Arc<dyn Leases>> {
        None
    }
    async fn subscribe(&self, _: &TopicName, _: &Group, _: &SubscribeOptions) -> Result<Inbound> {
        unused()
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        None
    }
    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}
