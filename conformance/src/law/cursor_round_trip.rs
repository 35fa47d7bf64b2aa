//! *Cursor round trip*: a cursor survives text and another process; one of something else is
//! refused.

use std::sync::Arc;

use annals_core::capability::{GroupNames, Incarnation};
use annals_core::driver::{AppendOptions, Budget, Expect, ReadRange, Stop as Bound, TopicSpec};
use annals_core::{
    Cursor, Error, ErrorKind, Frontier, Group, Origin, Recorded, Rest, Start, Until,
};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, ROOMS};

/// More partitions than have one digit.
const PARTITIONS: u32 = 12;
const SOME: usize = 60;

pub(crate) fn law() -> Law {
    Law::new(
        "cursor_round_trip",
        "a cursor survives text and another process; one of another topic, backend or incarnation is refused",
        REPLAYED,
    )
    .claimed_by(|has| has.starts.known().is_some_and(|starts| starts.after))
    .case("as text, in another client", as_text)
    .case("of one partition and of very many records", far)
    .case("as a group's start", as_a_start)
    .case("of another topic it is refused", of_another_topic)
    .case("of another backend it is refused", of_another_backend)
    .case("of an earlier topic of the name it is refused", of_an_earlier_topic)
    .fault("after a restart", |trial| disturbed(trial, Disturb::Restart))
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
    .refusal("a forged one is refused", forged)
}

/// There and back: as text, and as JSON.
fn carried(cursor: &Cursor) -> Judged<Cursor> {
    let text = cursor.to_string();
    ensure(
        text.is_ascii() && !text.contains(char::is_whitespace),
        || format!("a cursor's text is no word of ASCII: {text:?}"),
    )?;
    let back: Cursor = text.parse().during("reading a cursor's text")?;
    ensure(back == *cursor, || {
        format!("{cursor} became {back} as text")
    })?;
    let json = serde_json::to_string(&back).map_err(|error| Stop::broken(error.to_string()))?;
    let again: Cursor = serde_json::from_str(&json).map_err(|e| Stop::broken(e.to_string()))?;
    ensure(again == back, || format!("{back} became {again} as JSON"))?;
    Ok(again)
}

/// Going on from `cursor`, in `stage`'s client, gives the rest: what comes behind `read`.
async fn goes_on(
    trial: &Trial,
    stage: &Stage,
    cursor: &Cursor,
    whole: &[Recorded],
    read: &[Recorded],
) -> Judged<()> {
    let places: std::collections::BTreeSet<String> = read.iter().map(place).collect();
    let rest: Vec<Recorded> = whole
        .iter()
        .filter(|record| !places.contains(&place(record)))
        .cloned()
        .collect();
    let rest = readings::parts(&rest);
    let what = format!("going on from {cursor}");
    let reading = trial.soon(&what, stage.read(cursor, Until::End)).await??;
    ensure(reading.gaps.is_empty(), || format!("{what}: a gap is told"))?;
    readings::same(&what, &readings::parts(&reading.records), &rest)?;
    let located = stage
        .backend
        .locate(&stage.name, &Start::After(cursor.clone()))
        .await?;
    ensure(located == *cursor, || {
        format!("the place of {cursor} is said to be {located}")
    })?;
    let rooms = ROOMS
        .get(read.len() % ROOMS.len())
        .copied()
        .unwrap_or_default();
    let below = readings::read_raw(trial, stage, &located, &Bound::End, rooms).await?;
    let what = format!("below core, {what}");
    readings::same(&what, &readings::parts(&below), &rest)
}

fn place(record: &Recorded) -> String {
    record
        .position()
        .map_or_else(String::new, |position| position.to_string())
}

/// Cursors that a reading gave, each with how many records it had read.
async fn given(stage: &Stage, every: usize) -> Judged<(Vec<Recorded>, Vec<(usize, Cursor)>)> {
    let mut replay = stage.topic.replay(readings::first(stage)).await?;
    let mut cursors = vec![(0, replay.cursor().clone())];
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading the whole")? {
        records.push(record);
        if records.len() % every == 0 {
            cursors.push((records.len(), replay.cursor().clone()));
        }
        ensure(records.len() <= 10_000, || {
            "a bounded reading does not end".into()
        })?;
    }
    cursors.push((records.len(), replay.cursor().clone()));
    Ok((records, cursors))
}

