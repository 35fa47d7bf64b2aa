//! What is found in a [`history`](crate::history): pure functions of what clients saw, which say
//! how much evidence there was, or the smallest evidence that a law was broken.
//!
//! | question | function |
//! | --- | --- |
//! | is what was acknowledged there? | [`lost`] |
//! | is what is there from somebody, and not from one who was told that it is not stored? | [`phantom`], [`rejected`] |
//! | is it where it was said to be, and stays? | [`stable`], [`located`] |
//! | is a key in its writers' order? | [`key_order`] |
//! | does a follower skip, step back, or repeat at the seam? | [`follow`], [`seam`] |
//! | why is something there, or handed out, twice? | [`stored_twice`], [`delivered_twice`] |
//! | are batches whole? | [`atomic`] |
//! | has an old epoch still an effect? | [`fenced`] |
//! | is a key in two hands? | [`overlap`] |
//! | were conditions judged in one order, that of real time? | [`linear`] |
//! | which part of a script does it need? | [`shrink`] |
//!
//! All take O(n log n). No result depends on anything but the history.

mod atomic;
mod duplicates;
mod fencing;
mod follow;
mod key_order;
mod linear;
mod lost;
mod overlap;
mod phantom;
mod position;
mod seam;
mod shrink;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod wgl;

pub use atomic::atomic;
pub use duplicates::{delivered_twice, stored_twice};
pub use fencing::fenced;
pub use follow::follow;
pub use key_order::key_order;
pub use linear::linear;
pub use lost::lost;
pub use overlap::overlap;
pub use phantom::{phantom, rejected};
pub use position::{located, stable};
pub use seam::seam;
pub use shrink::shrink;

use std::collections::BTreeMap;
use std::fmt;

use annals_core::Position;

use crate::history::{Act, Call, Fate, Hold, NEVER, Offer, Seen, Strange, Tick, Value};

/// What is counted as evidence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Evidence {
    /// Records that were acknowledged.
    Acknowledged,
    /// Records of which nobody knows.
    Unknown,
    /// Records that failed for certain.
    Failed,
    /// Records that were read or delivered.
    Reads,
    /// Places that were seen at least twice, or were said and then seen.
    Compared,
    /// Steps from one record of a writer and key to its next.
    Ascents,
    /// Records that a follower was given one behind the other.
    Steps,
    /// Gaps that were told.
    Gaps,
    /// Records acknowledged before an open, all of which came before the caught-up.
    Before,
    /// Records after the caught-up.
    Behind,
    /// Batches that were seen whole.
    Whole,
    /// Batches of which nothing was seen.
    Nothing,
    /// Things done under an epoch.
    Acts,
    /// Things done, or tried, under an old epoch after a newer one had acted.
    Crossings,
    /// Deliveries.
    Deliveries,
    /// Keys that two held at a time, the earlier one's settlement without effect.
    Overlaps,
    /// Repeats that follow from a lost answer.
    Retried,
    /// Repeats that follow from a crash, a close or a lost stay.
    Crashed,
    /// Repeats that follow from a delivery that was not settled as handled.
    Redelivered,
    /// Conditional appends that are stored.
    Conditional,
    /// Conditional appends that were refused.
    Refused,
    /// Answers to where the end is.
    Ends,
}

/// How much evidence there was: below a case's minimum nothing is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts(BTreeMap<Evidence, u64>);

impl Counts {
    /// How much there was of this.
    pub fn of(&self, evidence: Evidence) -> u64 {
        self.0.get(&evidence).copied().unwrap_or(0)
    }

    /// All that there was any of, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Evidence, u64)> + '_ {
        self.0.iter().map(|(evidence, count)| (*evidence, *count))
    }

    /// Takes in what another function counted.
    pub fn merge(&mut self, other: &Self) {
        for (evidence, count) in other.iter() {
            *self.0.entry(evidence).or_default() += count;
        }
    }

    fn add(&mut self, evidence: Evidence) {
        *self.0.entry(evidence).or_default() += 1;
    }

    fn fate(&mut self, fate: Fate) {
        self.add(match fate {
            Fate::Stored { .. } => Evidence::Acknowledged,
            Fate::Failed => Evidence::Failed,
            Fate::Unknown => Evidence::Unknown,
        });
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (evidence, count)) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let name = format!("{evidence:?}").to_lowercase();
            write!(f, "{comma}{count} {name}")?;
        }
        Ok(())
    }
}

