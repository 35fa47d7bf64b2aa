//! *Cancelled*: a call that is dropped takes nothing with it.

mod commits;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use annals_core::driver::{
    AppendOptions, Holder, Inbound, Room, Settled, Settler, Settling, Stop as Bound,
    SubscribeOptions, Token, Verdict,
};
use annals_core::{Delivery, Group, Until};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::polls::{Drops, polled};
use crate::workload::readings::{self, ROOMS};

const GROUP: &str = "cancelled";
const RECORDS: usize = 40;
/// For how long a delivery is lent that a dropped fetch has taken.
const HOLD: Duration = Duration::from_secs(5);
/// More turns than any workload here takes.
const TURNS: usize = 20_000;
/// More dropped calls than a client has permits.
const MANY: usize = 150;

pub(crate) fn law() -> Law {
    Law::new(
        "cancelled",
        "dropped at any poll a fetch loses nothing (or it returns within the hold), an append is unknown, and the handle works",
        ANY,
    )
    .case("fetches", |trial| fetches(trial, None))
    .case("deliveries", |trial| deliveries(trial, None))
    .case("appends", |trial| appends(trial, None))
    .case("what opens and asks", |trial| opens(trial, None))
    .case("commits", |trial| commits::commits(trial, None))
    .fault("fetches that take long", |trial| {
        fetches(trial, Some(Duration::from_millis(2)))
    })
    .fault("deliveries that take long", |trial| {
        deliveries(trial, Some(Duration::from_millis(2)))
    })
    .fault("appends that take long", |trial| {
        appends(trial, Some(Duration::from_millis(2)))
    })
    .fault("what takes long to open", |trial| {
        opens(trial, Some(Duration::from_millis(2)))
    })
    .fault("commits that take long", |trial| {
        commits::commits(trial, Some(Duration::from_millis(2)))
    })
}

/// Answers take so long from now on.
async fn slow(trial: &Trial, stage: &Stage, delay: Option<Duration>) -> Judged<()> {
    match delay {
        Some(delay) => trial.disturb(&stage.name, Disturb::Delay(delay)).await,
        None => Ok(()),
    }
}

/// Readings below core and through it, of which every call is dropped again and again.
async fn fetches(trial: Trial, delay: Option<Duration>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let offered = readings::append_varied(&stage, 1, 0, RECORDS).await?;
    let mut drops = Drops::default();
    if Shape::of(stage.capabilities()) == Shape::Queue {
        slow(&trial, &stage, delay).await?;
        return below(&trial, &stage, offered).await;
    }
    let expected = readings::parts(&stage.read_all().await?);
    let start = readings::first(&stage);
    let from = stage.backend.locate(&stage.name, &start).await;
    let from = from.during("looking for the start")?;
    slow(&trial, &stage, delay).await?;
    for rooms in ROOMS.iter().take(4) {
        let mut all = Vec::new();
        for mut raw in readings::raw_readers(&stage, &from, &Bound::End, None, rooms).await? {
            while !raw.over {
                raw.turn_dropped(&trial, &mut drops).await?;
            }
            all.append(&mut raw.records);
        }
        let what = format!("by fetches of {rooms:?} that were dropped");
        readings::same(&what, &readings::parts(&all), &expected)?;
    }
    for way in 0..3 {
        let open = stage.topic.replay(start.clone()).until(Until::End);
        let mut replay = open.buffer(64).await.during("opening a replay")?;
        let mut all = Vec::new();
        for turn in 0.. {
            ensure(turn < TURNS, || "a bounded reading does not end".into())?;
            let what = "a read after dropped ones";
            let over = match way {
                0 => {
                    let next = drops.turn(&trial, what, replay.next()).await?;
                    let next = next.transpose().during(what)?;
                    next.is_some_and(|next| next.map(|record| all.push(record)).is_none())
                }
                1 => {
                    let next = drops.turn(&trial, what, replay.next_batch()).await?;
                    let next = next.transpose().during(what)?;
                    next.is_some_and(|next| next.map(|records| all.extend(records)).is_none())
                }
                _ => {
                    let next = drops.turn(&trial, what, replay.next_signal()).await?;
                    let next = next.transpose().during(what)?;
                    if let Some(Some(annals_core::Signal::Record(record))) = next {
                        all.push(record);
                        continue;
                    }
                    next.is_some_and(|next| next.is_none())
                }
            };
            if over {
                break;
            }
        }
        let what = format!("by calls that were dropped, way {way}");
        readings::same(&what, &readings::parts(&all), &expected)?;
    }
    Ok(Counts::new()
        .of("records", offered.len(), RECORDS)
        .of("calls dropped", drops.dropped, 50)
        .of("dropped on the way", drops.begun, least(delay, 50)))
}

