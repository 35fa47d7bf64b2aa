//! Groups of the sharded model, through core's handles: leases among processes, lineage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and prints its seed"
)]

mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_conformance::models::sharded::{Sharded, State};
use annals_conformance::models::{Call, Fault};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Clock, Cursor, Error, ErrorKind, Frontier, Group,
    OpenSubscription, PartitionId, Rest, Result, Start, Subscription, Topic, TopicName, TopicSpec,
};
use async_trait::async_trait;
use groups::{
    Dice, LEASE, Lives, SOON, append, bus, clock, handle, is_quiet, next, numbered, text,
};

const SECOND: Duration = Duration::from_secs(1);

fn name() -> TopicName {
    TopicName::new("orders").unwrap()
}

/// A process with a client of its own.
struct Process {
    client: Sharded,
    topic: Topic,
}

impl Process {
    async fn new(state: &State, clock: &Clock) -> Self {
        let client = state.connect();
        let topic = bus(client.clone(), clock).topic("orders").await.unwrap();
        Self { client, topic }
    }

    fn join(&self) -> OpenSubscription {
        self.topic.subscribe("billing")
    }

    fn kill(&self) {
        self.client.connection().kill();
    }

    /// How many leases each holder has, the largest first.
    async fn shares(&self) -> Vec<usize> {
        let groups = self.topic.bus().admin().unwrap().groups(&name()).await;
        let mut shares: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for member in groups.unwrap().remove(0).members {
            *shares.entry(member).or_default() += 1;
        }
        let mut shares: Vec<usize> = shares.into_values().collect();
        shares.sort_unstable_by(|a, b| b.cmp(a));
        shares
    }
}

async fn world(shards: u32) -> (State, Clock, Process) {
    let clock = clock();
    let state = State::new(clock.clone());
    let spec = TopicSpec {
        partitions: Some(shards),
        ..TopicSpec::default()
    };
    let bus = bus(state.connect(), &clock);
    bus.topic("orders").create_with(spec).await.unwrap();
    let process = Process::new(&state, &clock).await;
    (state, clock, process)
}

/// A key that is stored in this shard now.
fn key_of(state: &State, shard: PartitionId) -> String {
    let keys = (0..10_000).map(|n| format!("k{n}"));
    let mut of = keys.filter(|key| state.shard_of(&name(), key.as_bytes()).unwrap() == shard);
    of.next().unwrap()
}

/// Whether somebody else has the partition by now.
fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Expired | ErrorKind::Fenced)
}

fn shard(id: u64) -> PartitionId {
    PartitionId::new(id)
}

