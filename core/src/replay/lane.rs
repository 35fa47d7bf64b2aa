//! One reader among those of a replay, and one turn of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::cursor::Cursor;
use crate::driver::{Fetched, Opened, ReadRange, Reader, Room, Stop};
use crate::error::Result;
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;
use crate::topic::Topic;

/// One reader, what it is to read and what it said last.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its partition; `None`: it reads all that the range names.
    pub(super) partition: Option<PartitionId>,
    /// What to open when there is no reader.
    pub(super) range: ReadRange,
    /// `None`: to be opened, for the first time or again.
    pub(super) reader: Option<Box<dyn Reader>>,
    /// Where the last open pinned its start.
    pub(super) pinned: Option<Cursor>,
    /// How much the current turn may bring.
    pub(super) room: Room,
    /// What the last turn brought.
    pub(super) records: Vec<Recorded>,
    /// The last of each partition, where a key is looked for: it may be of another one.
    pub(super) passed: BTreeMap<PartitionId, Position>,
    /// And what it said after that.
    pub(super) said: Result<Fetched>,
    /// Turns in a row that failed.
    pub(super) failures: u32,
}

impl Lane {
    pub(super) fn new(partition: Option<PartitionId>, range: ReadRange) -> Self {
        Self {
            partition,
            range,
            reader: None,
            pinned: None,
            room: Room::NONE,
            records: Vec::new(),
            passed: BTreeMap::new(),
            said: Ok(Fetched::Records),
            failures: 0,
        }
    }

    /// Takes over a reading of its range.
    pub(super) fn adopt(&mut self, opened: Opened) {
        let Opened {
            reader,
            from,
            until,
        } = opened;
        // The end as it was at the first open stays the end, however often it is opened again.
        if let (Stop::End, Some(until)) = (&self.range.stop, until) {
            self.range.stop = Stop::Through(until);
        }
        self.reader = Some(reader);
        self.pinned = Some(from);
    }

    async fn fetch(&mut self, topic: &Topic, pause: Option<Duration>) -> Result<Fetched> {
        if let Some(pause) = pause {
            topic.bus().clock().sleep(pause).await;
        }
        if self.reader.is_none() {
            let backend = &topic.bus().backend;
            let opened = backend.read(topic.name(), &self.range).await?;
            self.adopt(opened);
        }
        match &mut self.reader {
            Some(reader) => reader.fetch(self.room, &mut self.records).await,
            None => Ok(Fetched::Records),
        }
    }
}

/// One turn: waits out the pause, opens the reader if there is none, fetches once. It owns the
/// lane, so whoever waits for it may stop waiting and come back; `stop` ends it early with the
/// reader whole.
pub(super) async fn turn(
    topic: Topic,
    mut lane: Box<Lane>,
    pause: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) -> Box<Lane> {
    let said = tokio::select! {
        biased;
        said = lane.fetch(&topic, pause) => Some(said),
        _ = stop.wait_for(|stopped| *stopped) => None,
    };
    if let Some(said) = said {
        lane.said = said;
    }
    lane
}