/// How many must have been dropped on the way: where answers take no time there may be none.
fn least(delay: Option<Duration>, many: usize) -> usize {
    if delay.is_some() { many } else { 0 }
}

/// A source below core, of which every fetch and settlement is dropped again and again.
async fn below(trial: &Trial, stage: &Stage, offered: Vec<String>) -> Judged {
    let mut drops = Drops::default();
    let group = Group::new(GROUP)?;
    let options = SubscribeOptions {
        start: None,
        member: Some("one".into()),
        in_flight: Room {
            records: 100,
            bytes: 1 << 20,
        },
        lease: HOLD,
        grace: HOLD,
    };
    let joining = stage.backend.subscribe(&stage.name, &group, &options);
    let joined = trial.soon("a membership", joining).await?;
    let Inbound {
        mut source,
        settling,
        ..
    } = joined.during("joining a group")?;
    let mut open: BTreeSet<String> = offered.iter().cloned().collect();
    let mut out = Vec::new();
    let limit = trial.patience() * 4;
    let started = tokio::time::Instant::now();
    let room = Room {
        records: 7,
        bytes: usize::MAX,
    };
    for turn in 0.. {
        if open.is_empty() {
            break;
        }
        ensure(turn < TURNS && started.elapsed() < limit, || {
            format!(
                "{} of {} records did not come within {limit:?} and a hold of {HOLD:?}, the first is {:?}",
                open.len(),
                offered.len(),
                open.first()
            )
        })?;
        let fetch = source.fetch(room, &mut out);
        let told = match drops.turn(trial, "a delivery", fetch).await {
            Ok(told) => told,
            Err(stop) => {
                return Err(Stop::broken(format!(
                    "{stop}: {} of {} records did not come within the hold and {:?}, the first is {:?}",
                    open.len(),
                    offered.len(),
                    trial.patience(),
                    open.first()
                )));
            }
        };
        told.transpose().during("a fetch after dropped ones")?;
        let mut tokens = Vec::new();
        for delivered in out.drain(..) {
            open.remove(&workload::text(&delivered.record));
            if let Holder::Token(token) = delivered.holder {
                tokens.push(token);
            }
        }
        if let Settling::Each(settler) = &settling {
            settle(trial, &**settler, &tokens, &mut drops).await?;
        }
    }
    let closing = source.close(Duration::from_secs(5));
    let closed = trial.soon("the close of a source", closing).await?;
    closed.during("closing a source")?;
    Ok(Counts::new()
        .of("records", offered.len(), RECORDS)
        .of("calls dropped", drops.dropped, 10))
}

/// Settles, in a call that is dropped until one has an answer.
async fn settle(
    trial: &Trial,
    settler: &dyn Settler,
    tokens: &[Token],
    drops: &mut Drops,
) -> Judged<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let done: Vec<_> = tokens.iter().map(|token| (*token, Verdict::Done)).collect();
    for _ in 0..TURNS {
        let call = settler.settle(&done);
        let Some(told) = drops.turn(trial, "a settlement", call).await? else {
            continue;
        };
        let told = told.during("a settlement after dropped ones")?;
        let failed = told
            .iter()
            .find(|settled| !matches!(settled, Settled::Yes | Settled::Expired));
        return ensure(failed.is_none(), || {
            format!("a settlement after dropped ones ends as {failed:?}")
        });
    }
    Err(Stop::broken("a settlement never has an answer"))
}

