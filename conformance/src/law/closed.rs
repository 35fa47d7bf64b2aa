//! *Closed*: an end in time, outcomes for what was accepted, and nothing afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use annals_core::driver::{
    AppendOptions, Backend, Budget, Fetched, ReadRange, Reader, Room, Stop as Bound,
};
use annals_core::{
    Append, AppendError, Appended, Delivery, Effect, Error, ErrorKind, Group, Outcome, Replay,
    Result, TopicName,
};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings;

const GROUP: &str = "closed";
const OTHER: &str = "other";
/// How long a close may take.
const GRACE: Duration = Duration::from_secs(3);
/// What it may take more, to say so.
const MARGIN: Duration = Duration::from_secs(1);

pub(crate) fn law() -> Law {
    Law::new(
        "closed",
        "a close ends within its grace though cut off, accepted appends have outcomes, and afterwards all is Closed",
        ANY,
    )
    .case("in good order, under load", in_order)
    .case("with everything open", |trial| abrupt(trial, None))
    .case("a client that did nothing", at_rest)
    .fault("while cut off", |trial| abrupt(trial, Some(Disturb::Cut)))
    .fault("while no answer comes", |trial| {
        abrupt(trial, Some(Disturb::Delay(GRACE * 3)))
    })
}

/// What ends must end by then.
async fn in_time<T>(trial: &Trial, what: &str, call: impl Future<Output = T> + Send) -> Judged<T> {
    // By the clock that the backend goes by, and by the one that runs out for people.
    let clock = trial.clock();
    let told = clock.timeout(GRACE + MARGIN, call);
    let told = trial.soon(what, told).await?;
    told.ok_or_else(|| Stop::broken(format!("{what} did not end within its grace of {GRACE:?}")))
}

/// What was promised for the values of some appends.
#[derive(Debug, Default)]
struct Promises {
    stored: Vec<String>,
    refused: Vec<String>,
    appends: usize,
}

impl Promises {
    fn count(&mut self, values: Vec<String>, told: std::result::Result<Appended, AppendError>) {
        self.appends += 1;
        match told {
            Ok(_) => self.stored.extend(values),
            Err(error) => {
                for (value, outcome) in values.into_iter().zip(error.outcomes()) {
                    match outcome {
                        Outcome::Stored(_) => self.stored.push(value),
                        Outcome::Rejected(error) if error.effect() == Effect::None => {
                            self.refused.push(value);
                        }
                        Outcome::NotAttempted => self.refused.push(value),
                        Outcome::Rejected(_) | Outcome::Unknown(_) => {}
                    }
                }
            }
        }
    }

    /// By a new client.
    async fn hold(&self, trial: &Trial, name: &TopicName) -> Judged<usize> {
        let stage = trial.on(name).await?;
        let marker = workload::batch(98, 0, 1, 1);
        let append = trial.soon("an append by another client", stage.topic.append(marker));
        append.await?.during("an append by another client")?;
        let seen = if Shape::of(stage.capabilities()) == Shape::Queue {
            let mut awaited = self.stored.clone();
            awaited.push(workload::value(98, 0));
            workload::delivered(trial, &stage, OTHER, &awaited).await?
        } else {
            stage.read_all().await?
        };
        let seen: BTreeSet<String> = workload::texts(&seen).into_iter().collect();
        let lost = self.stored.iter().find(|value| !seen.contains(*value));
        ensure(lost.is_none(), || {
            format!("{lost:?} was acknowledged while its client was closed, and is not there")
        })?;
        let there = self.refused.iter().find(|value| seen.contains(*value));
        ensure(there.is_none(), || {
            format!("{there:?} was refused as the client was closed, and is there")
        })?;
        Ok(seen.len())
    }
}

/// Appends that are under way: each was polled once.
async fn under_way(stage: &Stage, writer: u32, many: usize) -> Vec<(Vec<String>, Append)> {
    let mut appends: Vec<_> = (0..many)
        .map(|number| {
            let batch = workload::batch(writer, number * 2, 2, 5);
            (workload::offered(&batch), stage.topic.append(batch))
        })
        .collect();
    let mut early = BTreeSet::new();
    std::future::poll_fn(|cx| {
        for (index, (_, append)) in appends.iter_mut().enumerate() {
            let polled = std::pin::Pin::new(append).poll(cx);
            if polled.is_ready() {
                early.insert(index);
            }
        }
        Poll::Ready(())
    })
    .await;
    // Those that are through have had their outcome.
    let mut index = 0;
    appends.retain(|_| {
        index += 1;
        !early.contains(&(index - 1))
    });
    appends
}

