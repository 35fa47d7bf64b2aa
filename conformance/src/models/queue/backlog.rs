//! One group's messages: in order, each waiting, delayed or lent.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use annals_core::Recorded;
use annals_core::driver::{Room, Token, Verdict};
use bytes::Bytes;

/// Messages in one answer, whatever room there is.
const ANSWER: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    /// Not before then.
    Delayed(Duration),
    /// To whom, until then.
    Lent(Token, Duration),
}

#[derive(Debug)]
struct Message {
    record: Recorded,
    /// How often it was lent: what the service counts, whatever becomes of it.
    received: u32,
    state: State,
}

/// The messages of one group that are not settled. Moments are spans of the service's clock.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    messages: VecDeque<Message>,
    slots: u64,
}

impl Backlog {
    pub(super) fn push(&mut self, record: Recorded) {
        self.messages.push_back(Message {
            record,
            received: 0,
            state: State::Waiting,
        });
    }

    pub(super) fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn oldest(&self) -> Option<&Recorded> {
        self.messages.front().map(|message| &message.record)
    }

    /// What was lent and not settled, or delayed, waits again once its time is over.
    fn ripen(&mut self, now: Duration) {
        for message in &mut self.messages {
            if let State::Delayed(at) | State::Lent(_, at) = message.state
                && at <= now
            {
                message.state = State::Waiting;
            }
        }
    }

    /// When something that does not wait now will.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let times = self
            .messages
            .iter()
            .filter_map(|message| match message.state {
                State::Delayed(at) | State::Lent(_, at) => Some(at),
                State::Waiting => None,
            });
        times.min()
    }

    /// Lends the oldest messages until `until`. Of a key only in order, and none while an earlier
    /// answer's message of it is not settled.
    pub(super) fn lend(
        &mut self,
        member: u64,
        now: Duration,
        until: Duration,
        room: Room,
    ) -> Vec<(Recorded, Token, u32)> {
        self.ripen(now);
        let mut locked: HashSet<Bytes> = HashSet::new();
        let mut lent = Vec::new();
        let mut bytes = 0;
        for message in &mut self.messages {
            let key = message.record.key_bytes();
            let is_locked = key.as_ref().is_some_and(|key| locked.contains(key));
            if message.state != State::Waiting {
                locked.extend(key);
                continue;
            }
            if is_locked {
                continue;
            }
            bytes += message.record.len_bytes();
            let fits = lent.len() < room.records.min(ANSWER) && bytes <= room.bytes;
            // One record fits any room that is not none.
            if !(fits || (lent.is_empty() && !room.is_none())) {
                break;
            }
            self.slots += 1;
            let token = Token {
                epoch: member,
                slot: self.slots,
            };
            message.received += 1;
            message.state = State::Lent(token, until);
            lent.push((message.record.clone(), token, message.received));
        }
        lent
    }

    fn find(&mut self, token: Token, now: Duration) -> Option<usize> {
        self.ripen(now);
        let is_it = |m: &Message| matches!(m.state, State::Lent(held, _) if held == token);
        self.messages.iter().position(is_it)
    }

    /// Whether it had an effect.
    pub(super) fn settle(&mut self, token: Token, verdict: Verdict, now: Duration) -> bool {
        let Some(index) = self.find(token, now) else {
            return false;
        };
        if verdict == Verdict::Done {
            self.messages.remove(index);
        } else if let Some(message) = self.messages.get_mut(index) {
            message.state = match verdict {
                Verdict::Retry { after } if !after.is_zero() => {
                    State::Delayed(now.saturating_add(after))
                }
                _ => State::Waiting,
            };
        }
        true
    }

    pub(super) fn extend(&mut self, token: Token, until: Duration, now: Duration) -> bool {
        let index = self.find(token, now);
        let message = index.and_then(|index| self.messages.get_mut(index));
        let found = message.is_some();
        if let Some(message) = message {
            message.state = State::Lent(token, until);
        }
        found
    }

    pub(super) fn held_until(&self, token: Token) -> Option<Duration> {
        self.messages
            .iter()
            .find_map(|message| match message.state {
                State::Lent(held, until) if held == token => Some(until),
                _ => None,
            })
    }
}
