//! *Bounded*: nothing is pulled ahead of its reader beyond what the reader allowed.

use std::time::Duration;

use annals_core::driver::{Budget, Fetched, ReadRange, Reader, Room, Stop as Bound};
use annals_core::{Batch, Cursor, Delivery, ErrorKind, Record, Recorded, Rest, Subscription};

use super::{ANY, Law, Shape};
use crate::harness::{Call, Disturb, Fault, Meter, Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings;

const GROUP: &str = "bounded";
/// Bytes of each value.
const VALUE: usize = 200;
const RECORDS: usize = 600;
const KEYS: usize = 97;

pub(crate) fn law() -> Law {
    Law::new(
        "bounded",
        "no more is pulled ahead of what was handed out than the reader's option and the declared slack",
        ANY,
    )
    .case("a fetch fits its room", rooms)
    .case("what is in flight", in_flight)
    .case("while a reader sleeps", |trial| asleep(trial, false))
    .case("while a reader below core sleeps", raw_asleep)
    .case("while a member sleeps", |trial| member_asleep(trial, false))
    .fault("while a reader sleeps and reading fails", |trial| {
        asleep(trial, true)
    })
    .fault("while a member sleeps and receiving fails", |trial| {
        member_asleep(trial, true)
    })
}

/// More than any bound here, over many keys.
async fn fill(stage: &Stage) -> Judged<usize> {
    let mut batch = Vec::new();
    for number in 0..RECORDS {
        let mut value = workload::value(1, number);
        value.push_str(&"x".repeat(VALUE - value.len()));
        batch.push(Record::new(value).key(format!("k{}", number % KEYS)));
    }
    let batch: Batch = batch.into_iter().collect();
    let bytes = batch.len_bytes();
    stage.topic.append(batch).await.during("appending")?;
    Ok(bytes)
}

/// What one record may have over what was allowed: the first always comes.
const ONE: usize = 2 * VALUE;

fn slack(stage: &Stage) -> usize {
    let slack = stage.capabilities().limits.slack_bytes;
    usize::try_from(slack).unwrap_or(usize::MAX)
}

/// How long a reader sleeps, time after time.
async fn sleep(trial: &Trial, stage: &Stage) -> Judged<()> {
    let span = match trial.harness().time() {
        Time::Virtual => Duration::from_secs(20),
        Time::Real => Duration::from_millis(200),
    };
    trial.disturb(&stage.name, Disturb::Pass(span)).await
}

/// Compares what was pulled with what was handed out.
struct Gauge<'t> {
    trial: &'t Trial,
    before: u64,
    /// What may be pulled ahead.
    allowed: usize,
    handed: usize,
    looks: usize,
}

impl<'t> Gauge<'t> {
    async fn new(trial: &'t Trial, allowed: usize) -> Judged<Self> {
        Ok(Self {
            trial,
            before: trial.meter(Meter::BytesPulled).await?,
            allowed,
            handed: 0,
            looks: 0,
        })
    }

    fn hand(&mut self, record: &Recorded) {
        self.handed += record.len_bytes();
    }

    async fn look(&mut self, when: &str) -> Judged<()> {
        let pulled = self.trial.meter(Meter::BytesPulled).await? - self.before;
        let ahead = usize::try_from(pulled)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.handed);
        self.looks += 1;
        ensure(ahead <= self.allowed, || {
            format!(
                "{when} {pulled} bytes were pulled and {} handed out: {ahead} ahead, {} are allowed",
                self.handed, self.allowed
            )
        })
    }
}

