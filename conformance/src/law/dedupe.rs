//! *Dedupe*: a record whose id was stored within the window is not stored again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::{Batching, Dedupe};
use annals_core::driver::AppendOptions;
use annals_core::{
    Appended, Batch, ErrorKind, Key, Need, Outcome, Position, Record, Stored, Value,
};

use super::{ANY, Law};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::sights::{self, Sight};
use crate::workload::{self, readings};

const GROUP: &str = "dedupe";
/// Longer than any case takes.
const WINDOW: Duration = Duration::from_secs(600);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_secs(10);

pub(crate) fn law() -> Law {
    Law::new(
        "dedupe",
        "the same id once more within the window has one place and the same receipt",
        ANY,
    )
    .wanting(|| wanted(WINDOW))
    .claimed_by(|has| recognises(has.append.dedupe.known()))
    .case("an id once more", once_more)
    .case("ids that look alike, and none", alike)
    .case("as many as there may be", many)
    .case("until the window is over", window)
    .fault("what was refused is not remembered", refused_first)
    .fault("what was stored though its answer was lost", lost)
    .fault("after a restart", |trial| again(trial, Disturb::Restart))
    .fault("after a kill", |trial| again(trial, Disturb::Kill))
    .refusal("a need for it is refused, and two are seen", two_seen)
}

fn wanted(window: Duration) -> Want {
    Want {
        dedupe: Some(window),
        ..Want::default()
    }
}

fn recognises(dedupe: Option<&Dedupe>) -> bool {
    matches!(dedupe, Some(Dedupe::Window(_) | Dedupe::Forever))
}

async fn staged(trial: &Trial, window: Duration) -> Judged<Stage> {
    let want = Want {
        dedupe: Some(window),
        ..Want::groups(&[GROUP])?
    };
    let stage = trial.stage(&want).await?;
    let dedupe = stage.capabilities().append.dedupe;
    if recognises(dedupe.known()) {
        return Ok(stage);
    }
    Err(Stop::NotExercised("there is no such topic here".into()))
}

/// Where each id was first stored, and which values may be there.
#[derive(Default)]
struct Ids {
    first: BTreeMap<Vec<u8>, Option<Position>>,
    /// Values that must be seen once.
    once: BTreeSet<String>,
    /// Values that must not be seen: those of repeats.
    never: BTreeSet<String>,
    number: usize,
    repeats: usize,
    turns: usize,
}

impl Ids {
    /// A record of this id, with a value of its own.
    fn record(&mut self, id: &Key, key: usize) -> Record {
        self.number += 1;
        let record = Record::new(workload::value(1, self.number)).id(id.clone());
        if key == 0 {
            record
        } else {
            record.key(format!("k{key}"))
        }
    }

    /// Appends through core and below it, by turns.
    async fn append(&mut self, stage: &Stage, batch: Batch) -> Judged<Vec<Stored>> {
        self.turns += 1;
        if self.turns.is_multiple_of(2) {
            let append = stage.topic.append(batch);
            let whole = stage.capabilities().append.batch.is(&Batching::Atomic);
            // An id is recognised in a batch that is to be atomic too.
            let append = if whole && self.turns.is_multiple_of(4) {
                append.atomic()
            } else {
                append
            };
            let appended = append.await;
            return Ok(appended.during("appending")?.records().to_vec());
        }
        let outcomes = stage.attempt(&batch, &AppendOptions::default()).await?;
        outcomes
            .iter()
            .map(|outcome| {
                let stored = outcome.stored().copied();
                stored.ok_or_else(|| Stop::broken(format!("an attempt was answered {outcome:?}")))
            })
            .collect()
    }

    /// New or not: what comes of each record is judged by what was stored before.
    async fn offer(&mut self, stage: &Stage, records: Vec<Record>) -> Judged<()> {
        let ids: Vec<Vec<u8>> = records
            .iter()
            .map(|record| record.id_bytes().map_or_else(Vec::new, |id| id.to_vec()))
            .collect();
        let batch = Batch::new(records);
        let values = workload::offered(&batch);
        let stored = self.append(stage, batch).await?;
        ensure(stored.len() == ids.len(), || {
            format!("{} receipts for {} records", stored.len(), ids.len())
        })?;
        for ((id, value), stored) in ids.iter().zip(values).zip(stored) {
            let shown = || id.escape_ascii().to_string();
            let Some(first) = self.first.get(id) else {
                ensure(!stored.duplicate, || {
                    format!(
                        "the id {} is new, and its receipt says that it is not",
                        shown()
                    )
                })?;
                self.first.insert(id.clone(), stored.position);
                self.once.insert(value);
                continue;
            };
            self.repeats += 1;
            // Many services do not say that it was there, nor where.
            ensure(stored.position == *first, || {
                format!(
                    "the id {} was stored at {first:?}; once more its receipt is {stored:?}",
                    shown()
                )
            })?;
            self.never.insert(value);
        }
        Ok(())
    }