/// A topic with many partitions, or as many as there are to be had, and a record in each.
async fn wide(trial: &Trial) -> Judged<Stage> {
    let stage = readings::several(trial, PARTITIONS).await?;
    readings::append_varied(&stage, 1, 0, SOME).await?;
    Ok(stage)
}

async fn as_text(trial: Trial) -> Judged {
    let stage = wide(&trial).await?;
    let (mut carried_over, mut most) = (0, 0);
    for step in 0..2 {
        let (whole, mut cursors) = given(&stage, 11).await?;
        // Those that batches give, and the end.
        let mut replay = stage
            .topic
            .replay(readings::first(&stage))
            .buffer(1)
            .await?;
        let mut read = 0;
        while let Some(batch) = replay.next_batch().await.during("reading batches")? {
            read += batch.len();
            if read % 5 == 0 && batch.cursor() != replay.cursor() {
                return Err(Stop::broken("a batch's cursor is not where the replay is"));
            }
        }
        cursors.push((read, replay.cursor().clone()));
        cursors.push((
            whole.len(),
            stage.backend.locate(&stage.name, &Start::Latest).await?,
        ));
        let other = trial.on(&stage.name).await?;
        for (read, cursor) in &cursors {
            let cursor = carried(cursor)?;
            most = most.max(cursor.places().len());
            let read = whole.get(..*read).unwrap_or_default();
            goes_on(&trial, &other, &cursor, &whole, read).await?;
            carried_over += 1;
        }
        readings::reshape(&trial, &stage, step).await?;
        readings::append_varied(&stage, 1, (step + 1) * SOME, 20).await?;
        // Those of the last shape, in the new one.
        let (whole_now, _) = given(&stage, 1_000).await?;
        for (read, cursor) in cursors.iter().step_by(3) {
            let read = whole.get(..*read).unwrap_or_default();
            goes_on(&trial, &other, &carried(cursor)?, &whole_now, read).await?;
            carried_over += 1;
        }
    }
    let partitions = stage.partitions().await?.len();
    Ok(Counts::new().of("cursors carried", carried_over, 15).of(
        "partitions named by one",
        most,
        partitions.min(10),
    ))
}

/// Numbers of every length.
async fn far(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 1, 0, 1_030).await?;
    let (whole, cursors) = given(&stage, 1_000).await?;
    let other = trial.on(&stage.name).await?;
    for (read, cursor) in &cursors {
        let read = whole.get(..*read).unwrap_or_default();
        goes_on(&trial, &other, &carried(cursor)?, &whole, read).await?;
    }
    // One that readers give who look for a moment, or for what is kept.
    let mut moments = 0;
    for start in [
        Start::Earliest,
        Start::Since(annals_core::Timestamp::from_millis(1)),
    ] {
        let offered = stage
            .capabilities()
            .starts
            .known()
            .is_some_and(|s| match start {
                Start::Earliest => s.earliest,
                _ => s.since.is_some(),
            });
        if offered {
            let cursor = stage.topic.replay(start).await?.cursor().clone();
            goes_on(&trial, &other, &carried(&cursor)?, &whole, &[])
                .await
                .map_err(|stop| {
                    match stop {
                        // `locate` answers what it is given, whatever a reader made of it.
                        Stop::Broken(why) => {
                            Stop::Broken(format!("from where it was pinned: {why}"))
                        }
                        other @ Stop::NotExercised(_) => other,
                    }
                })?;
            moments += 1;
        }
    }
    Ok(Counts::new().of("records", whole.len(), 1_030).of(
        "cursors carried",
        cursors.len() + moments,
        2,
    ))
}

