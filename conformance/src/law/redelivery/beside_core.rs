//! What core would hide: loans and leases themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::Group;
use annals_core::driver::{Lease, Leases, Mark, Settled, Verdict};

use super::{CLOSE, GROUP, SLACK, check_attempt};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::groups;

/// What core would hide: what is lent comes again by itself; attempts are kept with the commit.
pub(super) async fn beside_core(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    match stage.backend.leases(&stage.name) {
        Some(leases) => kept(&trial, &stage, &group, leases.as_ref()).await,
        None => lent(&trial, &stage, &group).await,
    }
}

/// At a service that lends each: given back, it comes at once; with a delay, not
/// before it; held on to, not before that is over; not at all once it is settled.
async fn lent(trial: &Trial, stage: &Stage, group: &str) -> Judged {
    let counts = stage.capabilities().groups.attempts.known().copied();
    let hold = stage.capabilities().groups.hold.known().copied().flatten();
    // Records without a key: none waits for another.
    let batch: annals_core::Batch = ["a", "b", "c", "d", "e"]
        .map(annals_core::Record::new)
        .into_iter()
        .collect();
    stage.topic.append(batch).await.during("appending")?;
    let short = groups::lease(trial);
    let long = 6 * short;
    let unit = groups::moment(trial) * 10;
    let clock = trial.clock();
    let mut member = groups::Lent::join(stage, group, long).await?;
    let mut came: BTreeMap<String, u32> = BTreeMap::new();
    let mut see = |loan: &groups::Loan| {
        let times = came.entry(loan.value.clone()).or_default();
        *times += 1;
        check_attempt(&loan.value, loan.attempt, *times, counts.as_ref())
    };
    let mut first = Vec::new();
    for _ in 0..5 {
        let loan = member.one(trial).await?;
        see(&loan)?;
        first.push(loan);
    }
    let [given, delayed, dropped, settled, held] = first.as_slice() else {
        return Err(Stop::broken("five records came as fewer"));
    };
    // Returned, and dropped: at once, and not only when the hold would have run out.
    for loan in [given, dropped] {
        let asked = clock.elapsed();
        let remaining = member.settler.held_for(loan.token);
        if std::ptr::eq(loan, given) {
            told(
                &loan.value,
                &member.settle(loan.token, Verdict::Return).await?,
            )?;
        } else {
            member.settler.release(&[loan.token]);
        }
        let again = member.one(trial).await.during("what was given back")?;
        see(&again)?;
        ensure(again.value == loan.value, || {
            format!("{:?} was given back and {:?} came", loan.value, again.value)
        })?;
        let waited = clock.elapsed().saturating_sub(asked);
        ensure(remaining.is_none_or(|remaining| waited < remaining), || {
            format!(
                "{:?} was given back and came only when its hold was over, after {waited:?}",
                loan.value
            )
        })?;
        told(
            &again.value,
            &member.settle(again.token, Verdict::Done).await?,
        )?;
    }
    let asked = clock.elapsed();
    told(
        &delayed.value,
        &member
            .settle(delayed.token, Verdict::Retry { after: unit })
            .await?,
    )?;
    let again = member.one(trial).await.during("what was delayed")?;
    see(&again)?;
    let waited = clock.elapsed().saturating_sub(asked);
    ensure(
        again.value == delayed.value && waited + SLACK >= unit,
        || {
            format!(
                "{:?} was delayed by {unit:?}, and {:?} came after {waited:?}",
                delayed.value, again.value
            )
        },
    )?;
    told(
        &again.value,
        &member.settle(again.token, Verdict::Done).await?,
    )?;
    told(
        &settled.value,
        &member.settle(settled.token, Verdict::Done).await?,
    )?;
    let mut returned = 3;
    if let Some(remaining) = member.settler.held_for(held.token) {
        let mut by = remaining;
        if hold.is_some_and(|hold| hold.extend) {
            by = remaining + unit;
            told(&held.value, &member.extend(held.token, by).await?)?;
        }
        let asked = clock.elapsed();
        if by < trial.patience() / 2 {
            let again = member.one(trial).await.during("what was held too long")?;
            see(&again)?;
            let waited = clock.elapsed().saturating_sub(asked);
            ensure(again.value == held.value && waited + SLACK >= by, || {
                format!(
                    "{:?} was held for {by:?} more, and {:?} came after {waited:?}",
                    held.value, again.value
                )
            })?;
            told(
                &again.value,
                &member.settle(again.token, Verdict::Done).await?,
            )?;
            returned += 1;
        }
    }
    // What is appended now comes, and nothing that was settled.
    stage
        .topic
        .append(annals_core::Record::new("marker"))
        .await
        .during("appending")?;
    let marker = member.one(trial).await?;
    ensure(marker.value == "marker", || {
        format!("{:?} was settled and comes again", marker.value)
    })?;
    Ok(Counts::new()
        .of("records that came again", returned, 3)
        .of("markers", 1, 1))
}

fn told(value: &str, settled: &Settled) -> Judged<()> {
    ensure(matches!(settled, Settled::Yes), || {
        format!("the settlement of {value:?}, which is held, is answered with {settled:?}")
    })
}

/// In a table of leases: the attempts of a mark are there for whoever takes over.
async fn kept(trial: &Trial, stage: &Stage, group: &str, leases: &dyn Leases) -> Judged {
    stage
        .topic
        .append(groups::batch(1, 0, 8))
        .await
        .during("appending")?;
    // Core makes the group, and leaves it.
    let subscription = groups::join(trial, stage, group)
        .await
        .during("subscribing")?;
    drop(groups::next(trial, &subscription).await?);
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let group = Group::new(group)?;
    let mut seen = 0;
    for attempts in 1..4 {
        for row in rows(leases, &group).await? {
            let name: Arc<str> = format!("member-{attempts}").into();
            let tenancy = leases
                .take(&group, &row, &name)
                .await
                .during("taking a lease")?;
            let tenancy = tenancy.ok_or_else(|| {
                Stop::broken(format!(
                    "the free lease of partition {} cannot be taken",
                    row.partition
                ))
            })?;
            let mark = Mark {
                tenancy,
                to: row.at,
                attempts,
            };
            for answer in leases.commit(&group, &[mark]).await.during("committing")? {
                answer.during("committing attempts")?;
            }
            leases
                .release(&group, tenancy)
                .await
                .during("releasing a lease")?;
            let now = rows(leases, &group).await?;
            let now = now.iter().find(|now| now.partition == row.partition);
            ensure(now.is_some_and(|now| now.attempts == attempts), || {
                format!(
                    "{attempts} attempts were committed in partition {}, the table says {now:?}",
                    row.partition
                )
            })?;
            seen += 1;
        }
    }
    Ok(Counts::new().of("commits of attempts", seen, 3))
}

async fn rows(leases: &dyn Leases, group: &Group) -> Judged<Vec<Lease>> {
    let rows = leases.load(group).await.during("loading a group's table")?;
    rows.ok_or_else(|| Stop::broken("a group that was made is not there"))
}