/// A membership of which every `next` and every waiting settlement is dropped again and again.
async fn deliveries(trial: Trial, delay: Option<Duration>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let offered = readings::append_varied(&stage, 1, 0, RECORDS).await?;
    if !workload::has_groups(&stage) {
        // There is nothing to be dropped; what is read is dropped in other cases.
        return Ok(Counts::new().of("records", offered.len(), RECORDS));
    }
    slow(&trial, &stage, delay).await?;
    let mut drops = Drops::default();
    let mut subscription = None;
    for _ in 0..TURNS {
        let open = stage
            .topic
            .subscribe(GROUP)
            .lease(HOLD)
            .in_flight(5, 1 << 20);
        if let Some(told) = drops.turn(&trial, "a subscription", open).await? {
            subscription = Some(told.during("subscribing after dropped ones")?);
            break;
        }
    }
    let Some(subscription) = subscription else {
        return Err(Stop::broken("a subscription is never open"));
    };
    let mut open: BTreeSet<String> = offered.iter().cloned().collect();
    let mut waits = Drops::default();
    for turn in 0.. {
        if open.is_empty() {
            break;
        }
        ensure(turn < TURNS, || {
            format!("{} records are never delivered", open.len())
        })?;
        let next = drops.turn(&trial, "a delivery", subscription.next()).await;
        let next = next.map_err(|stop| {
            Stop::broken(format!(
                "{stop}: {} of {} records did not come, the first is {:?}",
                open.len(),
                offered.len(),
                open.first()
            ))
        })?;
        let Some(next) = next else { continue };
        let Some(delivery) = next.during("receiving after dropped calls")? else {
            return Err(Stop::broken("a subscription ended by itself"));
        };
        open.remove(&workload::text(&delivery));
        if turn % 2 == 0 {
            Delivery::done(delivery);
            continue;
        }
        // From the first poll on it is settled; not polled at all it was only dropped.
        let settled = polled(&trial, "a settlement", 1, delivery.done_and_wait());
        waits.dropped += usize::from(settled.await?.is_none());
    }
    let flush = trial.soon("a flush after dropped calls", subscription.flush());
    flush.await?.during("a flush after dropped calls")?;
    let closing = subscription.close(Duration::from_secs(10));
    let closed = trial.soon("a close after dropped calls", closing).await?;
    closed.during("a close after dropped calls")?;
    Ok(Counts::new()
        .of("records", offered.len(), RECORDS)
        .of("calls dropped", drops.dropped, RECORDS)
        .of("settlements dropped", waits.dropped, 1))
}

/// What became of the values of appends.
#[derive(Default)]
struct Offers {
    /// Acknowledged.
    stored: Vec<String>,
    /// Dropped on the way.
    unknown: Vec<String>,
    /// Dropped before the first poll.
    never: Vec<String>,
}