/// First what waits in handles, then the client: everything accepted is stored.
async fn in_order(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP, OTHER])?).await?;
    let (name, topic, backend) = (
        stage.name.clone(),
        stage.topic.clone(),
        Arc::clone(&stage.backend),
    );
    let appender = topic.appender().linger(Duration::from_secs(60)).await;
    let appender = appender.during("opening an appender")?;
    let mut promises = Promises::default();
    let mut tickets = Vec::new();
    for number in 0..50 {
        let ticket = appender.submit(workload::record(1, number, 7)).await;
        tickets.push(ticket.during("submitting")?);
        promises.stored.push(workload::value(1, number));
    }
    let mut subscription = None;
    if workload::has_groups(&stage) {
        let open = topic.subscribe(GROUP).await.during("subscribing")?;
        let batch = workload::batch(2, 0, 10, 3);
        promises.stored.extend(workload::offered(&batch));
        topic.append(batch).await.during("appending")?;
        let first = trial.soon("a delivery", open.next()).await?;
        if let Some(first) = first.during("receiving")? {
            Delivery::done(first);
        }
        subscription = Some(open);
    }
    let closed = in_time(&trial, "the close of an appender", appender.close(GRACE)).await?;
    closed.during("the close of an appender")?;
    let outcomes = tickets.len();
    for ticket in tickets {
        let told = trial
            .soon("the outcome of an accepted append", ticket)
            .await?;
        told.during("an append that was accepted before the close")?;
    }
    let after = appender.submit(workload::record(90, 0, 1)).await;
    is_closed("a submit to a closed appender", after.map(drop))?;
    if let Some(subscription) = subscription {
        let closing = subscription.close(GRACE);
        let closed = in_time(&trial, "the close of a membership", closing).await?;
        closed.during("the close of a membership")?;
    }
    let closed = in_time(&trial, "the close of a client", stage.bus.close(GRACE)).await?;
    closed.during("the close of a client")?;
    let calls = afterwards(&trial, &name, &topic, &backend).await?;
    let seen = promises.hold(&trial, &name).await?;
    Ok(Counts::new()
        .of("outcomes", outcomes, 50)
        .of("calls that were Closed", calls, 6)
        .of("records seen", seen, promises.stored.len()))
}

