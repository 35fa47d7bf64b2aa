//! *Key order*: what one writer wrote with one key comes in the order in which it wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use annals_core::capability::Partitions;
use annals_core::driver::{AppendOptions, Room, Verdict};
use annals_core::{Batch, ErrorKind, Key, Need, Outcome, Record};

use super::{ANY, Law};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::groups::Lent;
use crate::workload::{self, readings, sights};

const GROUP: &str = "key-order";
/// Its member is lent records without core, where records are lent.
const RAW: &str = "key-order-raw";
const LENT: Room = readings::room(10, usize::MAX);
const KEYS: usize = 4;
/// Records of a request: within any service's limit.
const REQUEST: usize = 9;
/// So many attempts at one batch that it will never be stored.
const HOPELESS: usize = 200;

pub(crate) fn law() -> Law {
    Law::new(
        "key_order",
        "what one writer wrote with one key is read and handed out for the first time in the order in which it was written",
        ANY,
    )
    .claimed_by(|has| {
        has.orders_keys()
            && (has.keys_move.is(&false) || has.partitions.is(&Partitions::Lineage))
    })
    .case("of single attempts", |trial| attempts(trial, Vec::new()))
    .case("of batches of every size", batches)
    .case("of keys of every kind", kinds)
    .case("of appends that are under way together", together)
    .fault("of single attempts of which some is refused", |trial| {
        attempts(trial, refusals())
    })
    .fault("of single attempts whose answers are lost", |trial| {
        attempts(trial, losses())
    })
    .fault("of batches that fare badly", failing)
    .fault("after a restart", |trial| {
        disturbed(trial, Disturb::Restart)
    })
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
    .refusal("a need for it is refused", need_refused)
}

fn refusals() -> Vec<Fault> {
    vec![
        Fault::Refuse(vec![0]),
        Fault::Refuse(vec![0, 1, 2, 3]),
        Fault::Refuse(vec![2]),
        Fault::Refuse(vec![REQUEST - 1, 0]),
        Fault::Throttle(Duration::from_millis(10)),
    ]
}

fn losses() -> Vec<Fault> {
    vec![
        Fault::Lose { done: true },
        Fault::Lose { done: false },
        Fault::Disconnect,
    ]
}

/// Who wrote what, with which key, as the how manieth of this key.
#[derive(Default)]
struct Written {
    places: BTreeMap<String, (u32, Vec<u8>, usize)>,
}

impl Written {
    /// Values in the order in which they are written; those without a key have none.
    fn add(&mut self, writer: u32, batch: &Batch) {
        for (value, record) in workload::offered(batch).into_iter().zip(batch.records()) {
            if let Some(key) = record.key_bytes() {
                let number = self.places.len();
                self.places.insert(value, (writer, key.to_vec(), number));
            }
        }
    }

    /// How many steps from one to the next there were.
    fn ascends(&self, by: &str, texts: Vec<String>) -> Judged<usize> {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<(u32, &[u8]), (usize, String)> = BTreeMap::new();
        let mut steps = 0;
        for text in texts {
            let Some((writer, key, number)) = self.places.get(&text) else {
                continue;
            };
            if !seen.insert(text.clone()) {
                continue;
            }
            let before = last.insert((*writer, key), (*number, text.clone()));
            if let Some((before, later)) = before {
                steps += 1;
                ensure(before < *number, || {
                    format!(
                        "{by}: {text:?} came behind {later:?}, which was written later with the same key {:?}",
                        key.escape_ascii().to_string()
                    )
                })?;
            }
        }
        Ok(steps)
    }

    /// Whether it is so however one looks; the fewest steps that were seen.
    async fn holds(&self, trial: &Trial, stage: &Stage, keys: &[Key]) -> Judged<usize> {
        let mut fewest = usize::MAX;
        for sight in sights::all(trial, stage, GROUP, keys, 0).await? {
            fewest = fewest.min(self.ascends(sight.by, sight.texts())?);
        }
        if let Some(lent) = lent(trial, stage, keys.len()).await? {
            fewest = fewest.min(self.ascends("lent without core", lent)?);
        }
        Ok(fewest)
    }
}

