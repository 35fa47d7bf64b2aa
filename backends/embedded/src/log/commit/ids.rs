//! Repeats: records whose id the log knows.

use std::collections::HashMap;
use std::time::Duration;

use annals_core::{Error, Outcome, PartitionId, Position, Result, Stored, Timestamp};

use super::{Answer, Ready, Writer, remember, stored_at};
use crate::log::encode::Encoded;
use crate::log::frame::{Entry, FRAME_HEADER, FrameHeader, entries};
use crate::log::options::Dedupe;
use crate::log::segment::{SEGMENT_HEADER, View, read_full};
use crate::log::table::{Ids, Keys, Spot};

/// Whether a record's id is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    New,
    /// Stored at this position.
    Stored(u64),
    /// The same id as this earlier record of the batch.
    Inside(usize),
}

pub(super) fn outcomes(known: &[Known], next: u64, refusal: Option<&Error>) -> Vec<Outcome> {
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
pub(super) fn without_room(known: Option<Vec<Known>>, error: Error) -> Answer {
    match known {
        Some(known) => Answer::Mixed(outcomes(&known, 0, Some(&error))),
        None => Answer::rejected(error),
    }
}

impl Writer {
    /// For each record of a batch whether its id is known; `None` when none is, the usual case.
    pub(super) fn duplicates(
        &mut self,
        batch: &Encoded,
        group: &[Ready],
        now: Timestamp,
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
        let mut inside: HashMap<&[u8], usize> = HashMap::new();
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
        now: Timestamp,
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

    pub(super) fn remember_ready(
        &self,
        ready: &Ready,
        keys: Option<&mut Keys>,
        ids: Option<&mut Ids>,
    ) {
        let encoded = ready.encoded();
        if let (Some(frame), Some(header)) = (
            &ready.frame,
            FrameHeader::decode(&encoded.frame, self.topic.id.tag()),
        ) {
            remember(keys, ids, &header, encoded.body(), frame.offset);
        }
    }

    /// Which records of a batch are stored already, without storing any.
    pub(super) fn known(&mut self, batch: &Encoded) -> Option<Vec<Known>> {
        let now = self.topic.disk.now().max(self.chain.time);
        self.duplicates(batch, &[], now).ok().flatten()
    }

    /// Calls `f` with the entry at `spot`, from the group in memory or from the disk.
    pub(super) fn with_entry(
        &self,
        spot: &Spot,
        group: &[Ready],
        f: impl FnOnce(&Entry, &[u8]) -> bool,
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
                    return Ok(Entry::decode(bytes).is_some_and(|e| f(&e, bytes)));
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
        let entry = Entry::decode(&bytes).ok_or_else(broken)?;
        bytes.resize(entry.len as usize, 0);
        read_full(&*file, &mut bytes, spot.offset).map_err(fail)?;
        if !entry.is_whole(&bytes) {
            return Err(broken());
        }
        Ok(f(&entry, &bytes))
    }

    /// Walks all durable frames that hold `from` or a later position.
    pub(super) fn each_frame(
        &self,
        from: u64,
        mut f: impl FnMut(&FrameHeader, &[u8], u64),
    ) -> Result<()> {
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
                if !crate::log::frame::body_is_whole(&header, body) {
                    return Err(broken(header.first));
                }
                f(&header, body, at);
                next = header.first + u64::from(header.count);
                at += header.whole();
            }
        }
        Ok(())
    }
}
