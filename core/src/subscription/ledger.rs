//! What is in flight: who may have which record when, and what is to be told to the service.
//!
//! No I/O and no clock: moments come in as spans since the subscription's clock started.
//!
//! | room | holds |
//! | --- | --- |
//! | here | what arrives, and how much room there is for more |
//! | `handing` | what is handed out, and what handlers say of it |
//! | `stays` | partitions that come and go, and what is committed of them |
//! | `revoked` | revocations, and their answers |
//! | `gaps` | records that are gone, until that is told |
//! | `returning` | tokens: what is held, what has run out, what is given back |
//! | `burying` | records on their way to the dead letters |

mod burying;
mod gaps;
mod handing;
mod returning;
mod revoked;
mod stays;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::failure;
use super::gone::Gone;
use super::lanes::Lanes;
use super::news::News;
use super::outbox::Outbox;
use super::stay::{Revoking, Stay};
use crate::cursor::Frontier;
use crate::driver::{Delivered, Holder, Room, Tenancy};
use crate::error::{Error, Operation};
use crate::position::PartitionId;
use crate::recorded::Recorded;

use gaps::Untold;

pub(crate) use burying::Letter;
pub(crate) use gaps::Told;
pub(crate) use handing::Handout;

/// The rules that a ledger keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Records of one key keep their order.
    pub(crate) ordered: bool,
    pub(crate) in_flight: Room,
    pub(crate) max_attempts: Option<u32>,
    /// For how long a delivery can be held at most.
    pub(crate) hold_most: Option<Duration>,
    /// What a service says of attempts is an upper bound.
    pub(crate) at_most: bool,
    /// Attempts outlive a stay.
    pub(crate) counted: bool,
    /// They are committed before the first records of a stay are handed out.
    pub(crate) careful: bool,
    pub(crate) commit_interval: Duration,
    /// For how long a revocation waits at most.
    pub(crate) grace: Duration,
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
    /// To be handed out once more whatever its attempts.
    spared: bool,
}

/// The last stay that a partition had here.
#[derive(Debug)]
struct Last {
    epoch: u64,
    /// A revocation of it is answered, or being answered, or needs no answer.
    answered: bool,
    /// Something was said of it after it had ended here.
    stale: bool,
}

impl Last {
    const fn new(tenancy: Tenancy) -> Self {
        Self {
            epoch: tenancy.epoch,
            answered: false,
            stale: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    news: Arc<News>,
    next_id: u64,
    entries: BTreeMap<u64, Entry>,
    lanes: Lanes,
    /// First in their lane and waiting.
    ready: BTreeSet<u64>,
    later: BTreeSet<(Duration, u64)>,
    rejected: BTreeSet<(Duration, u64)>,
    stays: BTreeMap<PartitionId, Stay>,
    /// The last stay that each partition had here.
    lasts: BTreeMap<PartitionId, Last>,
    /// Revocations of stays that have ended, still to be answered.
    owed: BTreeMap<Tenancy, Revoking>,
    /// Gaps that are still to be told, by arrival.
    gaps: BTreeMap<u64, Untold>,
    /// Partitions that the source was told to hold back.
    held: BTreeSet<PartitionId>,
    /// What a service that settles each is still to be told.
    pub(crate) outbox: Outbox,
    bytes: usize,
    handed: Room,
    dirty_since: Option<Duration>,
    urgent: bool,
    /// Deliveries that were given back untouched.
    pub(crate) returned: u64,
    /// Callers of `next` that wait now: what is taken from a service that shares records out.
    pub(crate) wanted: usize,
    /// The receiving task waits for room.
    pub(crate) starved: bool,
    /// No new deliveries.
    pub(crate) closing: bool,
    /// The source is to be given back: nothing is waited for any more.
    pub(crate) leaving: bool,
    /// Nothing can be settled any more.
    pub(crate) ended: bool,
    /// The end of it: nothing arrives any more.
    pub(crate) failed: Option<Error>,
}

impl Ledger {
    pub(crate) fn new(rules: Rules, news: Arc<News>) -> Self {
        Self {
            rules,
            news,
            next_id: 1,
            entries: BTreeMap::new(),
            lanes: Lanes::default(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            rejected: BTreeSet::new(),
            stays: BTreeMap::new(),
            lasts: BTreeMap::new(),
            owed: BTreeMap::new(),
            gaps: BTreeMap::new(),
            held: BTreeSet::new(),
            outbox: Outbox::default(),
            bytes: 0,
            handed: Room::NONE,
            dirty_since: None,
            urgent: false,
            returned: 0,
            wanted: 0,
            starved: false,
            closing: false,
            leaving: false,
            ended: false,
            failed: None,
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn tell(&self, error: Error) {
        self.news.tell(error, Operation::Settle);
    }

    /// How much more may be fetched.
    pub(crate) fn room(&self) -> Room {
        if self.closing {
            return Room::NONE;
        }
        let limit = self.rules.in_flight;
        let taken = self.entries.len() + self.outbox.len();
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
                    // Left out, the watermark would pass it.
                    self.failed.get_or_insert_with(failure::without_place);
                    self.lost(tenancy);
                    return;
                };
                if !self.was_assigned(tenancy) {
                    let error = failure::unassigned(tenancy.partition);
                    self.failed.get_or_insert(error);
                    return;
                }
                let Some(stay) = self.live(tenancy) else {
                    return;
                };
                if !stay.follows(position) {
                    // A mark would go back, or pass what was never handed out.
                    let error = failure::backwards(tenancy.partition);
                    self.failed.get_or_insert(error);
                    self.lost(tenancy);
                    return;
                }
                let attempts = stay.arrive(id, Frontier::after(position));
                (attempts, Arc::clone(&stay.gone))
            }
        };
        let lane = record.key_bytes().filter(|_| self.rules.ordered);
        let first = lane.as_ref().is_none_or(|key| self.lanes.join(key, id));
        // It may have been taken and given back all those times.
        let spared = self.rules.at_most && matches!(delivered.holder, Holder::Token(_));
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
                spared,
            },
        );
        if first {
            self.present(id, now);
        }
    }