/// What a member without core is lent until all markers have come, where records are lent.
async fn lent(trial: &Trial, stage: &Stage, keys: usize) -> Judged<Option<Vec<String>>> {
    let mut member = match Lent::join(stage, RAW, Duration::from_secs(30)).await {
        Ok(member) => member,
        Err(Stop::NotExercised(_)) => return Ok(None),
        Err(stop) => return Err(stop),
    };
    let mut open: BTreeSet<String> = sights::markers(keys, 0).into_iter().collect();
    let mut taken = Vec::new();
    while !open.is_empty() {
        let loans = member.fetch(LENT, trial.patience()).await?;
        ensure(!loans.is_empty(), || {
            format!(
                "{} markers were not lent, the first is {:?}",
                open.len(),
                open.first()
            )
        })?;
        let done: Vec<_> = loans.iter().map(|l| (l.token, Verdict::Done)).collect();
        drop(member.settler.settle(&done).await.during("settling")?);
        for loan in loans {
            open.remove(&loan.value);
            taken.push(loan.value);
        }
    }
    Ok(Some(taken))
}

/// A topic with both groups.
async fn staged(trial: &Trial) -> Judged<Stage> {
    trial.stage(&Want::groups(&[GROUP, RAW])?).await
}

fn all_keys() -> Vec<Key> {
    sights::keys(KEYS)
}

async fn batches(trial: Trial) -> Judged {
    let stage = staged(&trial).await?;
    let others = [trial.on(&stage.name).await?, trial.on(&stage.name).await?];
    let mut written = Written::default();
    let mut number = 0;
    for (turn, size) in [1, 2, 3, 10, 11, 40, 5, 100, 1, 1].into_iter().enumerate() {
        for (writer, by) in [(1, &stage), (2, &others[0]), (3, &others[1])] {
            let keys = 1 + (turn + 3) % KEYS;
            let batch = workload::batch(writer, number, size, keys);
            written.add(writer, &batch);
            by.topic.append(batch).await.during("appending")?;
        }
        number += size;
    }
    let many = sights::many(&stage);
    let batch = workload::batch(1, number, many, KEYS);
    written.add(1, &batch);
    stage.topic.append(batch).await.during("appending many")?;
    let steps = written.holds(&trial, &stage, &all_keys()).await?;
    Ok(Counts::new().of("steps within keys", steps, many))
}

/// A writer that makes one attempt after the other until all is stored, as the driver's rules say:
/// what is not stored goes again, in its order.
async fn write(trial: &Trial, stage: &Stage, batch: &Batch) -> Judged<()> {
    let most = stage.capabilities().limits.batch_records.known().copied();
    let most = most.flatten().map_or(REQUEST, |most| {
        usize::try_from(most).unwrap_or(REQUEST).min(REQUEST)
    });
    let mut left: Vec<usize> = (0..batch.len()).collect();
    for _ in 0..HOPELESS {
        if left.is_empty() {
            return Ok(());
        }
        let sent: Vec<usize> = left.iter().copied().take(most).collect();
        let part = batch.select(sent.iter().copied());
        let options = AppendOptions::default();
        let told = stage.backend.append(&stage.name, &part, &options);
        match trial.soon("an attempt", told).await? {
            Ok(report) => {
                let outcomes = report.outcomes();
                ensure(outcomes.len() == part.len(), || {
                    format!("{} outcomes for {} records", outcomes.len(), part.len())
                })?;
                stops(&part, outcomes)?;
                let stored: BTreeSet<usize> = sent
                    .iter()
                    .zip(outcomes)
                    .filter(|(_, outcome)| outcome.stored().is_some())
                    .map(|(index, _)| *index)
                    .collect();
                left.retain(|index| !stored.contains(index));
                if stored.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error).during("an attempt"),
        }
    }
    Err(Stop::broken(format!(
        "of {} records {} were not stored by {HOPELESS} attempts",
        batch.len(),
        left.len()
    )))
}

