//! *Redelivery*: what is not settled comes again, when it was asked to; what is settled does not.

mod beside_core;
mod often;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::Delivery;
use annals_core::capability::Attempts;
use annals_core::defaults::REDELIVERY_DELAY;

use super::{ANY, Law};
use crate::harness::Disturb;
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const GROUP: &str = "redelivery";
const RECORDS: usize = 32;
const CLOSE: Duration = Duration::from_secs(5);
/// How far two looks at a clock may be apart.
const SLACK: Duration = Duration::from_millis(2);

pub(crate) fn law() -> Law {
    Law::new(
        "redelivery",
        "what is not settled comes again, not before its delay, its attempts counted as declared; what is settled does not",
        ANY,
    )
    .claimed_by(groups::are_there)
    .case("retried and dropped ones come again", again)
    .case("what is given back comes again to others", given_back)
    .case("beside core", beside_core::beside_core)
    .case("many times, late, and many at once", often::often)
    .fault("what a killed member had comes again", killed)
    .refusal("without groups a subscription is refused", groups::refused)
}

/// What came how often, and not before when.
#[derive(Default, Debug)]
struct Rounds {
    came: BTreeMap<String, u32>,
    due: BTreeMap<String, (Duration, Duration)>,
    settled: BTreeSet<String>,
}

impl Rounds {
    fn comes(
        &mut self,
        delivery: &Delivery,
        now: Duration,
        counts: Option<&Attempts>,
    ) -> Judged<u32> {
        let value = workload::text(delivery);
        ensure(!self.settled.contains(&value), || {
            format!(
                "{value:?} was settled and comes again, as attempt {}",
                delivery.attempt()
            )
        })?;
        if let Some((asked, due)) = self.due.remove(&value) {
            ensure(now + SLACK >= due, || {
                format!(
                    "{value:?} was to come again after {:?} and came after {:?}",
                    due.saturating_sub(asked),
                    now.saturating_sub(asked),
                )
            })?;
        }
        let times = self.came.entry(value.clone()).or_default();
        *times += 1;
        check_attempt(&value, delivery.attempt(), *times, counts)?;
        Ok(*times)
    }
}

/// Whether a number of attempts is what the topic says of it, the `times`-th time that the record
/// came to a group of which all is seen.
fn check_attempt(value: &str, attempt: u32, times: u32, counts: Option<&Attempts>) -> Judged<()> {
    let right = match counts {
        Some(Attempts::Handed | Attempts::Session) => attempt == times,
        // Nobody else can have taken it before it came for the first time.
        Some(Attempts::Taken) => attempt >= times && (times > 1 || attempt == 1),
        Some(Attempts::None) | None => attempt >= 1,
    };
    ensure(right, || {
        format!(
            "{value:?} came for time {times} and is said to be attempt {attempt} (attempts: {counts:?})"
        )
    })
}

/// Each is retried with a drawn delay, or dropped, up to three times, then settled.
async fn again(mut trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let counts = stage.capabilities().groups.attempts.known().copied();
    // A third without a key: those wait at the service, the others here.
    let batch: annals_core::Batch = (0..RECORDS)
        .map(|number| match number % 3 {
            0 => annals_core::Record::new(workload::value(1, number)),
            _ => groups::record(1, number),
        })
        .collect();
    let mut open: BTreeSet<String> = workload::offered(&batch).into_iter().collect();
    stage.topic.append(batch).await.during("appending")?;
    let subscription = groups::join(&trial, &stage, &group)
        .await
        .during("subscribing")?;
    let clock = trial.clock();
    let mut rounds = Rounds::default();
    let (mut retried, mut dropped) = (0, 0);
    while !open.is_empty() {
        let delivery = groups::next(&trial, &subscription).await?;
        let now = clock.elapsed();
        let value = workload::text(&delivery);
        let times = rounds.comes(&delivery, now, counts.as_ref())?;
        // Longer than the lease now and then: who waits holds on to it.
        let delay = groups::moment(&trial) * *trial.rng.choice([0, 1, 7, 90].iter()).unwrap_or(&1);
        match trial.rng.u8(0..6) {
            0..4 if times < 4 => {
                rounds.due.insert(value, (now, now + delay));
                delivery.retry(delay);
                retried += 1;
            }
            4 if times < 2 => {
                rounds.due.insert(value, (now, now + REDELIVERY_DELAY));
                drop(delivery);
                dropped += 1;
            }
            _ => {
                open.remove(&value);
                rounds.settled.insert(value);
                delivery.done();
            }
        }
    }
    // Nothing that was settled comes before what is appended now, or once its hold is over.
    trial
        .soon("a flush", subscription.flush())
        .await?
        .during("flushing")?;
    trial
        .disturb(&stage.name, Disturb::Pass(groups::lease(&trial)))
        .await?;
    let seen = only(&trial, &stage, &subscription, &mut rounds, 2).await?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let after = trial.on(&stage.name).await?;
    let subscription = groups::join(&trial, &after, &group)
        .await
        .during("subscribing")?;
    let more = only(&trial, &after, &subscription, &mut rounds, 3).await?;
    Ok(Counts::new()
        .of("retries", retried, RECORDS / 2)
        .of("dropped deliveries", dropped, 1)
        .of("records settled", rounds.settled.len(), RECORDS)
        .of("records behind them", seen + more, 16))
}

