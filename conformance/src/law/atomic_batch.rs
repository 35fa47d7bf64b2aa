//! *Atomic batch*: of a batch that is to be atomic each reading sees all or none.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use annals_core::capability::Batching;
use annals_core::driver::{AppendOptions, Stop as Bound};
use annals_core::{Batch, ErrorKind, Need, Outcome, Record, Recorded, Signal};

use super::{ANY, Law};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::readings::{self, ROOMS};
use crate::workload::{self, sights};

const GROUP: &str = "atomic";
/// So often an append is looked at while it is under way.
const LOOKS: usize = 8;
/// Larger records than this are not made.
const LARGE: u64 = 2 << 20;

pub(crate) fn law() -> Law {
    Law::new(
        "atomic_batch",
        "of a batch within the declared scope each reading sees all or none",
        ANY,
    )
    .claimed_by(|has| {
        let batch = has.append.batch.known();
        matches!(batch, Some(Batching::Atomic | Batching::AtomicPerKey))
    })
    .case("while it is under way", polled)
    .case("what cannot be stored whole is not stored", refused_whole)
    .case("while others read and append", crowded)
    .fault("of what is refused, or whose answer is lost", failing)
    .fault("after kills in mid-batch", |trial| {
        killed(trial, Disturb::Kill)
    })
    .fault("after restarts in mid-batch", |trial| {
        killed(trial, Disturb::Restart)
    })
    .refusal("atomic batches are refused with no effect", refused)
    .refusal("a part of a batch is stored", in_part)
}

/// Makes batches and looks whether they are whole.
#[derive(Default)]
struct Batches {
    made: Vec<Vec<String>>,
    number: usize,
    whole: usize,
    nothing: usize,
    readings: usize,
}

impl Batches {
    /// Of one key where only such are atomic.
    fn make(&mut self, stage: &Stage, records: usize) -> Batch {
        let one_key = stage
            .capabilities()
            .append
            .batch
            .is(&Batching::AtomicPerKey);
        let key = self.made.len() % 5;
        let batch: Batch = (0..records)
            .map(|at| {
                let record = Record::new(workload::value(1, self.number + at));
                match at % 3 {
                    0 if !one_key => record,
                    1 if !one_key => record.key(format!("k{}", (key + 1) % 5)),
                    _ => record.key(format!("k{key}")),
                }
            })
            .collect();
        self.number += records;
        self.made.push(workload::offered(&batch));
        batch
    }

    fn are_whole(&mut self, by: &str, records: &[Recorded]) -> Judged<()> {
        let seen: BTreeSet<String> = workload::texts(records).into_iter().collect();
        self.readings += 1;
        for batch in &self.made {
            let there = batch.iter().filter(|value| seen.contains(*value)).count();
            if there == 0 {
                self.nothing += 1;
                continue;
            }
            self.whole += 1;
            ensure(there == batch.len(), || {
                let gone = batch.iter().find(|value| !seen.contains(*value));
                format!(
                    "{by}: {there} of the {} records of an atomic batch are there, {gone:?} is not",
                    batch.len()
                )
            })?;
        }
        Ok(())
    }

    /// Reads the whole in every way that ends.
    async fn look(&mut self, trial: &Trial, stage: &Stage, raw: bool) -> Judged<()> {
        if super::Shape::of(stage.capabilities()) == super::Shape::Queue {
            return Ok(());
        }
        self.are_whole("by a replay", &stage.read_all().await?)?;
        if raw {
            let first = readings::first(stage);
            let from = stage.backend.locate(&stage.name, &first).await;
            let from = from.during("asking for the start")?;
            for rooms in ROOMS.iter().take(3) {
                let read = readings::read_raw(trial, stage, &from, &Bound::End, rooms).await?;
                self.are_whole("below core", &read)?;
            }
            let mut feed = stage.topic.follow(readings::first(stage)).await?;
            let mut records = Vec::new();
            while let Some(signal) = trial.soon("a signal", feed.next_signal()).await?? {
                match signal {
                    Signal::Record(record) => records.push(record),
                    Signal::CaughtUp(_) => break,
                    _ => {}
                }
            }
            self.are_whole("by a follower that has caught up", &records)?;
        }
        Ok(())
    }

    /// At the end, by everybody.
    async fn judged(mut self, trial: &Trial, stage: &Stage) -> Judged {
        for sight in sights::all(trial, stage, GROUP, &sights::keys(5), 0).await? {
            self.are_whole(sight.by, &sight.records)?;
        }
        Ok(Counts::new()
            .of("batches seen whole", self.whole, 10)
            .of("readings", self.readings, 3))
    }
}