    /// A record came to the front of its lane: it can be handed out, or is at its limit.
    fn present(&mut self, id: u64, now: Duration) {
        let limit = self.rules.max_attempts;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.state != State::Waiting {
            return;
        }
        if entry.spared || limit.is_none_or(|limit| entry.attempts < limit) {
            self.ready.insert(id);
        } else if !self.closing {
            let attempts = entry.attempts;
            let reason = || format!("it was handed out {attempts} times and never settled");
            entry.reason.get_or_insert_with(reason);
            entry.state = State::Rejected(now);
            self.rejected.insert((now, id));
            self.tried(id);
        }
    }

    fn tried(&mut self, id: u64) {
        let holder = self.entries.get(&id).map(|entry| entry.holder);
        if let Some(Holder::Tenancy(tenancy)) = holder
            && let Some(stay) = self.stay(tenancy)
        {
            stay.tried(id);
        }
    }

    /// Takes a record out; its key's next one can be handed out.
    fn remove(&mut self, id: u64, now: Duration) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.ready.remove(&id);
        match entry.state {
            State::Later(at) => self.later.remove(&(at, id)),
            State::Rejected(at) => self.rejected.remove(&(at, id)),
            State::Waiting | State::Handed => false,
        };
        self.bytes = self.bytes.saturating_sub(entry.record.len_bytes());
        let lane = entry.lane.as_ref();
        if let Some(next) = lane.and_then(|key| self.lanes.leave(key, id)) {
            self.present(next, now);
        }
        Some(entry)
    }

    fn stay(&mut self, tenancy: Tenancy) -> Option<&mut Stay> {
        let stay = self.stays.get_mut(&tenancy.partition);
        stay.filter(|stay| stay.tenancy == tenancy)
    }

    /// What is known of a stay that was assigned, if its partition has had no later one.
    fn last(&mut self, tenancy: Tenancy) -> Option<&mut Last> {
        let last = self.lasts.get_mut(&tenancy.partition);
        last.filter(|last| last.epoch == tenancy.epoch)
    }

    /// Whether the stay, or a later one of its partition, was assigned.
    fn was_assigned(&self, tenancy: Tenancy) -> bool {
        let last = self.lasts.get(&tenancy.partition);
        last.is_some_and(|last| last.epoch >= tenancy.epoch)
    }

    fn touch(&mut self, now: Duration) {
        self.dirty_since.get_or_insert(now);
    }

    /// Deliveries that handlers have.
    pub(crate) fn handed(&self) -> usize {
        self.handed.records
    }

    /// Whether anything waits to be handed out.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Nothing can be settled any more.
    pub(crate) fn end(&mut self) {
        self.closing = true;
        self.ended = true;
        for entry in self.entries.values() {
            entry.gone.set();
        }
        let stays = std::mem::take(&mut self.stays).into_values();
        let waiters = stays.flat_map(Stay::end).map(|(_, waiter)| waiter);
        let waiters: Vec<_> = waiters
            .chain(self.outbox.drain().filter_map(|s| s.waiter))
            .collect();
        for waiter in waiters {
            let error = self.failed.clone().unwrap_or_else(failure::closed);
            let _ = waiter.send(Err(error));
        }
    }
}
