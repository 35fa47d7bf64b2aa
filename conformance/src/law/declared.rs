//! *Declared*: a topic promises what is seen of it, and refuses the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::{
    Batching, ByKey, GroupNames, LogTime, Members, Order, Partitions, Receipt, Replay, Retention,
    Tail,
};
use annals_core::driver::{AppendOptions, Expect};
use annals_core::{
    Batch, Capabilities, Error, ErrorKind, Need, Outcome, Record, Recorded, Start, TopicSpec,
};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings;

const GROUP: &str = "declared";
const RECORDS: usize = 60;
const KEYS: usize = 5;

pub(crate) fn law() -> Law {
    Law::new(
        "declared",
        "what a topic promises is what is seen, and options that it does not promise are refused",
        ANY,
    )
    .case("options", options)
    .case("starts, keys, groups and needs", ways)
    .case("fields", fields)
    .case("as configured", configured)
    .fault("after a restart", restarted)
}

/// An option, and whether it is promised.
fn asked(
    has: &Capabilities,
    end: Option<annals_core::Cursor>,
) -> Vec<(&'static str, AppendOptions)> {
    let none = AppendOptions::default;
    let key = || annals_core::Key::from("k0");
    let mut asked = Vec::new();
    if !has.append.conditional.is(&true) {
        let expect = Some(Expect::KeyAt {
            key: key(),
            last: None,
        });
        asked.push(("if_key_at", AppendOptions { expect, ..none() }));
        if let Some(end) = end {
            let expect = Some(Expect::End(end));
            asked.push(("if_end_at", AppendOptions { expect, ..none() }));
        }
    }
    if !has.append.fenced.is(&true) {
        let epoch = Some(7);
        asked.push(("epoch", AppendOptions { epoch, ..none() }));
    }
    let whole = [Batching::Atomic, Batching::AtomicPerKey];
    if !has
        .append
        .batch
        .known()
        .is_some_and(|batch| whole.contains(batch))
    {
        let atomic = true;
        asked.push(("atomic", AppendOptions { atomic, ..none() }));
    }
    asked
}

/// Options that are not promised are refused, through core and below it, and store nothing.
async fn refuse_options(trial: &Trial, stage: &Stage, writer: u32) -> Judged<usize> {
    let end = stage.topic.end().await;
    let end = end.or_else(|_| readings::forged(stage)).ok();
    let mut refusals = 0;
    let mut never = Vec::new();
    for (number, (name, options)) in asked(stage.capabilities(), end).into_iter().enumerate() {
        let batch = || workload::batch(writer, number * 10, 4, 4);
        never.extend(workload::offered(&batch()));
        let append = stage.topic.append(batch());
        let append = match &options.expect {
            Some(Expect::KeyAt { key, .. }) => append.if_key_at(key.clone(), None),
            Some(Expect::End(end)) => append.if_end_at(end),
            None => append,
        };
        let append = match options.epoch {
            Some(epoch) => append.epoch(epoch),
            None => append,
        };
        let append = if options.atomic {
            append.atomic()
        } else {
            append
        };
        let told = trial.soon("an append with an option", append).await?;
        readings::refused(name, told.map(drop).map_err(Error::from))?;
        let batch = batch();
        let call = stage.backend.append(&stage.name, &batch, &options);
        let told = trial.soon("an append with an option", call).await?;
        let told = told.and_then(|report| match report.outcomes().first() {
            Some(Outcome::Rejected(error)) => Err(error.clone()),
            _ => Ok(()),
        });
        readings::refused(&format!("{name}, below core,"), told)?;
        refusals += 2;
    }
    let seen = seen(trial, stage, writer + 1).await?;
    let there = workload::texts(&seen)
        .into_iter()
        .find(|v| never.contains(v));
    ensure(there.is_none(), || {
        format!("{there:?} is there, whose append was refused for its option")
    })?;
    Ok(refusals)
}