/// New records come, and nothing that was settled.
async fn only(
    trial: &Trial,
    stage: &Stage,
    subscription: &annals_core::Subscription,
    rounds: &mut Rounds,
    writer: u32,
) -> Judged<usize> {
    let markers = groups::batch(writer, 0, 8);
    let awaited = workload::offered(&markers);
    stage.topic.append(markers).await.during("appending")?;
    let settled = &mut rounds.settled;
    groups::handle(trial, subscription, awaited, |record| {
        let value = workload::text(record);
        ensure(!settled.contains(&value), || {
            format!("{value:?} was settled and comes again")
        })?;
        settled.insert(value);
        Ok(())
    })
    .await
}

/// A member takes some, settles a few of them and leaves: another is handed the rest, once.
async fn given_back(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let left = taken(&trial, &stage, &group, Leaves::ByClose).await?;
    let stage = trial.on(&stage.name).await?;
    rest(&trial, &stage, &group, left, 0).await
}

async fn killed(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let name = stage.name.clone();
    let left = taken(&trial, &stage, &group, Leaves::Killed).await?;
    drop(stage);
    let stage = trial.on(&name).await?;
    // A queue counts what it lent, whoever died of it.
    let counted = !groups::settle_up_to(stage.capabilities())
        && matches!(
            stage.capabilities().groups.attempts.known(),
            Some(Attempts::Handed | Attempts::Taken)
        );
    rest(&trial, &stage, &group, left, u32::from(counted)).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    ByClose,
    Killed,
}

/// What a member was handed: what it settled and what it did not.
#[derive(Default)]
struct Left {
    settled: BTreeSet<String>,
    open: BTreeSet<String>,
    handed: BTreeSet<String>,
}

/// Takes half of the records and settles the first ones of them, so that all of these are
/// committed.
async fn taken(trial: &Trial, stage: &Stage, group: &str, leaves: Leaves) -> Judged<Left> {
    let batch: annals_core::Batch = (0..RECORDS)
        .map(|number| annals_core::Record::new(workload::value(1, number)))
        .collect();
    let mut left = Left {
        open: workload::offered(&batch).into_iter().collect(),
        ..Left::default()
    };
    stage.topic.append(batch).await.during("appending")?;
    let subscription = groups::join(trial, stage, group)
        .await
        .during("subscribing")?;
    let mut hand = Vec::new();
    for number in 0..RECORDS / 2 {
        let delivery = groups::next(trial, &subscription).await?;
        let value = workload::text(&delivery);
        if number < RECORDS / 4 {
            left.open.remove(&value);
            left.settled.insert(value);
            trial
                .soon("a settlement", delivery.done_and_wait())
                .await?
                .during("settling")?;
        } else {
            left.handed.insert(value);
            hand.push(delivery);
        }
    }
    if leaves == Leaves::Killed {
        trial.disturb(&stage.name, Disturb::Kill).await?;
        drop((hand, subscription));
    } else {
        drop(hand);
        trial
            .soon("a close", subscription.close(CLOSE))
            .await?
            .during("closing")?;
        stage
            .clone()
            .close(CLOSE)
            .await
            .during("closing the client")?;
    }
    Ok(left)
}

/// All that was not settled comes, nothing else, and with its attempts.
async fn rest(trial: &Trial, stage: &Stage, group: &str, left: Left, before: u32) -> Judged {
    let subscription = groups::join(trial, stage, group)
        .await
        .during("subscribing")?;
    let (settled, handed) = (left.settled.len(), left.handed.len());
    let mut open = left.open.clone();
    while !open.is_empty() {
        let delivery = groups::next(trial, &subscription)
            .await
            .during("what was not settled")?;
        let value = workload::text(&delivery);
        ensure(!left.settled.contains(&value), || {
            format!("{value:?} was settled and comes again to another member")
        })?;
        let times = 1 + if left.handed.contains(&value) {
            before
        } else {
            0
        };
        ensure(delivery.attempt() >= times, || {
            format!(
                "{value:?} was handed out before and is said to be attempt {} after that member's end",
                delivery.attempt()
            )
        })?;
        ensure(open.remove(&value), || format!("{value:?} comes twice"))?;
        delivery.done();
    }
    let mut rounds = Rounds {
        settled: left.settled,
        ..Rounds::default()
    };
    rounds.settled.extend(left.open);
    trial
        .soon("a flush", subscription.flush())
        .await?
        .during("flushing")?;
    let more = only(trial, stage, &subscription, &mut rounds, 2).await?;
    Ok(Counts::new()
        .of("records settled before", settled, RECORDS / 4)
        .of("records handed out before", handed, RECORDS / 4)
        .of("records behind them", more, 8))
}
