//! What is in flight: who may have which record when, and what is to be told to the service.
//!
//! No I/O and no clock: moments come in as spans since the subscription's clock started.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stay::{Due, Gone, Stay, Waiter};
use super::verdict::Verdict;
use crate::cursor::Frontier;
use crate::defaults;
use crate::driver::{self, Delivered, Holder, Room, Settled, Tenancy, Token};
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::position::PartitionId;
use crate::recorded::Recorded;

/// So many times the in-flight bound may be settled behind one record that is not: that much a
/// crash repeats at worst, and that much is remembered.
pub(crate) const WINDOW: usize = 16;

/// The rules that a ledger keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Records of one key keep their order.
    pub(crate) ordered: bool,
    pub(crate) in_flight: Room,
    pub(crate) max_attempts: Option<u32>,
    /// Attempts are committed before the first record of a stay is handed out.
    pub(crate) careful: bool,
    pub(crate) commit_interval: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In the hands of core.
    Waiting,
    /// In the hands of a handler.
    Handed,
    /// To be handed out again, not before then.
    Later(Duration),
    /// On its way to the dead letters, not before then.
    Rejected(Duration),
}

#[derive(Debug)]
struct Entry {
    record: Recorded,
    holder: Holder,
    attempts: u32,
    state: State,
    gone: Arc<Gone>,
    /// Its right has ended while a handler had it: it only keeps its key's followers back.
    lost: bool,
    lane: Option<Bytes>,
    reason: Option<String>,
}

/// What `next` hands out.
#[derive(Debug)]
pub(crate) struct Handout {
    pub(crate) id: u64,
    pub(crate) record: Recorded,
    pub(crate) attempt: u32,
    pub(crate) gone: Arc<Gone>,
    pub(crate) holder: Holder,
}

/// A record on its way to the dead letters.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) id: u64,
    pub(crate) record: Recorded,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

/// One settlement that a service which settles each is still to be told.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) token: Token,
    pub(crate) verdict: driver::Verdict,
    pub(crate) waiter: Option<Waiter>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    next_id: u64,
    entries: BTreeMap<u64, Entry>,
    lanes: HashMap<Bytes, VecDeque<u64>>,
    /// First in their lane and waiting.
    ready: BTreeSet<u64>,
    later: BTreeSet<(Duration, u64)>,
    rejected: BTreeSet<(Duration, u64)>,
    stays: BTreeMap<PartitionId, Stay>,
    settlements: BTreeMap<u64, Settlement>,
    /// Settlements that are being told.
    telling: usize,
    bytes: usize,
    handed: Room,
    dirty_since: Option<Duration>,
    urgent: bool,
    told: VecDeque<Error>,
    /// No new deliveries.
    pub(crate) closing: bool,
    /// Nothing can be settled any more.
    pub(crate) ended: bool,
    pub(crate) failed: Option<Error>,
}

impl Ledger {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            next_id: 1,
            entries: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            rejected: BTreeSet::new(),
            stays: BTreeMap::new(),
            settlements: BTreeMap::new(),
            telling: 0,
            bytes: 0,
            handed: Room::NONE,
            dirty_since: None,
            urgent: false,
            told: VecDeque::new(),
            closing: false,
            ended: false,
            failed: None,
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// An error to be told once; of a flood the first ones are kept.
    pub(crate) fn tell(&mut self, error: Error) {
        if self.told.len() < 64 {
            self.told.push_back(error);
        }
    }

    pub(crate) fn take_told(&mut self) -> Option<Error> {
        self.told.pop_front()
    }

    // What arrives.

    /// How much more may be fetched.
    pub(crate) fn room(&self) -> Room {
        if self.closing {
            return Room::NONE;
        }
        let limit = self.rules.in_flight;
        let taken = self.entries.len() + self.settlements.len() + self.telling;
        let free = Room {
            records: limit.records.saturating_sub(taken),
            bytes: limit.bytes.saturating_sub(self.bytes),
        };
        // A record at a time would be a call at a time: wait for a quarter, unless all is idle.
        let worth = free.records >= limit.records / 4 && free.bytes >= limit.bytes / 4;
        if worth || self.ready.is_empty() {
            free
        } else {
            Room::NONE
        }
    }