/// What there is, up to a marker for each key.
async fn seen(trial: &Trial, stage: &Stage, writer: u32) -> Judged<Vec<Recorded>> {
    let markers = workload::batch(writer, 0, KEYS, KEYS);
    let awaited = workload::offered(&markers);
    let append = trial.soon("an append", stage.topic.append(markers));
    append.await?.during("appending the markers")?;
    if Shape::of(stage.capabilities()) == Shape::Queue {
        workload::delivered(trial, stage, GROUP, &awaited).await
    } else {
        stage.read_all().await
    }
}

async fn options(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let batch = workload::batch(1, 0, RECORDS, KEYS);
    stage.topic.append(batch).await.during("appending")?;
    let refused = asked(stage.capabilities(), None).len();
    let append = &stage.capabilities().append;
    let promised = [&append.conditional, &append.fenced];
    let promised = promised.into_iter().filter(|claim| claim.is(&true)).count();
    let refusals = refuse_options(&trial, &stage, 10).await?;
    let kept = keep_options(&trial, &stage).await?;
    Ok(Counts::new()
        .of("refusals", refusals, 2 * refused)
        .of("options that hold", kept, promised))
}

/// Options that are promised do something: what they forbid is not stored.
async fn keep_options(trial: &Trial, stage: &Stage) -> Judged<usize> {
    let has = stage.capabilities();
    let one = |number| workload::batch(50, number, 1, 1);
    let mut kept = 0;
    if has.append.conditional.is(&true) {
        let append = stage.topic.append(one(0)).if_key_at("k0", None);
        let told = trial.soon("a conditional append", append).await?;
        let kind = told.err().map(|error| error.kind());
        ensure(kind == Some(ErrorKind::Conflict), || {
            format!("an append on a condition that does not hold is answered with {kind:?}")
        })?;
        kept += 1;
    }
    if has.append.fenced.is(&true) {
        let newer = stage.topic.append(one(1)).epoch(9);
        newer.await.during("an append with an epoch")?;
        let older = trial.soon("an old epoch", stage.topic.append(one(2)).epoch(8));
        let kind = older.await?.err().map(|error| error.kind());
        ensure(kind == Some(ErrorKind::Fenced), || {
            format!("an append with an older epoch is answered with {kind:?}")
        })?;
        kept += 1;
    }
    Ok(kept)
}