/// Replays and follows with buffers of several sizes, whose reader takes a little and sleeps.
async fn asleep(trial: Trial, fails: bool) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let bytes = fill(&stage).await?;
    if Shape::of(stage.capabilities()) == Shape::Queue {
        return members_only(&trial, &stage).await;
    }
    let partitions = stage.partitions().await?.len().max(1);
    let (mut looks, mut handed, before) = (0, 0, trial.fired());
    for (buffer, follows) in [(1, false), (2_000, false), (2_000, true), (12_000, true)] {
        // Each partition's reader has its share, and one record at least.
        let mut allowed = buffer + slack(&stage) + partitions * ONE;
        let mut gauge = Gauge::new(&trial, allowed).await?;
        let start = readings::first(&stage);
        let open = if follows {
            stage.topic.follow(start)
        } else {
            stage.topic.replay(start)
        };
        let mut replay = open.buffer(buffer).await.during("opening a replay")?;
        gauge.look("at the open").await?;
        sleep(&trial, &stage).await?;
        gauge.look("before anything was asked for").await?;
        for turn in 0..8 {
            if fails && turn % 4 == 0 {
                for fault in [
                    Fault::Disconnect,
                    Fault::Throttle(Duration::from_millis(20)),
                ] {
                    let fault = Disturb::Fault(Call::Fetch, fault);
                    trial.disturb(&stage.name, fault).await?;
                }
                // Who connects again may read what it had once more.
                allowed += buffer + partitions * ONE;
                gauge.allowed = allowed;
            }
            for _ in 0..3 {
                let next = trial.soon("a record", replay.next()).await?;
                let record = next.during("reading")?;
                let record = record.ok_or_else(|| Stop::broken("a reading ends too early"))?;
                gauge.hand(&record);
            }
            gauge.look("behind a record").await?;
            if turn % 4 == 3 {
                sleep(&trial, &stage).await?;
                gauge.look("while its reader slept").await?;
            }
        }
        let batch = trial.soon("a batch", replay.next_batch()).await?;
        for record in batch.during("reading a batch")?.into_iter().flatten() {
            gauge.hand(&record);
        }
        sleep(&trial, &stage).await?;
        gauge.look("behind a batch").await?;
        ensure(bytes > gauge.allowed + gauge.handed, || {
            "the workload is smaller than what is allowed".into()
        })?;
        trial.disturb(&stage.name, Disturb::Heal).await?;
        looks += gauge.looks;
        handed += gauge.handed;
    }
    // Side by side each has its own bound, and together they have no more.
    let buffer = 2_000;
    let mut gauge = Gauge::new(&trial, 5 * (buffer + slack(&stage) + partitions * ONE)).await?;
    let mut all = Vec::new();
    for _ in 0..5 {
        let open = stage.topic.follow(readings::first(&stage)).buffer(buffer);
        let mut replay = open.await.during("opening a replay")?;
        let next = trial.soon("a record", replay.next()).await?;
        if let Some(record) = next.during("reading")? {
            gauge.hand(&record);
        }
        all.push(replay);
    }
    sleep(&trial, &stage).await?;
    gauge.look("with five readers asleep").await?;
    let least = if fails { 6 } else { 0 };
    Ok(Counts::new()
        .of("looks at the meter", looks, 20)
        .of("bytes handed out", handed, 1_000)
        .of("failures", trial.fired() - before, least))
}

/// Where nothing is replayed the cases of members say all.
async fn members_only(trial: &Trial, stage: &Stage) -> Judged {
    let gauge = Gauge::new(trial, 0).await;
    sleep(trial, stage).await?;
    let mut gauge = gauge?;
    gauge.look("while nobody read").await?;
    Ok(Counts::new().of("looks at the meter", gauge.looks, 1))
}

/// The ranges that core would read, from the start and without an end.
async fn ranges(stage: &Stage, budget: &Budget) -> Judged<Vec<ReadRange>> {
    let start = readings::first(stage);
    let from = stage.backend.locate(&stage.name, &start).await;
    let from = from.during("looking for the start")?;
    let range = |from: Cursor, partitions| ReadRange {
        from,
        stop: Bound::Never,
        partitions,
        key: None,
        budget: budget.clone(),
    };
    if !readings::has_lineage(stage) {
        return Ok(vec![range(from, None)]);
    }
    let listed = stage.partitions().await?;
    let ranges = listed.into_iter().map(|id| {
        let at = from.frontier(id).copied();
        let at = at.unwrap_or(annals_core::Frontier::START);
        let from = Cursor::new(from.origin().clone(), [(id, at)], Rest::Outside);
        range(from, Some(vec![id]))
    });
    Ok(ranges.collect())
}

/// One fetch; failures that heal are tried again.
async fn fetch(
    trial: &Trial,
    reader: &mut dyn Reader,
    room: Room,
    out: &mut Vec<Recorded>,
) -> Judged<Fetched> {
    for _ in 0..50 {
        match trial.soon("a fetch", reader.fetch(room, out)).await? {
            Err(error) if error.is_retryable() => {}
            told => return told.during("a fetch"),
        }
    }
    Err(Stop::broken("a fetch fails again and again"))
}

