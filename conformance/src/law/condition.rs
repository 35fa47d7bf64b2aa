//! *Condition*: appends that depend on what was stored before are judged one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{Batching, Dedupe};
use annals_core::driver::{AppendOptions, Expect};
use annals_core::{
    AppendError, Batch, Cursor, Effect, ErrorKind, Key, Need, Outcome, PartitionId, Position,
    Record, Stored, Until,
};

use super::{Law, Shape};
use crate::check;
use crate::check::Evidence;
use crate::harness::{Call, Disturb, Fault, Want};
use crate::history::{Client, Condition, Offering, Purpose, Recorder, Seen, Value};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, readings, sights};

const GROUP: &str = "condition";
const CLIENTS: u32 = 8;
/// What each client tries.
const TRIES: u64 = 24;
/// Few, so that they meet.
const KEYS: u32 = 3;
/// More than any page holds.
const MANY: usize = 1_030;

pub(crate) fn law() -> Law {
    Law::new(
        "condition",
        "appends under a condition, ends and refusals are linearizable; a refusal has no effect, and the same ids once more get the first places",
        &[Shape::Log],
    )
    .claimed_by(|has| has.append.conditional.is(&true))
    .case("each holds, or is refused with no effect", each)
    .case("of keys of every kind", kinds)
    .case("the same ids once more get the first places", repeated)
    .case("eight clients in one order", |trial| racing(trial, false))
    .fault("eight clients in one order though answers are lost", |trial| {
        racing(trial, true)
    })
    .fault("as before after a restart", |trial| {
        again(trial, Disturb::Restart)
    })
    .fault("as before after a kill", |trial| again(trial, Disturb::Kill))
    .refusal("a condition is refused with no effect", refused)
}

fn key_at(key: &Key, last: Option<Position>) -> Expect {
    Expect::KeyAt {
        key: key.clone(),
        last,
    }
}

/// One writer that knows what must come of its appends, since nobody else writes.
struct Alone {
    stage: Stage,
    other: Stage,
    number: usize,
    /// What is stored, with its key.
    stored: Vec<String>,
    refused: Vec<String>,
    turns: usize,
}

impl Alone {
    async fn new(trial: &Trial) -> Judged<Self> {
        let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
        let other = trial.on(&stage.name).await?;
        Ok(Self {
            stage,
            other,
            number: 0,
            stored: Vec::new(),
            refused: Vec::new(),
            turns: 0,
        })
    }

    /// New records, of these keys in turn.
    fn batch(&mut self, keys: &[&Key], records: usize) -> Batch {
        let batch = (0..records).map(|at| {
            let record = Record::new(workload::value(1, self.number + at));
            match keys.get(at % keys.len().max(1)) {
                Some(key) => record.key((*key).clone()),
                None => record,
            }
        });
        let batch = batch.collect();
        self.number += records;
        batch
    }

    /// By turns through core and below it, by one client and by another one.
    async fn tell(&mut self, batch: &Batch, expect: &Expect) -> Judged<Vec<Outcome>> {
        self.turns += 1;
        let by = if self.turns.is_multiple_of(3) {
            &self.other
        } else {
            &self.stage
        };
        // A condition holds beside whatever else is asked for.
        let has = &by.capabilities().append;
        let atomic = self.turns % 5 > 2
            && batch.len() > 1
            && matches!(has.batch.known(), Some(Batching::Atomic));
        if self.turns.is_multiple_of(2) {
            let options = AppendOptions {
                expect: Some(expect.clone()),
                atomic,
                epoch: (self.turns % 7 > 4 && has.fenced.is(&true)).then_some(1),
                ..AppendOptions::default()
            };
            return by.attempt(batch, &options).await;
        }
        let append = by.topic.append(batch.clone());
        let append = if atomic { append.atomic() } else { append };
        let append = match expect {
            Expect::End(end) => append.if_end_at(end),
            Expect::KeyAt { key, last } => append.if_key_at(key.clone(), last.as_ref()),
        };
        match append.await {
            Ok(appended) => {
                let stored = appended.records().iter().copied();
                Ok(stored.map(Outcome::Stored).collect())
            }
            Err(error) => Ok(error.outcomes().to_vec()),
        }
    }

