//! *Resume*: a group goes on where it was committed, whatever its members died of.

mod history;
mod told;

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::TopicName;
use annals_core::capability::Partitions;

use super::{ANY, Law, Shape};
use crate::harness::{Call, Disturb, Fault, Time};
use crate::trial::{During, Judged, Stage, Stop, Trial};
use crate::verdict::Counts;
use crate::workload::{self, groups};
use history::{History, Life, Member};

const GROUP: &str = "resume";
const LIVES: usize = 6;
/// Fewer records show nothing.
const LEAST: usize = 120;
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) fn law() -> Law {
    Law::new(
        "resume",
        "what no handler settled comes again in a later life, and what was committed does not",
        ANY,
    )
    .claimed_by(groups::are_there)
    .case("lives that end in good order", |trial| {
        lives(trial, Plan::default())
    })
    .case("each commit that was told is there", told::each)
    .fault("lives that are killed at drawn points", |trial| {
        lives(
            trial,
            Plan {
                killed: true,
                ..Plan::default()
            },
        )
    })
    .fault("two members of a life are killed at once", |trial| {
        lives(
            trial,
            Plan {
                killed: true,
                members: 2,
                ..Plan::default()
            },
        )
    })
    .fault("the answers to commits are lost", |trial| {
        lives(
            trial,
            Plan {
                killed: true,
                lossy: true,
                ..Plan::default()
            },
        )
    })
    .fault("the service restarts between lives", |trial| {
        lives(
            trial,
            Plan {
                restarted: true,
                ..Plan::default()
            },
        )
    })
    .deep("more lives that are killed at drawn points", |trial| {
        let plan = Plan {
            killed: true,
            members: 2,
            rounds: 2,
            ..Plan::default()
        };
        lives(trial, plan)
    })
    .refusal("without groups a subscription is refused", groups::refused)
}

/// How the lives of one case go.
#[derive(Clone, Copy, Debug)]
struct Plan {
    killed: bool,
    restarted: bool,
    members: usize,
    lossy: bool,
    rounds: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            killed: false,
            restarted: false,
            members: 1,
            lossy: false,
            rounds: 1,
        }
    }
}

/// How much of what a life takes it settles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Share {
    None,
    Some,
    All,
}

async fn lives(mut trial: Trial, plan: Plan) -> Judged {
    let mut counts = Counts::new();
    for _ in 0..plan.rounds {
        counts = round(&mut trial, plan).await?;
    }
    Ok(counts)
}

async fn round(trial: &mut Trial, plan: Plan) -> Judged {
    let (stage, group) = groups::staged(trial, GROUP).await?;
    let up_to = groups::settle_up_to(stage.capabilities());
    // A group that its first member makes has a start of its own to remember.
    let made = Shape::of(stage.capabilities()) != Shape::Queue && trial.rng.bool();
    let group = if made && groups::can_be(stage.capabilities(), 2) {
        "resume-made".into()
    } else {
        group
    };
    let topic = stage.name.clone();
    let size = trial.size(LEAST);
    let mut all = Vec::new();
    let mut history = History::default();
    let fired = trial.fired();
    let mut shares = [
        Share::None,
        Share::Some,
        Share::All,
        Share::Some,
        Share::None,
        Share::Some,
    ];
    trial.rng.shuffle(&mut shares);
    drop(stage);
    for (life, share) in shares.into_iter().enumerate() {
        let stage = trial.on(&topic).await?;
        if life == 2 && plan.killed {
            split(trial, &stage).await?;
        }
        let batch = groups::batch(1, all.len(), size / LIVES);
        all.extend(workload::offered(&batch));
        stage.topic.append(batch).await.during("appending")?;
        history.look(&stage).await?;
        live(trial, plan, &mut history, &topic, &group, up_to, share).await?;
    }
    if plan.lossy {
        trial.disturb(&topic, Disturb::Heal).await?;
    }
    let committed = history.committed.len();
    let seen = last(trial, &mut history, &topic, &group, &all).await?;
    let faults = trial.fired() - fired;
    Ok(Counts::new()
        .of("records", all.len(), LEAST)
        .of("deliveries", history.handed, all.len())
        .of("records known to be committed", committed, 3)
        .of("records left unsettled", history.left, 3)
        .of("records in the last lives", seen, 10)
        .of("lost answers", faults, usize::from(plan.lossy)))
}

/// Splits a partition, where that is possible.
async fn split(trial: &Trial, stage: &Stage) -> Judged<()> {
    if !stage.capabilities().partitions.is(&Partitions::Lineage) {
        return Ok(());
    }
    let Some(partition) = stage.partitions().await?.first().copied() else {
        return Ok(());
    };
    match trial.disturb(&stage.name, Disturb::Split(partition)).await {
        Err(Stop::NotExercised(_)) => Ok(()),
        split => split,
    }
}

