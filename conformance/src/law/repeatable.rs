//! *Repeatable*: two readings of a range are equal, partition by partition.

use annals_core::driver::{Room, Stop as Bound};
use annals_core::{Cursor, Recorded, Signal, Start, Until};

use super::{Law, REPLAYED};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::odd;
use crate::workload::readings::{self, PAGES, Parts, ROOMS};

/// More than any page.
const RECORDS: usize = 1_030;
/// Enough for pages of ten.
const SOME: usize = 60;

pub(crate) fn law() -> Law {
    Law::new(
        "repeatable",
        "two readings of a range are equal, partition by partition",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        starts.is_some_and(|starts| starts.after && (starts.beginning || starts.earliest))
    })
    .case("in pages of every size", pages)
    .case("in every way of asking", ways)
    .case("while others append", while_others_append)
    .case("of a topic that grew since", grown)
    .fault("after a restart", |trial| again(trial, Disturb::Restart))
    .fault("after a kill", |trial| again(trial, Disturb::Kill))
    .fault("though fetches fail", fetches_fail)
    .refusal("what cannot be replayed says so", readings::starts_refused)
}

/// A range that stays what it is: its records, its two ends.
struct Range {
    from: Cursor,
    to: Cursor,
    parts: Parts,
    records: usize,
}

/// Reads the whole as it is now: what every later reading of it must equal.
async fn whole(stage: &Stage, least: usize) -> Judged<Range> {
    let mut replay = stage
        .topic
        .replay(readings::first(stage))
        .await
        .during("opening a replay")?;
    let from = replay.cursor().clone();
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading the whole")? {
        records.push(record);
        // Nobody knows how many there are to be, but a reading that repeats itself has no end.
        ensure(records.len() <= 10 * least, || {
            format!(
                "{} records were read where {least} were appended",
                records.len()
            )
        })?;
    }
    readings::ascends("the whole", &records)?;
    Ok(Range {
        from,
        to: replay.cursor().clone(),
        parts: readings::parts(&records),
        records: records.len(),
    })
}

impl Range {
    fn is_equal(&self, what: &str, records: &[Recorded]) -> Judged<()> {
        readings::ascends(what, records)?;
        readings::same(what, &readings::parts(records), &self.parts)
    }

    /// Reads it again in pages of these sizes, below core.
    async fn raw(&self, trial: &Trial, stage: &Stage, pages: &[&'static [Room]]) -> Judged<usize> {
        let bound = Bound::Through(self.to.clone());
        for rooms in pages {
            let read = readings::read_raw(trial, stage, &self.from, &bound, rooms).await?;
            self.is_equal(&format!("read with {:?}", rooms.first()), &read)?;
        }
        Ok(pages.len())
    }

    async fn cooked(&self, stage: &Stage) -> Judged<()> {
        let until = Until::Through(self.to.clone());
        let read = stage.read(&self.from, until).await?;
        self.is_equal("read again", &read.records)
    }
}

async fn pages(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, RECORDS).await?;
    let range = whole(&stage, RECORDS).await?;
    let other = trial.on(&stage.name).await?;
    let mut read = range.raw(&trial, &stage, PAGES).await?;
    read += range.raw(&trial, &other, PAGES).await?;
    for stage in [&stage, &other] {
        range.cooked(stage).await?;
        read += 1;
    }
    Ok(Counts::new()
        .of("records", range.records, RECORDS)
        .of("readings", read, 2 * PAGES.len()))
}

/// Record by record, in batches, by signals, from here and there, with hardly any buffer.
async fn ways(mut trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, SOME).await?;
    odd::append_odd(&stage, 2, 0).await?;
    let range = whole(&stage, SOME).await?;
    let other = trial.on(&stage.name).await?;
    let mut ways = 0;
    for stage in [&stage, &other] {
        for buffer in [1, 64, 1 << 22] {
            let open = || {
                let until = Until::Through(range.to.clone());
                stage.topic.replay(&range.from).until(until).buffer(buffer)
            };
            let mut replay = open().await.during("opening a replay")?;
            let mut records = Vec::new();
            while let Some(batch) = replay.next_batch().await.during("reading batches")? {
                records.extend(batch);
            }
            range.is_equal(&format!("in batches, buffer {buffer}"), &records)?;
            let mut replay = open().await.during("opening a replay")?;
            let mut records = Vec::new();
            while let Some(signal) = replay.next_signal().await.during("reading signals")? {
                if let Signal::Record(record) = signal {
                    records.push(record);
                }
            }
            range.is_equal(&format!("by signals, buffer {buffer}"), &records)?;
            ways += 2;
        }
        // The same part twice, from a drawn place to another one.
        let halves = trial.rng.usize(1..SOME);
        let mut replay = stage.topic.replay(&range.from).await?;
        let mut before = Vec::new();
        for _ in 0..halves {
            before.extend(replay.next().await.during("reading a part")?);
        }
        let middle = replay.cursor().clone();
        let until = || Until::Through(range.to.clone());
        let one = stage.read(&middle, until()).await?.records;
        let two = stage.read(&middle, until()).await?.records;
        readings::same(
            "the second of two readings from the middle",
            &readings::parts(&two),
            &readings::parts(&one),
        )?;
        before.extend(two);
        range.is_equal("read in two parts", &before)?;
        ways += 1;
    }
    // From the other start, where there is one.
    for start in [Start::Beginning, Start::Earliest] {
        let offered = stage
            .capabilities()
            .starts
            .known()
            .is_some_and(|s| match start {
                Start::Beginning => s.beginning,
                _ => s.earliest,
            });
        if offered {
            let read = stage.read(start.clone(), Until::Through(range.to.clone()));
            range.is_equal(&format!("from {start:?}"), &read.await?.records)?;
            ways += 1;
        }
    }
    Ok(Counts::new()
        .of("records", range.records, SOME)
        .of("readings", ways, 12))
}

