//! What cases append, and how they tell one record from another.

pub(crate) mod groups;
pub mod handles;
pub mod odd;
pub mod polls;
pub mod readings;
pub mod sights;

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::GroupNames;
use annals_core::{Batch, Delivery, Record, Recorded, Subscription};

use crate::trial::{During, Judged, Stage, Stop, Trial};

/// A value that no other record of the case has: `w` and its writer, its number.
pub fn value(writer: u32, number: usize) -> String {
    format!("w{writer}-{number}")
}

/// `records` records of one writer over `keys` keys, numbered from `from`.
pub fn batch(writer: u32, from: usize, records: usize, keys: usize) -> Batch {
    (from..from + records)
        .map(|number| record(writer, number, keys))
        .collect()
}

/// One record of a writer: its key is one of `keys`, in turn; none where there are none.
pub fn record(writer: u32, number: usize, keys: usize) -> Record {
    let record = Record::new(value(writer, number));
    match number.checked_rem(keys) {
        Some(key) => record.key(format!("k{key}")),
        None => record,
    }
}

/// A record's value as text.
pub fn text(record: &Recorded) -> String {
    String::from_utf8_lossy(record.value()).into_owned()
}

/// The values of these records, in their order.
pub fn texts(records: &[Recorded]) -> Vec<String> {
    records.iter().map(text).collect()
}

/// The values of a batch, in its order.
pub fn offered(batch: &Batch) -> Vec<String> {
    batch
        .records()
        .iter()
        .map(|record| {
            let value = record.value_bytes();
            String::from_utf8_lossy(value.map_or(&[][..], |value| value)).into_owned()
        })
        .collect()
}

/// Takes deliveries, and settles each as done, until every one of `awaited` has come; what else
/// comes is kept too.
///
/// # Errors
/// [`Stop::Broken`], naming what did not come, when it takes too long.
pub async fn drain(
    trial: &Trial,
    subscription: &Subscription,
    awaited: &[String],
) -> Judged<Vec<Recorded>> {
    let mut open: BTreeSet<&str> = awaited.iter().map(String::as_str).collect();
    let mut taken = Vec::new();
    let all = async {
        while !open.is_empty() {
            let Some(delivery) = subscription.next().await.during("receiving")? else {
                return Err(Stop::broken("the subscription ended by itself"));
            };
            open.remove(text(&delivery).as_str());
            taken.push(delivery.record().detach());
            Delivery::done(delivery);
        }
        Ok(())
    };
    let told = tokio::time::timeout(trial.patience(), all).await;
    match told {
        Ok(done) => done.map(|()| taken),
        Err(_) => Err(Stop::broken(format!(
            "{} of {} records were not delivered within {:?}, the first is {:?}",
            open.len(),
            awaited.len(),
            trial.patience(),
            open.first(),
        ))),
    }
}

/// What a group is handed that was there before the records were.
///
/// # Errors
/// As for [`drain`].
pub async fn delivered(
    trial: &Trial,
    stage: &Stage,
    group: &str,
    awaited: &[String],
) -> Judged<Vec<Recorded>> {
    let subscription = stage.topic.subscribe(group).await.during("subscribing")?;
    let taken = drain(trial, &subscription, awaited).await?;
    subscription
        .close(Duration::from_secs(5))
        .await
        .during("closing the subscription")?;
    Ok(taken)
}

/// Whether the topic can have groups.
pub fn has_groups(stage: &Stage) -> bool {
    let names = stage.capabilities().groups.names.known();
    names.is_some_and(|names| *names != GroupNames::None)
}
