//! The appender: order, bounds, flush, close.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod scripted;

use std::time::Duration;

use annals_core::capability::{Batching, Capabilities};
use annals_core::{Appender, Effect, ErrorKind, Record};
use scripted::{Answer, REFUSE, Say, Scripted, THROTTLE, capabilities, each, record};

const MINUTE: Duration = Duration::from_secs(60);

fn prefix(in_flight: u32) -> Capabilities {
    let mut has = capabilities(Batching::Prefix);
    has.append.in_flight = in_flight;
    has
}

async fn open(backend: &Scripted) -> Appender {
    backend.topic().await.appender().await.unwrap()
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lingering_records_go_together_and_a_full_batch_goes_at_once() {
    let backend = Scripted::new(prefix(1), []);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(3, 1_000)
        .linger(MINUTE)
        .await
        .unwrap();
    let mut tickets = Vec::new();
    for name in ["a1", "a2", "b1", "a3"] {
        tickets.push(appender.submit(record(name)).await.unwrap());
    }
    settle().await;
    assert_eq!(backend.requests(), ["a1 a2 b1"]);
    let begun = tokio::time::Instant::now();
    let mut places = Vec::new();
    for ticket in tickets {
        places.push(
            ticket
                .await
                .unwrap()
                .position
                .unwrap()
                .number_u64()
                .unwrap(),
        );
    }
    assert_eq!(places, [1, 2, 3, 4]);
    assert_eq!(begun.elapsed(), MINUTE);
    assert_eq!(backend.requests(), ["a1 a2 b1", "a3"]);
    let stored = appender.append(record("c1")).await.unwrap();
    assert_eq!(stored.position.unwrap().number_u64(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn batches_keep_to_what_one_request_may_carry() {
    let mut has = prefix(1);
    has.limits.batch_records = Some(2).into();
    let backend = Scripted::new(has, []);
    let appender = open(&backend).await;
    for name in ["a1", "a2", "a3"] {
        drop(appender.submit(record(name)).await.unwrap());
    }
    appender.flush().await.unwrap();
    assert_eq!(backend.requests(), ["a1 a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn several_batches_are_under_way_but_never_two_with_one_key() {
    let backend = Scripted::gated(prefix(3), []);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(2, 1_000)
        .linger(Duration::ZERO)
        .await
        .unwrap();
    for name in ["a1", "b1", "a2", "c1", "-1", "a3", "-2", "-3"] {
        drop(appender.submit(record(name)).await.unwrap());
    }
    settle().await;
    assert_eq!(backend.requests(), ["a1 b1", "c1 -1", "-2 -3"]);
    backend.let_through(1);
    settle().await;
    assert_eq!(backend.requests()[3], "a2 a3");
    backend.let_through(3);
    appender.flush().await.unwrap();

    // One at a time where the topic takes no more.
    let backend = Scripted::gated(prefix(1), []);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(1, 1_000)
        .linger(Duration::ZERO)
        .await
        .unwrap();
    for name in ["a1", "b1"] {
        drop(appender.submit(record(name)).await.unwrap());
    }
    settle().await;
    assert_eq!(backend.requests(), ["a1"]);
    backend.let_through(2);
    appender.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_without_a_common_key_go_together_where_their_order_is_not_fixed() {
    let mut has = prefix(4);
    has.append.in_flight = 1;
    has.append.parallel = 3;
    let backend = Scripted::gated(has, []);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(1, 1_000)
        .linger(Duration::ZERO)
        .await
        .unwrap();
    for name in ["a1", "a2", "b1", "c1", "d1"] {
        drop(appender.submit(record(name)).await.unwrap());
    }
    settle().await;
    assert_eq!(backend.requests(), ["a1", "b1", "c1"]);
    backend.let_through(5);
    appender.flush().await.unwrap();
    assert_eq!(backend.stored().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn where_records_are_stored_singly_a_batch_carries_a_key_once() {
    let backend = Scripted::new(capabilities(Batching::PerRecord), [each([THROTTLE])]);
    let appender = open(&backend).await;
    for name in ["a1", "a2", "b1", "-1", "-2", "b2"] {
        drop(appender.submit(record(name)).await.unwrap());
    }
    appender.flush().await.unwrap();
    assert_eq!(backend.requests(), ["a1 b1 -1 -2", "a1", "a2 b2"]);
    assert_eq!(backend.stored(), ["b1", "-1", "-2", "a1", "a2", "b2"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_stops_what_waits_behind_it_and_nothing_else() {
    let backend = Scripted::gated(prefix(2), [each([REFUSE])]);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(2, 1_000)
        .linger(Duration::ZERO)
        .await
        .unwrap();
    let mut tickets = Vec::new();
    for name in ["a1", "b1", "a2", "b2"] {
        tickets.push(appender.submit(record(name)).await.unwrap());
    }
    settle().await;
    assert_eq!(backend.requests(), ["a1 b1"]);
    backend.let_through(9);
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(ticket.await);
    }
    assert_eq!(backend.stored(), ["b1", "b2"]);
    let refused = results[0].clone().unwrap_err();
    assert_eq!(
        (refused.kind(), refused.effect()),
        (ErrorKind::Throttled, Effect::None)
    );
    let behind = results[2].clone().unwrap_err();
    assert_eq!(
        (behind.kind(), behind.effect()),
        (ErrorKind::Throttled, Effect::None)
    );
    assert!(
        behind.to_string().contains("an earlier record of its key"),
        "{behind}"
    );
    assert!(results[1].is_ok() && results[3].is_ok());
    let told = appender.flush().await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Throttled);
    appender.append(record("a3")).await.unwrap();
    appender.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unknown_record_is_not_overtaken_either() {
    let backend = Scripted::gated(prefix(2), [each([Say::Lose])]);
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(1, 1_000)
        .linger(Duration::ZERO)
        .await
        .unwrap();
    let first = appender.submit(record("a1")).await.unwrap();
    let second = appender.submit(record("a2")).await.unwrap();
    settle().await;
    backend.let_through(9);
    assert_eq!(first.await.unwrap_err().effect(), Effect::Unknown);
    assert_eq!(second.await.unwrap_err().effect(), Effect::None);
    assert_eq!(backend.requests(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_appender_makes_submitters_wait_and_gives_tried_records_back() {
    let backend = Scripted::gated(prefix(1), []);
    let topic = backend.topic().await;
    let one = record("a1").len_bytes() + size_of::<Record>();
    let opening = topic
        .appender()
        .linger(Duration::ZERO)
        .bytes_in_flight(2 * one);
    let appender = opening.await.unwrap();
    let first = appender.submit(record("a1")).await.unwrap();
    let permit = appender.reserve(3).await.unwrap();
    let full = appender.try_submit(record("b1")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Blocked);
    assert_eq!(full.into_record(), record("b1"));
    let waiting = tokio::spawn({
        let appender = appender.clone();
        async move { appender.append(record("a3")).await }
    });
    settle().await;
    assert!(!waiting.is_finished());
    assert_eq!(backend.requests(), ["a1"]);
    let second = permit.submit(record("a2")).unwrap();
    backend.let_through(1);
    first.await.unwrap();
    settle().await;
    backend.let_through(9);
    second.await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(backend.stored(), ["a1", "a2", "a3"]);

    let permit = appender.reserve(2).await.unwrap();
    let full = permit.submit(record("a4")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::TooLarge);
    // Nothing leaks: the whole budget is free again.
    let all = appender.reserve(one).await.unwrap();
    assert_eq!(all.bytes(), one);
}

#[tokio::test(start_paused = true)]
async fn flush_covers_what_was_submitted_before_it_and_does_not_linger() {
    let backend = Scripted::gated(prefix(1), []);
    let topic = backend.topic().await;
    let appender = topic.appender().linger(MINUTE).await.unwrap();
    drop(appender.submit(record("a1")).await.unwrap());
    let flush = tokio::spawn({
        let appender = appender.clone();
        async move { appender.flush().await }
    });
    settle().await;
    drop(appender.submit(record("a2")).await.unwrap());
    assert_eq!(backend.requests(), ["a1"]);
    assert!(!flush.is_finished());
    backend.let_through(1);
    flush.await.unwrap().unwrap();
    assert_eq!(backend.stored(), ["a1"]);
    backend.let_through(1);
    appender.flush().await.unwrap();
    assert_eq!(backend.stored(), ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn close_sends_what_was_accepted_and_refuses_what_comes() {
    let backend = Scripted::new(prefix(1), []);
    let topic = backend.topic().await;
    let appender = topic.appender().linger(MINUTE).await.unwrap();
    let clone = appender.clone();
    let ticket = appender.submit(record("a1")).await.unwrap();
    let begun = tokio::time::Instant::now();
    appender.close(MINUTE).await.unwrap();
    assert!(begun.elapsed() < MINUTE);
    assert!(ticket.await.is_ok());
    for refused in [
        clone.submit(record("a2")).await.unwrap_err(),
        clone.try_submit(record("a2")).unwrap_err().into(),
        clone.reserve(1).await.unwrap_err(),
    ] {
        assert_eq!(
            (refused.kind(), refused.effect()),
            (ErrorKind::Closed, Effect::None)
        );
    }
    clone.close(MINUTE).await.unwrap();
    assert_eq!(backend.stored(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn close_ends_within_its_grace_though_the_backend_hangs() {
    let backend = Scripted::new(prefix(1), [Answer::Hang]);
    let topic = backend.topic().await;
    let appender = topic.appender().batch(1, 1_000).await.unwrap();
    let sent = appender.submit(record("a1")).await.unwrap();
    let never = appender.submit(record("b1")).await.unwrap();
    let begun = tokio::time::Instant::now();
    let failed = appender.close(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    assert_eq!(sent.await.unwrap_err().effect(), Effect::Unknown);
    assert_eq!(never.await.unwrap_err().effect(), Effect::None);
    assert_eq!(backend.requests(), ["a1"]);
    appender.close(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_all_clones_and_tickets_still_sends_what_was_accepted() {
    let backend = Scripted::new(prefix(1), []);
    let topic = backend.topic().await;
    let appender = topic.appender().linger(MINUTE).await.unwrap();
    let clone = appender.clone();
    drop(appender.submit(record("a1")).await.unwrap());
    drop(appender);
    settle().await;
    assert_eq!(backend.stored().len(), 0, "a clone is left: it lingers");
    let ticket = clone.submit(record("a2")).await.unwrap();
    drop(clone);
    ticket.await.unwrap();
    assert_eq!(backend.stored(), ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_over_a_limit_fails_alone_and_at_once() {
    let mut has = prefix(1);
    has.limits.record_bytes = Some(3).into();
    let backend = Scripted::new(has, []);
    let appender = open(&backend).await;
    let good = appender.submit(record("a1")).await.unwrap();
    let failed = appender.submit(record("a1234")).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TooLarge);
    good.await.unwrap();
    let topic = backend.topic().await;
    let failed = topic.appender().batch(0, 1).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn many_writers_keep_the_order_of_their_keys_under_partial_failure() {
    let script = (0..400).map(|n| match n % 4 {
        0 => each([THROTTLE, Say::Skip, Say::Skip, Say::Skip, Say::Skip]),
        1 => each([Say::Store, THROTTLE, Say::Store, THROTTLE]),
        _ => Answer::All(Say::Store),
    });
    let backend = Scripted::new(
        {
            let mut has = capabilities(Batching::PerRecord);
            has.append.in_flight = 4;
            has
        },
        script,
    );
    let topic = backend.topic().await;
    let appender = topic
        .appender()
        .batch(5, 1_000)
        .bytes_in_flight(4_000)
        .await
        .unwrap();
    let writers: Vec<_> = ('a'..'i')
        .map(|key| {
            let appender = appender.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let ticket = appender.submit(record(&format!("{key}{n:02}"))).await;
                    drop(ticket.unwrap());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    appender.close(10 * MINUTE).await.unwrap();
    let stored = backend.stored();
    assert_eq!(stored.len(), 400);
    for key in 'a'..'i' {
        let of_key: Vec<_> = stored
            .iter()
            .filter(|value| value.starts_with(key))
            .collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
}

#[test]
fn outside_of_a_runtime_opening_is_refused() {
    let topic = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { Scripted::new(prefix(1), []).topic().await })
    };
    let mut opening = std::pin::pin!(topic.appender());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = opening.as_mut().poll(&mut cx) else {
        unreachable!("opening never waits");
    };
    assert_eq!(error.kind(), ErrorKind::Config);
}
