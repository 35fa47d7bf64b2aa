//! *End*: the end lies behind what was acknowledged before it was asked for, and never goes back; a
//! replay up to it ends.

use std::collections::BTreeMap;

use annals_core::capability::Tail;
use annals_core::driver::Stop as Bound;
use annals_core::{Cursor, Frontier, PartitionId, Position, Start, Until};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure, read_out};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, ROOMS};

const SOME: usize = 30;

pub(crate) fn law() -> Law {
    Law::new(
        "end",
        "the end is at or behind what was acknowledged before it was asked for and never goes back; a bounded replay ends",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        starts.is_some_and(|starts| starts.beginning || starts.earliest)
    })
    .case("as others ask for it", asked)
    .case("where partitions split and merge, if they do", reshaped)
    .case("of a replay while writers go on", chased)
    .case("of a topic that is empty", empty)
    .fault("after restarts", |trial| disturbed(trial, Disturb::Restart))
    .fault("after kills", |trial| disturbed(trial, Disturb::Kill))
    .fault("after trims", trimmed)
    .refusal("what cannot be replayed says so", readings::starts_refused)
}

/// What is known of a topic's end.
#[derive(Default)]
struct Known {
    /// The newest place of each partition that a receipt named, and its value.
    acknowledged: BTreeMap<PartitionId, (Position, String)>,
    /// Values without a place.
    placeless: Vec<String>,
    last: Option<Cursor>,
    asked: usize,
    turn: usize,
    /// A replay may find nothing any more to end behind.
    trimmed: bool,
}

impl Known {
    async fn append(&mut self, stage: &Stage, from: usize, records: usize) -> Judged<()> {
        let batch: annals_core::Batch = readings::varied(1, from, records).into_iter().collect();
        let values = workload::offered(&batch);
        let appended = match stage.topic.append(batch).await {
            Err(error) if error.kind() == annals_core::ErrorKind::Unsupported => {
                let batch = workload::batch(1, from, records, 5);
                stage.topic.append(batch).await.during("appending")?
            }
            told => told.during("appending")?,
        };
        for (value, stored) in values.into_iter().zip(appended.records()) {
            let Some(position) = stored.position else {
                self.placeless.push(value);
                continue;
            };
            let newest = self.acknowledged.entry(position.partition());
            let newest = newest.or_insert_with(|| (position, value.clone()));
            if position > newest.0 {
                *newest = (position, value);
            }
        }
        Ok(())
    }

    /// Asks for the end in every way that there is; each answer is the newest so far.
    async fn ask(&mut self, stage: &Stage) -> Judged<()> {
        let told = stage.topic.end().await;
        let tail = stage.capabilities().tail.known().copied();
        if !matches!(tail, Some(Tail::Exact | Tail::Observed)) {
            self.asked += 1;
            return readings::refused("the end of a topic without one", told.map(drop));
        }
        self.judge("the end", told.during("asking for the end")?, stage)
            .await?;
        // Not always in the same ways, which might be answered in turns.
        self.turn += 1;
        if self.turn.is_multiple_of(3) {
            return Ok(());
        }
        let latest = stage.backend.locate(&stage.name, &Start::Latest).await?;
        self.judge("the place of Latest", latest, stage).await?;
        if let Some(admin) = stage.backend.admin() {
            let described = admin.describe(&stage.name).await.during("describing")?;
            if let Some(end) = described.end {
                self.judge("the end as described", end, stage).await?;
            }
        }
        Ok(())
    }

    async fn judge(&mut self, what: &str, end: Cursor, stage: &Stage) -> Judged<()> {
        self.asked += 1;
        let listed = stage.backend.partitions(&stage.name).await?;
        let is_open = |id: PartitionId| listed.iter().any(|p| p.id == id && p.open);
        for (position, value) in self.acknowledged.values() {
            let covers = match end.covers(position) {
                // Of one that is not named: it is read to its end, or a moment says it.
                None => {
                    end.frontier(position.partition()).is_some() || !is_open(position.partition())
                }
                Some(covers) => covers,
            };
            ensure(covers, || {
                format!("{what} is {end}, before {value:?} at {position}, which was acknowledged")
            })?;
        }
        if let Some(last) = &self.last {
            for (id, old) in last.places() {
                let back = match (old, end.frontier(id)) {
                    (
                        Frontier::After { position: old, .. },
                        Some(Frontier::After { position, .. }),
                    ) => position < old,
                    (Frontier::Since(old), Some(Frontier::Since(new))) => new < old,
                    (Frontier::After { .. }, Some(Frontier::Start { .. })) => true,
                    (Frontier::Ended { .. }, Some(new)) => !new.is_ended(),
                    (Frontier::After { .. }, None) => is_open(id),
                    _ => false,
                };
                ensure(!back, || format!("{what} went back from {last} to {end}"))?;
            }
        }
        self.last = Some(end);
        Ok(())
    }

    /// A replay up to the end ends, and the end is behind what had been acknowledged.
    async fn replay_ends(&mut self, trial: &Trial, stage: &Stage) -> Judged<()> {
        let replay = stage.topic.replay(readings::first(stage)).await;
        let replay = replay.during("opening a replay")?;
        let reading = trial
            .soon("a replay to the end", read_out(replay))
            .await??;
        let end = reading
            .cursor
            .ok_or_else(|| Stop::broken("a replay has no cursor"))?;
        for (position, value) in self.acknowledged.values() {
            ensure(self.trimmed || end.covers(position) != Some(false), || {
                format!("a replay to the end stopped at {end}, before {value:?} at {position}")
            })?;
        }
        if !self.trimmed && !self.placeless.is_empty() {
            let read = workload::texts(&reading.records);
            let missing = self.placeless.iter().find(|value| !read.contains(value));
            ensure(missing.is_none(), || {
                format!("a replay to the end stopped before {missing:?}, which was acknowledged")
            })?;
        }
        Ok(())
    }
}

