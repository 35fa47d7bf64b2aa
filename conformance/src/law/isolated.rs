//! *Isolated*: topics, groups and a topic made again share nothing, whatever they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::Dedupe;
use annals_core::driver::TopicSpec;
use annals_core::{Batch, Delivery, ErrorKind, Group, Record, TopicName, Until};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups, readings, sights};

/// Names that could be taken for one another, or for a part of one another, with their groups.
const NAMES: &[(&str, &[&str])] = &[
    ("a", &["b.c", "b", "c", "b-c", "b_c", "bc"]),
    ("a.b", &["c", "b.c"]),
    ("a.b.c", &["c", "b"]),
    ("a-b", &["c"]),
    ("a_b", &["c"]),
    ("ab", &["c", "C"]),
    ("A.b", &["c"]),
    ("c", &["a", "b"]),
    ("a-name-as-long-as-most-services-have-room-for.1", &["c"]),
    ("a-name-as-long-as-most-services-have-room-for.2", &["c"]),
];
/// Records of each topic.
const EACH: usize = 12;
const KEYS: usize = 3;

pub(crate) fn law() -> Law {
    Law::new(
        "isolated",
        "topics, groups and a topic made again that could be confused share nothing",
        ANY,
    )
    .case("topics and groups whose names look alike", |trial| {
        alike(trial, "x", None)
    })
    .case("a group's progress is its own", progress)
    .case("a key, an id and an epoch are one topic's", same_everything)
    .case("a topic that was deleted and made again", recreated)
    .fault("names that look alike after a restart", |trial| {
        alike(trial, "y", Some(Disturb::Restart))
    })
    .fault("names that look alike after a kill", |trial| {
        alike(trial, "z", Some(Disturb::Kill))
    })
}

/// Topics of these names, each behind `prefix`, which is another one in each case.
async fn topics(trial: &Trial, prefix: &str) -> Judged<Vec<(Stage, &'static [&'static str])>> {
    let mut stages: Vec<(Stage, &'static [&'static str])> = Vec::new();
    for (name, of) in NAMES {
        let want = Want {
            name: Some(format!("{prefix}.{name}")),
            ..Want::groups(of)?
        };
        // A service may have no room for all of these names.
        match trial.stage(&want).await {
            Ok(stage) if groups::are_there(stage.capabilities()) => stages.push((stage, of)),
            Ok(stage) => stages.push((stage, &[])),
            Err(Stop::NotExercised(_)) => {
                let want = Want {
                    groups: Vec::new(),
                    ..want
                };
                if let Ok(stage) = trial.stage(&want).await {
                    stages.push((stage, &[]));
                }
            }
            Err(stop) => return Err(stop),
        }
    }
    if stages.len() < 2 {
        return Err(Stop::NotExercised("topics cannot be given names".into()));
    }
    Ok(stages)
}

/// Appends to each, one after the other and again; the values by topic.
async fn fill(stages: &[(Stage, &[&str])]) -> Judged<Vec<Vec<String>>> {
    let mut values = vec![Vec::new(); stages.len()];
    for round in 0..EACH / 4 {
        for ((stage, _), values) in stages.iter().zip(&mut values) {
            let prefix = stage.name.clone();
            let batch: Batch = (0..4)
                .map(|at| {
                    let number = round * 4 + at;
                    Record::new(format!("{prefix} {number}")).key(format!("k{}", number % KEYS))
                })
                .collect();
            values.extend(workload::offered(&batch));
            drop(stage.topic.append(batch).await.during("appending")?);
        }
    }
    Ok(values)
}

/// What comes is all of the topic's own.
fn own(by: &str, texts: &[String], values: &[String]) -> Judged<()> {
    let own: BTreeSet<&String> = values.iter().collect();
    if let Some(foreign) = texts.iter().find(|text| !own.contains(text)) {
        return Err(Stop::broken(format!(
            "{by}: {foreign:?} came, of another topic or an earlier one"
        )));
    }
    let seen: BTreeSet<&String> = texts.iter().collect();
    let gone = values.iter().find(|value| !seen.contains(value));
    ensure(gone.is_none(), || {
        format!(
            "{by}: {gone:?} did not come, as if it had gone to, or been settled in, another one"
        )
    })
}