/// The client is closed below its handles, all of which are at work.
async fn abrupt(trial: Trial, fault: Option<Disturb>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP, OTHER])?).await?;
    let first = workload::batch(1, 0, 30, 7);
    let mut promises = Promises::default();
    promises.stored.extend(workload::offered(&first));
    stage.topic.append(first).await.during("appending")?;
    let (name, topic, backend) = (
        stage.name.clone(),
        stage.topic.clone(),
        Arc::clone(&stage.backend),
    );
    let mut follow = None;
    let mut readers = Vec::new();
    if Shape::of(stage.capabilities()) != Shape::Queue {
        let start = readings::first(&stage);
        let open = topic.follow(start.clone()).await;
        follow = Some(open.during("following")?);
        let at = backend.locate(&name, &start).await;
        let at = at.during("looking for the start")?;
        let listed = stage.partitions().await?;
        let each = readings::has_lineage(&stage);
        let parts = if each {
            listed.into_iter().map(|id| Some(vec![id])).collect()
        } else {
            vec![None]
        };
        for partitions in parts {
            let range = ReadRange {
                from: at.clone(),
                stop: Bound::Never,
                partitions,
                key: None,
                budget: Budget::new(1 << 20),
            };
            let opened = backend.read(&name, &range).await;
            readers.push(opened.during("opening a reader")?.reader);
        }
    }
    let mut subscription = None;
    let mut in_hand = None;
    if workload::has_groups(&stage) {
        let open = topic.subscribe(GROUP).await.during("subscribing")?;
        let next = trial.soon("a delivery", open.next()).await?;
        in_hand = next.during("receiving")?;
        subscription = Some(open);
    }
    let appender = topic.appender().linger(Duration::from_secs(1)).await;
    let appender = appender.during("opening an appender")?;
    let before = trial.fired();
    let faulty = fault.is_some();
    if let Some(fault) = fault {
        trial.disturb(&name, fault).await?;
    }
    let mut appends = under_way(&stage, 3, 20).await;
    let ticket = appender.submit(workload::record(4, 0, 1)).await;
    let ticket = ticket.during("submitting")?;
    let closed = in_time(&trial, "the close of a client", backend.close(GRACE)).await?;
    if let Err(error) = closed
        && !(faulty && error.kind() == ErrorKind::Timeout)
    {
        return Err(error).during("the close of a client");
    }
    let again = in_time(&trial, "the second close of a client", backend.close(GRACE)).await?;
    again.during("the second close of a client")?;
    // What was accepted has an outcome, though it may wait out its tries.
    let long = trial.patience() * 3;
    for (values, append) in appends.drain(..) {
        let told = trial.clock().timeout(long, append).await;
        let told = told.ok_or_else(|| {
            Stop::broken(format!(
                "of {values:?}, accepted before a close, nothing is told"
            ))
        })?;
        promises.count(values, told);
    }
    let told = trial.clock().timeout(long, ticket).await;
    ensure(told.is_some(), || {
        "of a record accepted by an appender before a close nothing is told".into()
    })?;
    in_time(&trial, "the close of an appender", appender.close(GRACE))
        .await?
        .unwrap_or_default();
    let fired = trial.fired() - before;
    trial
        .disturb(&name, Disturb::Heal)
        .await
        .or_else(|stop| match stop {
            Stop::NotExercised(_) if !faulty => Ok(()),
            stop => Err(stop),
        })?;
    if let Some(mut follow) = follow {
        let mut answers = 0;
        while !has_ended(&trial, "a follow of a closed client", over(&mut follow)).await? {
            answers += 1;
            ensure(answers < ANSWERS, || {
                "a follow of a closed client goes on".into()
            })?;
        }
    }
    for mut reader in readers {
        let mut answers = 0;
        let what = "a reader of a closed client";
        while !has_ended(&trial, what, read_over(&mut *reader)).await? {
            answers += 1;
            ensure(answers < ANSWERS, || {
                "a reader of a closed client goes on".into()
            })?;
        }
    }
    drop(in_hand);
    if let Some(subscription) = subscription {
        let closing = subscription.close(GRACE);
        drop(in_time(&trial, "the close of a membership", closing).await?);
    }
    let calls = afterwards(&trial, &name, &topic, &backend).await?;
    let seen = promises.hold(&trial, &name).await?;
    Ok(Counts::new()
        .of("appends under way at the close", promises.appends, 0)
        .of("calls that were Closed", calls, 6)
        .of("failures", fired, usize::from(faulty))
        .of("records seen", seen, promises.stored.len()))
}

/// A client that is closed at once, and one that is closed twice at the same time.
async fn at_rest(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP, OTHER])?).await?;
    let other = trial.on(&stage.name).await?;
    let mut calls = 0;
    for grace in [Duration::ZERO, GRACE] {
        let client = trial.on(&stage.name).await?;
        let (one, two) = (Arc::clone(&client.backend), Arc::clone(&client.backend));
        let first = tokio::spawn(async move { one.close(grace).await });
        let second = in_time(&trial, "one of two closes", two.close(grace)).await?;
        let first = in_time(&trial, "the other of two closes", first).await?;
        let first = first.map_err(|error| Stop::broken(format!("a close panicked: {error}")))?;
        for told in [first, second] {
            // Whoever gives no time may be told that it was too short.
            let short = |error: &Error| grace.is_zero() && error.kind() == ErrorKind::Timeout;
            if let Err(error) = told
                && !short(&error)
            {
                return Err(error).during("closing a client at rest");
            }
        }
        calls += afterwards(&trial, &client.name, &client.topic, &client.backend).await?;
    }
    // Others are other clients.
    let batch = workload::batch(1, 0, 5, 5);
    let append = trial.soon("an append by another client", other.topic.append(batch));
    append.await?.during("an append by another client")?;
    let promises = Promises {
        stored: (0..5).map(|number| workload::value(1, number)).collect(),
        ..Promises::default()
    };
    let seen = promises.hold(&trial, &stage.name).await?;
    Ok(Counts::new()
        .of("calls that were Closed", calls, 12)
        .of("records seen", seen, 5))
}

