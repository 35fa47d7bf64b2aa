//! Reading: cursors of the contract into positions, and a reader over the engine's scan.

mod pin;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Fetched, Opened, ReadRange, Reader, Reserved, Room, Stop};
use annals_core::{
    Cursor, Effect, Error, ErrorKind, Frontier, Origin, PartitionId, Position, Recorded, Rest,
    Result, Retry, Start, Timestamp, TopicName,
};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::append::incarnation;
use crate::error::{blocking, runtime};
use crate::log::{End, Fetch, Scan, StopAt, Topic, TopicId};
use crate::root::Root;
use pin::pin;
use wait::Waiter;

/// What one step of reading takes from the shared budget.
const STEP: usize = 512 << 10;

fn origin(scheme: &str, topic: &Topic) -> Arc<Origin> {
    Arc::new(Origin {
        scheme: scheme.into(),
        topic: topic.name().clone(),
        incarnation: incarnation(topic.id()),
    })
}

fn at(number: u64) -> Position {
    Position::new(PartitionId::ONLY, number)
}

/// Everything before position `next` has been read.
pub(crate) fn before(next: u64) -> Frontier {
    match next.checked_sub(1) {
        None => Frontier::START,
        Some(last) => Frontier::after(at(last)),
    }
}

pub(crate) fn cursor(scheme: &str, topic: &Topic, frontier: Frontier) -> Cursor {
    match frontier {
        Frontier::Start { .. } => Cursor::start(origin(scheme, topic)),
        frontier => Cursor::new(
            origin(scheme, topic),
            [(PartitionId::ONLY, frontier)],
            Rest::FromStart,
        ),
    }
}

/// Refuses a cursor of another backend, topic or incarnation.
pub(crate) fn check_origin(
    cursor: &Cursor,
    scheme: &str,
    topic: &TopicName,
    id: TopicId,
) -> Result<()> {
    let of = cursor.origin();
    let why = if *of.scheme != *scheme {
        format!("the cursor belongs to the backend {:?}", of.scheme)
    } else if of.topic != *topic {
        format!("the cursor belongs to the topic \"{}\"", of.topic)
    } else if of.incarnation != incarnation(id) {
        "the cursor belongs to an earlier topic of this name; it was deleted and made anew"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Error::config(format!(
        "{why}; start at Beginning or Earliest"
    )))
}

/// The frontier that a cursor has here; a partition that it leaves out has nothing to read.
pub(crate) fn frontier(cursor: &Cursor) -> Option<Frontier> {
    match (cursor.frontier(PartitionId::ONLY), cursor.rest()) {
        (Some(frontier), _) => Some(*frontier),
        (None, Rest::FromStart) => Some(Frontier::START),
        (None, Rest::Outside) => None,
    }
}

/// The first position behind a place in the topic; `None` where only a moment is known.
pub(crate) fn next_of(position: &Position) -> Result<u64> {
    position
        .number_u64()
        .filter(|_| position.partition() == PartitionId::ONLY)
        .map(|number| number.saturating_add(1))
        .ok_or_else(|| Error::config("the cursor's position is not one of this topic's"))
}

/// Refuses a place behind `end`: new records would be passed over until the log has grown to it.
pub(crate) fn check_end(place: &Frontier, end: &End) -> Result<()> {
    let Frontier::After { position, .. } = place else {
        return Ok(());
    };
    if next_of(position)? <= end.next {
        return Ok(());
    }
    Err(Error::config(format!(
        "the cursor lies behind the end of this log (position {}, end {}), so the log was restored from an older copy or the cursor is of another one; restore the newer copy, or start elsewhere",
        position.number_u64().unwrap_or(u64::MAX),
        end.next
    )))
}

