//! A backend whose service assigns partitions: it says what the test tells it to say, and remembers
//! what core told it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's backend, of which each test file uses its part; one of its answers is a panic"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::capability::{Attempts, GroupNames, Order, Settle};
use annals_core::driver::*;
use annals_core::*;
use async_trait::async_trait;
use tokio::sync::{Mutex as Gate, Notify, mpsc, watch};

/// What the source does next.
#[derive(Debug)]
pub enum Say {
    Arrived(Arrived),
    Record(Tenancy, u64),
    /// From here on it is always ready, with nothing.
    Babble,
    Panic,
}

/// How a call is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Fail(Error),
    Panic,
    Hang,
    /// It holds, and that is said only then.
    HoldsLate(Arc<Notify>),
}

/// What core did.
#[derive(Clone, PartialEq, Debug)]
pub enum Did {
    Commit(u64, Frontier),
    Release(Tenancy),
    Hold(u64, bool),
}

#[derive(Debug)]
pub struct Shared {
    said: Gate<mpsc::UnboundedReceiver<Say>>,
    pub commits: Mutex<VecDeque<Answer>>,
    pub releases: Mutex<VecDeque<Answer>>,
    /// Outcomes of the next append: so many.
    pub outcomes: Mutex<Option<usize>>,
    /// So many calls that open fail retryably.
    pub refuses: Mutex<u32>,
    did: Mutex<Vec<(Duration, Did)>>,
    rung: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Clone, Debug)]
pub struct Assigned {
    pub shared: Arc<Shared>,
    say: mpsc::UnboundedSender<Say>,
    babbles: bool,
}

pub fn stay(partition: u64, epoch: u64) -> Tenancy {
    Tenancy {
        partition: PartitionId::new(partition),
        epoch,
    }
}

pub fn throttled(after: Duration) -> Error {
    Error::new(
        ErrorKind::Throttled,
        Effect::None,
        Retry::After(after),
        "as scripted",
    )
}

pub fn lost_link() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        Effect::None,
        Retry::Backoff,
        "as scripted",
    )
}

impl Assigned {
    pub fn new() -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let shared = Shared {
            said: Gate::new(said),
            commits: Mutex::default(),
            releases: Mutex::default(),
            outcomes: Mutex::default(),
            refuses: Mutex::default(),
            did: Mutex::default(),
            rung: watch::Sender::new(0),
            clock: Clock::runtime(Timestamp::EPOCH),
        };
        let shared = Arc::new(shared);
        Self {
            shared,
            say,
            babbles: false,
        }
    }

    pub fn bus(&self) -> Bus {
        Bus::new(self.clone()).with_clock(self.shared.clock.clone())
    }

    pub async fn topic(&self) -> Topic {
        self.bus().topic("assigned").await.unwrap()
    }

    pub fn say(&self, say: Say) {
        self.say.send(say).unwrap();
    }

    pub fn assign(&self, tenancy: Tenancy) {
        self.say(Say::Arrived(Arrived::Assigned {
            tenancy,
            from: Frontier::START,
            attempts: 0,
        }));
    }

    pub fn revoke(&self, tenancy: Tenancy, grace: Duration) -> Duration {
        self.say(Say::Arrived(Arrived::Revoking { tenancy, grace }));
        self.shared.clock.elapsed()
    }

    /// When core did it: waits until it has.
    pub async fn done(&self, what: Did) -> Duration {
        let mut rung = self.shared.rung.subscribe();
        loop {
            rung.borrow_and_update();
            let found = self.did().into_iter().find(|(_, did)| *did == what);
            if let Some((at, _)) = found {
                return at;
            }
            rung.changed().await.unwrap();
        }
    }

    pub fn did(&self) -> Vec<(Duration, Did)> {
        self.shared.did.lock().unwrap().clone()
    }

    fn note(&self, did: Did) {
        let at = self.shared.clock.elapsed();
        self.shared.did.lock().unwrap().push((at, did));
        self.shared.rung.send_modify(|n| *n += 1);
    }

    fn refused(&self) -> Result<()> {
        let mut left = self.shared.refuses.lock().unwrap();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(lost_link())
    }
}

async fn answer(answers: &Mutex<VecDeque<Answer>>) -> Result<Option<Arc<Notify>>> {
    let next = answers.lock().unwrap().pop_front();
    match next {
        None => Ok(None),
        Some(Answer::Fail(error)) => Err(error),
        Some(Answer::Panic) => panic!("as scripted"),
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::HoldsLate(when)) => Ok(Some(when)),
    }
}

#[async_trait]
impl Source for Assigned {
    async fn fetch(&mut self, _: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        // Nothing of the runtime's, which would take turns by itself.
        if self.babbles {
            return Ok(Arrived::CaughtUp);
        }
        let mut said = self.shared.said.lock().await;
        match said.recv().await.unwrap() {
            Say::Arrived(arrived) => Ok(arrived),
            Say::Record(tenancy, number) => {
                let record = Record::new(number.to_string());
                let position = Position::new(tenancy.partition, number);
                out.push(Delivered {
                    record: Recorded::of(&record, Some(position), None).unwrap(),
                    holder: Holder::Tenancy(tenancy),
                    attempt: 1,
                });
                Ok(Arrived::Deliveries)
            }
            Say::Babble => {
                self.babbles = true;
                Ok(Arrived::CaughtUp)
            }
            Say::Panic => panic!("as scripted"),
        }
    }
    fn hold(&mut self, partition: PartitionId, held: bool) {
        self.note(Did::Hold(partition.get(), held));
    }
    async fn close(self: Box<Self>, _: Duration) -> Result<Closed> {
        Ok(Closed::default())
    }
}

#[async_trait]
impl Commits for Assigned {
    async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let late = answer(&self.shared.commits).await?;
        for mark in marks {
            self.note(Did::Commit(mark.tenancy.partition.get(), mark.to));
        }
        if let Some(late) = late {
            late.notified().await;
        }
        Ok(vec![Ok(()); marks.len()])
    }
    async fn release(&self, tenancy: Tenancy) -> Result<()> {
        answer(&self.shared.releases).await?;
        self.note(Did::Release(tenancy));
        Ok(())
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::unsupported("the assigned backend has groups alone"))
}

#[async_trait]
impl Backend for Assigned {
    fn scheme(&self) -> &'static str {
        "assigned"
    }
    async fn capabilities(&self, _: &TopicName) -> Result<Capabilities> {
        self.refused()?;
        let mut has = Capabilities::none();
        has.order = Order::Partition.into();
        has.groups.names = GroupNames::Any(9).into();
        has.groups.settle = Settle::UpTo.into();
        has.groups.attempts = Attempts::Session.into();
        Ok(has)
    }
    async fn append(
        &self,
        _: &TopicName,
        batch: &Batch,
        _: &AppendOptions,
    ) -> Result<AppendReport> {
        let outcomes = self.shared.outcomes.lock().unwrap();
        let len = outcomes
            .filter(|_| !batch.is_empty())
            .unwrap_or(batch.len());
        Ok(AppendReport::all(
            len,
            &Outcome::Stored(Stored::somewhere()),
        ))
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
        self.refused()?;
        Ok(Inbound {
            source: Box::new(self.clone()),
            settling: Settling::UpTo(Arc::new(self.clone())),
            existed: true,
        })
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        None
    }
    async fn close(&self, _: Duration) -> Result<()> {
        std::future::pending().await
    }
}