/// Each way to ask is there as far as it is promised, and refused else.
async fn ways(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let batch = workload::batch(1, 0, RECORDS, KEYS);
    stage.topic.append(batch).await.during("appending")?;
    let has = stage.capabilities().clone();
    let replayed = Shape::of(&has) != Shape::Queue;
    let mut looks = 0;
    let mut check = |what: &str, promised: bool, told: Result<(), Error>| {
        looks += 1;
        match told {
            Err(error) if promised => Err(Stop::broken(format!(
                "{what} is promised, and fails: {error:?}"
            ))),
            told if promised => told.during(what),
            told => readings::refused(what, told),
        }
    };
    let starts = has.starts.known().copied();
    let offers = |is: fn(&annals_core::capability::Starts) -> bool| {
        replayed && starts.as_ref().is_some_and(is)
    };
    let since = annals_core::Timestamp::from_millis(1);
    for (start, promised) in [
        (Start::Beginning, offers(|s| s.beginning)),
        (Start::Earliest, offers(|s| s.earliest)),
        (Start::Latest, offers(|s| s.latest)),
        (Start::Since(since), offers(|s| s.since.is_some())),
    ] {
        let open = trial.soon("a replay", stage.topic.replay(start.clone()));
        check(
            &format!("a replay from {start:?}"),
            promised,
            open.await?.map(drop),
        )?;
        let place = stage.backend.locate(&stage.name, &start);
        let place = trial.soon("a place", place).await?;
        check(
            &format!("the place of {start:?}"),
            promised,
            place.map(drop),
        )?;
    }
    let ends = matches!(has.tail.known(), Some(Tail::Exact | Tail::Observed));
    let end = trial.soon("the end", stage.topic.end()).await?;
    check("the end", ends, end.map(drop))?;
    if replayed {
        let first = readings::first(&stage);
        let indexed = has.by_key.is(&ByKey::Indexed);
        let open = stage.topic.replay(first.clone()).key("k0");
        let open = trial.soon("a replay of a key", open).await?;
        check("a replay of a key", indexed, open.map(drop))?;
    }
    for (start, promised) in group_starts(&has) {
        let open = stage.topic.subscribe("made-anew").start(start.clone());
        if !promised {
            let open = trial.soon("a membership", open).await?;
            check(&format!("a group from {start:?}"), false, open.map(drop))?;
        }
    }
    let none = has.groups.names.is(&GroupNames::None);
    let open = trial
        .soon("a membership", stage.topic.subscribe(GROUP))
        .await?;
    check("a group", !none, open.map(drop))?;
    for need in needs() {
        let met = has.missing(std::slice::from_ref(&need)).is_empty();
        let open = stage.bus.topic(stage.name.as_str()).needs([need.clone()]);
        let open = trial.soon("opening with a need", open).await?;
        check(&format!("a need for {need:?}"), met, open.map(drop))?;
    }
    if let Some(admin) = stage.backend.admin() {
        let kind = Some("of-no-kind-that-there-is".into());
        let spec = TopicSpec {
            kind,
            ..TopicSpec::default()
        };
        let name = annals_core::TopicName::new(format!("{}-of-no-kind", stage.name))?;
        let made = trial
            .soon("a topic of no kind", admin.create(&name, &spec))
            .await?;
        check("a topic of a kind that is not there", false, made.map(drop))?;
        let there = admin.topics().await.during("listing topics")?;
        ensure(!there.contains(&name), || {
            "a topic is there that was refused for its kind".into()
        })?;
    }
    Ok(Counts::new().of("ways to ask", looks, 15))
}

fn group_starts(has: &Capabilities) -> Vec<(Start, bool)> {
    let starts = has.group_starts.known().copied();
    let offers = |is: fn(&annals_core::capability::Starts) -> bool| starts.as_ref().is_some_and(is);
    let since = annals_core::Timestamp::from_millis(1);
    vec![
        (Start::Beginning, offers(|s| s.beginning)),
        (Start::Earliest, offers(|s| s.earliest)),
        (Start::Latest, offers(|s| s.latest)),
        (Start::Since(since), offers(|s| s.since.is_some())),
    ]
}

fn needs() -> Vec<Need> {
    vec![
        Need::Replay,
        Need::FullHistory,
        Need::ReplayByKey,
        Need::OrderPerKey,
        Need::ConditionalAppend,
        Need::Dedupe(Duration::from_secs(1)),
        Need::AtomicBatch,
        Need::FanOut,
        Need::RecordBytes(1),
        Need::RecordBytes(u32::MAX),
    ]
}

async fn fields(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let looks = look(&trial, &stage, 1).await?;
    Ok(Counts::new().of("fields looked at", looks, 6))
}

