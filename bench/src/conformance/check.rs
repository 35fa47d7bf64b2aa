//! The checkers on a history of a million operations.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use annals_conformance::check::{self, Broken, Counts};
use annals_conformance::history::{
    Appending, Client, Condition, Done, Fate, History, Offering, Purpose, Reading, Recorder, Sight,
    Value, Verdict,
};
use annals_core::{PartitionId, Position};
use anyhow::{Result, anyhow};

use crate::allocations;
use crate::report::Report;
use crate::rounds::{Effort, median};

const OPERATIONS: usize = 1_000_000;
/// Appends that are under way at a time.
const CLIENTS: usize = 8;
const KEYS: u32 = 1_000;
const GROUP: u32 = 0;
/// Records a fetch of the final replay.
const PAGE: usize = 100;

pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    if !report.wants(&["check_million_s", "check_million_mib"]) {
        return Ok(());
    }
    allocations::start();
    let run = Run::record();
    let checked = run.check();
    let counted = allocations::stop();
    let counts = checked.map_err(|broken| anyhow!("the history is good, yet {broken}"))?;
    let mut seconds = Vec::new();
    for _ in 0..effort.repeats.min(5) {
        let since = Instant::now();
        run.check().map_err(|broken| anyhow!("{broken}"))?;
        seconds.push(since.elapsed().as_secs_f64());
    }
    let operations = run.history.calls().len();
    let unit = format!("s, all checkers, {operations} operations: {counts}");
    report.count("check_million_s", median(&seconds), unit);
    report.count(
        "check_million_mib",
        counted.peak as f64 / f64::from(1 << 20),
        "MiB at most at once, the history and the checkers together",
    );
    Ok(())
}

/// A run against a log that is right, and what its readings are.
struct Run {
    history: History,
    last: Reading,
    follower: Reading,
}

/// One log and its clients, call by call.
struct World {
    recorder: Recorder,
    follower: Reading,
    member: Reading,
    log: Vec<(Value, Position)>,
    keys: BTreeMap<u32, Position>,
    open: VecDeque<(Appending, Done, Vec<Fate>)>,
    calls: usize,
}

fn opened(recorder: &Recorder, client: u32, purpose: Purpose) -> Reading {
    let (reading, opening) = recorder.open(Client(client), purpose);
    opening.ended(&annals_core::Result::Ok(()));
    reading
}

impl World {
    /// Appends; the answer comes when so many others have begun. Of ten appends three depend on the
    /// end and three on a key, one of them on what is no longer so; one in a hundred is unknown.
    fn append(&mut self, number: u64) {
        let key = 1 + u32::try_from(number * 7 % u64::from(KEYS)).unwrap_or(0);
        let client = u32::try_from(number % CLIENTS as u64).unwrap_or(0);
        let value = Value::new(client, 2 * number).keyed(key);
        let values = [value, Value::new(client, 2 * number + 1).keyed(key)];
        let (condition, holds) = match number % 10 {
            0 | 1 => (Some(Condition::EndAt(self.end())), true),
            2 => {
                let before = self.log.len().checked_sub(2);
                let before = before.and_then(|place| self.log.get(place));
                let stale = before.map(|(_, position)| *position);
                (Some(Condition::EndAt(stale)), stale == self.end())
            }
            3..6 => {
                let at = self.keys.get(&key).copied();
                (value.key.map(|key| Condition::KeyAt(key, at)), true)
            }
            _ => (None, true),
        };
        let atomic = number % 10 == 9;
        let offering = Offering {
            values: if atomic { &values } else { &values[..1] },
            condition,
            epoch: Some(number / 50_000),
            atomic,
        };
        let many = offering.values.len();
        let call = self.recorder.append(Client(client), offering);
        let unknown = number % 100 == 57;
        let mut fates = Vec::new();
        if holds {
            for value in values.into_iter().take(many) {
                let at = Position::new(PartitionId::ONLY, 2 * self.log.len() as u64 + 1);
                self.log.push((value, at));
                self.keys.insert(key, at);
                let (at, duplicate) = (Some(at), false);
                fates.push(if unknown {
                    Fate::Unknown
                } else {
                    Fate::Stored { at, duplicate }
                });
            }
        }
        let done = match (holds, unknown) {
            (false, _) => Done::Refused,
            (true, true) => Done::Unknown,
            (true, false) => Done::Ok,
        };
        if !holds {
            fates = vec![Fate::Failed; many];
        }
        self.open.push_back((call, done, fates));
        self.calls += 1;
        if self.open.len() == CLIENTS {
            self.answer();
        }
    }

