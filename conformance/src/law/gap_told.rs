//! *Gap told*: whoever asks for records that are gone is told so before any later record.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::capability::{ByKey, GapSignal, GroupNames};
use annals_core::driver::{Fetched, Stop as Bound};
use annals_core::{
    Cursor, Delivery, ErrorKind, Gap, PartitionId, Position, Recorded, Replay, Signal, Start,
    Timestamp, Until,
};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, ROOMS};

const GROUP: &str = "gap";
const SOME: usize = 40;

pub(crate) fn law() -> Law {
    Law::new(
        "gap_told",
        "who asks for records that are gone is told before any later record, and where it goes on",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        let signal = has.gap.known();
        signal.is_some_and(|signal| *signal != GapSignal::None)
            && starts.is_some_and(|s| s.beginning || s.earliest)
    })
    .case("where nothing is gone nothing is told", whole)
    .fault("to a reader from every start", readers)
    .fault("to a reader of what is all gone", all_gone)
    .fault("to a follower that is overtaken", followers)
    .fault("to a group that is overtaken", groups)
    .fault("to a new group", new_group)
    .fault("below core, with any room", below_core)
    .fault("to who comes back after a restart", restarted)
    .fault("where partitions split, if they do", reshaped)
    .fault("to who looks for a key", by_key)
    .refusal("what cannot be replayed says so", readings::starts_refused)
}

/// Every record that there ever was, by partition, in order; and what each partition continues.
#[derive(Default)]
struct History(
    BTreeMap<PartitionId, Vec<Recorded>>,
    BTreeMap<PartitionId, Vec<PartitionId>>,
);

impl History {
    /// Appends some, and reads them before they can go.
    async fn append(&mut self, stage: &Stage, from: usize, records: usize) -> Judged<()> {
        readings::append_varied(stage, 1, from, records).await?;
        for listed in stage.backend.partitions(&stage.name).await? {
            self.1.insert(listed.id, listed.parents);
        }
        for record in stage.read_all().await? {
            let Some(position) = record.position() else {
                return Err(Stop::broken("a record has no position"));
            };
            let all = self.0.entry(position.partition()).or_default();
            if all
                .last()
                .is_none_or(|last| last.position() < Some(position))
            {
                all.push(record);
            }
        }
        Ok(())
    }

    fn records(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// How many of each partition are gone, of those that some are kept of.
    fn kept(&self, kept: &[Recorded]) -> BTreeMap<PartitionId, usize> {
        let mut first = BTreeMap::new();
        for position in kept.iter().filter_map(Recorded::position) {
            if let Some(at) = self.place(position) {
                first.entry(position.partition()).or_insert(at);
            }
        }
        first
    }

    /// Whether one continues the other, or is it.
    fn continues(&self, one: PartitionId, other: PartitionId) -> bool {
        one == other
            || self
                .1
                .get(&one)
                .is_some_and(|parents| parents.iter().any(|p| self.continues(*p, other)))
    }

    fn place(&self, position: Position) -> Option<usize> {
        let all = self.0.get(&position.partition())?;
        let at = all.partition_point(|record| record.position() < Some(position));
        (all.get(at)?.position() == Some(position)).then_some(at)
    }
}

/// One reading, held against what there was.
struct Watch<'h> {
    what: String,
    history: &'h History,
    /// How many of each partition need not come any more.
    at: BTreeMap<PartitionId, usize>,
    /// Gaps behind which no record has come yet.
    told: BTreeMap<PartitionId, Gap>,
    /// Whether a gap is never told for nothing.
    exact: bool,
    /// Whether records that lie before a gap may come after it was told.
    early: bool,
    gaps: usize,
    jumps: usize,
    seen: usize,
}

impl<'h> Watch<'h> {
    fn new(what: impl Into<String>, stage: &Stage, history: &'h History) -> Self {
        Self {
            what: what.into(),
            history,
            at: BTreeMap::new(),
            told: BTreeMap::new(),
            exact: stage.capabilities().gap.is(&GapSignal::Exact),
            early: false,
            gaps: 0,
            jumps: 0,
            seen: 0,
        }
    }

    /// From behind what these have read.
    fn behind(mut self, read: &[Recorded]) -> Self {
        for position in read.iter().filter_map(Recorded::position) {
            if let Some(at) = self.history.place(position) {
                let place = self.at.entry(position.partition()).or_default();
                *place = (*place).max(at + 1);
            }
        }
        self
    }

