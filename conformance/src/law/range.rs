//! *Range*: a replay from behind one cursor through another holds what lies between, and nothing
//! else.

use std::collections::BTreeSet;

use annals_core::driver::Stop as Bound;
use annals_core::{Cursor, ErrorKind, Frontier, PartitionId, Recorded, Rest, Until};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::readings::{self, Parts, ROOMS, room};

/// As many places as there are pairs of in a quick moment.
const RECORDS: usize = 10;
/// More than any page.
const MANY: usize = 1_030;
/// Where pages may begin and end.
const EDGES: &[usize] = &[
    0, 1, 9, 10, 11, 99, 100, 101, 499, 500, 501, 999, 1_000, 1_001, 1_029, 1_030,
];
const PAGE: &[annals_core::driver::Room] = &[room(1_000, usize::MAX)];

pub(crate) fn law() -> Law {
    Law::new(
        "range",
        "a replay After(c) … Through(d) holds (c, d] of each partition",
        REPLAYED,
    )
    .claimed_by(|has| has.starts.known().is_some_and(|starts| starts.after))
    .case("all pairs of a small topic", all_pairs)
    .case("at the edges of pages", edges)
    .case("each partition by its own place", mixed)
    .case("while partitions split and merge, where they do", reshaped)
    .fault("after a restart", |trial| {
        disturbed(trial, Disturb::Restart)
    })
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
    .refusal("a forged cursor is refused", forged)
}

/// A place in the topic: a cursor, and the records that were read when it was given.
struct Place {
    cursor: Cursor,
    read: BTreeSet<String>,
}

fn spot(record: &Recorded) -> String {
    record
        .position()
        .map_or_else(String::new, |position| position.to_string())
}

/// The topic's records, and the places before the first, between any two and behind the last.
async fn places(stage: &Stage, most: usize) -> Judged<(Vec<Recorded>, Vec<Place>)> {
    let mut replay = stage
        .topic
        .replay(readings::first(stage))
        .await
        .during("opening a replay")?;
    let mut read = BTreeSet::new();
    let mut places = vec![Place {
        cursor: replay.cursor().clone(),
        read: read.clone(),
    }];
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading the whole")? {
        read.insert(spot(&record));
        records.push(record);
        places.push(Place {
            cursor: replay.cursor().clone(),
            read: read.clone(),
        });
        ensure(records.len() <= most, || {
            format!("{most} records were appended and more are read")
        })?;
    }
    Ok((records, places))
}

/// What lies between two places.
fn between(whole: &[Recorded], from: &Place, to: &Place) -> Parts {
    let lies = |record: &&Recorded| {
        let spot = spot(record);
        to.read.contains(&spot) && !from.read.contains(&spot)
    };
    let records: Vec<Recorded> = whole.iter().filter(lies).cloned().collect();
    readings::parts(&records)
}

/// Reads a range through core and compares.
async fn holds(stage: &Stage, from: &Cursor, to: &Cursor, expected: &Parts) -> Judged<()> {
    let read = stage.read(from, Until::Through(to.clone())).await?;
    ensure(read.gaps.is_empty(), || {
        format!("After({from}) … Through({to}) told of a gap where nothing is gone")
    })?;
    readings::same(
        &format!("After({from}) … Through({to})"),
        &readings::parts(&read.records),
        expected,
    )
}

/// As [`holds`], below core.
async fn holds_raw(
    trial: &Trial,
    stage: &Stage,
    (from, to): (&Cursor, &Cursor),
    rooms: &'static [annals_core::driver::Room],
    expected: &Parts,
) -> Judged<()> {
    let bound = Bound::Through(to.clone());
    let read = readings::read_raw(trial, stage, from, &bound, rooms).await?;
    readings::same(
        &format!(
            "below core, After({from}) … Through({to}), {:?}",
            rooms.first()
        ),
        &readings::parts(&read),
        expected,
    )
}

async fn all_pairs(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, RECORDS).await?;
    let (records, places) = places(&stage, RECORDS).await?;
    // What comes later lies behind every bound.
    let other = trial.on(&stage.name).await?;
    readings::append_varied(&other, 1, RECORDS, 5).await?;
    let pairs = try_pairs(&trial, &stage, &records, &places, 1).await?;
    Ok(Counts::new().of("records", records.len(), RECORDS).of(
        "pairs",
        pairs,
        RECORDS * RECORDS / 2,
    ))
}

/// Every pair of every `step`-th place, each through core and below it.
async fn try_pairs(
    trial: &Trial,
    stage: &Stage,
    records: &[Recorded],
    places: &[Place],
    step: usize,
) -> Judged<usize> {
    let mut pairs = 0;
    for (index, from) in places.iter().enumerate().step_by(step) {
        for to in places.iter().skip(index).step_by(step) {
            let expected = between(records, from, to);
            holds(stage, &from.cursor, &to.cursor, &expected).await?;
            if let Some(rooms) = ROOMS.get(pairs % ROOMS.len()) {
                let ends = (&from.cursor, &to.cursor);
                holds_raw(trial, stage, ends, rooms, &expected).await?;
            }
            pairs += 1;
        }
    }
    Ok(pairs)
}

