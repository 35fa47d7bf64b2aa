//! Reading one shard, in small answers some of which bring nothing.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Fetched, Opened, ReadRange, Reader, Room, Stop};
use annals_core::{
    Cursor, Error, Frontier, PartitionId, Position, Recorded, Rest, Result, Timestamp, TopicName,
};
use async_trait::async_trait;

use super::Sharded;
use super::shard::Shard;
use super::topic::Topic;
use crate::models::faults::{Call, no_answer};
use crate::models::service::{self, Lost};

/// Records in one answer, whatever room there is.
const ANSWER: usize = 3;

/// Where a reading stops.
#[derive(Debug)]
enum Bound {
    /// Nothing lies in the range.
    Nothing,
    /// Behind this record.
    Through(Position),
    /// Before the first record stored at or after this moment.
    Time(Timestamp),
    /// Where the shard ends.
    Never,
}

#[derive(Debug)]
struct ShardReader {
    client: Sharded,
    topic: TopicName,
    incarnation: Arc<str>,
    shard: PartitionId,
    at: Frontier,
    bound: Bound,
    /// The last record at the open, and whether it has been told that it is reached.
    end_at_open: Option<Position>,
    caught_up: bool,
    answers: u64,
    ended: bool,
}

/// Which one shard is asked for. Core merges shards, parents before children; one reader of many
/// would do that work twice.
fn the_shard(range: &ReadRange) -> Result<PartitionId> {
    match range.partitions.as_deref() {
        Some([shard]) => Ok(*shard),
        _ => Err(Error::unsupported(
            "a reader of this log reads one named shard; open one reader for each",
        )),
    }
}

pub(super) fn open(client: &Sharded, name: &TopicName, range: &ReadRange) -> Result<Opened> {
    let id = the_shard(range)?;
    client.on(name, |topic| {
        client.check_cursor(name, topic, &range.from)?;
        let shard = topic
            .shard(id)
            .ok_or_else(|| Error::not_found(format!("there is no shard {id}")))?;
        let from = range.from.frontier(id).copied().unwrap_or(Frontier::START);
        let bound = match &range.stop {
            // An open shard ends where it is now, a closed one where it was closed.
            Stop::End if shard.closed.is_none() => {
                shard.last().map_or(Bound::Nothing, Bound::Through)
            }
            Stop::End | Stop::Never => Bound::Never,
            Stop::Before(time) => Bound::Time(*time),
            Stop::Through(to) => {
                client.check_cursor(name, topic, to)?;
                through(topic, id, to)
            }
        };
        let at = pinned(shard, from, client.service.clock.now());
        let origin = client.service.origin(name, &topic.incarnation);
        let one = |at| Cursor::new(Arc::clone(&origin), [(id, at)], Rest::Outside);
        // Where the stop is a place: opened again later, it is the same one.
        let until = match (&range.stop, &bound) {
            (Stop::End, Bound::Through(last)) => Some(one(Frontier::after(*last))),
            (Stop::End, Bound::Nothing) => Some(one(Frontier::START)),
            _ => None,
        };
        Ok(Opened {
            from: one(at),
            until,
            reader: Box::new(ShardReader {
                client: client.clone(),
                topic: name.clone(),
                incarnation: Arc::clone(&topic.incarnation),
                shard: id,
                at,
                bound,
                end_at_open: shard.last(),
                caught_up: false,
                answers: 0,
                ended: false,
            }),
        })
    })
}

/// The earliest that is kept is pinned at the open; a moment is a place that stays.
fn pinned(shard: &Shard, from: Frontier, now: Timestamp) -> Frontier {
    match from {
        Frontier::EARLIEST => shard.kept_from(),
        Frontier::Since(time) if time <= now && shard.after(&from).next().is_none() => {
            let end = shard.last().map_or(from, Frontier::after);
            if shard.lacks(&from) { from } else { end }
        }
        from => from,
    }
}

fn through(topic: &Topic, id: PartitionId, to: &Cursor) -> Bound {
    match to.frontier(id) {
        Some(Frontier::After { position, .. }) => Bound::Through(*position),
        Some(Frontier::Since(time)) => Bound::Time(*time),
        Some(Frontier::Ended { .. }) => Bound::Never,
        // What comes before a named shard was read to its end.
        None if topic.is_before(id, to) => Bound::Never,
        Some(Frontier::Start { .. }) | None => Bound::Nothing,
    }
}

