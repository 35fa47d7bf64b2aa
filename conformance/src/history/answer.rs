//! What clients tell the recorder of a call that has returned.

use annals_core::driver::{Arrived, Delivered, Fetched, Settled};
use annals_core::{
    AppendError, AppendReport, Appended, Effect, Error, ErrorKind, Outcome, PartitionId, Position,
    Recorded, Result, Stored,
};

use super::call::{Done, Fate, Kind, Reading, Seen, Signal, Strange};
use super::recorder::{Pending, count, places};
use super::value::Value;

/// An append that is under way.
#[derive(Debug)]
#[must_use = "an append that is told nothing never returned"]
pub struct Appending(pub(super) Pending);

impl Appending {
    /// What a backend's `append` answered. An `Err` says that nothing was stored.
    pub fn report(self, report: &Result<AppendReport>) {
        match report {
            Ok(report) => self.outcomes(report.outcomes()),
            Err(error) => self.failed(error),
        }
    }

    /// What `Topic::append` answered.
    pub fn appended(self, answer: &std::result::Result<Appended, AppendError>) {
        match answer {
            Ok(appended) => {
                let fate = |stored: &Stored| Fate::Stored {
                    at: stored.position,
                    duplicate: stored.duplicate,
                };
                self.fates(Done::Ok, appended.records().iter().map(fate));
            }
            Err(error) => self.outcomes(error.outcomes()),
        }
    }

    /// One outcome per record. Records without one are unknown.
    pub fn outcomes(self, outcomes: &[Outcome]) {
        let fate = |outcome: &Outcome| match outcome {
            Outcome::Stored(stored) => Fate::Stored {
                at: stored.position,
                duplicate: stored.duplicate,
            },
            Outcome::Rejected(_) | Outcome::NotAttempted => Fate::Failed,
            Outcome::Unknown(_) => Fate::Unknown,
        };
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(e) if refusal(e));
        let done = if outcomes.iter().any(|o| matches!(o, Outcome::Unknown(_))) {
            Done::Unknown
        } else if outcomes.iter().any(|o| o.stored().is_some()) {
            Done::Ok
        } else if outcomes.iter().any(refused) {
            Done::Refused
        } else {
            Done::Failed
        };
        self.fates(done, outcomes.iter().map(fate));
    }

    /// Nothing of it was stored.
    pub fn failed(self, error: &Error) {
        let done = if refusal(error) {
            Done::Refused
        } else {
            Done::Failed
        };
        self.fates(done, std::iter::repeat(Fate::Failed));
    }

    /// Any of it may be stored. Its client goes on: unlike one that is dropped, it has an end.
    pub fn unknown(self) {
        self.0.end(Done::Unknown);
    }

    /// These fates, in the order of the batch. Records without one are unknown.
    pub fn fates(self, done: Done, fates: impl IntoIterator<Item = Fate>) {
        self.0.end_with(done, |history, kind, _| {
            if let Kind::Append { offers, .. } = kind
                && let Some(offered) = history.offered.get_mut(places(offers))
            {
                for ((_, fate), told) in offered.iter_mut().zip(fates) {
                    *fate = told;
                }
            }
        });
    }
}

/// Whether an error says that what the call depended on did not hold.
fn refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Conflict | ErrorKind::Fenced | ErrorKind::Expired
    )
}

/// A reading that is being opened.
#[derive(Debug)]
#[must_use = "an open that is told nothing never returned"]
pub struct Opening(pub(super) Pending);

impl Opening {
    /// Whether it was.
    pub fn ended<T>(self, answer: &Result<T>) {
        self.0.end(done(answer.as_ref().err()));
    }
}

fn done(error: Option<&Error>) -> Done {
    match error {
        None => Done::Ok,
        Some(error) if refusal(error) => Done::Refused,
        Some(_) => Done::Failed,
    }
}

/// A fetch that is under way.
#[derive(Debug)]
#[must_use = "a fetch that is told nothing never returned"]
pub struct Fetching(pub(super) Pending, pub(super) Reading);

impl Fetching {
    /// What a reader pushed, and what it said behind that. Records pushed before an error count.
    pub fn fetched(self, records: &[Recorded], answer: &Result<Fetched>) {
        let signal = answer.as_ref().ok().and_then(Signal::of_fetched);
        let seen = records.iter().map(|record| (record, 0));
        self.gave(seen, signal, done(answer.as_ref().err()));
    }

    /// What a source pushed, and what it said behind that.
    pub fn arrived(self, deliveries: &[Delivered], answer: &Result<Arrived>) {
        let signal = answer.as_ref().ok().and_then(Signal::of_arrived);
        let seen = deliveries.iter().map(|d| (&d.record, d.attempt));
        self.gave(seen, signal, done(answer.as_ref().err()));
    }

    /// One record, as a handle of core's gave it; its attempt, 0 in replays.
    pub fn record(self, record: &Recorded, attempt: u32) {
        self.gave([(record, attempt)], None, Done::Ok);
    }

    /// No record, but a signal; `None` where nothing came.
    pub fn signal(self, signal: Option<Signal>) {
        self.gave([], signal, Done::Ok);
    }