/// Readers below core, with rooms and budgets of several sizes.
async fn raw_asleep(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let bytes = fill(&stage).await?;
    if Shape::of(stage.capabilities()) == Shape::Queue {
        return members_only(&trial, &stage).await;
    }
    let (mut looks, mut handed) = (0, 0);
    for (budget, room) in [
        (2_000, readings::room(1, usize::MAX)),
        (2_000, readings::room(usize::MAX, 1_000)),
        (10_000, readings::room(5, 10_000)),
    ] {
        let ranges = ranges(&stage, &Budget::new(budget)).await?;
        let allowed = budget + slack(&stage) + ranges.len() * ONE;
        let mut gauge = Gauge::new(&trial, allowed).await?;
        let mut readers = Vec::new();
        for range in &ranges {
            let opened = stage.backend.read(&stage.name, range).await;
            readers.push(opened.during("opening a reader")?.reader);
        }
        gauge.look("at the open").await?;
        sleep(&trial, &stage).await?;
        gauge.look("before anything was fetched").await?;
        let mut out = Vec::new();
        for turn in 0..6 {
            for reader in &mut readers {
                fetch(&trial, &mut **reader, room, &mut out).await?;
                out.drain(..).for_each(|record| gauge.hand(&record));
                gauge.look("behind a fetch").await?;
            }
            if turn % 3 == 2 {
                sleep(&trial, &stage).await?;
                gauge.look("while its reader slept").await?;
            }
        }
        ensure(bytes > gauge.allowed + gauge.handed, || {
            "the workload is smaller than what is allowed".into()
        })?;
        looks += gauge.looks;
        handed += gauge.handed;
    }
    Ok(Counts::new()
        .of("looks at the meter", looks, 20)
        .of("bytes handed out", handed, 1_000))
}

/// What comes fits its room, but for one record that is larger.
async fn rooms(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    fill(&stage).await?;
    if Shape::of(stage.capabilities()) == Shape::Queue {
        return source_rooms(&trial, &stage).await;
    }
    let (mut fetches, mut records) = (0, 0);
    for room in ROOMS {
        for range in ranges(&stage, &Budget::new(1 << 20)).await? {
            let opened = stage.backend.read(&stage.name, &range).await;
            let mut reader = opened.during("opening a reader")?.reader;
            for _ in 0..20 {
                let mut out = Vec::new();
                fetch(&trial, &mut *reader, room, &mut out).await?;
                fits(room, out.iter().map(Recorded::len_bytes))?;
                fetches += 1;
                records += out.len();
                if out.is_empty() {
                    break;
                }
            }
            // Without room nothing comes, whatever is there.
            let mut out = Vec::new();
            let none = reader.fetch(Room::NONE, &mut out);
            let little = Duration::from_millis(1);
            drop(tokio::time::timeout(little, none).await);
            fits(Room::NONE, out.iter().map(Recorded::len_bytes))?;
        }
    }
    Ok(Counts::new()
        .of("fetches", fetches, 20)
        .of("records", records, 50))
}

const ROOMS: [Room; 6] = [
    readings::room(1, usize::MAX),
    readings::room(2, usize::MAX),
    readings::room(usize::MAX, 1),
    readings::room(usize::MAX, 700),
    readings::room(9, 1_500),
    readings::room(100, 20_000),
];

fn fits(room: Room, records: impl Iterator<Item = usize>) -> Judged<()> {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for len in records {
        count += 1;
        bytes += len;
    }
    let fits = count <= room.records && bytes <= room.bytes;
    ensure(fits || (count == 1 && !room.is_none()), || {
        format!("a fetch with room for {room:?} gives {count} records of {bytes} bytes")
    })
}

async fn source_rooms(trial: &Trial, stage: &Stage) -> Judged {
    let group = annals_core::Group::new(GROUP)?;
    let options = annals_core::driver::SubscribeOptions {
        start: None,
        member: Some("one".into()),
        in_flight: readings::room(1_000, 1 << 20),
        lease: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    };
    let joining = stage.backend.subscribe(&stage.name, &group, &options);
    let joined = trial.soon("a membership", joining).await?;
    let mut source = joined.during("joining a group")?.source;
    let (mut fetches, mut records) = (0, 0);
    for room in ROOMS {
        for _ in 0..3 {
            let mut out = Vec::new();
            let told = trial.soon("a fetch", source.fetch(room, &mut out)).await?;
            told.during("a fetch")?;
            fits(room, out.iter().map(|d| d.record.len_bytes()))?;
            fetches += 1;
            records += out.len();
        }
        let mut out = Vec::new();
        let none = source.fetch(Room::NONE, &mut out);
        drop(tokio::time::timeout(Duration::from_millis(1), none).await);
        fits(Room::NONE, out.iter().map(|d| d.record.len_bytes()))?;
    }
    Ok(Counts::new()
        .of("fetches", fetches, 18)
        .of("records", records, 18))
}