    fn gap(&mut self, gap: &Gap) -> Judged<()> {
        self.gaps += 1;
        let what = &self.what;
        if let Some(before) = self.told.insert(gap.partition, gap.clone())
            && self.exact
            && before == *gap
        {
            return Err(Stop::broken(format!("{what}: told twice: {gap}")));
        }
        Ok(())
    }

    fn record(&mut self, record: &Recorded) -> Judged<()> {
        self.seen += 1;
        let what = &self.what;
        let Some(position) = record.position() else {
            return Err(Stop::broken(format!("{what}: a record has no position")));
        };
        let partition = position.partition();
        let Some(place) = self.history.place(position) else {
            return Ok(());
        };
        let at = self.at.entry(partition).or_default();
        if place < *at {
            return Ok(());
        }
        let skipped = place - *at;
        let missing = self.history.0.get(&partition).and_then(|all| all.get(*at));
        *at = place + 1;
        if skipped == 0 {
            let told = if self.early {
                None
            } else {
                self.told.remove(&partition)
            };
            let false_alarm = told.filter(|_| self.exact);
            return ensure(false_alarm.is_none(), || {
                format!(
                    "{what}: told {false_alarm:?}, and nothing is missing before {}",
                    readings::print(record)
                )
            });
        }
        self.jumps += 1;
        let Some(gap) = self.told.remove(&partition) else {
            return Err(Stop::broken(format!(
                "{what}: nothing was told of {skipped} records that are gone, the first is {}, before {}",
                missing.map_or_else(String::new, readings::print),
                readings::print(record)
            )));
        };
        ensure(gap.to.is_none_or(|to| to == position), || {
            format!(
                "{what}: the gap was told to end before {:?}, and the first read behind it is {}",
                gap.to,
                readings::print(record)
            )
        })
    }

    /// A range has ended: what did not come of it was told.
    fn ended(&self) -> Judged<()> {
        for (partition, all) in &self.history.0 {
            let at = self.at.get(partition).copied().unwrap_or(0);
            let missing = all.get(at);
            // Of one that nobody lists any more what continues it tells.
            let told = self
                .told
                .keys()
                .any(|id| self.history.continues(*id, *partition));
            ensure(missing.is_none() || told, || {
                format!(
                    "{}: it ended, and nothing was told of {} records that are gone, the first is {}",
                    self.what,
                    all.len() - at,
                    missing.map_or_else(String::new, readings::print)
                )
            })?;
        }
        Ok(())
    }

    /// One signal more; whether there was one.
    async fn next(&mut self, trial: &Trial, replay: &mut Replay) -> Judged<bool> {
        let signal = trial.soon(&self.what, replay.next_signal()).await?;
        match signal.during(&self.what)? {
            None => return Ok(false),
            Some(Signal::Record(record)) => self.record(&record)?,
            Some(Signal::Gap(gap)) => self.gap(&gap)?,
            Some(Signal::CaughtUp(_) | Signal::Advanced(_)) => {}
        }
        Ok(true)
    }

    async fn run_out(&mut self, trial: &Trial, replay: &mut Replay) -> Judged<()> {
        let most = 10 * self.history.records() + 1_000;
        for _ in 0..most {
            if !self.next(trial, replay).await? {
                return self.ended();
            }
        }
        Err(Stop::broken(format!("{}: it does not end", self.what)))
    }

    fn counts(&self) -> (usize, usize) {
        (self.gaps, self.jumps)
    }
}

async fn whole(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut history = History::default();
    history.append(&stage, 0, SOME).await?;
    let mut replay = stage.topic.replay(readings::first(&stage)).await?;
    let mut watch = Watch::new("a replay of a whole topic", &stage, &history);
    watch.run_out(&trial, &mut replay).await?;
    let gaps = watch.gaps;
    ensure(gaps == 0 || !watch.exact, || {
        format!("nothing is gone, and {gaps} gaps are told")
    })?;
    Ok(Counts::new().of("records", watch.seen, SOME))
}

