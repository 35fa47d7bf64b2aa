//! *Group start*: a new group begins where it was asked to, an old one where it was committed.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::{NoGroup, Starts};
use annals_core::driver::AppendOptions;
use annals_core::{Effect, ErrorKind, Group, Outcome, Record, Recorded, Start, Timestamp, Until};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const RECORDS: usize = 48;
/// The number of the first record that is appended after all starts were taken.
const FIRST: usize = 1_000;
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) fn law() -> Law {
    Law::new(
        "group_start",
        "a new group begins where it was asked to, an old one where it was committed; what no group would see is rejected",
        ANY,
    )
    .claimed_by(|has| groups::can_be(has, 2))
    .case("every start, and a second member's is ignored", |trial| {
        every_start(trial, Ends::Closed)
    })
    .case("what no group would see", void)
    .fault("every start, killed before the first commit", |trial| {
        every_start(trial, Ends::Killed)
    })
    .fault("every start, the service restarted before the first commit", |trial| {
        every_start(trial, Ends::Restarted)
    })
    .refusal("without groups of any name", refused)
}

/// How a group's first member goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Closed,
    Killed,
    Restarted,
}

/// One start, and what of the records that were there before it a group is handed.
struct Asked {
    start: Option<Start>,
    must: BTreeSet<String>,
    may: BTreeSet<String>,
}

async fn every_start(mut trial: Trial, ends: Ends) -> Judged {
    let mut want = Want::default();
    let is_queue = {
        let first = trial.stage(&Want::default()).await?;
        Shape::of(first.capabilities()) == Shape::Queue
    };
    if is_queue {
        // Without one, nothing could be appended before the others are made.
        want = Want::groups(&["group-start-first"])?;
    }
    let stage = trial.stage(&want).await?;
    stage
        .topic
        .append(groups::batch(1, 0, RECORDS / 2))
        .await
        .during("appending")?;
    let (some, middle) = if is_queue {
        (Vec::new(), None)
    } else {
        let read = stage.read(Start::Beginning, Until::End).await?;
        (read.records, read.cursor)
    };
    trial
        .disturb(&stage.name, Disturb::Pass(Duration::from_millis(20)))
        .await?;
    let now = trial.clock().now();
    stage
        .topic
        .append(groups::batch(1, RECORDS / 2, RECORDS / 2))
        .await
        .during("appending")?;
    let all = if is_queue {
        Vec::new()
    } else {
        stage.read_all().await?
    };
    let starts = stage
        .capabilities()
        .group_starts
        .known()
        .copied()
        .unwrap_or(Starts::NONE);
    let mut asked = Vec::new();
    let everything: BTreeSet<String> = (0..RECORDS).map(|n| workload::value(1, n)).collect();
    let exactly = |start: Start, values: BTreeSet<String>| Asked {
        start: Some(start),
        must: values,
        may: BTreeSet::new(),
    };
    if starts.beginning {
        asked.push(exactly(Start::Beginning, everything.clone()));
    }
    if starts.earliest {
        asked.push(exactly(Start::Earliest, everything.clone()));
    }
    if !is_queue {
        asked.push(Asked {
            start: None,
            must: everything.clone(),
            may: BTreeSet::new(),
        });
    }
    if starts.latest {
        asked.push(exactly(Start::Latest, BTreeSet::new()));
    }
    if let Some(middle) = middle.filter(|_| starts.after) {
        let before: BTreeSet<String> = workload::texts(&some).into_iter().collect();
        asked.push(exactly(
            Start::After(middle),
            everything.difference(&before).cloned().collect(),
        ));
        let mut replay = stage
            .topic
            .replay(Start::Beginning)
            .await
            .during("opening a replay")?;
        let mut read = BTreeSet::new();
        for _ in 0..trial.rng.usize(1..RECORDS) {
            if let Some(record) = replay.next().await.during("reading")? {
                read.insert(workload::text(&record));
            }
        }
        let cursor = replay.cursor().clone();
        asked.push(exactly(
            Start::After(cursor),
            everything.difference(&read).cloned().collect(),
        ));
    }
    if let Some(coarse) = starts.since {
        asked.push(since(&all, now, coarse));
    }
    let mut groups = 0;
    let mut handed = 0;
    let mut next = FIRST;
    let name = stage.name.clone();
    drop(stage);
    for (index, mut asked) in asked.into_iter().enumerate() {
        if asked.start != Some(Start::Latest) {
            // What was appended for the groups before it.
            asked
                .must
                .extend((FIRST..next).map(|number| workload::value(1, number)));
        }
        let group = format!("group-start-{index}");
        handed += begin(&mut trial, &name, &group, asked, ends, &mut next).await?;
        groups += 1;
    }
    if is_queue {
        handed += 1;
        late(&trial, &name).await?;
    }
    Ok(Counts::new().of("starts", groups, 1).of(
        "deliveries",
        handed,
        if is_queue { 8 } else { 4 * RECORDS },
    ))
}

