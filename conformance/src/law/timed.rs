//! *Timed*: a range of time holds what was stored in it, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::LogTime;
use annals_core::driver::{Room, Stop as Bound};
use annals_core::{PartitionId, Recorded, Start, Timestamp, Until};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Trial, ensure, read_out};
use crate::verdict::Counts;
use crate::workload::readings::{self, Parts, ROOMS, room};

/// Moments at which something is stored.
const MOMENTS: usize = 5;
/// Between two of them.
const STEP: Duration = Duration::from_millis(3);
/// More than any page.
const MANY: usize = 1_030;
const PAGE: &[Room] = &[room(1_000, usize::MAX)];

pub(crate) fn law() -> Law {
    Law::new(
        "timed",
        "Since(a) … Before(b) holds all that is stamped in [a, b) and nothing of b or later; Before(t) and Since(t) are the whole, once",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known().copied();
        let whole = starts.is_some_and(|s| s.since.is_some() && (s.beginning || s.earliest));
        whole && has.log_time.known().is_some_and(|time| *time != LogTime::None)
    })
    .case("between any two moments", any_two)
    .case("many of one moment", many)
    .case("from a place up to a moment", from_a_place)
    .case("up to a moment to come", to_come)
    .case("from a moment to come", from_one_to_come)
    .fault("after a restart", |trial| disturbed(trial, Disturb::Restart))
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
    .refusal("what has no time says so", readings::starts_refused)
}

/// The whole, and how exact its topic's times are.
struct Timed {
    whole: Parts,
    /// By so much older records may come, which is none where it is a millisecond: the stamps are
    /// no finer.
    slack: Duration,
    moments: Vec<Timestamp>,
    records: usize,
}

impl Timed {
    async fn of(stage: &Stage) -> Judged<Self> {
        let records = stage
            .read(readings::first(stage), Until::End)
            .await?
            .records;
        let mut moments = BTreeSet::new();
        for record in &records {
            let stamp = record.stored_at();
            ensure(stamp.is_some(), || {
                format!("a record has no log time: {}", readings::print(record))
            })?;
            moments.extend(stamp);
        }
        let starts = stage.capabilities().starts.known();
        let slack = starts.and_then(|starts| starts.since).unwrap_or_default();
        Ok(Self {
            whole: readings::parts(&records),
            slack: if slack <= Duration::from_millis(1) {
                Duration::ZERO
            } else {
                slack
            },
            moments: moments.into_iter().collect(),
            records: records.len(),
        })
    }

    /// Whether `read` holds what was stamped in `[a, b)`, once and in order, and nothing else.
    fn lies_between(
        &self,
        what: &str,
        read: &[Recorded],
        a: Option<Timestamp>,
        b: Option<Timestamp>,
    ) -> Judged<()> {
        readings::ascends(what, read)?;
        let read = readings::parts(read);
        for (partition, records) in &self.whole {
            let none = Vec::new();
            let read = read.get(partition).unwrap_or(&none);
            let came: BTreeSet<_> = read.iter().map(place_of).collect();
            let there: BTreeSet<_> = records.iter().map(place_of).collect();
            // Where stamps go back (a writer's clock does), a place is the first that is not older.
            let place = |time: Option<Timestamp>, else_: usize| {
                let found = time.map(|t| records.iter().position(|r| r.stored_at() >= Some(t)));
                found.map_or(else_, |at| at.unwrap_or(records.len()))
            };
            let ascend = records.windows(2).all(|two| match two {
                [one, two] => one.stored_at() <= two.stored_at(),
                _ => true,
            });
            let lies = place(a, 0)..place(b, records.len()).max(place(a, 0));
            for record in records.get(lies).unwrap_or_default() {
                let stamp = record.stored_at();
                let within =
                    a.is_none_or(|a| stamp >= Some(a)) && b.is_none_or(|b| stamp < Some(b));
                ensure(!within || came.contains(&place_of(record)), || {
                    format!("{what}: not read is {}", readings::print(record))
                })?;
            }
            for record in read {
                let stamp = record.stored_at();
                let oldest = a.map(|a| a.saturating_sub(self.slack));
                let young = b.is_none_or(|b| stamp < Some(b));
                let old = !ascend || oldest.is_none_or(|oldest| stamp >= Some(oldest));
                ensure(young && old && there.contains(&place_of(record)), || {
                    format!("{what}: read is {}", readings::print(record))
                })?;
            }
        }
        let known: BTreeSet<Option<PartitionId>> = self.whole.keys().copied().collect();
        ensure(
            read.keys().all(|partition| known.contains(partition)),
            || format!("{what}: records of other partitions than {known:?} are read"),
        )
    }