    /// It must be stored; where.
    async fn holds(&mut self, batch: Batch, expect: Expect) -> Judged<Vec<Stored>> {
        let outcomes = self.tell(&batch, &expect).await?;
        let stored: Vec<Stored> = outcomes
            .iter()
            .filter_map(|o| o.stored().copied())
            .collect();
        ensure(stored.len() == batch.len(), || {
            format!(
                "{:?} was appended if {expect:?}, which holds, and the answer is {outcomes:?}",
                workload::offered(&batch)
            )
        })?;
        self.stored.extend(workload::offered(&batch));
        Ok(stored)
    }

    /// It must be refused.
    async fn fails(&mut self, batch: Batch, expect: Expect) -> Judged<()> {
        let outcomes = self.tell(&batch, &expect).await?;
        let conflict = |outcome: &Outcome| match outcome {
            Outcome::Rejected(error) => {
                error.kind() == ErrorKind::Conflict && error.effect() == Effect::None
            }
            _ => false,
        };
        ensure(outcomes.iter().all(conflict), || {
            format!(
                "{:?} was appended if {expect:?}, which does not hold, and the answer is {outcomes:?}, not Conflict for each",
                workload::offered(&batch)
            )
        })?;
        self.refused.extend(workload::offered(&batch));
        Ok(())
    }

    async fn end(&self) -> Judged<Cursor> {
        let end = self.other.topic.end().await;
        end.during("asking for the end")
    }

    /// All that is said to be stored is there, in this order, and nothing that was refused.
    async fn look(&self) -> Judged {
        let read = self
            .other
            .read(readings::first(&self.other), Until::End)
            .await?;
        let read = workload::texts(&read.records);
        if let Some(value) = self.refused.iter().find(|value| read.contains(value)) {
            return Err(Stop::broken(format!(
                "{value:?} was refused for its condition, and is read"
            )));
        }
        let differs = read.iter().zip(&self.stored).find(|(a, b)| a != b);
        ensure(differs.is_none() && read.len() == self.stored.len(), || {
            format!(
                "{} records are read and {} were stored, in this order; the first that differs: {differs:?}",
                read.len(),
                self.stored.len()
            )
        })?;
        Ok(Counts::new()
            .of("appends whose condition held", self.stored.len(), 10)
            .of("appends that were refused", self.refused.len(), 10))
    }
}

fn place(stored: &[Stored]) -> Judged<Option<Position>> {
    let last = stored.last().and_then(|stored| stored.position);
    ensure(last.is_some(), || "a receipt names no place".into())?;
    Ok(last)
}

/// All that one key and the end may be asked, between appends of others.
async fn conditions(alone: &mut Alone, keys: &[Key], start: &Cursor) -> Judged<()> {
    for (turn, key) in keys.iter().enumerate() {
        let rival = &Key::from(format!("rival {turn}"));
        let size = 1 + turn % 3;
        // There is none.
        let batch = alone.batch(&[key], size);
        let first = place(&alone.holds(batch, key_at(key, None)).await?)?;
        let batch = alone.batch(&[key], 1);
        alone.fails(batch, key_at(key, None)).await?;
        // Others' appends are no concern of a key.
        let batch = alone.batch(&[rival], 1);
        let values = workload::offered(&batch);
        let told = alone.stage.topic.append(batch).await;
        let told = told.during("appending")?;
        alone.stored.extend(values);
        let of_rival = told.last().and_then(|stored| stored.position);
        let mut last = first;
        for round in 0..3 {
            let batch = alone.batch(&[key], 1 + (round + turn) % 3);
            let next = place(&alone.holds(batch, key_at(key, last)).await?)?;
            for stale in [last, None, first.filter(|first| Some(*first) != next)] {
                let batch = alone.batch(&[key], 1 + round);
                if stale.is_some() || round == 0 {
                    alone.fails(batch, key_at(key, stale)).await?;
                }
            }
            last = next;
        }
        // The place of another key's record.
        let batch = alone.batch(&[key], 1);
        alone.fails(batch, key_at(key, of_rival)).await?;
        // What is appended need not be of the key that is asked for.
        let batch = alone.batch(&[], 1);
        alone.holds(batch, key_at(key, last)).await?;
        let batch = alone.batch(&[rival, key], 2);
        let last = place(&alone.holds(batch, key_at(key, last)).await?)?;
        // The end.
        let end = alone.end().await?;
        let batch = alone.batch(&[key], size);
        alone.holds(batch, Expect::End(end.clone())).await?;
        for stale in [&end, start] {
            let batch = alone.batch(&[key], size);
            alone.fails(batch, Expect::End(stale.clone())).await?;
        }
        let batch = alone.batch(&[key], 1);
        alone.fails(batch, key_at(key, last)).await?;
    }
    Ok(())
}