/// One moment of a history that shows something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// What it was.
    pub what: String,
    /// When its call began; 0 where nobody called.
    pub start: Tick,
    /// When its call returned, or [`NEVER`].
    pub end: Tick,
}

impl Witness {
    fn new(what: impl Into<String>, start: Tick, end: Tick) -> Self {
        Self {
            what: what.into(),
            start,
            end,
        }
    }

    fn of_call(what: impl Into<String>, call: &Call) -> Self {
        Self::new(what, call.start, call.end)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.start)?;
        if self.end == NEVER {
            f.write_str(" ..")?;
        } else if self.end != self.start {
            write!(f, " .. {}", self.end)?;
        }
        write!(f, "] {}", self.what)
    }
}

fn place(position: Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!(" at {position}"))
}

impl From<&Offer> for Witness {
    fn from(offer: &Offer) -> Self {
        let (value, client) = (offer.value, offer.client.0);
        let what = match offer.fate {
            Fate::Stored { at, duplicate } => {
                let again = if duplicate { ", once more" } else { "" };
                format!(
                    "client {client} was told that {value} is stored{}{again}",
                    place(at)
                )
            }
            Fate::Failed => format!("client {client} was told that {value} is not stored"),
            Fate::Unknown => format!("client {client} offered {value} and does not know"),
        };
        Self::new(what, offer.start, offer.end)
    }
}

impl From<&Seen> for Witness {
    fn from(seen: &Seen) -> Self {
        let (value, reading) = (seen.value, seen.reading.0);
        let what = format!(
            "reading {reading} was given {value}{}",
            place(seen.position)
        );
        Self::new(what, seen.asked, seen.tick)
    }
}

impl From<&Strange> for Witness {
    fn from(strange: &Strange) -> Self {
        let (reading, at) = (strange.reading.0, place(strange.position));
        let what = format!("reading {reading} was given {:?}{at}", strange.text);
        Self::new(what, strange.tick, strange.tick)
    }
}

impl From<&Act> for Witness {
    fn from(act: &Act) -> Self {
        let seen = if act.seen {
            ", and its effect was seen"
        } else {
            ""
        };
        let what = format!("epoch {} acted: {:?}{seen}", act.epoch, act.done);
        Self::new(what, act.start, act.end)
    }
}

impl From<&Hold> for Witness {
    fn from(hold: &Hold) -> Self {
        let (client, value) = (hold.client.0, hold.seen.value);
        let what = match hold.settlement {
            Some(settlement) => format!(
                "client {client} held {value}{}; settled at {}: {:?}",
                place(hold.seen.position),
                settlement.start,
                settlement.done
            ),
            None => format!("client {client} held {value}{}", place(hold.seen.position)),
        };
        Self::new(what, hold.seen.tick, hold.until())
    }
}

/// What was found to be broken: a sentence, and the smallest evidence that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What is wrong, as one sentence in lower case.
    pub why: String,
    /// What shows it: two moments for most, at most [`Broken::SHOWN`].
    pub evidence: Vec<Witness>,
}

impl Broken {
    /// The most witnesses that are kept.
    pub const SHOWN: usize = 8;

    fn new<W: Into<Witness>>(
        why: impl Into<String>,
        evidence: impl IntoIterator<Item = W>,
    ) -> Self {
        Self {
            why: why.into(),
            evidence: evidence
                .into_iter()
                .take(Self::SHOWN)
                .map(Into::into)
                .collect(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        for witness in &self.evidence {
            write!(f, "\n  {witness}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Broken {}

/// What a function found.
pub type Found = Result<Counts, Broken>;

/// The values, sorted, each once.
fn values(seen: impl IntoIterator<Item = Seen>) -> Vec<Value> {
    let mut values: Vec<Value> = seen.into_iter().map(|seen| seen.value).collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn has(values: &[Value], value: &Value) -> bool {
    values.binary_search(value).is_ok()
}