    /// The moments, and those right before and after each.
    fn around(&self) -> Vec<Timestamp> {
        let millis = self.moments.iter().map(|moment| moment.as_millis());
        let around: BTreeSet<i64> = millis.flat_map(|m| [m - 1, m, m + 1]).collect();
        around.into_iter().map(Timestamp::from_millis).collect()
    }

    async fn pair(
        &self,
        trial: &Trial,
        stage: &Stage,
        (a, b): (Timestamp, Timestamp),
        rooms: &'static [Room],
    ) -> Judged<()> {
        let what = format!("Since({a}) … Before({b})");
        let replay = stage.read(Start::Since(a), Until::Before(b));
        let read = trial.soon(&what, replay).await??.records;
        self.lies_between(&what, &read, Some(a), Some(b))?;
        let from = stage.backend.locate(&stage.name, &Start::Since(a)).await?;
        let read = readings::read_raw(trial, stage, &from, &Bound::Before(b), rooms).await?;
        let what = format!("below core, {what}, {:?}", rooms.first());
        self.lies_between(&what, &read, Some(a), Some(b))
    }

    /// Before it and since it are the whole, once.
    async fn halves(&self, trial: &Trial, stage: &Stage, t: Timestamp) -> Judged<()> {
        let first = stage.read(readings::first(stage), Until::Before(t));
        let first = trial.soon("a replay up to a moment", first).await??.records;
        self.lies_between(&format!("Before({t})"), &first, None, Some(t))?;
        let second = stage.read(Start::Since(t), Until::End);
        let second = trial.soon("a replay from a moment", second).await??.records;
        self.lies_between(&format!("Since({t})"), &second, Some(t), None)?;
        if self.slack.is_zero() {
            let both = [first, second].concat();
            readings::same(
                &format!("Before({t}) and Since({t})"),
                &readings::parts(&both),
                &self.whole,
            )?;
        }
        Ok(())
    }
}

fn place_of(record: &Recorded) -> Option<([u64; 4], u32)> {
    let position = record.position();
    position.map(|position| (position.number(), position.sub()))
}

/// Stores some at several moments, into partitions that split meanwhile where they do.
async fn stored(trial: &Trial, stage: &Stage) -> Judged<Timed> {
    for moment in 0..MOMENTS {
        readings::append_varied(stage, 1, moment * 10, 8).await?;
        // Some more in the same moment.
        readings::append_varied(stage, 1, moment * 10 + 8, 2).await?;
        trial.disturb(&stage.name, Disturb::Pass(STEP)).await?;
        if moment < 2 {
            readings::reshape(trial, stage, moment).await?;
        }
    }
    trial.disturb(&stage.name, Disturb::Pass(STEP)).await?;
    Timed::of(stage).await
}

async fn any_two(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let timed = stored(&trial, &stage).await?;
    let around = timed.around();
    let mut pairs = 0;
    for (index, a) in around.iter().enumerate() {
        timed.halves(&trial, &stage, *a).await?;
        for b in around.iter().skip(index).step_by(2) {
            let rooms = ROOMS.get(pairs % ROOMS.len()).copied().unwrap_or(PAGE);
            timed.pair(&trial, &stage, (*a, *b), rooms).await?;
            pairs += 1;
        }
    }
    Ok(Counts::new()
        .of("records", timed.records, MOMENTS * 10)
        .of("moments", timed.moments.len(), 3)
        .of("ranges", pairs, 20))
}

async fn many(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    for (from, records) in [(0, 10), (10, MANY - 40), (MANY - 30, 30)] {
        readings::append_varied(&stage, 1, from, records).await?;
        trial.disturb(&stage.name, Disturb::Pass(STEP)).await?;
    }
    let timed = Timed::of(&stage).await?;
    // Few of them, where storing so many takes more than a moment.
    let step = timed.moments.len().div_ceil(4).max(1);
    let mut tried = 0;
    for moment in timed.moments.iter().step_by(step) {
        timed.halves(&trial, &stage, *moment).await?;
        let next = Timestamp::from_millis(moment.as_millis() + 1);
        timed.pair(&trial, &stage, (*moment, next), PAGE).await?;
        tried += 1;
    }
    Ok(Counts::new()
        .of("records", timed.records, MANY)
        .of("moments", tried, 2))
}

