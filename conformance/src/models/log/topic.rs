//! One topic of the log: records, ids, epochs, retention.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::{AppendOptions, Expect, TopicSpec};
use annals_core::{
    Batch, Cursor, Effect, Error, ErrorKind, Frontier, Group, Origin, Outcome, PartitionId,
    Position, Recorded, Rest, Result, Retry, Start, Stored, Submission, Timestamp,
};
use bytes::Bytes;

use super::groups::LogGroup;

/// For how long ids and submissions are remembered, unless the topic was made with another time.
const DEDUPE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) incarnation: Arc<str>,
    pub(super) retention: Retention,
    pub(super) dedupe: Duration,
    pub(super) groups: BTreeMap<Group, LogGroup>,
    /// The number of the oldest record that is kept.
    first: u64,
    kept: VecDeque<Recorded>,
    kept_bytes: usize,
    /// When the records that are gone were stored, by number.
    gone: Vec<Timestamp>,
    /// Whether somebody dropped records by hand.
    trimmed_by_hand: bool,
    /// The log time of the newest record: it never goes back.
    newest: Timestamp,
    /// The numbers of each key's records that are kept.
    by_key: HashMap<Bytes, VecDeque<u64>>,
    remembered: HashMap<Identity, (Timestamp, u64)>,
    epoch: u64,
}

/// By what a repeat is recognised: the application's id, or the same submission by one client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Identity {
    Id(Bytes),
    Submission(Submission),
}

impl Topic {
    pub(super) fn new(incarnation: Arc<str>, spec: &TopicSpec) -> Self {
        Self {
            incarnation,
            retention: spec.retention.unwrap_or(Retention::Forever),
            dedupe: spec.dedupe.unwrap_or(DEDUPE),
            groups: BTreeMap::new(),
            first: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            gone: Vec::new(),
            trimmed_by_hand: false,
            newest: Timestamp::MIN,
            by_key: HashMap::new(),
            remembered: HashMap::new(),
            epoch: 0,
        }
    }

