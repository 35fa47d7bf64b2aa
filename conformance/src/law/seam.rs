//! *Seam*: a reading says once that it has caught up, after everything that was acknowledged before
//! it was opened, and hands nothing out twice.

use std::collections::BTreeSet;

use annals_core::capability::ByKey;
use annals_core::driver::{Fetched, Stop as Bound};
use annals_core::{Recorded, Replay, Signal, Start};

use super::{Law, REPLAYED};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, ROOMS};

const SOME: usize = 40;
/// More than any page.
const MANY: usize = 1_030;
/// Signals that bring no record, between two that do.
const QUIET: usize = 1_000;

pub(crate) fn law() -> Law {
    Law::new(
        "seam",
        "a reading has caught up once, after everything acknowledged before its open; nothing is read twice",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        starts.is_some_and(|starts| starts.beginning || starts.earliest)
    })
    .case("from every start", every_start)
    .case("of a topic that is empty", empty)
    .case("behind very many", behind_many)
    .case("while a writer goes on", while_written)
    .case("in batches, and to the end", bounded)
    .case("below core, with any room", below_core)
    .case("where partitions split and merge, if they do", reshaped)
    .case("by a key", by_key)
    .fault("though fetches fail there", fetches_fail)
    .refusal("what cannot be replayed says so", readings::starts_refused)
}

/// One reading that is watched.
struct Watch {
    what: String,
    replay: Replay,
    /// Acknowledged before the open, and in the range.
    before: BTreeSet<String>,
    seen: Vec<Recorded>,
    values: BTreeSet<String>,
    /// After how many records.
    caught_up: Option<usize>,
    quiet: usize,
}

impl Watch {
    fn new(what: impl Into<String>, replay: Replay, before: BTreeSet<String>) -> Self {
        Self {
            what: what.into(),
            replay,
            before,
            seen: Vec::new(),
            values: BTreeSet::new(),
            caught_up: None,
            quiet: 0,
        }
    }

    /// One signal more; whether there was one.
    async fn next(&mut self, trial: &Trial, awaiting: &str) -> Judged<bool> {
        let what = format!("{}: {awaiting}", self.what);
        let signal = trial.soon(&what, self.replay.next_signal()).await?;
        self.quiet += 1;
        match signal.during(&what)? {
            None => return Ok(false),
            Some(Signal::Record(record)) => {
                let value = workload::text(&record);
                if self.caught_up.is_some() && self.before.contains(&value) {
                    return Err(Stop::broken(format!(
                        "{}: it had caught up after {:?} records, and then came what was acknowledged before: {}",
                        self.what,
                        self.caught_up,
                        readings::print(&record)
                    )));
                }
                self.quiet = 0;
                self.values.insert(value);
                self.seen.push(record);
            }
            Some(Signal::CaughtUp(_)) => {
                ensure(self.caught_up.is_none(), || {
                    format!("{}: it has caught up twice", self.what)
                })?;
                self.caught_up = Some(self.seen.len());
            }
            Some(Signal::Gap(gap)) => {
                return Err(Stop::broken(format!(
                    "{}: nothing is gone, and it tells: {gap}",
                    self.what
                )));
            }
            Some(Signal::Advanced(_)) => {}
        }
        ensure(self.quiet <= QUIET, || {
            format!("{what}: {QUIET} signals in a row bring no record")
        })?;
        Ok(true)
    }

    async fn reach_the_seam(&mut self, trial: &Trial) -> Judged<()> {
        while self.caught_up.is_none() {
            let more = self.next(trial, "catching up").await?;
            ensure(more, || format!("{}: it ended by itself", self.what))?;
        }
        Ok(())
    }

    /// Reads until all these have come, or nothing comes any more: what is lost another law tells.
    async fn until(&mut self, trial: &Trial, values: &[String]) -> Judged<()> {
        while values.iter().any(|value| !self.values.contains(value)) {
            let next = self.next(trial, "going on behind the seam");
            let Ok(more) = tokio::time::timeout(trial.patience() / 10, next).await else {
                break;
            };
            ensure(more?, || format!("{}: it ended by itself", self.what))?;
        }
        Ok(())
    }

