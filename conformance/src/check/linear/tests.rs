//! The checker against its oracle: random runs against a log that is right, or wrong in one of
//! several ways. `ANNALS_SEED=N` runs one alone.

use std::collections::BTreeMap;
use std::fmt::Write;

use annals_core::PartitionId;

use super::*;
use crate::check::testing::at;
use crate::check::wgl::linearizable;
use crate::history::{Appending, Asking, Client, Fate, KeyNo, Offering, Reading, Recorder, Value};

const SEEDS: u64 = 110_000;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What a log answers an append.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Stored(u64),
    Refused,
}

/// A call of a client that is under way.
enum Doing {
    Append {
        call: Appending,
        values: Vec<Value>,
        condition: Option<Condition>,
        /// What it was answered, once it has happened.
        answer: Option<Answer>,
        /// What the condition was found to be beforehand, by a log that does not look again.
        looked: Option<bool>,
    },
    /// Whether it has happened, and what it was answered.
    Ask(Asking, bool, Option<Position>),
}

/// How a log is wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wrong {
    No,
    /// Looks at the condition first, and appends later.
    LooksFirst,
    IgnoresConditions,
    RefusesNow,
    StaleEnds,
    /// Answers before it stores.
    Late,
    /// Stores what it refuses.
    StoresRefused,
    LosesSome,
    TellsAnother,
}

const WRONGS: [Wrong; 9] = [
    Wrong::No,
    Wrong::LooksFirst,
    Wrong::IgnoresConditions,
    Wrong::RefusesNow,
    Wrong::StaleEnds,
    Wrong::Late,
    Wrong::StoresRefused,
    Wrong::LosesSome,
    Wrong::TellsAnother,
];

struct World {
    dice: Dice,
    wrong: Wrong,
    recorder: Recorder,
    log: Vec<Value>,
    doing: BTreeMap<u32, Doing>,
    next: u64,
    /// Lost answers: what may be offered again.
    lost: Vec<(Vec<Value>, Option<Condition>)>,
    /// What is stored after its answer.
    late: Vec<Vec<Value>>,
}

const KEYS: u64 = 2;

impl World {
    /// Holes between positions.
    fn position(place: usize) -> Position {
        Position::new(PartitionId::ONLY, 3 * place as u64 + 1)
    }

    fn end(&self) -> Option<Position> {
        self.log.len().checked_sub(1).map(Self::position)
    }

    fn key_end(&self, key: KeyNo) -> Option<Position> {
        let last = self.log.iter().rposition(|value| value.key == Some(key));
        last.map(Self::position)
    }

    fn holds(&self, condition: Option<Condition>) -> bool {
        match condition {
            None => true,
            Some(Condition::EndAt(at)) => self.end() == at,
            Some(Condition::KeyAt(key, at)) => self.key_end(key) == at,
        }
    }

    fn begin(&mut self, client: u32) -> Doing {
        if self.dice.one_in(4) {
            return Doing::Ask(self.recorder.ask_end(Client(client)), false, None);
        }
        let again = self.dice.one_in(4).then(|| self.lost.pop()).flatten();
        let (values, condition) = again.unwrap_or_else(|| {
            let batch = 1 + self.dice.roll(2);
            let values: Vec<Value> = (0..batch)
                .map(|number| {
                    let key = 1 + u32::try_from(self.dice.roll(KEYS)).unwrap();
                    Value::new(client, self.next + number).keyed(key)
                })
                .collect();
            self.next += batch;
            // A condition as of now, or of some time ago.
            let back = self.dice.roll(3).min(self.dice.roll(3));
            let place = usize::try_from((self.log.len() as u64).saturating_sub(back)).unwrap();
            let known = &self.log[..place];
            let condition = match self.dice.roll(3) {
                0 => Some(Condition::EndAt(place.checked_sub(1).map(Self::position))),
                1 => {
                    let key = values[0].key.unwrap();
                    let last = known.iter().rposition(|value| value.key == Some(key));
                    Some(Condition::KeyAt(key, last.map(Self::position)))
                }
                // Batches without a condition are not told from single records here.
                _ => None,
            };
            let many = if condition.is_some() { values.len() } else { 1 };
            (values[..many].to_vec(), condition)
        });
        let offering = Offering {
            values: &values,
            condition,
            ..Offering::default()
        };
        let call = self.recorder.append(Client(client), offering);
        let looked = (self.wrong == Wrong::LooksFirst).then(|| self.holds(condition));
        Doing::Append {
            call,
            values,
            condition,
            answer: None,
            looked,
        }
    }