/// Every field that can be seen at little cost.
async fn look(trial: &Trial, stage: &Stage, writer: u32) -> Judged<usize> {
    let has = stage.capabilities().clone();
    let (backend, name) = (&stage.backend, &stage.name);
    let mut looks = 0;
    let mut see = |what: &str, so: bool, seen: String| {
        looks += 1;
        ensure(so, || format!("{what} is promised, and seen is {seen}"))
    };
    // The same to everybody.
    let again = backend.capabilities(name).await.during("asking again")?;
    see(
        "the same to whoever asks",
        again == has,
        format!("{again:?}"),
    )?;
    let append = &has.append;
    let many = (append.in_flight, append.parallel);
    let total = has.order.is(&Order::Total);
    let sane = many.0 >= 1 && many.1 >= many.0 && (!total || many.0 == many.1);
    see(
        "how many appends may be under way",
        sane,
        format!("{many:?}"),
    )?;
    let leases = backend.leases(name).is_some();
    if let Some(members) = has.groups.members.known() {
        let fits = leases == matches!(members, Members::Leased | Members::Local);
        see(
            &format!("members: {members:?}"),
            fits,
            format!("leases: {leases}"),
        )?;
    }
    // One after another, so that their order is known.
    let before = trial.clock().now();
    let mut places = Vec::new();
    for number in 0..RECORDS / 3 {
        let batch = workload::batch(writer, number * 3, 3, KEYS);
        let told = stage.topic.append(batch).await.during("appending")?;
        places.extend(told.records().to_vec());
    }
    let after = trial.clock().now();
    if append.receipt.is(&Receipt::Position) {
        let some = places.iter().any(|stored| stored.position.is_some());
        see("receipt: Position", some, "no position at all".into())?;
    }
    let listed = stage.partitions().await?.len();
    match has.partitions.known() {
        Some(Partitions::One) => see("one partition", listed == 1, listed.to_string())?,
        Some(Partitions::Fixed(many)) => {
            let fits = usize::try_from(*many).is_ok_and(|many| many == listed);
            see(&format!("{many} partitions"), fits, listed.to_string())?;
        }
        Some(Partitions::Growing | Partitions::Lineage) => {
            see("partitions", listed >= 1, listed.to_string())?;
        }
        _ => {}
    }
    if let Some(most) = has.limits.record_bytes.known().copied().flatten()
        && let Ok(most) = usize::try_from(most)
        && (4_096..=2 << 20).contains(&most)
    {
        // With room for a key and what encoding adds.
        let large = Record::new(vec![b'x'; most - most / 16 - 1_024]).key("large");
        let batch: Batch = [large].into_iter().collect();
        let told = trial.soon("an append", stage.topic.append(batch)).await?;
        let fits = told.is_ok();
        see(
            &format!("records of {most} bytes"),
            fits,
            format!("{:?}", told.err()),
        )?;
    }
    if let Some(most) = has.limits.batch_records.known().copied().flatten()
        && let Ok(most) = usize::try_from(most)
        && (1..=1_000).contains(&most)
    {
        // Each with a key of its own.
        let batch = workload::batch(writer + 1, 0, most, most);
        let told = stage.attempt(&batch, &AppendOptions::default()).await;
        let fits = told.is_ok();
        see(
            &format!("batches of {most} records"),
            fits,
            format!("{told:?}"),
        )?;
    }
    let seen = seen(trial, stage, writer + 2).await?;
    let prefix = format!("w{writer}-");
    let mine = |record: &&Recorded| workload::text(record).starts_with(&prefix);
    let mine: Vec<&Recorded> = seen.iter().filter(mine).collect();
    see("records", mine.len() >= RECORDS, mine.len().to_string())?;
    let out = out_of_order(&has, &mine);
    see(
        &format!("order: {}", has.order),
        out.is_none(),
        format!("{out:?}"),
    )?;
    let skew = has.skew.known().copied().unwrap_or_default();
    let margin = match trial.harness().time() {
        Time::Virtual => skew,
        // The service's clock may be another one.
        Time::Real => skew + Duration::from_secs(60),
    };
    let stamps: Vec<_> = mine.iter().map(|record| record.stored_at()).collect();
    let (low, high) = (before.as_millis(), after.as_millis());
    let margin = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
    let range = low.saturating_sub(margin)..=high.saturating_add(margin);
    let fits = match has.log_time.known() {
        Some(LogTime::Arrival) => stamps
            .iter()
            .all(|at| at.is_some_and(|at| range.contains(&at.as_millis()))),
        Some(LogTime::None) => stamps.iter().all(Option::is_none),
        _ => true,
    };
    let first = stamps.first().copied().flatten();
    see(
        &format!("log_time: {}", has.log_time),
        fits,
        format!("{first:?}, between {before:?} and {after:?}"),
    )?;
    if let Some(admin) = backend.admin() {
        let described = admin.describe(name).await.during("describing")?;
        let same = described.capabilities == has;
        see("the same by its description", same, "another".into())?;
    }
    Ok(looks)
}