/// Appends one record if the topic is empty, which it is once.
async fn begin(alone: &mut Alone) -> Judged<Cursor> {
    let start = alone.end().await?;
    let batch = alone.batch(&[], 2);
    alone.holds(batch, Expect::End(start.clone())).await?;
    let batch = alone.batch(&[], 1);
    alone.fails(batch, Expect::End(start.clone())).await?;
    Ok(start)
}

async fn each(trial: Trial) -> Judged {
    let mut alone = Alone::new(&trial).await?;
    let start = begin(&mut alone).await?;
    conditions(&mut alone, &sights::keys(5), &start).await?;
    // Of a key whose last record lies many records back.
    let key = Key::from("far");
    let batch = alone.batch(&[&key], 2);
    let last = place(&alone.holds(batch, key_at(&key, None)).await?)?;
    let batch = alone.batch(&[&Key::from("near")], MANY);
    alone.stored.extend(workload::offered(&batch));
    let told = alone.stage.topic.append(batch).await;
    drop(told.during("appending many")?);
    let batch = alone.batch(&[&key], 1);
    alone.fails(batch, key_at(&key, None)).await?;
    let batch = alone.batch(&[&key], 1);
    alone.holds(batch, key_at(&key, last)).await?;
    let batch = alone.batch(&[&key], 1);
    alone.fails(batch, key_at(&key, last)).await?;
    alone.look().await
}

async fn kinds(trial: Trial) -> Judged {
    let mut alone = Alone::new(&trial).await?;
    let start = begin(&mut alone).await?;
    let keys: Vec<Key> = vec![
        Key::from("a"),
        Key::from("A"),
        Key::from("a\0"),
        Key::from(&b"\xff\x00\x01"[..]),
        Key::from(&b"\xff\x00\x02"[..]),
        Key::from("x".repeat(200)),
        Key::from(format!("{}y", "x".repeat(199))),
        Key::from(""),
    ];
    let mut taken = Vec::new();
    for key in keys {
        let record = Record::new(workload::value(7, taken.len())).key(key.clone());
        match alone.stage.topic.append(record).await {
            Ok(_) => {
                alone.stored.push(workload::value(7, taken.len()));
                taken.push(key);
            }
            // What it cannot carry as it is it refuses.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error).during("appending"),
        }
    }
    // They have a record by now.
    let mut last: BTreeMap<usize, Option<Position>> = BTreeMap::new();
    for round in 0..3 {
        for (which, key) in taken.iter().enumerate() {
            if round == 0 {
                let batch = alone.batch(&[key], 1);
                alone.fails(batch, key_at(key, None)).await?;
                let batch = alone.batch(&[key], 1);
                alone.stored.extend(workload::offered(&batch));
                let told = alone.stage.topic.append(batch).await;
                let told = told.during("appending")?;
                last.insert(which, told.last().and_then(|stored| stored.position));
                continue;
            }
            let at = last.get(&which).copied().flatten();
            let batch = alone.batch(&[key], 1);
            let next = place(&alone.holds(batch, key_at(key, at)).await?)?;
            let batch = alone.batch(&[key], 1);
            alone.fails(batch, key_at(key, at)).await?;
            last.insert(which, next);
        }
    }
    let batch = alone.batch(&[], 1);
    alone.fails(batch, Expect::End(start)).await?;
    let counts = alone.look().await?;
    Ok(counts.of("keys of other kinds", taken.len(), 4))
}