async fn asked(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let others = [trial.on(&stage.name).await?, trial.on(&stage.name).await?];
    let mut known = Known::default();
    for client in &others {
        known.ask(client).await?;
    }
    for round in 0..SOME {
        let records = if round == SOME / 2 {
            150
        } else {
            1 + round % 4
        };
        known.append(&stage, round * 200, records).await?;
        // In turns, so that one of them asks for the first time when there is much already.
        for client in others.iter().skip(round % 2) {
            known.ask(client).await?;
        }
        if round % 10 == 9 {
            known.ask(&stage).await?;
            for client in &others {
                known.replay_ends(&trial, client).await?;
            }
        }
    }
    // Through it lies all that was acknowledged.
    let newest = known.acknowledged.len();
    if let Some(end) = known.last.clone()
        && stage.capabilities().starts.known().is_some_and(|s| s.after)
    {
        let until = Until::Through(end);
        let read = trial.soon(
            "a replay through the end",
            stage.read(readings::first(&stage), until),
        );
        let read = workload::texts(&read.await??.records);
        for (_, value) in known.acknowledged.values() {
            ensure(read.contains(value), || {
                format!(
                    "a replay through the end holds no {value:?}, which was acknowledged before"
                )
            })?;
        }
    }
    Ok(Counts::new()
        .of("times it was asked for", known.asked, SOME)
        .of(
            "partitions or records known",
            newest + known.placeless.len(),
            1,
        ))
}

async fn reshaped(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let other = trial.on(&stage.name).await?;
    let mut known = Known::default();
    for step in 0..4 {
        known.append(&stage, step * 40, 20).await?;
        known.ask(&other).await?;
        readings::reshape(&trial, &stage, step).await?;
        known.ask(&other).await?;
        known.replay_ends(&trial, &other).await?;
        known.append(&stage, step * 40 + 20, 5).await?;
        known.ask(&stage).await?;
    }
    Ok(Counts::new().of("times it was asked for", known.asked, 8))
}

/// For each record that is read one more is appended.
async fn chased(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let writer = trial.on(&stage.name).await?;
    let mut known = Known::default();
    known.append(&stage, 0, SOME).await?;
    let mut number = SOME;
    let mut ended = 0;
    for buffer in [1, 1 << 22] {
        let at_open = number;
        let open = stage.topic.replay(readings::first(&stage)).buffer(buffer);
        let mut replay = open.await.during("opening a replay")?;
        let mut read = 0;
        while trial
            .soon("a record", replay.next())
            .await?
            .during("reading")?
            .is_some()
        {
            known.append(&writer, number, 1).await?;
            number += 1;
            read += 1;
            ensure(read <= 3 * at_open + 50, || {
                format!(
                    "of {at_open} records at the open {read} were read, and there is no end while others append"
                )
            })?;
        }
        ended += 1;
    }
    for rooms in ROOMS {
        let from = stage
            .backend
            .locate(&stage.name, &readings::first(&stage))
            .await?;
        let at_open = number;
        for mut reader in readings::raw_readers(&stage, &from, &Bound::End, None, rooms).await? {
            let mut turns = 0;
            while !reader.over {
                reader.turn(&trial).await?;
                known.append(&writer, number, 2).await?;
                number += 2;
                turns += 1;
                ensure(turns <= 3 * at_open + 100, || {
                    format!(
                        "below core, {turns} fetches of {at_open} records met no end while others append"
                    )
                })?;
            }
            ended += 1;
        }
    }
    known.ask(&writer).await?;
    Ok(Counts::new()
        .of("replays that ended", ended, 2 + ROOMS.len())
        .of("records appended meanwhile", number - SOME, SOME))
}

async fn empty(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let mut known = Known::default();
    known.ask(&stage).await?;
    known.replay_ends(&trial, &stage).await?;
    known.ask(&stage).await?;
    // Asked for before anything was there, the end is not for ever.
    known.append(&stage, 0, 1).await?;
    known.ask(&stage).await?;
    known.replay_ends(&trial, &stage).await?;
    Ok(Counts::new().of("times it was asked for", known.asked, 3))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let mut stage = readings::several(&trial, 3).await?;
    let mut known = Known::default();
    for life in 0..4 {
        known.append(&stage, life * 30, 10 + life).await?;
        if life % 2 == 0 {
            known.ask(&stage).await?;
        }
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
        known.ask(&stage).await?;
        known.replay_ends(&trial, &stage).await?;
    }
    Ok(Counts::new()
        .of("times it was asked for", known.asked, 6)
        .of("lives", 4, 4))
}

async fn trimmed(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let other = trial.on(&stage.name).await?;
    let mut known = Known::default();
    for (round, keep) in [5, 0, 1].into_iter().enumerate() {
        known.append(&stage, round * 40, 30).await?;
        known.ask(&other).await?;
        trial.disturb(&stage.name, Disturb::Trim { keep }).await?;
        known.trimmed = true;
        known.ask(&other).await?;
        known.ask(&trial.on(&stage.name).await?).await?;
        known.replay_ends(&trial, &other).await?;
    }
    Ok(Counts::new().of("times it was asked for", known.asked, 9))
}
