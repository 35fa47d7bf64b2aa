//! How a replay is opened.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::FuturesUnordered;

use crate::capability::{ByKey, Claim, Partitions, Replay as Kept, Starts};
use crate::cursor::{Cursor, Frontier, Rest};
use crate::defaults::READ_BUFFER;
use crate::driver::{Budget, Partition, ReadRange, Stop};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::pending::Pending;
use crate::position::PartitionId;
use crate::record::Key;
use crate::start::{Start, Until};
use crate::topic::Topic;

use super::Replay;
use super::heal::retry;
use super::lane::Lane;
use super::lineage::Lineage;
use super::merge::Merge;

impl Topic {
    /// Reads a range in order, up to the end as it is at the open unless
    /// [`until`](OpenReplay::until) says otherwise.
    ///
    /// ```no_run
    /// # async fn sum(orders: annals_core::Topic) -> annals_core::Result<()> {
    /// use annals_core::Start;
    /// let mut replay = orders.replay(Start::Beginning).await?;
    /// while let Some(record) = replay.next().await? {
    ///     println!("{} bytes", record.value().len());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn replay(&self, start: impl Into<Start>) -> OpenReplay {
        OpenReplay::new(self.clone(), start.into(), Stop::End)
    }

    /// Reads in order, for ever; a bound set by [`until`](OpenReplay::until) makes it end.
    ///
    /// Where partitions split and merge it goes on into what continues a partition once all that
    /// this continues has ended, and finds partitions that were added within
    /// [`LISTING_INTERVAL`](crate::defaults::LISTING_INTERVAL).
    pub fn follow(&self, start: impl Into<Start>) -> OpenReplay {
        OpenReplay::new(self.clone(), start.into(), Stop::Never)
    }
}

/// Opens a [`Replay`]: `topic.replay(Start::Beginning).key("order-17").await?`.
///
/// Nothing happens before the first poll. When it is ready the start is pinned: what is appended
/// from then on, or kept from then on, is read or told as a gap. Failures that can heal are tried
/// again for 30 seconds.
///
/// # Errors
/// `Unsupported`, before anything is sent, for a start, a bound or a key search that the topic
/// does not offer, with the ways out; `Config` for a cursor of another topic, backend or
/// incarnation and for a partition that is not there.
///
/// # Cancel safety
/// Dropping it has no effect.
#[derive(Debug)]
#[must_use = "a replay is opened by awaiting this"]
pub struct OpenReplay(Pending<Opening, Result<Replay>>);

#[derive(Debug)]
struct Opening {
    topic: Topic,
    start: Start,
    stop: Stop,
    key: Option<(Key, ByKey)>,
    partitions: Option<BTreeSet<PartitionId>>,
    buffer: usize,
}

impl OpenReplay {
    fn new(topic: Topic, start: Start, stop: Stop) -> Self {
        Self(Pending::new(Opening {
            topic,
            start,
            stop,
            key: None,
            partitions: None,
            buffer: READ_BUFFER,
        }))
    }

    /// Where it stops. [`Until::Before`] a moment to come waits for it.
    pub fn until(mut self, until: Until) -> Self {
        self.0.set(|opening| {
            opening.stop = match until {
                Until::End => Stop::End,
                Until::Through(cursor) => Stop::Through(cursor),
                Until::Before(time) => Stop::Before(time),
            }
        });
        self
    }

    /// Only records of this key, found by an index (capability `by_key: Indexed`); where there is
    /// none it is refused, and [`scan_key`](Self::scan_key) is the way out.
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        let key = key.into();
        self.0
            .set(|opening| opening.key = Some((key, ByKey::Indexed)));
        self
    }

    /// Only records of this key, even where the whole range has to be read for it.
    pub fn scan_key(mut self, key: impl Into<Key>) -> Self {
        let key = key.into();
        self.0
            .set(|opening| opening.key = Some((key, ByKey::Scanned)));
        self
    }

    /// Only these partitions, and not what continues them. The cursor leaves all others
    /// [outside](Rest::Outside).
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = PartitionId>) -> Self {
        let partitions = partitions.into_iter().collect();
        self.0.set(|opening| opening.partitions = Some(partitions));
        self
    }

    /// How many bytes may be read ahead of what is handed out (default: 4 MiB; at least one
    /// record is always read). The capability `limits.slack_bytes` says by how much one answer of
    /// the service may pass it.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.0.set(|opening| opening.buffer = bytes);
        self
    }
}

