//! The fence of appends.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::Batching;
use annals_core::driver::{AppendOptions, Expect};
use annals_core::{Error, ErrorKind, Outcome, Record, Start, Until};

use crate::harness::{Disturb, Want};
use crate::law::Shape;
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

fn of_epoch(epoch: u64) -> AppendOptions {
    AppendOptions {
        epoch: Some(epoch),
        ..AppendOptions::default()
    }
}

/// A refusal by the fence, in whole: as an error, or of every record.
fn refused(told: Result<Vec<Outcome>, Error>) -> Result<(), String> {
    let is_fence = |error: &Error| error.kind() == ErrorKind::Fenced;
    match told {
        Err(error) if is_fence(&error) => Ok(()),
        Ok(outcomes)
            if outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Rejected(e) if is_fence(e))) =>
        {
            Ok(())
        }
        told => Err(format!("is answered with {told:?}, not refused as fenced")),
    }
}

async fn attempt(
    stage: &Stage,
    records: Vec<Record>,
    options: &AppendOptions,
) -> Result<Vec<Outcome>, Error> {
    let report = stage
        .backend
        .append(&stage.name, &records.into(), options)
        .await?;
    Ok(report.into_outcomes())
}

/// An old epoch with all that an append may ask for besides, as far as the topic offers it.
fn ways(stage: &Stage, epoch: u64) -> Vec<(&'static str, AppendOptions)> {
    let plain = of_epoch(epoch);
    let append = &stage.capabilities().append;
    let mut ways = vec![("an append", plain.clone())];
    let holes = AppendOptions {
        allow_holes: true,
        deadline: Some(Duration::from_secs(5)),
        ..plain.clone()
    };
    ways.push(("an append that allows holes", holes));
    if append.batch.is(&Batching::Atomic) {
        let atomic = AppendOptions {
            atomic: true,
            ..plain.clone()
        };
        ways.push(("an atomic append", atomic));
    }
    if append.conditional.is(&true) {
        // A condition that holds: nothing but the epoch speaks against it.
        let expect = Expect::KeyAt {
            key: "z".into(),
            last: None,
        };
        let conditional = AppendOptions {
            expect: Some(expect),
            ..plain
        };
        ways.push(("a conditional append", conditional));
    }
    ways
}

/// A writer with a newer epoch has appended: the one with the old epoch stores nothing, by core and
/// beside it, from its own client and from new ones; the new one goes on.
pub(super) async fn appends(trial: Trial, what: Option<Disturb>) -> Judged {
    let mut old = trial.stage(&Want::default()).await?;
    if !old.capabilities().append.fenced.is(&true) {
        return no_epochs(&trial, &old).await;
    }
    let free = trial.stage(&Want::default()).await?;
    let mut new = trial.on(&old.name).await?;
    let mut stored = Vec::new();
    let mut append = async |stage: &Stage, value: &str, epoch: u64| {
        let record = Record::new(value).key("k");
        stage
            .topic
            .append(record)
            .epoch(epoch)
            .await
            .during("an append of the newest epoch")?;
        stored.push(value.to_owned());
        Ok::<_, Stop>(())
    };
    append(&old, "old-1", 7).await?;
    append(&old, "old-2", 7).await?;
    // The same epoch is no newer one: two writers that agree do not fence each other.
    append(&new, "same", 7).await?;
    append(&new, "new-1", 9).await?;
    let name = old.name.clone();
    if let Some(what) = what {
        trial.disturb(&name, what).await?;
        old = trial.on(&name).await?;
        new = trial.on(&name).await?;
    }
    let mut fenced = 0;
    for round in 0..3 {
        for (stage, epoch) in [(&old, 7), (&new, 8), (&old, 0)] {
            let value = format!("zombie-{round}-{epoch}");
            for (what, options) in ways(stage, epoch) {
                let records = vec![
                    Record::new(format!("{value}-raw")).key("z"),
                    Record::new(format!("{value}-raw-2")),
                ];
                refused(attempt(stage, records, &options).await).map_err(|said| {
                    Stop::Broken(format!(
                        "{what} of epoch {epoch} after one of epoch 9 {said}"
                    ))
                })?;
                fenced += 1;
            }
            let told = stage.topic.append(Record::new(value)).epoch(epoch).await;
            let kind = told.err().map(|error| error.kind());
            ensure(kind == Some(ErrorKind::Fenced), || {
                format!(
                    "an append of epoch {epoch} after one of epoch 9 is answered with {kind:?}, not refused as fenced"
                )
            })?;
            fenced += 1;
        }
        append(&new, &format!("new-2-{round}"), 9).await?;
    }
    append(&old, "newest", 12).await?;
    let told = attempt(&new, vec![Record::new("zombie-new")], &of_epoch(9)).await;
    refused(told).map_err(|said| {
        Stop::Broken(format!("an append of epoch 9 after one of epoch 12 {said}"))
    })?;
    // A fence is its topic's own.
    let free = trial.on(&free.name).await?;
    free.topic
        .append(Record::new("free"))
        .epoch(1)
        .await
        .during("an append to another topic")?;
    let read = old.read(Start::Beginning, Until::End).await?;
    let read = workload::texts(&read.records);
    let read: BTreeSet<String> = read.into_iter().collect();
    let stored: BTreeSet<String> = stored.into_iter().collect();
    let (zombie, lost) = (
        read.difference(&stored).next(),
        stored.difference(&read).next(),
    );
    ensure(zombie.is_none(), || {
        format!("{zombie:?} was refused by the fence, and is read")
    })?;
    ensure(lost.is_none(), || {
        format!("{lost:?} was stored with the newest epoch, and is not read")
    })?;
    Ok(Counts::new()
        .of("appends", stored.len(), 8)
        .of("fenced appends", fenced, 18))
}

/// Where epochs are not claimed, an append that carries one is refused and stores nothing.
pub(super) async fn no_epochs(trial: &Trial, stage: &Stage) -> Judged {
    let told = attempt(stage, vec![Record::new("epoch-raw")], &of_epoch(1)).await;
    let raw = told.as_ref().err().map(Error::kind);
    let told = stage.topic.append(Record::new("epoch")).epoch(1).await;
    let kind = told.err().map(|error| error.kind());
    for kind in [raw, kind] {
        ensure(kind == Some(ErrorKind::Unsupported), || {
            format!("an epoch is answered with {kind:?}, not refused")
        })?;
    }
    if Shape::of(stage.capabilities()) == Shape::Queue {
        let (stage, group) = groups::staged(trial, "no-epochs").await?;
        let told = attempt(&stage, vec![Record::new("epoch-raw")], &of_epoch(1)).await;
        ensure(told.is_err(), || {
            format!("an epoch is answered with {told:?}, not refused")
        })?;
        stage
            .topic
            .append(Record::new("marker"))
            .await
            .during("appending")?;
        let seen = workload::delivered(trial, &stage, &group, &["marker".to_owned()]).await?;
        ensure(seen.len() == 1, || {
            format!("{:?} came, which was refused", workload::texts(&seen))
        })?;
    } else {
        let seen = stage.read_all().await?;
        ensure(seen.is_empty(), || {
            format!("{:?} is read, which was refused", workload::texts(&seen))
        })?;
    }
    Ok(Counts::new().of("refusals", 2, 2))
}
