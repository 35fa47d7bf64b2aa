//! *Outcome per record*: what a writer is told of each record is so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::driver::AppendOptions;
use annals_core::{AppendReport, Batch, Effect, Error, Outcome, Record};

use super::{ANY, Law};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::sights::{self, Sight};

const GROUP: &str = "outcomes";
/// Each record of a request has a key of its own.
const KEYS: usize = 24;
/// Records of a request: within any service's limit.
const REQUEST: usize = 8;
/// More than any request holds.
const MANY: usize = 1_030;
/// Larger records than this are not made.
const LARGE: u64 = 2 << 20;

pub(crate) fn law() -> Law {
    Law::new(
        "outcome_per_record",
        "a record that is said to be stored is read, one that is said not to be is never read, and without a fault all are stored",
        ANY,
    )
    .case("without a fault all are stored", all_stored)
    .case("what is too large is refused alone or with its batch", too_large)
    .fault("of requests of which some is refused", |trial| {
        failing(trial, Ways::Refusals, None)
    })
    .fault("of requests whose answers are lost or late", |trial| {
        failing(trial, Ways::Losses, None)
    })
    .fault("of what a restart found", |trial| {
        failing(trial, Ways::Refusals, Some(Disturb::Restart))
    })
    .fault("of what a kill found", |trial| {
        failing(trial, Ways::Losses, Some(Disturb::Kill))
    })
}

/// What was said of each record, by its value.
#[derive(Default)]
struct Told {
    /// Stored, of a request of which not all was, or while something failed.
    stored: BTreeSet<String>,
    /// Not stored, and what was said.
    never: BTreeMap<String, String>,
    unknown: usize,
    all: usize,
    /// Something failed meanwhile: whole requests count as well.
    failing: bool,
}

