//! The reading of one lease.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::held::Held;
use crate::cursor::{Cursor, Frontier, Origin, Rest};
use crate::driver::{
    Arrived, Budget, Delivered, Fetched, Holder, Lease, Opened, Partition, ReadRange, Reader, Room,
    Stop, Tenancy,
};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::pending::BoxFuture;
use crate::position::PartitionId;
use crate::recorded::Recorded;
use crate::subscription::Trouble;
use crate::time::Timestamp;

/// The reading of one lease.
pub(super) struct Feed {
    pub(super) tenancy: Tenancy,
    /// How far it has read.
    pub(super) from: Frontier,
    pub(super) attempts: u32,
    pub(super) held_back: bool,
    pub(super) out: Vec<Recorded>,
    /// What was said after them.
    pub(super) after: Option<Arrived>,
    trouble: Trouble,
    state: State,
}

enum State {
    Opening(Mutex<BoxFuture<Result<Opened>>>),
    /// Opening failed, or is to begin; not before then.
    Closed(Duration),
    Reading(Box<dyn Reader>),
    /// Reading failed and goes on, not before then.
    Resting(Box<dyn Reader>, Duration),
    /// Its partition was not found: it has vanished, or all of the topic has. Whether it was open,
    /// and not before then.
    Missing(Error, bool, Duration),
    /// It has vanished, and that is still to be told.
    Vanished,
    /// All is read; what continues it must stand in the table before that is told. Not before
    /// then.
    Ending(Arc<[Partition]>, Option<Timestamp>, Duration),
    Over,
}

/// What one step of a feed came to.
pub(super) enum Step {
    Opened,
    Fetched(Fetched),
    Ended(Option<Timestamp>),
    Failed(Error),
}

impl Feed {
    pub(super) fn new(tenancy: Tenancy, row: &Lease, from: Duration) -> Self {
        Self {
            tenancy,
            from: row.at,
            attempts: row.attempts,
            held_back: false,
            out: Vec::new(),
            after: None,
            trouble: Trouble::new(),
            state: State::Closed(from),
        }
    }

    pub(super) fn drain(&mut self, room: &mut Room, out: &mut Vec<Delivered>) {
        let mut taken = 0;
        for record in &self.out {
            if room.is_none() {
                break;
            }
            room.records -= 1;
            room.bytes = room.bytes.saturating_sub(record.len_bytes());
            taken += 1;
        }
        let tenancy = self.tenancy;
        out.extend(self.out.drain(..taken).map(|record| Delivered {
            record,
            holder: Holder::Tenancy(tenancy),
            attempt: 1,
        }));
    }