/// A group that begins behind a carried cursor is handed the rest.
async fn as_a_start(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let has = stage.capabilities();
    let groups = has
        .groups
        .names
        .known()
        .is_some_and(|n| *n != GroupNames::None);
    if !groups || !has.group_starts.known().is_some_and(|starts| starts.after) {
        // There is no such start to be had; the cursor is carried all the same.
        readings::append_varied(&stage, 1, 0, SOME).await?;
        let (whole, cursors) = given(&stage, 20).await?;
        for (read, cursor) in &cursors {
            let read = whole.get(..*read).unwrap_or_default();
            goes_on(&trial, &stage, &carried(cursor)?, &whole, read).await?;
        }
        return Ok(Counts::new().of("cursors carried", cursors.len(), 3));
    }
    readings::append_varied(&stage, 1, 0, SOME).await?;
    let (whole, cursors) = given(&stage, 25).await?;
    let other = trial.on(&stage.name).await?;
    for (number, (read, cursor)) in cursors.iter().enumerate() {
        let start = carried(cursor)?;
        let group = format!("start-{number}");
        let subscription = other
            .topic
            .subscribe(&group)
            .start(start)
            .await
            .during("subscribing")?;
        let rest = workload::texts(whole.get(*read..).unwrap_or_default());
        let marker = readings::append_varied(&stage, 2, number * 10, 10).await?;
        let taken = workload::drain(&trial, &subscription, &marker).await?;
        let taken = workload::texts(&taken);
        let early = workload::texts(whole.get(..*read).unwrap_or_default());
        if let Some(again) = taken.iter().find(|value| early.contains(value)) {
            return Err(Stop::broken(format!(
                "a group that starts behind {cursor} was handed {again:?}, which lies before"
            )));
        }
        let missing = rest.iter().find(|value| !taken.contains(value));
        ensure(missing.is_none(), || {
            format!("a group that starts behind {cursor} was not handed {missing:?}")
        })?;
        let grace = std::time::Duration::from_secs(5);
        subscription
            .close(grace)
            .await
            .during("closing the subscription")?;
    }
    Ok(Counts::new().of("cursors carried", cursors.len(), 3))
}

/// Breaks the case unless it was refused as one of something else.
fn is_refused(what: &str, told: Result<(), Error>) -> Judged<()> {
    let kind = told.err().map(|error| error.kind());
    ensure(kind == Some(ErrorKind::Config), || {
        format!("{what} is answered with {kind:?}, not refused as Config")
    })
}