async fn over(follow: &mut Replay) -> Result<bool> {
    Ok(follow.next().await?.is_none())
}

async fn read_over(reader: &mut dyn Reader) -> Result<bool> {
    let room = Room {
        records: 100,
        bytes: 1 << 20,
    };
    Ok(reader.fetch(room, &mut Vec::new()).await? == Fetched::End)
}

/// So many answers of what is still open are more than it can have.
const ANSWERS: usize = 2_000;

/// What is still open gives what it has, and ends: whether it has, by its next answer.
async fn has_ended(
    trial: &Trial,
    what: &str,
    next: impl Future<Output = Result<bool>> + Send,
) -> Judged<bool> {
    match trial.soon(what, next).await? {
        Ok(over) => Ok(over),
        Err(error) if error.is_retryable() || error.kind() == ErrorKind::Gap => Ok(false),
        Err(error) => is_closed(what, Err(error)).map(|()| true),
    }
}

fn is_closed(what: &str, told: Result<()>) -> Judged<()> {
    match told {
        Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
        Err(error) => Err(Stop::broken(format!("{what} is not Closed but: {error:?}"))),
        Ok(()) => Err(Stop::broken(format!("{what} is not Closed, it works"))),
    }
}

/// Every call of a closed client, but those that it never offered; how many were `Closed`.
async fn afterwards(
    trial: &Trial,
    name: &TopicName,
    topic: &annals_core::Topic,
    backend: &Arc<dyn Backend>,
) -> Judged<usize> {
    let mut closed = 0;
    let mut check = |what: &str, told: Result<()>| {
        if told
            .as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::Unsupported)
        {
            return Ok(());
        }
        closed += 1;
        is_closed(&format!("{what} after the close"), told)
    };
    let record = || workload::batch(99, 0, 1, 1);
    let options = AppendOptions::default();
    let told = trial
        .soon("an append after the close", topic.append(record()))
        .await?;
    check("an append", told.map(drop).map_err(Error::from))?;
    let batch = record();
    let call = backend.append(name, &batch, &options);
    let told = trial.soon("an append after the close", call).await?;
    check("an append below core", unless_refused(told))?;
    let told = trial
        .soon("asking after the close", backend.capabilities(name))
        .await?;
    check("asking what is promised", told.map(drop))?;
    let told = trial
        .soon("a listing after the close", backend.partitions(name))
        .await?;
    check("a listing", told.map(drop))?;
    for start in [annals_core::Start::Beginning, annals_core::Start::Latest] {
        let call = backend.locate(name, &start);
        let told = trial.soon("a place after the close", call).await?;
        check("a place", told.map(drop))?;
        let told = trial
            .soon("a replay after the close", topic.replay(start))
            .await?;
        check("a replay", told.map(drop))?;
    }
    let open = topic.subscribe(GROUP);
    let told = trial.soon("a membership after the close", open).await?;
    check("a membership", told.map(drop))?;
    let group = Group::new(GROUP)?;
    if let Some(leases) = backend.leases(name) {
        let told = trial
            .soon("a table after the close", leases.load(&group))
            .await?;
        check("a group's table", told.map(drop))?;
        let founded = Group::new("founded")?;
        let told = trial
            .soon("a table after the close", leases.found(&founded, &[]))
            .await?;
        check("a new group's table", told.map(drop))?;
    }
    if let Some(admin) = backend.admin() {
        let told = trial.soon("a list after the close", admin.topics()).await?;
        check("the list of topics", told.map(drop))?;
        let told = trial
            .soon("a description after the close", admin.describe(name))
            .await?;
        check("a description", told.map(drop))?;
        let told = trial
            .soon("groups after the close", admin.groups(name))
            .await?;
        check("the list of groups", told.map(drop))?;
        let made = Group::new("made")?;
        let call = admin.create_group(name, &made, None);
        let told = trial.soon("a new group after the close", call).await?;
        check("a new group", told.map(drop))?;
        let told = trial
            .soon("a deletion after the close", admin.delete(name))
            .await?;
        check("a deletion", told)?;
    }
    Ok(closed)
}

/// An attempt whose records were all refused for the same reason is as one that failed.
fn unless_refused(told: Result<annals_core::AppendReport>) -> Result<()> {
    match told?.outcomes().first() {
        Some(Outcome::Rejected(error)) => Err(error.clone()),
        _ => Ok(()),
    }
}
