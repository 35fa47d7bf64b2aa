//! Reading a range of the log.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{Error, Frontier, PartitionId, Recorded, Result, Timestamp, TopicName};
use async_trait::async_trait;
use bytes::Bytes;

use super::Log;
use super::topic::{self, Topic, at};
use crate::models::faults::{Call, no_answer};
use crate::models::service::{self, Lost};

/// Where a reading stops.
#[derive(Debug)]
enum Bound {
    /// Before this number.
    Number(u64),
    /// Before the first record stored at or after this moment.
    Time(Timestamp),
    Never,
}

#[derive(Debug)]
struct LogReader {
    log: Log,
    topic: TopicName,
    /// The topic that it was opened on; a recreated one is another.
    incarnation: Arc<str>,
    /// How far it has read, and the number of the record that comes next.
    at: Frontier,
    next: u64,
    /// Records were gone at the open, and that has not been told yet.
    gap: bool,
    bound: Bound,
    key: Option<Bytes>,
    /// The end at the open, until it has been told that it is reached.
    end_at_open: Option<u64>,
    /// That the range is read has been said, and holds whatever comes.
    ended: bool,
}

pub(super) fn open(log: &Log, name: &TopicName, range: &ReadRange) -> Result<Opened> {
    let only = [PartitionId::ONLY];
    if range
        .partitions
        .as_ref()
        .is_some_and(|named| *named != only)
    {
        return Err(Error::not_found(
            "this log has the one partition 0 and no other",
        ));
    }
    log.on(name, |topic| {
        log.check_cursor(name, topic, &range.from)?;
        let bound = match &range.stop {
            Stop::End => Bound::Number(topic.next()),
            Stop::Through(cursor) => {
                log.check_cursor(name, topic, cursor)?;
                match topic::frontier_of(cursor) {
                    Some(Frontier::Since(time)) => Bound::Time(time),
                    _ => Bound::Number(topic::next_of(cursor).unwrap_or(0)),
                }
            }
            Stop::Before(time) => Bound::Time(*time),
            Stop::Never => Bound::Never,
        };
        let from = topic::frontier_of(&range.from).unwrap_or(Frontier::START);
        let (next, missing) = topic.resume(&from);
        // A range that asks for nothing misses nothing.
        let asks = match bound {
            Bound::Number(end) => topic::next_of(&range.from).is_none_or(|first| first < end),
            Bound::Time(end) => missing.is_some_and(|stored| stored < end),
            Bound::Never => true,
        };
        let gap = missing.is_some() && asks;
        let origin = log.service.origin(name, &topic.incarnation);
        let until = match bound {
            Bound::Number(end) => Some(topic::cursor(Arc::clone(&origin), topic::before(end))),
            Bound::Time(_) | Bound::Never => None,
        };
        // A moment that has come is a place; what is a gap, or still to come, stays a moment.
        let pinned = match from {
            Frontier::Since(time) if !gap && time <= log.service.clock.now() => topic::before(next),
            from => from,
        };
        Ok(Opened {
            from: topic::cursor(origin, pinned),
            until,
            reader: Box::new(LogReader {
                log: log.clone(),
                topic: name.clone(),
                incarnation: Arc::clone(&topic.incarnation),
                at: pinned,
                next,
                gap,
                bound,
                key: range.key.clone(),
                end_at_open: Some(topic.next()),
                ended: false,
            }),
        })
    })
}