    /// A delivery arrived. One whose right has ended already is left out.
    pub(crate) fn arrive(&mut self, delivered: Delivered, now: Duration) {
        let id = self.id();
        let record = delivered.record;
        let (attempts, gone) = match delivered.holder {
            Holder::Token(_) => (delivered.attempt.saturating_sub(1), Arc::default()),
            Holder::Tenancy(tenancy) => {
                let Some(position) = record.position() else {
                    self.tell(internal("a record that is settled by its place has none"));
                    return;
                };
                let Some(stay) = self.stay(tenancy).filter(|stay| stay.revoking.is_none()) else {
                    return;
                };
                let attempts = stay.arrive(id, Frontier::after(position));
                (attempts, Arc::clone(&stay.gone))
            }
        };
        let lane = if self.rules.ordered {
            record.key_bytes()
        } else {
            None
        };
        let mut first = true;
        if let Some(key) = &lane {
            let ids = self.lanes.entry(key.clone()).or_default();
            first = ids.is_empty();
            ids.push_back(id);
        }
        self.bytes += record.len_bytes();
        self.entries.insert(
            id,
            Entry {
                record,
                holder: delivered.holder,
                attempts,
                state: State::Waiting,
                gone,
                lost: false,
                lane,
                reason: None,
            },
        );
        if first {
            self.present(id, now);
        }
    }

    /// A record came to the front of its lane: it can be handed out, or is at its limit.
    fn present(&mut self, id: u64, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.state != State::Waiting {
            return;
        }
        let limit = self.rules.max_attempts;
        if limit.is_some_and(|limit| entry.attempts >= limit) {
            let attempts = entry.attempts;
            entry.reason.get_or_insert_with(|| {
                format!("it was handed out {attempts} times and never settled")
            });
            entry.state = State::Rejected(now);
            self.rejected.insert((now, id));
        } else {
            self.ready.insert(id);
        }
    }

    fn stay(&mut self, tenancy: Tenancy) -> Option<&mut Stay> {
        let stay = self.stays.get_mut(&tenancy.partition);
        stay.filter(|stay| stay.tenancy == tenancy)
    }

    pub(crate) fn assigned(&mut self, tenancy: Tenancy, from: Frontier, attempts: u32) {
        let probe = match (self.rules.careful, attempts) {
            (false, _) => 0,
            (true, 0) => 1,
            // The last stay ended while this record was in flight: it or one that was in flight
            // with it may have ended the process.
            (true, _) => self.rules.in_flight.records,
        };
        let stay = Stay::new(tenancy, from, attempts, probe);
        if let Some(old) = self.stays.insert(tenancy.partition, stay) {
            self.forget(old);
        }
    }

    /// The stay is to end: nothing more of it is handed out, and once what handlers have is
    /// settled (or `until` has come) and committed it is released.
    pub(crate) fn revoking(&mut self, tenancy: Tenancy, until: Duration) {
        let Some(stay) = self.stay(tenancy) else {
            return;
        };
        stay.revoking = Some(until);
        for id in stay.unsettled() {
            self.drop_unless_handed(id);
        }
    }

    /// The stay has ended. Who settles its records now settles nothing.
    pub(crate) fn lost(&mut self, tenancy: Tenancy) {
        if self.stay(tenancy).is_some()
            && let Some(stay) = self.stays.remove(&tenancy.partition)
        {
            if stay.is_ahead() {
                self.tell(expired(tenancy.partition));
            }
            self.forget(stay);
        }
    }

