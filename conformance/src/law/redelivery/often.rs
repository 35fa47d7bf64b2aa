//! Many times, late, and many at once: what a few of each do not show.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::driver::{Room, Settled, Verdict};
use annals_core::{Batch, Record};

use super::{CLOSE, GROUP, SLACK, check_attempt};
use crate::harness::{Disturb, Time};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const TIMES: u32 = 7;
/// More than one request of any service takes.
const MANY: usize = 25;

/// One record comes again and again; at a service that lends each, one is delayed for long, and many
/// are settled by one call.
pub(super) async fn often(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let counts = stage.capabilities().groups.attempts.known().copied();
    stage
        .topic
        .append(Record::new("often"))
        .await
        .during("appending")?;
    let subscription = groups::join(&trial, &stage, &group)
        .await
        .during("subscribing")?;
    for times in 1..=TIMES {
        let delivery = groups::next(&trial, &subscription).await?;
        check_attempt(
            &workload::text(&delivery),
            delivery.attempt(),
            times,
            counts.as_ref(),
        )?;
        if times < TIMES {
            delivery.retry(Duration::ZERO);
        } else {
            trial
                .soon("a settlement", delivery.done_and_wait())
                .await?
                .during("settling")?;
        }
    }
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let settled = if stage.backend.leases(&stage.name).is_some() {
        MANY
    } else {
        match groups::Lent::join(&stage, &group, groups::lease(&trial)).await {
            Ok(mut member) => {
                late(&trial, &stage, &mut member).await?;
                at_once(&trial, &stage, &mut member).await?
            }
            Err(Stop::NotExercised(_)) => MANY,
            Err(stop) => return Err(stop),
        }
    };
    Ok(Counts::new()
        .of("deliveries of one record", TIMES as usize, TIMES as usize)
        .of("records settled at once", settled, MANY))
}

/// A delay of many seconds and a part of one is neither capped nor rounded down.
async fn late(trial: &Trial, stage: &Stage, member: &mut groups::Lent) -> Judged<()> {
    let most = stage.capabilities().groups.hold.known().copied().flatten();
    let most = most.and_then(|hold| hold.most).unwrap_or(Duration::MAX);
    let after = match trial.harness().time() {
        Time::Virtual => Duration::from_millis(12_345),
        Time::Real => groups::moment(trial) * 7,
    };
    let after = after.min(most).min(trial.patience() / 2);
    stage
        .topic
        .append(Record::new("late"))
        .await
        .during("appending")?;
    let loan = member.one(trial).await?;
    let clock = trial.clock();
    let asked = clock.elapsed();
    let told = member.settle(loan.token, Verdict::Retry { after }).await?;
    ensure(matches!(told, Settled::Yes), || {
        format!("a delay of {after:?} is answered with {told:?}")
    })?;
    let again = member.one(trial).await.during("what was delayed")?;
    let waited = clock.elapsed().saturating_sub(asked);
    ensure(again.value == loan.value && waited + SLACK >= after, || {
        format!(
            "{:?} was delayed by {after:?}, and {:?} came after {waited:?}",
            loan.value, again.value
        )
    })?;
    member.settle(again.token, Verdict::Done).await?;
    Ok(())
}

/// None of many records that one call settled comes again, once the hold of all is over.
async fn at_once(trial: &Trial, stage: &Stage, member: &mut groups::Lent) -> Judged<usize> {
    let batch: Batch = (0..MANY)
        .map(|number| Record::new(workload::value(9, number)))
        .collect();
    stage.topic.append(batch).await.during("appending")?;
    let room = Room {
        records: MANY,
        bytes: 1 << 20,
    };
    let mut loans = Vec::new();
    for _ in 0..MANY {
        if loans.len() < MANY {
            loans.extend(member.fetch(room, trial.patience()).await?);
        }
    }
    let values: BTreeSet<&str> = loans.iter().map(|loan| loan.value.as_str()).collect();
    ensure(values.len() == MANY, || {
        format!("{} of {MANY} records were lent", values.len())
    })?;
    let done: Vec<_> = loans
        .iter()
        .map(|loan| (loan.token, Verdict::Done))
        .collect();
    let told = member.settler.settle(&done).await;
    let told = told.during("settling many at once")?;
    let no = told.iter().find(|told| !matches!(told, Settled::Yes));
    ensure(told.len() == done.len() && no.is_none(), || {
        format!("{} settlements, all in time, come to {told:?}", done.len())
    })?;
    trial
        .disturb(&stage.name, Disturb::Pass(groups::lease(trial) * 2))
        .await?;
    stage
        .topic
        .append(Record::new("behind"))
        .await
        .during("appending")?;
    for _ in 0..=MANY {
        let came = member.fetch(room, trial.patience()).await?;
        let again = came.iter().find(|loan| values.contains(&*loan.value));
        ensure(again.is_none(), || {
            format!("{again:?} was settled with {MANY} others in one call, and comes again")
        })?;
        if came.iter().any(|loan| loan.value == "behind") {
            return Ok(loans.len());
        }
    }
    Err(Stop::broken("what was appended behind them never comes"))
}