    /// The number that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn get(&self, number: u64) -> Option<&Recorded> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.kept.get(index)
    }

    /// The number of the first record of `key` at or after `number`.
    pub(super) fn next_of_key(&self, key: &Bytes, number: u64) -> Option<u64> {
        let numbers = self.by_key.get(key)?;
        numbers
            .get(numbers.partition_point(|n| *n < number))
            .copied()
    }

    /// What is promised about keeping.
    pub(super) fn kept_for(&self) -> Retention {
        if self.trimmed_by_hand {
            return Retention::Bytes(0);
        }
        self.retention
    }

    /// Where a reading from `frontier` goes on, and when the first record that it misses was
    /// stored. What is gone is no gap to those who asked for the earliest that is kept.
    pub(super) fn resume(&self, frontier: &Frontier) -> (u64, Option<Timestamp>) {
        match frontier {
            &Frontier::EARLIEST => (self.first, None),
            Frontier::Start { .. } => (self.first, self.missing(0)),
            Frontier::After { .. } | Frontier::Ended { .. } => {
                let next = next_after(frontier).unwrap_or_else(|| self.next());
                (next.max(self.first), self.missing(next))
            }
            Frontier::Since(time) => {
                let before = self.kept.partition_point(|r| r.stored_at() < Some(*time));
                let gone = self.gone.partition_point(|stored| stored < time);
                (self.first + before as u64, self.missing(gone as u64))
            }
        }
    }

    /// When the first record at or after a number that is gone was stored.
    pub(super) fn missing(&self, number: u64) -> Option<Timestamp> {
        self.gone.get(usize::try_from(number).ok()?).copied()
    }

    pub(super) fn locate(&self, start: &Start) -> Frontier {
        match start {
            Start::Beginning => Frontier::START,
            Start::Earliest => Frontier::EARLIEST,
            Start::Since(time) => Frontier::Since(*time),
            Start::Latest | Start::After(_) => before(self.next()),
        }
    }

    /// One attempt, whole or not at all.
    ///
    /// Repeats come first: one that is refused by a condition or a fence that it met before would
    /// be told that it is not stored, and it is.
    pub(super) fn append(
        &mut self,
        now: Timestamp,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<Vec<Outcome>> {
        let window = self.dedupe;
        self.remembered
            .retain(|_, (since, _)| now.since(*since) <= window);
        let repeats = (0..batch.len())
            .map(|index| self.repeated(batch, index))
            .collect::<Vec<_>>();
        if repeats.iter().any(Option::is_none)
            && let Some(refusal) = self.refusal(options)?
        {
            return Ok(vec![Outcome::Rejected(refusal); batch.len()]);
        }
        self.epoch = self.epoch.max(options.epoch.unwrap_or(0));
        (0..batch.len())
            .map(|index| self.store(now, batch, index).map(Outcome::Stored))
            .collect()
    }

    fn identities(batch: &Batch, index: usize) -> impl Iterator<Item = Identity> {
        let id = batch.records().get(index).and_then(|r| r.id_bytes());
        let id = id.cloned().map(Identity::Id);
        id.into_iter()
            .chain(batch.submission(index).map(Identity::Submission))
    }

    fn repeated(&self, batch: &Batch, index: usize) -> Option<u64> {
        Self::identities(batch, index)
            .find_map(|identity| self.remembered.get(&identity))
            .map(|(_, number)| *number)
    }

    fn refusal(&self, options: &AppendOptions) -> Result<Option<Error>> {
        if options.epoch.is_some_and(|epoch| epoch < self.epoch) {
            return Ok(Some(Error::new(
                ErrorKind::Fenced,
                Effect::None,
                Retry::Never,
                format!("epoch {} has taken over; stop this writer", self.epoch),
            )));
        }
        let holds = match &options.expect {
            None => true,
            Some(Expect::End(end)) => next_of(end) == Some(self.next()),
            Some(Expect::KeyAt { key, last }) => self.key_is_at(key.as_bytes(), last.as_ref())?,
        };
        Ok((!holds).then(|| {
            Error::new(
                ErrorKind::Conflict,
                Effect::None,
                Retry::Never,
                "a rival was faster: the condition no longer holds; read again and decide again",
            )
        }))
    }

    /// Whether nothing of `key` that is kept came after `last`.
    fn key_is_at(&self, key: &Bytes, last: Option<&Position>) -> Result<bool> {
        let last = match last {
            None => None,
            Some(position) if position.partition() == PartitionId::ONLY => position.number_u64(),
            Some(_) => {
                return Err(Error::config(
                    "the position in the condition is of another topic; take one that a reader gave",
                ));
            }
        };
        let kept = self.by_key.get(key).and_then(VecDeque::back).copied();
        Ok(match (kept, last) {
            (Some(kept), Some(last)) => kept == last,
            (Some(_), None) => false,
            // Retention took the key's last record: nothing of it came later.
            (None, last) => last.is_none_or(|last| last < self.first),
        })
    }

    fn store(&mut self, now: Timestamp, batch: &Batch, index: usize) -> Result<Stored> {
        // Asked again, because a record earlier in the batch may have the same id.
        if let Some(number) = self.repeated(batch, index) {
            return Ok(Stored::at(at(number)).as_duplicate());
        }
        let Some(record) = batch.records().get(index) else {
            return Err(Error::config("the batch has no such record"));
        };
        let number = self.next();
        self.newest = self.newest.max(now);
        let recorded = Recorded::of(record, Some(at(number)), Some(self.newest))?;
        self.kept_bytes += recorded.len_bytes();
        self.kept.push_back(recorded);
        if let Some(key) = record.key_bytes() {
            self.by_key
                .entry(key.clone())
                .or_default()
                .push_back(number);
        }
        for identity in Self::identities(batch, index) {
            self.remembered.insert(identity, (now, number));
        }
        Ok(Stored::at(at(number)))
    }

    /// Drops what retention no longer keeps.
    pub(super) fn retain(&mut self, now: Timestamp) {
        while let Some(oldest) = self.kept.front() {
            let gone = match self.retention {
                Retention::Forever => false,
                Retention::Age(age) => oldest.stored_at().is_some_and(|at| now.since(at) > age),
                Retention::Bytes(bytes) => (self.kept_bytes - oldest.len_bytes()) as u64 >= bytes,
            };
            if !gone {
                return;
            }
            self.drop_oldest();
        }
    }

    pub(super) fn trim_to(&mut self, keep: usize) {
        while self.kept.len() > keep {
            self.drop_oldest();
            self.trimmed_by_hand = true;
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else {
            return;
        };
        self.first += 1;
        self.kept_bytes -= oldest.len_bytes();
        self.gone.extend(oldest.stored_at());
        if let Some(key) = oldest.key_bytes()
            && let Some(numbers) = self.by_key.get_mut(&key)
        {
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }
}

/// The frontier before a number.
pub(super) fn before(number: u64) -> Frontier {
    match number.checked_sub(1) {
        None => Frontier::START,
        Some(last) => Frontier::after(at(last)),
    }
}

/// The position of a number.
pub(super) const fn at(number: u64) -> Position {
    Position::new(PartitionId::ONLY, number)
}

/// A cursor of the one partition; what was never read is the start of everything.
pub(super) fn cursor(origin: Arc<Origin>, frontier: Frontier) -> Cursor {
    if matches!(frontier, Frontier::Start { .. }) {
        return Cursor::start(origin);
    }
    Cursor::new(origin, [(PartitionId::ONLY, frontier)], Rest::FromStart)
}

/// How far a cursor has read the one partition.
pub(super) fn frontier_of(cursor: &Cursor) -> Option<Frontier> {
    match (cursor.frontier(PartitionId::ONLY), cursor.rest()) {
        (Some(frontier), _) => Some(*frontier),
        (None, Rest::FromStart) => Some(Frontier::START),
        (None, Rest::Outside) => None,
    }
}

/// The number behind a frontier; `None` where it is no place of this log.
fn next_after(frontier: &Frontier) -> Option<u64> {
    match frontier {
        Frontier::Start { .. } | Frontier::Since(_) => Some(0),
        Frontier::After { position, .. } => position.number_u64()?.checked_add(1),
        Frontier::Ended { .. } => None,
    }
}

/// The number behind a cursor; `None` where it is no place of this log.
pub(super) fn next_of(cursor: &Cursor) -> Option<u64> {
    next_after(&frontier_of(cursor)?)
}