    /// Of what may be a repeat or not: what is said of it is so.
    fn said(&mut self, values: Vec<String>, stored: &[Stored]) {
        if stored.iter().all(|stored| stored.duplicate) {
            self.never.extend(values);
        } else if stored.iter().all(|stored| {
            let place = stored.position;
            place.is_some() && !self.first.values().any(|first| *first == place)
        }) {
            self.once.extend(values);
        }
    }

    fn is_so(&self, sights: &[Sight]) -> Judged<()> {
        for Sight { by, records } in sights {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for text in workload::texts(records) {
                *seen.entry(text).or_default() += 1;
            }
            let times = |value: &String| seen.get(value).copied().unwrap_or(0);
            if let Some(value) = self.never.iter().find(|value| times(value) > 0) {
                return Err(Stop::broken(format!(
                    "{by}: {value:?} came, whose id was stored before"
                )));
            }
            if let Some(value) = self.once.iter().find(|value| times(value) != 1) {
                return Err(Stop::broken(format!(
                    "{by}: {value:?}, the first of its id, came {} times",
                    times(value)
                )));
            }
        }
        Ok(())
    }

    async fn judged(self, trial: &Trial, stage: &Stage, keys: usize) -> Judged {
        self.is_so(&sights::all(trial, stage, GROUP, &sights::keys(keys), 0).await?)?;
        Ok(Counts::new()
            .of("ids", self.first.len(), 5)
            .of("repeats", self.repeats, 5))
    }
}

fn id(number: usize) -> Key {
    Key::from(format!("id-{number}"))
}

async fn once_more(trial: Trial) -> Judged {
    let stage = staged(&trial, WINDOW).await?;
    let other = trial.on(&stage.name).await?;
    let mut ids = Ids::default();
    // One by one, by the same client and by another one; under another key, or none.
    for number in 0..8 {
        for (turn, by) in [&stage, &other, &stage, &stage, &other]
            .into_iter()
            .enumerate()
        {
            let record = ids.record(&id(number), (number + turn) % 4);
            ids.offer(by, vec![record]).await?;
        }
    }
    // Twice in one batch, apart and side by side; with records between that are new.
    for number in 8..16 {
        let by = if number % 3 == 0 { &other } else { &stage };
        let mut records = vec![ids.record(&id(number), 0), ids.record(&id(number), 0)];
        records.push(ids.record(&id(100 + number), 1));
        records.push(ids.record(&id(number), 2));
        records.push(ids.record(&id(number - 8), 3));
        ids.offer(by, records).await?;
        let records = vec![ids.record(&id(100 + number), 0), ids.record(&id(number), 0)];
        ids.offer(by, records).await?;
    }
    ids.judged(&trial, &stage, 4).await
}