/// What is stamped at or after a moment must come; what is older by no more than the granularity
/// may.
fn since(all: &[Recorded], moment: Timestamp, coarse: Duration) -> Asked {
    let stamp = |record: &&Recorded| record.stored_at().map(Timestamp::as_millis);
    let moment_ms = moment.as_millis();
    let coarse = i64::try_from(coarse.as_millis()).unwrap_or(i64::MAX);
    let must = all
        .iter()
        .filter(|r| stamp(r).is_some_and(|at| at >= moment_ms));
    let may = all.iter().filter(|r| {
        stamp(r).is_none_or(|at| at < moment_ms && at >= moment_ms.saturating_sub(coarse))
    });
    Asked {
        start: Some(Start::Since(moment)),
        must: must.map(workload::text).collect(),
        may: may.map(workload::text).collect(),
    }
}

/// A group's lives: its first member goes before it commits anything; a second one, which asks for
/// another start, is handed what the first one asked for; a third goes on behind what that one
/// settled.
async fn begin(
    trial: &mut Trial,
    topic: &annals_core::TopicName,
    group: &str,
    asked: Asked,
    ends: Ends,
    next: &mut usize,
) -> Judged<usize> {
    let said = format!("a group that starts at {:?}", asked.start);
    let stage = trial.on(topic).await?;
    let mut opening = groups::join(trial, &stage, group);
    if let Some(start) = asked.start.clone() {
        opening = opening.start(start);
    }
    let subscription = opening.await.during(&said)?;
    let mut hand = Vec::new();
    let take = if ends == Ends::Killed && trial.rng.bool() {
        0
    } else {
        asked.must.len().min(3)
    };
    for _ in 0..take {
        let delivery = groups::next(trial, &subscription).await.during(&said)?;
        let value = workload::text(&delivery);
        ensure(
            asked.must.contains(&value) || asked.may.contains(&value),
            || format!("{said} is handed {value:?}, which lies before it"),
        )?;
        hand.push(delivery);
    }
    // Nothing of it is settled: the start itself must have been stored.
    if ends == Ends::Killed {
        trial.disturb(topic, Disturb::Kill).await?;
        drop((hand, subscription));
    } else {
        drop(hand);
        trial
            .soon("a close", subscription.close(CLOSE))
            .await?
            .during("closing")?;
        stage.close(CLOSE).await.during("closing the client")?;
        if ends == Ends::Restarted {
            trial.disturb(topic, Disturb::Restart).await?;
        }
    }
    let stage = trial.on(topic).await?;
    // Whoever finds the group there goes on at its commit, whatever it asks for.
    let mut must = asked.must.clone();
    let more = groups::batch(1, *next, 8);
    must.extend(workload::offered(&more));
    *next += 8;
    stage.topic.append(more).await.during("appending")?;
    let mut opening = groups::join(trial, &stage, group);
    let starts = stage
        .capabilities()
        .group_starts
        .known()
        .copied()
        .unwrap_or(Starts::NONE);
    if starts.latest && trial.rng.bool() {
        opening = opening.start(Start::Latest);
    } else if starts.beginning {
        opening = opening.start(Start::Beginning);
    }
    let subscription = opening.await.during(&said)?;
    let (expected, may) = (must.clone(), asked.may);
    let mut handed = groups::handle(trial, &subscription, must, |record| {
        let value = workload::text(record);
        ensure(expected.contains(&value) || may.contains(&value), || {
            format!("{said} is handed {value:?}, which lies before it")
        })
    })
    .await
    .during(&said)?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    stage.close(CLOSE).await.during("closing the client")?;
    // And a third one behind what that one committed.
    let stage = trial.on(topic).await?;
    let more = groups::batch(1, *next, 8);
    let fresh: BTreeSet<String> = workload::offered(&more).into_iter().collect();
    *next += 8;
    stage.topic.append(more).await.during("appending")?;
    let mut opening = groups::join(trial, &stage, group);
    if let Some(start) = asked.start {
        opening = opening.start(start);
    }
    let subscription = opening.await.during(&said)?;
    handed += groups::handle(trial, &subscription, fresh.clone(), |record| {
        let value = workload::text(record);
        ensure(fresh.contains(&value), || {
            format!("{said}, which was committed behind it, is handed {value:?} again")
        })
    })
    .await
    .during(&said)?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    stage.close(CLOSE).await.during("closing the client")?;
    Ok(handed)
}