/// A key stops at its first record that is not stored: what is sent again comes behind it.
fn stops(batch: &Batch, outcomes: &[Outcome]) -> Judged<()> {
    let mut stopped: BTreeMap<&[u8], usize> = BTreeMap::new();
    for (index, (record, outcome)) in batch.records().iter().zip(outcomes).enumerate() {
        let Some(key) = record.key_bytes() else {
            continue;
        };
        if outcome.stored().is_none() {
            stopped.entry(key).or_insert(index);
        } else if let Some(first) = stopped.get(&**key) {
            let values = workload::offered(batch);
            return Err(Stop::broken(format!(
                "in one request {:?} was stored though {:?} of the same key, before it, was not ({:?})",
                values.get(index),
                values.get(*first),
                outcomes.get(*first),
            )));
        }
    }
    Ok(())
}

async fn attempts(trial: Trial, faults: Vec<Fault>) -> Judged {
    let stage = staged(&trial).await?;
    let other = trial.on(&stage.name).await?;
    let before = trial.fired();
    let mut written = Written::default();
    let mut number = 0;
    for round in 0..3.max(faults.len()) {
        for keys in [1, 2, KEYS] {
            for (writer, by) in [(1, &stage), (2, &other)] {
                if let Some(fault) = faults.get(round) {
                    let fault = Disturb::Fault(Call::Append, fault.clone());
                    trial.disturb(&stage.name, fault).await?;
                }
                let batch = workload::batch(writer, number, 2 * REQUEST, keys);
                written.add(writer, &batch);
                write(&trial, by, &batch).await?;
            }
            number += 2 * REQUEST;
        }
        // What may be stored with holes is stored in order all the same.
        let batch = workload::batch(3, number, REQUEST, 2);
        number += REQUEST;
        written.add(3, &batch);
        if let Some(fault) = faults.get(round) {
            let fault = Disturb::Fault(Call::Append, fault.clone());
            trial.disturb(&stage.name, fault).await?;
        }
        let options = AppendOptions {
            allow_holes: true,
            ..AppendOptions::default()
        };
        let told = stage.backend.append(&stage.name, &batch, &options).await;
        if faults.is_empty() {
            drop(told.during("an attempt")?);
        }
    }
    let fired = trial.fired() - before;
    if !faults.is_empty() {
        trial.disturb(&stage.name, Disturb::Heal).await?;
    }
    let steps = written.holds(&trial, &stage, &all_keys()).await?;
    Ok(Counts::new().of("steps within keys", steps, 100).of(
        "failures",
        fired,
        if faults.is_empty() { 0 } else { 10 },
    ))
}

async fn kinds(trial: Trial) -> Judged {
    let stage = staged(&trial).await?;
    let keys: Vec<Key> = vec![
        Key::from("a"),
        Key::from("A"),
        Key::from("a "),
        Key::from(&b"\xff\x00\x01"[..]),
        Key::from(&b"\xff\x00\x02"[..]),
        Key::from(&b"\0"[..]),
        Key::from("ключ"),
        Key::from("x".repeat(120)),
        Key::from("0"),
        Key::from("00"),
        Key::from(""),
    ];
    let mut written = Written::default();
    let mut taken = Vec::new();
    for (which, key) in keys.iter().enumerate() {
        let record = Record::new(workload::value(7, which)).key(key.clone());
        match stage.topic.append(record).await {
            Ok(_) => taken.push(key.clone()),
            // What it cannot carry as it is it refuses.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error).during("appending"),
        }
    }
    let mut number = 0;
    for round in 0..7 {
        let size = 3 * taken.len();
        let batch: Batch = (0..size)
            .map(|at| {
                let key = taken.get((at * (round + 1)) % taken.len().max(1)).cloned();
                let record = Record::new(workload::value(1, number + at));
                key.map_or_else(|| record.clone(), |key| record.clone().key(key))
            })
            .collect();
        number += size;
        written.add(1, &batch);
        if round % 3 == 0 {
            write(&trial, &stage, &batch).await?;
        } else {
            stage.topic.append(batch).await.during("appending")?;
        }
    }
    let steps = written.holds(&trial, &stage, &taken).await?;
    Ok(Counts::new()
        .of("keys of other kinds", taken.len(), 6)
        .of("steps within keys", steps, 80))
}