    fn nothing_twice(&self) -> Judged<()> {
        let mut places = BTreeSet::new();
        for record in &self.seen {
            let place = record.position().map(|position| position.to_string());
            ensure(places.insert(place), || {
                format!("{}: read twice is {}", self.what, readings::print(record))
            })?;
        }
        Ok(())
    }
}

/// To the seam, over it, and on behind it; how many records were read.
async fn over(trial: &Trial, writer: &Stage, mut watch: Watch, number: usize) -> Judged<usize> {
    watch.reach_the_seam(trial).await?;
    for round in 0..2 {
        let markers = readings::append_varied(writer, 50, number + round * 12, 12).await?;
        watch.until(trial, &markers).await?;
    }
    watch.nothing_twice()?;
    Ok(watch.seen.len())
}

async fn every_start(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut acknowledged = readings::append_varied(&stage, 1, 0, SOME).await?;
    let starts = stage.capabilities().starts.known().copied();
    let offers =
        |is: fn(&annals_core::capability::Starts) -> bool| starts.is_some_and(|starts| is(&starts));
    let mut opens: Vec<(Start, BTreeSet<String>)> = Vec::new();
    if offers(|s| s.beginning) {
        opens.push((Start::Beginning, BTreeSet::new()));
    }
    if offers(|s| s.earliest) {
        opens.push((Start::Earliest, BTreeSet::new()));
    }
    if offers(|s| s.after) {
        let mut replay = stage.topic.replay(readings::first(&stage)).await?;
        let mut read = BTreeSet::new();
        for number in 0..=SOME {
            if [0, 1, SOME / 2, SOME - 1, SOME].contains(&number) {
                opens.push((Start::After(replay.cursor().clone()), read.clone()));
            }
            let record = replay.next().await.during("reading")?;
            read.extend(record.as_ref().map(workload::text));
        }
    }
    let (mut crossed, mut number) = (0, 0);
    let (mut latest, clients) = (offers(|s| s.latest), 2);
    for client in 0..clients {
        let reader = trial.on(&stage.name).await?;
        for (start, read) in &opens {
            let before = acknowledged.iter().filter(|v| !read.contains(*v)).cloned();
            let before = before.collect();
            let replay = reader
                .topic
                .follow(start.clone())
                .await
                .during("opening a follow")?;
            let watch = Watch::new(format!("a follow from {start:?}"), replay, before);
            over(&trial, &stage, watch, number).await?;
            acknowledged.extend((number..number + 24).map(|n| workload::value(50, n)));
            number += 24;
            crossed += 1;
        }
        if latest {
            let replay = reader.topic.follow(Start::Latest).await?;
            let all = acknowledged.iter().cloned().collect();
            over(
                &trial,
                &stage,
                Watch::new("a follow from Latest", replay, all),
                number,
            )
            .await?;
            number += 24;
            latest = client > 0;
        }
    }
    Ok(Counts::new()
        .of("records acknowledged before", SOME, SOME)
        .of("seams", crossed, 2))
}

async fn empty(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let replay = stage.topic.follow(readings::first(&stage)).await?;
    let read = over(
        &trial,
        &stage,
        Watch::new("a follow", replay, BTreeSet::new()),
        0,
    )
    .await?;
    Ok(Counts::new().of("records behind the seam", read, 24))
}

async fn behind_many(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let before = readings::append_varied(&stage, 1, 0, MANY).await?;
    let replay = stage.topic.follow(readings::first(&stage)).await?;
    let watch = Watch::new("a follow", replay, before.into_iter().collect());
    let read = over(&trial, &stage, watch, 0).await?;
    Ok(Counts::new().of("records", read, MANY))
}

