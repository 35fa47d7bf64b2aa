//! What is asked of a history.

use std::collections::BTreeMap;

use annals_core::{PartitionId, Position};

use super::History;
use super::call::{
    Call, Client, Done, Fate, Kind, NEVER, Purpose, Reading, Seen, Signal, Tick, Verdict,
};
use super::recorder::places;
use super::value::{KeyNo, Value};

/// One record that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Which.
    pub value: Value,
    /// What its writer was told.
    pub fate: Fate,
    /// By whom.
    pub client: Client,
    /// Its call, among all calls; the records of one call are one batch.
    pub call: usize,
    /// When the call began.
    pub start: Tick,
    /// When it returned, or [`NEVER`].
    pub end: Tick,
    /// The writer's epoch.
    pub epoch: Option<u64>,
    /// All or none of the batch was asked for.
    pub atomic: bool,
}

/// Whose eyes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// One reading's.
    Reading(Reading),
    /// Every member's of the group of this number, in all their lives.
    Group(u32),
    /// All that were readings for this purpose.
    All(Purpose),
    /// Everybody's.
    Everybody,
}

/// What a reading was given, one thing after the other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step<'a> {
    /// A record.
    Seen(&'a Seen),
    /// A signal, and when the call that brought it returned.
    Signal(&'a Signal, Tick),
}

/// Something done under an epoch, which a newer epoch fences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// The epoch.
    pub epoch: u64,
    /// When it began.
    pub start: Tick,
    /// When it returned, or [`NEVER`].
    pub end: Tick,
    /// What became of it, as was said.
    pub done: Done,
    /// Its effect was seen afterwards.
    pub seen: bool,
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// What was asked for; `None` for a commit up to it.
    pub verdict: Option<Verdict>,
    /// When the call began.
    pub start: Tick,
    /// When it returned, or [`NEVER`].
    pub end: Tick,
    /// What became of it.
    pub done: Done,
}

/// A delivery and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The record.
    pub seen: Seen,
    /// By whom it is held.
    pub client: Client,
    /// How it was settled: the first settlement that holds, else the last one tried.
    pub settlement: Option<Settlement>,
    /// When its stay or reading ended, told by a signal, a close or a crash, or [`NEVER`].
    pub gone: Tick,
}

impl Hold {
    /// Until when its holder surely had it: the start of its settlement, or the end of its stay.
    pub fn until(&self) -> Tick {
        let settled = self.settlement.map_or(NEVER, |settlement| settlement.start);
        settled.min(self.gone)
    }

    /// The key.
    pub const fn key(&self) -> Option<KeyNo> {
        self.seen.value.key
    }

    /// Its settlement as handled, or as rejected, was accepted.
    pub fn accepted(&self) -> bool {
        let last = |verdict| matches!(verdict, None | Some(Verdict::Done | Verdict::Reject));
        self.settlement
            .is_some_and(|settlement| settlement.done == Done::Ok && last(settlement.verdict))
    }
}

/// A call's settlement, where its kind is one of this reading.
fn settlement(call: &Call) -> Settlement {
    Settlement {
        verdict: match call.kind {
            Kind::Settle(_, _, verdict) => Some(verdict),
            _ => None,
        },
        start: call.start,
        end: call.end,
        done: call.done,
    }
}

impl Hold {
    fn settle(&mut self, with: Settlement) {
        if self
            .settlement
            .is_none_or(|settled| settled.done != Done::Ok)
        {
            self.settlement = Some(with);
        }
    }
}