/// The sizes that are tried: up to the most that a request holds.
fn sizes(stage: &Stage) -> Vec<usize> {
    let most = stage.capabilities().limits.batch_records.known().copied();
    let most = most.flatten().map_or(1_000, |most| {
        usize::try_from(most).unwrap_or(1_000).min(1_000)
    });
    let sizes = [2, 3, 10, 11, 64, 100, 101, 500, most];
    sizes.into_iter().filter(|size| *size <= most).collect()
}

async fn polled(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let mut batches = Batches::default();
    for (turn, size) in sizes(&stage).into_iter().chain([2, 5]).enumerate() {
        let batch = batches.make(&stage, size);
        let append = stage.topic.append(batch).atomic();
        let mut append = Box::pin(append);
        let mut looks = 0;
        let told = loop {
            let polled = poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
            if let Poll::Ready(told) = polled {
                break Some(told);
            }
            if looks == LOOKS {
                break None;
            }
            looks += 1;
            batches.look(&trial, &other, false).await?;
        };
        let told = match told {
            Some(told) => told,
            None => trial.soon("an append", append).await?,
        };
        drop(told.during("appending")?);
        batches.look(&trial, &other, turn % 4 == 1).await?;
    }
    // Any request is one, asked for or not.
    if stage.capabilities().append.batch.is(&Batching::Atomic) {
        for atomic in [true, false] {
            let batch = batches.make(&stage, 7);
            let options = AppendOptions {
                atomic,
                ..AppendOptions::default()
            };
            drop(stage.attempt(&batch, &options).await?);
            batches.look(&trial, &other, false).await?;
        }
    }
    batches.judged(&trial, &stage).await
}

async fn refused_whole(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let limits = stage.capabilities().limits;
    let mut batches = Batches::default();
    let mut refusals = 0;
    for size in [2, 5, 10, 7, 3, 9, 4, 6, 8, 2] {
        let batch = batches.make(&stage, size);
        let told = stage.topic.append(batch).atomic().await;
        drop(told.during("appending")?);
    }
    let small = |limit: Option<u64>| {
        let limit = limit.filter(|limit| *limit <= LARGE);
        limit.and_then(|limit| usize::try_from(limit).ok())
    };
    // A record that is too large, at each place.
    if let Some(limit) = small(limits.record_bytes.known().copied().flatten()) {
        for at in 0..3 {
            for raw in [true, false] {
                let mut records = batches.make(&stage, 3).into_records();
                if let Some(record) = records.get_mut(at) {
                    *record = record.clone().header("large", "x".repeat(limit));
                }
                let batch = Batch::new(records);
                refusals += usize::from(!stored_whole(&stage, batch, raw).await?);
            }
        }
    }
    // More records than a request holds, where that is not too many to be read.
    let limit = small(limits.batch_records.known().copied().flatten());
    if let Some(limit) = limit.filter(|limit| *limit <= 10_000) {
        for raw in [true, false] {
            let batch = batches.make(&stage, limit + 1);
            refusals += usize::from(!stored_whole(&stage, batch, raw).await?);
        }
    }
    batches.look(&trial, &stage, true).await?;
    let counts = batches.judged(&trial, &stage).await?;
    Ok(counts.of("batches refused", refusals, 0))
}

/// Whether an atomic batch was stored; it must be told of all alike.
async fn stored_whole(stage: &Stage, batch: Batch, raw: bool) -> Judged<bool> {
    let outcomes = if raw {
        let options = AppendOptions {
            atomic: true,
            ..AppendOptions::default()
        };
        match stage.backend.append(&stage.name, &batch, &options).await {
            Ok(report) => report.into_outcomes(),
            Err(_) => return Ok(false),
        }
    } else {
        match stage.topic.append(batch).atomic().await {
            Ok(_) => return Ok(true),
            Err(error) => error.outcomes().to_vec(),
        }
    };
    let stored = outcomes.iter().filter(|o| o.stored().is_some()).count();
    ensure(stored == 0 || stored == outcomes.len(), || {
        format!(
            "of an atomic batch of {} records {stored} are said to be stored: {outcomes:?}",
            outcomes.len()
        )
    })?;
    Ok(stored > 0)
}