/// One life, and its end.
async fn live(
    trial: &mut Trial,
    plan: Plan,
    history: &mut History,
    topic: &TopicName,
    group: &str,
    up_to: bool,
    share: Share,
) -> Judged<()> {
    let mut members = Vec::new();
    for _ in 0..plan.members {
        let stage = trial.on(topic).await?;
        let interval = Duration::from_millis(trial.rng.u64(1..600));
        let records = *trial.rng.choice([1, 4, 1_000].iter()).unwrap_or(&4);
        // Killed ones are waited for at every turn, and an early loss is no mistake.
        let subscription = groups::join(trial, &stage, group)
            .lease(groups::lease(trial) / 2)
            .commit_interval(interval)
            .in_flight(records, 1 << 20)
            .await
            .during("subscribing")?;
        let member = Member {
            subscription,
            hand: Vec::new(),
            life: Life::default(),
        };
        members.push((stage, member));
    }
    // What the killed ones before had must run out first.
    if let Some((_, member)) = members.first_mut() {
        member.take(history, 3 * groups::lease(trial)).await?;
    }
    let virtual_time = trial.harness().time() == Time::Virtual;
    for _ in 0..plan.members * trial.rng.usize(30..60) {
        let chosen = trial.rng.usize(0..members.len());
        let Some((_, member)) = members.get_mut(chosen) else {
            continue;
        };
        match trial.rng.u8(0..16) {
            0..8 if member.hand.len() < 12 => {
                member.take(history, groups::moment(trial) / 2).await?;
            }
            0..13 if !member.hand.is_empty() && share != Share::None => {
                let index = trial.rng.usize(0..member.hand.len());
                if trial.rng.u8(0..4) == 0 {
                    let wait = groups::moment(trial);
                    member.settle_and_wait(history, index, wait).await;
                } else {
                    member.settle(history, index).done();
                }
            }
            13 if !member.hand.is_empty() && share == Share::Some => {
                let delivery = member
                    .hand
                    .swap_remove(trial.rng.usize(0..member.hand.len()));
                delivery.retry(groups::moment(trial));
            }
            14 => {
                if plan.lossy {
                    lose(trial, topic, up_to).await?;
                }
                member.flush(trial, history, up_to).await?;
            }
            15 if virtual_time => {
                let time = Duration::from_millis(trial.rng.u64(1..500));
                trial.disturb(topic, Disturb::Pass(time)).await?;
            }
            _ => tokio::task::yield_now().await,
        }
    }
    if share == Share::None && virtual_time {
        // Longer than what some clients commit by themselves, behind their handlers' backs.
        let time = Duration::from_millis(trial.rng.u64(1_000..6_000));
        trial.disturb(topic, Disturb::Pass(time)).await?;
    }
    if share == Share::All {
        for (_, member) in &mut members {
            while !member.hand.is_empty() {
                let index = trial.rng.usize(0..member.hand.len());
                member.settle(history, index).done();
            }
            member.flush(trial, history, up_to).await?;
        }
    }
    // Commits that nobody waits for may be anywhere on their way.
    for _ in 0..trial.rng.usize(0..12) {
        tokio::task::yield_now().await;
    }
    history.left += members
        .iter()
        .map(|(_, member)| member.hand.len())
        .sum::<usize>();
    if plan.killed {
        trial.disturb(topic, Disturb::Kill).await?;
        drop(members);
        return Ok(());
    }
    for (stage, member) in members {
        member.close(trial, history, up_to).await?;
        stage.close(CLOSE).await.during("closing the client")?;
    }
    if plan.restarted {
        trial.disturb(topic, Disturb::Restart).await?;
    }
    Ok(())
}

/// The next answer to a commit, or whatever else is told then, gets lost.
async fn lose(trial: &mut Trial, topic: &TopicName, up_to: bool) -> Judged<()> {
    let call = if up_to { Call::Lease } else { Call::Settle };
    let done = trial.rng.bool();
    trial
        .disturb(topic, Disturb::Fault(call, Fault::Lose { done }))
        .await
}

/// The last two lives settle everything: in the first comes what no handler has settled, in the
/// second nothing but what is new.
async fn last(
    trial: &Trial,
    history: &mut History,
    topic: &TopicName,
    group: &str,
    all: &[String],
) -> Judged<usize> {
    let mut awaited: BTreeSet<String> = all.iter().cloned().collect();
    awaited.retain(|value| !history.done.contains(value));
    let mut seen = 0;
    for life in 0..2 {
        let stage = trial.on(topic).await?;
        let markers = groups::batch(2, 100 * life, 16);
        awaited.extend(workload::offered(&markers));
        stage.topic.append(markers).await.during("appending")?;
        let subscription = groups::join(trial, &stage, group)
            .await
            .during("subscribing")?;
        let coming = std::mem::take(&mut awaited);
        seen += groups::handle(trial, &subscription, coming.clone(), |record| {
            history.handed(record)?;
            history.done.insert(workload::text(record));
            Ok(())
        })
        .await
        .during("after the last life")?;
        trial
            .soon("a close", subscription.close(CLOSE))
            .await?
            .during("closing")?;
        stage.close(CLOSE).await.during("closing the client")?;
        // Nothing was left unsettled, so all of it is committed.
        history.committed.extend(all.iter().cloned());
        history.committed.extend(coming);
    }
    Ok(seen)
}
