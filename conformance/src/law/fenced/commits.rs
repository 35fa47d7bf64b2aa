//! The fence of a group's table of leases.

use annals_core::driver::{Lease, Leases, Mark, Tenancy};
use annals_core::{ErrorKind, Frontier, Group, PartitionId, Start, Until};

use super::CLOSE;
use crate::harness::Disturb;
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::groups;

pub(super) async fn rows(leases: &dyn Leases, group: &Group) -> Judged<Vec<Lease>> {
    let rows = leases.load(group).await.during("loading a group's table")?;
    rows.ok_or_else(|| Stop::broken("a group that was made is not there"))
}

pub(super) async fn row(leases: &dyn Leases, group: &Group, of: PartitionId) -> Judged<Lease> {
    let rows = rows(leases, group).await?;
    let row = rows.into_iter().find(|row| row.partition == of);
    row.ok_or_else(|| Stop::Broken(format!("the row of partition {of} is gone")))
}

async fn take(leases: &dyn Leases, group: &Group, of: PartitionId, by: &str) -> Judged<Tenancy> {
    let seen = row(leases, group, of).await?;
    let taken = leases
        .take(group, &seen, &by.into())
        .await
        .during("taking a lease")?;
    taken.ok_or_else(|| {
        Stop::Broken(format!(
            "{by} cannot take the lease of partition {of}, which was {seen:?}"
        ))
    })
}

async fn commit(
    leases: &dyn Leases,
    group: &Group,
    marks: &[Mark],
) -> Judged<Vec<Option<ErrorKind>>> {
    let told = leases.commit(group, marks).await.during("committing")?;
    ensure(told.len() == marks.len(), || {
        format!("{} marks had {} answers", marks.len(), told.len())
    })?;
    Ok(told
        .into_iter()
        .map(|told| told.err().map(|error| error.kind()))
        .collect())
}

const OVER: [Option<ErrorKind>; 2] = [Some(ErrorKind::Fenced), Some(ErrorKind::Expired)];

/// In a table of leases: what an ended stay commits, renews or releases moves nothing.
pub(super) async fn commits(
    trial: &Trial,
    stage: Stage,
    group: &str,
    what: Option<Disturb>,
) -> Judged {
    let name = stage.name.clone();
    stage
        .topic
        .append(groups::batch(1, 0, 48))
        .await
        .during("appending")?;
    // Core makes the group, and leaves it.
    let subscription = groups::join(trial, &stage, group)
        .await
        .during("subscribing")?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let places = stage.read(Start::Beginning, Until::End).await?.records;
    let places: Vec<_> = places
        .iter()
        .filter_map(annals_core::Recorded::position)
        .collect();
    let group = Group::new(group)?;
    let group = &group;
    let table = |stage: &Stage| {
        stage
            .backend
            .leases(&name)
            .ok_or_else(|| Stop::broken("there are leases no more"))
    };
    let mut leases = table(&stage)?;
    let mut stays = Vec::new();
    for first in rows(leases.as_ref(), group).await? {
        let of = first.partition;
        let of_it: Vec<_> = places
            .iter()
            .filter(|at| at.partition() == of)
            .copied()
            .collect();
        let [one, two, three, .., last] = of_it.as_slice() else {
            continue;
        };
        let mark = |tenancy, at| Mark {
            tenancy,
            to: Frontier::after(at),
            attempts: 0,
        };
        let old = take(leases.as_ref(), group, of, "old").await?;
        let told = commit(leases.as_ref(), group, &[mark(old, *one)]).await?;
        ensure(told == [None], || {
            format!("the commit of who holds the lease is answered with {told:?}")
        })?;
        let new = take(leases.as_ref(), group, of, "new").await?;
        stays.push((of, old, new, *two, *three, *last));
    }
    ensure(!stays.is_empty(), || {
        "no partition has records enough".into()
    })?;
    if let Some(what) = what {
        trial.disturb(&name, what).await?;
        drop(stage);
        let stage = trial.on(&name).await?;
        leases = table(&stage)?;
        // Whose process was killed is replaced once more.
        for (of, _, new, ..) in &mut stays {
            *new = take(leases.as_ref(), group, *of, "newer").await?;
        }
    }
    let leases = leases.as_ref();
    let mut fenced = 0;
    for (of, old, new, two, three, last) in &stays {
        let before = row(leases, group, *of).await?;
        for to in [Frontier::after(*last), Frontier::ENDED, Frontier::START] {
            let zombie = Mark {
                tenancy: *old,
                to,
                attempts: 9,
            };
            let told = commit(leases, group, &[zombie]).await?;
            ensure(told.iter().all(|told| OVER.contains(told)), || {
                format!(
                    "the commit of an ended stay of partition {of} to {to:?} is answered with {told:?}, not refused"
                )
            })?;
            fenced += 1;
        }
        let told = leases.renew(group, &[*old]).await.during("renewing")?;
        let told: Vec<_> = told
            .into_iter()
            .map(|told| told.err().map(|error| error.kind()))
            .collect();
        ensure(
            told.len() == 1 && told.iter().all(|told| OVER.contains(told)),
            || {
                format!(
                    "the renewal of an ended stay of partition {of} is answered with {told:?}, not refused"
                )
            },
        )?;
        // Ending what has ended is no mistake, and has no effect either.
        let _ = leases.release(group, *old).await;
        let after = row(leases, group, *of).await?;
        ensure(after == before, || {
            format!(
                "what an ended stay did changed the row of partition {of} from {before:?} to {after:?}"
            )
        })?;
        // Of one commit each mark has its own answer, and the holder's holds.
        let own = Mark {
            tenancy: *new,
            to: Frontier::after(*two),
            attempts: 0,
        };
        let zombie = Mark {
            tenancy: *old,
            to: Frontier::after(*last),
            attempts: 0,
        };
        for marks in [[zombie, own], [own, zombie]] {
            let told = commit(leases, group, &marks).await?;
            for (mark, told) in marks.iter().zip(&told) {
                let is_right = if mark.tenancy == *old {
                    OVER.contains(told)
                } else {
                    told.is_none()
                };
                ensure(is_right, || {
                    format!("of two marks of partition {of} {mark:?} is answered with {told:?}")
                })?;
            }
            fenced += 1;
        }
        let at = row(leases, group, *of).await?.at;
        ensure(at == Frontier::after(*two), || {
            format!("the holder committed {two:?} in partition {of}, and the table says {at:?}")
        })?;
        // Given up, a stay has ended too.
        leases.release(group, *new).await.during("releasing")?;
        let told = commit(
            leases,
            group,
            &[Mark {
                tenancy: *new,
                to: Frontier::after(*three),
                attempts: 0,
            }],
        )
        .await?;
        let at = row(leases, group, *of).await?.at;
        ensure(
            told.iter().all(|told| OVER.contains(told)) && at == Frontier::after(*two),
            || {
                format!(
                    "the commit of a stay of partition {of} that was given up is answered with {told:?}, and the table says {at:?}"
                )
            },
        )?;
        fenced += 1;
    }
    Ok(Counts::new()
        .of("partitions", stays.len(), 1)
        .of("fenced commits", fenced, 6))
}