async fn appends(trial: Trial, delay: Option<Duration>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    slow(&trial, &stage, delay).await?;
    let mut offers = Offers::default();
    let (mut drops, mut raw_drops) = (Drops::default(), Drops::default());
    for turn in 0..60 {
        let batch = workload::batch(1, turn * 3, 3, 5);
        let values = workload::offered(&batch);
        let begun = drops.begun + raw_drops.begun;
        let ready = if turn % 2 == 0 {
            let told = drops
                .turn(&trial, "an append", stage.topic.append(batch))
                .await?;
            told.map(|told| told.map(drop).during("appending after dropped calls"))
        } else {
            let options = AppendOptions::default();
            let call = stage.backend.append(&stage.name, &batch, &options);
            let told = raw_drops.turn(&trial, "an append below core", call).await?;
            // One attempt may leave some to core.
            told.map(|told| {
                let outcomes = told.during("an append below core")?.into_outcomes();
                let all = outcomes.iter().all(|outcome| outcome.stored().is_some());
                offers
                    .unknown
                    .extend(values.iter().filter(|_| !all).cloned());
                ensure(!outcomes.is_empty(), || "an append has no outcome".into())
            })
        };
        match ready {
            Some(told) => {
                told?;
                if !offers.unknown.ends_with(&values) {
                    offers.stored.extend(values);
                }
            }
            None if drops.begun + raw_drops.begun > begun => offers.unknown.extend(values),
            None => offers.never.extend(values),
        }
        if turn % 10 == 9 {
            works(&trial, &stage, turn, &mut offers).await?;
        }
    }
    at_once(&trial, &stage, &mut offers).await?;
    by_appender(&trial, &stage, &mut offers).await?;
    works(&trial, &stage, 1_000, &mut offers).await?;
    let seen = seen(&trial, &stage, &offers).await?;
    Ok(Counts::new()
        .of("appends dropped", drops.dropped + raw_drops.dropped, 20)
        .of(
            "dropped on the way",
            drops.begun + raw_drops.begun,
            least(delay, 10),
        )
        .of("records seen", seen, offers.stored.len())
        .of("records acknowledged", offers.stored.len(), 30))
}

/// An append with the keys of those that were dropped.
async fn works(trial: &Trial, stage: &Stage, turn: usize, offers: &mut Offers) -> Judged<()> {
    let batch = workload::batch(2, turn * 10, 5, 5);
    let values = workload::offered(&batch);
    let append = trial.soon("an append after dropped ones", stage.topic.append(batch));
    append.await?.during("an append after dropped ones")?;
    offers.stored.extend(values);
    Ok(())
}

/// More appends under way at once than there are permits, all dropped.
async fn at_once(trial: &Trial, stage: &Stage, offers: &mut Offers) -> Judged<()> {
    for (writer, together) in [(3, 1), (4, 50)] {
        for round in 0..MANY / together {
            let mut parting: Vec<Pin<Box<_>>> = Vec::new();
            for number in 0..together {
                let batch = workload::batch(writer, round * together + number, 1, 0);
                offers.unknown.extend(workload::offered(&batch));
                parting.push(Box::pin(stage.topic.append(batch)));
            }
            std::future::poll_fn(|cx| {
                for append in &mut parting {
                    let _ = append.as_mut().poll(cx);
                }
                Poll::Ready(())
            })
            .await;
        }
        works(trial, stage, 100 * writer as usize, offers).await?;
    }
    Ok(())
}

/// An appender of which calls are dropped that wait for room.
async fn by_appender(trial: &Trial, stage: &Stage, offers: &mut Offers) -> Judged<()> {
    let appender = stage.topic.appender().bytes_in_flight(8 << 10);
    let appender = appender.await.during("opening an appender")?;
    let mut drops = Drops::default();
    for number in 0..30 {
        let record = workload::record(5, number, 3);
        let value = workload::value(5, number);
        let begun = drops.begun;
        let call = appender.append(record);
        match drops.turn(trial, "an append by an appender", call).await? {
            Some(told) => {
                told.during("an append by an appender")?;
                offers.stored.push(value);
            }
            None if drops.begun > begun => offers.unknown.push(value),
            None => offers.never.push(value),
        }
        let call = appender.reserve(4 << 10);
        let room = drops.turn(trial, "room in an appender", call).await?;
        room.transpose().during("reserving")?;
    }
    let flush = trial.soon("a flush after dropped calls", appender.flush());
    flush.await?.during("a flush after dropped calls")?;
    let room = trial.soon("room after dropped calls", appender.reserve(7 << 10));
    drop(room.await?.during("room after dropped calls")?);
    let closed = trial.soon("a close", appender.close(HOLD)).await?;
    closed.during("closing an appender")
}