/// Cursors at some places, each with what had been read.
async fn cursors(stage: &Stage) -> Judged<Vec<(Cursor, Vec<Recorded>)>> {
    let mut cursors = Vec::new();
    if !stage.capabilities().starts.known().is_some_and(|s| s.after) {
        return Ok(cursors);
    }
    let mut replay = stage.topic.replay(readings::first(stage)).await?;
    let mut read = Vec::new();
    loop {
        cursors.push((replay.cursor().clone(), read.clone()));
        let Some(record) = replay.next().await.during("reading")? else {
            return Ok(cursors);
        };
        read.push(record);
        ensure(read.len() <= 10 * SOME, || {
            "more is read than was appended".into()
        })?;
    }
}

/// Whether as many of a partition have been read as are gone, or one more or less.
fn is_at_an_edge(kept: &BTreeMap<PartitionId, usize>, read: &[Recorded]) -> bool {
    kept.iter().any(|(id, first)| {
        let of = |record: &&Recorded| record.position().is_some_and(|p| p.partition() == *id);
        read.iter().filter(of).count().abs_diff(*first) <= 1
    })
}

/// From everywhere, to the end.
async fn from_everywhere(
    trial: &Trial,
    stage: &Stage,
    history: &History,
    cursors: &[(Cursor, Vec<Recorded>)],
) -> Judged<(usize, usize)> {
    let starts = stage.capabilities().starts.known().copied();
    let (mut gaps, mut jumps) = (0, 0);
    let mut add = |watch: &Watch<'_>| {
        let (more_gaps, more_jumps) = watch.counts();
        gaps += more_gaps;
        jumps += more_jumps;
    };
    if starts.is_some_and(|s| s.beginning) {
        for _ in 0..2 {
            let mut replay = stage.topic.replay(Start::Beginning).await?;
            let mut watch = Watch::new("a replay from Beginning", stage, history);
            watch.run_out(trial, &mut replay).await?;
            add(&watch);
        }
    }
    let kept = history.kept(&stage.read_all().await?);
    for (number, (cursor, read)) in cursors.iter().enumerate() {
        // Some of all, and those right at an edge: where one record is missing, or none.
        if number % 9 > 0 && !is_at_an_edge(&kept, read) {
            continue;
        }
        let mut replay = stage.topic.replay(cursor).await?;
        let what = format!("a replay from {cursor}");
        let mut watch = Watch::new(what, stage, history).behind(read);
        watch.run_out(trial, &mut replay).await?;
        add(&watch);
    }
    let stamps = history.0.values().flatten().filter_map(Recorded::stored_at);
    if let (Some(stamp), true) = (stamps.max(), starts.is_some_and(|s| s.since.is_some())) {
        // All of them are stamped later: it is the whole that is asked for.
        let long_ago = Timestamp::from_millis(stamp.as_millis() - 1_000_000);
        let mut replay = stage.topic.replay(Start::Since(long_ago)).await?;
        let mut watch = Watch::new(format!("a replay Since({long_ago})"), stage, history);
        watch.run_out(trial, &mut replay).await?;
        add(&watch);
        // Also where the reading is bounded: by a moment behind all of them, and by the end.
        let behind = Timestamp::from_millis(stamp.as_millis() + 1);
        let end = stage.topic.end().await.during("asking for the end")?;
        for (from, until) in [
            (Start::Since(long_ago), Until::Before(behind)),
            (Start::Since(long_ago), Until::Through(end.clone())),
            (Start::Beginning, Until::Before(behind)),
            (Start::Beginning, Until::Through(end)),
        ] {
            if matches!(from, Start::Beginning) && !starts.is_some_and(|s| s.beginning) {
                continue;
            }
            let replay = stage.topic.replay(from).until(until.clone());
            let mut replay = replay.await.during("opening a bounded replay")?;
            let what = format!("a replay until {until:?}");
            let mut watch = Watch::new(what, stage, history);
            watch.run_out(trial, &mut replay).await?;
            add(&watch);
        }
    }
    if starts.is_some_and(|s| s.earliest) {
        // What is gone by now is accepted.
        let read = stage.read(Start::Earliest, Until::End).await?;
        let exact = stage.capabilities().gap.is(&GapSignal::Exact);
        ensure(read.gaps.is_empty() || !exact, || {
            format!("a replay from Earliest tells of {:?}", read.gaps)
        })?;
    }
    Ok((gaps, jumps))
}

