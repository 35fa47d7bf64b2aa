//! How a history is written down.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::Position;

use super::History;
use super::answer::{Appending, Asking, Fetching, Opening, Settling};
use super::call::{
    Call, Client, Condition, Done, Fate, Kind, NEVER, Purpose, Reading, Tick, Verdict,
};
use super::value::Value;

/// Writes down what clients do: each call before it is made, and what came of it.
///
/// Cheap to clone; all clones write one history, whose ticks are the order of real time. A call
/// whose handle is dropped before it is told what came of it never returned: it is
/// [`Done::Unknown`], and so is what it offered.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<History>>);

/// What an append offers.
#[derive(Clone, Debug, Default)]
pub struct Offering<'a> {
    /// In the order of the batch.
    pub values: &'a [Value],
    /// What it is made to depend on.
    pub condition: Option<Condition>,
    /// The writer's epoch.
    pub epoch: Option<u64>,
    /// All or none.
    pub atomic: bool,
}

impl<'a> From<&'a [Value]> for Offering<'a> {
    fn from(values: &'a [Value]) -> Self {
        Self {
            values,
            ..Self::default()
        }
    }
}

pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(super) fn places(range: &Range<u32>) -> Range<usize> {
    let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    place(range.start)..place(range.end)
}

impl History {
    fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }
}

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was done so far.
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// What was done, taken out: nothing is copied. The recorder goes on with an empty history.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, client: Client, kind: impl FnOnce(&mut History) -> Kind) -> Pending {
        let mut history = self.lock();
        let start = history.tick();
        let kind = kind(&mut history);
        history.calls.push(Call {
            client,
            start,
            end: NEVER,
            done: Done::Unknown,
            kind,
        });
        Pending {
            recorder: self.clone(),
            call: history.calls.len() - 1,
        }
    }

    fn at_once(&self, client: Client, kind: Kind) {
        self.begin(client, |_| kind).end(Done::Ok);
    }

    fn of(&self, reading: Reading) -> Client {
        self.lock()
            .reading(reading)
            .map_or(Client(u32::MAX), |(client, _)| client)
    }

    /// Records are about to be offered.
    pub fn append<'a, O: Into<Offering<'a>>>(&self, client: Client, offering: O) -> Appending {
        let offering = offering.into();
        Appending(self.begin(client, |history| {
            let first = count(history.offered.len());
            let offers = offering.values.iter().map(|value| (*value, Fate::Unknown));
            history.offered.extend(offers);
            Kind::Append {
                offers: first..count(history.offered.len()),
                condition: offering.condition.map(Box::new),
                epoch: offering.epoch,
                atomic: offering.atomic,
            }
        }))
    }

    /// A reading is about to be opened.
    pub fn open(&self, client: Client, purpose: Purpose) -> (Reading, Opening) {
        let mut reading = Reading(0);
        let pending = self.begin(client, |history| {
            reading = Reading(count(history.readings.len()));
            history.readings.push((client, purpose));
            Kind::Open(reading)
        });
        (reading, Opening(pending))
    }

    /// More is about to be asked of a reading.
    pub fn fetch(&self, reading: Reading) -> Fetching {
        let client = self.of(reading);
        let pending = self.begin(client, |history| {
            let none = count(history.seen.len());
            Kind::Fetch {
                reading,
                seen: none..none,
                signal: None,
            }
        });
        Fetching(pending, reading)
    }

    /// A delivery is about to be settled: the last one of this value in the reading.
    pub fn settle(&self, reading: Reading, value: Value, verdict: Verdict) -> Settling {
        let kind = Kind::Settle(reading, value, verdict);
        Settling(self.begin(self.of(reading), |_| kind))
    }

    /// Everything up to a position is about to be settled, by a tenancy of this epoch.
    pub fn commit(&self, reading: Reading, to: Position, epoch: u64) -> Settling {
        let kind = Kind::Commit(reading, to, epoch);
        Settling(self.begin(self.of(reading), |_| kind))
    }

    /// The end of the topic is about to be asked.
    pub fn ask_end(&self, client: Client) -> Asking {
        Asking(self.begin(client, |_| Kind::End(0..0)))
    }

    /// A reading was closed in order.
    pub fn closed(&self, reading: Reading) {
        self.at_once(self.of(reading), Kind::Close(reading));
    }

    /// A reading ended without a close: its client was killed, or cut off for good.
    pub fn crashed(&self, reading: Reading) {
        self.at_once(self.of(reading), Kind::Crash(reading));
    }

    /// A fault was seen to fire.
    pub fn fault(&self, name: &'static str) {
        self.at_once(Client(u32::MAX), Kind::Fault(name));
    }
}

/// A call that is under way.
pub(super) struct Pending {
    recorder: Recorder,
    call: usize,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.call)
    }
}

impl Pending {
    pub(super) fn end_with(
        self,
        done: Done,
        then: impl FnOnce(&mut History, &mut Kind, (Tick, Tick)),
    ) {
        let mut history = self.recorder.lock();
        let end = history.tick();
        // Taken out meanwhile: there is nothing to say it to.
        let Some(call) = history.calls.get_mut(self.call) else {
            return;
        };
        call.end = end;
        let start = call.start;
        call.done = done;
        let mut kind = std::mem::replace(&mut call.kind, Kind::Fault(""));
        then(&mut history, &mut kind, (start, end));
        if let Some(call) = history.calls.get_mut(self.call) {
            call.kind = kind;
        }
    }

    pub(super) fn end(self, done: Done) {
        self.end_with(done, |_, _, _| ());
    }
}
