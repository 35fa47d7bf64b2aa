//! Pieces of histories, made by hand.

use annals_core::{PartitionId, Position};

use crate::history::{Client, Fate, Offer, Reading, Seen, Tick, Value};

pub(super) fn at(number: u64) -> Position {
    Position::new(PartitionId::ONLY, number)
}

/// Stored at its counter's place, told then.
pub(super) fn stored(value: Value, start: Tick) -> Offer {
    offer(value, told(value.counter), start)
}

pub(super) fn told(number: u64) -> Fate {
    Fate::Stored {
        at: Some(at(number)),
        duplicate: false,
    }
}

pub(super) fn offer(value: Value, fate: Fate, start: Tick) -> Offer {
    Offer {
        value,
        fate,
        client: Client(value.writer),
        call: usize::try_from(start).unwrap(),
        start,
        end: start + 1,
        epoch: None,
        atomic: false,
    }
}

pub(super) fn seen(value: Value, number: u64, tick: Tick) -> Seen {
    Seen {
        value,
        position: Some(at(number)),
        reading: Reading(0),
        attempt: 0,
        asked: tick,
        tick,
    }
}

/// Value `number` of writer 1.
pub(super) fn v(number: u64) -> Value {
    Value::new(1, number)
}

/// Values 0, 1, … of writer 1, stored at 0, 1, …
pub(super) fn log(length: u64) -> Vec<Offer> {
    (0..length).map(|n| stored(v(n), 2 * n + 1)).collect()
}

/// These of them, read at the tick 1,000 and on.
pub(super) fn read(numbers: impl IntoIterator<Item = u64>) -> Vec<Seen> {
    let numbers = numbers.into_iter().zip(1_000..);
    numbers.map(|(n, tick)| seen(v(n), n, tick)).collect()
}