/// Two writers, and readings between any two steps.
async fn crowded(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let others = [trial.on(&stage.name).await?, trial.on(&stage.name).await?];
    let mut batches = Batches::default();
    for round in 0..6 {
        let mut tasks = tokio::task::JoinSet::new();
        for (writer, size) in others.iter().zip([3 + round, 20 + round]) {
            for _ in 0..2 {
                let batch = batches.make(&stage, size);
                let append = writer.topic.append(batch).atomic();
                tasks.spawn(append);
            }
        }
        loop {
            batches.look(&trial, &stage, false).await?;
            match tasks.try_join_next() {
                Some(told) => {
                    let told = told.map_err(|error| Stop::broken(error.to_string()))?;
                    drop(told.during("appending")?);
                }
                None if tasks.is_empty() => break,
                None => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
    }
    batches.judged(&trial, &stage).await
}

async fn failing(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let before = trial.fired();
    let mut batches = Batches::default();
    let faults = [
        Fault::Refuse(vec![0]),
        Fault::Refuse(vec![1, 2]),
        Fault::Refuse(vec![5]),
        Fault::Lose { done: false },
        Fault::Lose { done: true },
        Fault::Disconnect,
        Fault::Delay(Duration::from_secs(3)),
    ];
    for fault in faults {
        for raw in [true, false] {
            let at = Disturb::Fault(Call::Append, fault.clone());
            trial.disturb(&stage.name, at).await?;
            let batch = batches.make(&stage, 6);
            if raw {
                let options = AppendOptions {
                    atomic: true,
                    deadline: Some(Duration::from_secs(1)),
                    ..AppendOptions::default()
                };
                let told = stage.backend.append(&stage.name, &batch, &options).await;
                if let Ok(report) = told {
                    let stored = |o: &Outcome| o.stored().is_some();
                    let outcomes = report.outcomes();
                    ensure(
                        outcomes.iter().all(stored) || !outcomes.iter().any(stored),
                        || format!("a part of an atomic batch is said to be stored: {outcomes:?}"),
                    )?;
                }
            } else {
                let append = stage.topic.append(batch).atomic();
                drop(append.deadline(Duration::from_secs(1)).await);
            }
            batches.look(&trial, &other, false).await?;
        }
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    let batch = batches.make(&stage, 6);
    drop(stage.topic.append(batch).atomic().await?);
    let counts = batches.judged(&trial, &other).await?;
    Ok(counts.of("failures", fired, 10))
}

async fn killed(mut trial: Trial, what: Disturb) -> Judged {
    let mut stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut batches = Batches::default();
    for round in 0..6 {
        let batch = batches.make(&stage, 4);
        let told = stage.topic.append(batch).atomic().await;
        drop(told.during("appending")?);
        let batch = batches.make(&stage, 2 + trial.rng.usize(0..60));
        let mut append = Box::pin(stage.topic.append(batch).atomic());
        for _ in 0..=round % 3 {
            let polled = poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
            if polled.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        trial.disturb(&stage.name, what.clone()).await?;
        drop(append);
        stage = trial.on(&stage.name).await?;
        batches.look(&trial, &stage, round % 3 == 0).await?;
    }
    batches.judged(&trial, &stage).await
}

async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let open = stage.bus.topic(stage.name.as_str());
    let told = open.needs([Need::AtomicBatch]).await;
    readings::refused("a need for atomic batches", told.map(drop))?;
    for keys in [0, 1, 3] {
        let batch = workload::batch(1, keys * 10, 3, keys);
        let told = stage.topic.append(batch).atomic().await;
        let told = told.map(drop).map_err(Into::into);
        readings::refused("an atomic append", told)?;
        let batch = workload::batch(1, keys * 10 + 5, 3, keys);
        let options = AppendOptions {
            atomic: true,
            ..AppendOptions::default()
        };
        let told = stage.backend.append(&stage.name, &batch, &options).await;
        readings::refused("an atomic attempt", told.map(drop))?;
    }
    for sight in sights::all(&trial, &stage, GROUP, &sights::keys(3), 0).await? {
        ensure(sight.records.is_empty(), || {
            format!("{}: {:?} was refused and came", sight.by, sight.texts())
        })?;
    }
    Ok(Counts::new().of("refusals", 7, 7))
}

/// Why it is not claimed: one record of a request is refused, and the others are stored.
async fn in_part(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let before = trial.fired();
    let fault = Disturb::Fault(Call::Append, Fault::Refuse(vec![0]));
    trial.disturb(&stage.name, fault).await?;
    let batch = workload::batch(1, 0, 3, 3);
    let options = AppendOptions::default();
    let told = stage.backend.append(&stage.name, &batch, &options);
    // What is said of it is another law's.
    match told.await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Throttled => {}
        Err(error) => return Err(error).during("an attempt"),
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    for sight in sights::all(&trial, &stage, GROUP, &sights::keys(3), 0).await? {
        ensure(sight.records.len() < 3, || {
            format!(
                "{}: all of a request came of which some was refused",
                sight.by
            )
        })?;
    }
    Ok(Counts::new().of("failures", fired, 1))
}
