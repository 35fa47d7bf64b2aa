//! *Located*: a record is read at the place that its receipt names.

use std::collections::BTreeMap;

use annals_core::capability::Receipt;
use annals_core::driver::AppendOptions;
use annals_core::{Batch, ErrorKind, Position, Record, Recorded, Stored};

use super::{Law, REPLAYED, Shape};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::{odd, readings};

const GROUP: &str = "located";
const LEAST: usize = 40;

pub(crate) fn law() -> Law {
    Law::new(
        "located",
        "a record is read at the place that its receipt names, also after a restart and a trim",
        REPLAYED,
    )
    .claimed_by(|has| has.append.receipt.is(&Receipt::Position))
    .case("of batches of every size", batches)
    .case("of single attempts", attempts)
    .case("of one by one, and of repeats", one_by_one)
    .case("of records without a value, or of odd keys", nothing)
    .fault("of what is refused in part", partial)
    .fault("after restarts", |trial| disturbed(trial, Disturb::Restart))
    .fault("after kills", |trial| disturbed(trial, Disturb::Kill))
    .fault("after a trim", trimmed)
    .refusal("receipts name no place", nowhere)
}

/// What receipts said: which value lies where.
#[derive(Default)]
struct Receipts {
    at: BTreeMap<String, (Position, String)>,
}

impl Receipts {
    /// Counts in one receipt.
    fn add(&mut self, value: &str, stored: &Stored) -> Judged<()> {
        let Some(position) = stored.position else {
            return Ok(());
        };
        let partition = stored.partition.unwrap_or(position.partition());
        ensure(partition == position.partition(), || {
            format!("the receipt of {value:?} names {partition:?} and the place {position}")
        })?;
        let before = self
            .at
            .insert(position.to_string(), (position, value.to_owned()));
        match before {
            Some((_, other)) if other != value => Err(Stop::broken(format!(
                "two receipts name the place {position}: of {other:?} and of {value:?}"
            ))),
            _ => Ok(()),
        }
    }

    fn add_all(
        &mut self,
        values: &[String],
        stored: impl IntoIterator<Item = Option<Stored>>,
    ) -> Judged<()> {
        for (value, stored) in values.iter().zip(stored) {
            if let Some(stored) = stored {
                self.add(value, &stored)?;
            }
        }
        Ok(())
    }

    /// Appends through core.
    async fn append(&mut self, stage: &Stage, batch: Batch) -> Judged<()> {
        let values = workload::offered(&batch);
        let appended = stage.topic.append(batch).await.during("appending")?;
        ensure(appended.records().len() == values.len(), || {
            format!(
                "{} records were appended and {} receipts came back",
                values.len(),
                appended.records().len()
            )
        })?;
        self.add_all(&values, appended.records().iter().copied().map(Some))
    }

