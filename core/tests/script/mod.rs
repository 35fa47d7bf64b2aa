//! A backend that says what a test has written down for it, and notes what it was asked.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a script that cannot go on is a failed test"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::capability::{ByKey, Partitions, Replay, Starts};
use annals_core::driver::*;
use annals_core::*;
use async_trait::async_trait;

/// One thing that happens to a reader.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Records of one partition, by number.
    Records(u64, std::ops::RangeInclusive<u64>),
    /// Records, and then this in the same answer.
    Said(Vec<Recorded>, Fetched),
    Say(Fetched),
    Fail(Error),
    Panic,
    /// Says nothing ever again.
    Hang,
    /// Waits this long.
    Sleep(Duration),
}

pub(crate) fn at(partition: u64, number: u64) -> Position {
    Position::new(PartitionId::new(partition), number)
}

pub(crate) fn record(partition: u64, number: u64) -> Recorded {
    let record = Record::new(format!("{partition}:{number}")).key("k");
    Recorded::of(&record, Some(at(partition, number)), None).unwrap()
}

pub(crate) fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        scheme: "scripted".into(),
        topic: TopicName::new("t").unwrap(),
        incarnation: "1".into(),
    })
}

pub(crate) fn retryable() -> Error {
    let text = "the line was cut; try again";
    Error::new(ErrorKind::Disconnected, Effect::None, Retry::Backoff, text)
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What each opened reading of a partition (`None`: of all) goes through, in turn.
    pub(crate) plays: Mutex<BTreeMap<Option<u64>, VecDeque<Vec<Act>>>>,
    pub(crate) listing: Mutex<Vec<Partition>>,
    pub(crate) until: Mutex<Option<Cursor>>,
    /// Every range that was opened.
    pub(crate) opened: Mutex<Vec<ReadRange>>,
    pub(crate) failing_reads: Mutex<Vec<Error>>,
    pub(crate) located: Mutex<usize>,
    pub(crate) closed: Mutex<usize>,
    pub(crate) capabilities: Mutex<Option<Capabilities>>,
}

pub(crate) fn capabilities(partitions: Partitions) -> Capabilities {
    Capabilities {
        replay: Replay::Full.into(),
        starts: Starts::ALL.into(),
        by_key: ByKey::Scanned.into(),
        partitions: partitions.into(),
        ..Capabilities::none()
    }
}

impl Script {
    pub(crate) fn new(partitions: Partitions) -> Arc<Self> {
        let script = Self::default();
        *script.capabilities.lock().unwrap() = Some(capabilities(partitions));
        Arc::new(script)
    }

    pub(crate) fn play(
        &self,
        partition: impl Into<Option<u64>>,
        acts: impl IntoIterator<Item = Act>,
    ) {
        let mut plays = self.plays.lock().unwrap();
        let plays = plays.entry(partition.into()).or_default();
        plays.push_back(acts.into_iter().collect());
    }

    pub(crate) fn list(&self, partitions: &[(u64, &[u64], bool)]) {
        *self.listing.lock().unwrap() = partitions
            .iter()
            .map(|(id, parents, open)| partition(*id, parents, *open))
            .collect();
    }

    pub(crate) async fn topic(self: &Arc<Self>) -> Topic {
        self.bus().topic("t").await.unwrap()
    }

    pub(crate) fn bus(self: &Arc<Self>) -> Bus {
        Bus::new(Scripted(Arc::clone(self))).with_clock(Clock::runtime(Timestamp::EPOCH))
    }
}

pub(crate) fn partition(id: u64, parents: &[u64], open: bool) -> Partition {
    Partition {
        id: PartitionId::new(id),
        name: format!("p{id}").into(),
        parents: parents.iter().copied().map(PartitionId::new).collect(),
        open,
    }
}

#[derive(Debug)]
pub(crate) struct Scripted(pub(crate) Arc<Script>);