/// What was acknowledged is there, what was never begun is not, and nothing is there twice.
async fn seen(trial: &Trial, stage: &Stage, offers: &Offers) -> Judged<usize> {
    let queue = Shape::of(stage.capabilities()) == Shape::Queue;
    let seen = if queue {
        workload::delivered(trial, stage, GROUP, &offers.stored).await?
    } else {
        stage.read_all().await?
    };
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for value in workload::texts(&seen) {
        *times.entry(value).or_default() += 1;
    }
    let lost = offers.stored.iter().find(|v| !times.contains_key(*v));
    ensure(lost.is_none(), || {
        format!("beside dropped appends {lost:?} was acknowledged and is not there")
    })?;
    let begun = offers.never.iter().find(|v| times.contains_key(*v));
    ensure(begun.is_none(), || {
        format!("{begun:?} is there, the append of which was dropped before its first poll")
    })?;
    let dropped: BTreeSet<&String> = offers.unknown.iter().collect();
    let twice = times
        .iter()
        .find(|(value, times)| **times > 1 && !queue && dropped.contains(value));
    ensure(twice.is_none(), || {
        format!("of a dropped append there is more than it held: {twice:?}")
    })?;
    Ok(seen.len())
}

/// Dropped again and again: what opens something, and what only asks.
async fn opens(trial: Trial, delay: Option<Duration>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let batch = workload::batch(1, 0, RECORDS, 7);
    stage.topic.append(batch).await.during("appending")?;
    slow(&trial, &stage, delay).await?;
    let mut drops = [Drops::default(); 5];
    let [open_drops, place_drops, list_drops, ask_drops, topic_drops] = &mut drops;
    let (mut opened, mut asked) = (0, 0);
    let replayed = Shape::of(stage.capabilities()) != Shape::Queue;
    for _ in 0..MANY {
        if replayed {
            let open = stage.topic.replay(readings::first(&stage));
            if let Some(told) = open_drops.turn(&trial, "an open", open).await? {
                told.during("opening after dropped calls")?;
                opened += 1;
            }
            let start = readings::first(&stage);
            let call = stage.backend.locate(&stage.name, &start);
            let told = place_drops.turn(&trial, "a place", call).await?;
            told.transpose().during("asking for a place")?;
        }
        let call = stage.backend.partitions(&stage.name);
        if let Some(told) = list_drops.turn(&trial, "a listing", call).await? {
            told.during("listing after dropped calls")?;
            asked += 1;
        }
        let call = stage.backend.capabilities(&stage.name);
        let told = ask_drops
            .turn(&trial, "asking what is promised", call)
            .await?;
        told.transpose().during("asking what is promised")?;
        let call = stage.bus.topic(stage.name.as_str());
        let told = topic_drops.turn(&trial, "opening the topic", call).await?;
        told.transpose().during("opening the topic")?;
    }
    // And once each to its end.
    if replayed {
        let open = stage.topic.replay(readings::first(&stage));
        let told = trial.soon("an open after dropped ones", open).await?;
        told.during("an open after dropped ones")?;
    }
    let listing = stage.backend.partitions(&stage.name);
    let told = trial.soon("a listing after dropped ones", listing).await?;
    told.during("a listing after dropped ones")?;
    let asking = stage.backend.capabilities(&stage.name);
    let told = trial.soon("asking after dropped calls", asking).await?;
    told.during("asking after dropped calls")?;
    let begun = drops.iter().map(|d| d.begun).sum();
    Ok(Counts::new()
        .of("calls dropped", drops.iter().map(|d| d.dropped).sum(), 20)
        .of("dropped on the way", begun, least(delay, 10))
        .of("opened and asked", opened + asked, 1))
}
