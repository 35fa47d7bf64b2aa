//! A backend in small: a topic is a `Vec` of records in the memory of this process. It has no
//! groups, no log time and no conditions; what it does not have it declares, and refuses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::capability as has;
use annals_core::driver::{
    Admin, AppendOptions, Backend, Fetched, Inbound, Leases, Opened, Partition, ReadRange, Reader,
    Room, Stop, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Cursor, Error, Frontier, Group, Origin, Outcome,
    PartitionId, Position, Recorded, Result, Start, Stored, TopicName,
};
use async_trait::async_trait;
use tokio::sync::watch;

type Records = Vec<Recorded>;
/// A client. A topic is there as soon as somebody names it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Small {
    topics: Arc<Mutex<BTreeMap<TopicName, Records>>>,
    /// Rings when a record comes or a client closes.
    bell: watch::Sender<()>,
    closed: Arc<AtomicBool>,
}

impl Small {
    /// Another client of the same log, which is closed by itself.
    pub(crate) fn another(&self) -> Self {
        Self {
            closed: Arc::default(),
            ..self.clone()
        }
    }

    fn on<R>(&self, topic: &TopicName, look: impl FnOnce(&mut Records) -> Result<R>) -> Result<R> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::closed("the client was closed; connect again"));
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        look(topics.entry(topic.clone()).or_default())
    }

    /// The cursor before the record at `index`.
    fn before(&self, topic: &TopicName, index: usize) -> Cursor {
        let mut cursor = Cursor::start(Arc::new(Origin {
            scheme: self.scheme().into(),
            topic: topic.clone(),
            incarnation: "".into(),
        }));
        if let Some(last) = index.checked_sub(1) {
            cursor.set(PartitionId::ONLY, Frontier::after(at(last)));
        }
        cursor
    }

    /// The index of the first record behind a cursor; a strange one is refused, never guessed at.
    fn behind(&self, topic: &TopicName, records: &[Recorded], from: &Cursor) -> Result<usize> {
        let only = |(partition, _)| partition == PartitionId::ONLY;
        let ours = from.origin() == self.before(topic, 0).origin() && from.places().all(only);
        let index = match from.frontier(PartitionId::ONLY) {
            None | Some(Frontier::Start { .. }) => Some(0),
            Some(Frontier::After { position, .. }) => {
                let is_it = |record: &Recorded| record.position() == Some(*position);
                records.iter().position(is_it).map(|last| last + 1)
            }
            Some(Frontier::Since(_) | Frontier::Ended { .. }) => None,
        };
        let strange = "this topic never gave such a cursor; start at Beginning";
        index.filter(|_| ours).ok_or_else(|| Error::config(strange))
    }
}

fn at(index: usize) -> Position {
    Position::new(PartitionId::ONLY, index as u64)
}

#[async_trait]
impl Backend for Small {
    fn scheme(&self) -> &'static str {
        "small"
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.on(topic, |_| Ok(()))?;
        Ok(Capabilities {
            replay: has::Replay::Full.into(),
            order: has::Order::Total.into(),
            starts: has::Starts {
                since: None,
                ..has::Starts::ALL
            }
            .into(),
            tail: has::Tail::Exact.into(),
            gap: has::GapSignal::Exact.into(),
            append: has::AppendCapabilities {
                batch: has::Batching::Atomic.into(),
                receipt: has::Receipt::Position.into(),
                ..Capabilities::none().append
            },
            durability: has::Durability::Memory.into(),
            partitions: has::Partitions::One.into(),
            ..Capabilities::none()
        })
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if options.expect.is_some() || options.epoch.is_some() {
            return Err(Error::unsupported("this log has no conditions, no epochs"));
        }
        let outcomes = self.on(topic, |records| {
            let (mut new, mut outcomes) = (Vec::new(), Vec::new());
            for (record, index) in batch.records().iter().zip(records.len()..) {
                new.push(Recorded::of(record, Some(at(index)), None)?);
                outcomes.push(Outcome::Stored(Stored::at(at(index))));
            }
            // Behind the last thing that can fail: an error says that nothing is stored.
            records.extend(new);
            Ok(outcomes)
        })?;
        self.bell.send_replace(());
        Ok(AppendReport::new(outcomes))
    }

    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        self.on(topic, |records| match start {
            // Nothing is ever removed.
            Start::Beginning | Start::Earliest => Ok(self.before(topic, 0)),
            Start::Latest => Ok(self.before(topic, records.len())),
            Start::After(cursor) => self.behind(topic, records, cursor).map(|_| cursor.clone()),
            Start::Since(_) => Err(Error::unsupported("this log has no time")),
        })
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.on(topic, |_| Ok(()))?;
        Ok(vec![Partition {
            id: PartitionId::ONLY,
            name: "0".into(),
            parents: Vec::new(),
            open: true,
        }])
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        if !matches!(
            range.partitions.as_deref(),
            None | Some([PartitionId::ONLY])
        ) {
            return Err(Error::not_found("there is the partition 0 and no other"));
        }
        self.on(topic, |records| {
            let next = self.behind(topic, records, &range.from)?;
            let end = match &range.stop {
                Stop::End => Some(records.len()),
                Stop::Through(cursor) => Some(self.behind(topic, records, cursor)?),
                Stop::Never => None,
                Stop::Before(_) => return Err(Error::unsupported("this log has no time")),
            };
            Ok(Opened {
                from: self.before(topic, next),
                until: end.map(|end| self.before(topic, end)),
                reader: Box::new(SmallReader {
                    client: self.clone(),
                    topic: topic.clone(),
                    next,
                    end,
                    caught_up: Some(records.len()),
                }),
            })
        })
    }

    fn leases(&self, _: &TopicName) -> Option<Arc<dyn Leases>> {
        None
    }

    async fn subscribe(&self, _: &TopicName, _: &Group, _: &SubscribeOptions) -> Result<Inbound> {
        Err(Error::unsupported("this log has no groups; follow it"))
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        None
    }

    async fn close(&self, _: Duration) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.bell.send_replace(());
        Ok(())
    }
}

#[derive(Debug)]
struct SmallReader {
    client: Small,
    topic: TopicName,
    next: usize,
    end: Option<usize>,
    /// Where it has caught up, until that has been said.
    caught_up: Option<usize>,
}

#[async_trait]
impl Reader for SmallReader {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        loop {
            let behind = |place: Option<usize>| place.is_some_and(|place| self.next >= place);
            // Final, whatever becomes of the client.
            if behind(self.end) && !behind(self.caught_up) {
                return Ok(Fetched::End);
            }
            // The bell first, then the look: what comes in between rings.
            let mut bell = self.client.bell.subscribe();
            let more = self.client.on(&self.topic, |records| {
                let (before, mut bytes) = (out.len(), 0);
                let end = self.end.unwrap_or(records.len());
                for record in records.iter().take(end).skip(self.next).take(room.records) {
                    bytes += record.len_bytes();
                    // One fits any room that is not none.
                    if room.bytes == 0 || bytes > room.bytes && out.len() > before {
                        break;
                    }
                    out.push(record.clone());
                }
                Ok(out.len() - before)
            })?;
            self.next += more;
            if more > 0 {
                return Ok(Fetched::Records);
            }
            if self.caught_up.take_if(|end| self.next >= *end).is_some() {
                return Ok(Fetched::CaughtUp);
            }
            drop(bell.changed().await);
        }
    }

    async fn close(self: Box<Self>, _: Duration) -> Result<()> {
        Ok(())
    }
}
