//! The committer: makes what waits durable in groups, one write and one sync each.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    AppendReport, Effect, Error, ErrorKind, Outcome, PartitionId, Position, Result, Retry, Stored,
};
use tokio::sync::oneshot;

use super::encode::Encoded;
use super::frame::{FRAME_HEADER, FrameHeader, entries, put};
use super::options::{Condition, Dedupe};
use super::recover::{Recovered, recover};
use super::segment::{
    Chain, SEGMENT_HEADER, Segment, SegmentHeader, View, is_full, path_of, read_full, write_full,
};
use super::table::{Ids, Keys, Spot};
use super::tail::{End, Tail};
use super::topic::{Place, Topic};
use crate::disk::{DiskFile, OpenMode, Reserved};
use crate::error::of_io;
use crate::slot::Slot;

/// Frames from this size on are written from where they were encoded; smaller ones are copied
/// together.
const ALONE: usize = 64 << 10;

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
    slot: Slot,
    tail_is_synced: bool,
    keys: Option<Keys>,
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
            slot,
            tail_is_synced: true,
            keys: None,
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
    }

    /// Pretends that the last append was at `time`; for tests.
    #[cfg(test)]
    pub(super) fn last_append_at(&mut self, time: annals_core::Timestamp) {
        self.chain.time = time;
    }

    /// Why it takes no more appends; `None` while it does.
    pub const fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Makes one group of the first of `waiting` durable and answers them; leaves the rest.
    /// Buffers that are free again go to `spent`.
    pub fn commit(&mut self, waiting: &mut VecDeque<Request>, mut spent: impl FnMut(Vec<u8>)) {
        if let Some(error) = &self.failed {
            for request in waiting.drain(..) {
                let _ = request.answer.send(Answer::rejected(error.clone()));
            }
            return;
        }
        let mut group = match self.make_room(waiting) {
            Ok(count) => self.evaluate(waiting.drain(..count)),
            Err(error) => {
                if let Some(request) = waiting.pop_front() {
                    let known = self.known(&request.batch);
                    let _ = request
                        .answer
                        .send(without_room(known, &request.batch, error));
                }
                return;
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
        for ready in group {
            let _ = ready.request.answer.send(ready.answer);
            spent(ready.request.batch.into_buffer());
        }
    }

    /// Finds how many of `waiting` make the next group, in a segment with room for all of them.
    fn make_room(&mut self, waiting: &VecDeque<Request>) -> Result<usize> {
        let sizes = self.topic.sizes;
        loop {
            let space = sizes.segment.saturating_sub(self.end).min(sizes.group);
            let (mut count, mut bytes) = (0, 0);
            for request in waiting {
                let len = request.batch.len_bytes() as u64;
                let fits = bytes + len <= space;
                let alone = count == 0 && self.end == SEGMENT_HEADER;
                let large = count == 0 && len > sizes.group && self.end + len <= sizes.segment;
                if !fits && !alone && !large {
                    break;
                }
                count += 1;
                bytes += len;
            }
            if count == 0 {
                if waiting.is_empty() {
                    return Ok(0);
                }
                self.roll()?;
                continue;
            }
            loop {
                match self.reserve(bytes) {
                    Ok(()) => return Ok(count),
                    Err(e) if count == 1 || self.failed.is_some() => return Err(e),
                    // Some of them may still fit.
                    Err(_) => {
                        count = count.div_ceil(2).min(count - 1);
                        bytes = waiting
                            .iter()
                            .take(count)
                            .map(|r| r.batch.len_bytes() as u64)
                            .sum();
                    }
                }
            }
        }
    }

    /// Asks for room for `bytes` more, and some to spare.
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        let need = self.end + bytes;
        if need <= self.reserved {
            return Ok(());
        }
        let sizes = self.topic.sizes;
        let spare = (self.reserved + self.step)
            .min(sizes.segment.max(need))
            .max(need);
        let mut result = Ok(());
        for to in [spare, need] {
            match self.file.reserve(self.reserved, to - self.reserved) {
                Ok(Reserved::Done) => {
                    self.reserved = to;
                    self.step = (self.step * 2).min(sizes.reserve_most);
                    return Ok(());
                }
                Ok(Reserved::Unsupported) => return Ok(()),
                Err(e) => {
                    // A reservation that failed may have changed the length.
                    let undone = self.file.set_len(self.reserved);
                    let blocked = is_full(&e);
                    let error = self.topic.io("making room for an append", e);
                    if undone.is_err() || !blocked {
                        self.poison(&error);
                    }
                    result = Err(error);
                    if !blocked {
                        break;
                    }
                }
            }
        }
        result
    }

    /// Begins the next segment: durable, with its directory entry, before anything is in it.
    fn roll(&mut self) -> Result<()> {
        let disk = &self.topic.disk;
        let header = SegmentHeader {
            topic: self.topic.id,
            first: self.chain.next,
            epoch: self.chain.epoch,
            commit: self.chain.commit,
            time: self.chain.time,
            previous: self.segment.header.first,
            previous_end: self.end,
            settings: self.topic.settings,
        };
        let path = path_of(&self.topic.dir, header.first);
        let made = disk.open(&path, OpenMode::CreateNew).and_then(|file| {
            match file.reserve(0, SEGMENT_HEADER) {
                Ok(_) => write_full(&*file, &header.encode(), 0).map(|()| file),
                Err(e) => Err(e),
            }
        });
        let file = match made {
            Ok(file) => file,
            Err(e) => {
                let full = is_full(&e);
                let removed = disk.remove(&path);
                let error = self.topic.io("beginning a segment", e);
                if !full || removed.is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                    self.poison(&error);
                }
                return Err(error);
            }
        };
        if let Err(e) = file
            .sync_data()
            .and_then(|()| disk.sync_dir(&self.topic.dir))
        {
            let error = self.topic.io("syncing a new segment", e);
            self.poison(&error);
            return Err(error);
        }
        // Room only: where its data ends stands in the new segment's header.
        let _ = self.file.set_len(self.end);
        let segment = Arc::new(Segment::new(path, header));
        segment.share(&file);
        self.topic
            .segments
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(header.first, Arc::clone(&segment));
        self.segment = segment;
        self.file = file;
        self.end = SEGMENT_HEADER;
        self.reserved = SEGMENT_HEADER;
        self.publish();
        Ok(())
    }

    /// Decides each batch against what is durable and what comes before it in the group.
    fn evaluate(&mut self, requests: impl Iterator<Item = Request>) -> Vec<Ready> {
        let now = self.topic.disk.now().max(self.chain.time);
        let start = self.end;
        let commit = self.chain.commit + 1;
        let mut group: Vec<Ready> = Vec::with_capacity(requests.size_hint().0);
        for request in requests {
            let decided = self.decide(&request, &group, now);
            let (answer, instead) = match decided {
                Ok(decided) => decided,
                Err(error) => (Some(Answer::rejected(error)), None),
            };
            let stores = instead.is_some() || answer.is_none();
            let mut ready = Ready {
                request,
                frame: None,
                answer: answer.unwrap_or(Answer::Stored(self.chain.next)),
            };
            if stores {
                let epoch = ready.request.epoch.unwrap_or(0).max(self.chain.epoch);
                let encoded = instead.as_ref().unwrap_or(&ready.request.batch);
                let header = FrameHeader {
                    body: encoded.body,
                    count: encoded.count,
                    first: self.chain.next,
                    commit,
                    time: now,
                    epoch,
                    group: u32::try_from(self.end - start).unwrap_or(u32::MAX),
                    check: encoded.check,
                    topic: self.topic.id.tag(),
                };
                let offset = self.end;
                self.chain.advance(&header);
                self.end += header.whole();
                ready.frame = Some(Framed { offset, instead });
                let encoded = match &mut ready.frame {
                    Some(Framed {
                        instead: Some(instead),
                        ..
                    }) => instead,
                    _ => &mut ready.request.batch,
                };
                put(&mut encoded.frame, 0, &header.encode());
                remember(
                    self.keys.as_mut(),
                    self.ids.as_mut(),
                    &header,
                    encoded.body(),
                    offset,
                );
            }
            group.push(ready);
        }
        group
    }

    /// `(None, None)`: store it. An answer and no bytes: answer it. Both: store these, then answer.
    fn decide(
        &mut self,
        request: &Request,
        group: &[Ready],
        now: annals_core::Timestamp,
    ) -> Result<(Option<Answer>, Option<Encoded>)> {
        // Repeats first: of what is stored nobody may say that it is not.
        let known = self.duplicates(&request.batch, group, now)?;
        if let Some(known) = &known
            && known.iter().all(|k| matches!(k, Known::Stored(_)))
        {
            return Ok((Some(Answer::Mixed(self.outcomes(known, None))), None));
        }
        let refusal = self.refusal(request, group)?;
        let Some(known) = known else {
            return match refusal {
                Some(error) => Err(error),
                None => Ok((None, None)),
            };
        };
        if let Some(error) = refusal {
            return Ok((
                Some(Answer::Mixed(self.outcomes(&known, Some(&error)))),
                None,
            ));
        }
        let instead = request
            .batch
            .without(|index| !matches!(known.get(index), Some(Known::New)));
        Ok((Some(Answer::Mixed(self.outcomes(&known, None))), instead))
    }

    /// The fence and the condition.
    fn refusal(&mut self, request: &Request, group: &[Ready]) -> Result<Option<Error>> {
        let fence = self.chain.epoch;
        if let Some(epoch) = request.epoch.filter(|epoch| *epoch < fence) {
            return Ok(Some(refused(
                ErrorKind::Fenced,
                format!("epoch {epoch} was fenced by epoch {fence}; a newer writer has taken over"),
            )));
        }
        let conflict = |what: String| {
            Some(refused(
                ErrorKind::Conflict,
                format!("{what}; read on, decide again and append with the new condition"),
            ))
        };
        match &request.condition {
            Condition::None => Ok(None),
            Condition::End(next) if *next == self.chain.next => Ok(None),
            Condition::End(next) => Ok(conflict(format!(
                "the log ends before position {}, not {next}",
                self.chain.next
            ))),
            Condition::KeyAt { key, last } => {
                let found = self.newest_of(key, group)?;
                if found == *last {
                    return Ok(None);
                }
                let say = |at: Option<u64>| at.map_or("none".to_owned(), |at| at.to_string());
                Ok(conflict(format!(
                    "the key's last position is {}, not {}",
                    say(found),
                    say(*last)
                )))
            }
        }
    }

    /// The newest record of a key, those of this group included.
    fn newest_of(&mut self, key: &[u8], group: &[Ready]) -> Result<Option<u64>> {
        if self.keys.is_none() {
            let mut keys = Keys::new(self.mask);
            self.each_frame(self.topic.end().earliest, |header, body, offset| {
                remember(Some(&mut keys), None, header, body, offset);
            })?;
            for ready in group {
                self.remember_ready(ready, Some(&mut keys), None);
            }
            self.keys = Some(keys);
        }
        let Some(spot) = self.keys.as_ref().and_then(|keys| keys.get(key)) else {
            return Ok(None);
        };
        let earliest = self.topic.end().earliest;
        if spot.position < earliest {
            return Ok(None);
        }
        if self.with_entry(&spot, group, |entry, bytes| {
            entry.key_of(bytes) == Some(key)
        })? {
            return Ok(Some(spot.position));
        }
        // Another key with the same hash came later: look at everything.
        let mut newest = None;
        let mut note = |header: &FrameHeader, body: &[u8]| {
            for ((at, entry), position) in entries(body).zip(header.first..) {
                if position >= earliest
                    && body.get(at..).and_then(|bytes| entry.key_of(bytes)) == Some(key)
                {
                    newest = Some(position);
                }
            }
        };
        self.each_frame(earliest, |header, body, _| note(header, body))?;
        for ready in group.iter().filter(|ready| ready.frame.is_some()) {
            let encoded = ready.encoded();
            if let Some(header) = FrameHeader::decode(&encoded.frame, self.topic.id.tag()) {
                note(&header, encoded.body());
            }
        }
        Ok(newest)
    }

    /// For each record of a batch whether its id is known; `None` when none is, the usual case.
    fn duplicates(
        &mut self,
        batch: &Encoded,
        group: &[Ready],
        now: annals_core::Timestamp,
    ) -> Result<Option<Vec<Known>>> {
        let window = match self.topic.settings.dedupe {
            Dedupe::Off => return Ok(None),
            Dedupe::Window(window) => Some(window),
            Dedupe::Forever => None,
        };
        if !batch.ids && self.ids.is_none() {
            return Ok(None);
        }
        self.load_ids(group, window, now)?;
        let oldest = window.map(|window| now.saturating_sub(window));
        if let (Some(ids), Some(oldest)) = (&mut self.ids, oldest) {
            ids.expire(oldest);
        }
        if !batch.ids {
            return Ok(None);
        }
        let earliest = self.topic.end().earliest;
        let mut known = Vec::new();
        let mut inside: std::collections::HashMap<&[u8], usize> = std::collections::HashMap::new();
        for (index, (at, entry)) in entries(batch.body()).enumerate() {
            let bytes = batch.body().get(at..).unwrap_or_default();
            let mut found = Known::New;
            if let Some(id) = entry.id_of(bytes) {
                for spot in self.ids.iter().flat_map(|ids| ids.candidates(id)) {
                    if spot.position >= earliest
                        && self.with_entry(&spot, group, |entry, bytes| {
                            entry.id_of(bytes) == Some(id)
                        })?
                    {
                        found = Known::Stored(spot.position);
                    }
                }
                if found == Known::New
                    && let Some(first) = inside.get(id)
                {
                    found = Known::Inside(*first);
                }
                inside.entry(id).or_insert(index);
            }
            known.push(found);
        }
        Ok(known.iter().any(|k| *k != Known::New).then_some(known))
    }

    fn load_ids(
        &mut self,
        group: &[Ready],
        window: Option<Duration>,
        now: annals_core::Timestamp,
    ) -> Result<()> {
        if self.ids.is_some() {
            return Ok(());
        }
        let mut ids = Ids::new(self.mask, window.is_some());
        let from = match window {
            Some(window) => self.topic.position_at(now.saturating_sub(window))?,
            None => 0,
        };
        self.each_frame(from, |header, body, offset| {
            remember(None, Some(&mut ids), header, body, offset);
        })?;
        for ready in group {
            self.remember_ready(ready, None, Some(&mut ids));
        }
        tracing::debug!(topic = %self.topic.name, ids = ids.len(), "loaded ids");
        self.ids = Some(ids);
        Ok(())
    }

    fn remember_ready(&self, ready: &Ready, keys: Option<&mut Keys>, ids: Option<&mut Ids>) {
        let encoded = ready.encoded();
        if let (Some(frame), Some(header)) = (
            &ready.frame,
            FrameHeader::decode(&encoded.frame, self.topic.id.tag()),
        ) {
            remember(keys, ids, &header, encoded.body(), frame.offset);
        }
    }

    /// Which records of a batch are stored already, without storing any.
    fn known(&mut self, batch: &Encoded) -> Option<Vec<Known>> {
        let now = self.topic.disk.now().max(self.chain.time);
        self.duplicates(batch, &[], now).ok().flatten()
    }

    /// Outcomes of a batch in which some records are known; the new ones get the next positions,
    /// or `refusal`.
    fn outcomes(&self, known: &[Known], refusal: Option<&Error>) -> Vec<Outcome> {
        outcomes(known, self.chain.next, refusal)
    }

    /// Calls `f` with the entry at `spot`, from the group in memory or from the disk.
    fn with_entry(
        &self,
        spot: &Spot,
        group: &[Ready],
        f: impl FnOnce(&super::frame::Entry, &[u8]) -> bool,
    ) -> Result<bool> {
        let end = self.topic.end();
        if spot.position >= end.next {
            for ready in group {
                let Some(frame) = &ready.frame else { continue };
                let encoded = ready.encoded();
                let Some(at) = spot.offset.checked_sub(frame.offset) else {
                    continue;
                };
                let bytes = usize::try_from(at)
                    .ok()
                    .and_then(|at| encoded.frame.get(at..));
                if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                    return Ok(super::frame::Entry::decode(bytes).is_some_and(|e| f(&e, bytes)));
                }
            }
            return Ok(false);
        }
        let Some((segment, limit)) = self.topic.segment_of(spot.position, &end) else {
            return Ok(false);
        };
        let fail = |e| self.topic.io("reading a record", e);
        let file = segment.open(&*self.topic.disk).map_err(fail)?;
        let most = usize::try_from(limit.saturating_sub(spot.offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(512)];
        read_full(&*file, &mut bytes, spot.offset).map_err(fail)?;
        let broken = || self.topic.corrupt(spot.position, "a record is broken");
        let entry = super::frame::Entry::decode(&bytes).ok_or_else(broken)?;
        bytes.resize(entry.len as usize, 0);
        read_full(&*file, &mut bytes, spot.offset).map_err(fail)?;
        if !entry.is_whole(&bytes) {
            return Err(broken());
        }
        Ok(f(&entry, &bytes))
    }

    /// Walks all durable frames that hold `from` or a later position.
    fn each_frame(&self, from: u64, mut f: impl FnMut(&FrameHeader, &[u8], u64)) -> Result<()> {
        let end = self.topic.end();
        let mut next = from.max(end.earliest);
        while next < end.next {
            let broken = |next| self.topic.corrupt(next, "a record is broken");
            let (segment, limit) = self
                .topic
                .segment_of(next, &end)
                .ok_or_else(|| broken(next))?;
            let fail = |e| self.topic.io("reading a segment", e);
            let file = segment.open(&*self.topic.disk).map_err(fail)?;
            let mut at = segment
                .seek(&*file, limit, |mark| mark.position <= next)
                .map_err(fail)?
                .map_or(SEGMENT_HEADER, |mark| mark.offset);
            let mut view = View::new(&*file, limit);
            while at < limit {
                let header = FrameHeader::decode(
                    view.at(at, FRAME_HEADER).map_err(fail)?,
                    self.topic.id.tag(),
                )
                .ok_or_else(|| broken(next))?;
                let body = view
                    .at(at + FRAME_HEADER as u64, header.body as usize)
                    .map_err(fail)?;
                if !super::frame::body_is_whole(&header, body) {
                    return Err(broken(header.first));
                }
                f(&header, body, at);
                next = header.first + u64::from(header.count);
                at += header.whole();
            }
        }
        Ok(())
    }

    /// One write and one sync for the whole group.
    fn write(&mut self, group: &mut [Ready]) -> Result<(), (Error, Effect)> {
        let before = self.tail;
        let start = before.end.bytes;
        if self.end == start {
            return Ok(());
        }
        let written = self.write_frames(group);
        if let Err(e) = written {
            let full = is_full(&e);
            let error = self.topic.io("writing to the log", e);
            // Half a group may lie there: gone and synced, before anything else is written.
            let cut = self
                .file
                .set_len(start)
                .and_then(|()| self.file.sync_data());
            self.reserved = start;
            if full && cut.is_ok() {
                self.chain = before.chain();
                self.keys = None;
                self.ids = None;
                return Err((error, Effect::None));
            }
            self.poison(&error);
            return Err((error, Effect::Unknown));
        }
        if let Err(e) = self.file.sync_data() {
            let error = Error::new(
                ErrorKind::Closed,
                Effect::Unknown,
                Retry::Never,
                "syncing the log failed, so the records may or may not be there; reopen the log to find out",
            )
            .on_topic(&self.topic.name)
            .with_source(e);
            self.poison(&error);
            return Err((error, Effect::Unknown));
        }
        self.reserved = self.reserved.max(self.end);
        Ok(())
    }

    fn write_frames(&mut self, group: &[Ready]) -> io::Result<()> {
        let frames = group
            .iter()
            .filter_map(|ready| Some((ready.frame.as_ref()?.offset, ready.encoded())));
        self.scratch.clear();
        let mut at = 0;
        let single = group.len() == 1;
        for (offset, encoded) in frames {
            let bytes = &encoded.frame;
            if single || bytes.len() >= ALONE {
                write_full(&*self.file, &self.scratch, at)?;
                self.scratch.clear();
                write_full(&*self.file, bytes, offset)?;
                continue;
            }
            if self.scratch.is_empty() {
                at = offset;
            }
            self.scratch.extend_from_slice(bytes);
            if self.scratch.len() >= 1 << 20 {
                write_full(&*self.file, &self.scratch, at)?;
                self.scratch.clear();
            }
        }
        write_full(&*self.file, &self.scratch, at)
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
        if let Err(e) = self.slot.write(&self.tail.encode(), false) {
            // The records are durable; other processes can no longer be told of more.
            let error = self.topic.io("publishing the durable end", e);
            self.poison(&error);
        }
        self.topic.end.send_modify(|known| {
            *known = End {
                earliest: known.earliest.max(end.earliest),
                ..end
            };
        });
    }

    /// Takes no more appends after a panic in the middle of one.
    pub(super) fn give_up(&mut self) {
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
        match self.slot.sync() {
            Ok(()) => self.tail_is_synced = true,
            Err(e) => {
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
        if self.failed.is_some() {
            return Ok(());
        }
        self.failed =
            Some(Error::closed("the log is closed; open it again").on_topic(&self.topic.name));
        let trim = || -> io::Result<()> {
            if self.file.len()? > self.end {
                self.file.set_len(self.end)?;
                self.file.sync_data()?;
            }
            self.slot.sync()
        };
        trim().map_err(|e| of_io("closing the log", e).on_topic(&self.topic.name))
    }

    /// Looks whether the active segment on disk is what was written to it; for tests.
    #[cfg(test)]
    pub(super) fn rescan(&self) -> u64 {
        super::recover::scan(
            &*self.file,
            self.topic.id.tag(),
            SEGMENT_HEADER,
            self.segment.header.chain(),
            None,
        )
        .unwrap()
        .end
    }
}

/// Whether a record's id is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    New,
    /// Stored at this position.
    Stored(u64),
    /// The same id as this earlier record of the batch.
    Inside(usize),
}

