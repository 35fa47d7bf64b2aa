//! Repeats: records whose id the log knows.

mod table;

use std::collections::HashMap;
use std::time::Duration;

use annals_core::{Error, Outcome, PartitionId, Position, Result, Stored, Timestamp};

pub(super) use self::table::Ids;
use self::table::Spot;
use super::{Answer, Ready, Writer, stored_at};
use crate::log::encode::Encoded;
use crate::log::frame::{Entry, FRAME_HEADER, FrameHeader, entries};
use crate::log::options::Dedupe;

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
                    if spot.position >= earliest && self.has_id(&spot, group, id)? {
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
        self.topic.walk_from(from, |header, body, offset| {
            ids.remember(header, body, offset);
        })?;
        for ready in group {
            self.remember_ready(ready, &mut ids);
        }
        tracing::debug!(topic = %self.topic.name, ids = ids.len(), "loaded ids");
        self.ids = Some(ids);
        Ok(())
    }

    fn remember_ready(&self, ready: &Ready, ids: &mut Ids) {
        let encoded = ready.encoded();
        if let (Some(frame), Some(header)) = (
            &ready.frame,
            FrameHeader::decode(&encoded.frame, self.topic.id.tag()),
        ) {
            ids.remember(&header, encoded.body(), frame.offset);
        }
    }

    /// Which records of a batch are stored already, without storing any.
    pub(super) fn known(&mut self, batch: &Encoded) -> Option<Vec<Known>> {
        let now = self.topic.disk.now().max(self.chain.time);
        self.duplicates(batch, &[], now).ok().flatten()
    }

    /// Whether the entry at `spot`, in the group in memory or on the disk, has this id.
    fn has_id(&self, spot: &Spot, group: &[Ready], id: &[u8]) -> Result<bool> {
        let end = self.topic.end();
        if spot.position >= end.next {
            let entry = group.iter().rev().find_map(|ready| {
                let at = spot.offset.checked_sub(ready.frame.as_ref()?.offset)?;
                ready.encoded().frame.get(usize::try_from(at).ok()?..)
            });
            return Ok(entry.is_some_and(|bytes| {
                Entry::decode(bytes).is_some_and(|entry| entry.id_of(bytes) == Some(id))
            }));
        }
        let Some((segment, limit)) = self.topic.segment_of(spot.position, &end) else {
            return Ok(false);
        };
        self.topic.with_entry(
            &segment,
            spot.position,
            spot.offset,
            limit,
            |entry, bytes| entry.id_of(bytes) == Some(id),
        )
    }
}

impl Ids {
    /// Takes in a frame's ids.
    pub(super) fn remember(&mut self, header: &FrameHeader, body: &[u8], offset: u64) {
        for ((at, entry), position) in entries(body).zip(header.first..) {
            if let Some(id) = body.get(at..).and_then(|bytes| entry.id_of(bytes)) {
                let spot = Spot {
                    position,
                    offset: offset + (FRAME_HEADER + at) as u64,
                    time: header.time,
                };
                self.insert(id, spot);
            }
        }
    }
}