async fn alike(trial: Trial) -> Judged {
    let stage = staged(&trial, WINDOW).await?;
    let mut ids = Ids::default();
    let mut taken = 0;
    let kinds: Vec<Key> = vec![
        Key::from("a"),
        Key::from("A"),
        Key::from("a "),
        Key::from("a\0"),
        Key::from("1"),
        Key::from("01"),
        Key::from(&b"\xff\x00\x01"[..]),
        Key::from(&b"\xff\x00\x02"[..]),
        Key::from("x".repeat(64)),
        Key::from(format!("{}y", "x".repeat(63))),
        Key::from(format!("y{}", "x".repeat(63))),
        Key::from("ид"),
        Key::from(""),
        Key::from("x".repeat(300)),
        Key::from(format!("{}y", "x".repeat(299))),
    ];
    for kind in &kinds {
        // Some services take only text, or short ones.
        let record = ids.record(kind, 1);
        let value = workload::offered(&Batch::from(record.clone()));
        match stage.topic.append(record).await {
            Ok(appended) => {
                let receipt = appended.last().copied();
                let stored = receipt.ok_or_else(|| Stop::broken("an append has no receipt"))?;
                ensure(!stored.duplicate, || {
                    format!("the id {kind:?} is new, and its receipt is {stored:?}")
                })?;
                ids.first.insert(kind.as_bytes().to_vec(), stored.position);
                ids.once.extend(value);
                taken += 1;
                let record = ids.record(kind, 2);
                ids.offer(&stage, vec![record]).await?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge) => {}
            Err(error) => return Err(error).during("appending"),
        }
    }
    // What has no id is never a repeat, equal as it may be; nor are equal payloads of two ids.
    let same = || Record::new("the same").key("k1");
    for (turn, record) in [same(), same(), same().id("one"), same().id("two"), same()]
        .into_iter()
        .enumerate()
    {
        let stored = ids.append(&stage, Batch::from(record)).await?;
        ensure(stored.iter().all(|stored| !stored.duplicate), || {
            format!("record {turn} of equal ones with no id, or one of its own, is {stored:?}")
        })?;
    }
    // What has no value has an id all the same.
    let nothing = || Record::new(Value::NULL).key("k1").id("nothing");
    match stage.topic.append(nothing()).await {
        Ok(first) => {
            let again = stage.topic.append(nothing()).await;
            let again = again.during("appending once more")?;
            let place = |appended: &Appended| appended.last().and_then(|stored| stored.position);
            ensure(place(&first) == place(&again), || {
                format!("the id of a record without a value has two places: {first:?}, {again:?}")
            })?;
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        Err(error) => return Err(error).during("appending"),
    }
    let sights = sights::all(&trial, &stage, GROUP, &sights::keys(4), 0).await?;
    ids.is_so(&sights)?;
    for sight in &sights {
        let texts = sight.texts();
        let times = texts.iter().filter(|text| *text == "the same").count();
        ensure(times == 5, || {
            format!(
                "{}: of 5 equal records with no id, or one of their own, {times} came",
                sight.by
            )
        })?;
    }
    Ok(Counts::new()
        .of("ids that look alike", taken, 4)
        .of("repeats", ids.repeats, 4))
}

async fn many(trial: Trial) -> Judged {
    let stage = staged(&trial, WINDOW).await?;
    let mut ids = Ids::default();
    let many = sights::many(&stage);
    for _ in 0..2 {
        for from in (0..many).step_by(10) {
            let records = (from..(from + 10).min(many))
                .map(|number| ids.record(&id(number), 0))
                .collect();
            ids.offer(&stage, records).await?;
        }
    }
    ids.judged(&trial, &stage, 1).await
}

/// A part of the window passes at a time: within it an id is recognised for certain, by this clock;
/// behind it whatever is said is so.
async fn window(trial: Trial) -> Judged {
    let stage = staged(&trial, SHORT).await?;
    let window = match stage.capabilities().append.dedupe.known() {
        Some(Dedupe::Window(window)) => *window,
        _ => return Err(Stop::NotExercised("the window never ends".into())),
    };
    let clock = trial.clock();
    let mut within = 0;
    let mut ids = Ids::default();
    for number in 0..3 {
        let record = ids.record(&id(number), 1);
        let since = clock.elapsed();
        ids.offer(&stage, vec![record]).await?;
        for _ in 0..2 {
            trial
                .disturb(&stage.name, Disturb::Pass(window * 2 / 5))
                .await?;
            let record = ids.record(&id(number), 1);
            let value = workload::offered(&Batch::from(record.clone()));
            let stored = ids.append(&stage, Batch::from(record)).await?;
            if clock.elapsed().saturating_sub(since) < window {
                within += 1;
                ids.never.extend(value);
            } else {
                ids.said(value, &stored);
            }
        }
        // It is over now: the id may be another record's.
        trial.disturb(&stage.name, Disturb::Pass(window)).await?;
        let record = ids.record(&id(number), 1);
        let value = workload::offered(&Batch::from(record.clone()));
        let stored = ids.append(&stage, Batch::from(record)).await?;
        ids.said(value, &stored);
    }
    ids.is_so(&sights::all(&trial, &stage, GROUP, &sights::keys(4), 0).await?)?;
    Ok(Counts::new().of("repeats within the window", within, 3))
}

async fn refused_first(trial: Trial) -> Judged {
    let stage = staged(&trial, WINDOW).await?;
    let before = trial.fired();
    let mut ids = Ids::default();
    let mut refused = 0;
    for number in 0..6 {
        for fault in [Fault::Refuse(vec![0, 1, 2]), Fault::Lose { done: false }] {
            trial
                .disturb(&stage.name, Disturb::Fault(Call::Append, fault.clone()))
                .await?;
            let ids_of = [10 * number, 10 * number + 1].map(id);
            let records: Vec<Record> = ids_of.iter().map(|id| ids.record(id, 0)).collect();
            let batch = Batch::new(records);
            let values = workload::offered(&batch);
            let told = stage
                .backend
                .append(&stage.name, &batch, &AppendOptions::default())
                .await;
            let outcomes =
                told.map_or_else(|_| Vec::new(), annals_core::AppendReport::into_outcomes);
            let no =
                |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_) | Outcome::NotAttempted);
            if outcomes.iter().all(no) {
                // None of them was stored: the next ones are the first.
                refused += 1;
                ids.never.extend(values);
                let records = ids_of.iter().map(|id| ids.record(id, 0)).collect();
                ids.offer(&stage, records).await?;
                let records = ids_of.iter().map(|id| ids.record(id, 0)).collect();
                ids.offer(&stage, records).await?;
            }
        }
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    let counts = ids.judged(&trial, &stage, 1).await?;
    Ok(counts
        .of("batches refused", refused, 4)
        .of("failures", fired, 8))
}

