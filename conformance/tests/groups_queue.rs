//! Groups of the queue model, through core's handles: each delivery is lent and settled by itself.

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

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use annals_conformance::models::queue::{Queue, State};
use annals_conformance::models::{Call, Fault};
use annals_core::driver::TopicSpec;
use annals_core::{
    Clock, Delivery, ErrorKind, Group, OpenSubscription, Record, Start, Subscription, Topic,
    Verdict, letters,
};
use groups::{
    Dice, LEASE, Lives, SOON, Watch, append, bus, clock, handle, header, is_quiet, next, numbered,
    text,
};

const SECOND: Duration = Duration::from_secs(1);

/// A process with a client of its own.
struct Process {
    client: Queue,
    topic: Topic,
}

impl Process {
    async fn new(state: &State, clock: &Clock) -> Self {
        let client = state.connect();
        let topic = bus(client.clone(), clock).topic("orders").await.unwrap();
        Self { client, topic }
    }

    fn join(&self) -> OpenSubscription {
        self.topic.subscribe("billing").lease(LEASE)
    }

    fn kill(&self) {
        self.client.connection().kill();
    }

    /// Who looks into the dead letters.
    async fn inspect(&self) -> Subscription {
        let dead = self.topic.bus().topic("dead").await.unwrap();
        dead.subscribe("inspect").await.unwrap()
    }
}

/// A topic with the group `billing`, and one for dead letters with the group `inspect`.
async fn world() -> (State, Clock, Process) {
    let clock = clock();
    let state = State::new(clock.clone());
    let bus = bus(state.connect(), &clock);
    let open = |name: &str| bus.topic(name).create_if_missing();
    open("orders").groups(["billing"]).await.unwrap();
    open("dead").groups(["inspect"]).await.unwrap();
    let process = Process::new(&state, &clock).await;
    (state, clock, process)
}

async fn depth(subscription: &Subscription) -> Option<u64> {
    subscription.lag().await.unwrap().records
}