async fn readers(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut history = History::default();
    let (mut gaps, mut jumps) = (0, 0);
    history.append(&stage, 0, SOME).await?;
    let cursors = cursors(&stage).await?;
    for (round, keep) in [10, 3, 1].into_iter().enumerate() {
        trial.disturb(&stage.name, Disturb::Trim { keep }).await?;
        let reader = trial.on(&stage.name).await?;
        let told = from_everywhere(&trial, &reader, &history, &cursors).await?;
        gaps += told.0;
        jumps += told.1;
        history.append(&stage, SOME + round * 10, 5).await?;
        let told = from_everywhere(&trial, &stage, &history, &cursors).await?;
        gaps += told.0;
        jumps += told.1;
    }
    Ok(Counts::new().of("gaps told", gaps, 6).of("jumps", jumps, 6))
}

async fn all_gone(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut history = History::default();
    history.append(&stage, 0, SOME).await?;
    let cursors = cursors(&stage).await?;
    trial
        .disturb(&stage.name, Disturb::Trim { keep: 0 })
        .await?;
    let (mut gaps, _) = from_everywhere(&trial, &stage, &history, &cursors).await?;
    history.append(&stage, SOME, 20).await?;
    gaps += from_everywhere(&trial, &stage, &history, &cursors).await?.0;
    Ok(Counts::new().of("gaps told", gaps, 2))
}

async fn followers(trial: Trial) -> Judged {
    let (mut gaps, mut jumps) = (0, 0);
    for (read, buffer) in [(0, 1), (5, 1), (SOME, 1), (5, 1 << 22)] {
        let stage = readings::several(&trial, 3).await?;
        let mut history = History::default();
        history.append(&stage, 0, SOME).await?;
        let open = stage.topic.follow(readings::first(&stage)).buffer(buffer);
        let mut follow = open.await.during("opening a follow")?;
        let mut early = Vec::new();
        for _ in 0..read {
            early.extend(follow.next().await.during("following")?);
        }
        let other = trial.on(&stage.name).await?;
        let mut at = None;
        // Once it has caught up it is overtaken again.
        for turn in [1, 2] {
            history.append(&stage, turn * 1_000, SOME).await?;
            trial
                .disturb(&stage.name, Disturb::Trim { keep: 2 })
                .await?;
            history.append(&other, turn * 1_000 + SOME, 20).await?;
            let what = format!("a follower overtaken after {read} records, time {turn}");
            let mut watch = Watch::new(what, &stage, &history).behind(&early);
            watch.at = at.unwrap_or(watch.at);
            let all = history.0.clone();
            let is_through = |watch: &Watch<'_>| {
                let at = |id| watch.at.get(id).copied().unwrap_or(0);
                all.iter().all(|(id, records)| at(id) == records.len())
            };
            let most = 10 * history.records();
            for _ in 0..most {
                if is_through(&watch) {
                    break;
                }
                let more = watch.next(&trial, &mut follow).await?;
                ensure(more, || "a follow ended by itself".into())?;
            }
            gaps += watch.gaps;
            jumps += watch.jumps;
            at = Some(watch.at);
        }
    }
    // A backend may have read ahead what is trimmed behind it: such a follower was not overtaken.
    Ok(Counts::new().of("gaps told", gaps, 1).of("jumps", jumps, 1))
}

fn has_groups(stage: &Stage) -> bool {
    let names = stage.capabilities().groups.names.known();
    names.is_some_and(|names| *names != GroupNames::None)
}

/// Takes deliveries until the last of each partition has come.
async fn receive(
    trial: &Trial,
    subscription: &annals_core::Subscription,
    mut watch: Watch<'_>,
) -> Judged<(usize, usize)> {
    watch.early = true;
    let history = watch.history;
    let is_through = |watch: &Watch<'_>| {
        let at = |id| watch.at.get(id).copied().unwrap_or(0);
        history
            .0
            .iter()
            .all(|(id, records)| at(id) == records.len())
    };
    let most = 10 * history.records();
    for _ in 0..most {
        if is_through(&watch) {
            break;
        }
        let next = trial.soon(&watch.what, subscription.next()).await?;
        match next {
            Ok(Some(delivery)) => {
                watch.record(delivery.record())?;
                Delivery::done(delivery);
            }
            Ok(None) => return Err(Stop::broken("the subscription ended by itself")),
            Err(error) if error.kind() == ErrorKind::Gap => {
                let gap = error.gap().cloned();
                watch.gap(&gap.ok_or_else(|| Stop::broken("a gap's error says no gap"))?)?;
            }
            Err(error) => return Err(error).during(&watch.what),
        }
    }
    Ok(watch.counts())
}