/// From behind a record, where there is such a start.
async fn from_a_place(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let timed = stored(&trial, &stage).await?;
    let offered = stage.capabilities().starts.known().is_some_and(|s| s.after);
    let mut replay = stage.topic.replay(readings::first(&stage)).await?;
    let mut read: Vec<Recorded> = Vec::new();
    let mut tried = 0;
    while let Some(record) = replay.next().await.during("reading the whole")? {
        read.push(record);
        ensure(read.len() <= timed.records, || {
            "more is read than was before".into()
        })?;
        if !offered || read.len() % 29 != 3 {
            continue;
        }
        let cursor = replay.cursor().clone();
        for moment in &timed.moments {
            let rest = stage.read(&cursor, Until::Before(*moment)).await?.records;
            let is_asked = |record: &&Recorded| {
                record.stored_at() < Some(*moment)
                    && !read.iter().any(|r| r.position() == record.position())
            };
            let asked = timed.whole.values().flatten().filter(is_asked);
            let asked: Vec<Recorded> = asked.cloned().collect();
            readings::same(
                &format!("from behind {} records Before({moment})", read.len()),
                &readings::parts(&rest),
                &readings::parts(&asked),
            )?;
            tried += 1;
        }
    }
    Ok(Counts::new().of("records", timed.records, 20).of(
        "ranges",
        tried,
        if offered { 2 } else { 0 },
    ))
}

/// The reading ends once the moment has come, and holds what was stored before it though the
/// reading was open by then.
async fn to_come(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 1, 0, 10).await?;
    let end = trial.clock().now().saturating_add(10 * STEP);
    let replay = stage
        .topic
        .replay(readings::first(&stage))
        .until(Until::Before(end))
        .await
        .during("opening a replay")?;
    let writer = trial.on(&stage.name).await?;
    let mut appended = 10;
    let writes = async {
        for _ in 0..8 {
            readings::append_varied(&writer, 1, appended, 5).await?;
            appended += 5;
            trial.disturb(&stage.name, Disturb::Pass(2 * STEP)).await?;
        }
        Judged::Ok(())
    };
    let both = async { tokio::join!(read_out(replay), writes) };
    let (read, written) = trial.soon("a replay up to a moment to come", both).await?;
    written?;
    let timed = Timed::of(&stage).await?;
    timed.lies_between(
        &format!("Before({end}), still to come"),
        &read?.records,
        None,
        Some(end),
    )?;
    let early = timed.moments.iter().filter(|moment| **moment < end).count();
    Ok(Counts::new()
        .of("records", timed.records, 50)
        .of("moments before the end", early, 2)
        .of("moments behind it", timed.moments.len() - early, 1))
}

/// What is stored before the moment is not asked for.
async fn from_one_to_come(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 1, 0, 10).await?;
    let start = trial.clock().now().saturating_add(5 * STEP);
    let mut follow = stage
        .topic
        .follow(Start::Since(start))
        .await
        .during("opening a follow")?;
    let mut appended = 10;
    while trial.clock().now() < start.saturating_add(2 * STEP) {
        readings::append_varied(&stage, 1, appended, 5).await?;
        appended += 5;
        trial.disturb(&stage.name, Disturb::Pass(STEP)).await?;
        ensure(appended < 10_000, || "time does not pass".into())?;
    }
    readings::append_varied(&stage, 1, appended, 20).await?;
    let timed = Timed::of(&stage).await?;
    let awaited = timed
        .whole
        .values()
        .flatten()
        .filter(|record| record.stored_at() >= Some(start))
        .count();
    let mut read = Vec::new();
    while read.len() < awaited {
        let next = trial.soon("what was stored since a moment", follow.next());
        read.extend(next.await?.during("following")?);
    }
    timed.lies_between(
        &format!("Since({start}), then to come"),
        &read,
        Some(start),
        None,
    )?;
    Ok(Counts::new()
        .of("records before the moment", timed.records - awaited, 10)
        .of("records since", awaited, 20))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let timed = stored(&trial, &stage).await?;
    trial.disturb(&stage.name, what).await?;
    let stage = trial.on(&stage.name).await?;
    let again = Timed::of(&stage).await?;
    readings::same("the stamps of another life", &again.whole, &timed.whole)?;
    let mut tried = 0;
    for moment in &timed.moments {
        timed.halves(&trial, &stage, *moment).await?;
        for other in timed.moments.iter().filter(|other| *other > moment) {
            timed.pair(&trial, &stage, (*moment, *other), PAGE).await?;
            tried += 1;
        }
    }
    Ok(Counts::new()
        .of("records", timed.records, MOMENTS * 10)
        .of("ranges", tried, 3))
}
