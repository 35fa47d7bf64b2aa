//! *Competing*: the members of a group share its records out; a key is one member's at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::capability::Members;
use annals_core::driver::{Room, Settled, Verdict};
use annals_core::{Clock, Delivery, Group, Record, Subscription};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ANY, Law};
use crate::harness::Disturb;
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const GROUP: &str = "competing";
const LEAST: usize = 120;
const CLOSE: Duration = Duration::from_secs(5);
/// Handlers of one member at a time.
const HANDLERS: usize = 6;

pub(crate) fn law() -> Law {
    Law::new(
        "competing",
        "everything is handled; of a key two members have something at once only where what the earlier one settles then is refused",
        ANY,
    )
    .claimed_by(groups::are_there)
    .case("members that join and leave", |trial| compete(trial, false))
    .case("beside core", beside_core)
    .fault("members that are cut off past their lease", |trial| {
        compete(trial, true)
    })
    .refusal("without groups a subscription is refused", groups::refused)
}

/// One record in the hands of one handler.
#[derive(Clone, Debug)]
struct Held {
    value: String,
    key: Option<Vec<u8>>,
    member: usize,
    from: Duration,
    /// When it was settled.
    to: Duration,
    /// Whether that was stored; `None`: nobody heard of it.
    stored: Option<bool>,
}

/// What all handlers did.
#[derive(Clone, Default, Debug)]
struct Log(Arc<Mutex<Vec<Held>>>);