async fn edges(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, MANY).await?;
    let mut replay = stage
        .topic
        .replay(readings::first(&stage))
        .await
        .during("opening a replay")?;
    let mut cursors = vec![(0, replay.cursor().clone())];
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading the whole")? {
        records.push(record);
        if EDGES.contains(&records.len()) {
            cursors.push((records.len(), replay.cursor().clone()));
        }
        ensure(records.len() <= MANY, || {
            format!("{MANY} records were appended and more are read")
        })?;
    }
    let mut ranges = Vec::new();
    let ends = (cursors.first().cloned(), cursors.last().cloned());
    for pair in cursors.windows(2) {
        if let [one, two] = pair {
            ranges.push((one.clone(), two.clone()));
        }
    }
    if let (Some(first), Some(last)) = ends {
        for edge in cursors.iter().skip(4).step_by(4) {
            ranges.push((first.clone(), edge.clone()));
            ranges.push((edge.clone(), last.clone()));
        }
    }
    for ((from, after), (to, through)) in &ranges {
        let expected = readings::parts(records.get(*from..*to).unwrap_or_default());
        holds(&stage, after, through, &expected).await?;
        holds_raw(&trial, &stage, (after, through), PAGE, &expected).await?;
    }
    Ok(Counts::new()
        .of("records", records.len(), MANY)
        .of("ranges", ranges.len(), EDGES.len() - 2))
}

/// Cursors that no reader gave in one go: each partition stands somewhere else. A range whose end
/// lies before its start is empty.
async fn mixed(mut trial: Trial) -> Judged {
    let stage = readings::several(&trial, 4).await?;
    let size = 40;
    readings::append_varied(&stage, 1, 0, size).await?;
    let whole = stage.read(readings::first(&stage), Until::End).await?;
    let origin = whole.cursor.as_ref().map(|cursor| cursor.origin().clone());
    let Some(origin) = origin else {
        return Ok(Counts::new().of("readings of the whole", 0, 1));
    };
    readings::append_varied(&stage, 1, size, 10).await?;
    let whole = readings::parts(&whole.records);
    let records: usize = whole.values().map(Vec::len).sum();
    let (mut ranges, mut empty) = (0, 0);
    for turn in 0..24_usize {
        let mut from: Vec<(PartitionId, Frontier)> = Vec::new();
        let mut to: Vec<(PartitionId, Frontier)> = Vec::new();
        let mut expected = Parts::new();
        for (partition, records) in &whole {
            let Some(id) = partition else { continue };
            let places = 0..=records.len();
            let (start, end) = (trial.rng.usize(places.clone()), trial.rng.usize(places));
            let at = |place: usize| {
                let last = place.checked_sub(1).and_then(|last| records.get(last));
                let last = last.and_then(Recorded::position);
                last.map_or(Frontier::START, Frontier::after)
            };
            from.push((*id, at(start)));
            to.push((*id, at(end)));
            let lies = records.get(start..end).unwrap_or_default();
            empty += usize::from(start > end);
            if !lies.is_empty() {
                expected.insert(*partition, lies.to_vec());
            }
        }
        let from = Cursor::new(origin.clone(), from, Rest::FromStart);
        let to = Cursor::new(origin.clone(), to, Rest::FromStart);
        holds(&stage, &from, &to, &expected).await?;
        if let Some(rooms) = ROOMS.get(turn % ROOMS.len()) {
            holds_raw(&trial, &stage, (&from, &to), rooms, &expected).await?;
        }
        ranges += 1;
    }
    Ok(Counts::new()
        .of("records", records, size)
        .of("ranges", ranges, 24)
        .of("partitions with their end before their start", empty, 4))
}

/// From places before a split, and between, through places behind it.
async fn reshaped(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let mut all = Vec::new();
    let mut records = Vec::new();
    let mut shapes = 0;
    for step in 0..3 {
        readings::append_varied(&stage, 1, step * RECORDS, RECORDS).await?;
        let (now, places) = places(&stage, (step + 1) * RECORDS).await?;
        records = now;
        all.extend(places.into_iter().step_by(6));
        shapes += usize::from(readings::reshape(&trial, &stage, step).await?);
    }
    let least = if readings::has_lineage(&stage) { 2 } else { 0 };
    let mut pairs = 0;
    for from in &all {
        for to in all.iter().filter(|to| to.read.is_superset(&from.read)) {
            let expected = between(&records, from, to);
            holds(&stage, &from.cursor, &to.cursor, &expected).await?;
            pairs += 1;
        }
    }
    Ok(Counts::new()
        .of("records", records.len(), 3 * RECORDS)
        .of("pairs", pairs, 20)
        .of("splits and merges", shapes, least))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, RECORDS).await?;
    let (records, places) = places(&stage, RECORDS).await?;
    trial.disturb(&stage.name, what).await?;
    let stage = trial.on(&stage.name).await?;
    let mut pairs = try_pairs(&trial, &stage, &records, &places, 3).await?;
    readings::append_varied(&stage, 1, RECORDS, 5).await?;
    pairs += try_pairs(&trial, &stage, &records, &places, 3).await?;
    Ok(Counts::new()
        .of("records", records.len(), RECORDS)
        .of("pairs", pairs, 20))
}

/// Where there is no replay from a cursor, one that somebody made up is refused, and says so.
async fn forged(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let cursor = readings::forged(&stage)?;
    let told = match stage.topic.replay(&cursor).await {
        Ok(mut replay) => replay.next().await.map(drop),
        Err(error) => Err(error),
    };
    let kind = told.err().map(|error| error.kind());
    ensure(
        matches!(kind, Some(ErrorKind::Unsupported | ErrorKind::Config)),
        || format!("a replay from a forged cursor is answered with {kind:?}, not refused"),
    )?;
    // It takes no harm by it.
    let has = stage.backend.capabilities(&stage.name).await?;
    ensure(&has == stage.capabilities(), || {
        "the topic promises something else since a forged cursor was refused".into()
    })?;
    Ok(Counts::new().of("refusals", 1, 1))
}