    /// Goes on until there is something to say.
    ///
    /// # Cancel safety
    /// Cancel safe: how far it came is in `self`.
    pub(super) async fn step(
        &mut self,
        held: &Held,
        origin: &Arc<Origin>,
        budget: &Budget,
        room: Room,
    ) -> Step {
        let clock = held.topic.bus().clock();
        loop {
            // Moments, not spans: a step is dropped whenever another feed is faster.
            if let State::Closed(at)
            | State::Resting(_, at)
            | State::Missing(_, _, at)
            | State::Ending(_, _, at) = &self.state
            {
                let wait = at.saturating_sub(clock.elapsed());
                if !wait.is_zero() {
                    clock.sleep(wait).await;
                }
            }
            match &mut self.state {
                State::Closed(_) => {
                    let opening = open(held, origin, budget, self.tenancy.partition, self.from);
                    self.state = State::Opening(Mutex::new(opening));
                }
                State::Opening(opening) => {
                    let opening = opening.get_mut().unwrap_or_else(PoisonError::into_inner);
                    match opening.as_mut().await {
                        Ok(opened) => {
                            self.trouble.heals();
                            self.state = State::Reading(opened.reader);
                            return Step::Opened;
                        }
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            self.state = State::Missing(error, false, Duration::ZERO);
                        }
                        Err(error) => {
                            let at = self.fails(held, &error);
                            self.state = State::Closed(at);
                            if !error.is_retryable() {
                                return Step::Failed(error);
                            }
                        }
                    }
                }
                State::Resting(..) => {
                    let state = std::mem::replace(&mut self.state, State::Over);
                    if let State::Resting(reader, _) = state {
                        self.state = State::Reading(reader);
                    }
                }
                State::Reading(reader) => match reader.fetch(room, &mut self.out).await {
                    Ok(Fetched::PartitionEnded {
                        children, clear, ..
                    }) => {
                        self.trouble.heals();
                        self.state = State::Ending(children, clear, Duration::ZERO);
                    }
                    Ok(fetched) => {
                        self.trouble.heals();
                        self.moves(&fetched);
                        if fetched == Fetched::End {
                            self.state = State::Over;
                        }
                        return Step::Fetched(fetched);
                    }
                    Err(error) if error.is_retryable() => {
                        let at = self.fails(held, &error);
                        let state = std::mem::replace(&mut self.state, State::Over);
                        if let State::Reading(reader) = state {
                            self.state = State::Resting(reader, at);
                        }
                        if !self.out.is_empty() {
                            return Step::Fetched(Fetched::Records);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.state = State::Missing(error, true, Duration::ZERO);
                    }
                    Err(error) => return Step::Failed(error),
                },
                State::Missing(error, was_open, _) => {
                    let (error, was_open) = (error.clone(), *was_open);
                    let topic = &held.topic;
                    match topic.bus().backend.partitions(topic.name()).await {
                        Ok(listed) if listed.iter().any(|p| p.id == self.tenancy.partition) => {
                            return Step::Failed(error);
                        }
                        Ok(_) => {
                            self.trouble.heals();
                            self.state = State::Vanished;
                            if !was_open {
                                return Step::Opened;
                            }
                        }
                        Err(failed) if failed.is_retryable() => {
                            let at = self.fails(held, &failed);
                            self.state = State::Missing(error, was_open, at);
                        }
                        Err(failed) => return Step::Failed(failed),
                    }
                }
                State::Vanished => {
                    self.state = State::Ending(Arc::from([]), None, Duration::ZERO);
                    return Step::Fetched(Fetched::Gap {
                        partition: self.tenancy.partition,
                        from: self.from,
                        to: None,
                    });
                }
                State::Ending(children, clear, _) => {
                    let (children, clear) = (Arc::clone(children), *clear);
                    match add(held, &children).await {
                        Ok(()) => {
                            self.state = State::Over;
                            return Step::Ended(clear);
                        }
                        Err(error) if error.is_retryable() => {
                            let at = self.fails(held, &error);
                            self.state = State::Ending(children, clear, at);
                        }
                        Err(error) => return Step::Failed(error),
                    }
                }
                State::Over => std::future::pending().await,
            }
        }
    }

    /// How far it has read by now.
    fn moves(&mut self, fetched: &Fetched) {
        if let Some(last) = self.out.last().and_then(Recorded::position) {
            self.from = Frontier::after(last);
        }
        if let Fetched::Advanced { to, .. } = fetched {
            self.from = *to;
        }
    }

    /// It failed: when to try again. What lasts is told.
    fn fails(&mut self, held: &Held, error: &Error) -> Duration {
        tracing::debug!(error = %error, "reading for a group failed and is tried again");
        let now = held.topic.bus().clock().elapsed();
        let (pause, tell) = self.trouble.fails(error, now);
        if tell && error.is_retryable() {
            let error = error.clone().in_partition(self.tenancy.partition);
            held.news.tell(error, Operation::Subscribe);
        }
        now.saturating_add(pause)
    }
}

/// Puts what continues a partition into the table.
async fn add(held: &Held, children: &[Partition]) -> Result<()> {
    let rows = held.load().await?;
    held.grow(&rows, children).await?;
    Ok(())
}

/// Opens a reader of one partition.
fn open(
    held: &Held,
    origin: &Arc<Origin>,
    budget: &Budget,
    partition: PartitionId,
    from: Frontier,
) -> BoxFuture<Result<Opened>> {
    let range = ReadRange {
        from: Cursor::new(Arc::clone(origin), [(partition, from)], Rest::Outside),
        stop: Stop::Never,
        partitions: Some(vec![partition]),
        key: None,
        budget: budget.clone(),
    };
    let topic = held.topic.clone();
    Box::pin(async move { topic.bus().backend.read(topic.name(), &range).await })
}