async fn groups(trial: Trial) -> Judged {
    let (mut gaps, mut jumps) = (0, 0);
    // Before its first commit, after some, and while it holds one.
    for (taken, stays) in [(0, false), (6, false), (6, true)] {
        let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
        if !has_groups(&stage) {
            return Err(Stop::NotExercised("it has no groups".into()));
        }
        let mut history = History::default();
        history.append(&stage, 0, SOME).await?;
        let join = || stage.topic.subscribe(GROUP).in_flight(1, 1 << 20);
        let mut subscription = Some(join().await.during("subscribing")?);
        let mut early = Vec::new();
        for _ in 0..taken {
            let Some(subscription) = &subscription else {
                break;
            };
            let next = trial.soon("a delivery", subscription.next()).await?;
            if let Some(delivery) = next.during("receiving")? {
                early.push(delivery.record().detach());
                delivery.done_and_wait().await.during("committing")?;
            }
        }
        if !stays && let Some(subscription) = subscription.take() {
            let closed = subscription.close(Duration::from_secs(5)).await;
            closed.during("closing the subscription")?;
        }
        history.append(&stage, SOME, SOME).await?;
        trial
            .disturb(&stage.name, Disturb::Trim { keep: 2 })
            .await?;
        history.append(&stage, 2 * SOME, 10).await?;
        let subscription = match subscription {
            Some(subscription) => subscription,
            None => join().await.during("subscribing again")?,
        };
        let what =
            format!("a group that was overtaken after {taken} records, its member stays: {stays}");
        let watch = Watch::new(what, &stage, &history).behind(&early);
        let told = receive(&trial, &subscription, watch).await?;
        gaps += told.0;
        jumps += told.1;
        let closed = subscription.close(Duration::from_secs(5)).await;
        closed.during("closing the subscription")?;
    }
    Ok(Counts::new().of("gaps told", gaps, 2).of("jumps", jumps, 2))
}

async fn new_group(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    if !has_groups(&stage) {
        return Err(Stop::NotExercised("it has no groups".into()));
    }
    let mut history = History::default();
    history.append(&stage, 0, SOME).await?;
    trial
        .disturb(&stage.name, Disturb::Trim { keep: 3 })
        .await?;
    history.append(&stage, SOME, 10).await?;
    let (mut gaps, mut jumps) = (0, 0);
    for group in ["one", "two"] {
        let open = stage.topic.subscribe(group).start(Start::Beginning);
        let subscription = open.await.during("subscribing")?;
        let watch = Watch::new("a new group at Beginning", &stage, &history);
        let told = receive(&trial, &subscription, watch).await?;
        gaps += told.0;
        jumps += told.1;
        let closed = subscription.close(Duration::from_secs(5)).await;
        closed.during("closing the subscription")?;
    }
    Ok(Counts::new().of("gaps told", gaps, 2).of("jumps", jumps, 2))
}

async fn below_core(trial: Trial) -> Judged {
    let (mut gaps, mut jumps) = (0, 0);
    for rooms in ROOMS {
        let stage = readings::several(&trial, 3).await?;
        let mut history = History::default();
        history.append(&stage, 0, SOME).await?;
        let first = readings::first(&stage);
        let from = stage.backend.locate(&stage.name, &first).await?;
        // One that is overtaken, one that comes later.
        let mut overtaken =
            readings::raw_readers(&stage, &from, &Bound::Never, None, rooms).await?;
        for reader in &mut overtaken {
            reader.until(&trial, 3).await?;
        }
        trial
            .disturb(&stage.name, Disturb::Trim { keep: 4 })
            .await?;
        history.append(&stage, SOME, 10).await?;
        let late = readings::raw_readers(&stage, &from, &Bound::End, None, rooms).await?;
        let from_start = from.places().len() == 0;
        for (mut reader, ends) in overtaken
            .into_iter()
            .map(|reader| (reader, false))
            .chain(late.into_iter().map(|reader| (reader, true)))
        {
            if ends {
                // From Earliest nothing is missing.
                if !from_start {
                    continue;
                }
                reader.out(&trial).await?;
            } else {
                let of = |id| history.0.get(&id).map_or(0, Vec::len);
                let all = reader.partition.map_or(history.records(), of);
                // As many as there can be, less what is gone.
                reader.at_most(&trial, all).await?;
            }
            let what = format!("below core, {:?}, it ends: {ends}", rooms.first());
            let mut watch = Watch::new(what, &stage, &history);
            let mut said = reader.said.iter().peekable();
            for number in 0..=reader.records.len() {
                while let Some((_, told)) = said.next_if(|(after, _)| *after == number) {
                    if let Fetched::Gap {
                        partition,
                        from,
                        to,
                    } = told
                    {
                        watch.gap(&Gap {
                            partition: *partition,
                            from: *from,
                            to: *to,
                        })?;
                    }
                }
                if let Some(record) = reader.records.get(number) {
                    watch.record(record)?;
                }
            }
            gaps += watch.gaps;
            jumps += watch.jumps;
        }
    }
    Ok(Counts::new()
        .of("gaps told", gaps, ROOMS.len())
        .of("jumps", jumps, ROOMS.len()))
}

