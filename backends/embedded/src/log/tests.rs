//! The engine against disks in memory, whole and failing.

mod asks;
mod clock;
mod crash;
mod fault;
mod front;
mod golden;
mod keys;
mod model;
mod moment;
mod slots;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use annals_core::driver::Room;
use annals_core::{Batch, Clock, Error, Outcome, Record, Recorded, Result, Timestamp, TopicName};
use tokio::sync::oneshot;

use super::*;
use crate::disk::Disk;

pub(super) const TINY: Sizes = Sizes {
    segment: 8 << 10,
    records: 1 << 20,
    reserve_first: 512,
    reserve_most: 2048,
    group: 4 << 10,
    page: 600,
};

/// A seeded generator (splitmix64).
pub(super) struct Seed(pub(super) u64);

impl Seed {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }
}

pub(super) fn clock() -> Clock {
    clock_at(1_000)
}

pub(super) fn clock_at(millis: i64) -> Clock {
    Clock::moved(Timestamp::from_millis(millis))
}

pub(super) fn place(disk: impl Disk, sizes: Sizes) -> Place {
    Place {
        disk: Arc::new(disk),
        root: Path::new("").to_owned(),
        name: TopicName::new("orders").unwrap(),
        sizes,
    }
}

pub(super) fn made(place: &Place, dedupe: Dedupe) -> Writer {
    let settings = Settings {
        dedupe,
        ..Settings::default()
    };
    create(
        &*place.disk,
        &place.root,
        &place.name,
        TopicId([7; 16]),
        settings,
    )
    .unwrap();
    Writer::open(place).unwrap()
}

pub(super) type Ask = (Batch, Condition, Option<u64>);

/// Commits batches that wait together.
pub(super) fn together(writer: &mut Writer, asks: Vec<Ask>) -> Vec<Vec<Outcome>> {
    let mut waiting = VecDeque::new();
    let mut answers = Vec::new();
    for (batch, condition, epoch) in asks {
        let (answer, receiver) = oneshot::channel();
        answers.push((batch.len(), receiver));
        let batch = Encoded::new(&batch, Vec::new()).unwrap();
        waiting.push_back(Request {
            batch,
            condition,
            epoch,
            answer,
        });
    }
    while !waiting.is_empty() {
        writer.commit(&mut waiting, drop);
    }
    answers
        .into_iter()
        .map(|(len, mut answer)| {
            let outcomes = answer.try_recv().unwrap().into_report(len).into_outcomes();
            assert_eq!(outcomes.len(), len);
            outcomes
        })
        .collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "conditions are written in place"
)]
pub(super) fn ask(writer: &mut Writer, batch: impl Into<Batch>, condition: Condition) -> Outcome {
    let batch = batch.into();
    // As the caller does: each try makes one of the indexes that are missing.
    loop {
        let outcomes = together(writer, vec![(batch.clone(), condition.clone(), None)]);
        let indexing = |e: &Error| e.to_string().contains("indexes of keys are missing");
        if !outcomes[0][0].error().is_some_and(indexing) {
            return outcomes[0][0].clone();
        }
    }
}

pub(super) fn put(writer: &mut Writer, value: &str) -> u64 {
    let outcome = ask(writer, Record::new(value), Condition::None);
    at(&outcome)
}

/// The position of a stored record.
pub(super) fn at(outcome: &Outcome) -> u64 {
    outcome
        .stored()
        .unwrap_or_else(|| panic!("{outcome:?}"))
        .position
        .unwrap()
        .number_u64()
        .unwrap()
}

pub(super) fn drain(scan: &mut Scan, room: Room) -> (Vec<Recorded>, Result<Fetch>) {
    let mut out = Vec::new();
    loop {
        match scan.fetch(room, &mut out) {
            Ok(Fetch::More) => {}
            other => return (out, other),
        }
    }
}

pub(super) fn all(topic: &Arc<Topic>) -> Vec<Recorded> {
    let mut scan = Scan::new(Arc::clone(topic), topic.end().earliest, StopAt::Never);
    let (records, end) = drain(&mut scan, ROOM);
    assert_eq!(end.unwrap(), Fetch::CaughtUp);
    records
}

pub(super) fn values(records: &[Recorded]) -> Vec<String> {
    records
        .iter()
        .map(|r| String::from_utf8(r.value().to_vec()).unwrap())
        .collect()
}

pub(super) const ROOM: Room = Room {
    records: 1000,
    bytes: 1 << 20,
};