impl Future for OpenReplay {
    type Output = Result<Replay>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut()
            .0
            .poll(cx, |opening| Box::pin(opening.open()))
    }
}

impl Opening {
    async fn open(self) -> Result<Replay> {
        let topic = self.topic.clone();
        let opened = self.make().await;
        opened.map_err(|e| topic.place(e, Operation::Read))
    }

    async fn make(self) -> Result<Replay> {
        self.check()?;
        let topic = &self.topic;
        let (bus, name) = (topic.bus(), topic.name());
        let start = retry(bus.clock(), || bus.backend.locate(name, &self.start)).await?;
        let has_lineage = topic.capabilities().partitions.is(&Partitions::Lineage);
        if let (Stop::Through(to), true) = (&self.stop, has_lineage) {
            // No reader need see it: what it finishes is read to its end, the rest not at all.
            let to = Start::After(to.clone());
            retry(bus.clock(), || bus.backend.locate(name, &to)).await?;
        }
        // Asked for after the start is pinned: what it calls open holds all that is older.
        let listing = if has_lineage || self.partitions.is_some() {
            retry(bus.clock(), || bus.backend.partitions(name)).await?
        } else {
            Vec::new()
        };
        if let Some(partitions) = &self.partitions
            && let Some(unknown) = partitions
                .iter()
                .find(|id| !listing.iter().any(|p| p.id == **id))
        {
            return Err(Error::config(format!(
                "this topic has no partition {unknown}; list those it has"
            )));
        }
        let start = self.sliced(start, has_lineage.then_some(&listing));
        // One half for what the readers have in hand, one for what waits here to be handed out.
        let half = (self.buffer / 2).max(1);
        let partitions = (start.rest() == Rest::Outside)
            .then(|| start.places().map(|(id, _)| id).collect::<Vec<_>>());
        let range = ReadRange {
            from: start.clone(),
            stop: self.stop.clone(),
            partitions,
            key: self.key.as_ref().map(|(key, _)| key.as_bytes().clone()),
            budget: Budget::new(half),
        };
        let lineage = has_lineage.then(|| Lineage::new(&start, &self.stop, &listing));
        let mut merge = Merge::new(topic.clone(), range.clone(), lineage, half);
        let first = if has_lineage {
            merge.begin()
        } else {
            vec![Lane::new(None, range)]
        };
        let first = pin(topic, &mut merge, first).await?;
        // Those that wait for their parents are opened only to know where they start.
        let waiting = merge.unpinned();
        pin(topic, &mut merge, waiting).await?;
        merge.start(first);
        Ok(Replay::new(merge))
    }

    /// The start, cut to the partitions that were asked for; `listing`: where there is lineage.
    fn sliced(&self, start: Cursor, listing: Option<&Vec<Partition>>) -> Cursor {
        let Some(partitions) = &self.partitions else {
            return start;
        };
        let rest = start.rest();
        let lineage = listing.map(|listing| Lineage::new(&start, &self.stop, listing));
        let finished = |id| lineage.as_ref().is_some_and(|l| l.is_finished(id));
        let places = partitions.iter().filter_map(|id| {
            let frontier = start.frontier(*id).copied();
            // What a cursor leaves outside is not read, asked for or not.
            let frontier = frontier.or(match rest {
                Rest::Outside => None,
                Rest::FromStart if finished(*id) => Some(Frontier::ENDED),
                Rest::FromStart => Some(Frontier::START),
            });
            Some((*id, frontier?))
        });
        Cursor::new(start.origin().clone(), places, Rest::Outside)
    }