    fn forget(&mut self, stay: Stay) {
        for id in stay.unsettled() {
            self.drop_unless_handed(id);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.lost = true;
            }
        }
        let partition = stay.tenancy.partition;
        for waiter in stay.end() {
            let _ = waiter.send(Err(expired(partition)));
        }
    }

    fn drop_unless_handed(&mut self, id: u64) {
        let handed = |entry: &Entry| entry.state == State::Handed;
        if !self.entries.get(&id).is_none_or(handed) {
            self.remove(id, None);
        }
    }

    pub(crate) fn advanced(&mut self, tenancy: Tenancy, to: Frontier, now: Duration) {
        let id = self.id();
        if let Some(stay) = self.stay(tenancy) {
            stay.advance(id, to);
            self.touch(now);
        }
    }

    // What handlers do.

    /// The oldest record that may be handed out now.
    pub(crate) fn hand(&mut self, now: Duration) -> Option<Handout> {
        if self.closing {
            return None;
        }
        self.wake(now);
        let mut found = None;
        for id in &self.ready {
            let Some(entry) = self.entries.get(id) else {
                continue;
            };
            let limit = self.rules.in_flight;
            let bytes = self.handed.bytes + entry.record.len_bytes();
            let first = self.handed.records == 0;
            if self.handed.records >= limit.records || (bytes > limit.bytes && !first) {
                return None;
            }
            let allowed = match entry.holder {
                Holder::Token(_) => true,
                Holder::Tenancy(tenancy) => self
                    .stays
                    .get_mut(&tenancy.partition)
                    .is_some_and(|stay| stay.allows(*id)),
            };
            if allowed {
                found = Some(*id);
                break;
            }
        }
        let id = found?;
        self.ready.remove(&id);
        let entry = self.entries.get_mut(&id)?;
        entry.state = State::Handed;
        entry.attempts = entry.attempts.saturating_add(1);
        let handout = Handout {
            id,
            record: entry.record.clone(),
            attempt: entry.attempts,
            gone: Arc::clone(&entry.gone),
            holder: entry.holder,
        };
        self.handed.records += 1;
        self.handed.bytes += handout.record.len_bytes();
        if let Holder::Tenancy(tenancy) = handout.holder
            && let Some(stay) = self.stay(tenancy)
        {
            stay.hand(id, handout.attempt);
        }
        Some(handout)
    }

    /// A handler's verdict on a record that it had; `waiter` is told when it holds.
    pub(crate) fn settle(
        &mut self,
        id: u64,
        verdict: Verdict,
        waiter: Option<Waiter>,
        now: Duration,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.state != State::Handed {
            return;
        }
        self.handed.records = self.handed.records.saturating_sub(1);
        self.handed.bytes = self.handed.bytes.saturating_sub(entry.record.len_bytes());
        let (holder, lost) = (entry.holder, entry.lost);
        if let Holder::Tenancy(tenancy) = holder
            && let Some(stay) = self.stay(tenancy)
        {
            stay.handed = stay.handed.saturating_sub(1);
        }
        if lost {
            self.remove(id, Some(now));
            if let Some(waiter) = waiter {
                let _ = waiter.send(Err(match holder {
                    Holder::Tenancy(tenancy) => expired(tenancy.partition),
                    Holder::Token(_) => late(),
                }));
            }
            return;
        }
        match verdict {
            Verdict::Done => self.done(id, waiter, now),
            Verdict::Retry { after, reason } => self.again(id, after, reason, now),
            Verdict::Reject { reason } => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.reason = Some(reason);
                    entry.state = State::Rejected(now);
                    self.rejected.insert((now, id));
                }
            }
        }
    }

    fn done(&mut self, id: u64, waiter: Option<Waiter>, now: Duration) {
        let Some(entry) = self.remove(id, Some(now)) else {
            return;
        };
        match entry.holder {
            Holder::Token(token) => {
                self.settlements.insert(
                    id,
                    Settlement {
                        token,
                        verdict: driver::Verdict::Done,
                        waiter,
                    },
                );
            }
            Holder::Tenancy(tenancy) => {
                if let Some(stay) = self.stay(tenancy) {
                    stay.settle(id);
                    if let Some(waiter) = waiter {
                        stay.wait_for(id, waiter);
                    }
                    self.touch(now);
                }
            }
        }
    }

    fn again(&mut self, id: u64, after: Option<Duration>, reason: Option<String>, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.reason = reason.or_else(|| entry.reason.take());
        let after = after.unwrap_or(defaults::REDELIVERY_DELAY);
        let at_limit = self
            .rules
            .max_attempts
            .is_some_and(|limit| entry.attempts >= limit);
        // A revoked stay waits for its handlers only: the next holder hands this one out again.
        let leaving = match entry.holder {
            Holder::Token(_) => self.closing,
            Holder::Tenancy(tenancy) => {
                let stay = self.stays.get(&tenancy.partition);
                self.closing || stay.is_none_or(|stay| stay.revoking.is_some())
            }
        };
        if at_limit && !leaving {
            entry.state = State::Waiting;
            self.present(id, now);
            return;
        }
        match entry.holder {
            // Where no order is to be kept the service itself can keep the delay.
            Holder::Token(token) if entry.lane.is_none() || leaving => {
                let verdict = driver::Verdict::Retry { after };
                self.remove(id, Some(now));
                self.settlements.insert(
                    id,
                    Settlement {
                        token,
                        verdict,
                        waiter: None,
                    },
                );
            }
            Holder::Tenancy(_) if leaving => {
                self.remove(id, None);
                self.touch(now);
            }
            _ => {
                let at = now.saturating_add(after);
                entry.state = State::Later(at);
                self.later.insert((at, id));
                self.touch(now);
            }
        }
    }

    /// Takes a record out; with `promote` its key's next one can be handed out.
    fn remove(&mut self, id: u64, promote: Option<Duration>) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.ready.remove(&id);
        match entry.state {
            State::Later(at) => self.later.remove(&(at, id)),
            State::Rejected(at) => self.rejected.remove(&(at, id)),
            State::Waiting | State::Handed => false,
        };
        self.bytes = self.bytes.saturating_sub(entry.record.len_bytes());
        if let Some(key) = &entry.lane
            && let Some(ids) = self.lanes.get_mut(key)
        {
            let was_first = ids.front() == Some(&id);
            ids.retain(|other| *other != id);
            let next = ids.front().copied();
            if ids.is_empty() {
                self.lanes.remove(key);
            }
            if was_first && let Some(next) = next {
                // Those of an ended stay go one after the other, each for itself; whoever is
                // left must not be forgotten.
                self.present(next, promote.unwrap_or_default());
            }
        }
        Some(entry)
    }

    // What time does.

    /// Retries whose time has come can be handed out.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some((at, id)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.state = State::Waiting;
            }
            self.present(id, now);
        }
    }

    fn touch(&mut self, now: Duration) {
        self.dirty_since.get_or_insert(now);
    }

    /// The moment at which something is due; `None`: nothing is, for now.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if self.urgent || self.stays.values().any(is_pressing) {
            return Some(Duration::ZERO);
        }
        let commit = self
            .dirty_since
            .map(|since| since.saturating_add(self.rules.commit_interval));
        let retry = self.later.first().map(|(at, _)| *at);
        let revoked = self.stays.values().filter_map(|stay| stay.revoking).min();
        [commit, retry, revoked].into_iter().flatten().min()
    }

    // What the service is told.

    /// Commit now rather than at the next interval.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// The marks to commit now.
    pub(crate) fn marks(&mut self, now: Duration) -> Vec<Due> {
        let interval = self.rules.commit_interval;
        let due = self
            .dirty_since
            .is_some_and(|since| since.saturating_add(interval) <= now);
        let all = self.urgent || due;
        let marks: Vec<Due> = self
            .stays
            .values()
            .filter(|stay| all || stay.is_urgent())
            .filter_map(Stay::due)
            .collect();
        if all {
            self.urgent = false;
            self.dirty_since = None;
        }
        marks
    }

    /// A commit's answer.
    pub(crate) fn committed(&mut self, due: &Due, result: Result<()>, now: Duration) {
        let tenancy = due.mark.tenancy;
        match result {
            Ok(()) => {
                if let Some(stay) = self.stay(tenancy) {
                    stay.committed(due);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Expired) => {
                if self.stay(tenancy).is_some()
                    && let Some(stay) = self.stays.remove(&tenancy.partition)
                {
                    self.forget(stay);
                    self.tell(error.in_partition(tenancy.partition));
                }
            }
            Err(_) => self.touch(now),
        }
    }

    /// Revoked stays that can be released.
    pub(crate) fn releasable(&self, now: Duration) -> Vec<Tenancy> {
        let free = |stay: &&Stay| {
            stay.revoking
                .is_some_and(|until| until <= now || (stay.handed == 0 && stay.due().is_none()))
        };
        let stays = self.stays.values().filter(free);
        stays.map(|stay| stay.tenancy).collect()
    }

    /// The stay was released.
    pub(crate) fn released(&mut self, tenancy: Tenancy) {
        self.lost(tenancy);
    }

    /// Settlements to tell, at most `most`; they stay noted until they are answered.
    pub(crate) fn take_settlements(&mut self, most: usize) -> Vec<(u64, Settlement)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(next) = self.settlements.pop_first()
        {
            taken.push(next);
        }
        self.telling = taken.len();
        taken
    }

    /// Those that were taken are answered, save these: they could not be told yet.
    pub(crate) fn answered(&mut self, again: Vec<(u64, Settlement)>) {
        self.telling = 0;
        self.settlements.extend(again);
    }

    /// Deliveries to hold on to, with their numbers.
    pub(crate) fn tokens(&self) -> Vec<(u64, Token)> {
        let held = self.entries.iter().filter(|(_, entry)| !entry.lost);
        held.filter_map(|(id, entry)| match entry.holder {
            Holder::Token(token) => Some((*id, token)),
            Holder::Tenancy(_) => None,
        })
        .collect()
    }

    /// A delivery is no longer ours. Its key's followers go back with it: it will come again, and
    /// before them. Says whether a handler had it.
    pub(crate) fn expire(&mut self, id: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.lost) else {
            return false;
        };
        entry.lost = true;
        entry.gone.set();
        let mut followers = Vec::new();
        if let Some(ids) = entry.lane.as_ref().and_then(|key| self.lanes.get(key)) {
            followers.extend(ids.iter().copied().filter(|other| *other > id));
        }
        // From the back, so that none of them is handed out meanwhile.
        for other in followers.into_iter().rev() {
            self.give_back(other);
        }
        let handed = |entry: &Entry| entry.state == State::Handed;
        let handed = self.entries.get(&id).is_some_and(handed);
        if !handed {
            self.remove(id, None);
        }
        handed
    }

    fn give_back(&mut self, id: u64) -> bool {
        let free = |entry: &Entry| entry.state != State::Handed;
        if !self.entries.get(&id).is_some_and(free) {
            return false;
        }
        if let Some(entry) = self.remove(id, None)
            && let Holder::Token(token) = entry.holder
            && !entry.lost
        {
            self.settlements.insert(
                id,
                Settlement {
                    token,
                    verdict: driver::Verdict::Return,
                    waiter: None,
                },
            );
        }
        true
    }

    /// Gives back what no handler has; how many that is.
    pub(crate) fn give_all_back(&mut self) -> u64 {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        let mut given = 0;
        // From the back, so that a key's followers are never offered without it.
        for id in ids.into_iter().rev() {
            given += u64::from(self.give_back(id));
        }
        given
    }

    /// The rejected records whose time has come.
    pub(crate) fn letters(&self, now: Duration) -> Vec<Letter> {
        let due = self.rejected.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, id)| {
            let entry = self.entries.get(id)?;
            Some(Letter {
                id: *id,
                record: entry.record.clone(),
                attempts: entry.attempts,
                reason: entry.reason.clone().unwrap_or_default(),
            })
        })
        .collect()
    }

    /// When the next rejected record is due.
    pub(crate) fn next_letter(&self) -> Option<Duration> {
        self.rejected.first().map(|(at, _)| *at)
    }

    /// The letter is stored: the record is settled.
    pub(crate) fn buried(&mut self, id: u64, now: Duration) {
        let rejected = |entry: &Entry| matches!(entry.state, State::Rejected(_));
        if self.entries.get(&id).is_some_and(rejected) {
            self.done(id, None, now);
        }
    }

    /// The letter could not be stored: the record stays unsettled until it is.
    pub(crate) fn unburied(&mut self, id: u64, at: Duration) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let State::Rejected(was) = entry.state
        {
            self.rejected.remove(&(was, id));
            entry.state = State::Rejected(at);
            self.rejected.insert((at, id));
        }
    }

    /// There is nowhere for letters to go: the record is handed out again after the default delay.
    pub(crate) fn reprieve(&mut self, id: u64, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let State::Rejected(was) = entry.state {
            self.rejected.remove(&(was, id));
            self.again(id, None, None, now);
        }
    }

    // What can be asked.

    /// Deliveries that handlers have.
    pub(crate) fn handed(&self) -> usize {
        self.handed.records
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether any settlement is still to be told, or answered.
    pub(crate) fn has_settlements(&self) -> bool {
        !self.settlements.is_empty() || self.telling > 0
    }

    /// What a flush waits for: how far each stay's settled records reach now.
    pub(crate) fn progress(&self) -> Vec<(Tenancy, u64)> {
        let stays = self.stays.values();
        stays
            .map(|stay| (stay.tenancy, stay.progress().0))
            .collect()
    }

    /// Whether all of that has been committed, or can no longer be.
    pub(crate) fn has_committed(&self, targets: &[(Tenancy, u64)]) -> bool {
        targets.iter().all(|(tenancy, target)| {
            let stay = self.stays.get(&tenancy.partition);
            stay.filter(|stay| stay.tenancy == *tenancy)
                .is_none_or(|stay| stay.progress().1 >= *target)
        })
    }

    /// Stays whose hold at the source is not as it should be: partition and whether to hold.
    pub(crate) fn holds(&mut self) -> Vec<(PartitionId, bool)> {
        let most = self.rules.in_flight.records.saturating_mul(WINDOW);
        let mut changed = Vec::new();
        for stay in self.stays.values_mut() {
            let hold = stay.revoking.is_some() || stay.behind() >= most;
            if hold != stay.held {
                stay.held = hold;
                changed.push((stay.tenancy.partition, hold));
            }
        }
        changed
    }

    /// Nothing can be settled any more.
    pub(crate) fn end(&mut self) {
        self.closing = true;
        self.ended = true;
        for entry in self.entries.values() {
            entry.gone.set();
        }
        for (_, stay) in std::mem::take(&mut self.stays) {
            for waiter in stay.end() {
                let _ = waiter.send(Err(closed()));
            }
        }
        for (_, settlement) in std::mem::take(&mut self.settlements) {
            if let Some(waiter) = settlement.waiter {
                let _ = waiter.send(Err(closed()));
            }
        }
    }
}