    /// It failed.
    pub fn failed(self) {
        self.gave([], None, Done::Failed);
    }

    /// These records with their attempts, then the signal.
    pub fn gave<'r, I: IntoIterator<Item = (&'r Recorded, u32)>>(
        self,
        records: I,
        signal: Option<Signal>,
        done: Done,
    ) {
        let reading = self.1;
        self.0.end_with(done, |history, kind, (asked, tick)| {
            let first = count(history.seen.len());
            for (record, attempt) in records {
                let position = record.position();
                match Value::of(record) {
                    Some(value) => history.seen.push(Seen {
                        value,
                        position,
                        reading,
                        attempt,
                        asked,
                        tick,
                    }),
                    None => history.strange.push(Strange {
                        position,
                        reading,
                        tick,
                        text: String::from_utf8_lossy(record.value())
                            .chars()
                            .take(40)
                            .collect(),
                    }),
                }
            }
            *kind = Kind::Fetch {
                reading,
                seen: first..count(history.seen.len()),
                signal: signal.map(Box::new),
            };
        });
    }

    /// These values as they are: for histories made by hand.
    pub fn values(self, values: &[(Value, Option<Position>)], signal: Option<Signal>) {
        let reading = self.1;
        self.0.end_with(Done::Ok, |history, kind, (asked, tick)| {
            let first = count(history.seen.len());
            let seen = values.iter().map(|(value, position)| Seen {
                value: *value,
                position: *position,
                reading,
                attempt: 0,
                asked,
                tick,
            });
            history.seen.extend(seen);
            *kind = Kind::Fetch {
                reading,
                seen: first..count(history.seen.len()),
                signal: signal.map(Box::new),
            };
        });
    }
}

/// A settlement or a commit that is under way.
#[derive(Debug)]
#[must_use = "a settlement that is told nothing never returned"]
pub struct Settling(pub(super) Pending);

impl Settling {
    /// What a settler answered.
    pub fn settled(self, settled: &Settled) {
        self.0.end(match settled {
            Settled::Yes => Done::Ok,
            Settled::Expired => Done::Refused,
            Settled::Failed(_) => Done::Failed,
            Settled::Unknown(_) => Done::Unknown,
        });
    }

    /// What a commit answered.
    pub fn committed<T>(self, answer: &Result<T>) {
        let unknown = |error: &Error| error.effect() != Effect::None;
        self.0.end(match answer {
            Err(error) if !refusal(error) && unknown(error) => Done::Unknown,
            answer => done(answer.as_ref().err()),
        });
    }

    /// What became of it.
    pub fn ended(self, done: Done) {
        self.0.end(done);
    }
}

/// The end that is being asked for.
#[derive(Debug)]
#[must_use = "a question that is told nothing never returned"]
pub struct Asking(pub(super) Pending);

impl Asking {
    /// The last record's position in each partition; `None` where there has never been one.
    pub fn answered(self, ends: impl IntoIterator<Item = (PartitionId, Option<Position>)>) {
        self.0.end_with(Done::Ok, |history, kind, _| {
            let first = count(history.ends.len());
            history.ends.extend(ends);
            *kind = Kind::End(first..count(history.ends.len()));
        });
    }

    /// There was no answer.
    pub fn failed(self) {
        self.0.end(Done::Failed);
    }
}

impl Signal {
    /// What a reader said; nothing of it where records were all.
    pub fn of_fetched(said: &Fetched) -> Option<Self> {
        Some(match said {
            Fetched::Records => return None,
            Fetched::CaughtUp => Self::CaughtUp,
            Fetched::Advanced { partition, to } => {
                Self::Advanced(*partition, to.position().copied())
            }
            Fetched::Gap {
                partition,
                from,
                to,
            } => Self::Gap(*partition, from.position().copied(), *to),
            Fetched::PartitionEnded {
                partition,
                children,
                ..
            } => Self::Ended(*partition, children.iter().map(|child| child.id).collect()),
            Fetched::PartitionAdded(added) => Self::Added(added.id, added.parents.clone()),
            Fetched::End => Self::End,
        })
    }

    /// What a source said; nothing of it where deliveries were all.
    pub fn of_arrived(said: &Arrived) -> Option<Self> {
        Some(match said {
            Arrived::Deliveries => return None,
            Arrived::CaughtUp => Self::CaughtUp,
            Arrived::Assigned { tenancy, from, .. } => {
                Self::Assigned(tenancy.partition, tenancy.epoch, from.position().copied())
            }
            Arrived::Revoking { tenancy, .. } => Self::Revoking(tenancy.partition, tenancy.epoch),
            Arrived::Lost { tenancy } => Self::Lost(tenancy.partition, tenancy.epoch),
            Arrived::Advanced { tenancy, to } => {
                Self::Advanced(tenancy.partition, to.position().copied())
            }
            Arrived::Gap { tenancy, from, to } => {
                Self::Gap(tenancy.partition, from.position().copied(), *to)
            }
            Arrived::Ended { tenancy, .. } => Self::Ended(tenancy.partition, Vec::new()),
        })
    }
}