/// Appends that are under way at once, polled in the order in which they were made; and an
/// appender that makes requests of what it is handed.
async fn together(trial: Trial) -> Judged {
    let stage = staged(&trial).await?;
    let mut written = Written::default();
    let mut number = 0;
    let in_flight = usize::try_from(stage.capabilities().append.in_flight).unwrap_or(1);
    let most = in_flight.min(12);
    // Only where there may be more than one is their order promised.
    for _ in 0..if most > 1 { 6 } else { 0 } {
        let mut appends = Vec::new();
        for at in 0..most {
            // Of several sizes, all of one key: each is one request.
            let batch = workload::batch(1, number, 1 + (at * 5) % 7, 1);
            number += batch.len();
            written.add(1, &batch);
            appends.push(Some(stage.topic.append(batch)));
        }
        let stored = poll_fn(|cx| {
            for slot in &mut appends {
                let Some(append) = slot else { continue };
                match Pin::new(append).poll(cx) {
                    Poll::Ready(Ok(_)) => *slot = None,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            if appends.iter().all(Option::is_none) {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        });
        let told = trial.soon("appends under way together", stored).await?;
        told.during("appending together")?;
    }
    let appender = stage
        .topic
        .appender()
        .linger(Duration::from_millis(1))
        .batch(7, 1 << 20)
        .await
        .during("opening an appender")?;
    let mut tickets = Vec::new();
    for at in 0..120 {
        let batch = workload::batch(2, at, 1, KEYS);
        written.add(2, &batch);
        for record in batch.into_records() {
            tickets.push(appender.submit(record).await.during("submitting")?);
        }
    }
    for ticket in tickets {
        let told = trial.soon("a ticket", ticket).await?;
        told.during("appending by an appender")?;
    }
    appender
        .close(Duration::from_secs(5))
        .await
        .during("closing the appender")?;
    let steps = written.holds(&trial, &stage, &all_keys()).await?;
    Ok(Counts::new().of("steps within keys", steps, 100))
}

/// Through core, which tries again what fails.
async fn failing(trial: Trial) -> Judged {
    let stage = staged(&trial).await?;
    let before = trial.fired();
    let mut written = Written::default();
    let mut number = 0;
    for fault in [refusals(), losses()].concat() {
        for (holes, anyhow) in [(false, false), (true, false), (false, true), (true, true)] {
            for calls in 1..3 {
                for _ in 0..calls {
                    let fault = Disturb::Fault(Call::Append, fault.clone());
                    trial.disturb(&stage.name, fault).await?;
                }
                let batch = workload::batch(1, number, REQUEST, 3);
                number += REQUEST;
                written.add(1, &batch);
                let append = stage.topic.append(batch);
                let append = if holes { append.allow_holes() } else { append };
                let append = if anyhow {
                    append.allow_duplicates()
                } else {
                    append
                };
                // Whatever became of it: what is there is in order.
                drop(trial.soon("an append", append).await?);
            }
        }
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    let steps = written.holds(&trial, &stage, &all_keys()).await?;
    Ok(Counts::new()
        .of("steps within keys", steps, 100)
        .of("failures", fired, 16))
}

/// What was written before is in order behind it, and goes on in order.
async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let mut stage = staged(&trial).await?;
    let mut written = Written::default();
    for round in 0..4 {
        let batch = workload::batch(1, round * 100, 30, KEYS);
        written.add(1, &batch);
        stage.topic.append(batch).await.during("appending")?;
        let batch = workload::batch(1, round * 100 + 30, REQUEST, 2);
        written.add(1, &batch);
        write(&trial, &stage, &batch).await?;
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
    }
    let steps = written.holds(&trial, &stage, &all_keys()).await?;
    Ok(Counts::new().of("steps within keys", steps, 100))
}

async fn need_refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let open = stage.bus.topic(stage.name.as_str());
    let told = open.needs([Need::OrderPerKey]).await;
    readings::refused("a need for the order of keys", told.map(drop))?;
    Ok(Counts::new().of("refusals", 1, 1))
}