/// Where nothing is read again, a group that comes late is not made in silence.
async fn late(trial: &Trial, topic: &annals_core::TopicName) -> Judged<()> {
    let stage = trial.on(topic).await?;
    for _ in 0..2 {
        let told = stage.topic.subscribe("group-start-late").await;
        let kind = told.err().map(|error| error.kind());
        ensure(kind == Some(ErrorKind::NotFound), || {
            format!(
                "a group to which records are lost already is answered with {kind:?}, not refused"
            )
        })?;
    }
    let told = stage
        .topic
        .subscribe("group-start-late")
        .start(Start::Beginning)
        .await;
    let starts = stage
        .capabilities()
        .group_starts
        .known()
        .copied()
        .unwrap_or(Starts::NONE);
    ensure(starts.beginning || told.is_err(), || {
        "a start that is not offered is accepted".into()
    })
}

/// An append to a topic without groups: kept for those that come, or rejected and nowhere.
async fn void(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let kept = match stage.capabilities().append.no_group.known() {
        Some(NoGroup::Kept) => true,
        Some(NoGroup::Refused | NoGroup::Checked(_)) => false,
        None => return Err(Stop::NotExercised("nobody knows what becomes of it".into())),
    };
    let options = AppendOptions::default();
    let raw = stage.attempt(&Record::new("raw").into(), &options).await?;
    let told = stage.topic.append(Record::new("told").key("k")).await;
    let mut awaited: BTreeSet<String> = BTreeSet::new();
    if kept {
        told.during("an append without groups")?;
        ensure(matches!(raw.as_slice(), [Outcome::Stored(_)]), || {
            format!("an append without groups comes to {raw:?}")
        })?;
        awaited.extend(["raw".to_owned(), "told".to_owned()]);
    } else {
        let told = told.err().map(|error| (error.kind(), error.effect()));
        ensure(told == Some((ErrorKind::NoGroup, Effect::None)), || {
            format!("an append that no group would see is answered with {told:?}, not rejected")
        })?;
        let rejected = matches!(raw.as_slice(), [Outcome::Rejected(error)] if error.kind() == ErrorKind::NoGroup);
        ensure(rejected, || {
            format!("an append that no group would see comes to {raw:?}")
        })?;
    }
    let subscription = groups::join(&trial, &stage, "group-start-void")
        .await
        .during("subscribing")?;
    stage
        .topic
        .append(Record::new("marker"))
        .await
        .during("appending")?;
    awaited.insert("marker".to_owned());
    let expected = awaited.clone();
    let handed = groups::handle(&trial, &subscription, awaited, |record| {
        let value = workload::text(record);
        ensure(expected.contains(&value), || {
            format!("{value:?} was rejected and is delivered")
        })
    })
    .await?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    if !kept {
        void_again(&stage, "group-start-void").await?;
    }
    Ok(Counts::new()
        .of("appends", 2, 2)
        .of("deliveries", handed, 1))
}

/// With its last group gone a topic is again one that nobody would see a record of.
async fn void_again(stage: &Stage, group: &str) -> Judged<()> {
    let Some(admin) = stage.backend.admin() else {
        return Ok(());
    };
    match admin.delete_group(&stage.name, &Group::new(group)?).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error).during("deleting the last group"),
    }
    let options = AppendOptions::default();
    let raw = stage
        .attempt(&Record::new("again").into(), &options)
        .await?;
    let rejected =
        matches!(raw.as_slice(), [Outcome::Rejected(error)] if error.kind() == ErrorKind::NoGroup);
    ensure(rejected, || {
        format!("an append after the last group was deleted comes to {raw:?}")
    })
}

/// Where there is one group at most, another is refused.
async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let told = stage.topic.subscribe("group-start-other").await;
    let kind = told.err().map(|error| error.kind());
    ensure(kind == Some(ErrorKind::Unsupported), || {
        format!("a group of another name is answered with {kind:?}, not refused")
    })?;
    Ok(Counts::new().of("refusals", 1, 1))
}