pub(crate) async fn locate(
    root: &Arc<Root>,
    scheme: &'static str,
    topic: &TopicName,
    start: &Start,
) -> Result<Cursor> {
    let topic = root.topic(topic).await?;
    let start = start.clone();
    blocking(move || {
        let place = match start {
            Start::Beginning => Frontier::START,
            Start::Earliest => Frontier::EARLIEST,
            Start::Latest => before(topic.refresh()?.next),
            Start::Since(time) => Frontier::Since(time),
            Start::After(cursor) => {
                check_origin(&cursor, scheme, topic.name(), topic.id())?;
                if let Some(place) = frontier(&cursor) {
                    check_end(&place, &topic.refresh()?)?;
                }
                return Ok(cursor);
            }
        };
        Ok(cursor(scheme, &topic, place))
    })
    .await
}

pub(crate) async fn open(
    root: &Arc<Root>,
    scheme: &'static str,
    name: &TopicName,
    range: &ReadRange,
    ended: watch::Receiver<bool>,
) -> Result<Opened> {
    let topic = root.topic(name).await?;
    let gone = root.open(name).gone();
    let range = range.clone();
    let root = Arc::clone(root);
    blocking(move || {
        check_origin(&range.from, scheme, topic.name(), topic.id())?;
        let end = topic.refresh()?;
        let listed = |ids: &Vec<PartitionId>| ids.contains(&PartitionId::ONLY);
        let wanted = range.partitions.as_ref().is_none_or(listed);
        let place = frontier(&range.from).filter(|place| wanted && !place.is_ended());
        if let Some(place) = &place {
            check_end(place, &end)?;
        }
        let (stop, before_time, until) = stop_at(&range.stop, scheme, &topic, &end)?;
        let (scan, from) = match place {
            None => (None, range.from.clone()),
            Some(Frontier::Since(time)) => {
                let (scan, pinned) = pin(&topic, time, stop)?;
                (Some(scan), cursor(scheme, &topic, pinned))
            }
            Some(Frontier::After { position, .. }) => {
                let scan = Scan::new(Arc::clone(&topic), next_of(&position)?, stop);
                (Some(scan), range.from.clone())
            }
            Some(_) => {
                let scan = Scan::new(Arc::clone(&topic), 0, stop);
                (Some(scan), range.from.clone())
            }
        };
        let scan = match (scan, &range.key) {
            (Some(scan), Some(key)) => Some(scan.of_key(key.clone())),
            (scan, _) => scan,
        };
        let told = scan.as_ref().map_or(0, Scan::next_position);
        let moment = match frontier(&from) {
            Some(Frontier::Since(time)) => Some(time),
            _ => None,
        };
        let reader = LogReader {
            _root: root,
            waiter: Waiter::new(&topic, gone, ended)?,
            topic,
            budget: range.budget.clone(),
            state: scan.map_or(State::Done, State::Idle),
            ready: Vec::new(),
            taken: 0,
            asked: Room::NONE,
            permit: None,
            at_once: false,
            after: None,
            moment,
            early: moment.is_some(),
            before_time,
            past: false,
            caught_up: false,
            open_end: end.next,
            next: told,
            told,
        };
        Ok(Opened {
            reader: Box::new(reader),
            from,
            until,
        })
    })
    .await
}

type Stops = (StopAt, Option<Timestamp>, Option<Cursor>);

fn stop_at(stop: &Stop, scheme: &str, topic: &Topic, end: &End) -> Result<Stops> {
    Ok(match stop {
        Stop::Never => (StopAt::Never, None, None),
        Stop::End => (
            StopAt::Position(end.next),
            None,
            Some(cursor(scheme, topic, before(end.next))),
        ),
        Stop::Before(time) => (StopAt::Time(*time), Some(*time), None),
        Stop::Through(through) => {
            check_origin(through, scheme, topic.name(), topic.id())?;
            let until = Some(through.clone());
            match frontier(through) {
                Some(Frontier::Start { .. }) | None => (StopAt::Position(0), None, until),
                Some(place @ Frontier::After { position, .. }) => {
                    check_end(&place, end)?;
                    (StopAt::Position(next_of(&position)?), None, until)
                }
                Some(Frontier::Since(time)) => (StopAt::Time(time), Some(time), until),
                Some(Frontier::Ended { .. }) => {
                    return Err(Error::config(
                        "a topic of the embedded log never ends; stop at a position, a time or its end now",
                    ));
                }
            }
        }
    })
}