async fn alike(trial: Trial, prefix: &str, then: Option<Disturb>) -> Judged {
    let mut stages = topics(&trial, prefix).await?;
    let values = fill(&stages).await?;
    if let Some(then) = then {
        for (stage, _) in &mut stages {
            trial.disturb(&stage.name, then.clone()).await?;
        }
        for (stage, _) in &mut stages {
            *stage = trial.on(&stage.name).await?;
        }
    }
    let mut looks = 0;
    for ((stage, of), values) in stages.iter().zip(&values) {
        let name = &stage.name;
        if Shape::of(stage.capabilities()) != Shape::Queue {
            let read = stage.read_all().await?;
            own(
                &format!("a replay of {name}"),
                &workload::texts(&read),
                values,
            )?;
            looks += 1;
        }
        for group in *of {
            let taken = workload::delivered(&trial, stage, group, values).await?;
            let by = format!("the group {group} of {name}");
            own(&by, &workload::texts(&taken), values)?;
            looks += 1;
        }
    }
    // Whatever was settled: nobody is handed anything now but what comes next.
    for ((stage, of), values) in stages.iter().zip(&values) {
        let next: Batch = (0..KEYS)
            .map(|key| Record::new(format!("{} next {key}", stage.name)).key(format!("k{key}")))
            .collect();
        let next_values = workload::offered(&next);
        drop(stage.topic.append(next).await.during("appending")?);
        for group in *of {
            let taken = workload::delivered(&trial, stage, group, &next_values).await?;
            let texts = workload::texts(&taken);
            let foreign = texts
                .iter()
                .find(|text| !next_values.contains(text) && !values.contains(text));
            ensure(foreign.is_none(), || {
                format!("the group {group} of {}: {foreign:?} came", stage.name)
            })?;
            looks += 1;
        }
    }
    Ok(Counts::new()
        .of("topics", stages.len(), 2)
        .of("looks", looks, stages.len()))
}

/// One group has settled all, one half, one nothing; what each is handed then is its own affair.
async fn progress(trial: Trial) -> Judged {
    let names = ["half", "hal", "half.x", "HALF", "none", "all"];
    let want = Want {
        name: Some("p.progress".into()),
        ..Want::groups(&names)?
    };
    let stage = trial.stage(&want).await?;
    if !groups::are_there(stage.capabilities()) {
        return Err(Stop::NotExercised("topics have no groups".into()));
    }
    let batch: Batch = (0..EACH)
        .map(|number| Record::new(format!("{number}")).key("k"))
        .collect();
    let values = workload::offered(&batch);
    drop(stage.topic.append(batch).await.during("appending")?);
    // Of one key: they come in order where there is one.
    let mut left = BTreeMap::new();
    for (group, many) in [("all", EACH), ("half", EACH / 2), ("HALF", 2)] {
        let subscription = stage.topic.subscribe(group).await.during("subscribing")?;
        let mut settled = BTreeSet::new();
        for _ in 0..many {
            let delivery = groups::next(&trial, &subscription).await?;
            settled.insert(workload::text(&delivery));
            let done = Delivery::done_and_wait(delivery).await;
            done.during("settling")?;
        }
        subscription
            .close(Duration::from_secs(5))
            .await
            .during("closing the subscription")?;
        left.insert(group, settled);
    }
    let mut looks = 0;
    let last: Batch = [Record::new("last").key("k")].into_iter().collect();
    drop(stage.topic.append(last).await.during("appending")?);
    for group in &names {
        let settled = left.remove(group).unwrap_or_default();
        let mut open: Vec<String> = values
            .iter()
            .filter(|value| !settled.contains(*value))
            .cloned()
            .collect();
        open.push("last".into());
        let other = trial.on(&stage.name).await?;
        let taken = workload::delivered(&trial, &other, group, &open).await;
        let taken = taken.during(&format!("the group {group} of others with progress"))?;
        let texts = workload::texts(&taken);
        let again = texts.iter().find(|text| settled.contains(*text));
        ensure(again.is_none(), || {
            format!("the group {group} was handed {again:?} again, which it had settled")
        })?;
        looks += 1;
    }
    Ok(Counts::new().of("groups", looks, 4))
}