impl Told {
    fn outcomes(&mut self, values: &[String], outcomes: &[Outcome]) -> Judged<()> {
        ensure(values.len() == outcomes.len(), || {
            format!(
                "{} records were appended and {} outcomes came back",
                values.len(),
                outcomes.len()
            )
        })?;
        let whole = outcomes.iter().all(|outcome| outcome.stored().is_some());
        for (value, outcome) in values.iter().zip(outcomes) {
            self.all += 1;
            match outcome {
                Outcome::Stored(_) if whole && !self.failing => {}
                Outcome::Stored(_) => drop(self.stored.insert(value.clone())),
                Outcome::Unknown(_) => self.unknown += 1,
                Outcome::Rejected(error) => {
                    let said = format!("rejected: {error}");
                    self.never.insert(value.clone(), said);
                }
                Outcome::NotAttempted => {
                    self.never.insert(value.clone(), "not attempted".into());
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, batch: &Batch, answer: Result<AppendReport, Error>) -> Judged<()> {
        let outcome = match answer {
            Ok(report) => return self.outcomes(&workload::offered(batch), report.outcomes()),
            Err(error) if error.effect() == Effect::None => Outcome::Rejected(error),
            Err(error) => Outcome::Unknown(error),
        };
        let outcomes = vec![outcome; batch.len()];
        self.outcomes(&workload::offered(batch), &outcomes)
    }

    async fn attempt(
        &mut self,
        stage: &Stage,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Judged<()> {
        let answer = stage.backend.append(&stage.name, batch, options).await;
        self.request(batch, answer)
    }

    async fn append(&mut self, stage: &Stage, batch: Batch, holes: bool) -> Judged<()> {
        let values = workload::offered(&batch);
        let append = stage.topic.append(batch).deadline(Duration::from_secs(2));
        let append = if holes { append.allow_holes() } else { append };
        match append.await {
            Ok(appended) => {
                let stored = appended.records().iter().copied().map(Outcome::Stored);
                self.outcomes(&values, &stored.collect::<Vec<_>>())
            }
            Err(error) => self.outcomes(&values, error.outcomes()),
        }
    }

    /// Whether what is seen is what was said.
    fn is_so(&self, sights: &[Sight]) -> Judged<()> {
        for sight in sights {
            let seen: BTreeSet<String> = sight.texts().into_iter().collect();
            if let Some((value, said)) = self.never.iter().find(|(value, _)| seen.contains(*value))
            {
                return Err(Stop::broken(format!(
                    "{}: {value:?} came, of which was said {said}",
                    sight.by
                )));
            }
            if let Some(value) = self.stored.iter().find(|value| !seen.contains(*value)) {
                return Err(Stop::broken(format!(
                    "{}: {value:?} did not come, of which was said that it is stored when something else failed",
                    sight.by
                )));
            }
        }
        Ok(())
    }
}

/// Records each with a key of its own, every fifth without one.
fn request(writer: u32, from: usize, records: usize) -> Batch {
    (from..from + records)
        .map(|number| workload::record(writer, number, if number % 5 == 4 { 0 } else { KEYS }))
        .collect()
}

async fn all_stored(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let most = stage.capabilities().limits.batch_records.known().copied();
    let most = most
        .flatten()
        .map_or(MANY, |most| usize::try_from(most).unwrap_or(MANY).min(MANY));
    let options = AppendOptions::default();
    let mut number = 0;
    let mut told = Told::default();
    for (turn, size) in [1, 2, 3, 5, REQUEST, most, 1].into_iter().enumerate() {
        let by = if turn % 2 == 0 { &stage } else { &other };
        // No key twice.
        let batch: Batch = (number..number + size)
            .map(|n| Record::new(workload::value(1, n)).key(format!("k{}", n % most.max(KEYS))))
            .collect();
        number += size;
        for (at, outcome) in by.attempt(&batch, &options).await?.iter().enumerate() {
            ensure(outcome.stored().is_some(), || {
                format!("of {size} records without a fault number {at} is {outcome:?}, not stored")
            })?;
        }
    }
    // Where a key comes again, its later records may be left for the next request.
    for keys in [1, 2, 5] {
        let batch = workload::batch(2, number, REQUEST, keys);
        number += REQUEST;
        let outcomes = stage.attempt(&batch, &options).await?;
        for (at, outcome) in outcomes.iter().enumerate() {
            let so = match outcome {
                Outcome::Stored(_) => true,
                Outcome::NotAttempted => at >= keys,
                Outcome::Rejected(_) | Outcome::Unknown(_) => false,
            };
            ensure(so, || {
                format!("of records of {keys} keys without a fault number {at} is {outcome:?}")
            })?;
        }
        told.outcomes(&workload::offered(&batch), &outcomes)?;
    }
    for size in [1, 30, sights::many(&stage)] {
        for keys in [0, 7] {
            let batch = workload::batch(3, number, size, keys);
            number += size;
            let appended = stage.topic.append(batch).await;
            let appended = appended
                .during("appending without a fault")?
                .records()
                .len();
            ensure(appended == size, || {
                format!("of {size} records {appended} are said to be stored, without a fault")
            })?;
        }
    }
    told.is_so(&sights::all(&trial, &stage, GROUP, &sights::keys(KEYS), 0).await?)?;
    Ok(Counts::new().of("records", number, 2 * sights::many(&stage)))
}

async fn too_large(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let limit = stage.capabilities().limits.record_bytes.known().copied();
    let limit = limit.flatten().filter(|limit| *limit <= LARGE);
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Err(Stop::NotExercised(format!(
            "no limit of a record's bytes up to {LARGE} is claimed"
        )));
    };
    let mut told = Told::default();
    let mut number = 0;
    for at in [0, 1, 2] {
        for raw in [true, false] {
            let batch: Batch = (0..3)
                .map(|n| {
                    let mut value = workload::value(1, number + n);
                    if n == at {
                        value.push_str(&"x".repeat(limit + 1));
                    }
                    Record::new(value).key(format!("k{n}"))
                })
                .collect();
            number += 3;
            if raw {
                told.attempt(&stage, &batch, &AppendOptions::default())
                    .await?;
            } else {
                told.append(&stage, batch, false).await?;
            }
        }
    }
    let refused = told.never.len();
    told.is_so(&sights::all(&trial, &stage, GROUP, &sights::keys(KEYS), 0).await?)?;
    Ok(Counts::new()
        .of("outcomes", told.all, 6)
        .of("records refused", refused, 6))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    Refusals,
    Losses,
}

impl Ways {
    fn faults(self) -> Vec<Fault> {
        match self {
            Self::Refusals => vec![
                Fault::Refuse(vec![0]),
                Fault::Refuse(vec![REQUEST - 1]),
                Fault::Refuse(vec![1, 4]),
                Fault::Refuse((0..REQUEST).collect()),
                Fault::Throttle(Duration::from_millis(20)),
                Fault::Disconnect,
            ],
            Self::Losses => vec![
                Fault::Lose { done: false },
                Fault::Lose { done: true },
                Fault::Delay(Duration::from_secs(4)),
            ],
        }
    }
}

/// Single attempts and appends that fare badly, then a look by everybody; once more after `then`.
async fn failing(trial: Trial, ways: Ways, then: Option<Disturb>) -> Judged {
    let mut stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let before = trial.fired();
    let mut told = Told {
        failing: true,
        ..Told::default()
    };
    let mut number = 0;
    for round in 0..2 {
        for fault in ways.faults() {
            let single = match &fault {
                Fault::Refuse(_) => Fault::Refuse(vec![0]),
                fault => fault.clone(),
            };
            for way in 0..4 {
                let by = if (round + way) % 2 == 0 {
                    &stage
                } else {
                    &other
                };
                let batch = request(1, number, REQUEST);
                number += REQUEST;
                let fault = Disturb::Fault(Call::Append, fault.clone());
                trial.disturb(&stage.name, fault).await?;
                let options = AppendOptions {
                    allow_holes: way == 1,
                    deadline: Some(Duration::from_secs(1)),
                    ..AppendOptions::default()
                };
                match way {
                    0 | 1 => told.attempt(by, &batch, &options).await?,
                    _ => told.append(by, batch, way == 3).await?,
                }
                // One alone, with a key or without.
                if way < 2 && round == 0 {
                    let fault = Disturb::Fault(Call::Append, single.clone());
                    trial.disturb(&stage.name, fault).await?;
                    let keys = if way == 0 { 0 } else { KEYS };
                    let batch = workload::batch(3, number, 1, keys);
                    number += 1;
                    told.attempt(by, &batch, &options).await?;
                }
                // A later request, which may bring what an earlier one only put aside.
                let batch = request(2, number, 2);
                number += 2;
                told.attempt(by, &batch, &AppendOptions::default()).await?;
            }
        }
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    if let Some(then) = then {
        trial.disturb(&stage.name, then).await?;
        stage = trial.on(&stage.name).await?;
    }
    let sights = sights::all(&trial, &stage, GROUP, &sights::keys(KEYS), 0).await?;
    told.is_so(&sights)?;
    let (rejections, unknown) = match ways {
        Ways::Refusals => (REQUEST, 0),
        Ways::Losses => (0, REQUEST),
    };
    Ok(Counts::new()
        .of("outcomes", told.all, 10 * REQUEST)
        .of("records not stored", told.never.len(), rejections)
        .of("records of which nobody knows", told.unknown, unknown)
        .of("failures", fired, 10))
}