/// An open reading.
struct LogReader {
    /// Keeps the log open for as long as somebody reads.
    _root: Arc<Root>,
    topic: Arc<Topic>,
    waiter: Waiter,
    budget: annals_core::driver::Budget,
    state: State,
    /// What a step brought and nobody took yet, from `taken` on.
    ready: Vec<Recorded>,
    taken: usize,
    /// The room that they were read for: all of them fit it.
    asked: Room,
    permit: Option<Reserved>,
    /// Whether the last step needed no other thread.
    at_once: bool,
    /// What the step had to say behind its records.
    after: Option<Result<Fetch>>,
    /// What the caller knows of the place while it is a moment.
    moment: Option<Timestamp>,
    /// Nothing as late as that has been met.
    early: bool,
    before_time: Option<Timestamp>,
    /// All records before that moment are below the durable end.
    past: bool,
    caught_up: bool,
    open_end: u64,
    /// Everything before it has been read.
    next: u64,
    /// Everything before it is known to the caller.
    told: u64,
}

struct Step {
    scan: Scan,
    records: Vec<Recorded>,
    result: Result<Fetch>,
}

/// The scan is here, or with a blocking job that a dropped `fetch` may have left behind.
enum State {
    Idle(Scan),
    Busy(JoinHandle<Step>),
    Done,
}

impl LogReader {
    /// One step of the scan, from wherever a dropped call left it.
    async fn step(&mut self, room: Room) -> Result<()> {
        if let State::Idle(_) = self.state {
            if self.at_once {
                // Who only reads what lies in memory never waits: others get the thread here.
                self.at_once = false;
                tokio::task::yield_now().await;
            }
            let permit = self.budget.reserve(STEP.min(room.bytes.max(1))).await;
            self.permit = Some(permit);
            self.asked = room;
        }
        if let State::Idle(scan) = &mut self.state {
            // What lies in memory costs less than to have another thread look there.
            if scan.fetch_now(room, &mut self.ready) {
                self.at_once = true;
                self.next = scan.next_position();
                self.early = scan.is_early();
                self.taken = 0;
                self.after = Some(Ok(Fetch::More));
                return Ok(());
            }
            let runtime = runtime()?;
            let mut records = std::mem::take(&mut self.ready);
            self.taken = 0;
            if let State::Idle(mut scan) = std::mem::replace(&mut self.state, State::Done) {
                self.state = State::Busy(runtime.spawn_blocking(move || {
                    let result = scan.fetch(room, &mut records);
                    Step {
                        scan,
                        records,
                        result,
                    }
                }));
            }
        }
        if let State::Busy(job) = &mut self.state {
            let step = job.await.map_err(|e| {
                Error::new(
                    ErrorKind::Internal,
                    Effect::None,
                    Retry::Never,
                    "a reading step did not end; its runtime is shutting down, or it panicked",
                )
                .with_source(e)
            });
            let step = match step {
                Ok(step) => step,
                Err(e) => {
                    self.state = State::Done;
                    return Err(e);
                }
            };
            self.next = step.scan.next_position();
            self.early = step.scan.is_early();
            self.ready = step.records;
            self.taken = 0;
            self.after = Some(step.result);
            self.state = State::Idle(step.scan);
        }
        Ok(())
    }

    /// Hands out what is ready, as far as there is room; whether anything is left.
    fn hand_out(&mut self, room: Room, out: &mut Vec<Recorded>) -> bool {
        if room.is_none() {
            return self.taken < self.ready.len();
        }
        let had = out.len();
        if self.taken == 0 && self.asked == room && had == 0 {
            std::mem::swap(out, &mut self.ready);
        } else {
            let waiting = self.ready.get(self.taken..).unwrap_or_default();
            let (mut records, mut bytes) = (0, 0);
            for record in waiting {
                let len = record.len_bytes();
                if records == room.records || (records > 0 && bytes + len > room.bytes) {
                    break;
                }
                records += 1;
                bytes += len;
            }
            out.extend(waiting.iter().take(records).cloned());
            self.taken += records;
            if self.taken == self.ready.len() {
                self.ready.clear();
                self.taken = 0;
            }
        }
        if let Some(last) = out.last().filter(|_| out.len() > had)
            && let Some(position) = last.position()
            && let Some(number) = position.number_u64()
        {
            self.told = number.saturating_add(1);
            self.moment = None;
        }
        if self.ready.is_empty() {
            self.permit = None;
            return false;
        }
        true
    }