impl ShardReader {
    /// What there is to say now; `None`: wait.
    fn look(
        &mut self,
        topic: &Topic,
        now: Timestamp,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Option<Fetched> {
        let Some(shard) = topic.shard(self.shard) else {
            return Some(Fetched::End);
        };
        if self.misses(shard) {
            let from = self.at;
            self.at = shard.kept_from();
            return Some(Fetched::Gap {
                partition: self.shard,
                from,
                to: shard.after(&self.at).next().and_then(Recorded::position),
            });
        }
        if self.push(shard, room, out) {
            return Some(Fetched::Records);
        }
        if shard.after(&self.at).any(|record| self.is_within(record)) {
            // There is no room for it.
            return None;
        }
        // What is gone behind the bound was not read.
        let all_read = shard.after(&self.at).next().is_none() && !shard.lacks(&self.at);
        if all_read && shard.closed.is_some() && !matches!(self.bound, Bound::Nothing) {
            self.ended = true;
            return Some(Fetched::PartitionEnded {
                partition: self.shard,
                children: topic.children_of(shard),
                clear: shard.closed,
            });
        }
        let reached = |end: &Position| self.at.covers(end) == Some(true) || all_read;
        if shard.closed.is_none() && !self.caught_up && self.end_at_open.iter().all(reached) {
            self.caught_up = true;
            return Some(Fetched::CaughtUp);
        }
        let over = match self.bound {
            Bound::Nothing | Bound::Through(_) => true,
            // Log time never goes back.
            Bound::Time(time) => now >= time,
            Bound::Never => false,
        };
        self.ended = over;
        over.then_some(Fetched::End)
    }

    /// Whether anything that was asked for is gone.
    fn misses(&self, shard: &Shard) -> bool {
        let missing = shard.missing(&self.at);
        self.wants_more()
            && missing.is_some_and(|stored| match self.bound {
                Bound::Time(end) => stored < end,
                _ => true,
            })
    }

    /// Whether anything behind the place may lie in the range.
    fn wants_more(&self) -> bool {
        match &self.bound {
            Bound::Nothing => false,
            Bound::Through(last) => self.at.covers(last) != Some(true),
            Bound::Time(_) | Bound::Never => true,
        }
    }

    fn push(&mut self, shard: &Shard, room: Room, out: &mut Vec<Recorded>) -> bool {
        let before = out.len();
        let mut bytes = 0_usize;
        for record in shard.after(&self.at) {
            let records = out.len() - before;
            let fits = records < room.records.min(ANSWER)
                && bytes.saturating_add(record.len_bytes()) <= room.bytes;
            // One record fits any room that is not none.
            if !self.is_within(record) || !(fits || (records == 0 && !room.is_none())) {
                break;
            }
            bytes = bytes.saturating_add(record.len_bytes());
            out.push(record.clone());
        }
        let last = out.get(before..).and_then(<[_]>::last);
        if let Some(position) = last.and_then(Recorded::position) {
            self.at = Frontier::after(position);
        }
        out.len() > before
    }

    fn is_within(&self, record: &Recorded) -> bool {
        match self.bound {
            Bound::Nothing => false,
            Bound::Through(last) => record.position() <= Some(last),
            Bound::Time(time) => record.stored_at() < Some(time),
            Bound::Never => true,
        }
    }

    /// Every third answer brings no record although there are some: what an adapter must not
    /// take for the end. The place moves all the same, by the time that was walked through.
    fn empty_answer(&mut self, topic: &Topic) -> Option<Fetched> {
        self.answers += 1;
        let Frontier::After { position, clear } = self.at else {
            return None;
        };
        let next = topic.shard(self.shard)?.after(&self.at).next()?.stored_at();
        if !self.answers.is_multiple_of(3) || next <= clear {
            return None;
        }
        self.at = Frontier::After {
            position,
            clear: next,
        };
        Some(Fetched::Advanced {
            partition: self.shard,
            to: self.at,
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Reader for ShardReader {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        if self.ended {
            return Ok(Fetched::End);
        }
        let service = Arc::clone(&self.client.service);
        if service.fault_whole(Call::Fetch).await? == Lost::Reply {
            return Err(no_answer());
        }
        loop {
            let bell = service.bell();
            let now = service.clock.now();
            let (client, name) = (self.client.clone(), self.topic.clone());
            let said = client.on(&name, |topic| {
                if topic.incarnation != self.incarnation {
                    return Err(Error::not_found(
                        "the topic was deleted while it was read, and made anew; open it again",
                    ));
                }
                let lacks = topic.shard(self.shard).is_some_and(|s| s.lacks(&self.at));
                let empty = if lacks || !self.wants_more() {
                    None
                } else {
                    self.empty_answer(topic)
                };
                Ok(empty.or_else(|| self.look(topic, now, room, out)))
            })?;
            if let Some(said) = said {
                return Ok(said);
            }
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