/// Whether it was stored or not nobody knows: once more it has one place.
async fn lost(trial: Trial) -> Judged {
    let stage = staged(&trial, WINDOW).await?;
    let other = trial.on(&stage.name).await?;
    let before = trial.fired();
    let mut ids = Ids::default();
    let mut unknown = 0;
    for number in 0..10 {
        let fault = Fault::Lose {
            done: number % 3 != 0,
        };
        trial
            .disturb(&stage.name, Disturb::Fault(Call::Append, fault))
            .await?;
        // The same record again, its value too.
        let record = ids.record(&id(number), 1);
        let value = workload::offered(&Batch::from(record.clone()));
        let options = AppendOptions::default();
        let first = Batch::from(record.clone());
        let told = stage.backend.append(&stage.name, &first, &options).await;
        let doubtful = |outcome: &Outcome| matches!(outcome, Outcome::Unknown(_));
        unknown += usize::from(told.is_ok_and(|told| told.outcomes().iter().any(doubtful)));
        let mut places = Vec::new();
        for by in [&stage, &other, &stage] {
            let batch = Batch::from(record.clone());
            places.push(
                ids.append(by, batch)
                    .await?
                    .first()
                    .and_then(|s| s.position),
            );
        }
        ensure(
            places.windows(2).all(|pair| pair.first() == pair.last()),
            || format!("one id has several places: {places:?}"),
        )?;
        ids.once.extend(value);
        ids.repeats += 2;
        // Through core, which tries again by itself.
        let fault = Fault::Lose { done: true };
        trial
            .disturb(&stage.name, Disturb::Fault(Call::Append, fault))
            .await?;
        let record = ids.record(&id(100 + number), 2);
        ids.once
            .extend(workload::offered(&Batch::from(record.clone())));
        let told = stage.topic.append(record).await;
        drop(told.during("appending though an answer is lost")?);
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    ids.is_so(&sights::all(&trial, &stage, GROUP, &sights::keys(4), 0).await?)?;
    Ok(Counts::new()
        .of("records of which nobody knew", unknown, 6)
        .of("repeats", ids.repeats, 12)
        .of("failures", fired, 12))
}

async fn again(trial: Trial, what: Disturb) -> Judged {
    let mut stage = staged(&trial, WINDOW).await?;
    let mut ids = Ids::default();
    for round in 0..3 {
        for number in 0..4 {
            let records = vec![
                ids.record(&id(round * 10 + number), 1),
                ids.record(&id(1_000 + round * 10 + number), 0),
            ];
            ids.offer(&stage, records).await?;
        }
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
        for earlier in 0..=round {
            for number in 0..4 {
                let records = vec![
                    ids.record(&id(earlier * 10 + number), 2),
                    ids.record(&id(1_000 + earlier * 10 + number), 0),
                ];
                ids.offer(&stage, records).await?;
            }
        }
    }
    ids.judged(&trial, &stage, 4).await
}

async fn two_seen(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let open = stage.bus.topic(stage.name.as_str());
    let told = open.needs([Need::Dedupe(Duration::from_millis(1))]).await;
    readings::refused("a need for recognised ids", told.map(drop))?;
    let mut ids = Ids::default();
    let mut values = Vec::new();
    for number in 0..5 {
        for by in [&stage, &other, &stage] {
            let record = ids.record(&id(number), 0);
            values.extend(workload::offered(&Batch::from(record.clone())));
            let stored = ids.append(by, Batch::from(record)).await?;
            ensure(stored.iter().all(|stored| !stored.duplicate), || {
                format!("no id is said to be recognised, and a receipt is {stored:?}")
            })?;
        }
    }
    for sight in sights::all(&trial, &stage, GROUP, &sights::keys(1), 0).await? {
        let seen: BTreeSet<String> = sight.texts().into_iter().collect();
        let gone = values.iter().find(|value| !seen.contains(*value));
        ensure(gone.is_none(), || {
            format!(
                "{}: {gone:?} did not come, and no id is said to be recognised",
                sight.by
            )
        })?;
    }
    Ok(Counts::new()
        .of("refusals", 1, 1)
        .of("records of repeated ids", values.len(), 15))
}
