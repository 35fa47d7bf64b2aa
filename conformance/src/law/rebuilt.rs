//! *Rebuilt*: a group is handed what a replay reads.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use annals_core::capability::{Partitions, Starts};
use annals_core::{
    Cursor, ErrorKind, PartitionId, Position, Record, Recorded, Start, Timestamp, Until, Value,
};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const LEAST: usize = 60;
const CLOSE: Duration = Duration::from_secs(5);
const ODD: Duration = Duration::from_millis(7);

pub(crate) fn law() -> Law {
    Law::new(
        "rebuilt",
        "a group is handed what a replay reads: the same records, all fields of them, in the same order",
        REPLAYED,
    )
    .claimed_by(|has| groups::are_there(has) && groups::can_be(has, 4))
    .case("the same records by both paths", |trial| both(trial, false))
    .fault("by a group that is killed half-way", |trial| both(trial, true))
    .refusal("without replay the calls are refused", refused)
}

/// All that can be seen of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    value: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    id: Option<Vec<u8>>,
    position: Option<Position>,
    timestamp: Option<Timestamp>,
    stored_at: Option<Timestamp>,
}

impl Seen {
    fn of(record: &Recorded) -> Self {
        Self {
            value: record.value_bytes().map(|value| value.to_vec()),
            key: record.key().map(<[u8]>::to_vec),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            id: record.id().map(<[u8]>::to_vec),
            position: record.position(),
            timestamp: record.timestamp(),
            stored_at: record.stored_at(),
        }
    }

    /// The first field that is not as that of another, and what the two say in it.
    fn differs(&self, other: &Self) -> Option<String> {
        field("position", &self.position, &other.position)
            .or_else(|| field("value", &self.value, &other.value))
            .or_else(|| field("key", &self.key, &other.key))
            .or_else(|| field("headers", &self.headers, &other.headers))
            .or_else(|| field("id", &self.id, &other.id))
            .or_else(|| field("timestamp", &self.timestamp, &other.timestamp))
            .or_else(|| field("log time", &self.stored_at, &other.stored_at))
    }
}

fn field<T: PartialEq + fmt::Debug>(name: &str, one: &T, other: &T) -> Option<String> {
    let short = |value: &T| format!("{value:?}").chars().take(80).collect::<String>();
    (one != other).then(|| format!("{name}: {} and {}", short(one), short(other)))
}

type Partitioned = BTreeMap<Option<PartitionId>, Vec<Seen>>;

fn add(all: &mut Partitioned, record: &Recorded) {
    let partition = record.position().map(|position| position.partition());
    all.entry(partition).or_default().push(Seen::of(record));
}

/// Records that differ in every way that a record can.
fn records(rng: &mut fastrand::Rng, from: usize, count: usize) -> Vec<Record> {
    (from..from + count)
        .map(|number| {
            let text = workload::value(1, number);
            let record = match rng.u8(0..8) {
                0 => Record::new(Value::NULL),
                1 => Record::new(""),
                2 => Record::new(vec![0, 0xff, 0xfe, b'\n', 0]),
                3 => Record::new(vec![b'x'; rng.usize(0..5_000)]),
                _ => Record::new(text.clone()),
            };
            let record = match rng.u8(0..6) {
                0 => record,
                1 => record.key(""),
                2 => record.key(vec![0xff, 0]),
                key => record.key(format!("k{key}")),
            };
            let record = match rng.u8(0..5) {
                0 => record.header("h", "1").header("h", "2"),
                1 => record.header("null", Value::NULL).header("empty", ""),
                2 => record.header("binary", vec![0xff, 0]),
                _ => record,
            };
            let record = if rng.bool() {
                record.id(format!("id-{text}"))
            } else {
                record
            };
            if rng.bool() {
                record.timestamp(Timestamp::from_millis(rng.i64(1..2_000_000_000_000)))
            } else {
                record
            }
        })
        .collect()
}