#[tokio::test(start_paused = true)]
async fn a_group_sees_what_is_appended_after_it_was_made() {
    let clock = clock();
    let bus = bus(State::new(clock.clone()).connect(), &clock);
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    let void = topic.append(groups::record("a-1")).await.unwrap_err();
    assert_eq!(void.kind(), ErrorKind::NoGroup);
    let billing = topic.subscribe("billing").await.unwrap();
    append(&topic, ["a-1"]).await;
    let late = topic.subscribe("late").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
    let since = topic.subscribe("late").start(Start::Beginning).await;
    assert_eq!(since.unwrap_err().kind(), ErrorKind::Unsupported);
    let late = topic.subscribe("late").start(Start::Latest).await.unwrap();
    append(&topic, ["a-2"]).await;
    assert_eq!(handle(&billing, 2).await, ["a-1", "a-2"]);
    assert_eq!(handle(&late, 1).await, ["a-2"]);
    assert!(is_quiet(&late, SOON).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_kept_and_what_a_killed_member_held_comes_again() {
    let (state, clock, first) = world().await;
    append(&first.topic, ["a-1", "b-1"]).await;
    let one = first.join().await.unwrap();
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    let held = next(&one).await;
    assert_eq!(handle(&two, 1).await, ["b-1"]);
    assert!(is_quiet(&two, 6 * LEASE).await, "its hold is extended");
    first.kill();
    let killed = clock.elapsed();
    let again = next(&two).await;
    assert_eq!((text(&again), again.attempt()), ("a-1".into(), 2));
    let waited = clock.elapsed().saturating_sub(killed);
    assert!(waited > LEASE / 2 && waited <= LEASE, "{waited:?}");
    again.done_and_wait().await.unwrap();
    drop(held);
    assert_eq!(depth(&two).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn what_ran_out_settles_nothing_and_its_followers_go_back_with_it() {
    let (state, clock, first) = world().await;
    append(&first.topic, numbered("a", 3)).await;
    let one = first.join().await.unwrap();
    // Two at a time are taken, because two wait.
    let (held, waits) = tokio::join!(biased; next(&one), tokio::time::timeout(SECOND, one.next()));
    assert!(waits.is_err(), "a key has one record out");
    // The service cannot be told that it is still held.
    for _ in 0..40 {
        state.faults().inject(Call::Settle, Fault::Disconnect);
    }
    tokio::time::timeout(SOON, held.revoked())
        .await
        .expect("never revoked");
    state.faults().heal();
    let late = held.done_and_wait().await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Expired);
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    let again = next(&two).await;
    assert_eq!((text(&again), again.attempt()), ("a-1".into(), 2));
    again.done();
    assert_eq!(handle(&two, 2).await, ["a-2", "a-3"], "in order");
}

#[tokio::test(start_paused = true)]
async fn a_late_done_is_told_and_a_late_retry_is_not() {
    let (state, _, process) = world().await;
    append(&process.topic, ["a-1", "b-1"]).await;
    let billing = process.join().await.unwrap();
    let (first, second) = (next(&billing).await, next(&billing).await);
    for _ in 0..40 {
        state.faults().inject(Call::Settle, Fault::Disconnect);
    }
    tokio::join!(first.revoked(), second.revoked());
    state.faults().heal();
    first.done();
    second.retry(None);
    let told = tokio::time::timeout(SOON, billing.next()).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Expired);
    let seen: BTreeSet<String> = handle(&billing, 2).await.into_iter().collect();
    assert_eq!(seen, ["a-1".into(), "b-1".into()].into());
}

#[tokio::test(start_paused = true)]
async fn sixteen_handlers_of_two_members_keep_the_order_of_each_key() {
    let (state, clock, first) = world().await;
    let mut dice = Dice::new(17);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let mut expected = vec![Vec::new(); keys.len()];
    for _ in 0..200 {
        let key = dice.below(keys.len());
        let value = format!("{}-{}", keys[key], expected[key].len());
        append(&first.topic, [&value]).await;
        expected[key].push(value);
    }
    let watch = Watch::default();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let process = Process::new(&state, &clock).await;
        let (seen, times, stop) = (watch.clone(), clock.clone(), stop.clone());
        let run = process.join().await.unwrap().run(move |record| {
            let (watch, clock, stop) = (seen.clone(), times.clone(), stop.clone());
            let millis = record.value().iter().map(|b| u64::from(*b)).sum::<u64>() % 7;
            watch.begin(&record);
            async move {
                clock.sleep(Duration::from_millis(millis)).await;
                watch.end(&record);
                if watch.count() == 200 {
                    let _ = stop.send(true);
                }
            }
        });
        let mut stopped = stopped.clone();
        let until = async move { stopped.wait_for(|stop| *stop).await.map(|_| ()) };
        runs.push(tokio::spawn(run.concurrency(16).until(until)));
    }
    for run in runs {
        let closed = run.await.unwrap().unwrap();
        assert_eq!(closed.left, 0);
    }
    assert_eq!(watch.overlaps(), 0);
    assert!(watch.most() > 10, "{}", watch.most());
    for (key, values) in keys.iter().zip(&expected) {
        assert_eq!(&watch.of(key), values);
    }
    let after = first.join().await.unwrap();
    assert_eq!(depth(&after).await, Some(0), "all is settled");
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_somebody_waits_for() {
    let (state, clock, first) = world().await;
    let values: Vec<String> = (0..10).map(|n| format!("k{n}-1")).collect();
    append(&first.topic, &values).await;
    let one = first.join().await.unwrap();
    let kept = next(&one).await;
    clock.sleep(SECOND).await;
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    let start = clock.elapsed();
    assert_eq!(handle(&two, 9).await, values[1..]);
    assert!(clock.elapsed() < start + SECOND);
    kept.done();
}

#[tokio::test(start_paused = true)]
async fn a_retry_keeps_its_key_here_and_without_a_key_it_waits_at_the_service() {
    let (_, clock, process) = world().await;
    append(&process.topic, ["a-1", "plain", "a-2"]).await;
    let billing = process.join().await.unwrap();
    let (keyed, plain) = (next(&billing).await, next(&billing).await);
    assert_eq!((text(&keyed), text(&plain)), ("a-1".into(), "plain".into()));
    let start = clock.elapsed();
    // Longer than a delivery is lent: what waits here is held on to.
    keyed.retry(3 * LEASE);
    plain.retry(SECOND);
    let again = next(&billing).await;
    assert_eq!((text(&again), again.attempt()), ("plain".into(), 2));
    assert_eq!(clock.elapsed().saturating_sub(start), SECOND);
    again.done();
    let again = next(&billing).await;
    assert_eq!((text(&again), again.attempt()), ("a-1".into(), 2));
    assert_eq!(clock.elapsed().saturating_sub(start), 3 * LEASE);
    again.done();
    assert_eq!(handle(&billing, 1).await, ["a-2"]);
    // Idle, it lets time pass: nothing here asks for the processor.
    assert!(is_quiet(&billing, 100 * LEASE).await);
    billing.flush().await.unwrap();
    assert!(is_quiet(&billing, 100 * LEASE).await);
}

#[tokio::test(start_paused = true)]
async fn poison_by_retry_and_by_crash_is_buried_with_its_reason() {
    let (state, clock, process) = world().await;
    append(&process.topic, ["bad-1", "bad-2", "good-1"]).await;
    let join = |process: &Process| process.join().max_attempts(3).dead_letters("dead");
    let mut handled = Vec::new();
    let mut lives = Vec::new();
    // The first two lives end with it in hand.
    for attempt in 1..=2 {
        let member = Process::new(&state, &clock).await;
        let billing = join(&member).await.unwrap();
        loop {
            let delivery = next(&billing).await;
            if text(&delivery) == "bad-1" {
                assert_eq!(delivery.attempt(), attempt);
                member.kill();
                lives.push((billing, delivery));
                break;
            }
            handled.push(text(&delivery));
            delivery.done_and_wait().await.unwrap();
        }
    }
    // In the third it asks for one more.
    let billing = join(&process).await.unwrap();
    let delivery = loop {
        let delivery = next(&billing).await;
        if text(&delivery) == "bad-1" {
            break delivery;
        }
        handled.push(text(&delivery));
        delivery.done();
    };
    assert_eq!(delivery.attempt(), 3);
    delivery.settle(Verdict::from(Err::<(), _>("cannot be billed")));
    while handled.len() < 2 {
        handled.extend(handle(&billing, 1).await);
    }
    handled.sort();
    assert_eq!(handled, ["bad-2", "good-1"]);
    let inspect = process.inspect().await;
    let dead = next(&inspect).await;
    assert_eq!(text(&dead), "bad-1");
    assert_eq!(header(&dead, letters::REASON), "cannot be billed");
    assert_eq!(header(&dead, letters::ATTEMPTS), "3");
    dead.done();
    assert!(is_quiet(&inspect, SOON).await, "once, and nothing else");
    assert_eq!(depth(&billing).await, Some(0));
}

/// A life that takes two records of one key and ends with the first in hand.
async fn crash(state: &State, clock: &Clock) -> (Subscription, Delivery) {
    let member = Process::new(state, clock).await;
    let billing = member.join().await.unwrap();
    // Both come only once the last life's hold on them is over.
    let (delivery, waits) = tokio::join!(
        biased;
        next(&billing),
        tokio::time::timeout(3 * LEASE, billing.next())
    );
    assert!(waits.is_err(), "a key has one record out");
    member.kill();
    (billing, delivery)
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_too_often_and_has_not_failed_is_handed_out_once_more() {
    let (state, clock, process) = world().await;
    append(&process.topic, ["bad-1", "bad-2"]).await;
    let mut lives = Vec::new();
    for _ in 0..3 {
        lives.push(crash(&state, &clock).await);
    }
    let careful = process.join().max_attempts(2).dead_letters("dead").await;
    let billing = careful.unwrap();
    let innocent = next(&billing).await;
    assert_eq!((text(&innocent), innocent.attempt()), ("bad-1".into(), 4));
    innocent.done();
    let fails = next(&billing).await;
    assert_eq!(text(&fails), "bad-2");
    fails.settle(Verdict::from(Err::<(), _>("cannot be billed")));
    let inspect = process.inspect().await;
    let dead = next(&inspect).await;
    assert_eq!(text(&dead), "bad-2");
    assert_eq!(header(&dead, letters::REASON), "cannot be billed");
    dead.done();
    assert!(is_quiet(&inspect, SOON).await, "and nothing else");
    assert_eq!(depth(&billing).await, Some(0));
}

/// As `world`, with dead letters on a topic that drops repeated ids.
async fn dropping_world() -> Process {
    let clock = clock();
    let state = State::new(clock.clone());
    let bus = bus(state.connect(), &clock);
    let orders = bus.topic("orders").create_if_missing();
    orders.groups(["billing"]).await.unwrap();
    let spec = TopicSpec {
        dedupe: Some(300 * SECOND),
        groups: vec![Group::new("inspect").unwrap()],
        ..TopicSpec::default()
    };
    bus.topic("dead").create_with(spec).await.unwrap();
    Process::new(&state, &clock).await
}

#[tokio::test(start_paused = true)]
async fn no_letter_is_taken_for_another_though_ids_and_times_are_the_same() {
    let process = dropping_world().await;
    let same = |value: &str| groups::record(value).id("same");
    let records = [same("a-1"), same("b-1"), same("c-1")];
    process.topic.append(records).await.unwrap();
    let billing = process.join().dead_letters("dead").await.unwrap();
    for _ in 0..3 {
        next(&billing).await.reject("never");
    }
    let inspect = process.inspect().await;
    let mut dead = BTreeSet::new();
    for _ in 0..3 {
        let letter = next(&inspect).await;
        assert_eq!(header(&letter, letters::ID), "same");
        dead.insert(text(&letter));
        letter.done();
    }
    assert_eq!(dead, ["a-1".into(), "b-1".into(), "c-1".into()].into());
    assert_eq!(depth(&billing).await, Some(0));
}

/// A record of this key with so many bytes.
fn large(key: &str, bytes: usize) -> Record {
    let value = vec![b'x'; bytes - key.len() - 6];
    Record::new(value).key(key).id("its-id")
}

#[tokio::test(start_paused = true)]
async fn a_letter_says_less_where_the_record_leaves_no_room() {
    let (_, _, process) = world().await;
    let most = 256 << 10;
    for bytes in [most - 600, most] {
        process.topic.append(large("a", bytes)).await.unwrap();
    }
    let billing = process.join().dead_letters("dead").await.unwrap();
    let inspect = process.inspect().await;
    next(&billing).await.reject("x".repeat(1_000));
    let letter = next(&inspect).await;
    assert_eq!(header(&letter, letters::GROUP), "billing");
    assert_eq!(letter.header(letters::REASON), None, "no room for it");
    letter.done();
    next(&billing).await.reject("x");
    let letter = next(&inspect).await;
    assert_eq!(letter.len_bytes(), most, "as it was");
    letter.done();
    assert_eq!(depth(&billing).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_a_letter_is_told_and_comes_again_until_it_is_settled() {
    let process = dropping_world().await;
    // A letter has a longer id.
    let record = large("a", 256 << 10);
    process
        .topic
        .append([record, groups::record("a-2")])
        .await
        .unwrap();
    let careful = process.join().max_attempts(1).dead_letters("dead").await;
    let billing = careful.unwrap();
    for attempt in 1..=2 {
        let delivery = next(&billing).await;
        assert_eq!(delivery.attempt(), attempt, "over the limit, and not lost");
        delivery.retry(None);
        let told = tokio::time::timeout(SOON, billing.next()).await.unwrap();
        assert_eq!(told.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    let last = next(&billing).await;
    assert_eq!(last.len_bytes(), 256 << 10);
    last.done();
    assert_eq!(handle(&billing, 1).await, ["a-2"], "its key goes on");
    assert!(is_quiet(&process.inspect().await, SOON).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_settlement_is_told_again_and_only_then_forgotten() {
    let (state, _, process) = world().await;
    append(&process.topic, numbered("a", 3)).await;
    let billing = process.join().await.unwrap();
    for fault in [
        Fault::Disconnect,
        Fault::Refuse(vec![0]),
        Fault::Lose { done: false },
    ] {
        state.faults().inject(Call::Settle, fault);
        next(&billing).await.done_and_wait().await.unwrap();
        assert_eq!(state.faults().left(), 0);
    }
    assert_eq!(depth(&billing).await, Some(0));
    assert!(is_quiet(&billing, 4 * LEASE).await, "none came again");
}

#[tokio::test(start_paused = true)]
async fn a_close_gives_back_what_no_handler_has_and_says_what_it_could_not() {
    let (state, clock, first) = world().await;
    append(&first.topic, numbered("a", 3)).await;
    append(&first.topic, ["b-1"]).await;
    let one = first.join().await.unwrap();
    // Three wait, so three are taken: of one key one is handed out.
    let (a, b, c) = (one.next(), one.next(), one.next());
    let (a, _, _) = tokio::join!(biased;
        a,
        tokio::time::timeout(SECOND, b),
        tokio::time::timeout(SECOND, c)
    );
    let held = a.unwrap().unwrap();
    let start = clock.elapsed();
    let closed = one.close(5 * SECOND).await.unwrap();
    assert_eq!(closed.left, 1, "the handler kept it");
    assert!(closed.returned >= 1, "{closed:?}");
    let within = closed.within.unwrap();
    assert!(within <= LEASE && !within.is_zero(), "{within:?}");
    let took = clock.elapsed().saturating_sub(start);
    assert!(took <= 5 * SECOND, "{took:?}");
    let second = Process::new(&state, &clock).await;
    let two = second.join().await.unwrap();
    assert_eq!(handle(&two, 1).await, ["b-1"], "others have it at once");
    drop(held);
    assert_eq!(handle(&two, 3).await, numbered("a", 3));
    assert!(
        clock.elapsed() < start + 6 * SECOND,
        "the late verdict gave it back"
    );
}

#[tokio::test(start_paused = true)]
async fn six_lives_with_crashes_anywhere_are_handed_everything_and_nothing_settled_twice() {
    let mut dice = Dice::new(0x0071_7565_7565);
    let (mut repeated, mut settled) = (0, 0);
    for _ in 0..8 {
        let (state, clock, writer) = world().await;
        let mut values = Vec::new();
        for n in 0..50 {
            values.push(format!("k{}-{n}", dice.below(5)));
        }
        append(&writer.topic, &values).await;
        let mut lives = Lives::default();
        for life in 0..6 {
            lives.begin(life);
            let process = Process::new(&state, &clock).await;
            settled += live(&mut lives, &mut dice, &process, &clock).await;
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
    assert!(repeated > 0 && settled > 0, "{repeated}, {settled}");
}

/// One life: takes some, settles some, flushes now and then, and is killed.
async fn live(lives: &mut Lives, dice: &mut Dice, process: &Process, clock: &Clock) -> usize {
    let billing = process.join().in_flight(8, 1 << 20).await.unwrap();
    let (mut hand, done) = (Vec::new(), Mutex::new(Vec::new()));
    let mut settled = 0;
    for _ in 0..dice.below(30) {
        match dice.below(8) {
            0..4 if hand.len() < 5 => {
                if let Ok(next) = tokio::time::timeout(2 * LEASE, billing.next()).await {
                    let delivery = next.unwrap().unwrap();
                    lives.handed(&text(&delivery));
                    hand.push(delivery);
                }
            }
            0..6 if !hand.is_empty() => {
                let delivery = hand.swap_remove(dice.below(hand.len()));
                done.lock().unwrap().push(text(&delivery));
                delivery.done();
            }
            6 if !hand.is_empty() => {
                let delay = Duration::from_millis(dice.below(300) as u64);
                hand.swap_remove(dice.below(hand.len())).retry(delay);
            }
            7 => {
                billing.flush().await.unwrap();
                let done = std::mem::take(&mut *done.lock().unwrap());
                settled += done.len();
                lives.committed(done);
            }
            _ => clock.sleep(SECOND / 10).await,
        }
    }
    process.kill();
    settled
}