#[async_trait]
impl Backend for Scripted {
    fn scheme(&self) -> &'static str {
        "scripted"
    }
    async fn capabilities(&self, _: &TopicName) -> Result<Capabilities> {
        Ok(self.0.capabilities.lock().unwrap().clone().unwrap())
    }
    async fn append(&self, _: &TopicName, _: &Batch, _: &AppendOptions) -> Result<AppendReport> {
        Err(Error::unsupported("only reading is scripted"))
    }
    async fn locate(&self, _: &TopicName, start: &Start) -> Result<Cursor> {
        *self.0.located.lock().unwrap() += 1;
        let listing = self.0.listing.lock().unwrap();
        let all = |frontier| {
            let places = listing.iter().map(move |p| (p.id, frontier));
            Cursor::new(origin(), places, Rest::FromStart)
        };
        Ok(match start {
            Start::Beginning | Start::Latest => Cursor::start(origin()),
            Start::Earliest => all(Frontier::EARLIEST),
            Start::Since(time) => all(Frontier::Since(*time)),
            Start::After(cursor) => cursor.clone(),
        })
    }
    async fn partitions(&self, _: &TopicName) -> Result<Vec<Partition>> {
        Ok(self.0.listing.lock().unwrap().clone())
    }
    async fn read(&self, _: &TopicName, range: &ReadRange) -> Result<Opened> {
        if let Some(error) = self.0.failing_reads.lock().unwrap().pop() {
            return Err(error);
        }
        self.0.opened.lock().unwrap().push(range.clone());
        let of = match &range.partitions {
            Some(ids) if ids.len() == 1 => Some(ids[0].get()),
            _ => None,
        };
        let mut plays = self.0.plays.lock().unwrap();
        let plays = plays
            .get_mut(&of)
            .unwrap_or_else(|| panic!("no play for {of:?}"));
        let acts = plays
            .pop_front()
            .unwrap_or_else(|| panic!("{of:?} was opened too often"));
        Ok(Opened {
            reader: Box::new(Playing {
                script: Arc::clone(&self.0),
                acts: acts.into(),
                pending: VecDeque::new(),
                say: None,
                skip: range.from.clone(),
            }),
            from: range.from.clone(),
            until: self.0.until.lock().unwrap().clone(),
        })
    }
    fn leases(&self, _: &TopicName) -> Option<Arc<dyn Leases>> {
        None
    }
    async fn subscribe(&self, _: &TopicName, _: &Group, _: &SubscribeOptions) -> Result<Inbound> {
        Err(Error::unsupported("only reading is scripted"))
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        None
    }
    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Playing {
    script: Arc<Script>,
    acts: VecDeque<Act>,
    pending: VecDeque<Recorded>,
    say: Option<Fetched>,
    /// Records that lie before this are not pushed.
    skip: Cursor,
}

#[async_trait]
impl Reader for Playing {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        loop {
            let mut bytes = 0;
            let mut pushed = 0;
            while let Some(record) = self.pending.front() {
                if room.is_none() {
                    std::future::pending::<()>().await;
                }
                let full = pushed > 0 && bytes + record.len_bytes() > room.bytes;
                if pushed == room.records || full {
                    break;
                }
                bytes += record.len_bytes();
                pushed += 1;
                out.extend(self.pending.pop_front());
            }
            if pushed > 0 && (self.say.is_none() || !self.pending.is_empty()) {
                return Ok(Fetched::Records);
            }
            if self.pending.is_empty()
                && let Some(said) = self.say.take()
            {
                return Ok(said);
            }
            match self.acts.front().cloned() {
                Some(Act::Records(partition, numbers)) => {
                    let skip = self.skip.clone();
                    self.pending = numbers
                        .map(|n| record(partition, n))
                        .filter(|r| {
                            let frontier = skip.frontier(PartitionId::new(partition));
                            frontier.is_none_or(|f| f.covers(&r.position().unwrap()) != Some(true))
                        })
                        .collect();
                }
                Some(Act::Said(records, said)) => {
                    self.pending = records.into();
                    self.say = Some(said);
                }
                Some(Act::Say(said)) => {
                    if said != Fetched::End {
                        self.acts.pop_front();
                    }
                    return Ok(said);
                }
                Some(Act::Fail(error)) => {
                    self.acts.pop_front();
                    return Err(error);
                }
                Some(Act::Panic) => panic!("as scripted"),
                Some(Act::Sleep(time)) => tokio::time::sleep(time).await,
                Some(Act::Hang) | None => std::future::pending().await,
            }
            self.acts.pop_front();
        }
    }
    async fn close(self: Box<Self>, _: Duration) -> Result<()> {
        *self.script.closed.lock().unwrap() += 1;
        Ok(())
    }
}
