//! *Alive*: what is open goes on after a failure, and says how far it has come.

use std::time::Duration;

use annals_core::capability::{ByKey, Receipt};
use annals_core::{Batch, Cursor, Delivery, Record, Replay, Signal, Start, TopicName};

use super::{ANY, Law, Shape};
use crate::harness::{Call, Disturb, Fault, Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::handles::{self, Handles};
use crate::workload::readings;

const GROUP: &str = "alive";
const OTHER: &str = "other";

pub(crate) fn law() -> Law {
    Law::new(
        "alive",
        "after a failure has healed every open handle passes a marker in time, and progress without records is told",
        ANY,
    )
    .case("after they were idle", idle)
    .case("beside handles that failed or ended", beside)
    .case("progress without records is told", quiet)
    .fault("after a cut", cut)
    .fault("after failures of every call", failures)
    .fault("after a restart", restarted)
    .fault("beside a client that was killed", killed)
}

async fn opened(trial: &Trial) -> Judged<Handles> {
    let stage = trial.stage(&Want::groups(&[GROUP, OTHER])?).await?;
    Handles::open(trial, stage, GROUP, 10).await
}

async fn idle(trial: Trial) -> Judged {
    let mut handles = opened(&trial).await?;
    handles.pass(&trial, "at first").await?;
    let mut rounds = 0;
    for (seconds, awaited) in handles::spans(&trial) {
        let span = Duration::from_secs(*seconds);
        handles.idle(&trial, span, *awaited).await?;
        handles.pass(&trial, &format!("{span:?} later")).await?;
        rounds += 1;
    }
    Ok(Counts::new()
        .of("handles", handles.len(), 2)
        .of("times of rest", rounds, 2))
}

/// What one handle does, or suffers, is nothing to the others of the client.
async fn beside(trial: Trial) -> Judged {
    let mut handles = opened(&trial).await?;
    handles.pass(&trial, "at first").await?;
    let mut failures = 0;
    for turn in 0..5 {
        failures += fail_much(&trial, &handles.stage).await?;
        end_some(&trial, &handles.stage).await?;
        let when = format!("after failures, time {turn},");
        handles.pass(&trial, &when).await?;
    }
    Ok(Counts::new()
        .of("handles", handles.len(), 2)
        .of("calls that failed", failures, 20))
}

/// Calls that fail by themselves.
async fn fail_much(trial: &Trial, stage: &Stage) -> Judged<usize> {
    let (backend, topic) = (&stage.backend, &stage.topic);
    let nowhere = TopicName::new("nowhere-at-all")?;
    let forged = readings::forged(stage)?;
    let one = || -> Batch { [Record::new("never").key("never")].into_iter().collect() };
    let mut failed = 0;
    let mut count = |failure: bool| failed += usize::from(failure);
    count(backend.capabilities(&nowhere).await.is_err());
    count(backend.partitions(&nowhere).await.is_err());
    let options = annals_core::driver::AppendOptions::default();
    let never = one();
    let told = backend.append(&nowhere, &never, &options);
    count(trial.soon("a failure", told).await?.is_err());
    let after = Start::After(forged.clone());
    count(backend.locate(&stage.name, &after).await.is_err());
    count(topic.append(one()).if_end_at(&forged).await.is_err());
    count(topic.replay(&forged).await.is_err());
    let subscribing = topic.subscribe(GROUP).max_attempts(3);
    count(subscribing.await.is_err());
    if let Some(most) = stage
        .capabilities()
        .limits
        .record_bytes
        .known()
        .copied()
        .flatten()
        && let Ok(most) = usize::try_from(most)
        && most <= 4 << 20
    {
        let large: Batch = [Record::new(vec![b'x'; most + 1])].into_iter().collect();
        count(topic.append(large.clone()).await.is_err());
        let options = annals_core::driver::AppendOptions::default();
        count(backend.append(&stage.name, &large, &options).await.is_err());
    }
    if let Some(admin) = backend.admin() {
        count(admin.describe(&nowhere).await.is_err());
        count(admin.delete(&nowhere).await.is_err());
        count(admin.groups(&nowhere).await.is_err());
        let nobody = annals_core::Group::new("nobody")?;
        count(admin.delete_group(&stage.name, &nobody).await.is_err());
    }
    Ok(failed)
}

/// Handles that end beside those that stay.
async fn end_some(trial: &Trial, stage: &Stage) -> Judged<()> {
    let grace = Duration::from_secs(5);
    if Shape::of(stage.capabilities()) != Shape::Queue {
        let open = || stage.topic.follow(readings::first(stage));
        let mut read: Replay = open().await.during("following")?;
        let first = trial.soon("a record", read.next()).await?;
        drop(first.during("reading")?);
        drop(read);
        let closed = open().await.during("following")?.close(grace);
        trial
            .soon("the close of a follow", closed)
            .await?
            .during("closing a follow")?;
    }
    if workload::has_groups(stage) {
        let open = || stage.topic.subscribe(OTHER);
        let left = open().await.during("subscribing")?;
        let first = trial.soon("a delivery", left.next()).await?;
        if let Some(first) = first.during("receiving")? {
            Delivery::done(first);
        }
        let closed = trial.soon("the close of a membership", left.close(grace));
        closed.await?.during("closing a membership")?;
        drop(open().await.during("subscribing")?);
    }
    let appender = stage.topic.appender().await.during("an appender")?;
    let ticket = appender.submit(workload::record(90, 0, 1)).await;
    drop(ticket.during("submitting")?);
    appender.close(grace).await.during("closing an appender")
}

/// A reading that looks for what is not there says how far it has come.
async fn quiet(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let has = stage.capabilities().clone();
    let (mut moves, mut least) = (0, 0);
    let by_key = has.by_key.known().copied().unwrap_or(ByKey::None);
    if Shape::of(&has) != Shape::Queue && by_key != ByKey::None {
        let follow = stage.topic.follow(readings::first(&stage));
        let follow = match by_key {
            ByKey::Indexed => follow.key("nobody"),
            _ => follow.scan_key("nobody"),
        };
        let mut follow = follow.await.during("following a key")?;
        for round in 0..3 {
            let batch = workload::batch(1, round * 100, 40, 12);
            let appended = stage.topic.append(batch).await.during("appending")?;
            let places: Vec<_> = appended
                .records()
                .iter()
                .filter_map(|s| s.position)
                .collect();
            if !has.append.receipt.is(&Receipt::Position) || places.is_empty() {
                break;
            }
            least += 1;
            let covers = |cursor: &Cursor| places.iter().all(|p| cursor.covers(p) == Some(true));
            let moved = async {
                while !covers(follow.cursor()) {
                    match follow.next_signal().await.during("following a key")? {
                        Some(Signal::Record(record)) => {
                            let record = readings::print(&record);
                            return Err(Stop::broken(format!("of another key came {record}")));
                        }
                        Some(_) => {}
                        None => return Err(Stop::broken("a follow ended by itself")),
                    }
                }
                Ok(())
            };
            let told = tokio::time::timeout(trial.patience(), moved).await;
            told.map_err(|_| {
                Stop::broken(format!(
                    "a follow of a key that has no record does not say that it has passed {} others within {:?}",
                    places.len(),
                    trial.patience()
                ))
            })??;
            moves += 1;
        }
    }
    // Whoever cannot be read so says in time that there is nothing.
    let asked = trial.soon("a listing", stage.partitions()).await?;
    asked.during("listing")?;
    Ok(Counts::new()
        .of("progress told", moves, least)
        .of("answers", 1, 1))
}

async fn cut(trial: Trial) -> Judged {
    let mut handles = opened(&trial).await?;
    handles.pass(&trial, "at first").await?;
    let spans: &[u64] = match trial.harness().time() {
        Time::Virtual => &[300, 12_000, 45_000, 300_000],
        Time::Real => &[300, 3_000],
    };
    let mut met = 0;
    for (turn, span) in spans.iter().enumerate() {
        let span = Duration::from_millis(*span);
        handles.hold(&trial).await?;
        let before = trial.fired();
        trial.disturb(&handles.stage.name, Disturb::Cut).await?;
        handles.let_go();
        let ticket = handles.appender.submit(workload::record(80, turn, 1)).await;
        drop(ticket.during("submitting")?);
        let parting = handles.stage.topic.append(workload::batch(81, turn, 1, 1));
        let parting = parting.deadline(Duration::from_millis(100));
        drop(trial.soon("an append that is cut off", parting).await?);
        handles.idle(&trial, span, turn % 2 == 1).await?;
        met += usize::from(trial.fired() > before);
        trial.disturb(&handles.stage.name, Disturb::Heal).await?;
        let when = format!("after a cut of {span:?}");
        handles.pass(&trial, &when).await?;
    }
    Ok(Counts::new()
        .of("handles", handles.len(), 2)
        .of("cuts that met a call", met, spans.len()))
}

async fn failures(trial: Trial) -> Judged {
    let mut handles = opened(&trial).await?;
    handles.pass(&trial, "at first").await?;
    let wait = Duration::from_millis(50);
    let faults = [
        (Fault::Disconnect, 1),
        (Fault::Disconnect, 7),
        (Fault::Lose { done: true }, 1),
        (Fault::Lose { done: false }, 4),
        (Fault::Throttle(wait), 3),
        (Fault::Delay(wait), 3),
        (Fault::Refuse(vec![0]), 2),
    ];
    let before = trial.fired();
    for (turn, (fault, times)) in faults.iter().enumerate() {
        handles.hold(&trial).await?;
        for call in [Call::Append, Call::Fetch, Call::Lease, Call::Settle] {
            for _ in 0..*times {
                let fault = Disturb::Fault(call, fault.clone());
                trial.disturb(&handles.stage.name, fault).await?;
            }
        }
        handles.let_go();
        let parting = handles.stage.topic.append(workload::batch(81, turn, 3, 3));
        let parting = parting.deadline(Duration::from_secs(2));
        drop(trial.soon("an append that fails", parting).await?);
        handles
            .idle(&trial, Duration::from_secs(1), turn % 2 == 0)
            .await?;
        trial.disturb(&handles.stage.name, Disturb::Heal).await?;
        let when = format!("after {fault:?} of every call");
        handles.pass(&trial, &when).await?;
    }
    Ok(Counts::new().of("handles", handles.len(), 2).of(
        "failures",
        trial.fired() - before,
        faults.len(),
    ))
}

/// The clients may be of no use any more; then they say so, and new ones go on.
async fn restarted(trial: Trial) -> Judged {
    let mut old = opened(&trial).await?;
    old.pass(&trial, "at first").await?;
    old.hold(&trial).await?;
    trial.disturb(&old.stage.name, Disturb::Restart).await?;
    let stage = trial.on(&old.stage.name).await?;
    let mut new = Handles::open(&trial, stage, OTHER, 20).await?;
    new.pass(&trial, "by a new client").await?;
    let marker = workload::batch(60, 0, 1, 1);
    let value = workload::value(60, 0);
    new.stage.topic.append(marker).await.during("appending")?;
    old.pass_or_told(&trial, &value).await?;
    new.pass(&trial, "by a new client, again,").await?;
    Ok(Counts::new().of("handles", old.len() + new.len(), 4))
}

/// Nobody is there any more to whom the old handles could say something; what they held is free
/// once their time is over.
async fn killed(trial: Trial) -> Judged {
    let mut old = opened(&trial).await?;
    old.pass(&trial, "at first").await?;
    old.hold(&trial).await?;
    let name = old.stage.name.clone();
    let handles = old.len();
    trial.disturb(&name, Disturb::Kill).await?;
    drop(old);
    let mut passed = 0;
    for (writer, group) in [(20, OTHER), (30, GROUP)] {
        let stage = trial.on(&name).await?;
        let mut new = Handles::open(&trial, stage, group, writer).await?;
        for _ in 0..2 {
            new.pass(&trial, "after a kill").await?;
        }
        passed += new.len();
    }
    Ok(Counts::new().of("handles", handles + passed, 6))
}
