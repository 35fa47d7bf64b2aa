//! *Lineage*: what continues a partition comes behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::Partitions;
use annals_core::driver::{Fetched, Partition, Stop as Bound};
use annals_core::{ErrorKind, PartitionId, Recorded, Start, Until};

use super::{Law, Shape};
use crate::harness::{Call, Disturb, Fault, Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::readings::{self, ROOMS};
use crate::workload::{self, groups, sights};

const GROUP: &str = "lineage";
/// Enough that each partition gets some.
const KEYS: usize = 40;
/// How far a parent lags behind.
const LAG: usize = 150;
/// So often is looked for what a split or a merge has made.
const LOOKS: usize = 100;

pub(crate) fn law() -> Law {
    Law::new(
        "lineage",
        "a partition comes only after all that it continues, keys stay in order across them, and every partition is reached",
        &[Shape::Sharded],
    )
    .claimed_by(|has| has.partitions.is(&Partitions::Lineage))
    .case("every partition is reached", unchanged)
    .case("of partitions that split and merge", reshaped)
    .case("with the first parent lagging", |trial| lagging(trial, 0))
    .case("with the second parent lagging", |trial| lagging(trial, 1))
    .case("for a member that holds a record of the first parent", |trial| held(trial, 0))
    .case("for a member that holds a record of the second parent", |trial| held(trial, 1))
    .case("for those who were there before", there_before)
    .fault("though fetches fail", fetches_fail)
    .fault("after a restart", |trial| {
        disturbed(trial, Disturb::Restart)
    })
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
    .refusal("partitions stay what they are", constant)
}

/// What was done to the partitions, and which were seen.
#[derive(Default)]
struct Family {
    /// Of each partition that was made: what it continues.
    parents: BTreeMap<PartitionId, BTreeSet<PartitionId>>,
    reshapes: usize,
    number: usize,
    /// The partitions that took a record, by its value.
    places: BTreeMap<String, PartitionId>,
}

impl Family {
    /// Appends so many records over all keys; each value has a number of its writer.
    async fn append(&mut self, stage: &Stage, records: usize, keys: &[String]) -> Judged<()> {
        let batch: annals_core::Batch = (0..records)
            .map(|at| {
                let record = annals_core::Record::new(workload::value(1, self.number + at));
                match keys.get(at % keys.len().max(1)) {
                    Some(key) => record.key(key.clone()),
                    None => record,
                }
            })
            .collect();
        self.number += records;
        let values = workload::offered(&batch);
        let appended = stage.topic.append(batch).await.during("appending")?;
        for (value, stored) in values.into_iter().zip(appended.records()) {
            let position = stored.position.map(|position| position.partition());
            if let Some(partition) = stored.partition.or(position) {
                self.places.insert(value, partition);
            }
        }
        Ok(())
    }

    /// Splits or merges, and finds what came of it in the listing.
    async fn reshape(&mut self, trial: &Trial, stage: &Stage, what: Disturb) -> Judged<()> {
        let (parents, made): (BTreeSet<PartitionId>, usize) = match &what {
            Disturb::Split(one) => ([*one].into(), 2),
            Disturb::Merge(one, other) => ([*one, *other].into(), 1),
            _ => return Ok(()),
        };
        let before: BTreeSet<PartitionId> = stage.partitions().await?.into_iter().collect();
        trial.disturb(&stage.name, what.clone()).await?;
        let mut looks = 0;
        let listed = loop {
            let listed = stage.backend.partitions(&stage.name).await;
            let listed = listed.during("listing the partitions")?;
            let new = listed.iter().filter(|p| !before.contains(&p.id)).count();
            if new >= made {
                break listed;
            }
            looks += 1;
            ensure(looks < LOOKS, || {
                format!("{what:?} made {new} partitions that are listed, not {made}")
            })?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for partition in listed.iter().filter(|p| !before.contains(&p.id)) {
            self.parents.insert(partition.id, parents.clone());
        }
        self.reshapes += 1;
        self.are_known(&listed, "the listing")?;
        for partition in &listed {
            ensure(!partition.open || !parents.contains(&partition.id), || {
                format!(
                    "the listing calls partition {} open, behind {what:?}",
                    partition.id
                )
            })?;
        }
        Ok(())
    }

    /// Whether partitions are said to continue what they do.
    fn are_known(&self, listed: &[Partition], by: &str) -> Judged<()> {
        for partition in listed {
            let said: BTreeSet<PartitionId> = partition.parents.iter().copied().collect();
            let made = self.parents.get(&partition.id).cloned().unwrap_or_default();
            ensure(said == made, || {
                format!(
                    "{by}: partition {} continues {made:?}, and is said to continue {said:?}",
                    partition.id
                )
            })?;
        }
        Ok(())
    }

    fn children(&self, of: PartitionId) -> BTreeSet<PartitionId> {
        let children = self.parents.iter();
        let children = children.filter(|(_, parents)| parents.contains(&of));
        children.map(|(child, _)| *child).collect()
    }

    /// Whether what was read, or handed out, in this order keeps the law.
    fn is_kept(&self, by: &str, records: &[Recorded]) -> Judged<()> {
        // Where each partition begins and ends in it, by first occurrences.
        let mut seen = BTreeSet::new();
        let mut spans: BTreeMap<PartitionId, (usize, usize, String)> = BTreeMap::new();
        let mut first: BTreeMap<PartitionId, String> = BTreeMap::new();
        let mut keys: BTreeMap<&[u8], (usize, String)> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            let text = workload::text(record);
            if !seen.insert(text.clone()) {
                continue;
            }
            if let Some(position) = record.position() {
                let partition = position.partition();
                first.entry(partition).or_insert_with(|| text.clone());
                let span = spans.entry(partition).or_insert((at, at, text.clone()));
                *span = (span.0, at, text.clone());
            }
            let number = text.strip_prefix("w1-").and_then(|n| n.parse().ok());
            if let (Some(key), Some(number)) = (record.key(), number)
                && let Some((before, later)) = keys.insert(key, (number, text.clone()))
            {
                ensure(before < number, || {
                    format!(
                        "{by}: {text:?} came behind {later:?}, which was written later with the same key"
                    )
                })?;
            }
        }
        for (child, parents) in &self.parents {
            let Some((begins, _, _)) = spans.get(child) else {
                continue;
            };
            for parent in parents {
                let Some((_, ends, last)) = spans.get(parent) else {
                    continue;
                };
                ensure(ends < begins, || {
                    format!(
                        "{by}: {:?} of partition {child} came before {last:?} of partition {parent}, which it continues",
                        first.get(child)
                    )
                })?;
            }
        }
        let taken: BTreeSet<PartitionId> = self.places.values().copied().collect();
        for partition in &taken {
            ensure(spans.contains_key(partition), || {
                let of = self.places.iter().find(|(_, at)| *at == partition);
                format!("{by}: nothing of partition {partition} came, {of:?} is there")
            })?;
        }
        Ok(())
    }

    /// Everybody looks: by replays, in halves, below core, by a group.
    async fn judged(&self, trial: &Trial, stage: &Stage, reshapes: usize) -> Judged {
        let other = trial.on(&stage.name).await?;
        let first = readings::first(stage);
        let mut readings = 0;
        for by in [stage, &other] {
            for buffer in [1, 1 << 20] {
                let replay = by.topic.replay(first.clone()).buffer(buffer).await;
                let replay = replay.during("opening a replay")?;
                let read = crate::trial::read_out(replay).await?.records;
                self.is_kept(&format!("by a replay, buffer {buffer}"), &read)?;
                readings += 1;
            }
        }
        if stage.capabilities().starts.known().is_some_and(|s| s.after) {
            for part in 1..4 {
                let mut replay = stage.topic.replay(first.clone()).await?;
                let mut read = Vec::new();
                while read.len() < self.number * part / 4 {
                    let Some(record) = replay.next().await.during("reading")? else {
                        break;
                    };
                    read.push(record);
                }
                let cursor = replay.cursor().clone();
                let rest = other.read(Start::After(cursor), Until::End).await?;
                read.extend(rest.records);
                self.is_kept("by a replay that went on from a cursor", &read)?;
                readings += 1;
            }
        }
        self.raw(trial, &other).await?;
        if sights::has_groups(stage) {
            let values: Vec<String> = (0..self.number).map(|n| workload::value(1, n)).collect();
            let taken = workload::delivered(trial, &other, GROUP, &values).await?;
            self.is_kept("by a group", &taken)?;
            readings += 1;
        }
        let partitions: BTreeSet<PartitionId> = self.places.values().copied().collect();
        Ok(Counts::new()
            .of("readings", readings, 4)
            .of("splits and merges", self.reshapes, reshapes)
            .of("partitions with records", partitions.len(), 2 + reshapes))
    }

    /// What a reader of one partition says at its end.
    async fn raw(&self, trial: &Trial, stage: &Stage) -> Judged<()> {
        let listed = stage.backend.partitions(&stage.name).await?;
        self.are_known(&listed, "the listing")?;
        let first = readings::first(stage);
        let from = stage.backend.locate(&stage.name, &first).await?;
        let Some(rooms) = ROOMS.get(1) else {
            return Ok(());
        };
        for mut raw in readings::raw_readers(stage, &from, &Bound::End, None, rooms).await? {
            raw.out(trial).await?;
            for (_, said) in &raw.said {
                let Fetched::PartitionEnded {
                    partition,
                    children,
                    ..
                } = said
                else {
                    continue;
                };
                let told: BTreeSet<PartitionId> = children.iter().map(|c| c.id).collect();
                let made = self.children(*partition);
                ensure(told == made, || {
                    format!(
                        "at its end partition {partition} names {told:?} as what continues it, {made:?} do"
                    )
                })?;
                self.are_known(children, "at a partition's end")?;
            }
        }
        Ok(())
    }
}

fn all_keys() -> Vec<String> {
    (0..KEYS).map(|key| format!("k{key}")).collect()
}

async fn staged(trial: &Trial, partitions: u32) -> Judged<Stage> {
    let want = Want {
        partitions: Some(partitions),
        ..Want::groups(&[GROUP])?
    };
    trial.stage(&want).await
}

/// The first open partition is split, or two that came of one split are merged.
async fn next_shape(stage: &Stage, step: usize) -> Judged<Option<Disturb>> {
    let listed = stage.backend.partitions(&stage.name).await?;
    let mut open = listed.iter().filter(|partition| partition.open);
    if step.is_multiple_of(2) {
        // Now one from the front, now one from the end.
        let one = if step.is_multiple_of(4) {
            open.next()
        } else {
            open.next_back()
        };
        return Ok(one.map(|one| Disturb::Split(one.id)));
    }
    let mut siblings = open.filter(|partition| !partition.parents.is_empty());
    let one = siblings.next();
    let other = siblings.find(|other| one.is_some_and(|one| one.parents == other.parents));
    Ok(one
        .zip(other)
        .map(|(one, other)| Disturb::Merge(one.id, other.id)))
}

async fn unchanged(trial: Trial) -> Judged {
    let stage = staged(&trial, 4).await?;
    let mut family = Family::default();
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    family.judged(&trial, &stage, 0).await
}

async fn reshaped(trial: Trial) -> Judged {
    let stage = staged(&trial, 2).await?;
    let mut family = Family::default();
    for step in 0..6 {
        family.append(&stage, 2 * KEYS, &all_keys()).await?;
        if let Some(what) = next_shape(&stage, step).await? {
            family.reshape(&trial, &stage, what).await?;
        }
    }
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    family.judged(&trial, &stage, 4).await
}

/// Of two neighbours one has far more records than the other, and what continues both has some.
async fn lagging(trial: Trial, which: usize) -> Judged {
    let stage = staged(&trial, 2).await?;
    let mut family = Family::default();
    family.append(&stage, KEYS, &all_keys()).await?;
    let partitions = stage.partitions().await?;
    let (Some(one), Some(other)) = (partitions.first(), partitions.get(1)) else {
        return Err(Stop::NotExercised("there are no two partitions".into()));
    };
    let slow = if which == 0 { one } else { other };
    // Where its keys lie is known from receipts, or from a reading.
    let read = stage.read_all().await?;
    let keys: BTreeSet<String> = read
        .iter()
        .filter(|record| record.position().is_some_and(|at| at.partition() == *slow))
        .filter_map(|record| record.key_str().ok().flatten().map(str::to_owned))
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    ensure(!keys.is_empty(), || {
        format!("none of {KEYS} keys lies in {slow}")
    })?;
    family.append(&stage, LAG, &keys).await?;
    family
        .reshape(&trial, &stage, Disturb::Merge(*one, *other))
        .await?;
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    family.judged(&trial, &stage, 1).await
}

/// As long as a record of a parent is not settled, the parent has not ended for the group.
async fn held(trial: Trial, which: usize) -> Judged {
    let stage = staged(&trial, 2).await?;
    if !sights::has_groups(&stage) {
        return Err(Stop::NotExercised("there are no groups".into()));
    }
    let mut family = Family::default();
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    let partitions = stage.partitions().await?;
    let (Some(one), Some(other)) = (partitions.first(), partitions.get(1)) else {
        return Err(Stop::NotExercised("there are no two partitions".into()));
    };
    let slow = if which == 0 { *one } else { *other };
    family
        .reshape(&trial, &stage, Disturb::Merge(*one, *other))
        .await?;
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    let subscription = stage.topic.subscribe(GROUP).await.during("subscribing")?;
    // Long enough for a commit and whatever it sets off.
    let wait = match trial.harness().time() {
        Time::Virtual => Duration::from_secs(20),
        Time::Real => Duration::from_secs(2),
    };
    let mut kept = None;
    let mut meanwhile = 0;
    let mut open: BTreeSet<String> = (0..family.number)
        .map(|number| workload::value(1, number))
        .collect();
    while let Ok(delivery) = groups::perhaps(&subscription, wait).await? {
        let at = delivery.position().map(|position| position.partition());
        open.remove(&workload::text(&delivery));
        if kept.is_none() && at == Some(slow) {
            kept = Some(delivery);
            continue;
        }
        if let (Some(kept), Some(at)) = (&kept, at)
            && family
                .parents
                .get(&at)
                .is_some_and(|parents| parents.contains(&slow))
        {
            return Err(Stop::broken(format!(
                "{:?} of partition {at} was handed out while {:?} of partition {slow}, which it continues, was not settled",
                workload::text(&delivery),
                workload::text(kept)
            )));
        }
        meanwhile += usize::from(kept.is_some());
        delivery.done();
    }
    let Some(kept) = kept else {
        return Err(Stop::broken(format!(
            "nothing of partition {slow} was handed out"
        )));
    };
    kept.done();
    let left: Vec<String> = open.into_iter().collect();
    let rest = workload::drain(&trial, &subscription, &left).await?;
    Ok(Counts::new()
        .of("deliveries while one was held", meanwhile, 1)
        .of("deliveries afterwards", rest.len(), KEYS))
}

/// A follower and a member that opened before the first split.
async fn there_before(trial: Trial) -> Judged {
    let stage = staged(&trial, 2).await?;
    let other = trial.on(&stage.name).await?;
    let mut family = Family::default();
    family.append(&stage, KEYS, &all_keys()).await?;
    let follow = other.topic.follow(readings::first(&other)).await;
    let mut feed = follow.during("opening a follower")?;
    let subscription = match other.topic.subscribe(GROUP).await {
        Ok(subscription) => Some(subscription),
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        Err(error) => return Err(error).during("subscribing"),
    };
    let mut read = Vec::new();
    let mut taken = Vec::new();
    for step in 0..5 {
        let before = family.number;
        family.append(&stage, 2 * KEYS, &all_keys()).await?;
        if let Some(what) = next_shape(&stage, step).await? {
            family.reshape(&trial, &stage, what).await?;
        }
        // Behind at times, and at times not.
        if step % 2 == 0 {
            continue;
        }
        let mut open: BTreeSet<String> = (0..family.number)
            .map(|number| workload::value(1, number))
            .collect();
        for record in &read {
            open.remove(&workload::text(record));
        }
        while !open.is_empty() {
            let told = trial.soon("a follower's next record", feed.next()).await?;
            let Some(record) = told.during("following")? else {
                return Err(Stop::broken("a follower ended by itself"));
            };
            open.remove(&workload::text(&record));
            read.push(record);
        }
        if let Some(subscription) = &subscription {
            let from = if step == 1 {
                0
            } else {
                before.saturating_sub(2 * KEYS)
            };
            let values: Vec<String> = (from..family.number)
                .map(|number| workload::value(1, number))
                .filter(|value| !taken.iter().any(|r| workload::text(r) == *value))
                .collect();
            taken.extend(workload::drain(&trial, subscription, &values).await?);
        }
    }
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    let last: Vec<String> = (0..family.number)
        .map(|number| workload::value(1, number))
        .collect();
    let mut open: BTreeSet<&String> = last.iter().collect();
    for record in &read {
        open.remove(&workload::text(record));
    }
    while !open.is_empty() {
        let told = trial.soon("a follower's next record", feed.next()).await?;
        let Some(record) = told.during("following")? else {
            return Err(Stop::broken("a follower ended by itself"));
        };
        open.remove(&workload::text(&record));
        read.push(record);
    }
    family.is_kept("by a follower that was there before", &read)?;
    if let Some(subscription) = &subscription {
        let open: Vec<String> = last
            .into_iter()
            .filter(|value| !taken.iter().any(|r| workload::text(r) == *value))
            .collect();
        taken.extend(workload::drain(&trial, subscription, &open).await?);
        family.is_kept("by a member that was there before", &taken)?;
    }
    Ok(Counts::new()
        .of("records followed", read.len(), 4 * KEYS)
        .of("splits and merges", family.reshapes, 3))
}

async fn fetches_fail(trial: Trial) -> Judged {
    let stage = staged(&trial, 2).await?;
    let mut family = Family::default();
    for step in 0..3 {
        family.append(&stage, 2 * KEYS, &all_keys()).await?;
        if let Some(what) = next_shape(&stage, step).await? {
            family.reshape(&trial, &stage, what).await?;
        }
    }
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    let before = trial.fired();
    for round in 0..4 {
        for fault in [
            Fault::Disconnect,
            Fault::Throttle(Duration::from_millis(10)),
            Fault::Lose { done: true },
            Fault::Disconnect,
        ] {
            let fault = Disturb::Fault(Call::Fetch, fault);
            trial.disturb(&stage.name, fault).await?;
        }
        let read = stage.read_all().await?;
        family.is_kept(&format!("by replay {round} whose fetches fail"), &read)?;
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    Ok(Counts::new()
        .of("failures", fired, 8)
        .of("splits and merges", family.reshapes, 2))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let mut stage = staged(&trial, 2).await?;
    let mut family = Family::default();
    for step in 0..4 {
        family.append(&stage, 2 * KEYS, &all_keys()).await?;
        if let Some(shape) = next_shape(&stage, step).await? {
            family.reshape(&trial, &stage, shape).await?;
        }
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
    }
    family.append(&stage, 2 * KEYS, &all_keys()).await?;
    family.judged(&trial, &stage, 3).await
}

/// None continues another, and the same ones are listed whoever asks, and whatever was appended.
async fn constant(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let mut listings = 0;
    let mut first: Option<BTreeSet<PartitionId>> = None;
    for round in 0..4 {
        for by in [&stage, &other] {
            let listed = match by.backend.partitions(&stage.name).await {
                Ok(listed) => listed,
                Err(error) if error.kind() == ErrorKind::Unsupported => Vec::new(),
                Err(error) => return Err(error).during("listing the partitions"),
            };
            let heir = listed
                .iter()
                .find(|partition| !partition.parents.is_empty());
            ensure(heir.is_none(), || {
                format!("no lineage is claimed, and {heir:?} continues others")
            })?;
            let ids: BTreeSet<PartitionId> = listed.iter().map(|partition| partition.id).collect();
            let before = first.get_or_insert_with(|| ids.clone());
            ensure(before.is_subset(&ids), || {
                format!("no lineage is claimed; {before:?} were listed, and now {ids:?} are")
            })?;
            listings += 1;
        }
        let batch = workload::batch(1, round * 20, 20, 7);
        drop(stage.topic.append(batch).await.during("appending")?);
    }
    Ok(Counts::new().of("listings", listings, 8))
}