async fn while_others_append(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, SOME).await?;
    let range = whole(&stage, SOME).await?;
    let writer = trial.on(&stage.name).await?;
    let bound = Bound::Through(range.to.clone());
    let mut appended = 0;
    let mut read = 0;
    for rooms in ROOMS {
        let mut records = Vec::new();
        for mut reader in readings::raw_readers(&stage, &range.from, &bound, None, rooms).await? {
            let mut turns = 0;
            while !reader.over {
                reader.turn(&trial).await?;
                // Between any two fetches at first, now and then later.
                if turns < 10 || turns % 50 == 0 {
                    readings::append_varied(&writer, 2, appended, 3).await?;
                    appended += 3;
                }
                turns += 1;
            }
            records.append(&mut reader.records);
        }
        range.is_equal(
            &format!("appended to, read with {:?}", rooms.first()),
            &records,
        )?;
        read += 1;
    }
    let mut replay = stage
        .topic
        .replay(&range.from)
        .until(Until::Through(range.to.clone()))
        .buffer(1)
        .await?;
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading")? {
        records.push(record);
        if records.len() % 20 == 0 {
            readings::append_varied(&writer, 2, appended, 3).await?;
            appended += 3;
        }
    }
    range.is_equal("appended to, read through core", &records)?;
    Ok(Counts::new()
        .of("records", range.records, SOME)
        .of("readings", read + 1, ROOMS.len() + 1)
        .of("records appended meanwhile", appended, 30))
}

async fn grown(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 1, 0, SOME / 2).await?;
    readings::reshape(&trial, &stage, 0).await?;
    readings::append_varied(&stage, 1, SOME / 2, SOME / 2).await?;
    let range = whole(&stage, SOME).await?;
    // Its partitions change too, where they do.
    readings::reshape(&trial, &stage, 1).await?;
    readings::append_varied(&stage, 1, SOME, 3 * SOME).await?;
    let other = trial.on(&stage.name).await?;
    let read = range.raw(&trial, &other, ROOMS).await?;
    range.cooked(&other).await?;
    range.cooked(&stage).await?;
    Ok(Counts::new()
        .of("records", range.records, SOME)
        .of("readings", read + 2, ROOMS.len()))
}

async fn again(trial: Trial, what: Disturb) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    odd::append_odd(&stage, 2, 0).await?;
    readings::append_varied(&stage, 1, 0, SOME).await?;
    let range = whole(&stage, SOME).await?;
    let mut read = 0;
    let mut appended = SOME;
    for _ in 0..2 {
        trial.disturb(&stage.name, what.clone()).await?;
        let next = trial.on(&stage.name).await?;
        range.cooked(&next).await?;
        read += 1 + range.raw(&trial, &next, PAGES).await?;
        readings::append_varied(&next, 1, appended, 20).await?;
        appended += 20;
        range.cooked(&next).await?;
    }
    Ok(Counts::new()
        .of("records", range.records, SOME)
        .of("readings", read, 4))
}

async fn fetches_fail(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, SOME).await?;
    let range = whole(&stage, SOME).await?;
    let before = trial.fired();
    for fault in [
        Fault::Disconnect,
        Fault::Disconnect,
        Fault::Disconnect,
        Fault::Lose { done: true },
        Fault::Lose { done: false },
        Fault::Throttle(std::time::Duration::from_millis(10)),
    ] {
        trial
            .disturb(&stage.name, Disturb::Fault(Call::Fetch, fault))
            .await?;
    }
    range.cooked(&stage).await?;
    for (failures, rooms) in [(1, ROOMS.first()), (2, ROOMS.get(1))] {
        let Some(rooms) = rooms else { continue };
        let bound = Bound::Through(range.to.clone());
        let mut records = Vec::new();
        for mut reader in readings::raw_readers(&stage, &range.from, &bound, None, rooms).await? {
            for _ in 0..failures {
                reader.until(&trial, reader.records.len() + 10).await?;
                let lost = Disturb::Fault(Call::Fetch, Fault::Lose { done: true });
                trial.disturb(&stage.name, lost).await?;
            }
            reader.out(&trial).await?;
            records.append(&mut reader.records);
        }
        range.is_equal("read below core through failures", &records)?;
    }
    trial.disturb(&stage.name, Disturb::Heal).await?;
    Ok(Counts::new()
        .of("records", range.records, SOME)
        .of("failures", trial.fired() - before, 6))
}
