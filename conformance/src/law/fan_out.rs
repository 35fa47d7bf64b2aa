//! *Fan-out*: every group is handed every record, whatever the others do.

use std::collections::{BTreeMap, BTreeSet};

use annals_core::{ErrorKind, Need};

use super::{ANY, Law};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

/// Names that are alike: each a group of its own all the same.
const SLOW: &str = "fan-out";
const DEAD: &str = "fan-out-dead";
const HEALTHY: [&str; 2] = ["fan-out-1", "fan-out-11"];
const LEAST: usize = 60;

pub(crate) fn law() -> Law {
    Law::new(
        "fan_out",
        "every group is handed every record, though another one holds all it has and a third is dead",
        ANY,
    )
    .claimed_by(|has| groups::can_be(has, 4))
    .case("while one holds everything", |trial| around(trial, false))
    .fault("while one holds everything and one was killed", |trial| {
        around(trial, true)
    })
    .case("three groups at once", at_once)
    .refusal("another group is refused", refused)
}

fn all() -> [&'static str; 4] {
    let [one, other] = HEALTHY;
    [SLOW, DEAD, one, other]
}

/// One group takes what it may and settles nothing, another is there and nobody reads for it; the
/// others are handed everything, and so are these two in the end.
async fn around(mut trial: Trial, killed: bool) -> Judged {
    let mut stage = trial.stage(&Want::groups(&all())?).await?;
    let size = trial.size(LEAST);
    let mut values = Vec::new();
    append(&stage, &mut values, size / 4).await?;
    if killed {
        let subscription = groups::join(&trial, &stage, DEAD)
            .await
            .during("subscribing")?;
        let mut held = Vec::new();
        for _ in 0..trial.rng.usize(1..10) {
            held.push(groups::next(&trial, &subscription).await?);
        }
        let name = stage.name.clone();
        trial.disturb(&name, Disturb::Kill).await?;
        drop((held, subscription));
        stage = trial.on(&name).await?;
    }
    let slow = groups::join(&trial, &stage, SLOW)
        .in_flight(8, 1 << 20)
        .await
        .during("subscribing")?;
    let mut held = vec![groups::next(&trial, &slow).await?];
    while held.len() < 8
        && let Ok(delivery) = groups::perhaps(&slow, groups::moment(&trial)).await?
    {
        held.push(delivery);
    }
    let rest = size - values.len();
    append(&stage, &mut values, rest).await?;
    let mut crossings = 0;
    for group in HEALTHY {
        crossings += whole(&trial, &stage, group, &values).await?;
    }
    let stuck = held.len();
    drop((held, slow));
    // A client of its own: those that held back had theirs.
    let stage = trial.on(&stage.name).await?;
    for group in [DEAD, SLOW] {
        crossings += whole(&trial, &stage, group, &values).await?;
    }
    Ok(Counts::new()
        .of("records", values.len(), LEAST)
        .of("records held by the slow one", stuck, 1)
        .of("deliveries", crossings, 4 * values.len()))
}

async fn append(stage: &Stage, values: &mut Vec<String>, records: usize) -> Judged<()> {
    let batch = groups::batch(1, values.len(), records);
    values.extend(workload::offered(&batch));
    stage.topic.append(batch).await.during("appending")?;
    Ok(())
}

/// The group is handed all of these.
async fn whole(trial: &Trial, stage: &Stage, group: &str, values: &[String]) -> Judged<usize> {
    let subscription = groups::join(trial, stage, group)
        .await
        .during("subscribing")?;
    let seen = groups::handle(trial, &subscription, values.iter().cloned(), |_| Ok(()))
        .await
        .during(&format!("the group {group:?}"))?;
    let closed = subscription.close(std::time::Duration::from_secs(5));
    trial.soon("a close", closed).await?.during("closing")?;
    Ok(seen)
}

/// Two groups are read side by side by two clients, a record each in turn, while a third has all it
/// may: what one is handed and settles is not the other's.
async fn at_once(mut trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&all())?).await?;
    let other = trial.on(&stage.name).await?;
    let mut values = Vec::new();
    append(&stage, &mut values, LEAST).await?;
    let slow = groups::join(&trial, &stage, SLOW)
        .in_flight(4, 1 << 20)
        .await
        .during("subscribing")?;
    let held = groups::next(&trial, &slow).await?;
    let mut subscriptions = Vec::new();
    for (group, stage) in HEALTHY.into_iter().zip([&stage, &other]) {
        let subscription = groups::join(&trial, stage, group).in_flight(4, 1 << 20);
        subscriptions.push((group, subscription.await.during("subscribing")?));
    }
    let open: BTreeSet<String> = values.iter().cloned().collect();
    let mut open: BTreeMap<&str, BTreeSet<String>> =
        HEALTHY.iter().map(|group| (*group, open.clone())).collect();
    let mut turns = 0;
    while open.values().any(|open| !open.is_empty()) {
        turns += 1;
        ensure(turns < 100 * LEAST, || {
            format!("groups do not end: {open:?} are missing")
        })?;
        for (group, subscription) in &subscriptions {
            let Some(open) = open.get_mut(group).filter(|open| !open.is_empty()) else {
                continue;
            };
            if trial.rng.u8(0..4) == 0 {
                continue;
            }
            let next = groups::next(&trial, subscription).await;
            let delivery = next.map_err(|stop| {
                Stop::Broken(format!(
                    "{} records were not handed to {group:?}, the first is {:?}: {stop}",
                    open.len(),
                    open.first()
                ))
            })?;
            open.remove(&workload::text(&delivery));
            delivery.done();
        }
    }
    drop(held);
    trial
        .soon("a close", slow.close(std::time::Duration::from_secs(5)))
        .await?
        .during("closing")?;
    // A member that is settled is at its end: what one committed moved the other by nothing.
    for (_, subscription) in subscriptions {
        let closed = subscription.close(std::time::Duration::from_secs(5));
        trial.soon("a close", closed).await?.during("closing")?;
    }
    let [one, _] = HEALTHY;
    append(&stage, &mut values, 8).await?;
    let again = trial.on(&stage.name).await?;
    let fresh: Vec<String> = values.iter().skip(LEAST).cloned().collect();
    whole(&trial, &again, one, &fresh).await?;
    whole(&trial, &again, SLOW, &values).await?;
    Ok(Counts::new()
        .of("records", values.len(), LEAST)
        .of("turns", turns, LEAST))
}

/// Where there is one group, or none, another one is refused: by name, and as a need.
async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let told = stage
        .bus
        .topic(stage.name.as_str())
        .needs([Need::FanOut])
        .await;
    let need = told.err().map(|error| error.kind());
    let told = stage.topic.subscribe("fan-out-other").await;
    let call = told.err().map(|error| error.kind());
    for (what, kind) in [("a need for fan-out", need), ("another group", call)] {
        ensure(kind == Some(ErrorKind::Unsupported), || {
            format!("{what} is answered with {kind:?}, not refused")
        })?;
    }
    Ok(Counts::new().of("refusals", 2, 2))
}
