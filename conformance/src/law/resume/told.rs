//! What core would hide: each commit that was told is in the table.

use annals_core::driver::Mark;
use annals_core::{Frontier, Group, Record, Start, Until};

use super::CLOSE;
use crate::trial::{During, Judged, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const GROUP: &str = "resume-told";
const COMMITS: usize = 24;

/// One mark after the other is committed in a table of leases, and each is read back by another
/// client before the next: one commit that is lost once is made good by the one behind it.
pub(super) async fn each(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let Some(leases) = stage.backend.leases(&stage.name) else {
        return Err(Stop::NotExercised("its groups are no leases".into()));
    };
    // One key, one partition.
    let batch: annals_core::Batch = (0..COMMITS)
        .map(|number| Record::new(workload::value(1, number)).key("told"))
        .collect();
    stage.topic.append(batch).await.during("appending")?;
    let read = stage.read(Start::Beginning, Until::End).await?.records;
    // Core makes the group, and leaves it.
    let subscription = groups::join(&trial, &stage, &group)
        .await
        .during("subscribing")?;
    drop(groups::next(&trial, &subscription).await?);
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let group = Group::new(&group)?;
    let places: Vec<_> = read
        .iter()
        .filter_map(annals_core::Recorded::position)
        .collect();
    let first = places
        .first()
        .ok_or_else(|| Stop::broken("records are read without a position"))?
        .partition();
    let rows = leases.load(&group).await.during("loading a table")?;
    let row = rows
        .into_iter()
        .flatten()
        .find(|row| row.partition == first);
    let row = row.ok_or_else(|| Stop::Broken(format!("the row of partition {first} is gone")))?;
    let taken = leases.take(&group, &row, &"told".into()).await;
    let tenancy = taken.during("taking a lease")?;
    let tenancy = tenancy.ok_or_else(|| Stop::broken("a lease that was given up is not free"))?;
    let other = trial.on(&stage.name).await?;
    let seen_by = other.backend.leases(&other.name);
    let seen_by = seen_by.ok_or_else(|| Stop::broken("another client has no leases"))?;
    let mut told = 0;
    for place in places.iter().filter(|place| place.partition() == first) {
        let mark = Mark {
            tenancy,
            to: Frontier::after(*place),
            attempts: 0,
        };
        for answer in leases.commit(&group, &[mark]).await.during("committing")? {
            answer.during("committing a mark")?;
        }
        let rows = seen_by.load(&group).await.during("loading a table")?;
        let row = rows
            .into_iter()
            .flatten()
            .find(|row| row.partition == first);
        ensure(row.as_ref().is_some_and(|row| row.at == mark.to), || {
            format!(
                "a commit of {:?} was told, and the table says {row:?}",
                mark.to
            )
        })?;
        told += 1;
    }
    leases
        .release(&group, tenancy)
        .await
        .during("releasing a lease")?;
    Ok(Counts::new().of("commits read back", told, COMMITS))
}