    /// Lets a call happen at the log.
    fn happen(&mut self, doing: &mut Doing) {
        match doing {
            Doing::Ask(_, happened, end) => {
                let stale = self.wrong == Wrong::StaleEnds && self.dice.one_in(2);
                let back = usize::from(stale);
                let place = self.log.len().checked_sub(1 + back);
                (*happened, *end) = (true, place.map(Self::position));
            }
            Doing::Append {
                values,
                condition,
                answer,
                looked,
                ..
            } => {
                if let Some(first) = self.log.iter().position(|value| *value == values[0]) {
                    *answer = Some(Answer::Stored(first as u64));
                    return;
                }
                let act = self.dice.one_in(3);
                let mut holds = looked.unwrap_or_else(|| self.holds(*condition));
                if self.wrong == Wrong::IgnoresConditions && act {
                    holds = true;
                }
                if self.wrong == Wrong::RefusesNow && act && condition.is_some() {
                    holds = false;
                }
                if !holds {
                    *answer = Some(Answer::Refused);
                    if self.wrong == Wrong::StoresRefused && act {
                        self.log.append(&mut values.clone());
                    }
                    return;
                }
                *answer = Some(Answer::Stored(self.log.len() as u64));
                match self.wrong {
                    Wrong::LosesSome if act => {}
                    Wrong::Late if act => self.late.push(values.clone()),
                    _ => self.log.append(&mut values.clone()),
                }
            }
        }
    }

    fn finish(&mut self, doing: Doing) {
        match doing {
            Doing::Ask(call, true, end) => call.answered([(PartitionId::ONLY, end)]),
            Doing::Ask(call, false, _) => call.failed(),
            Doing::Append {
                call,
                values,
                condition,
                answer,
                ..
            } => {
                let lost = answer.is_none() || self.dice.one_in(6);
                match answer {
                    _ if lost => {
                        self.lost.push((values, condition));
                        if self.dice.one_in(2) {
                            call.unknown();
                        }
                    }
                    Some(Answer::Stored(first)) => {
                        let off =
                            u64::from(self.wrong == Wrong::TellsAnother && self.dice.one_in(3));
                        let first = usize::try_from(first + off).unwrap();
                        let fate = |place| Fate::Stored {
                            at: Some(Self::position(first + place)),
                            duplicate: false,
                        };
                        call.fates(Done::Ok, (0..values.len()).map(fate));
                    }
                    _ => call.fates(Done::Refused, values.iter().map(|_| Fate::Failed)),
                }
            }
        }
    }

    fn step(&mut self) {
        let client = u32::try_from(self.dice.roll(3)).unwrap();
        match self.doing.remove(&client) {
            None => {
                let doing = self.begin(client);
                self.doing.insert(client, doing);
            }
            Some(mut doing) => {
                let happened = match &doing {
                    Doing::Ask(_, happened, _) => *happened,
                    Doing::Append { answer, .. } => answer.is_some(),
                };
                if happened {
                    self.finish(doing);
                } else {
                    self.happen(&mut doing);
                    self.doing.insert(client, doing);
                }
            }
        }
        if self.dice.one_in(2) {
            for mut values in std::mem::take(&mut self.late) {
                self.log.append(&mut values);
            }
        }
    }
}

fn run(seed: u64) -> (History, Vec<Seen>, Wrong) {
    let mut dice = Dice(seed);
    let wrong = WRONGS[usize::try_from(seed % WRONGS.len() as u64).unwrap()];
    let steps = 12 + dice.roll(24);
    let mut world = World {
        dice,
        wrong,
        recorder: Recorder::new(),
        log: Vec::new(),
        doing: BTreeMap::new(),
        next: 0,
        lost: Vec::new(),
        late: Vec::new(),
    };
    for _ in 0..steps {
        world.step();
    }
    for (_, doing) in std::mem::take(&mut world.doing) {
        world.finish(doing);
    }
    let seen = |(place, value): (usize, &Value)| Seen {
        value: *value,
        position: Some(World::position(place)),
        reading: Reading(0),
        attempt: 0,
        asked: 0,
        tick: 0,
    };
    let last = world.log.iter().enumerate().map(seen).collect();
    (world.recorder.take(), last, wrong)
}

