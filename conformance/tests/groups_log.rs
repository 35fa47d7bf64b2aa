//! Groups of the log model, through core's handles.

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
use std::time::Duration;

use annals_conformance::models::log::{Log, State};
use annals_conformance::models::{Call, Fault};
use annals_core::{
    Clock, ErrorKind, Group, OpenSubscription, Start, Subscription, Topic, TopicName, letters,
};
use groups::{
    Dice, LEASE, Lives, SOON, Watch, append, bus, clock, everything, handle, header, is_quiet,
    next, numbered, text,
};

const SECOND: Duration = Duration::from_secs(1);

/// A process with a client of its own.
struct Process {
    client: Log,
    topic: Topic,
    clock: Clock,
}

impl Process {
    async fn new(state: &State, clock: &Clock) -> Self {
        let client = state.connect();
        let bus = bus(client.clone(), clock);
        bus.topic("dead").create_if_missing().await.unwrap();
        let topic = bus.topic("orders").create_if_missing().await.unwrap();
        Self {
            client,
            topic,
            clock: clock.clone(),
        }
    }

    fn join(&self, group: &str) -> OpenSubscription {
        self.topic.subscribe(group)
    }

    async fn dead(&self) -> Vec<annals_core::Recorded> {
        everything(&self.topic.bus().topic("dead").await.unwrap()).await
    }

    /// As if the process had died.
    fn kill(&self) {
        self.client.connection().kill();
    }
}

async fn world() -> (State, Clock, Process) {
    let clock = clock();
    let state = State::new(clock.clone());
    let process = Process::new(&state, &clock).await;
    (state, clock, process)
}