impl LogReader {
    /// What there is to say now; `None`: wait.
    fn look(
        &mut self,
        topic: &Topic,
        now: Timestamp,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Option<Fetched> {
        if let Frontier::Since(_) = self.at
            && !self.gap
        {
            // A moment that was still to come: what was stored before it is not asked for.
            let (next, missing) = topic.resume(&self.at);
            self.next = self.next.max(next);
            self.gap = missing.is_some_and(|stored| self.is_before_bound(stored));
        }
        let overtaken = match self.bound {
            Bound::Number(end) => self.next < end.min(topic.first()),
            Bound::Time(_) | Bound::Never => topic
                .missing(self.next)
                .is_some_and(|stored| self.is_before_bound(stored)),
        };
        if self.gap || overtaken {
            return Some(self.tell_gap(topic));
        }
        if matches!(self.bound, Bound::Time(_)) {
            // What is gone is not asked for; the place does not move over it.
            self.next = self.next.max(topic.first());
        }
        let before = self.next;
        if self.push(topic, room, out) {
            return Some(Fetched::Records);
        }
        if self.next > before {
            // Records of other keys: nothing to hand out, but the place moved.
            self.at = topic::before(self.next);
            return Some(Fetched::Advanced {
                partition: PartitionId::ONLY,
                to: self.at,
            });
        }
        if self.end_at_open.is_some_and(|end| self.next >= end) {
            self.end_at_open = None;
            return Some(Fetched::CaughtUp);
        }
        self.ended = self.is_over(topic, now);
        self.ended.then_some(Fetched::End)
    }

    fn is_before_bound(&self, stored: Timestamp) -> bool {
        !matches!(self.bound, Bound::Time(end) if stored >= end)
    }

    /// The gap comes before any later record; `to` is the first record that is still there.
    fn tell_gap(&mut self, topic: &Topic) -> Fetched {
        let from = self.at;
        self.gap = false;
        self.next = self.next.max(topic.first());
        self.at = topic::before(self.next);
        Fetched::Gap {
            partition: PartitionId::ONLY,
            from,
            to: topic.get(self.next).and_then(Recorded::position),
        }
    }

    /// Pushes what fits, and says whether it was anything.
    fn push(&mut self, topic: &Topic, room: Room, out: &mut Vec<Recorded>) -> bool {
        let (mut records, mut bytes) = (0, 0_usize);
        loop {
            let number = self.peek(topic);
            let Some(record) = topic.get(number).filter(|r| self.lies_within(number, r)) else {
                // Everything up to the bound, or to the end, is of other keys.
                if self.key.is_some() {
                    self.next = self.bound_number(topic).max(self.next);
                }
                break;
            };
            let fits = records < room.records && bytes + record.len_bytes() <= room.bytes;
            // One record fits any room that is not none.
            if !(fits || (records == 0 && !room.is_none())) {
                break;
            }
            records += 1;
            bytes += record.len_bytes();
            out.push(record.clone());
            self.next = number + 1;
            self.at = Frontier::after(at(number));
        }
        records > 0
    }

    /// The number of the next record to look at; the end where there is none.
    fn peek(&self, topic: &Topic) -> u64 {
        let Some(key) = &self.key else {
            return self.next;
        };
        let next = topic.next_of_key(key, self.next);
        next.unwrap_or_else(|| topic.next())
    }

    fn lies_within(&self, number: u64, record: &Recorded) -> bool {
        match self.bound {
            Bound::Number(end) => number < end,
            Bound::Time(time) => record.stored_at() < Some(time),
            Bound::Never => true,
        }
    }

    /// The number at which this reading stops as far as the log reaches now.
    fn bound_number(&self, topic: &Topic) -> u64 {
        match self.bound {
            Bound::Number(end) => end.min(topic.next()),
            Bound::Time(time) => topic.resume(&Frontier::Since(time)).0,
            Bound::Never => topic.next(),
        }
    }

    /// Whether nothing can come any more. Log time never goes back: once it is there, no record
    /// before it can be stored.
    fn is_over(&self, topic: &Topic, now: Timestamp) -> bool {
        match self.bound {
            Bound::Number(end) => self.next >= end,
            Bound::Time(time) => self.next >= self.bound_number(topic) && now >= time,
            Bound::Never => false,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Reader for LogReader {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        if self.ended {
            return Ok(Fetched::End);
        }
        let service = Arc::clone(&self.log.service);
        if service.fault_whole(Call::Fetch).await? == Lost::Reply {
            return Err(no_answer());
        }
        loop {
            let bell = service.bell();
            let now = service.clock.now();
            let log = self.log.clone();
            let name = self.topic.clone();
            let said = log.on(&name, |topic| {
                if topic.incarnation != self.incarnation {
                    return Err(Error::not_found(
                        "the topic was deleted while it was read, and made anew; open it again",
                    ));
                }
                Ok(self.look(topic, now, room, out))
            })?;
            if let Some(said) = said {
                return Ok(said);
            }
            // A range that ends at a moment in the future ends when that moment has come.
            let until = match self.bound {
                Bound::Time(time) if time > now => Some(time.since(now)),
                _ => None,
            };
            service::changed(bell, &service.clock, until).await;
        }
    }

    async fn close(self: Box<Self>, _: Duration) -> Result<()> {
        Ok(())
    }
}