async fn repeated(trial: Trial) -> Judged {
    let mut alone = Alone::new(&trial).await?;
    let dedupe = alone.stage.capabilities().append.dedupe;
    if matches!(dedupe.known(), None | Some(Dedupe::None)) {
        return Err(Stop::NotExercised("ids are not recognised".into()));
    }
    let key = Key::from("k");
    let rival = Key::from("rival");
    let mut last = None;
    let mut repeats = 0;
    for round in 0..6 {
        let size = 1 + round % 3;
        let values: Vec<_> = (0..size)
            .map(|at| workload::value(5, round * 10 + at))
            .collect();
        let make = || -> Batch {
            let record = |value: &String| {
                Record::new(value.clone())
                    .key(key.clone())
                    .id(value.clone())
            };
            values.iter().map(record).collect()
        };
        let expect = if round % 2 == 0 {
            key_at(&key, last)
        } else {
            Expect::End(alone.end().await?)
        };
        let first = alone.holds(make(), expect.clone()).await?;
        last = place(&first)?;
        for between in 0..3 {
            // Somebody else goes on, and then the key does.
            if between > 0 {
                let batch = alone.batch(&[if between == 1 { &rival } else { &key }], 1);
                alone.stored.extend(workload::offered(&batch));
                let told = alone.other.topic.append(batch).await;
                let told = told.during("appending")?;
                if between == 2 {
                    last = told.last().and_then(|stored| stored.position);
                }
            }
            let outcomes = alone.tell(&make(), &expect).await?;
            let again: Vec<_> = outcomes
                .iter()
                .map(|outcome| outcome.stored().and_then(|stored| stored.position))
                .collect();
            let places: Vec<_> = first.iter().map(|stored| stored.position).collect();
            ensure(again == places, || {
                format!(
                    "{values:?} was appended once more with the same ids, if {expect:?}: the first places are {places:?}, the answer is {outcomes:?}"
                )
            })?;
            repeats += 1;
        }
        let batch = alone.batch(&[&key], 1);
        alone.fails(batch, expect).await?;
        let batch = alone.batch(&[&key], 1);
        alone.fails(batch, key_at(&key, None)).await?;
    }
    let counts = alone.look().await?;
    Ok(counts.of("repeats", repeats, 12))
}

async fn again(trial: Trial, what: Disturb) -> Judged {
    let mut alone = Alone::new(&trial).await?;
    let start = begin(&mut alone).await?;
    let keys = sights::keys(4);
    let mut last: Vec<Option<Position>> = vec![None; keys.len()];
    for _ in 0..3 {
        for (key, last) in keys.iter().zip(&mut last) {
            let batch = alone.batch(&[key], 2);
            *last = place(&alone.holds(batch, key_at(key, *last)).await?)?;
        }
        let end = alone.end().await?;
        trial.disturb(&alone.stage.name, what.clone()).await?;
        alone.stage = trial.on(&alone.stage.name).await?;
        alone.other = trial.on(&alone.stage.name).await?;
        for (key, last) in keys.iter().zip(&last) {
            let batch = alone.batch(&[key], 1);
            alone.fails(batch, key_at(key, None)).await?;
            let batch = alone.batch(&[key], 1);
            alone.fails(batch, Expect::End(start.clone())).await?;
            ensure(last.is_some(), || "a receipt names no place".into())?;
        }
        let batch = alone.batch(&[], 1);
        alone.holds(batch, Expect::End(end.clone())).await?;
        let batch = alone.batch(&[], 1);
        alone.fails(batch, Expect::End(end)).await?;
    }
    alone.look().await
}

/// What one client of the race knows.
struct Racer {
    client: Client,
    stage: Stage,
    recorder: Recorder,
    rng: fastrand::Rng,
    counter: u64,
    partition: PartitionId,
}

impl Racer {
    /// The last record of a key as a reading has it now.
    async fn last_of(&self, key: &str) -> Judged<Option<Position>> {
        let read = self
            .stage
            .read(readings::first(&self.stage), Until::End)
            .await?;
        let mine = read.records.iter().rev();
        let mut mine = mine.filter(|record| record.key() == Some(key.as_bytes()));
        Ok(mine.next().and_then(annals_core::Recorded::position))
    }

    async fn end(&self) -> Judged<(Cursor, Option<Position>)> {
        let asking = self.recorder.ask_end(self.client);
        let end = self.stage.topic.end().await.during("asking for the end")?;
        let place = end.frontier(self.partition);
        let place = place.and_then(|at| at.position().copied());
        asking.answered([(self.partition, place)]);
        Ok((end, place))
    }

    /// Reads, decides and appends, with a moment in between.
    async fn once(&mut self) -> Judged<()> {
        self.counter += 10;
        let key = 1 + self.rng.u32(0..KEYS);
        let values: Vec<Value> = (0..=self.rng.u64(0..2))
            .map(|at| Value::new(self.client.0, self.counter + at).keyed(key))
            .collect();
        let batch: Batch = values.iter().map(Value::record).collect();
        let text = format!("k{key}");
        let (condition, append) = match self.rng.u32(0..6) {
            0 => (None, self.stage.topic.append(batch)),
            1 | 2 => {
                let (end, place) = self.end().await?;
                self.pause().await;
                let append = self.stage.topic.append(batch).if_end_at(&end);
                (Some(Condition::EndAt(place)), append)
            }
            _ => {
                let last = self.last_of(&text).await?;
                self.pause().await;
                let append = self.stage.topic.append(batch);
                let append = append.if_key_at(Key::from(text), last.as_ref());
                let key = crate::history::KeyNo::new(key);
                let condition = key.map(|key| Condition::KeyAt(key, last));
                (condition, append)
            }
        };
        let appending = self.recorder.append(
            self.client,
            Offering {
                values: &values,
                condition,
                epoch: None,
                atomic: false,
            },
        );
        let told: Result<_, AppendError> = append.await;
        appending.appended(&told);
        self.pause().await;
        Ok(())
    }