    /// What there is to say besides records; `None`: go on.
    fn signal(&mut self, fetch: Fetch) -> Option<Fetched> {
        match fetch {
            Fetch::Gap { from, to } => {
                self.told = self.told.max(to);
                let moment = self.moment.take();
                Some(Fetched::Gap {
                    partition: PartitionId::ONLY,
                    from: moment.map_or_else(|| before(from), Frontier::Since),
                    to: Some(at(to)),
                })
            }
            Fetch::End => {
                self.state = State::Done;
                None
            }
            Fetch::More | Fetch::CaughtUp => None,
        }
    }

    /// Whether the moment to stop at has passed with all that is before it; then one more look
    /// at the end brings the last of it.
    async fn is_past(&mut self) -> Result<bool> {
        if let Some(time) = self.before_time {
            let topic = Arc::clone(&self.topic);
            self.past = blocking(move || topic.is_past(time)).await?;
        }
        Ok(self.past)
    }

    async fn wait(&mut self) -> Result<()> {
        let now = self.topic.disk().now();
        let left = self.before_time.map(|time| time.since(now));
        self.waiter.beyond(self.next, left).await
    }

    fn advanced(&mut self) -> Option<Fetched> {
        // Before a moment to come the place stays that: what is stored till then is not to be read.
        if self.told >= self.next || (self.early && self.moment.is_some()) {
            return None;
        }
        self.moment = None;
        self.told = self.next;
        Some(Fetched::Advanced {
            partition: PartitionId::ONLY,
            to: before(self.next),
        })
    }
}

#[async_trait]
impl Reader for LogReader {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        loop {
            let had = out.len();
            let left = self.hand_out(room, out);
            if out.len() > had {
                return Ok(Fetched::Records);
            }
            if left {
                // Records come before what follows them, and there is no room.
                std::future::pending::<()>().await;
            }
            if !matches!(self.state, State::Done) {
                self.waiter.check()?;
            }
            match self.after.take() {
                Some(Err(e)) => return Err(e),
                Some(Ok(fetch)) => {
                    if let Some(signal) = self.signal(fetch) {
                        return Ok(signal);
                    }
                    if !self.caught_up && self.next >= self.open_end {
                        if let Some(advanced) = self.advanced() {
                            self.after = Some(Ok(fetch));
                            return Ok(advanced);
                        }
                        self.caught_up = true;
                        self.after = Some(Ok(fetch));
                        return Ok(Fetched::CaughtUp);
                    }
                    if fetch == Fetch::More && room.is_none() {
                        // There are records, and no room: what comes behind them has to wait.
                        std::future::pending::<()>().await;
                    }
                    if fetch == Fetch::CaughtUp {
                        if let Some(advanced) = self.advanced() {
                            self.after = Some(Ok(fetch));
                            return Ok(advanced);
                        }
                        // Taken back first: a call that is dropped while it waits waits again.
                        self.after = Some(Ok(fetch));
                        if self.past {
                            self.state = State::Done;
                        } else if !self.is_past().await? {
                            self.wait().await?;
                        }
                        self.after = None;
                    }
                }
                None => {}
            }
            match self.state {
                State::Done => return Ok(self.advanced().unwrap_or(Fetched::End)),
                State::Idle(_) | State::Busy(_) => self.step(room).await?,
            }
        }
    }

    async fn close(self: Box<Self>, _grace: Duration) -> Result<()> {
        if let State::Busy(job) = self.state {
            // It ends by itself and touches nothing but memory.
            drop(job);
        }
        Ok(())
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader")
            .field("topic", self.topic.name())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
