//! What an appender has accepted: waiting, under way, settled.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::permit::Full;
use super::ticket::{CELL_RECORDS, Cell, Slot, Ticket};
use crate::batch::Batch;
use crate::capability::{Batching, Claim};
use crate::driver::{Budget, Reserved};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::outcome::{AppendError, Appended, Outcome, Stored};
use crate::record::Record;
use crate::topic::Topic;

/// At most so many batches are under way, whatever the topic allows: bytes bound them anyway.
const MOST_IN_FLIGHT: usize = 64;

/// How far behind the first record a batch looks for keys that are free, in batches.
const LOOK_AHEAD: usize = 8;

/// What the handles and the task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) topic: Topic,
    pub(super) budget: Budget,
    pub(super) retry_for: Duration,
    pub(super) wake: Notify,
    linger: Duration,
    records: usize,
    bytes: usize,
    most_in_flight: usize,
    /// A batch carries one record of a key, because a request would.
    one_per_key: bool,
    state: Mutex<State>,
    /// Every record of a lower number has its outcome.
    settled: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    closed: bool,
    /// The number of the next record.
    next: u64,
    /// Records of a lower number do not linger.
    hurry: u64,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    cell: Arc<Cell>,
    cell_used: usize,
    sent: BTreeMap<u64, Sent>,
    /// Keys of which a record is under way.
    busy: HashSet<Bytes>,
    failure: Option<Error>,
}

#[derive(Debug)]
struct Queued {
    record: Record,
    at: Duration,
    waits: Waits,
}

/// A record's number, ticket and room, until it is settled.
#[derive(Debug)]
struct Waits {
    number: u64,
    slot: Slot,
    room: Reserved,
}

/// A batch under way.
#[derive(Debug)]
struct Sent {
    waits: Vec<Waits>,
    keys: Vec<Bytes>,
}

/// What the task is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this.
    Send(u64, Batch),
    /// Look again after this long, or when something happens.
    Linger(Duration),
    /// Look again when something happens.
    Wait,
    /// Nothing is left and nothing will come.
    End,
}