/// Gives a cursor wherever one is taken; how often it was refused.
async fn refused_everywhere(
    trial: &Trial,
    stage: &Stage,
    what: &str,
    foreign: &Cursor,
) -> Judged<usize> {
    let own = stage.read(readings::first(stage), Until::End).await?.cursor;
    let own = own.ok_or_else(|| Stop::broken("a replay has no cursor"))?;
    let (backend, name) = (&stage.backend, &stage.name);
    let mut refusals = 0;
    for follows in [false, true] {
        let open = if follows {
            stage.topic.follow(foreign)
        } else {
            stage.topic.replay(foreign)
        };
        let told = trial.soon(what, open).await?;
        is_refused(&format!("a reading from {what}"), told.map(drop))?;
        refusals += 1;
    }
    let until = Until::Through(foreign.clone());
    let open = stage.topic.replay(readings::first(stage)).until(until);
    let told = trial.soon(what, open).await?.map(drop);
    is_refused(&format!("a reading through {what}"), told)?;
    let told = backend.locate(name, &Start::After(foreign.clone())).await;
    is_refused(&format!("the place of {what}"), told.map(drop))?;
    refusals += 2;
    // A reader of one partition where each has one of its own.
    let named = |cursor: &Cursor| {
        let mut cursor = cursor.clone();
        let id = own.places().next().map(|(id, _)| id);
        if let (Some(id), true) = (id, readings::has_lineage(stage)) {
            let at = cursor.frontier(id).copied().unwrap_or(Frontier::START);
            cursor = Cursor::new(cursor.origin().clone(), [(id, at)], Rest::Outside);
        }
        cursor
    };
    let range = |from: &Cursor, stop: Bound| ReadRange {
        partitions: (readings::has_lineage(stage))
            .then(|| named(from).places().map(|(id, _)| id).collect()),
        from: named(from),
        stop,
        key: None,
        budget: Budget::new(1 << 20),
    };
    let told = backend.read(name, &range(foreign, Bound::End)).await;
    is_refused(
        &format!("below core, a reading from {what}"),
        told.map(drop),
    )?;
    let mut through = foreign.clone();
    for (id, at) in own.places() {
        if through.frontier(id).is_none() {
            through.set(id, *at);
        }
    }
    let told = backend
        .read(name, &range(&own, Bound::Through(through)))
        .await;
    is_refused(
        &format!("below core, a reading through {what}"),
        told.map(drop),
    )?;
    refusals += 2;
    let has = stage.capabilities();
    if has.append.conditional.is(&true) {
        let options = AppendOptions {
            expect: Some(Expect::End(foreign.clone())),
            ..AppendOptions::default()
        };
        let batch = workload::batch(7, 0, 1, 1);
        let told = match backend.append(name, &batch, &options).await {
            Err(error) => Err(error),
            Ok(report) => match report.into_outcomes().pop() {
                Some(annals_core::Outcome::Rejected(error)) => Err(error),
                _ => Ok(()),
            },
        };
        is_refused(
            &format!("an append on the condition that {what} is the end"),
            told,
        )?;
        refusals += 1;
    }
    if let Some(admin) = backend.admin() {
        let told = admin.lag(name, foreign).await.map(drop);
        if !matches!(&told, Err(error) if error.kind() == ErrorKind::Unsupported) {
            is_refused(&format!("the lag of {what}"), told)?;
            refusals += 1;
        }
        if has.group_starts.known().is_some_and(|starts| starts.after) {
            let group = Group::new("foreign")?;
            let start = Some(Start::After(foreign.clone()));
            let told = admin.create_group(name, &group, start).await.map(drop);
            is_refused(&format!("a group at {what}"), told)?;
            refusals += 1;
        }
    }
    if has
        .groups
        .names
        .known()
        .is_some_and(|n| matches!(n, GroupNames::Any(_)))
        && has.group_starts.known().is_some_and(|starts| starts.after)
    {
        let open = stage.topic.subscribe("foreign").start(foreign);
        let told = trial.soon(what, open).await?;
        is_refused(&format!("a subscription at {what}"), told.map(drop))?;
        refusals += 1;
    }
    // Its own is taken still.
    stage.read(&own, Until::End).await?;
    Ok(refusals)
}

async fn of_another_topic(trial: Trial) -> Judged {
    let stage = wide(&trial).await?;
    let other = wide(&trial).await?;
    let mut refusals = 0;
    let whole = other
        .read(readings::first(&other), Until::End)
        .await?
        .cursor;
    let foreign = whole.ok_or_else(|| Stop::broken("a replay has no cursor"))?;
    refusals += refused_everywhere(&trial, &stage, "another topic's cursor", &foreign).await?;
    // Of the topic's start, which names no place that could be missed.
    let start = Cursor::start(foreign.origin().clone());
    refusals += refused_everywhere(&trial, &stage, "another topic's start", &start).await?;
    // And with a name that this topic's is the beginning of.
    let mine = stage
        .read(readings::first(&stage), Until::End)
        .await?
        .cursor;
    let mine = mine.ok_or_else(|| Stop::broken("a replay has no cursor"))?;
    for name in [
        format!("{}x", stage.name.as_str()),
        stage.name.as_str().to_uppercase(),
    ] {
        let Ok(topic) = annals_core::TopicName::new(name) else {
            continue;
        };
        if topic == stage.name {
            continue;
        }
        let origin = Origin {
            topic,
            ..(**mine.origin()).clone()
        };
        let places: Vec<_> = mine.places().map(|(id, at)| (id, *at)).collect();
        let like = Cursor::new(Arc::new(origin), places, mine.rest());
        refusals += refused_everywhere(&trial, &stage, "the cursor of a like name", &like).await?;
    }
    Ok(Counts::new().of("refusals", refusals, 14))
}

