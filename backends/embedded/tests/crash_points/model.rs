//! What a log should hold, as plain vectors: the judge of what the engine answers and keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use annals_core::{Batch, ErrorKind, Outcome, Record};
use annals_embedded::log::{Condition, Dedupe, TopicId};

/// All topics of a directory.
pub(crate) type State = BTreeMap<String, Log>;

/// One topic.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) incarnation: TopicId,
    pub(crate) dedupe: Dedupe,
    /// By position, trimmed ones included.
    pub(crate) records: Arc<Vec<Entry>>,
    pub(crate) earliest: usize,
    pub(crate) groups: BTreeMap<String, Row>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) kept: Kept,
    /// The epoch that its batch was appended with; 0: none.
    pub(crate) epoch: u64,
    /// Whether its batch ends with it.
    pub(crate) last: bool,
}

/// What a reader sees of a record.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    pub(crate) value: String,
    pub(crate) key: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) time: i64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.value.trim_end_matches('x'))
    }
}

/// One group: the last position that is settled, and the epoch of its last owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Row {
    pub(crate) at: Option<u64>,
    pub(crate) epoch: u64,
}

/// One append.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) records: Vec<Offer>,
    pub(crate) condition: Condition,
    pub(crate) epoch: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) value: String,
    pub(crate) key: Option<String>,
    pub(crate) id: Option<String>,
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    At(u64),
    Repeat(u64),
    Refused(ErrorKind),
    /// What no append of a whole disk may be told.
    Odd,
}

impl Ask {
    pub(crate) fn batch(&self) -> Batch {
        self.records
            .iter()
            .map(|offer| {
                let record = Record::new(offer.value.as_str()).maybe_id(offer.id.as_deref());
                match &offer.key {
                    Some(key) => record.key(key.as_str()),
                    None => record,
                }
            })
            .collect()
    }
}

impl Answer {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Stored(stored) => match stored.position.and_then(|at| at.number_u64()) {
                Some(at) if stored.duplicate => Self::Repeat(at),
                Some(at) => Self::At(at),
                None => Self::Odd,
            },
            Outcome::Rejected(error) => Self::Refused(error.kind()),
            _ => Self::Odd,
        }
    }
}

impl Log {
    pub(crate) fn new(incarnation: TopicId, dedupe: Dedupe) -> Self {
        Self {
            incarnation,
            dedupe,
            records: Arc::default(),
            earliest: 0,
            groups: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The same with no more than `len` records.
    pub(crate) fn cut(&self, len: usize) -> Self {
        let mut cut = self.clone();
        if len < self.len() {
            cut.records = Arc::new(self.records[..len].to_vec());
        }
        cut
    }

    /// The highest epoch that was ever appended with.
    pub(crate) fn fence(&self) -> u64 {
        self.records.iter().map(|r| r.epoch).max().unwrap_or(0)
    }

    /// Decides an append, and stores what is to be stored.
    pub(crate) fn decide(&mut self, ask: &Ask, now: i64) -> Vec<Answer> {
        let now = self
            .records
            .last()
            .map_or(now, |last| now.max(last.kept.time));
        let known: Vec<Option<u64>> = ask
            .records
            .iter()
            .map(|offer| self.place_of(offer.id.as_ref()?, now))
            .collect();
        let refusal = if known.iter().all(Option::is_some) {
            None
        } else {
            self.refusal(ask)
        };
        let mut answers: Vec<Answer> = Vec::new();
        let records = Arc::make_mut(&mut self.records);
        let before = records.len();
        for (index, offer) in ask.records.iter().enumerate() {
            let inside = || {
                let earlier = &ask.records[..index];
                let first = earlier.iter().position(|o| o.id == offer.id)?;
                (self.dedupe != Dedupe::Off && offer.id.is_some()).then_some(first)
            };
            let answer = match (known[index], refusal, inside()) {
                (Some(at), ..) => Answer::Repeat(at),
                (None, Some(kind), _) => Answer::Refused(kind),
                (None, None, Some(first)) => match answers[first] {
                    Answer::At(at) => Answer::Repeat(at),
                    other => other,
                },
                (None, None, None) => {
                    records.push(Entry {
                        kept: Kept {
                            value: offer.value.clone(),
                            key: offer.key.clone(),
                            id: offer.id.clone(),
                            time: now,
                        },
                        epoch: ask.epoch.unwrap_or(0),
                        last: false,
                    });
                    Answer::At(records.len() as u64 - 1)
                }
            };
            answers.push(answer);
        }
        if records.len() > before
            && let Some(last) = records.last_mut()
        {
            last.last = true;
        }
        answers
    }

    fn refusal(&self, ask: &Ask) -> Option<ErrorKind> {
        if ask.epoch.is_some_and(|epoch| epoch < self.fence()) {
            return Some(ErrorKind::Fenced);
        }
        let holds = match &ask.condition {
            Condition::None => true,
            Condition::End(next) => *next == self.len() as u64,
            Condition::KeyAt { key, last } => {
                let key = std::str::from_utf8(key).unwrap();
                self.newest_of(key) == *last
            }
        };
        (!holds).then_some(ErrorKind::Conflict)
    }

    pub(crate) fn newest_of(&self, key: &str) -> Option<u64> {
        let kept = self.records.iter().enumerate().skip(self.earliest);
        kept.filter(|(_, entry)| entry.kept.key.as_deref() == Some(key))
            .map(|(at, _)| at as u64)
            .next_back()
    }

    fn place_of(&self, id: &str, now: i64) -> Option<u64> {
        let oldest = match self.dedupe {
            Dedupe::Off => return None,
            Dedupe::Window(window) => now - i64::try_from(window.as_millis()).unwrap(),
            Dedupe::Forever => i64::MIN,
        };
        let kept = self.records.iter().enumerate().skip(self.earliest);
        kept.filter(|(_, entry)| entry.kept.id.as_deref() == Some(id) && entry.kept.time >= oldest)
            .map(|(at, _)| at as u64)
            .next_back()
    }
}
