//! *Truthful*: every value that is read or delivered was offered.

use std::collections::BTreeSet;

use annals_core::Recorded;

use super::{ANY, Law, Shape};
use crate::harness::Want;
use crate::trial::{Judged, Stage, Stop, Trial};
use crate::verdict::Counts;
use crate::workload;

pub(crate) fn law() -> Law {
    Law::new(
        "truthful",
        "every value that is read or delivered was offered",
        ANY,
    )
    .case("what comes was offered", offered)
}

async fn offered(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&["truthful"])?).await?;
    let batch = workload::batch(1, 0, trial.size(50), 7);
    let offered: BTreeSet<String> = workload::offered(&batch).into_iter().collect();
    stage.topic.append(batch).await?;
    let seen = seen(&trial, &stage, &offered).await?;
    if let Some(foreign) = seen
        .iter()
        .find(|record| !offered.contains(&workload::text(record)))
    {
        return Err(Stop::broken(format!(
            "a record was read that nobody appended: value {:?}, position {:?}",
            workload::text(foreign),
            foreign.position(),
        )));
    }
    Ok(Counts::new()
        .of("records offered", offered.len(), 50)
        .of("records seen", seen.len(), 50))
}

/// What there is to see: by replay, or where there is none, by a group.
async fn seen(trial: &Trial, stage: &Stage, offered: &BTreeSet<String>) -> Judged<Vec<Recorded>> {
    if Shape::of(stage.capabilities()) != Shape::Queue {
        return stage.read_all().await;
    }
    let awaited: Vec<String> = offered.iter().cloned().collect();
    workload::delivered(trial, stage, "truthful", &awaited).await
}
