//! *Fenced*: who has been replaced changes nothing any more.

mod appends;
mod commits;
mod settlements;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_core::Group;

use super::{ANY, Law};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};
use appends::{appends, no_epochs};
use commits::{commits, row, rows};
use settlements::settlements;

const GROUP: &str = "fenced";
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) fn law() -> Law {
    Law::new(
        "fenced",
        "once a newer epoch or holder has acted, the old one's append, commit or settlement has no effect",
        ANY,
    )
    .claimed_by(|has| has.append.fenced.is(&true) || has.groups.fenced.is(&true))
    .case("appends of an old epoch", |trial| appends(trial, None))
    .case("commits and settlements of an old holder", |trial| settles(trial, None))
    .case("a member that is robbed", robbed)
    .fault("appends of an old epoch after a restart", |trial| {
        appends(trial, Some(Disturb::Restart))
    })
    .fault("appends of an old epoch after a kill", |trial| {
        appends(trial, Some(Disturb::Kill))
    })
    .fault("commits and settlements of an old holder after a kill", |trial| {
        settles(trial, Some(Disturb::Kill))
    })
    .fault("commits and settlements of an old holder after a restart", |trial| {
        settles(trial, Some(Disturb::Restart))
    })
    .refusal("an epoch is refused", |trial| async move {
        let stage = trial.stage(&Want::default()).await?;
        no_epochs(&trial, &stage).await
    })
}

async fn settles(trial: Trial, what: Option<Disturb>) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    if !stage.capabilities().groups.fenced.is(&true) {
        // That it says so is all that can be seen.
        return Ok(Counts::new().of("declarations", 1, 1));
    }
    match stage.backend.leases(&stage.name) {
        Some(_) => commits(&trial, stage, &group, what).await,
        None => settlements(&trial, stage, &group, what).await,
    }
}

/// Through core: a member whose partition another one takes is told that it settled nothing, and
/// what it had comes again.
async fn robbed(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    if !stage.capabilities().groups.fenced.is(&true) {
        return Ok(Counts::new().of("declarations", 1, 1));
    }
    let Some(leases) = stage.backend.leases(&stage.name) else {
        return settlements(&trial, stage, &group, None).await;
    };
    let batch = groups::batch(1, 0, 24);
    let mut open: BTreeSet<String> = workload::offered(&batch).into_iter().collect();
    stage.topic.append(batch).await.during("appending")?;
    let subscription = groups::join(&trial, &stage, &group)
        // Nothing is committed behind the handlers' backs meanwhile.
        .commit_interval(trial.patience())
        .await
        .during("subscribing")?;
    let mut hand = Vec::new();
    for _ in 0..8 {
        hand.push(groups::next(&trial, &subscription).await?);
    }
    let name = Group::new(&group)?;
    let thief: Arc<str> = "thief".into();
    let mut stolen = Vec::new();
    for row in rows(leases.as_ref(), &name).await? {
        let taken = leases
            .take(&name, &row, &thief)
            .await
            .during("taking a lease")?;
        if let Some(tenancy) = taken {
            stolen.push((tenancy, row.at));
        }
    }
    let is_stolen = |partition| {
        stolen
            .iter()
            .any(|(tenancy, _)| tenancy.partition == partition)
    };
    let mut refused = 0;
    for delivery in hand {
        let Some(position) = delivery.position() else {
            continue;
        };
        if !is_stolen(position.partition()) {
            continue;
        }
        let told = trial.soon("a settlement", delivery.done_and_wait()).await?;
        let is_over = told.as_ref().is_err_and(groups::is_over);
        ensure(is_over, || {
            format!(
                "the record at {position:?} was settled by who was robbed of its partition, and that is answered with {told:?}"
            )
        })?;
        refused += 1;
    }
    for (tenancy, at) in &stolen {
        let now = row(leases.as_ref(), &name, tenancy.partition).await?.at;
        ensure(now == *at, || {
            format!(
                "who was robbed moved partition {} from {at:?} to {now:?}",
                tenancy.partition
            )
        })?;
        leases.release(&name, *tenancy).await.during("releasing")?;
    }
    drop(subscription);
    let again = trial.on(&stage.name).await?;
    let subscription = groups::join(&trial, &again, &group)
        .await
        .during("subscribing")?;
    let awaited = std::mem::take(&mut open);
    let came = groups::handle(&trial, &subscription, awaited, |_| Ok(())).await?;
    Ok(Counts::new()
        .of("partitions that were taken", stolen.len(), 1)
        .of("settlements that were refused", refused, 1)
        .of("records that came again", came, 24))
}
