//! *Range*: a replay from behind one cursor through another holds what lies between, and nothing
//! else.

use std::collections::BTreeMap;

use annals_core::{Cursor, ErrorKind, Origin, PartitionId, Recorded, Start, TopicName, Until};
use std::sync::Arc;

use super::{Law, REPLAYED};
use crate::harness::Want;
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;

/// As many places as there are pairs of in a quick moment.
const RECORDS: usize = 12;

pub(crate) fn law() -> Law {
    Law::new(
        "range",
        "a replay After(c) … Through(d) holds (c, d] of each partition",
        REPLAYED,
    )
    .claimed_by(|has| has.starts.known().is_some_and(|starts| starts.after))
    .case("all pairs of a small topic", all_pairs)
    .refusal("a forged cursor is refused", forged)
}

async fn all_pairs(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    stage
        .topic
        .append(workload::batch(1, 0, RECORDS, 5))
        .await?;
    let (records, cursors) = places(&stage).await?;
    let mut pairs = 0;
    for (from, after) in cursors.iter().enumerate() {
        for (to, through) in cursors.iter().enumerate().skip(from) {
            let until = Until::Through(through.clone());
            let read = stage.read(after, until).await?.records;
            let expected = by_partition(records.get(from..to).unwrap_or_default());
            let read = by_partition(&read);
            ensure(read == expected, || {
                format!("After({after}) … Through({through}) read {read:?}, not {expected:?}")
            })?;
            pairs += 1;
        }
    }
    Ok(Counts::new().of("records", records.len(), RECORDS).of(
        "pairs",
        pairs,
        RECORDS * RECORDS / 2,
    ))
}

/// The topic's records, and the cursor before the first, between any two and behind the last.
async fn places(stage: &Stage) -> Judged<(Vec<Recorded>, Vec<Cursor>)> {
    let mut replay = stage
        .topic
        .replay(Start::Beginning)
        .await
        .during("opening a replay")?;
    let mut cursors = vec![replay.cursor().clone()];
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.during("reading the whole")? {
        records.push(record);
        cursors.push(replay.cursor().clone());
        ensure(records.len() <= RECORDS, || {
            format!("{RECORDS} records were appended and more are read")
        })?;
    }
    Ok((records, cursors))
}

fn by_partition(records: &[Recorded]) -> BTreeMap<Option<PartitionId>, Vec<String>> {
    let mut partitions: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for record in records {
        let partition = record.position().map(|position| position.partition());
        let values = partitions.entry(partition).or_default();
        values.push(workload::text(record));
    }
    partitions
}

/// Where there is no replay from a cursor, one that somebody made up is refused, and says so.
async fn forged(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let origin = Origin {
        scheme: stage.backend.scheme().into(),
        topic: TopicName::new("forged")?,
        incarnation: "1".into(),
    };
    let cursor = Cursor::start(Arc::new(origin));
    let told = match stage.topic.replay(&cursor).await {
        Ok(mut replay) => replay.next().await.map(drop),
        Err(error) => Err(error),
    };
    let kind = told.err().map(|error| error.kind());
    ensure(
        matches!(kind, Some(ErrorKind::Unsupported | ErrorKind::Config)),
        || format!("a replay from a forged cursor is answered with {kind:?}, not refused"),
    )?;
    Ok(Counts::new().of("refusals", 1, 1))
}