impl Shared {
    pub(super) fn new(
        topic: Topic,
        linger: Duration,
        records: usize,
        bytes: usize,
        bytes_in_flight: usize,
        retry_for: Duration,
    ) -> Self {
        let has = topic.capabilities();
        let within = |own: usize, claim: Claim<Option<u64>>| {
            let limit = claim.known().copied().flatten();
            limit.map_or(own, |limit| {
                own.min(usize::try_from(limit).unwrap_or(usize::MAX)).max(1)
            })
        };
        Self {
            budget: Budget::new(bytes_in_flight),
            retry_for,
            wake: Notify::new(),
            linger,
            records: within(records, has.limits.batch_records),
            bytes: within(bytes, has.limits.batch_bytes),
            most_in_flight: usize::try_from(has.append.in_flight.max(has.append.parallel))
                .unwrap_or(MOST_IN_FLIGHT)
                .clamp(1, MOST_IN_FLIGHT),
            one_per_key: matches!(
                has.append.batch,
                Claim::Is(Batching::PerRecord | Batching::Unordered) | Claim::Unverified
            ),
            state: Mutex::new(State {
                closed: false,
                next: 0,
                hurry: 0,
                queue: VecDeque::new(),
                queue_bytes: 0,
                cell: Arc::default(),
                cell_used: 0,
                sent: BTreeMap::new(),
                busy: HashSet::new(),
                failure: None,
            }),
            settled: watch::Sender::new(0),
            topic,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn closed_error(&self) -> Error {
        let error = Error::closed("the appender is closed; open another one");
        self.topic.place(error, Operation::Append)
    }

    /// Takes a record into the queue; where it stands there is its order.
    pub(super) fn accept(&self, record: Record, room: Reserved) -> Result<Ticket, Full> {
        let at = self.topic.bus().clock().elapsed();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Err(Full::new(record, self.closed_error()));
        }
        if state.cell_used == CELL_RECORDS {
            state.cell = Arc::default();
            state.cell_used = 0;
        }
        let slot = Slot {
            cell: Arc::clone(&state.cell),
            index: state.cell_used,
        };
        state.cell_used += 1;
        let was_due = state.is_full(self);
        let was_empty = state.queue.is_empty();
        state.queue_bytes = state.queue_bytes.saturating_add(record.len_bytes());
        let number = state.next;
        state.next += 1;
        state.queue.push_back(Queued {
            record,
            at,
            waits: Waits {
                number,
                slot: slot.clone(),
                room,
            },
        });
        let news = was_empty || (!was_due && state.is_full(self));
        drop(state);
        if news {
            self.wake.notify_one();
        }
        Ok(Ticket::new(slot))
    }

    /// Refuses new records, and lets those that were accepted linger no longer.
    pub(super) fn stop_accepting(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.hurry = state.next;
        drop(state);
        self.wake.notify_one();
    }

    /// Sends everything accepted so far and waits until it is settled.
    pub(super) async fn settled(&self) {
        let all = {
            let mut state = self.lock();
            state.hurry = state.next;
            state.next
        };
        self.wake.notify_one();
        // The sender lives as long as `self`: this does not fail.
        let mut settled = self.settled.subscribe();
        let _ = settled.wait_for(|below| *below >= all).await;
    }

    /// The first failure that nobody was told of.
    pub(super) fn first_failure(&self) -> Result<()> {
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    /// What to do next at `now`.
    pub(super) fn next(&self, now: Duration) -> Next {
        let mut state = self.lock();
        if state.queue.is_empty() {
            return if state.closed && state.sent.is_empty() {
                Next::End
            } else {
                Next::Wait
            };
        }
        if state.sent.len() >= self.most_in_flight {
            return Next::Wait;
        }
        if let Some(left) = state.lingers(self, now) {
            return Next::Linger(left);
        }
        let Some((records, sent)) = state.take(self) else {
            return Next::Wait;
        };
        let id = sent.waits.first().map_or(0, |waits| waits.number);
        state.sent.insert(id, sent);
        Next::Send(id, Batch::new(records))
    }

    /// Takes the outcome of a batch: tells the tickets, frees keys and room.
    pub(super) fn answer(&self, id: u64, answer: Result<Appended, AppendError>) {
        let mut state = self.lock();
        // Absent: abandoned meanwhile.
        let Some(sent) = state.sent.remove(&id) else {
            return;
        };
        for key in &sent.keys {
            state.busy.remove(key);
        }
        let mut told: Vec<(Waits, Result<Stored>)> = Vec::with_capacity(sent.waits.len());
        match answer {
            Ok(stored) => {
                let places = stored.records().iter().copied().map(Ok);
                told.extend(sent.waits.into_iter().zip(places));
            }
            Err(failed) => self.failed(&mut state, sent, &failed, &mut told),
        }
        let below = state.settled_below();
        drop(state);
        self.tell(told, below);
    }

    fn failed(
        &self,
        state: &mut State,
        sent: Sent,
        failed: &AppendError,
        told: &mut Vec<(Waits, Result<Stored>)>,
    ) {
        let batch = failed.batch();
        let mut stopped: Vec<(Bytes, Error)> = Vec::new();
        let why = |key: Option<&Bytes>, stopped: &[(Bytes, Error)]| {
            let of_key = stopped.iter().find(|(stopped, _)| Some(stopped) == key);
            of_key.map_or_else(|| failed.error().clone(), |(_, error)| error.clone())
        };
        for (index, waits) in sent.waits.into_iter().enumerate() {
            let key = batch.records().get(index).and_then(Record::key_bytes);
            let result = match failed.outcomes().get(index) {
                Some(Outcome::Stored(stored)) => Ok(*stored),
                Some(Outcome::Rejected(error) | Outcome::Unknown(error)) => Err(error.clone()),
                Some(Outcome::NotAttempted) | None => Err(self.not_sent(&why(key, &stopped))),
            };
            if let Err(error) = &result {
                state.failure.get_or_insert_with(|| error.clone());
                if let Some(key) = key
                    && !stopped.iter().any(|(stopped, _)| stopped == key)
                {
                    stopped.push((key.clone(), error.clone()));
                }
            }
            told.push((waits, result));
        }
        if stopped.is_empty() {
            return;
        }
        let stopped: std::collections::HashMap<Bytes, Error> = stopped.into_iter().collect();
        for queued in std::mem::take(&mut state.queue) {
            let key = queued.record.key_bytes();
            match key.and_then(|key| stopped.get(key)) {
                Some(error) => {
                    state.queue_bytes -= queued.record.len_bytes().min(state.queue_bytes);
                    told.push((queued.waits, Err(self.not_sent(error))));
                }
                None => state.queue.push_back(queued),
            }
        }
    }

    fn not_sent(&self, cause: &Error) -> Error {
        let error = Error::new(
            cause.kind(),
            Effect::None,
            cause.retry(),
            "not sent, because an earlier record of its key was not stored; append it again behind that one",
        );
        self.topic
            .place(error, Operation::Append)
            .with_source(cause.clone())
    }

    /// Gives up everything: what is under way is unknown, what waits was never sent.
    pub(super) fn abandon(&self) {
        let lost = |effect, message| {
            let error = Error::new(ErrorKind::Timeout, effect, Retry::Backoff, message);
            self.topic.place(error, Operation::Append)
        };
        let unknown = lost(
            Effect::Unknown,
            "the appender ended before the record had an outcome; it may be stored",
        );
        let never = lost(
            Effect::None,
            "the appender ended before the record was sent; append it again",
        );
        let mut state = self.lock();
        state.closed = true;
        let mut told: Vec<(Waits, Result<Stored>)> = Vec::new();
        for sent in std::mem::take(&mut state.sent).into_values() {
            let waits = sent.waits.into_iter();
            told.extend(waits.map(|waits| (waits, Err(unknown.clone()))));
        }
        for queued in std::mem::take(&mut state.queue) {
            told.push((queued.waits, Err(never.clone())));
        }
        state.queue_bytes = 0;
        state.busy.clear();
        if let Some((_, Err(error))) = told.first() {
            // It outweighs an older failure: it says that the end was not in order.
            state.failure = Some(error.clone());
        }
        let below = state.settled_below();
        drop(state);
        self.tell(told, below);
    }

    fn tell(&self, told: Vec<(Waits, Result<Stored>)>, below: u64) {
        for (waits, result) in told {
            waits.slot.settle(result);
            drop(waits.room);
        }
        self.settled.send_if_modified(|settled| {
            let moved = *settled < below;
            *settled = below.max(*settled);
            moved
        });
    }
}

impl State {
    fn is_full(&self, shared: &Shared) -> bool {
        self.queue.len() >= shared.records || self.queue_bytes >= shared.bytes
    }

    /// For how long the first record still waits for company; `None`: it is due.
    fn lingers(&self, shared: &Shared, now: Duration) -> Option<Duration> {
        let first = self.queue.front()?;
        if self.is_full(shared) || first.waits.number < self.hurry {
            return None;
        }
        let left = first.at.saturating_add(shared.linger).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    /// The next batch: the earliest records whose keys are not under way.
    fn take(&mut self, shared: &Shared) -> Option<(Vec<Record>, Sent)> {
        let tracks = shared.one_per_key || shared.most_in_flight > 1;
        let expected = self.queue.len().min(shared.records);
        let mut records: Vec<Record> = Vec::with_capacity(expected);
        let mut sent = Sent {
            waits: Vec::with_capacity(expected),
            keys: Vec::new(),
        };
        let mut passed: Vec<Queued> = Vec::new();
        let mut bytes = 0_usize;
        let look_ahead = shared.records.saturating_mul(LOOK_AHEAD);
        while let Some(queued) = self.queue.pop_front() {
            let len = queued.record.len_bytes();
            let key = queued.record.key_bytes().filter(|_| tracks).cloned();
            if key.as_ref().is_some_and(|key| self.busy.contains(key)) {
                passed.push(queued);
                if passed.len() >= look_ahead {
                    break;
                }
                continue;
            }
            bytes = bytes.saturating_add(len);
            if !records.is_empty() && bytes > shared.bytes {
                self.queue.push_front(queued);
                break;
            }
            if let Some(key) = key {
                if shared.one_per_key {
                    self.busy.insert(key.clone());
                }
                sent.keys.push(key);
            }
            self.queue_bytes -= len.min(self.queue_bytes);
            records.push(queued.record);
            sent.waits.push(queued.waits);
            if records.len() >= shared.records {
                break;
            }
        }
        for queued in passed.into_iter().rev() {
            self.queue.push_front(queued);
        }
        if !shared.one_per_key {
            self.busy.extend(sent.keys.iter().cloned());
        }
        (!records.is_empty()).then_some((records, sent))
    }

    /// Every record of a lower number is settled.
    fn settled_below(&self) -> u64 {
        let waiting = self.queue.front().map(|queued| queued.waits.number);
        let sent = self.sent.keys().next().copied();
        [waiting, sent]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next)
    }
}