    async fn pause(&mut self) {
        match self.rng.u32(0..4) {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_micros(self.rng.u64(1..400))).await,
        }
    }
}

async fn racing(mut trial: Trial, faulty: bool) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let recorder = Recorder::new();
    let partitions = stage.partitions().await?;
    let partition = partitions.first().copied().unwrap_or(PartitionId::ONLY);
    let before = trial.fired();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut racer = Racer {
            client: Client(client),
            stage: trial.on(&stage.name).await?,
            recorder: recorder.clone(),
            rng: trial.rng.fork(),
            counter: 0,
            partition,
        };
        let harness = Arc::clone(trial.harness());
        let topic = stage.name.clone();
        tasks.spawn(async move {
            for turn in 0..TRIES {
                if faulty && turn % 4 == u64::from(client) % 4 {
                    let fault = match racer.rng.u32(0..4) {
                        0 => Fault::Lose { done: false },
                        1 => Fault::Disconnect,
                        _ => Fault::Lose { done: true },
                    };
                    let fault = Disturb::Fault(Call::Append, fault);
                    harness.disturb(&topic, fault).await?;
                }
                racer.once().await?;
            }
            Ok::<(), Stop>(())
        });
    }
    while let Some(told) = tasks.join_next().await {
        told.map_err(|error| Stop::broken(error.to_string()))??;
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    let (reading, opening) = recorder.open(Client(CLIENTS), Purpose::Replay);
    opening.ended(&annals_core::Result::Ok(()));
    let last = stage.read(readings::first(&stage), Until::End).await?;
    for record in &last.records {
        recorder.fetch(reading).record(record, 0);
    }
    let history = recorder.take();
    ensure(history.strange().is_empty(), || {
        format!(
            "a record is there that nobody wrote: {:?}",
            history.strange()
        )
    })?;
    let seen: Vec<Seen> = history
        .seen(crate::history::Sight::Reading(reading))
        .collect();
    let counts =
        check::linear(&history, seen).map_err(|broken| Stop::broken(format!("{broken}")))?;
    let of = |evidence| usize::try_from(counts.of(evidence)).unwrap_or(usize::MAX);
    Ok(Counts::new()
        .of("conditional appends stored", of(Evidence::Conditional), 20)
        .of("conditional appends refused", of(Evidence::Refused), 10)
        .of("ends", of(Evidence::Ends), 20)
        .of("failures", fired, if faulty { 20 } else { 0 }))
}

async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let open = stage.bus.topic(stage.name.as_str());
    let told = open.needs([Need::ConditionalAppend]).await;
    readings::refused("a need for conditional appends", told.map(drop))?;
    let key = Key::from("k0");
    let end = readings::forged(&stage)?;
    let somewhere = Position::new(PartitionId::ONLY, 0);
    let all = [
        key_at(&key, None),
        key_at(&key, Some(somewhere)),
        Expect::End(end),
    ];
    for (number, expect) in all.iter().enumerate() {
        let batch = workload::batch(1, number * 2, 1, 1);
        let append = stage.topic.append(batch);
        let append = match expect {
            Expect::End(end) => append.if_end_at(end),
            Expect::KeyAt { key, last } => append.if_key_at(key.clone(), last.as_ref()),
        };
        let told = append.await.map(drop).map_err(Into::into);
        readings::refused("an append under a condition", told)?;
        let batch = workload::batch(1, number * 2 + 1, 1, 1);
        let options = AppendOptions {
            expect: Some(expect.clone()),
            ..AppendOptions::default()
        };
        let told = stage.backend.append(&stage.name, &batch, &options).await;
        readings::refused("an attempt under a condition", told.map(drop))?;
    }
    for sight in sights::all(&trial, &stage, GROUP, &[key], 0).await? {
        ensure(sight.records.is_empty(), || {
            format!("{}: {:?} was refused and came", sight.by, sight.texts())
        })?;
    }
    Ok(Counts::new().of("refusals", 2 * all.len() + 1, 7))
}
