//! The committer: makes what waits durable in groups, one write and one sync each.

mod answers;
mod decide;
mod ids;
mod newest;
mod room;
mod write;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use annals_core::{
    AppendReport, Effect, Error, ErrorKind, Outcome, PartitionId, Position, Result, Retry, Stored,
    Timestamp,
};
use tokio::sync::oneshot;

pub use self::answers::Answers;
use self::ids::Ids;
use self::newest::Provisional;
use super::encode::Encoded;
use super::options::Condition;
use super::recover::{Recovered, recover};
use super::segment::{Chain, Segment};
use super::tail::{End, Tail};
use super::topic::{Place, Topic};
use crate::disk::{DiskFile, OpenMode};
use crate::error::of_io;
use crate::slot::Slot;

/// One batch that waits.
#[derive(Debug)]
pub struct Request {
    /// Its records.
    pub batch: Encoded,
    /// What must hold.
    pub condition: Condition,
    /// The writer's epoch; `None`: unfenced.
    pub epoch: Option<u64>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Stored whole, from this position on.
    Stored(u64),
    /// The same outcome for every record.
    All(Outcome),
    /// One by one: some were duplicates.
    Mixed(Vec<Outcome>),
}

impl Answer {
    /// Nothing is stored.
    pub const fn rejected(error: Error) -> Self {
        Self::All(Outcome::Rejected(error))
    }

    /// One outcome for each of `records` records.
    pub fn into_report(self, records: usize) -> AppendReport {
        match self {
            Self::Stored(first) => {
                AppendReport::new((first..).take(records).map(stored_at).collect())
            }
            Self::All(outcome) => AppendReport::all(records, &outcome),
            Self::Mixed(outcomes) => AppendReport::new(outcomes),
        }
    }
}

fn stored_at(position: u64) -> Outcome {
    Outcome::Stored(Stored::at(Position::new(PartitionId::ONLY, position)))
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, Effect::None, Retry::Never, message)
}

/// A batch of the group that is being made.
struct Ready {
    request: Request,
    /// `None`: answered without a frame.
    frame: Option<Framed>,
    answer: Answer,
}

struct Framed {
    /// Where in the segment.
    offset: u64,
    /// Instead of the request's own bytes, when duplicates were taken out of it.
    instead: Option<Encoded>,
}

impl Ready {
    fn encoded(&self) -> &Encoded {
        self.frame
            .as_ref()
            .and_then(|frame| frame.instead.as_ref())
            .unwrap_or(&self.request.batch)
    }
}

/// A topic that is open for writing: at most one per topic, which the root's lock sees to.
///
/// Everything here blocks and is for one thread at a time.
#[derive(Debug)]
pub struct Writer {
    topic: Arc<Topic>,
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// Where the next frame goes, where the room that was asked for ends, and how much to ask for.
    end: u64,
    reserved: u64,
    step: u64,
    chain: Chain,
    tail: Tail,
    /// The file of `tail`; `None` while the topic rests.
    slot: Option<Slot>,
    tail_is_synced: bool,
    provisional: Provisional,
    ids: Option<Ids>,
    scratch: Vec<u8>,
    failed: Option<Error>,
    mask: u64,
}

impl Writer {
    /// Opens a topic for writing, after a crash as after a close.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt`, when stored records are broken (open it for reading to read those
    /// before them); the disk's.
    pub fn open(place: &Place) -> Result<Self> {
        let Recovered {
            topic,
            segment,
            file,
            chain,
            tail,
            slot,
        } = recover(place)?;
        Ok(Self {
            end: tail.end.bytes,
            reserved: tail.end.bytes,
            step: topic.sizes.reserve_first,
            topic: Arc::new(topic),
            segment,
            file,
            chain,
            tail,
            slot: Some(slot),
            tail_is_synced: true,
            provisional: Provisional::default(),
            ids: None,
            scratch: Vec::new(),
            failed: None,
            mask: u64::MAX,
        })
    }

    /// The topic, for readers.
    pub const fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Lets hashes collide; for tests.
    #[cfg(test)]
    pub(super) fn collide(&mut self, mask: u64) {
        self.mask = mask;
        self.topic
            .keys
            .hasher
            .collide(u32::try_from(mask & 0xffff_ffff).unwrap());
    }

    /// Pretends that the last append was at `time`; for tests.
    #[cfg(test)]
    pub(super) fn last_append_at(&mut self, time: Timestamp) {
        self.chain.time = time;
    }

    /// Why it takes no more appends; `None` while it does.
    pub const fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Makes one group of the first of `waiting` durable and returns the answers to them; leaves
    /// the rest. Buffers that are free again go to `spent`.
    pub fn commit(
        &mut self,
        waiting: &mut VecDeque<Request>,
        mut spent: impl FnMut(Vec<u8>),
    ) -> Answers {
        let mut answers = Answers::default();
        if let Some(error) = &self.failed {
            for request in waiting.drain(..) {
                answers.push(request.answer, Answer::rejected(error.clone()));
            }
            return answers;
        }
        let mut group = match self.begin(waiting) {
            Ok((count, now)) => self.evaluate(waiting.drain(..count), now),
            Err(error) => {
                if let Some(request) = waiting.pop_front() {
                    let known = self.known(&request.batch);
                    answers.push(request.answer, ids::without_room(known, error));
                }
                return answers;
            }
        };
        let end = self.end;
        let result = self.write(&mut group);
        match &result {
            Ok(()) => self.publish(),
            Err((error, effect)) => {
                self.end = end;
                for ready in &mut group {
                    ready.answer = Answer::All(match effect {
                        Effect::None => Outcome::Rejected(error.clone()),
                        _ => Outcome::Unknown(error.clone().with_effect(Effect::Unknown)),
                    });
                }
            }
        }
        self.finish();
        for ready in group {
            answers.push(ready.request.answer, ready.answer);
            spent(ready.request.batch.into_buffer());
        }
        answers
    }