/// Appends each by itself: what a backend cannot carry it refuses, and that is no loss here.
async fn append(trial: &mut Trial, stage: &Stage, from: usize, count: usize) -> Judged<usize> {
    let mut stored = 0;
    // Stamps that are no whole seconds.
    match trial.disturb(&stage.name, Disturb::Pass(ODD)).await {
        Ok(()) | Err(Stop::NotExercised(_)) => {}
        Err(stop) => return Err(stop),
    }
    for record in records(&mut trial.rng, from, count) {
        match stage.topic.append(record).await {
            Ok(_) => stored += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge) => {}
            Err(error) => return Err(error).during("appending"),
        }
    }
    // And some as one batch, which a backend may store as one piece.
    let batch = groups::batch(2, from, count);
    stored += batch.len();
    stage.topic.append(batch).await.during("appending")?;
    Ok(stored)
}

async fn both(mut trial: Trial, killed: bool) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let size = trial.size(LEAST) / 4;
    append(&mut trial, &stage, 0, size / 2).await?;
    let c = stage.read(Start::Beginning, Until::End).await?.cursor;
    let c = c.ok_or_else(|| Stop::broken("a replay ends without a cursor"))?;
    if stage.capabilities().partitions.is(&Partitions::Lineage)
        && let Some(partition) = stage.partitions().await?.first().copied()
    {
        match trial.disturb(&stage.name, Disturb::Split(partition)).await {
            Ok(()) | Err(Stop::NotExercised(_)) => {}
            Err(stop) => return Err(stop),
        }
    }
    append(&mut trial, &stage, size, size).await?;
    let starts = stage
        .capabilities()
        .group_starts
        .known()
        .copied()
        .unwrap_or(Starts::NONE);
    let mut froms: Vec<(Start, Start)> = vec![(Start::Beginning, Start::Beginning)];
    if starts.after {
        froms.push((Start::After(c.clone()), Start::After(c)));
    }
    let (mut compared, mut passes) = (0, 0);
    let rooms = [(1, 1), (3, 300), (1_000, 16 << 20)];
    for (index, (from, start)) in froms.into_iter().enumerate() {
        let mut read = Partitioned::new();
        let replay = stage.read(from, Until::End).await?;
        for record in &replay.records {
            add(&mut read, record);
        }
        let (records, bytes) = rooms
            .get(trial.rng.usize(0..rooms.len()))
            .copied()
            .unwrap_or((3, 300));
        let group = format!("rebuilt-{index}");
        let room = (records, bytes);
        let handed = handed(
            &mut trial,
            &stage.name,
            (&group, start, room),
            &read,
            killed,
        )
        .await?;
        compared += equal(&read, &handed)?;
        passes += 1;
        if killed {
            break;
        }
    }
    if killed {
        return Ok(Counts::new().of("records compared", compared, LEAST / 2));
    }
    let last = bounded(&trial, &stage).await?;
    Ok(Counts::new()
        .of("records compared", compared, LEAST)
        .of("passes", passes, 1)
        .of("records behind the end of a replay", last, 8))
}

/// What a group is handed of all that was read; with a kill, by two members.
async fn handed(
    trial: &mut Trial,
    topic: &annals_core::TopicName,
    (group, start, (records, bytes)): (&str, Start, (usize, usize)),
    read: &Partitioned,
    killed: bool,
) -> Judged<Partitioned> {
    let all: usize = read.values().map(Vec::len).sum();
    let mut seen: HashMap<Option<Position>, Recorded> = HashMap::new();
    let mut order = Vec::new();
    let half = trial.rng.usize(1..all.max(2));
    for life in 0..=usize::from(killed) {
        let until = if killed && life == 0 { half } else { all };
        let stage = trial.on(topic).await?;
        let subscription = groups::join(trial, &stage, group)
            .start(start.clone())
            .in_flight(records, bytes)
            .await
            .during("subscribing")?;
        while seen.len() < until {
            let delivery = groups::next(trial, &subscription).await.during(&format!(
                "{} of {all} records that a replay reads are handed to a group",
                seen.len()
            ))?;
            let record = delivery.record().detach();
            let place = record.position();
            // What was not committed comes again after a crash, and is the same.
            if let Some(before) = seen.get(&place) {
                let differs = Seen::of(before).differs(&Seen::of(&record));
                ensure(killed && differs.is_none(), || {
                    format!(
                        "the record at {:?} was handed out twice (differs in {differs:?})",
                        record.position()
                    )
                })?;
            } else {
                order.push(record.clone());
                seen.insert(place, record);
            }
            delivery.done();
        }
        if killed && life == 0 {
            trial.disturb(topic, Disturb::Kill).await?;
            drop(subscription);
        } else {
            trial
                .soon("a close", subscription.close(CLOSE))
                .await?
                .during("closing")?;
        }
    }
    let mut handed = Partitioned::new();
    for record in &order {
        add(&mut handed, record);
    }
    Ok(handed)
}