async fn restarted(trial: Trial) -> Judged {
    let (mut gaps, mut jumps) = (0, 0);
    for what in [Disturb::Restart, Disturb::Kill] {
        let stage = readings::several(&trial, 3).await?;
        let mut history = History::default();
        history.append(&stage, 0, SOME).await?;
        let cursors = cursors(&stage).await?;
        trial
            .disturb(&stage.name, Disturb::Trim { keep: 3 })
            .await?;
        trial.disturb(&stage.name, what).await?;
        let stage = trial.on(&stage.name).await?;
        let told = from_everywhere(&trial, &stage, &history, &cursors).await?;
        history.append(&stage, SOME, 10).await?;
        gaps += told.0;
        jumps += told.1;
        let told = from_everywhere(&trial, &stage, &history, &cursors).await?;
        gaps += told.0;
        jumps += told.1;
    }
    Ok(Counts::new().of("gaps told", gaps, 4).of("jumps", jumps, 4))
}

async fn reshaped(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut history = History::default();
    history.append(&stage, 0, SOME).await?;
    let cursors = cursors(&stage).await?;
    let mut gaps = 0;
    for (step, keep) in [(0, 5), (1, 2), (2, 0)] {
        readings::reshape(&trial, &stage, step).await?;
        history.append(&stage, (step + 1) * SOME, 20).await?;
        trial.disturb(&stage.name, Disturb::Trim { keep }).await?;
        history.append(&stage, (step + 1) * SOME + 20, 10).await?;
        gaps += from_everywhere(&trial, &stage, &history, &cursors).await?.0;
    }
    Ok(Counts::new().of("gaps told", gaps, 3))
}

/// Whether it had any of that key nobody knows any more.
async fn by_key(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let mut history = History::default();
    history.append(&stage, 0, SOME).await?;
    trial
        .disturb(&stage.name, Disturb::Trim { keep: 4 })
        .await?;
    stage.topic.append(workload::batch(2, 0, 20, 4)).await?;
    let open = || stage.topic.replay(Start::Beginning);
    let open = match stage.capabilities().by_key.known() {
        Some(ByKey::Indexed) => open().key("k1"),
        Some(ByKey::Scanned) => open().scan_key("k1"),
        _ => open(),
    };
    if !stage
        .capabilities()
        .starts
        .known()
        .is_some_and(|s| s.beginning)
    {
        return Err(Stop::NotExercised(
            "no replay begins at the beginning".into(),
        ));
    }
    let mut replay = open.await.during("opening a replay of a key")?;
    let mut told = Vec::new();
    let mut records = 0;
    while let Some(signal) = replay.next_signal().await.during("reading a key")? {
        match signal {
            Signal::Gap(gap) => told.push(gap.partition),
            Signal::Record(record) => {
                records += 1;
                let id = record.position().map(|position| position.partition());
                let id = id.filter(|id| history.0.contains_key(id) && !told.contains(id));
                ensure(id.is_none(), || {
                    format!(
                        "a replay of a key: nothing was told of what is gone before {}",
                        readings::print(&record)
                    )
                })?;
            }
            Signal::CaughtUp(_) | Signal::Advanced(_) => {}
        }
        ensure(records <= 10 * SOME, || {
            "more is read than was appended".into()
        })?;
    }
    Ok(Counts::new()
        .of("gaps told", told.len(), 1)
        .of("records", records, 5))
}
