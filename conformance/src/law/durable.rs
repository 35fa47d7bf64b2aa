//! *Durable*: what was acknowledged is read, and delivered to every group that was there.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::Durability;
use annals_core::{ErrorKind, Need, TopicName};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;

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
    let batch = workload::batch(1, 0, trial.size(LEAST), KEYS);
    let acknowledged = workload::offered(&batch);
    stage.topic.append(batch).await.during("appending")?;
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
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while acknowledged.len() < before {
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
    trial.disturb(&stage.name, what).await?;
    drop(parting);
    all_there(&trial, &stage.name, &acknowledged).await
}

/// A new client sees everything that was acknowledged, up to a marker that it appends itself.
async fn all_there(trial: &Trial, topic: &TopicName, acknowledged: &[String]) -> Judged {
    let stage = trial.on(topic).await?;
    let seen = if Shape::of(stage.capabilities()) == Shape::Queue {
        workload::delivered(trial, &stage, GROUP, acknowledged).await?
    } else {
        stage.read_all().await?
    };
    let seen: BTreeSet<String> = workload::texts(&seen).into_iter().collect();
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