async fn of_another_backend(trial: Trial) -> Judged {
    let stage = wide(&trial).await?;
    let mine = stage
        .read(readings::first(&stage), Until::End)
        .await?
        .cursor;
    let mine = mine.ok_or_else(|| Stop::broken("a replay has no cursor"))?;
    let mut refusals = 0;
    for scheme in ["elsewhere", &format!("{}s", stage.backend.scheme())] {
        let origin = Origin {
            scheme: (*scheme).into(),
            ..(**mine.origin()).clone()
        };
        let places: Vec<_> = mine.places().map(|(id, at)| (id, *at)).collect();
        let foreign = Cursor::new(Arc::new(origin), places, mine.rest());
        let what = "another backend's cursor";
        refusals += refused_everywhere(&trial, &stage, what, &foreign).await?;
    }
    Ok(Counts::new().of("refusals", refusals, 12))
}

/// The topic is deleted and made again, with as many records in it. Where nothing tells one from
/// the other, so do the capabilities.
async fn of_an_earlier_topic(trial: Trial) -> Judged {
    let stage = wide(&trial).await?;
    if !stage.capabilities().incarnation.is(&Incarnation::Exact) {
        // Not claimed: then no cursor says which one it is of.
        let mine = stage
            .read(readings::first(&stage), Until::End)
            .await?
            .cursor;
        let shown = mine.is_some_and(|cursor| !cursor.origin().incarnation.is_empty());
        ensure(!shown, || {
            "a cursor names an incarnation, and none is claimed".into()
        })?;
        return Ok(Counts::new().of("incarnations", 1, 1));
    }
    let Some(admin) = stage.backend.admin() else {
        return Err(Stop::NotExercised("the backend makes no topics".into()));
    };
    let partitions = u32::try_from(stage.partitions().await?.len()).ok();
    let mut refusals = 0;
    let mut earlier: Vec<Cursor> = Vec::new();
    let mut last = stage;
    for _ in 0..2 {
        let (_, cursors) = given(&last, 20).await?;
        earlier.extend(cursors.into_iter().map(|(_, cursor)| cursor).step_by(2));
        admin
            .delete(&last.name)
            .await
            .during("deleting the topic")?;
        let spec = TopicSpec {
            partitions,
            ..TopicSpec::default()
        };
        admin
            .create(&last.name, &spec)
            .await
            .during("making it again")?;
        let again = trial.on(&last.name).await?;
        readings::append_varied(&again, 1, 0, SOME).await?;
        for cursor in &earlier {
            let cursor = carried(cursor)?;
            let what = "an earlier topic's cursor";
            refusals += refused_everywhere(&trial, &again, what, &cursor).await?;
        }
        // By who opened it before, too.
        let told = last.topic.replay(earlier.first().cloned()).await;
        is_refused(
            "an earlier topic's cursor, on an old handle",
            told.map(drop),
        )?;
        last = again;
    }
    Ok(Counts::new().of("refusals", refusals, 20))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let stage = wide(&trial).await?;
    let (whole, cursors) = given(&stage, 9).await?;
    trial.disturb(&stage.name, what).await?;
    let stage = trial.on(&stage.name).await?;
    for (read, cursor) in &cursors {
        let read = whole.get(..*read).unwrap_or_default();
        goes_on(&trial, &stage, &carried(cursor)?, &whole, read).await?;
    }
    Ok(Counts::new().of("cursors carried", cursors.len(), 6))
}

async fn forged(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let cursor = carried(&readings::forged(&stage)?)?;
    for follows in [false, true] {
        let open = if follows {
            stage.topic.follow(&cursor)
        } else {
            stage.topic.replay(&cursor)
        };
        let kind = open.await.err().map(|error| error.kind());
        ensure(
            matches!(kind, Some(ErrorKind::Unsupported | ErrorKind::Config)),
            || format!("a reading from a forged cursor is answered with {kind:?}"),
        )?;
    }
    let told = stage
        .backend
        .locate(&stage.name, &Start::After(cursor))
        .await;
    let kind = told.err().map(|error| error.kind());
    ensure(
        matches!(kind, Some(ErrorKind::Unsupported | ErrorKind::Config)),
        || format!("the place of a forged cursor is answered with {kind:?}"),
    )?;
    Ok(Counts::new().of("refusals", 3, 3))
}