    /// Makes one attempt below core; what is not stored has no place.
    async fn attempt(
        &mut self,
        stage: &Stage,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Judged<()> {
        let values = workload::offered(batch);
        let outcomes = stage.attempt(batch, options).await?;
        self.add_all(
            &values,
            outcomes.iter().map(|outcome| outcome.stored().copied()),
        )
    }

    /// Whether each place holds its value. `trimmed`: what lies before the first that is kept of
    /// its partition may be gone.
    async fn hold(&self, stage: &Stage, trimmed: bool) -> Judged<usize> {
        let read = stage.read_all().await?;
        let mut first: BTreeMap<_, Position> = BTreeMap::new();
        let mut there: BTreeMap<String, &Recorded> = BTreeMap::new();
        for record in &read {
            let Some(position) = record.position() else {
                continue;
            };
            first.entry(position.partition()).or_insert(position);
            if let Some(other) = there.insert(position.to_string(), record) {
                return Err(Stop::broken(format!(
                    "two records are read at one place: {} and {}",
                    readings::print(other),
                    readings::print(record)
                )));
            }
        }
        let mut held = 0;
        for (place, (position, value)) in &self.at {
            match there.get(place) {
                Some(record) if workload::text(record) == *value => held += 1,
                Some(record) => {
                    return Err(Stop::broken(format!(
                        "the receipt of {value:?} names the place {place}; there is read {}",
                        readings::print(record)
                    )));
                }
                None => {
                    let first = first.get(&position.partition());
                    let gone = trimmed && first.is_none_or(|first| position < first);
                    ensure(gone, || {
                        format!(
                            "the receipt of {value:?} names the place {place}; nothing is read there"
                        )
                    })?;
                }
            }
        }
        Ok(held)
    }
}

/// Keys that are all different, and none.
fn spread(writer: u32, from: usize, records: usize) -> Batch {
    let numbers = from..from + records;
    let record = |number: usize| {
        let record = Record::new(workload::value(writer, number));
        if number.is_multiple_of(3) {
            record
        } else {
            record.key(format!("spread-{number}"))
        }
    };
    numbers.map(record).collect()
}

async fn batches(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let other = trial.on(&stage.name).await?;
    let mut receipts = Receipts::default();
    let mut from = 0;
    for (number, size) in [1, 2, 10, 11, 100, 1, 520].into_iter().enumerate() {
        let client = if number % 2 == 0 { &stage } else { &other };
        receipts
            .append(client, workload::batch(1, from, size, 7))
            .await?;
        receipts.append(client, spread(2, from, size)).await?;
        receipts.hold(&stage, false).await?;
        if number < 3 {
            readings::reshape(&trial, &stage, number).await?;
        }
        from += size;
    }
    // Side by side.
    let (one, two) = (spread(3, 0, 50), spread(4, 0, 50));
    let values = (workload::offered(&one), workload::offered(&two));
    let (one, two) = tokio::join!(stage.topic.append(one), other.topic.append(two));
    receipts.add_all(&values.0, one?.records().iter().copied().map(Some))?;
    receipts.add_all(&values.1, two?.records().iter().copied().map(Some))?;
    let held = receipts.hold(&other, false).await?;
    Ok(Counts::new().of("receipts with a place", held, 100))
}

async fn attempts(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    let mut from = 0;
    for (size, holes) in [(1, false), (10, false), (10, true), (25, false), (25, true)] {
        let options = AppendOptions {
            allow_holes: holes,
            ..AppendOptions::default()
        };
        receipts
            .attempt(&stage, &spread(1, from, size), &options)
            .await?;
        // Several of a key: where one request may not carry them, the later ones are not attempted.
        let batch = workload::batch(2, from, size, 3);
        receipts.attempt(&stage, &batch, &options).await?;
        from += size;
    }
    let held = receipts.hold(&stage, false).await?;
    Ok(Counts::new().of("receipts with a place", held, LEAST))
}

/// Between others, so that a place beside the right one holds something else.
async fn nothing(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    for round in 0..6_u8 {
        for (number, record) in odd::odd(1, round).into_iter().enumerate() {
            let from = usize::from(round) * 100 + number * 10;
            receipts.append(&stage, spread(2, from, 4)).await?;
            let batch = Batch::from(record);
            let values = workload::offered(&batch);
            match stage.topic.append(batch).await {
                Ok(appended) => {
                    receipts.add_all(&values, appended.records().iter().copied().map(Some))?;
                }
                // What it cannot carry as it is it refuses.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge) => {}
                Err(error) => return Err(error).during("appending"),
            }
        }
    }
    receipts.append(&stage, spread(2, 10_000, LEAST)).await?;
    let held = receipts.hold(&stage, false).await?;
    Ok(Counts::new().of("receipts with a place", held, 200))
}

async fn one_by_one(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    let appender = stage.topic.appender().await.during("opening an appender")?;
    let mut tickets = Vec::new();
    for number in 0..LEAST {
        let record = workload::record(1, number, 7);
        let ticket = appender.submit(record).await.during("submitting")?;
        tickets.push((workload::value(1, number), ticket));
    }
    for (value, ticket) in tickets {
        receipts.add(&value, &ticket.await.during("appending")?)?;
    }
    appender
        .close(std::time::Duration::from_secs(5))
        .await
        .during("closing the appender")?;
    receipts.hold(&stage, false).await?;
    // The same ids again, among others: recognised or stored anew, the receipt tells where.
    let with_ids = |from: usize| -> Batch {
        let record = |number| workload::record(2, number, 5).id(format!("id-{number}"));
        (from..from + 10).map(record).collect()
    };
    for from in [0, 0, 5, 0] {
        receipts.append(&stage, with_ids(from)).await?;
    }
    let held = receipts.hold(&stage, false).await?;
    Ok(Counts::new().of("receipts with a place", held, LEAST + 15))
}

async fn partial(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    let before = trial.fired();
    let mut from = 0;
    for refused in [
        vec![0],
        vec![3, 4],
        vec![9],
        vec![0, 2, 4, 6, 8],
        (0..9).collect(),
    ] {
        for holes in [false, true] {
            let options = AppendOptions {
                allow_holes: holes,
                ..AppendOptions::default()
            };
            let fault = Disturb::Fault(Call::Append, Fault::Refuse(refused.clone()));
            trial.disturb(&stage.name, fault).await?;
            receipts
                .attempt(&stage, &spread(1, from, 10), &options)
                .await?;
            from += 10;
        }
        // Through core, which sends the refused ones again.
        let fault = Disturb::Fault(Call::Append, Fault::Refuse(refused));
        trial.disturb(&stage.name, fault).await?;
        receipts
            .append(&stage, workload::batch(2, from, 10, 4))
            .await?;
    }
    // An answer that got lost: repeated where a repeat is recognised, unknown elsewhere.
    for done in [true, false] {
        let fault = Disturb::Fault(Call::Append, Fault::Lose { done });
        trial.disturb(&stage.name, fault).await?;
        let batch = spread(3, from, 10);
        let values = workload::offered(&batch);
        from += 10;
        match stage.topic.append(batch).await {
            Ok(appended) => {
                receipts.add_all(&values, appended.records().iter().copied().map(Some))?;
            }
            Err(error) => {
                receipts.add_all(
                    &values,
                    error.outcomes().iter().map(|o| o.stored().copied()),
                )?;
            }
        }
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    receipts.append(&stage, spread(4, 0, 20)).await?;
    let held = receipts.hold(&stage, false).await?;
    Ok(Counts::new()
        .of("receipts with a place", held, LEAST)
        .of("failures", fired, 10))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let mut stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    let mut held = 0;
    for life in 0..4 {
        receipts
            .append(&stage, workload::batch(1, life * 30, 20, 7))
            .await?;
        receipts.append(&stage, spread(2, life * 30, 10)).await?;
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
        held = receipts.hold(&stage, false).await?;
    }
    Ok(Counts::new()
        .of("receipts with a place", held, LEAST)
        .of("lives", 4, 4))
}

async fn trimmed(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut receipts = Receipts::default();
    let mut held = 0;
    for round in 0..3 {
        receipts
            .append(&stage, workload::batch(1, round * 60, 40, 7))
            .await?;
        receipts.append(&stage, spread(2, round * 60, 20)).await?;
        let keep = if round == 1 { 0 } else { 15 };
        trial.disturb(&stage.name, Disturb::Trim { keep }).await?;
        receipts.hold(&stage, true).await?;
        receipts.append(&stage, spread(3, round * 60, 30)).await?;
        held = receipts.hold(&stage, true).await?;
    }
    Ok(Counts::new()
        .of("receipts with a place", receipts.at.len(), LEAST)
        .of("records at their place", held, 30))
}

/// Where receipts are not claimed to name a place, none does.
async fn nowhere(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let appended = stage.topic.append(workload::batch(1, 0, 10, 3)).await?;
    let mut seen = 0;
    let names_one = stage.capabilities().append.receipt.is(&Receipt::Position);
    for stored in appended.records() {
        ensure(names_one || stored.position.is_none(), || {
            format!(
                "a receipt names the place {:?}, and none is promised",
                stored.position
            )
        })?;
        seen += 1;
    }
    if Shape::of(stage.capabilities()) == Shape::Queue {
        let told = stage.topic.replay(annals_core::Start::Beginning).await;
        readings::refused("a replay", told.map(drop))?;
    }
    Ok(Counts::new().of("receipts without a place", seen, 10))
}
