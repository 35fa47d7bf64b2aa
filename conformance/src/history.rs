//! What the clients of a run did and saw: every call with its client, its start, its end and its
//! outcome, in the order of real time.
//!
//! A [`Recorder`] is handed to every client; [`Recorder::history`] is what they did so far. What
//! is asked of it are flat views, [`History::offers`] and [`History::seen`] before all, which the
//! functions in [`check`](crate::check) take.

mod answer;
mod call;
mod recorder;
mod value;
mod views;

pub use answer::{Appending, Asking, Fetching, Opening, Settling};
pub use call::{
    Call, Client, Condition, Done, Fate, Kind, NEVER, Purpose, Reading, Seen, Signal, Strange,
    Tick, Verdict, order,
};
pub use recorder::{Offering, Recorder};
pub use value::{KeyNo, NoValue, Value};
pub use views::{Act, Hold, Offer, Settlement, Sight, Step};

use annals_core::{PartitionId, Position};

/// Everything that was recorded, compactly: about 200 bytes a record that is appended and read.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<Call>,
    /// What was offered, call by call, in the order of their starts.
    offered: Vec<(Value, Fate)>,
    /// What was read, in the order in which it was handed out.
    seen: Vec<Seen>,
    strange: Vec<Strange>,
    ends: Vec<(PartitionId, Option<Position>)>,
    readings: Vec<(Client, Purpose)>,
    now: Tick,
}

impl History {
    /// The calls in the order of their starts.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// What was read that no client can have written.
    pub fn strange(&self) -> &[Strange] {
        &self.strange
    }

    /// Who opened a reading, and what for.
    pub fn reading(&self, reading: Reading) -> Option<(Client, Purpose)> {
        let place = usize::try_from(reading.0).ok()?;
        self.readings.get(place).copied()
    }

    /// Every reading, in the order of the opens.
    pub fn readings(&self) -> impl Iterator<Item = (Reading, Client, Purpose)> + '_ {
        (0..)
            .zip(&self.readings)
            .map(|(number, (client, purpose))| (Reading(number), *client, *purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(number: u64) -> Position {
        Position::new(PartitionId::ONLY, number)
    }

    #[test]
    fn a_call_that_is_dropped_never_returned_and_is_unknown() {
        let recorder = Recorder::new();
        let value = Value::new(1, 1);
        drop(recorder.append(Client(1), [value].as_slice()));
        let history = recorder.history();
        let offer = history.offers().next().unwrap();
        assert_eq!(offer.fate, Fate::Unknown);
        assert_eq!((offer.start, offer.end), (1, NEVER));
        assert_eq!(history.calls()[0].done, Done::Unknown);
    }

    #[test]
    fn ticks_are_the_order_of_real_time() {
        let recorder = Recorder::new();
        let values = [Value::new(1, 1), Value::new(1, 2)];
        let first = recorder.append(Client(1), &values[..1]);
        let second = recorder.append(Client(2), &values[1..]);
        let stored = |number| Fate::Stored {
            at: Some(at(number)),
            duplicate: false,
        };
        second.fates(Done::Ok, [stored(0)]);
        first.fates(Done::Ok, [stored(1)]);
        let history = recorder.history();
        let offers: Vec<_> = history.offers().map(|o| (o.start, o.end, o.fate)).collect();
        assert_eq!(offers, [(1, 4, stored(1)), (2, 3, stored(0))]);
    }

    #[test]
    fn a_hold_lasts_until_its_settlement_is_sent_or_its_life_ends() {
        let recorder = Recorder::new();
        let (member, open) = recorder.open(Client(1), Purpose::Member(7));
        open.ended(&annals_core::Result::Ok(()));
        let (one, two) = (Value::new(1, 1), Value::new(1, 2));
        recorder
            .fetch(member)
            .values(&[(one, Some(at(0))), (two, Some(at(1)))], None);
        recorder.settle(member, one, Verdict::Done).ended(Done::Ok);
        recorder.crashed(member);
        let holds = recorder.history().holds(7);
        assert_eq!(holds.len(), 2);
        assert!(holds[0].accepted() && !holds[1].accepted());
        assert_eq!((holds[0].until(), holds[1].until()), (5, 7));
        assert!(recorder.history().holds(8).is_empty());
    }

    #[test]
    fn a_commit_settles_what_lies_up_to_it() {
        let recorder = Recorder::new();
        let (member, open) = recorder.open(Client(1), Purpose::Member(0));
        open.ended(&annals_core::Result::Ok(()));
        let values = [
            (Value::new(1, 1), Some(at(0))),
            (Value::new(1, 2), Some(at(1))),
            (Value::new(1, 3), Some(at(2))),
        ];
        recorder.fetch(member).values(&values, Some(Signal::End));
        let to = Position::new(PartitionId::ONLY, 1);
        recorder.commit(member, to, 1).ended(Done::Ok);
        let history = recorder.history();
        let accepted: Vec<_> = history.holds(0).iter().map(Hold::accepted).collect();
        assert_eq!(accepted, [true, true, false]);
        let last = history.steps(member).last();
        assert_eq!(last, Some(Step::Signal(&Signal::End, 4)));
    }
}