async fn while_written(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let before = readings::append_varied(&stage, 1, 0, SOME).await?;
    let writer = trial.on(&stage.name).await?;
    for buffer in [1, 1 << 22] {
        let open = stage.topic.follow(readings::first(&stage)).buffer(buffer);
        let replay = open.await.during("opening a follow")?;
        let what = format!("a follow with a buffer of {buffer}");
        let mut watch = Watch::new(what, replay, before.iter().cloned().collect());
        let mut written = Vec::new();
        for number in 0..2 * SOME {
            let from = buffer.min(2) * 1_000 + number;
            written.extend(readings::append_varied(&writer, 2, from, 1).await?);
            watch.next(&trial, "reading while others append").await?;
        }
        watch.reach_the_seam(&trial).await?;
        watch.until(&trial, &written).await?;
        over(&trial, &stage, watch, buffer.min(2) * 100).await?;
    }
    Ok(Counts::new().of("records acknowledged before", before.len(), SOME))
}

/// A reading that ends catches up before it does, and a batch never says so too early.
async fn bounded(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let before = readings::append_varied(&stage, 1, 0, SOME).await?;
    let before: BTreeSet<String> = before.into_iter().collect();
    let replay = stage.topic.replay(readings::first(&stage)).await?;
    let mut watch = Watch::new("a replay", replay, before.clone());
    while watch.next(&trial, "its end").await? {}
    ensure(watch.caught_up.is_some(), || {
        "a replay to the end never caught up".into()
    })?;
    watch.nothing_twice()?;
    let mut seen = watch.seen.len();
    for follows in [false, true] {
        let open = if follows {
            stage.topic.follow(readings::first(&stage))
        } else {
            stage.topic.replay(readings::first(&stage))
        };
        let mut replay = open.await.during("opening")?;
        let mut caught_up = false;
        loop {
            let batch = trial.soon("a batch", replay.next_batch()).await?;
            let Some(batch) = batch.during("reading batches")? else {
                break;
            };
            for record in &batch {
                ensure(
                    !caught_up || !before.contains(&workload::text(record)),
                    || {
                        format!(
                            "a batch said that it had caught up, and then came what was acknowledged before: {}",
                            readings::print(record)
                        )
                    },
                )?;
            }
            ensure(batch.caught_up() || !caught_up, || {
                "a batch had caught up, and a later one has not".into()
            })?;
            seen += batch.len();
            caught_up = batch.caught_up();
            if follows && caught_up {
                break;
            }
        }
    }
    Ok(Counts::new().of("records", seen, 3 * SOME))
}

async fn below_core(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let writer = trial.on(&stage.name).await?;
    let start = readings::first(&stage);
    let mut before = readings::append_varied(&stage, 1, 0, SOME).await?;
    let (mut seams, mut number) = (0, 0);
    for rooms in ROOMS {
        let from = stage.backend.locate(&stage.name, &start).await?;
        let mut readers = readings::raw_readers(&stage, &from, &Bound::Never, None, rooms).await?;
        let known: BTreeSet<&String> = before.iter().collect();
        // Some comes while it catches up, and some behind the seam.
        let mut more = Vec::new();
        for reader in &mut readers {
            reader.turn(&trial).await?;
            more.extend(readings::append_varied(&writer, 3, number, 4).await?);
            number += 4;
            let told = |reader: &readings::Raw| reader.told(|s| *s == Fetched::CaughtUp).0;
            while !reader.over && told(reader) == 0 {
                reader.turn(&trial).await.during("catching up below core")?;
            }
            more.extend(readings::append_varied(&writer, 3, number, 4).await?);
            number += 4;
        }
        more.extend(readings::append_varied(&writer, 3, number, 20).await?);
        number += 20;
        let whole = readings::parts(&stage.read_all().await?);
        let all: usize = whole.values().map(Vec::len).sum();
        for reader in &mut readers {
            let expected = match reader.partition {
                Some(id) => whole.get(&Some(id)).map_or(0, Vec::len),
                None => all,
            };
            reader.at_most(&trial, expected).await?;
            readings::ascends("a reading below core", &reader.records)?;
            let (times, after) = reader.told(|said| *said == Fetched::CaughtUp);
            ensure(times == 1 || (reader.over && times == 0), || {
                format!(
                    "a reading below core, {:?}, has caught up {times} times",
                    rooms.first()
                )
            })?;
            let late = reader.records.iter().skip(after.unwrap_or(usize::MAX));
            let late = late
                .map(|r| (r, workload::text(r)))
                .find(|(_, v)| known.contains(v));
            ensure(late.is_none(), || {
                format!(
                    "a reading below core, {:?}, had caught up after {after:?} records, and then came what was acknowledged before: {}",
                    rooms.first(),
                    late.map_or_else(String::new, |(record, _)| readings::print(record))
                )
            })?;
            seams += times;
        }
        before.append(&mut more);
    }
    Ok(Counts::new()
        .of("records", before.len(), SOME)
        .of("seams", seams, ROOMS.len()))
}