/// Whether a stay waits for a commit or for its release.
fn is_pressing(stay: &Stay) -> bool {
    (stay.is_urgent() && stay.due().is_some()) || (stay.revoking.is_some() && stay.handed == 0)
}

/// The answer of a service to a settlement, as an error where it has no effect.
pub(crate) fn answer(settled: Settled) -> Result<()> {
    match settled {
        Settled::Yes => Ok(()),
        Settled::Expired => Err(late()),
        Settled::Failed(error) => Err(error.with_effect(Effect::None)),
        Settled::Unknown(error) => Err(error.with_effect(Effect::Unknown)),
    }
}

pub(crate) fn late() -> Error {
    Error::new(
        ErrorKind::Expired,
        Effect::None,
        Retry::Never,
        "a delivery was settled after its hold had run out; the record comes again, handle it faster or ask for a longer lease",
    )
}

pub(crate) fn expired(partition: PartitionId) -> Error {
    Error::new(
        ErrorKind::Expired,
        Effect::None,
        Retry::Never,
        format!(
            "partition {partition} went to another member before what was settled here had been committed; those records come again there"
        ),
    )
    .in_partition(partition)
}

pub(crate) fn closed() -> Error {
    Error::closed("the subscription is closed; what was not settled comes again to others")
}

fn internal(message: &str) -> Error {
    Error::new(ErrorKind::Internal, Effect::None, Retry::Never, message)
}