#[tokio::test(start_paused = true)]
async fn a_killed_member_is_replaced_at_its_commit_once_its_lease_stood_still() {
    let (state, clock, first) = world().await;
    let second = Process::new(&state, &clock).await;
    append(&first.topic, numbered("a", 6)).await;
    let one = first.join("billing").await.unwrap();
    let two = second.join("billing").await.unwrap();
    assert_eq!(handle(&one, 3).await, ["a-1", "a-2", "a-3"]);
    one.flush().await.unwrap();
    assert!(is_quiet(&two, 2 * LEASE).await, "the first one lives");
    assert_eq!(handle(&one, 1).await, ["a-4"]);
    first.kill();
    let killed = clock.elapsed();
    assert_eq!(handle(&two, 3).await, ["a-4", "a-5", "a-6"]);
    let waited = clock.elapsed().saturating_sub(killed);
    assert!(waited >= LEASE / 2 && waited <= 2 * LEASE, "{waited:?}");
    let gone = tokio::time::timeout(SOON, one.next()).await.unwrap();
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_by_close_hands_over_at_once_and_says_what_went_back() {
    let (state, clock, first) = world().await;
    let second = Process::new(&state, &clock).await;
    append(&first.topic, numbered("a", 2)).await;
    append(&first.topic, numbered("b", 3)).await;
    let one = first.join("billing").await.unwrap();
    let two = second.join("billing").await.unwrap();
    let done = next(&one).await;
    let kept = next(&one).await;
    assert_eq!((text(&done), text(&kept)), ("a-1".into(), "b-1".into()));
    done.done();
    let closing = tokio::spawn(one.close(10 * SECOND));
    kept.revoked().await;
    let closed = closing.await.unwrap().unwrap();
    assert_eq!((closed.returned, closed.left), (4, 0));
    let left = clock.elapsed();
    assert_eq!(handle(&two, 4).await, ["a-2", "b-1", "b-2", "b-3"]);
    assert!(clock.elapsed().saturating_sub(left) < LEASE);
    kept.done();
    two.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_handlers_and_commits_what_they_settle() {
    let (state, clock, first) = world().await;
    append(&first.topic, numbered("a", 2)).await;
    let one = first.join("billing").await.unwrap();
    let held = next(&one).await;
    let start = clock.elapsed();
    let settled = tokio::spawn({
        let clock = clock.clone();
        async move {
            clock.sleep(3 * SECOND).await;
            held.done();
        }
    });
    let closed = one.close(10 * SECOND).await.unwrap();
    settled.await.unwrap();
    assert_eq!((closed.returned, closed.left), (1, 0));
    assert_eq!(clock.elapsed().saturating_sub(start), 3 * SECOND);
    let second = Process::new(&state, &clock).await;
    let two = second.join("billing").await.unwrap();
    assert_eq!(handle(&two, 1).await, ["a-2"]);
}

#[tokio::test(start_paused = true)]
async fn groups_made_before_and_after_the_append_start_as_they_were_asked() {
    let (state, clock, process) = world().await;
    let topic = &process.topic;
    let bus = topic.bus();
    bus.topic("orders")
        .create_if_missing()
        .groups(["before"])
        .await
        .unwrap();
    append(topic, numbered("a", 2)).await;
    clock.sleep(SECOND).await;
    let later = clock.now();
    let end = topic.end().await.unwrap();
    append(topic, ["a-3"]).await;
    let latest = process.join("latest").start(Start::Latest).await.unwrap();
    append(topic, ["a-4"]).await;

    let whole = ["a-1", "a-2", "a-3", "a-4"];
    let before = process.join("before").await.unwrap();
    assert_eq!(handle(&before, 4).await, whole);
    let after = process.join("after").await.unwrap();
    assert_eq!(handle(&after, 4).await, whole);
    let since = process
        .join("since")
        .start(Start::Since(later))
        .await
        .unwrap();
    assert_eq!(handle(&since, 2).await, whole[2..]);
    let cursor = process.join("cursor").start(&end).await.unwrap();
    assert_eq!(handle(&cursor, 2).await, whole[2..]);
    assert_eq!(handle(&latest, 1).await, whole[3..]);

    // An old group goes on at its commit, whatever is asked for now.
    before.close(SECOND).await.unwrap();
    append(topic, ["a-5"]).await;
    let again = Process::new(&state, &clock).await;
    let before = again.join("before").start(Start::Beginning).await.unwrap();
    assert_eq!(handle(&before, 1).await, ["a-5"]);
}

#[tokio::test(start_paused = true)]
async fn a_latest_group_that_dies_before_its_first_commit_skips_nothing() {
    let (state, clock, first) = world().await;
    append(&first.topic, numbered("a", 3)).await;
    let one = first.join("billing").start(Start::Latest).await.unwrap();
    first.kill();
    drop(one);
    let second = Process::new(&state, &clock).await;
    append(&second.topic, ["b-1", "b-2"]).await;
    let two = second.join("billing").start(Start::Latest).await.unwrap();
    assert_eq!(handle(&two, 2).await, ["b-1", "b-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_holds_everything_and_a_dead_one_do_not_slow_the_third() {
    let (state, clock, process) = world().await;
    let other = Process::new(&state, &clock).await;
    let dead = other.join("dead").await.unwrap();
    let full = process.join("full").in_flight(4, 1 << 20).await.unwrap();
    let healthy = process.join("healthy").await.unwrap();
    other.kill();
    for round in 0..10 {
        let values: Vec<String> = (0..8).map(|key| format!("{key}-{round}")).collect();
        append(&process.topic, &values).await;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&full).await);
    }
    // With everything in hand it waits, and waiting costs no time of others.
    assert!(is_quiet(&full, 5 * SECOND).await);
    let start = clock.elapsed();
    let seen = handle(&healthy, 80).await;
    assert_eq!(seen.len(), 80);
    assert!(clock.elapsed().saturating_sub(start) < SECOND);
    held.pop().unwrap().done();
    assert_eq!(text(&next(&full).await.detach()), "4-0");
    drop(dead);
}

#[tokio::test(start_paused = true)]
async fn sixteen_handlers_keep_the_order_of_each_key() {
    let (_, clock, process) = world().await;
    let mut dice = Dice::new(16);
    let keys: Vec<String> = (0..24).map(|n| format!("k{n}")).collect();
    let mut expected = vec![Vec::new(); keys.len()];
    for _ in 0..300 {
        let key = dice.below(keys.len());
        let value = format!("{}-{}", keys[key], expected[key].len());
        append(&process.topic, [&value]).await;
        expected[key].push(value);
    }
    let subscription = process
        .join("billing")
        .in_flight(64, 1 << 20)
        .await
        .unwrap();
    let (watch, times) = (Watch::default(), clock.clone());
    let (all, handled) = tokio::sync::oneshot::channel();
    let all = std::sync::Mutex::new(Some(all));
    let seen = watch.clone();
    let run = subscription.run(move |record| {
        let (watch, clock) = (seen.clone(), times.clone());
        let millis = record.value().iter().map(|b| u64::from(*b)).sum::<u64>() % 7;
        watch.begin(&record);
        if watch.count() == 300 {
            let _ = all.lock().unwrap().take().unwrap().send(());
        }
        async move {
            clock.sleep(Duration::from_millis(millis)).await;
            watch.end(&record);
        }
    });
    let closed = run.concurrency(16).until(handled).await.unwrap();
    assert_eq!((closed.returned, closed.left), (0, 0));
    assert_eq!((watch.overlaps(), watch.most()), (0, 16));
    for (key, values) in keys.iter().zip(&expected) {
        assert_eq!(&watch.of(key), values);
    }
    let again = process.join("billing").await.unwrap();
    assert_eq!(
        again.lag().await.unwrap().records,
        Some(0),
        "all is committed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_not_before_its_delay_and_with_its_attempt() {
    let (_, clock, process) = world().await;
    append(&process.topic, ["a-1", "a-2", "b-1"]).await;
    let billing = process.join("billing").await.unwrap();
    let first = next(&billing).await;
    let start = clock.elapsed();
    first.retry(5 * SECOND);
    assert_eq!(handle(&billing, 1).await, ["b-1"], "other keys go on");
    let again = next(&billing).await;
    assert_eq!((text(&again), again.attempt()), ("a-1".into(), 2));
    assert_eq!(clock.elapsed().saturating_sub(start), 5 * SECOND);
    drop(again);
    let again = next(&billing).await;
    assert_eq!(again.attempt(), 3);
    assert_eq!(
        clock.elapsed().saturating_sub(start),
        6 * SECOND,
        "the default"
    );
    again.done_and_wait().await.unwrap();
    assert_eq!(handle(&billing, 1).await, ["a-2"]);
}

#[tokio::test(start_paused = true)]
async fn poison_by_retry_is_buried_once_with_its_reason_and_nothing_else_is() {
    let (state, clock, process) = world().await;
    append(&process.topic, ["bad-1", "bad-2", "good-1", "good-2"]).await;
    let billing = process
        .join("billing")
        .max_attempts(3)
        .dead_letters("dead")
        .await
        .unwrap();
    let (handled, done) = tokio::sync::oneshot::channel();
    let handled = std::sync::Mutex::new(Some(handled));
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let run = billing.run(move |record| {
        let value = text(&record);
        if value == "bad-2" {
            handled.lock().unwrap().take().unwrap().send(()).unwrap();
        }
        let panics =
            value == "bad-1" && attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        async move {
            assert!(!panics, "the first attempt panics");
            if value == "bad-1" {
                return Err(format!("cannot bill {value}"));
            }
            Ok(())
        }
    });
    run.concurrency(4).until(done).await.unwrap();
    let dead = process.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(text(&dead[0]), "bad-1");
    assert_eq!(dead[0].key(), Some(&b"bad"[..]));
    assert_eq!(header(&dead[0], letters::REASON), "cannot bill bad-1");
    assert_eq!(header(&dead[0], letters::ATTEMPTS), "3");
    assert_eq!(header(&dead[0], letters::TOPIC), "orders");
    assert_eq!(header(&dead[0], letters::GROUP), "billing");
    let again = Process::new(&state, &clock).await;
    let billing = again.join("billing").await.unwrap();
    assert!(is_quiet(&billing, LEASE).await, "it is settled");
}

#[tokio::test(start_paused = true)]
async fn poison_that_ends_its_process_is_found_and_no_innocent_with_it() {
    let (state, clock, process) = world().await;
    let mut values = Vec::new();
    for n in 0..12 {
        values.push(format!("k{}-{n}", n % 3));
    }
    values[7] = "bad-7".into();
    append(&process.topic, &values).await;
    let mut handled = BTreeSet::new();
    let mut crashes = 0;
    loop {
        let process = Process::new(&state, &clock).await;
        let billing = process
            .join("billing")
            .max_attempts(3)
            .dead_letters("dead")
            .await
            .unwrap();
        // Three at a time are in hand, as with three handlers.
        let (mut hand, mut full) = (Vec::new(), false);
        let crashed = loop {
            if handled.len() == 11 && hand.is_empty() && !process.dead().await.is_empty() {
                break false;
            }
            let patience = if hand.is_empty() { SOON } else { SECOND };
            match tokio::time::timeout(patience, billing.next()).await {
                Ok(Ok(Some(delivery))) if text(&delivery) == "bad-7" => break true,
                Ok(Ok(Some(delivery))) => hand.push(delivery),
                Ok(other) => panic!("{other:?}"),
                Err(_) if hand.is_empty() => break false,
                Err(_) => full = true,
            }
            if full || hand.len() == 3 {
                full = false;
                let delivery = hand.remove(0);
                handled.insert(text(&delivery));
                delivery.done();
            }
        };
        if !crashed {
            break;
        }
        crashes += 1;
        assert!(crashes < 10, "never found");
        process.kill();
        hand.clear();
    }
    // The first crash may come before anything counts attempts one by one.
    assert!((3..=4).contains(&crashes), "{crashes}");
    let dead = process.dead().await;
    let dead: Vec<String> = dead.iter().map(text).collect();
    assert_eq!(dead, ["bad-7"]);
    values.retain(|value| value != "bad-7");
    assert_eq!(handled, values.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_record_is_settled_only_once_its_letter_is_stored() {
    let (state, clock, first) = world().await;
    append(&first.topic, ["a-1", "a-2"]).await;
    let one = first.join("billing").dead_letters("dead").await.unwrap();
    for _ in 0..3 {
        state.faults().inject(Call::Append, Fault::Disconnect);
    }
    next(&one).await.reject("cannot be billed");
    assert!(is_quiet(&one, SECOND).await, "its key waits");
    first.kill();
    let second = Process::new(&state, &clock).await;
    assert_eq!(second.dead().await.len(), 0);
    let two = second.join("billing").dead_letters("dead").await.unwrap();
    let again = next(&two).await;
    assert_eq!(text(&again), "a-1", "it was never lost");
    state
        .faults()
        .inject(Call::Append, Fault::Lose { done: true });
    again.reject("cannot be billed");
    assert_eq!(handle(&two, 1).await, ["a-2"]);
    let dead = second.dead().await;
    assert_eq!(dead.len(), 1, "sent twice, stored once");
    assert_eq!(header(&dead[0], letters::REASON), "cannot be billed");
    assert!(state.faults().fired() >= 3);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_refused_at_the_open() {
    let (_, _, process) = world().await;
    let kind = |opened: annals_core::Result<Subscription>| opened.unwrap_err().kind();
    let without = process.join("billing").max_attempts(3).await;
    assert_eq!(kind(without), ErrorKind::Config);
    let nowhere = process.join("billing").dead_letters("nowhere").await;
    assert_eq!(kind(nowhere), ErrorKind::NotFound);
    let own = process.join("billing").dead_letters("orders").await;
    assert_eq!(kind(own), ErrorKind::Config);
    let nothing = process.join("billing").in_flight(0, 1).await;
    assert_eq!(kind(nothing), ErrorKind::Config);
    let billing = process.join("billing").await.unwrap();
    append(&process.topic, ["a-1"]).await;
    next(&billing).await.reject("nowhere to go");
    let told = tokio::time::timeout(SOON, billing.next()).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(next(&billing).await.attempt(), 2, "it stays unsettled");
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_lease_ran_out_settles_nothing() {
    let (state, _, process) = world().await;
    append(&process.topic, ["a-1", "b-1"]).await;
    let billing = process.join("billing").await.unwrap();
    let (first, second) = (next(&billing).await, next(&billing).await);
    // Its table does not answer for longer than it holds.
    for _ in 0..200 {
        state.faults().inject(Call::Lease, Fault::Disconnect);
    }
    tokio::time::timeout(SOON, first.revoked())
        .await
        .expect("never revoked");
    state.faults().heal();
    let late = first.done_and_wait().await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Expired);
    second.done();
    let told = tokio::time::timeout(SOON, billing.next()).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Expired);
    assert_eq!(handle(&billing, 2).await, ["a-1", "b-1"], "both come again");
    billing.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_commit_is_tried_again_and_told_only_if_it_lasts() {
    let (state, clock, process) = world().await;
    append(&process.topic, numbered("a", 2)).await;
    let billing = process.join("billing").lease(400 * SECOND).await.unwrap();
    let delivery = next(&billing).await;
    state.faults().inject(Call::Lease, Fault::Disconnect);
    state
        .faults()
        .inject(Call::Lease, Fault::Lose { done: true });
    delivery.done_and_wait().await.unwrap();
    assert_eq!(state.faults().left(), 0);
    let delivery = next(&billing).await;
    for _ in 0..30 {
        state.faults().inject(Call::Lease, Fault::Disconnect);
    }
    let start = clock.elapsed();
    let told = delivery.done_and_wait().await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Disconnected);
    let waited = clock.elapsed().saturating_sub(start);
    assert!(waited >= annals_core::defaults::RETRY_FOR, "{waited:?}");
    assert_eq!(
        billing.flush().await.unwrap_err().kind(),
        ErrorKind::Disconnected
    );
    state.faults().heal();
    billing.flush().await.unwrap();
    append(&process.topic, ["a-3"]).await;
    assert_eq!(handle(&billing, 1).await, ["a-3"], "alive");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_once_before_the_records_behind_it() {
    let (state, clock, process) = world().await;
    append(&process.topic, numbered("a", 4)).await;
    let billing = process.join("billing").await.unwrap();
    handle(&billing, 1).await;
    billing.close(SECOND).await.unwrap();
    append(&process.topic, numbered("b", 4)).await;
    state.trim(&TopicName::new("orders").unwrap(), 2).unwrap();
    let again = Process::new(&state, &clock).await;
    let billing = again.join("billing").await.unwrap();
    let gap = tokio::time::timeout(SOON, billing.next()).await.unwrap();
    assert!(gap.unwrap_err().gap().is_some());
    assert_eq!(handle(&billing, 2).await, ["b-3", "b-4"]);
    assert!(is_quiet(&billing, LEASE).await);
    billing.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_hears_what_went_after_it_was_made_wherever_it_started() {
    let (state, clock, first) = world().await;
    let name = TopicName::new("orders").unwrap();
    append(&first.topic, numbered("a", 4)).await;
    state.trim(&name, 2).unwrap();
    let early = clock.now();
    clock.sleep(SECOND).await;
    let now = clock.now();
    let starts = [
        ("latest", Start::Latest),
        ("earliest", Start::Earliest),
        ("since", Start::Since(now)),
        ("long-since", Start::Since(early)),
    ];
    let mut members = Vec::new();
    for (group, start) in &starts {
        members.push(first.join(group).start(start.clone()).await.unwrap());
        let made = first.topic.bus().admin().unwrap();
        let group = Group::new(format!("{group}-made")).unwrap();
        let start = Some(start.clone());
        made.create_group(&name, &group, start).await.unwrap();
    }
    first.kill();
    drop(members);
    let second = Process::new(&state, &clock).await;
    append(&second.topic, numbered("b", 4)).await;
    state.trim(&name, 1).unwrap();
    for (group, _) in &starts {
        for group in [(*group).to_owned(), format!("{group}-made")] {
            let member = second.join(&group).await.unwrap();
            let gap = tokio::time::timeout(SOON, member.next()).await.unwrap();
            let error = gap.unwrap_err();
            assert!(error.gap().is_some(), "{group}: {error}");
            assert_eq!(handle(&member, 1).await, ["b-4"], "{group}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn next_loses_nothing_wherever_it_is_dropped() {
    let (_, _, process) = world().await;
    append(&process.topic, numbered("a", 40)).await;
    let billing = process.join("billing").await.unwrap();
    let mut values = Vec::new();
    let mut polls = 0;
    while values.len() < 40 {
        let next = std::pin::pin!(billing.next());
        // Polled so many times, then dropped.
        let got = poll_times(next, polls % 4).await;
        polls += 1;
        assert!(polls < 4_000, "never ready");
        if let Some(delivery) = got {
            let delivery = delivery.unwrap().unwrap();
            values.push(text(&delivery));
            delivery.done();
        }
    }
    assert_eq!(values, numbered("a", 40));
}

/// Polls at most so many times, letting others run in between.
async fn poll_times<F: Future>(
    mut future: std::pin::Pin<&mut F>,
    times: usize,
) -> Option<F::Output> {
    for _ in 0..=times {
        let ready = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        });
        if let Some(output) = ready.await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_partition_held_back_for_a_hole_goes_on_when_that_is_settled() {
    let (_, _, process) = world().await;
    append(&process.topic, ["hole"]).await;
    for round in 0..100 {
        append(&process.topic, [format!("k-{round}")]).await;
    }
    let billing = process.join("billing").in_flight(2, 1 << 20).await.unwrap();
    let hole = next(&billing).await;
    let seen = handle(&billing, 32).await;
    assert_eq!(seen.last().unwrap(), "k-31", "sixteen times two");
    let mut rest = 0;
    while !is_quiet(&billing, SECOND).await {
        // `is_quiet` took it and let go of it.
        rest += 1;
        assert!(rest < 8, "the window has no end");
    }
    hole.done();
    let mut seen = BTreeSet::new();
    while seen.len() < 100 - 32 {
        seen.extend(handle(&billing, 1).await);
    }
}

#[tokio::test(start_paused = true)]
async fn until_ends_a_run_whose_handlers_are_stopped_after_their_grace() {
    let (state, clock, process) = world().await;
    append(&process.topic, ["slow-1", "slow-2", "quick-1"]).await;
    let billing = process.join("billing").await.unwrap();
    let times = clock.clone();
    let run = billing.run(move |record| {
        let clock = times.clone();
        async move {
            if text(&record).starts_with("slow") {
                clock.sleep(100 * SECOND).await;
            }
        }
    });
    let start = clock.elapsed();
    let times = clock.clone();
    let until = async move { times.sleep(5 * SECOND).await };
    let run = run.concurrency(2).until(until).grace(10 * SECOND);
    let closed = run.await.unwrap();
    let took = clock.elapsed().saturating_sub(start);
    assert!(took >= 13 * SECOND && took <= 15 * SECOND, "{took:?}");
    assert_eq!((closed.returned, closed.left), (2, 0));
    let again = Process::new(&state, &clock).await;
    let billing = again.join("billing").await.unwrap();
    // What was settled behind a hole could not be committed.
    let whole = ["slow-1", "slow-2", "quick-1"];
    assert_eq!(handle(&billing, 3).await, whole);
}

#[tokio::test(start_paused = true)]
async fn six_lives_with_crashes_anywhere_are_handed_everything_and_nothing_committed_twice() {
    let mut dice = Dice::new(0x006c_6f67);
    for round in 0..8 {
        let (state, clock, process) = world().await;
        let mut values = Vec::new();
        for n in 0..60 {
            values.push(format!("k{}-{n}", dice.below(5)));
        }
        append(&process.topic, &values).await;
        let mut lives = Lives::default();
        for life in 0..6 {
            lives.begin(life);
            live(
                &mut lives,
                &mut dice,
                &Process::new(&state, &clock).await,
                &values,
            )
            .await;
        }
        let last = Process::new(&state, &clock).await;
        let billing = last.join("billing").await.unwrap();
        lives.begin(6);
        while !lives.is_all(&values) {
            let delivery = tokio::time::timeout(SOON, next(&billing)).await;
            let Ok(delivery) = delivery else { break };
            lives.handed(&text(&delivery));
            delivery.done();
        }
        lives.assert_all(&values);
        println!("round {round}: {} repeated", lives.repeated());
    }
}

/// One life: takes some, settles some in any order, flushes now and then, and is killed.
async fn live(lives: &mut Lives, dice: &mut Dice, process: &Process, values: &[String]) {
    let billing = process.join("billing").in_flight(8, 1 << 20).await.unwrap();
    let (mut hand, mut done) = (Vec::new(), BTreeSet::new());
    let mut first = None;
    for _ in 0..dice.below(30) {
        match dice.below(8) {
            0..4 if hand.len() < 5 => {
                let Ok(next) = tokio::time::timeout(2 * LEASE, billing.next()).await else {
                    break;
                };
                let delivery = next.unwrap().unwrap();
                lives.handed(&text(&delivery));
                let place = values.iter().position(|v| *v == text(&delivery)).unwrap();
                first.get_or_insert(place);
                hand.push((place, delivery));
            }
            0..6 if !hand.is_empty() => {
                let (place, delivery) = hand.swap_remove(dice.below(hand.len()));
                delivery.done();
                done.insert(place);
            }
            6 if !hand.is_empty() => {
                let (_, delivery) = hand.swap_remove(dice.below(hand.len()));
                delivery.retry(Duration::from_millis(dice.below(300) as u64));
            }
            7 => {
                billing.flush().await.unwrap();
                // Committed is what is settled without a hole.
                let from = first.unwrap_or_default();
                let whole = (from..).take_while(|place| done.contains(place));
                lives.committed(whole.map(|place| values[place].clone()));
            }
            _ => process.clock.sleep(Duration::from_millis(100)).await,
        }
    }
    process.kill();
}
