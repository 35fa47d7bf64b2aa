//! What proves that no record before a moment can come any more.
//!
//! A record is stamped before it is durable, so that the clock has passed a moment says nothing
//! yet about the records before it. Where the writer is in this process, it and the readers share
//! [`Stamps`]: a reader that ends at a moment raises the floor under all later stamps. Other
//! processes see that `tail` is held from before a group is stamped until it is published.

use std::sync::Mutex;

use annals_core::{Result, Timestamp};

use super::frame::{FRAME_HEADER, FrameHeader, body_is_whole};
use super::segment::View;
use super::topic::{Topic, lock};

/// The log's clock, as the writer and the readers of its process share it.
#[derive(Debug)]
pub(super) struct Stamps(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Nothing is stamped before it any more.
    floor: Timestamp,
    /// The stamp of the group that is being made durable.
    in_flight: Option<Timestamp>,
}

impl Stamps {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            floor: Timestamp::MIN,
            in_flight: None,
        }))
    }

    pub(super) fn raise(&self, floor: Timestamp) {
        let mut state = lock(&self.0);
        state.floor = state.floor.max(floor);
    }

    pub(super) fn floor(&self) -> Timestamp {
        lock(&self.0).floor
    }

    /// The group that was stamped is published, or has failed.
    pub(super) fn done(&self) {
        lock(&self.0).in_flight = None;
    }
}

impl Topic {
    /// The append time of the next group: now, but never less than `least`, nor than a moment
    /// that a reader has ended at.
    pub(super) fn stamp(&self, least: Timestamp) -> Timestamp {
        let mut state = lock(&self.stamps.0);
        let time = self.disk.now().max(least).max(state.floor);
        state.floor = time;
        state.in_flight = Some(time);
        time
    }

    /// Whether all records before `time` that will ever be are below the durable end that
    /// [`Topic::refresh`] answers from now on. Blocks.
    ///
    /// Where the writer is another process, this trusts the machine's clock not to be set back
    /// behind `time` from here on; in the writer's own process later appends are never stamped
    /// before `time`, whatever the clock does.
    ///
    /// # Errors
    /// `Corrupt`; the disk's.
    pub fn is_past(&self, time: Timestamp) -> Result<bool> {
        match &self.foreign {
            None => {
                let mut state = lock(&self.stamps.0);
                let pending = state.in_flight.is_some_and(|stamp| stamp < time);
                if pending || (state.floor < time && self.disk.now() < time) {
                    return Ok(false);
                }
                state.floor = state.floor.max(time);
            }
            Some(foreign) => {
                // In this order: a group that is stamped after the look at the clock is stamped
                // later, and one stamped before it is published or still holds `tail`.
                let clock = self.disk.now();
                let (held, tail) = lock(foreign).look(self)?;
                let promised = tail.is_some_and(|tail| tail.time >= time);
                if !promised && (clock < time || held) {
                    return Ok(false);
                }
            }
        }
        Ok(!self.has_unborn(time)?)
    }

    /// Whether a frame from before `time` lies behind the durable end: its writer was killed, or
    /// could not sync it, and the next one will keep it.
    fn has_unborn(&self, time: Timestamp) -> Result<bool> {
        let end = self.refresh()?;
        let Some(segment) = self.read_segments().get(&end.segment).cloned() else {
            return Ok(false);
        };
        let fail = |e| self.io("reading a segment", e);
        let file = segment.open(&*self.disk).map_err(fail)?;
        let mut view = View::new(&*file, file.len().map_err(fail)?);
        let header = view.at(end.bytes, FRAME_HEADER).map_err(fail)?;
        let Some(header) = FrameHeader::decode(header, self.id.tag())
            .filter(|header| header.first == end.next && header.time < time)
        else {
            return Ok(false);
        };
        let body = view
            .at(end.bytes + FRAME_HEADER as u64, header.body as usize)
            .map_err(fail)?;
        Ok(body_is_whole(&header, body))
    }
}