/// The same key, id and epoch, in two topics that know nothing of each other.
async fn same_everything(trial: Trial) -> Judged {
    let mut stages = Vec::new();
    for name in ["s.one", "s.One", "s.one.two"] {
        let want = Want {
            name: Some(name.into()),
            dedupe: Some(Duration::from_secs(600)),
            ..Want::groups(&["g"])?
        };
        let plain = Want {
            dedupe: None,
            ..want.clone()
        };
        let stage = match trial.stage(&want).await {
            Err(Stop::NotExercised(_)) => trial.stage(&plain).await?,
            stage => stage?,
        };
        stages.push(stage);
    }
    let has = stages
        .first()
        .map(|stage| stage.capabilities().append.clone());
    let Some(has) = has else {
        return Err(Stop::broken("there is no topic"));
    };
    let ids = !matches!(has.dedupe.known(), None | Some(Dedupe::None));
    let mut appended = 0;
    for (number, stage) in stages.iter().enumerate() {
        // Equal in all but one header that tells the topic.
        let record = Record::new("equal")
            .key("k")
            .id("id")
            .header("of", stage.name.as_str());
        let append = stage.topic.append(record);
        let append = if has.conditional.is(&true) {
            append.if_key_at("k", None)
        } else {
            append
        };
        // Each has seen no higher epoch than its own.
        let append = if has.fenced.is(&true) {
            append.epoch(10 - u64::try_from(number).unwrap_or(0))
        } else {
            append
        };
        let told = append
            .await
            .during(&format!("the first append to {}", stage.name))?;
        let duplicate = told.records().iter().any(|stored| stored.duplicate);
        ensure(!duplicate, || {
            format!(
                "the first record of {} is said to have been stored before",
                stage.name
            )
        })?;
        appended += 1;
    }
    for stage in &stages {
        for sight in sights::all(&trial, stage, "g", &sights::keys(1), 0).await? {
            let of: Vec<String> = sight
                .records
                .iter()
                .map(|record| {
                    let of = record.header("of").flatten().unwrap_or_default();
                    String::from_utf8_lossy(of).into_owned()
                })
                .collect();
            let own = of.iter().all(|of| of == stage.name.as_str());
            ensure(own && of.len() == 1, || {
                format!(
                    "{}, {}: one record is its own, and those of {of:?} came",
                    stage.name, sight.by
                )
            })?;
        }
    }
    Ok(Counts::new()
        .of("topics", appended, 3)
        .of("ids that are recognised", usize::from(ids), 0))
}

/// Another topic of the same name: no record, group, commit, key, id or epoch of the first.
async fn recreated(trial: Trial) -> Judged {
    let want = Want {
        name: Some("r.again".into()),
        ..Want::groups(&["g", "h"])?
    };
    let stage = trial.stage(&want).await?;
    let name = stage.name.clone();
    let Some(admin) = stage.backend.admin() else {
        return Err(Stop::NotExercised("topics are not made through it".into()));
    };
    let named: &[&str] = if groups::are_there(stage.capabilities()) {
        &["g", "h"]
    } else {
        &[]
    };
    let mut lives = 0;
    let mut stage = stage;
    for life in 0..3 {
        let records = EACH + 6 * (2 - life);
        let batch: Batch = (0..records)
            .map(|number| {
                let record = Record::new(format!("life {life} {number}"));
                let record = record.key(format!("k{}", number % KEYS));
                record.id(format!("id {number}"))
            })
            .collect();
        let values = workload::offered(&batch);
        let has = stage.capabilities().clone();
        let append = stage.topic.append(batch);
        let append = if has.append.conditional.is(&true) {
            append.if_key_at("k0", None)
        } else {
            append
        };
        let append = if has.append.fenced.is(&true) {
            append.epoch(u64::try_from(9 - life).unwrap_or(0))
        } else {
            append
        };
        let told = append.await.during(&format!("appending in life {life}"))?;
        let duplicate = told.records().iter().any(|stored| stored.duplicate);
        ensure(!duplicate, || {
            format!("in life {life} of the topic a record is said to have been stored before")
        })?;
        if Shape::of(&has) != Shape::Queue {
            let read = stage.read(readings::first(&stage), Until::End).await?;
            ensure(read.gaps.is_empty(), || {
                format!("in life {life} of the topic a gap is told: {:?}", read.gaps)
            })?;
            let by = format!("a replay of life {life}");
            own(&by, &workload::texts(&read.records), &values)?;
        }
        for group in named {
            let taken = workload::delivered(&trial, &stage, group, &values).await?;
            let by = format!("the group {group} in life {life}");
            own(&by, &workload::texts(&taken), &values)?;
        }
        lives += 1;
        drop(stage);
        admin.delete(&name).await.during("deleting the topic")?;
        let gone = trial.on(&name).await;
        ensure(gone.is_err(), || "a deleted topic can be opened".into())?;
        let spec = TopicSpec {
            groups: named.iter().map(Group::new).collect::<Result<_, _>>()?,
            ..TopicSpec::default()
        };
        make(&trial, &*admin, &name, &spec).await?;
        let other = trial.on(&name).await?;
        // Before the first append of its new life it is empty, and so are its groups.
        if Shape::of(other.capabilities()) != Shape::Queue {
            let read = other.read_all().await?;
            own(
                "a replay of a topic made again",
                &workload::texts(&read),
                &[],
            )?;
        }
        stage = other;
    }
    Ok(Counts::new().of("lives", lives, 3))
}

/// A service may need a while until the name is free.
async fn make(
    trial: &Trial,
    admin: &dyn annals_core::driver::Admin,
    name: &TopicName,
    spec: &TopicSpec,
) -> Judged<()> {
    let made = trial.soon("making the topic again", async {
        loop {
            match admin.create(name, spec).await {
                Err(error) if error.kind() == ErrorKind::Blocked => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                told => return told,
            }
        }
    });
    let made = made.await?.during("making the topic again")?;
    ensure(made, || {
        "a topic that was deleted is said to be there still".into()
    })
}