impl Log {
    fn with<R>(&self, look: impl FnOnce(&mut Vec<Held>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether each of these was handled, and that stored.
    fn is_all(&self, values: &BTreeSet<String>) -> bool {
        self.with(|held| {
            let stored = held.iter().filter(|held| held.stored == Some(true));
            let stored: BTreeSet<&String> = stored.map(|held| &held.value).collect();
            values.iter().all(|value| stored.contains(value))
        })
    }
}

async fn compete(mut trial: Trial, cut: bool) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    let ordered = stage.capabilities().orders_keys();
    let alone = stage.capabilities().groups.members.is(&Members::Local);
    let log = Log::default();
    let fired = trial.fired();
    let mut values = BTreeSet::new();
    let mut members = JoinSet::new();
    let size = trial.size(LEAST);
    // Two to begin with; each time there is more to do, one joins, and one leaves.
    let rounds = 4;
    for member in 0..rounds {
        let from = values.len();
        let batch = groups::batch(1, from, size / rounds);
        values.extend(workload::offered(&batch));
        stage.topic.append(batch).await.during("appending")?;
        let stays = trial.rng.usize(20..60);
        join(
            &mut trial,
            &mut members,
            &stage,
            &group,
            (member, stays),
            &log,
        )
        .await?;
        if member == 0 {
            join(
                &mut trial,
                &mut members,
                &stage,
                &group,
                (rounds, usize::MAX),
                &log,
            )
            .await?;
        }
        trial
            .disturb(&stage.name, Disturb::Pass(groups::lease(&trial) / 3))
            .await?;
        if cut && member == 1 {
            trial.disturb(&stage.name, Disturb::Cut).await?;
            let time = groups::lease(&trial) * 3 / 2;
            trial.disturb(&stage.name, Disturb::Pass(time)).await?;
            trial.disturb(&stage.name, Disturb::Heal).await?;
        }
    }
    let finished = async {
        while !log.is_all(&values) {
            tokio::time::sleep(groups::moment(&trial)).await;
            if let Some(told) = members.try_join_next() {
                told.map_err(|error| Stop::broken(format!("a member ended: {error}")))??;
            }
        }
        Ok::<_, Stop>(())
    };
    let finished = tokio::time::timeout(trial.patience(), finished).await;
    if let Ok(told) = finished {
        told?;
    } else {
        let held = log.with(|held| held.clone());
        let stored = held.iter().filter(|held| held.stored == Some(true));
        let stored: BTreeSet<String> = stored.map(|held| held.value.clone()).collect();
        let missing: Vec<&String> = values.difference(&stored).collect();
        return Err(Stop::broken(format!(
            "{} of {} records were not handled by any member, the first is {:?}",
            missing.len(),
            values.len(),
            missing.first()
        )));
    }
    members.abort_all();
    let held = log.with(|held| held.clone());
    let moved = if ordered { overlaps(&held)? } else { 1 };
    let busy: BTreeSet<usize> = held.iter().map(|held| held.member).collect();
    let shared = usize::from(!alone);
    Ok(Counts::new()
        .of("records handled", values.len(), LEAST)
        .of("members that handled some", busy.len(), 1 + shared)
        .of("keys that moved to another member", moved, shared)
        .of("cut calls", trial.fired() - fired, usize::from(cut)))
}

/// One more member, which leaves after so many deliveries.
async fn join(
    trial: &mut Trial,
    members: &mut JoinSet<Judged<()>>,
    stage: &Stage,
    group: &str,
    (member, stays): (usize, usize),
    log: &Log,
) -> Judged<()> {
    // Every other one beside another in one process, where one process has the group at a time.
    let client = if member % 2 == 0 {
        stage.clone()
    } else {
        trial.on(&stage.name).await?
    };
    let subscription = groups::join(trial, &client, group)
        .in_flight(2 * HANDLERS, 1 << 20)
        .commit_interval(groups::moment(trial))
        .await
        .during("subscribing")?;
    let worker = Worker {
        member,
        stays,
        lease: groups::lease(trial),
        clock: trial.clock(),
        log: log.clone(),
        rng: trial.rng.fork(),
    };
    members.spawn(worker.run(subscription));
    Ok(())
}

/// A member at work.
struct Worker {
    member: usize,
    stays: usize,
    lease: Duration,
    clock: Clock,
    log: Log,
    rng: fastrand::Rng,
}

impl Worker {
    async fn run(mut self, subscription: Subscription) -> Judged<()> {
        let mut handlers = JoinSet::new();
        let mut taken = 0;
        let free = Arc::new(Semaphore::new(HANDLERS));
        while taken < self.stays {
            let permit = Arc::clone(&free).acquire_owned().await;
            let permit = permit.map_err(|_| Stop::broken("a semaphore was closed"))?;
            match subscription.next().await {
                Ok(Some(delivery)) => {
                    taken += 1;
                    let time = self.lease.mul_f64(0.02 + 0.3 * self.rng.f64());
                    let (clock, log) = (self.clock.clone(), self.log.clone());
                    let member = self.member;
                    handlers.spawn(async move {
                        let (delivery, index) = handle(member, delivery, time, &clock, &log).await;
                        // What waits for its commit waits for records that others may handle.
                        drop(permit);
                        let stored = delivery.done_and_wait().await.is_ok();
                        log.with(|all| {
                            if let Some(held) = all.get_mut(index) {
                                held.stored = Some(stored);
                            }
                        });
                    });
                }
                Ok(None) => break,
                Err(error) if groups::is_over(&error) || error.is_retryable() => {}
                Err(error) => return Err(error).during("receiving"),
            }
        }
        // Waits for the handlers. Whoever was robbed meanwhile is told so; others have it.
        let _ = subscription.close(CLOSE).await;
        while handlers.join_next().await.is_some() {}
        Ok(())
    }
}

/// Has a record for so long; says where that is noted.
async fn handle(
    member: usize,
    delivery: Delivery,
    time: Duration,
    clock: &Clock,
    log: &Log,
) -> (Delivery, usize) {
    let from = clock.elapsed();
    clock.sleep(time).await;
    let held = Held {
        value: workload::text(&delivery),
        key: delivery.key().map(<[u8]>::to_vec),
        member,
        from,
        to: clock.elapsed(),
        stored: None,
    };
    let index = log.with(|all| {
        all.push(held);
        all.len() - 1
    });
    (delivery, index)
}

/// No two intervals of a key overlap, unless what the earlier holder settled was refused. How often
/// a key moved.
fn overlaps(held: &[Held]) -> Judged<usize> {
    let mut by_key: BTreeMap<&[u8], Vec<&Held>> = BTreeMap::new();
    for one in held {
        if let Some(key) = &one.key {
            by_key.entry(key).or_default().push(one);
        }
    }
    let mut moved = 0;
    for of_key in by_key.values_mut() {
        of_key.sort_by_key(|held| (held.from, held.to));
        for (index, earlier) in of_key.iter().enumerate() {
            let later = of_key.get(index + 1..).unwrap_or_default();
            let next = later.first();
            moved += usize::from(next.is_some_and(|next| next.member != earlier.member));
            let overlapping = later.iter().find(|later| later.from < earlier.to);
            if let Some(later) = overlapping.filter(|_| earlier.stored == Some(true)) {
                return Err(Stop::broken(format!(
                    "member {} had {:?} from {:?} to {:?}, and that was stored; member {} had {:?} of the same key from {:?}",
                    earlier.member,
                    earlier.value,
                    earlier.from,
                    earlier.to,
                    later.member,
                    later.value,
                    later.from,
                )));
            }
        }
    }
    // One record is handled for good by one member.
    let mut stored: BTreeMap<&str, &Held> = BTreeMap::new();
    for one in held.iter().filter(|held| held.stored == Some(true)) {
        if let Some(other) = stored.insert(&one.value, one)
            && other.from < one.to
            && one.from < other.to
        {
            return Err(Stop::broken(format!(
                "members {} and {} had {:?} at once, and both settled it",
                other.member, one.member, one.value
            )));
        }
    }
    Ok(moved)
}

/// What core would hide.
async fn beside_core(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    match stage.backend.leases(&stage.name) {
        Some(_) => rivals(&trial, &stage, &group).await,
        None => lent(&trial, &stage, &group).await,
    }
}

/// Of two that saw the same row one gets the lease.
async fn rivals(trial: &Trial, stage: &Stage, group: &str) -> Judged {
    let other = trial.on(&stage.name).await?;
    // Core makes the group, and leaves it.
    let subscription = groups::join(trial, stage, group)
        .await
        .during("subscribing")?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let tables = [stage, &other].map(|stage| stage.backend.leases(&stage.name));
    let [Some(one), Some(two)] = tables else {
        return Err(Stop::broken(
            "one client has leases, and another one has none",
        ));
    };
    let group = Group::new(group)?;
    let mut taken = 0;
    for _ in 0..3 {
        let rows = one.load(&group).await.during("loading a group's table")?;
        for row in rows.unwrap_or_default() {
            let first = one
                .take(&group, &row, &"one".into())
                .await
                .during("taking a lease")?;
            let second = two
                .take(&group, &row, &"two".into())
                .await
                .during("taking a lease")?;
            ensure(first.is_some() && second.is_none(), || {
                format!(
                    "of two that saw the same lease the first got {first:?} and the second {second:?}"
                )
            })?;
            if let Some(tenancy) = first {
                one.release(&group, tenancy)
                    .await
                    .during("releasing a lease")?;
                taken += 1;
            }
        }
    }
    Ok(Counts::new().of("leases that two asked for", taken, 3))
}

/// What is lent to one member is not lent to another, nor is a later one of its key.
async fn lent(trial: &Trial, stage: &Stage, group: &str) -> Judged {
    let ordered = stage.capabilities().orders_keys();
    let other = trial.on(&stage.name).await?;
    let records = ["a-1", "a-2", "b-1", "a-3", "c-1", "b-2"];
    for value in records {
        let key = value.split('-').next().unwrap_or_default();
        stage
            .topic
            .append(Record::new(value).key(key))
            .await
            .during("appending")?;
    }
    let long = groups::lease(trial) * 10;
    let mut one = groups::Lent::join(stage, group, long).await?;
    let mut two = groups::Lent::join(&other, group, long).await?;
    let mut settled: BTreeSet<String> = BTreeSet::new();
    let mut refused = 0;
    let room = Room {
        records: 10,
        bytes: 1 << 20,
    };
    while settled.len() < records.len() {
        let first = one.one(trial).await?;
        ensure(!settled.contains(&first.value), || {
            format!("{:?} comes twice", first.value)
        })?;
        let beside = two.fetch(room, groups::moment(trial)).await?;
        for loan in &beside {
            ensure(loan.value != first.value, || {
                format!("{:?} was lent to two members at once", loan.value)
            })?;
            let same = loan.value.split('-').next() == first.value.split('-').next();
            ensure(!ordered || !same, || {
                format!(
                    "{:?} was lent to one member, and {:?} of its key to another",
                    first.value, loan.value
                )
            })?;
            // Given back, it may go to either.
            let told = two.settle(loan.token, Verdict::Return).await?;
            ensure(matches!(told, Settled::Yes), || {
                format!("what is held cannot be given back: {told:?}")
            })?;
            refused += 1;
        }
        let told = one.settle(first.token, Verdict::Done).await?;
        ensure(matches!(told, Settled::Yes), || {
            format!("what is held cannot be settled: {told:?}")
        })?;
        settled.insert(first.value);
    }
    Ok(Counts::new()
        .of("records settled", settled.len(), records.len())
        .of("records lent beside them", refused, 1))
}