impl History {
    /// Everything that was offered, in the order of the calls' starts.
    pub fn offers(&self) -> impl Iterator<Item = Offer> + '_ {
        self.calls.iter().enumerate().flat_map(|(place, call)| {
            let (range, epoch, atomic) = match &call.kind {
                Kind::Append {
                    offers,
                    epoch,
                    atomic,
                    ..
                } => (places(offers), *epoch, *atomic),
                _ => (0..0, None, false),
            };
            let offered = self.offered.get(range).unwrap_or_default();
            offered.iter().map(move |(value, fate)| Offer {
                value: *value,
                fate: *fate,
                client: call.client,
                call: place,
                start: call.start,
                end: call.end,
                epoch,
                atomic,
            })
        })
    }

    /// What one call offered.
    pub fn batch(&self, call: &Call) -> &[(Value, Fate)] {
        match &call.kind {
            Kind::Append { offers, .. } => self.offered.get(places(offers)).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The answers of one question for the end.
    pub fn ends(&self, call: &Call) -> &[(PartitionId, Option<Position>)] {
        match &call.kind {
            Kind::End(range) => self.ends.get(places(range)).unwrap_or_default(),
            _ => &[],
        }
    }

    /// What these eyes saw, in the order of the answers.
    pub fn seen(&self, sight: Sight) -> impl Iterator<Item = Seen> + '_ {
        let wanted = move |seen: &&Seen| match sight {
            Sight::Everybody => true,
            Sight::Reading(reading) => seen.reading == reading,
            Sight::Group(group) => self.is_for(seen.reading, Purpose::Member(group)),
            Sight::All(purpose) => self.is_for(seen.reading, purpose),
        };
        self.seen.iter().filter(wanted).copied()
    }

    fn is_for(&self, reading: Reading, purpose: Purpose) -> bool {
        self.reading(reading).is_some_and(|(_, is)| is == purpose)
    }

    /// When a reading's open began and returned.
    pub fn opened(&self, reading: Reading) -> Option<(Tick, Tick)> {
        let open = |call: &&Call| call.kind == Kind::Open(reading);
        let call = self.calls.iter().find(open)?;
        Some((call.start, call.end))
    }

    /// All that one reading was given, in order.
    pub fn steps(&self, of: Reading) -> impl Iterator<Item = Step<'_>> {
        let fetches = self.calls.iter().filter_map(move |call| match &call.kind {
            Kind::Fetch {
                reading,
                seen,
                signal,
            } if *reading == of => Some((call.end, seen, signal)),
            _ => None,
        });
        fetches.flat_map(|(end, seen, signal)| {
            let seen = self.seen.get(places(seen)).unwrap_or_default();
            let signal = signal.as_deref();
            seen.iter()
                .map(Step::Seen)
                .chain(signal.map(|signal| Step::Signal(signal, end)))
        })
    }

    /// When faults were seen to fire, in order.
    pub fn faults(&self) -> Vec<Tick> {
        let fault = |call: &&Call| matches!(call.kind, Kind::Fault(_));
        self.calls
            .iter()
            .filter(fault)
            .map(|call| call.start)
            .collect()
    }

    /// The acknowledged records whose appends began after a reading was open: what it must be
    /// given whatever its start is, where nothing is trimmed.
    pub fn owed(&self, reading: Reading) -> impl Iterator<Item = Offer> + '_ {
        let opened = self.opened(reading).map_or(NEVER, |(_, end)| end);
        let stored = |offer: &Offer| matches!(offer.fate, Fate::Stored { .. });
        self.offers()
            .filter(move |offer| offer.start > opened && stored(offer))
    }

    /// Every delivery of a group with its end, in the order of the answers.
    pub fn holds(&self, group: u32) -> Vec<Hold> {
        let mut holds: Vec<Hold> = Vec::new();
        // Those that are not over, by reading, in the order of the deliveries.
        let mut open: BTreeMap<Reading, Vec<usize>> = BTreeMap::new();
        // By ends: a settlement counts when it is sent, a delivery when it has come.
        let mut moments: Vec<(Tick, &Call)> = self
            .calls
            .iter()
            .map(|call| match call.kind {
                Kind::Fetch { .. } => (call.end, call),
                _ => (call.start, call),
            })
            .collect();
        moments.sort_unstable_by_key(|(tick, _)| *tick);
        for (tick, call) in moments {
            match &call.kind {
                Kind::Fetch {
                    reading,
                    seen,
                    signal,
                } if self.is_for(*reading, Purpose::Member(group)) => {
                    let mine = open.entry(*reading).or_default();
                    for seen in self.seen.get(places(seen)).unwrap_or_default() {
                        mine.push(holds.len());
                        holds.push(Hold {
                            seen: *seen,
                            client: call.client,
                            settlement: None,
                            gone: NEVER,
                        });
                    }
                    if let Some(Signal::Lost(partition, _)) = signal.as_deref() {
                        let lost = |hold: &Hold| {
                            let position = hold.seen.position;
                            position.is_none_or(|position| position.partition() == *partition)
                        };
                        end(&mut holds, mine, tick, lost);
                    }
                }
                Kind::Settle(reading, value, _) => {
                    let mine = open.get(reading).into_iter().flatten().rev();
                    for place in mine {
                        if let Some(hold) = holds.get_mut(*place)
                            && hold.seen.value == *value
                        {
                            hold.settle(settlement(call));
                            break;
                        }
                    }
                }
                Kind::Commit(reading, to, _) => {
                    for place in open.get(reading).into_iter().flatten() {
                        if let Some(hold) = holds.get_mut(*place)
                            && hold.seen.position.is_some_and(|at| at <= *to)
                        {
                            hold.settle(settlement(call));
                        }
                    }
                }
                Kind::Close(reading) | Kind::Crash(reading) => {
                    if let Some(mine) = open.get_mut(reading) {
                        end(&mut holds, mine, tick, |_| true);
                    }
                }
                _ => {}
            }
            // What is settled for good is looked at no more, or a long stay would take its square.
            if let Kind::Settle(reading, ..) | Kind::Commit(reading, ..) = &call.kind
                && call.done == Done::Ok
                && let Some(mine) = open.get_mut(reading)
            {
                let settled = |place: &usize| {
                    let settlement = holds.get(*place).and_then(|hold| hold.settlement);
                    settlement.is_some_and(|settlement| settlement.done == Done::Ok)
                };
                mine.retain(|place| !settled(place));
            }
        }
        holds
    }

    /// The appends under epochs; seen are those of which a value is in the final replay.
    pub fn fenced_appends(&self, last: impl IntoIterator<Item = Seen>) -> Vec<Act> {
        let mut found: Vec<Value> = last.into_iter().map(|seen| seen.value).collect();
        found.sort_unstable();
        let under = |call: &Call| match call.kind {
            Kind::Append { epoch, .. } => epoch,
            _ => None,
        };
        let acts = self.calls.iter().filter_map(|call| {
            Some(Act {
                epoch: under(call)?,
                start: call.start,
                end: call.end,
                done: call.done,
                seen: (self.batch(call).iter())
                    .any(|(value, _)| found.binary_search(value).is_ok()),
            })
        });
        acts.collect()
    }

    /// The commits of a group in one partition under their tenancies' epochs. Their effect is not
    /// seen here but in what the group is given next.
    pub fn fenced_commits(&self, group: u32, partition: PartitionId) -> Vec<Act> {
        let acts = self.calls.iter().filter_map(|call| match &call.kind {
            Kind::Commit(reading, to, epoch)
                if to.partition() == partition && self.is_for(*reading, Purpose::Member(group)) =>
            {
                Some(Act {
                    epoch: *epoch,
                    start: call.start,
                    end: call.end,
                    done: call.done,
                    seen: false,
                })
            }
            _ => None,
        });
        acts.collect()
    }
}

/// Ends the holds for which this is so.
fn end(holds: &mut [Hold], mine: &mut Vec<usize>, tick: Tick, over: impl Fn(&Hold) -> bool) {
    mine.retain(|place| match holds.get_mut(*place) {
        Some(hold) if over(hold) => {
            hold.gone = tick;
            false
        }
        _ => true,
    });
}