fn told_of(history: &History, last: &[Seen]) -> String {
    let mut text = String::new();
    for call in history.calls() {
        let (batch, ends) = (history.batch(call), history.ends(call));
        let condition = match &call.kind {
            Kind::Append { condition, .. } => condition.as_deref().map(condition_text),
            _ => None,
        };
        let witness = Witness::of_call(format!("{:?}", call.done), call);
        writeln!(text, "{witness} {condition:?} {batch:?} {ends:?}").unwrap();
    }
    for seen in last {
        writeln!(text, "{}", Witness::from(seen)).unwrap();
    }
    text
}

#[test]
fn it_agrees_with_its_oracle() {
    let one = std::env::var("ANNALS_SEED").ok();
    let one = one.map(|seed| seed.parse::<u64>().unwrap());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    // By how the log was wrong: histories, and those that were found to be bad.
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for seed in seeds {
        let (history, last, wrong) = run(seed);
        let said = linear(&history, last.iter().copied());
        let is = linearizable(&history, &last);
        assert_eq!(
            said.is_ok(),
            is,
            "ANNALS_SEED={seed}, {wrong:?}: {said:?}\n{}",
            told_of(&history, &last)
        );
        assert!(is || wrong != Wrong::No, "ANNALS_SEED={seed}");
        let (all, bad) = found.entry(format!("{wrong:?}")).or_default();
        *all += 1;
        *bad += u64::from(!is);
    }
    println!("histories and bad ones: {found:?}");
    for (wrong, (_, bad)) in &found {
        assert!(
            one.is_some() || wrong == "No" || *bad > 100,
            "{wrong}: {bad}"
        );
    }
}

fn seen(values: &[Value]) -> Vec<Seen> {
    let places = values.iter().zip(0..);
    places
        .map(|(value, number)| crate::check::testing::seen(*value, number, 999))
        .collect()
}

fn told(number: u64) -> Fate {
    crate::check::testing::told(number)
}

#[test]
fn two_winners_of_one_end_are_shown() {
    let recorder = Recorder::new();
    let (one, two) = (Value::new(1, 1), Value::new(2, 1));
    for (client, value, place) in [(1, one, 0), (2, two, 1)] {
        let offering = Offering {
            values: &[value],
            condition: Some(Condition::EndAt(None)),
            ..Offering::default()
        };
        recorder
            .append(Client(client), offering)
            .fates(Done::Ok, [told(place)]);
    }
    let broken = linear(&recorder.history(), seen(&[one, two])).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "a record was stored behind one that its condition rules out\n  \
         [3 .. 4] 2.1 was offered if the end is nothing"
    );
}

#[test]
fn a_refusal_needs_a_moment_at_which_its_condition_does_not_hold() {
    let key = KeyNo::new(1).unwrap();
    let (one, two) = (Value::new(1, 1).keyed(1), Value::new(2, 1).keyed(1));
    for (wins, good) in [(true, true), (false, false)] {
        let recorder = Recorder::new();
        let condition = Some(Condition::KeyAt(key, None));
        let offer = |value: &Value| {
            let offering = Offering {
                values: std::slice::from_ref(value),
                condition,
                ..Offering::default()
            };
            recorder.append(Client(value.writer), offering)
        };
        let (first, second) = (offer(&one), offer(&two));
        let mut last = Vec::new();
        if wins {
            first.fates(Done::Ok, [told(0)]);
            last.push(one);
        } else {
            first.fates(Done::Refused, [Fate::Failed]);
        }
        second.fates(Done::Refused, [Fate::Failed]);
        let found = linear(&recorder.history(), seen(&last));
        assert_eq!(found.is_ok(), good, "{found:?}");
        if let Ok(counts) = found {
            assert_eq!(counts.of(Evidence::Refused), 1);
            assert_eq!(counts.of(Evidence::Conditional), 1);
        }
    }
}

#[test]
fn an_end_that_goes_back_is_shown() {
    let recorder = Recorder::new();
    let values = [Value::new(1, 1), Value::new(1, 2)];
    for (value, place) in values.iter().zip(0..) {
        let call = recorder.append(Client(1), std::slice::from_ref(value));
        call.fates(Done::Ok, [told(place)]);
    }
    recorder
        .ask_end(Client(2))
        .answered([(PartitionId::ONLY, Some(at(0)))]);
    let broken = linear(&recorder.history(), seen(&values)).unwrap_err();
    let ticks: Vec<_> = broken.evidence.iter().map(|w| (w.start, w.end)).collect();
    assert_eq!(ticks, [(5, 6), (3, 4)], "{broken}");
}