/// Takes deliveries until none comes for a while.
async fn take(subscription: &Subscription, in_hand: &mut Vec<Delivery>, most: usize) -> Judged<()> {
    while in_hand.len() < most {
        let next = tokio::time::timeout(Duration::from_millis(50), subscription.next());
        match next.await {
            Ok(Ok(Some(delivery))) => in_hand.push(delivery),
            Ok(Ok(None)) => return Err(Stop::broken("a subscription ended by itself")),
            Ok(Err(error)) if error.is_retryable() || error.kind() == ErrorKind::Gap => {}
            Ok(Err(error)) => return Err(error).during("receiving"),
            Err(_) => break,
        }
    }
    Ok(())
}

async fn first(
    trial: &Trial,
    subscription: &Subscription,
    in_hand: &mut Vec<Delivery>,
) -> Judged<()> {
    let first = trial.soon("a delivery", subscription.next()).await?;
    in_hand.extend(first.during("receiving")?);
    Ok(())
}

/// No more is out unsettled than was asked for, in records and in bytes.
async fn in_flight(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    fill(&stage).await?;
    if !workload::has_groups(&stage) {
        return Ok(Counts::new().of("records", RECORDS, 1));
    }
    let mut looks = 0;
    for (records, bytes) in [(1, usize::MAX >> 8), (7, usize::MAX >> 8), (1_000, 1_500)] {
        let open = stage.topic.subscribe(GROUP).in_flight(records, bytes);
        let subscription = open.await.during("subscribing")?;
        let mut in_hand = Vec::new();
        first(&trial, &subscription, &mut in_hand).await?;
        for _ in 0..4 {
            take(&subscription, &mut in_hand, 1_200).await?;
            let of: Vec<usize> = in_hand.iter().map(|d| d.record().len_bytes()).collect();
            let sum: usize = of.iter().sum();
            ensure(
                of.len() <= records && (sum <= bytes || of.len() == 1),
                || {
                    format!(
                        "{} deliveries of {sum} bytes are in hand unsettled, {records} of {bytes} are allowed",
                        of.len()
                    )
                },
            )?;
            looks += 1;
            if let Some(delivery) = in_hand.pop() {
                Delivery::done(delivery);
            }
        }
        in_hand.clear();
        let closing = subscription.close(Duration::from_secs(5));
        let closed = trial.soon("a close", closing).await?;
        closed.during("closing")?;
    }
    Ok(Counts::new().of("times all that was allowed was in hand", looks, 12))
}

/// A member that takes a little and sleeps: what waits for it is bounded too.
async fn member_asleep(trial: Trial, fails: bool) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let bytes = fill(&stage).await?;
    if !workload::has_groups(&stage) {
        return members_only(&trial, &stage).await;
    }
    let partitions = stage.partitions().await?.len().max(1);
    let (flight, before) = (4_000, trial.fired());
    // In the ledger, and as much again in the readers below it.
    let allowed = 2 * flight + slack(&stage) + 2 * partitions * ONE;
    let mut gauge = Gauge::new(&trial, allowed).await?;
    let open = stage.topic.subscribe(GROUP).in_flight(1_000, flight);
    let subscription = open.await.during("subscribing")?;
    gauge.look("at the open").await?;
    sleep(&trial, &stage).await?;
    gauge.look("before anything was asked for").await?;
    let mut in_hand = Vec::new();
    let mut received = 0;
    for _ in 0..4 {
        if fails {
            for fault in [
                Fault::Disconnect,
                Fault::Throttle(Duration::from_millis(20)),
            ] {
                let fault = Disturb::Fault(Call::Fetch, fault);
                trial.disturb(&stage.name, fault).await?;
            }
            gauge.allowed += flight;
        }
        let had = in_hand.len();
        if had == 0 {
            first(&trial, &subscription, &mut in_hand).await?;
        }
        take(&subscription, &mut in_hand, 5).await?;
        for delivery in in_hand.iter().skip(had) {
            gauge.hand(delivery.record());
            received += 1;
        }
        gauge.look("behind some deliveries").await?;
        sleep(&trial, &stage).await?;
        gauge.look("while the member slept").await?;
        in_hand.drain(..).for_each(Delivery::done);
        sleep(&trial, &stage).await?;
        gauge.look("once all was settled").await?;
    }
    trial.disturb(&stage.name, Disturb::Heal).await?;
    ensure(bytes > gauge.allowed + gauge.handed, || {
        "the workload is smaller than what is allowed".into()
    })?;
    let least = if fails { 4 } else { 0 };
    Ok(Counts::new()
        .of("looks at the meter", gauge.looks, 10)
        .of("deliveries", received, 10)
        .of("failures", trial.fired() - before, least))
}