fn outcomes(known: &[Known], next: u64, refusal: Option<&Error>) -> Vec<Outcome> {
    let duplicate =
        |at| Outcome::Stored(Stored::at(Position::new(PartitionId::ONLY, at)).as_duplicate());
    let mut positions = next..;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(known.len());
    for known in known {
        let outcome = match (known, refusal) {
            (Known::Stored(at), _) => duplicate(*at),
            (_, Some(error)) => Outcome::Rejected(error.clone()),
            (Known::New, None) => positions.next().map_or(Outcome::NotAttempted, stored_at),
            (Known::Inside(first), None) => outcomes
                .get(*first)
                .and_then(Outcome::stored)
                .map_or(Outcome::NotAttempted, |stored| {
                    Outcome::Stored(stored.as_duplicate())
                }),
        };
        outcomes.push(outcome);
    }
    outcomes
}

/// The answer on a full disk: what is stored already is, the rest is not.
fn without_room(known: Option<Vec<Known>>, _batch: &Encoded, error: Error) -> Answer {
    match known {
        Some(known) => Answer::Mixed(outcomes(&known, 0, Some(&error))),
        None => Answer::rejected(error),
    }
}

/// Takes a frame's keys and ids into the tables.
fn remember(
    mut keys: Option<&mut Keys>,
    mut ids: Option<&mut Ids>,
    header: &FrameHeader,
    body: &[u8],
    offset: u64,
) {
    if keys.is_none() && ids.is_none() {
        return;
    }
    for ((at, entry), position) in entries(body).zip(header.first..) {
        let bytes = body.get(at..).unwrap_or_default();
        let spot = Spot {
            position,
            offset: offset + (FRAME_HEADER + at) as u64,
            time: header.time,
        };
        if let (Some(keys), Some(key)) = (&mut keys, entry.key_of(bytes)) {
            keys.insert(key, spot);
        }
        if let (Some(ids), Some(id)) = (&mut ids, entry.id_of(bytes)) {
            ids.insert(id, spot);
        }
    }
}