async fn reshaped(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut acknowledged = BTreeSet::new();
    let mut read = 0;
    for step in 0..3 {
        acknowledged.extend(readings::append_varied(&stage, 1, step * SOME, SOME / 2).await?);
        let replay = stage.topic.follow(readings::first(&stage)).await?;
        let mut watch = Watch::new("a follow", replay, acknowledged.clone());
        // Before the seam, and behind it.
        watch.next(&trial, "a first signal").await?;
        readings::reshape(&trial, &stage, step).await?;
        read += over(&trial, &stage, watch, step * 24).await?;
        acknowledged.extend((step * 24..step * 24 + 24).map(|n| workload::value(50, n)));
    }
    Ok(Counts::new().of("records", read, 3 * SOME))
}

async fn by_key(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let before = workload::batch(1, 0, SOME, 5);
    let values = workload::offered(&before);
    stage.topic.append(before).await.during("appending")?;
    let follow = || stage.topic.follow(readings::first(&stage));
    let follow = match stage.capabilities().by_key.known() {
        Some(ByKey::Indexed) => follow().key("k3"),
        Some(ByKey::Scanned) => follow().scan_key("k3"),
        _ => follow(),
    };
    let replay = follow.await.during("opening a follow of a key")?;
    let mut watch = Watch::new("a follow of a key", replay, values.into_iter().collect());
    watch.reach_the_seam(&trial).await?;
    let caught_up = watch.caught_up.unwrap_or(0);
    for from in [100, 200] {
        let more = workload::batch(2, from, 10, 5);
        let marker: Vec<String> = workload::offered(&more)
            .into_iter()
            .skip(3)
            .step_by(5)
            .collect();
        stage.topic.append(more).await.during("appending")?;
        watch.until(&trial, &marker).await?;
    }
    watch.nothing_twice()?;
    Ok(Counts::new().of("records before the seam", caught_up, SOME / 5))
}

async fn fetches_fail(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let before = trial.fired();
    let mut acknowledged = readings::append_varied(&stage, 1, 0, SOME).await?;
    let mut read = 0;
    for (round, failures) in [1, 3, 7].into_iter().enumerate() {
        let replay = stage
            .topic
            .follow(readings::first(&stage))
            .buffer(1)
            .await?;
        let before = acknowledged.iter().cloned().collect();
        let mut watch = Watch::new("a follow through failures", replay, before);
        let fail = async || {
            for _ in 0..failures {
                let lost = Disturb::Fault(Call::Fetch, Fault::Lose { done: true });
                trial.disturb(&stage.name, lost).await?;
            }
            Judged::Ok(())
        };
        for _ in 0..SOME - 2 {
            watch.next(&trial, "the first records").await?;
        }
        fail().await?;
        watch.reach_the_seam(&trial).await?;
        fail().await?;
        read += over(&trial, &stage, watch, round * 24).await?;
        let from = round * 24;
        acknowledged.extend((from..from + 24).map(|n| workload::value(50, n)));
    }
    trial.disturb(&stage.name, Disturb::Heal).await?;
    Ok(Counts::new()
        .of("records", read, 3 * SOME)
        .of("failures", trial.fired() - before, 10))
}