    /// Makes room and stamps the next group: how many of `waiting` it has, and its append time.
    /// From before the stamp until [`finish`](Self::finish) readers know that one is in flight.
    fn begin(&mut self, waiting: &VecDeque<Request>) -> Result<(usize, Timestamp)> {
        // Opened before there is a segment to publish: what cannot be told is not to be written.
        self.slot()
            .map(|_| ())
            .map_err(|e| self.topic.io("opening tail", e))?;
        let count = self.make_room(waiting)?;
        self.slot()
            .and_then(Slot::hold)
            .map_err(|e| self.topic.io("holding tail", e))?;
        Ok((count, self.topic.stamp(self.chain.time)))
    }

    fn finish(&self) {
        self.topic.stamps.done();
        if let Some(Err(e)) = self.slot.as_ref().map(Slot::free) {
            // Readers of other processes that wait for a moment wait on until it works.
            tracing::debug!(topic = %self.topic.name, error = %e, "tail could not be let go");
        }
    }

    /// The file of `tail`, opened again after a rest.
    fn slot(&mut self) -> io::Result<&Slot> {
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => Slot::open(
                &*self.topic.disk,
                &self.topic.dir.join("tail"),
                OpenMode::Write,
            )?,
        };
        Ok(self.slot.insert(slot))
    }

    /// Closes what only commits need, so that an idle topic holds one descriptor.
    pub fn rest(&mut self) {
        self.slot = None;
    }

    /// Shows readers what is durable.
    fn publish(&mut self) {
        let end = End {
            segment: self.segment.header.first,
            bytes: self.end,
            next: self.chain.next,
            earliest: self.topic.end().earliest,
        };
        if end == self.tail.end {
            return;
        }
        self.tail = Tail {
            end,
            commit: self.chain.commit,
            time: self.chain.time,
            epoch: self.chain.epoch,
            ..self.tail
        };
        self.tail_is_synced = false;
        let value = self.tail.encode();
        let published = self.slot().and_then(|slot| slot.write(&value, false));
        if let Err(e) = published {
            // The records are durable; other processes can no longer be told of more.
            let error = self.topic.io("publishing the durable end", e);
            self.poison(&error);
        }
        self.topic.show(end);
    }

    /// Takes no more appends after a panic in the middle of one.
    pub(super) fn give_up(&mut self) {
        self.finish();
        if self.failed.is_none() {
            self.poison(&refused(
                ErrorKind::Internal,
                "an append panicked; report it",
            ));
        }
    }

    fn poison(&mut self, cause: &Error) {
        tracing::error!(topic = %self.topic.name, error = %cause, "the log takes no more appends");
        self.failed = Some(
            Error::closed("the log takes no more appends after a failure of its disk; reopen it")
                .on_topic(&self.topic.name)
                .with_source(cause.clone()),
        );
    }

    /// Whether the durable end was published and not synced since.
    pub const fn owes_sync(&self) -> bool {
        !self.tail_is_synced
    }

    /// Syncs the durable end, about a second after the last commit: it bounds how old it may be
    /// after a loss of power.
    pub fn sync_tail(&mut self) {
        if self.tail_is_synced || self.failed.is_some() {
            return;
        }
        match self.slot().map(Slot::sync) {
            Ok(Ok(())) => self.tail_is_synced = true,
            // Too many open files, say: the next commit or close tries again.
            Err(e) => {
                tracing::debug!(topic = %self.topic.name, error = %e, "the durable end stays unsynced");
            }
            Ok(Err(e)) => {
                let error = self.topic.io("syncing the durable end", e);
                self.poison(&error);
            }
        }
    }

    /// Gives spare room back and syncs everything. Takes no more appends.
    ///
    /// # Errors
    /// The disk's; nothing that was acknowledged depends on it.
    pub fn close(&mut self) -> Result<()> {
        // Also after a failure: others may write to the directory from here on.
        self.topic.stop_indexing();
        if self.failed.is_some() {
            return Ok(());
        }
        self.failed =
            Some(Error::closed("the log is closed; open it again").on_topic(&self.topic.name));
        let mut trim = || -> io::Result<()> {
            if self.file.len()? > self.end {
                self.file.set_len(self.end)?;
                self.file.sync_data()?;
            }
            // What readers have ended at binds the next writer too.
            let floor = self.topic.stamps.floor();
            if floor > self.tail.time {
                let tail = Tail {
                    time: floor,
                    ..self.tail
                };
                self.slot()?.write(&tail.encode(), false)?;
            }
            self.slot()?.sync()
        };
        trim().map_err(|e| of_io("closing the log", e).on_topic(&self.topic.name))
    }

    /// Looks whether the active segment on disk is what was written to it; for tests.
    #[cfg(test)]
    pub(super) fn rescan(&self) -> u64 {
        super::recover::scan(
            &*self.file,
            self.topic.id.tag(),
            super::segment::SEGMENT_HEADER,
            self.segment.header.chain(),
            None,
        )
        .unwrap()
        .end
    }
}