fn equal(read: &Partitioned, handed: &Partitioned) -> Judged<usize> {
    let mut compared = 0;
    for (partition, read) in read {
        let handed = handed.get(partition).map_or(&[][..], Vec::as_slice);
        for (place, one) in read.iter().enumerate() {
            let Some(other) = handed.get(place) else {
                return Err(Stop::broken(format!(
                    "a replay reads a record at {:?}, the group was handed nothing there",
                    one.position
                )));
            };
            if let Some(field) = one.differs(other) {
                return Err(Stop::broken(format!(
                    "by replay and by group record {place} of {partition:?} at {:?} differs in its {field}",
                    one.position
                )));
            }
            compared += 1;
        }
        ensure(handed.len() == read.len(), || {
            format!(
                "of {partition:?} a replay reads {} records, and a group is handed {}",
                read.len(),
                handed.len()
            )
        })?;
    }
    Ok(compared)
}

/// What is appended later comes by a replay from the cursor where the first one ended, and to the
/// group behind what it has committed: both the same.
async fn bounded(trial: &Trial, stage: &Stage) -> Judged<usize> {
    let end: Option<Cursor> = stage.read(Start::Beginning, Until::End).await?.cursor;
    let end = end.ok_or_else(|| Stop::broken("a replay ends without a cursor"))?;
    stage
        .topic
        .append(groups::batch(3, 0, 16))
        .await
        .during("appending")?;
    let mut read = Partitioned::new();
    for record in &stage.read(Start::After(end), Until::End).await?.records {
        add(&mut read, record);
    }
    let subscription = groups::join(trial, stage, "rebuilt-0")
        .await
        .during("subscribing")?;
    let mut handed = Partitioned::new();
    let awaited = (0..16).map(|number| workload::value(3, number));
    groups::handle(trial, &subscription, awaited, |record| {
        add(&mut handed, record);
        Ok(())
    })
    .await?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    equal(&read, &handed)
}

/// Where there is no replay, there is nothing that a group could be rebuilt from.
async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let mut refusals = 0;
    if super::Shape::of(stage.capabilities()) == super::Shape::Queue {
        let told = match stage.topic.replay(Start::Beginning).await {
            Ok(mut replay) => replay.next().await.map(drop),
            Err(error) => Err(error),
        };
        let located = stage.backend.locate(&stage.name, &Start::Beginning).await;
        for kind in [
            told.err().map(|e| e.kind()),
            located.err().map(|e| e.kind()),
        ] {
            ensure(kind == Some(ErrorKind::Unsupported), || {
                format!("a replay is answered with {kind:?}, not refused")
            })?;
            refusals += 1;
        }
    } else {
        let told = stage.topic.subscribe("rebuilt-other").await;
        let kind = told.err().map(|error| error.kind());
        ensure(kind == Some(ErrorKind::Unsupported), || {
            format!("a group of any name is answered with {kind:?}, not refused")
        })?;
        refusals += 1;
    }
    Ok(Counts::new().of("refusals", refusals, 1))
}
