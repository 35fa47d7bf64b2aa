//! *Durable*: what was acknowledged is read, and delivered to every group that was there.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::Durability;
use annals_core::{Delivery, ErrorKind, Need, TopicName};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::{odd, readings};

const GROUP: &str = "durable";
const KEYS: usize = 7;
/// Fewer acknowledgements show nothing.
const LEAST: usize = 50;

pub(crate) fn law() -> Law {
    Law::new(
        "durable",
        "what was acknowledged is read, and delivered to every group that was there before",
        ANY,
    )
    .claimed_by(|has| !has.durability.is(&Durability::Memory))
    .case("by a new client", by_a_new_client)
    .fault("after a restart", |trial| {
        disturbed(trial, Disturb::Restart)
    })
    .fault("after a kill in mid-batch", |trial| {
        disturbed(trial, Disturb::Kill)
    })
    .refusal("a need for it is refused", need_refused)
}

async fn by_a_new_client(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut acknowledged = odd::append_odd(&stage, 3, 0).await?;
    let batch = workload::batch(1, 0, trial.size(LEAST), KEYS);
    acknowledged.extend(workload::offered(&batch));
    stage.topic.append(batch).await.during("appending")?;
    acknowledged.extend(odd::append_odd(&stage, 3, 1).await?);
    let topic = stage.name.clone();
    stage
        .close(Duration::from_secs(5))
        .await
        .during("closing")?;
    all_there(&trial, &topic, &acknowledged).await
}

/// Writers append one batch after the other; the disturbance comes at a drawn moment, when one is
/// under way.
async fn disturbed(mut trial: Trial, what: Disturb) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let size = trial.size(LEAST);
    let before = size / 2 + trial.rng.usize(0..size / 2);
    let mut acknowledged = odd::append_odd(&stage, 3, 0).await?;
    acknowledged.extend(readings::append_varied(&stage, 4, 0, LEAST).await?);
    let mut number = 0;
    while number < before {
        let batch = workload::batch(1, number, 1 + trial.rng.usize(0..10), KEYS);
        number += batch.len();
        let values = workload::offered(&batch);
        stage.topic.append(batch).await.during("appending")?;
        acknowledged.extend(values);
    }
    // Polled once, so that it is on its way, and never again.
    let batch = workload::batch(2, 0, 10, KEYS);
    let mut parting = Box::pin(stage.topic.append(batch).into_future());
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(parting.as_mut().poll(cx))).await;
    if let std::task::Poll::Ready(Ok(_)) = polled {
        acknowledged.extend((0..10).map(|number| workload::value(2, number)));
    }
    trial.disturb(&stage.name, what.clone()).await?;
    drop(parting);
    // What the next process writes after it has recovered outlives the next time.
    let stage = trial.on(&stage.name).await?;
    acknowledged.extend(odd::append_odd(&stage, 5, 1).await?);
    trial.disturb(&stage.name, what).await?;
    all_there(&trial, &stage.name, &acknowledged).await
}

/// A new client sees everything that was acknowledged.
async fn all_there(trial: &Trial, topic: &TopicName, acknowledged: &[String]) -> Judged {
    let stage = trial.on(topic).await?;
    let seen = if Shape::of(stage.capabilities()) == Shape::Queue {
        delivered(trial, &stage, acknowledged).await?
    } else {
        let read = stage.read_all().await?;
        read.iter().map(odd::name_of).collect()
    };
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|value| !seen.contains(*value))
        .collect();
    if let Some(first) = lost.first() {
        return Err(Stop::broken(format!(
            "{} of {} acknowledged records are lost, the first is {first:?}",
            lost.len(),
            acknowledged.len(),
        )));
    }
    Ok(Counts::new()
        .of("records acknowledged", acknowledged.len(), LEAST)
        .of("records seen", seen.len(), LEAST))
}

/// What the group is handed, until all of it has come or that takes too long.
async fn delivered(trial: &Trial, stage: &Stage, awaited: &[String]) -> Judged<BTreeSet<String>> {
    let subscription = stage.topic.subscribe(GROUP).await.during("subscribing")?;
    let mut open: BTreeSet<&String> = awaited.iter().collect();
    let mut seen = BTreeSet::new();
    while !open.is_empty() {
        let next = tokio::time::timeout(trial.patience(), subscription.next()).await;
        let Ok(next) = next else { break };
        let Some(delivery) = next.during("receiving")? else {
            return Err(Stop::broken("the subscription ended by itself"));
        };
        let name = odd::name_of(&delivery);
        open.remove(&name);
        seen.insert(name);
        Delivery::done(delivery);
    }
    let closed = subscription.close(Duration::from_secs(5)).await;
    closed.during("closing the subscription")?;
    Ok(seen)
}

async fn need_refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    for durability in [
        Durability::Fsynced,
        Durability::Replicated,
        Durability::Managed,
    ] {
        let told = stage
            .bus
            .topic(stage.name.as_str())
            .needs([Need::Durability(durability)])
            .await;
        let kind = told.err().map(|error| error.kind());
        ensure(kind == Some(ErrorKind::Unsupported), || {
            format!("a need for {durability:?} is answered with {kind:?}, not refused")
        })?;
    }
    Ok(Counts::new().of("refusals", 3, 3))
}
