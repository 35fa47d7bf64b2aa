//! Calls on a group's table of leases that are dropped.

use std::time::Duration;

use annals_core::Group;
use annals_core::driver::Mark;

use super::{TURNS, least, slow};
use crate::trial::{During, Judged, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::groups;
use crate::workload::polls::Drops;

const GROUP: &str = "cancelled-commits";
const ROUNDS: usize = 12;

/// Commits and renewals of a stay are dropped at every poll, and made again until they have an
/// answer: the stay goes on.
pub(super) async fn commits(trial: Trial, delay: Option<Duration>) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let Some(leases) = stage.backend.leases(&stage.name) else {
        return Err(Stop::NotExercised("its groups are no leases".into()));
    };
    stage
        .topic
        .append(groups::batch(1, 0, 8))
        .await
        .during("appending")?;
    // Core makes the group, and leaves it.
    let subscription = groups::join(&trial, &stage, &group)
        .await
        .during("subscribing")?;
    trial
        .soon("a close", subscription.close(Duration::from_secs(5)))
        .await?
        .during("closing")?;
    let group = Group::new(&group)?;
    // A call that the member that left had under way may still change the row, or hold it until
    // its lease runs out: looked at again, it is free.
    let free = async {
        loop {
            let rows = leases.load(&group).await.during("loading a table")?;
            let row = rows.into_iter().flatten().next();
            let row = row.ok_or_else(|| Stop::broken("a group that was made has no rows"))?;
            let taken = leases.take(&group, &row, &"cancelled".into()).await;
            if let Some(tenancy) = taken.during("taking a lease")? {
                return Ok::<_, Stop>((tenancy, row));
            }
            trial.clock().sleep(Duration::from_millis(500)).await;
        }
    };
    let (tenancy, row) = trial.soon("a lease that was given up", free).await??;
    let marks = [Mark {
        tenancy,
        to: row.at,
        attempts: 0,
    }];
    let held = [tenancy];
    slow(&trial, &stage, delay).await?;
    let mut drops = [Drops::default(); 2];
    let [committed, renewed] = &mut drops;
    let mut turns = 0;
    while committed.ready < ROUNDS || renewed.ready < ROUNDS {
        turns += 1;
        ensure(turns < TURNS, || "a commit never has an answer".into())?;
        let call = leases.commit(&group, &marks);
        let told = committed.turn(&trial, "a commit after dropped ones", call);
        for told in told
            .await?
            .transpose()
            .during("committing")?
            .into_iter()
            .flatten()
        {
            told.during("committing after dropped ones")?;
        }
        let call = leases.renew(&group, &held);
        let told = renewed.turn(&trial, "a renewal after dropped ones", call);
        for told in told
            .await?
            .transpose()
            .during("renewing")?
            .into_iter()
            .flatten()
        {
            told.during("renewing after dropped ones")?;
        }
    }
    let call = leases.release(&group, tenancy);
    let told = trial.soon("a release after dropped calls", call).await?;
    told.during("a release after dropped calls")?;
    let begun = drops.iter().map(|d| d.begun).sum();
    Ok(Counts::new()
        .of(
            "calls dropped",
            drops.iter().map(|d| d.dropped).sum(),
            ROUNDS,
        )
        .of("dropped on the way", begun, least(delay, ROUNDS)))
}