/// The first record that comes behind a later one of its lane.
fn out_of_order(has: &Capabilities, records: &[&Recorded]) -> Option<String> {
    let order = has.order.known().copied().unwrap_or(Order::None);
    if order == Order::None {
        return None;
    }
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for record in records {
        let text = workload::text(record);
        let number = text
            .rsplit('-')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        let lane = match order {
            Order::Total => String::new(),
            Order::Partition => {
                let partition = record.position().map(|p| p.partition());
                format!("{partition:?}")
            }
            _ => format!("{:?}", record.key()),
        };
        // On a queue one may come twice.
        if let Some(number) = number
            && last.insert(lane, number).is_some_and(|last| last > number)
        {
            return Some(text);
        }
    }
    None
}

/// What a topic is made as shows in what it promises.
async fn configured(trial: Trial) -> Judged {
    let (mut made, mut refused) = (0, 0);
    let hour = Duration::from_secs(3_600);
    let plain = Want::groups(&[GROUP])?;
    let wants = [
        Want {
            retention: Some(Retention::Age(hour)),
            ..plain.clone()
        },
        Want {
            retention: Some(Retention::Age(hour * 24)),
            ..plain.clone()
        },
        Want {
            dedupe: Some(Duration::from_secs(90)),
            ..plain.clone()
        },
        Want {
            dedupe: Some(Duration::from_secs(45)),
            ..plain.clone()
        },
        Want {
            partitions: Some(3),
            ..plain.clone()
        },
        plain,
    ];
    for want in wants {
        let stage = match trial.stage(&want).await {
            Ok(stage) => stage,
            // It makes no such topics.
            Err(Stop::NotExercised(_)) => {
                refused += 1;
                continue;
            }
            Err(stop) => return Err(stop),
        };
        made += 1;
        let has = stage.capabilities();
        if let Some(Retention::Age(age)) = want.retention {
            let kept = match has.replay.known() {
                Some(Replay::Retained(Retention::Age(kept))) => Some(*kept),
                _ => None,
            };
            // More than was asked for, by how coarsely it is counted; and not for ever.
            let fits = Shape::of(has) == Shape::Queue
                || kept.is_some_and(|kept| kept >= age && kept <= age * 2);
            ensure(fits, || {
                format!(
                    "a topic that keeps records for {age:?} promises {}",
                    has.replay
                )
            })?;
        }
        if let Some(window) = want.dedupe {
            let least = [Need::Dedupe(window)];
            let more = [Need::Dedupe(window * 2)];
            let fits = has.missing(&least).is_empty() && !has.missing(&more).is_empty();
            ensure(fits, || {
                format!(
                    "a topic that knows ids for {window:?} promises {}",
                    has.append.dedupe
                )
            })?;
        }
        if want.partitions.is_some() {
            let listed: BTreeSet<_> = stage.partitions().await?.into_iter().collect();
            ensure(listed.len() == 3, || {
                format!("a topic of 3 partitions has {}", listed.len())
            })?;
        }
        let batch = workload::batch(1, 0, 3, 3);
        stage.topic.append(batch).await.during("appending")?;
    }
    Ok(Counts::new()
        .of("topics", made, 1)
        .of("topics made or refused", made + refused, 6))
}

/// It promises the same, and that is seen.
async fn restarted(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let has = stage.capabilities().clone();
    trial.disturb(&stage.name, Disturb::Restart).await?;
    let stage = trial.on(&stage.name).await?;
    let now = stage.capabilities();
    ensure(*now == has, || {
        format!("after a restart {now:?} is promised, before it was {has:?}")
    })?;
    let looks = look(&trial, &stage, 1).await?;
    let asked = asked(now, None).len();
    let refusals = refuse_options(&trial, &stage, 10).await?;
    Ok(Counts::new()
        .of("fields looked at", looks, 6)
        .of("refusals", refusals, 2 * asked))
}