    fn end(&self) -> Option<Position> {
        self.log.last().map(|(_, position)| *position)
    }

    fn answer(&mut self) {
        if let Some((call, done, fates)) = self.open.pop_front() {
            call.fates(done, fates);
        }
    }

    /// The follower and the member are given what is new, one by one; the member settles it.
    fn read(&mut self, from: usize) {
        for (value, position) in self.log.get(from..).unwrap_or_default() {
            let one = [(*value, Some(*position))];
            self.recorder.fetch(self.follower).values(&one, None);
            self.recorder.fetch(self.member).values(&one, None);
            let settling = self.recorder.settle(self.member, *value, Verdict::Done);
            settling.ended(Done::Ok);
            self.calls += 3;
        }
    }
}

impl Run {
    fn record() -> Self {
        let recorder = Recorder::new();
        let mut world = World {
            follower: opened(&recorder, 100, Purpose::Follow),
            member: opened(&recorder, 101, Purpose::Member(GROUP)),
            recorder,
            log: Vec::new(),
            keys: BTreeMap::new(),
            open: VecDeque::new(),
            calls: 2,
        };
        let caught_up = world.recorder.fetch(world.follower);
        caught_up.signal(Some(annals_conformance::history::Signal::CaughtUp));
        for number in 0.. {
            if world.calls + world.log.len() / PAGE >= OPERATIONS {
                break;
            }
            let from = world.log.len();
            world.append(number);
            world.read(from);
            if number % 8 == 0 {
                let asking = world.recorder.ask_end(Client(102));
                asking.answered([(PartitionId::ONLY, world.end())]);
                world.calls += 1;
            }
        }
        while !world.open.is_empty() {
            world.answer();
        }
        let last = opened(&world.recorder, 103, Purpose::Replay);
        for page in world.log.chunks(PAGE) {
            let page: Vec<_> = page.iter().map(|(v, at)| (*v, Some(*at))).collect();
            world.recorder.fetch(last).values(&page, None);
        }
        Self {
            follower: world.follower,
            last,
            history: world.recorder.take(),
        }
    }

    /// Every checker, one after the other.
    fn check(&self) -> Result<Counts, Broken> {
        let history = &self.history;
        let offers = || history.offers();
        let last = || history.seen(Sight::Reading(self.last));
        let group = || history.seen(Sight::Group(GROUP));
        let steps = || history.steps(self.follower);
        let opened = history.opened(self.follower).map_or(0, |(start, _)| start);
        let mut counts = check::lost(offers(), last())?;
        counts.merge(&check::lost(offers(), group())?);
        let everybody = || history.seen(Sight::Everybody);
        counts.merge(&check::phantom(offers(), everybody(), history.strange())?);
        counts.merge(&check::rejected(offers(), everybody())?);
        counts.merge(&check::stable(everybody())?);
        counts.merge(&check::located(offers(), last())?);
        counts.merge(&check::key_order(last())?);
        counts.merge(&check::key_order(group())?);
        counts.merge(&check::follow(
            steps(),
            last(),
            history.owed(self.follower),
        )?);
        counts.merge(&check::seam(steps(), offers(), opened)?);
        counts.merge(&check::stored_twice(offers(), last(), &history.faults())?);
        let holds = history.holds(GROUP);
        counts.merge(&check::delivered_twice(&holds)?);
        counts.merge(&check::overlap(&holds)?);
        counts.merge(&check::atomic(
            offers(),
            [last().collect::<Vec<_>>(), group().collect()],
        )?);
        counts.merge(&check::fenced(&history.fenced_appends(last()))?);
        counts.merge(&check::linear(history, last())?);
        Ok(counts)
    }
}