/// Until the leases are shared like this.
async fn shared(process: &Process, clock: &Clock, shares: &[usize]) {
    let start = clock.elapsed();
    while process.shares().await != shares {
        assert!(
            clock.elapsed() < start + SOON,
            "{:?}",
            process.shares().await
        );
        clock.sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_share_fairly_and_take_over_from_the_killed_and_the_closed() {
    let (state, clock, first) = world(6).await;
    let one = first.join().await.unwrap();
    shared(&first, &clock, &[6]).await;
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    shared(&first, &clock, &[3, 3]).await;
    let third = Process::new(&state, &clock).await;
    let three = third.join().await.unwrap();
    shared(&first, &clock, &[2, 2, 2]).await;
    clock.sleep(6 * LEASE).await;
    assert_eq!(
        first.shares().await,
        [2, 2, 2],
        "nothing is passed to and fro"
    );

    let left = clock.elapsed();
    three.close(SECOND).await.unwrap();
    shared(&first, &clock, &[3, 3]).await;
    assert!(clock.elapsed() < left + LEASE, "at once");
    second.kill();
    let killed = clock.elapsed();
    shared(&first, &clock, &[6]).await;
    assert!(
        clock.elapsed() > killed + LEASE / 2,
        "not while it may live"
    );
    let values: Vec<String> = (0..40).map(|n| format!("k{n}-1")).collect();
    append(&first.topic, &values).await;
    let seen: BTreeSet<String> = handle(&one, 40).await.into_iter().collect();
    assert_eq!(seen, values.into_iter().collect());
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn who_is_leaving_takes_nothing_over() {
    let (state, clock, first) = world(2).await;
    let one = first.join().await.unwrap();
    shared(&first, &clock, &[2]).await;
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    shared(&first, &clock, &[1, 1]).await;
    // Until the first has noticed.
    clock.sleep(LEASE).await;
    let keys = [key_of(&state, shard(0)), key_of(&state, shard(1))];
    append(&first.topic, keys.iter().map(|key| format!("{key}-1"))).await;
    let (other, kept) = (next(&one).await, next(&two).await);
    let closing = tokio::spawn(two.close(30 * LEASE));
    first.kill();
    let third = Process::new(&state, &clock).await;
    let three = third.join().await.unwrap();
    let start = clock.elapsed();
    assert_eq!(text(&*next(&three).await), text(&other));
    assert!(
        clock.elapsed() < start + 3 * LEASE,
        "the second kept it for nothing"
    );
    kept.done();
    closing.await.unwrap().unwrap();
    drop((one, other));
}

#[tokio::test(start_paused = true)]
async fn more_members_than_leases_stand_by() {
    let (state, clock, first) = world(1).await;
    let one = first.join().await.unwrap();
    append(&first.topic, ["a-1", "a-2"]).await;
    assert_eq!(handle(&one, 1).await, ["a-1"]);
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    assert!(is_quiet(&two, 3 * LEASE).await);
    assert_eq!(handle(&one, 1).await, ["a-2"]);
    one.close(SECOND).await.unwrap();
    append(&second.topic, ["a-3"]).await;
    assert_eq!(handle(&two, 1).await, ["a-3"]);
}

#[tokio::test(start_paused = true)]
async fn who_was_robbed_of_a_partition_settles_nothing_of_it() {
    let (state, clock, first) = world(2).await;
    let (a, b) = (key_of(&state, shard(0)), key_of(&state, shard(1)));
    append(&first.topic, [format!("{a}-1"), format!("{b}-1")]).await;
    let one = first.join().await.unwrap();
    let mut hand = vec![next(&one).await, next(&one).await];
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    // The lease of one of the two goes over.
    let again = next(&two).await;
    let index = hand.iter().position(|d| text(d) == text(&again)).unwrap();
    let robbed = hand.remove(index);
    tokio::time::timeout(SOON, robbed.revoked())
        .await
        .expect("never revoked");
    robbed.done();
    let told = tokio::time::timeout(SOON, one.next()).await.unwrap();
    assert!(is_over(&told.unwrap_err()));
    hand.remove(0).done_and_wait().await.unwrap();
    // The zombie's verdict had no effect: whoever takes over from the second gets it again.
    let value = text(&again);
    second.kill();
    assert_eq!(text(&*next(&one).await), value);
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_until_all_its_parents_are_committed_as_ended() {
    let (state, clock, process) = world(2).await;
    let (a, b) = (key_of(&state, shard(0)), key_of(&state, shard(1)));
    append(&process.topic, [format!("{a}-1"), format!("{b}-1")]).await;
    let child = state.merge(&name(), shard(0), shard(1)).unwrap();
    let (left, right) = state.split(&name(), child).unwrap();
    append(&process.topic, [format!("{a}-2"), format!("{b}-2")]).await;
    assert!(state.shard_of(&name(), a.as_bytes()).unwrap() == left);
    assert!(state.shard_of(&name(), b.as_bytes()).unwrap() == right);

    let billing = process.join().await.unwrap();
    let (one, two) = (next(&billing).await, next(&billing).await);
    let of = |d: &annals_core::Delivery| d.position().unwrap().partition();
    assert_eq!(
        [of(&one), of(&two)]
            .into_iter()
            .collect::<BTreeSet<_>>()
            .len(),
        2
    );
    one.done_and_wait().await.unwrap();
    assert!(is_quiet(&billing, 3 * LEASE).await, "one parent lags");
    // Settled is not committed.
    for _ in 0..4 {
        state.faults().inject(Call::Lease, Fault::Disconnect);
    }
    two.done();
    let start = clock.elapsed();
    let mut rest = handle(&billing, 2).await;
    rest.sort();
    let mut expected = [format!("{a}-2"), format!("{b}-2")];
    expected.sort();
    assert_eq!(rest, expected);
    assert_eq!(state.faults().left(), 0);
    assert!(clock.elapsed() > start, "it waited for the commit");
    billing.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_co_parent_that_nobody_has_seen_yet_is_waited_for() {
    // 1 is split into 2 and 3; 0 and 2 are merged into 4. Whoever has read 0 knows of 4, but of 2
    // only once 1 has been read.
    let (state, _, process) = world(2).await;
    let (a, b) = (key_of(&state, shard(0)), key_of(&state, shard(1)));
    append(&process.topic, [format!("{a}-1"), format!("{b}-1")]).await;
    let (two, three) = state.split(&name(), shard(1)).unwrap();
    let c = key_of(&state, two);
    let d = key_of(&state, three);
    append(&process.topic, [format!("{c}-2"), format!("{d}-2")]).await;
    let four = state.merge(&name(), shard(0), two).unwrap();
    assert_eq!(state.shard_of(&name(), c.as_bytes()).unwrap(), four);
    append(&process.topic, [format!("{a}-3"), format!("{c}-3")]).await;

    let billing = process.join().start(Start::Beginning).await.unwrap();
    let mut lagging = None;
    for _ in 0..2 {
        let delivery = next(&billing).await;
        if text(&delivery) == format!("{b}-1") {
            lagging = Some(delivery);
        } else {
            assert_eq!(text(&delivery), format!("{a}-1"));
            delivery.done_and_wait().await.unwrap();
        }
    }
    assert!(is_quiet(&billing, 3 * LEASE).await, "4 before its parent 2");
    lagging.unwrap().done();
    let seen = handle(&billing, 4).await;
    let place = |value: String| seen.iter().position(|v| *v == value).unwrap();
    assert!(
        place(format!("{c}-2")) < place(format!("{c}-3")),
        "{seen:?}"
    );
    place(format!("{a}-3"));
    place(format!("{d}-2"));
}

#[tokio::test(start_paused = true)]
async fn a_co_parent_whose_own_parent_another_member_still_reads_is_waited_for() {
    // As before, but the group is older than the split, so its table has the two roots alone, and
    // the second member has not come to the end of 1 when the first has come to that of 0.
    let (state, clock, first) = world(2).await;
    let bus = first.topic.bus().clone();
    let open = bus.topic("orders").create_if_missing();
    open.groups(["billing"]).await.unwrap();
    let one = first.join().await.unwrap();
    shared(&first, &clock, &[2]).await;
    let second = Process::new(&state, &clock).await;
    let two = second.join().in_flight(2, 1 << 20).await.unwrap();
    shared(&first, &clock, &[1, 1]).await;
    // Until the first has noticed.
    clock.sleep(LEASE).await;

    let (a, b) = (key_of(&state, shard(0)), key_of(&state, shard(1)));
    append(&first.topic, numbered(&b, 8)).await;
    append(&first.topic, numbered(&a, 1)).await;
    let (left, _) = state.split(&name(), shard(1)).unwrap();
    let c = key_of(&state, left);
    append(&first.topic, [format!("{c}-20")]).await;
    state.merge(&name(), shard(0), left).unwrap();
    append(&first.topic, [format!("{a}-30"), format!("{c}-30")]).await;

    let lagging = next(&two).await;
    assert_eq!(text(&lagging), format!("{b}-1"));
    assert_eq!(handle(&one, 1).await, [format!("{a}-1")]);
    assert!(is_quiet(&one, 6 * LEASE).await, "4 before its parent 2");
    lagging.done();
    let mut seen = Vec::new();
    while seen.len() < 7 + 3 {
        let delivery = tokio::select! {
            biased;
            delivery = next(&one) => delivery,
            delivery = next(&two) => delivery,
        };
        seen.push(text(&delivery));
        delivery.done();
    }
    let place = |value: String| seen.iter().position(|v| *v == value).unwrap();
    assert!(
        place(format!("{c}-20")) < place(format!("{c}-30")),
        "{seen:?}"
    );
    assert!(
        place(format!("{b}-8")) < place(format!("{a}-30")),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_latest_group_that_dies_before_its_first_commit_skips_nothing_over_a_split() {
    let (state, clock, first) = world(1).await;
    append(&first.topic, numbered("a", 3)).await;
    let one = first.join().start(Start::Latest).await.unwrap();
    first.kill();
    drop(one);
    let second = Process::new(&state, &clock).await;
    append(&second.topic, ["a-4"]).await;
    state.split(&name(), shard(0)).unwrap();
    append(&second.topic, ["a-5"]).await;
    let two = second.join().start(Start::Latest).await.unwrap();
    assert_eq!(handle(&two, 2).await, ["a-4", "a-5"]);
}

/// What a killed member's group, and one that was made without a member, are told first.
async fn told(process: &Process, gaps: usize) -> Vec<String> {
    let member = process.join().await.unwrap();
    let mut records = Vec::new();
    let mut told = 0;
    loop {
        match tokio::time::timeout(SOON, member.next()).await {
            Ok(Ok(Some(delivery))) => {
                records.push(text(&delivery));
                delivery.done();
            }
            Ok(Ok(None)) => panic!("it ended"),
            Ok(Err(error)) => {
                assert!(error.gap().is_some(), "{error}");
                told += 1;
            }
            Err(_) => break,
        }
    }
    assert_eq!(told, gaps, "{records:?}");
    member.close(SECOND).await.unwrap();
    records.sort();
    records
}

#[tokio::test(start_paused = true)]
async fn an_earliest_group_hears_what_went_after_it_was_made() {
    for by_admin in [false, true] {
        let (state, clock, first) = world(2).await;
        append(&first.topic, numbered("a", 3)).await;
        state.trim(&name(), 2).unwrap();
        if by_admin {
            let group = Group::new("billing").unwrap();
            let admin = first.topic.bus().admin().unwrap();
            let made = admin
                .create_group(&name(), &group, Some(Start::Earliest))
                .await;
            assert!(made.unwrap());
        } else {
            let one = first.join().start(Start::Earliest).await.unwrap();
            first.kill();
            drop(one);
        }
        let second = Process::new(&state, &clock).await;
        append(&second.topic, numbered("a", 6)).await;
        state.trim(&name(), 1).unwrap();
        assert_eq!(told(&second, 1).await, ["a-6"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_starts_at_shards_that_are_gone_is_told_so() {
    for by_admin in [false, true] {
        for vanishing in [false, true] {
            let (state, clock, first) = world(2).await;
            let keys = [key_of(&state, shard(0)), key_of(&state, shard(1))];
            let [a, b] = &keys;
            append(&first.topic, [format!("{a}-1"), format!("{b}-1")]).await;
            let mut replay = first.topic.replay(Start::Beginning).await.unwrap();
            let read = [replay.next().await, replay.next().await];
            assert!(read.iter().all(|record| record.as_ref().unwrap().is_some()));
            let mut cursor = replay.cursor().clone();
            // The other one is not named: it is read from its start.
            cursor.remove(shard(1));
            append(&first.topic, [format!("{a}-2")]).await;
            state.split(&name(), shard(0)).unwrap();
            state.trim(&name(), 0).unwrap();
            append(&first.topic, [format!("{a}-3"), format!("{b}-3")]).await;
            let backend = Gone(first.client.clone(), vanishing, Arc::default());
            let topic = bus(backend, &clock).topic("orders").await.unwrap();
            assert!(cursor.rest() == Rest::FromStart);
            if by_admin {
                let group = Group::new("billing").unwrap();
                let admin = topic.bus().admin().unwrap();
                let start = Some(Start::After(cursor));
                let made = admin.create_group(&name(), &group, start).await;
                assert!(made.unwrap());
            } else {
                let one = topic.subscribe("billing").start(cursor).await.unwrap();
                first.kill();
                drop(one);
            }
            let client = state.connect();
            let backend = Gone(client.clone(), vanishing, Arc::default());
            let topic = bus(backend, &clock).topic("orders").await.unwrap();
            let second = Process { client, topic };
            // One gap for what is gone of each.
            let mut wanted = [format!("{a}-3"), format!("{b}-3")];
            wanted.sort();
            assert_eq!(told(&second, 2).await, wanted, "{by_admin} {vanishing}");
        }
    }
}

type Places = Arc<Mutex<Vec<(PartitionId, Frontier)>>>;

/// The log, which notes where shards are opened; where it says so, they cannot even be opened once
/// they are listed no more.
#[derive(Debug)]
struct Gone(Sharded, bool, Places);

#[async_trait]
impl Backend for Gone {
    fn scheme(&self) -> &'static str {
        self.0.scheme()
    }
    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        self.0.capabilities(topic).await
    }
    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.0.append(topic, batch, options).await
    }
    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        self.0.locate(topic, start).await
    }
    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.0.partitions(topic).await
    }
    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        let listed = self.0.partitions(topic).await?;
        let is_gone = |id: &PartitionId| listed.iter().all(|p| p.id != *id);
        if self.1 && range.partitions.iter().flatten().any(is_gone) {
            return Err(Error::not_found("there is no such shard"));
        }
        let places = range.from.places().map(|(id, at)| (id, *at));
        self.2.lock().unwrap().extend(places);
        self.0.read(topic, range).await
    }
    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        self.0.leases(topic)
    }
    async fn subscribe(
        &self,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        self.0.subscribe(topic, group, options).await
    }
    fn admin(&self) -> Option<Arc<dyn Admin>> {
        self.0.admin()
    }
    async fn close(&self, grace: Duration) -> Result<()> {
        self.0.close(grace).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_childs_reader_gets_the_moment_that_its_parent_was_known_whole() {
    let (state, clock, first) = world(1).await;
    append(&first.topic, numbered("a", 2)).await;
    let one = first.join().start(Start::Beginning).await.unwrap();
    assert_eq!(handle(&one, 2).await.len(), 2);
    clock.sleep(60 * SECOND).await;
    let split = clock.now();
    let (low, _) = state.split(&name(), shard(0)).unwrap();
    append(&first.topic, [format!("{}-3", key_of(&state, low))]).await;
    // Both children are read, and with the first record of one the mark of both is committed.
    assert_eq!(handle(&one, 1).await.len(), 1);
    one.close(LEASE).await.unwrap();
    let admin = first.topic.bus().admin().unwrap();
    let place = admin.groups(&name()).await.unwrap().remove(0).committed;
    let place = place.unwrap();
    let clear = Some(split);
    assert_eq!(place.frontier(shard(0)), Some(&Frontier::Ended { clear }));

    // Another life of the group: what tells the child's reader stands in the parent's row.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = state.connect();
    let backend = Gone(client, false, Arc::clone(&seen));
    let topic = bus(backend, &clock).topic("orders").await.unwrap();
    let high = shard(2);
    append(&topic, [format!("{}-4", key_of(&state, high))]).await;
    let two = topic.subscribe("billing").await.unwrap();
    assert_eq!(handle(&two, 1).await.len(), 1);
    let seen = seen.lock().unwrap();
    let of_high = seen.iter().find(|(id, _)| *id == high);
    assert_eq!(of_high, Some(&(high, Frontier::Start { clear })));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_leaves_a_partition_out_starts_no_group() {
    let (state, _, process) = world(2).await;
    append(&process.topic, [format!("{}-1", key_of(&state, shard(0)))]).await;
    let mut part = process.topic.end().await.unwrap();
    part.remove(shard(1));
    let part = part.with_rest(Rest::Outside);
    let refused = process.join().start(&part).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    let group = Group::new("billing").unwrap();
    let admin = process.topic.bus().admin().unwrap();
    let missing = admin.group_lag(&name(), &group).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "nothing was made");
}

#[tokio::test(start_paused = true)]
async fn a_partition_of_its_own_keeps_nobody_waiting() {
    let (state, clock, process) = world(2).await;
    let (a, b) = (key_of(&state, shard(0)), key_of(&state, shard(1)));
    let billing = process.join().in_flight(2, 1 << 20).await.unwrap();
    append(&process.topic, [format!("{a}-1")]).await;
    let hole = next(&billing).await;
    append(&process.topic, (2..60).map(|n| format!("{b}-{n}"))).await;
    let seen = handle(&billing, 58).await;
    assert_eq!(seen.len(), 58);
    // Sixteen times two behind the hole, then its own partition stops and the other does not.
    let (c, start) = (format!("{b}-60"), clock.elapsed());
    append(&process.topic, [&c]).await;
    assert_eq!(handle(&billing, 1).await, [c]);
    assert!(clock.elapsed() < start + SECOND);
    hole.done();
}

/// Members that come and go while shards split and merge: every record is handled, and the first
/// occurrences of each key come in order.
#[tokio::test(start_paused = true)]
async fn lineage_holds_while_members_come_and_go() {
    let mut dice = Dice::new(0x6c69_6e65);
    for _ in 0..6 {
        let (state, clock, writer) = world(2).await;
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut members = Vec::new();
        let mut open = vec![shard(0), shard(1)];
        let mut counts = [0; 6];
        for _ in 0..40 {
            let mut values = Vec::new();
            for _ in 0..3 {
                let key = dice.below(6);
                counts[key] += 1;
                values.push(format!("k{key}-{}", counts[key]));
            }
            append(&writer.topic, &values).await;
            match dice.below(8) {
                0 if open.len() < 5 => {
                    let parent = open.remove(dice.below(open.len()));
                    if let Ok((left, right)) = state.split(&name(), parent) {
                        open.extend([left, right]);
                    }
                }
                1 => {
                    let pairs = open.iter().flat_map(|a| open.iter().map(|b| (*a, *b)));
                    let merged = pairs
                        .filter(|(a, b)| a != b)
                        .find_map(|(a, b)| Some((a, b, state.merge(&name(), a, b).ok()?)));
                    if let Some((a, b, child)) = merged {
                        open.retain(|id| *id != a && *id != b);
                        open.push(child);
                    }
                }
                2 if members.len() < 3 => {
                    let process = Process::new(&state, &clock).await;
                    let subscription = process.join().lease(2 * SECOND).await.unwrap();
                    let task = tokio::spawn(collect(subscription, Arc::clone(&seen)));
                    members.push((process, task));
                }
                3 if members.len() > 1 => {
                    let (process, task) = members.swap_remove(dice.below(members.len()));
                    process.kill();
                    task.await.unwrap();
                }
                _ => clock.sleep(SECOND / 2).await,
            }
        }
        let last = Process::new(&state, &clock).await;
        let subscription = last.join().lease(2 * SECOND).await.unwrap();
        members.push((last, tokio::spawn(collect(subscription, Arc::clone(&seen)))));
        let total: usize = counts.iter().sum();
        let start = clock.elapsed();
        loop {
            let firsts: BTreeSet<String> = seen.lock().unwrap().iter().cloned().collect();
            if firsts.len() == total {
                break;
            }
            assert!(
                clock.elapsed() < start + SOON,
                "{} of {total}",
                firsts.len()
            );
            clock.sleep(SECOND).await;
        }
        let mut next = [0; 6];
        for value in seen.lock().unwrap().iter() {
            let (key, number) = value[1..].split_once('-').unwrap();
            let (key, number): (usize, i32) = (key.parse().unwrap(), number.parse().unwrap());
            assert!(number <= next[key] + 1, "{value} before {}", next[key] + 1);
            next[key] = next[key].max(number);
        }
        for (process, task) in members {
            process.kill();
            task.await.unwrap();
        }
    }
}

async fn collect(subscription: Subscription, seen: Arc<Mutex<Vec<String>>>) {
    loop {
        match subscription.next().await {
            Ok(Some(delivery)) => {
                seen.lock().unwrap().push(text(&delivery));
                delivery.done();
            }
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => assert!(is_over(&error), "{error}"),
            Ok(None) => return,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn six_lives_of_two_members_are_handed_everything_and_nothing_committed_twice() {
    let mut dice = Dice::new(0x7368_6172_6431);
    let (mut repeated, mut committed) = (0, 0);
    for _ in 0..6 {
        let (state, clock, writer) = world(2).await;
        let mut values = Vec::new();
        for n in 0..60 {
            values.push(format!("k{}-{n}", dice.below(7)));
        }
        append(&writer.topic, &values[..20]).await;
        state.split(&name(), shard(0)).unwrap();
        append(&writer.topic, &values[20..40]).await;
        let mut lives = Lives::default();
        for life in 0..6 {
            lives.begin(life);
            if life == 2 {
                append(&writer.topic, &values[40..]).await;
            }
            committed += live(&mut lives, &mut dice, &state, &clock).await;
        }
        let last = Process::new(&state, &clock).await;
        let billing = last.join().await.unwrap();
        lives.begin(6);
        while !lives.is_all(&values) {
            let Ok(delivery) = tokio::time::timeout(SOON, next(&billing)).await else {
                break;
            };
            lives.handed(&text(&delivery));
            delivery.done();
        }
        lives.assert_all(&values);
        repeated += lives.repeated();
    }
    assert!(repeated > 0 && committed > 0, "{repeated}, {committed}");
}

/// One life of two members: each takes some, settles some in any order; at a drawn point one is
/// killed and the other closes, or is killed too.
async fn live(lives: &mut Lives, dice: &mut Dice, state: &State, clock: &Clock) -> usize {
    let mut committed = 0;
    let mut members = Vec::new();
    for _ in 0..2 {
        let process = Process::new(state, clock).await;
        let billing = process.join().in_flight(8, 1 << 20).await.unwrap();
        members.push((process, billing, Vec::new()));
    }
    for _ in 0..dice.below(40) {
        let (_, billing, hand) = &mut members[dice.below(2)];
        match dice.below(8) {
            0..4 if hand.len() < 5 => {
                let got = tokio::time::timeout(LEASE / 2, billing.next()).await;
                match got {
                    Ok(Ok(delivery)) => {
                        let delivery = delivery.unwrap();
                        lives.handed(&text(&delivery));
                        hand.push(delivery);
                    }
                    Ok(Err(error)) => assert_ne!(error.kind(), ErrorKind::Closed),
                    Err(_) => {}
                }
            }
            0..6 if !hand.is_empty() => hand.swap_remove(dice.below(hand.len())).done(),
            6 if !hand.is_empty() => hand.swap_remove(dice.below(hand.len())).retry(SECOND / 3),
            7 if hand.len() == 1 => {
                let delivery = hand.remove(0);
                let value = text(&delivery);
                // An earlier one of its partition may wait for its retry, or the lease be gone.
                let waited = tokio::time::timeout(SECOND / 5, delivery.done_and_wait()).await;
                if let Ok(Ok(())) = waited {
                    lives.committed([value]);
                    committed += 1;
                }
            }
            _ => clock.sleep(SECOND / 10).await,
        }
    }
    for (process, billing, hand) in members {
        if dice.below(3) == 0 {
            drop(hand);
            if let Err(error) = billing.close(SECOND).await {
                assert!(is_over(&error), "{error}");
            }
        } else {
            process.kill();
        }
    }
    committed
}