    /// Everything that can be refused without asking the service.
    fn check(&self) -> Result<()> {
        let has = self.topic.capabilities();
        if !matches!(has.replay, Claim::Is(Kept::Retained(_) | Kept::Full)) {
            return Err(Error::unsupported(format!(
                "records of this topic cannot be read again (replay is {}); subscribe with a group instead, or compose the topic with a journal",
                has.replay
            )));
        }
        let starts = has.starts.known().copied().unwrap_or(Starts::NONE);
        let (offered, name) = match &self.start {
            Start::Beginning => (starts.beginning, "Beginning"),
            Start::Earliest => (starts.earliest, "Earliest"),
            Start::Latest => (starts.latest, "Latest"),
            Start::After(_) => (starts.after, "After a cursor"),
            Start::Since(_) => (starts.since.is_some(), "Since a time"),
        };
        if !offered {
            return Err(Error::unsupported(format!(
                "a replay of this topic cannot start {name}; it can start {}",
                offers(&starts)
            )));
        }
        match &self.stop {
            Stop::Through(_) if !starts.after => {
                return Err(Error::unsupported(
                    "a replay of this topic cannot stop at a cursor; stop at its end",
                ));
            }
            Stop::Before(_) if starts.since.is_none() => {
                return Err(Error::unsupported(
                    "a replay of this topic cannot stop at a time; stop at its end",
                ));
            }
            _ => {}
        }
        for cursor in [
            match &self.start {
                Start::After(cursor) => Some(cursor),
                _ => None,
            },
            match &self.stop {
                Stop::Through(cursor) => Some(cursor),
                _ => None,
            },
        ]
        .into_iter()
        .flatten()
        {
            self.check_origin(cursor)?;
        }
        match (&self.key, &has.by_key) {
            (None, _)
            | (Some(_), Claim::Is(ByKey::Indexed))
            | (Some((_, ByKey::Scanned)), Claim::Is(ByKey::Scanned)) => Ok(()),
            (Some((_, ByKey::Indexed)), Claim::Is(ByKey::Scanned)) => Err(Error::unsupported(
                "this topic has no index of keys; scan_key reads the whole range for one key",
            )),
            (Some(_), by_key) => Err(Error::unsupported(format!(
                "this topic cannot be searched for a key (by_key is {by_key}); neither key nor scan_key works: replay it and filter"
            ))),
        }
    }

    fn check_origin(&self, cursor: &Cursor) -> Result<()> {
        let origin = cursor.origin();
        let (scheme, name) = (self.topic.bus().scheme(), self.topic.name());
        if *origin.scheme == *scheme && origin.topic == *name {
            return Ok(());
        }
        Err(Error::config(format!(
            "the cursor belongs to topic {:?} of backend {}, not here; use one that a reader of this topic gave",
            origin.topic, origin.scheme
        )))
    }
}

fn offers(starts: &Starts) -> String {
    let offered: Vec<&str> = [
        (starts.beginning, "Beginning"),
        (starts.earliest, "Earliest"),
        (starts.latest, "Latest"),
        (starts.after, "After a cursor"),
        (starts.since.is_some(), "Since a time"),
    ]
    .into_iter()
    .filter_map(|(is, name)| is.then_some(name))
    .collect();
    if offered.is_empty() {
        "nowhere".to_owned()
    } else {
        offered.join(", ")
    }
}

/// Opens the readers of lanes and counts in where they start.
async fn pin(topic: &Topic, merge: &mut Merge, lanes: Vec<Lane>) -> Result<Vec<Lane>> {
    let mut opens: FuturesUnordered<_> = lanes.into_iter().map(|l| open(topic, l)).collect();
    let mut lanes = Vec::new();
    while let Some(lane) = poll_fn(|cx| Pin::new(&mut opens).poll_next(cx)).await {
        let mut lane = lane?;
        if let Some(pinned) = lane.pinned.take() {
            merge.pin(&lane, pinned);
        }
        lanes.push(lane);
    }
    Ok(lanes)
}

/// Opens a lane's reader, trying again what can heal.
async fn open(topic: &Topic, mut lane: Lane) -> Result<Lane> {
    let (bus, name) = (topic.bus(), topic.name());
    match retry(bus.clock(), || bus.backend.read(name, &lane.range)).await {
        Ok(opened) => lane.adopt(opened),
        // The partition may have vanished since it was listed: told as a gap, in its turn.
        Err(error) if lane.partition.is_some() && error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(lane)
}
