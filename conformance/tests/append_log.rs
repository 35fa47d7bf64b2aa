//! Appends to one partition, through core's handles: conditions, ids, resubmission.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod reading;

use std::time::Duration;

use annals_conformance::models::{Call, Fault};
use annals_core::{Batch, Effect, ErrorKind, Position, Record, Topic};

use reading::*;

/// Where each is, and whether it had been stored before.
async fn places(topic: &Topic, batch: Batch, last: Option<&Position>) -> Vec<(u64, bool)> {
    let stored = topic.append(batch).if_key_at("order", last).await.unwrap();
    let place = |stored: &annals_core::Stored| {
        let number = stored.position.unwrap().number_u64().unwrap();
        (number, stored.duplicate)
    };
    stored.records().iter().map(place).collect()
}

fn two() -> Batch {
    let record = |n: &str| Record::new(n).key("order").id(format!("id-{n}"));
    Batch::from([record("1"), record("2")])
}

#[tokio::test(start_paused = true)]
async fn a_rival_who_was_faster_is_a_conflict_without_effect() {
    let log = one_log().await;
    let rival = log.bus.topic("orders").await.unwrap();
    let last = append(&log.topic, &["order-0"]).await[0].position;
    let end = log.topic.end().await.unwrap();
    append(&rival, &["order-1"]).await;
    let failed = log.topic.append(two()).if_key_at("order", last.as_ref());
    let failed = failed.await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Conflict, Effect::None)
    );
    let failed = log.topic.append(two()).if_end_at(&end).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Conflict, Effect::None)
    );
    let none = log.topic.append(two()).if_key_at("order", None).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(all(&log.topic, None).await, ["order-0", "order-1"]);
    // On what is there now it goes through.
    let end = log.topic.end().await.unwrap();
    log.topic.append(two()).if_end_at(&end).await.unwrap();
    assert_eq!(all(&log.topic, None).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_condition_repeated_with_the_same_ids_answers_the_first_places() {
    let log = one_log().await;
    let last = append(&log.topic, &["order-0"]).await[0].position;
    // The answer gets lost: tried again inside, it must not conflict with itself.
    log.state
        .faults()
        .inject(Call::Append, Fault::Lose { done: true });
    let first = places(&log.topic, two(), last.as_ref()).await;
    assert_eq!(first, [(1, true), (2, true)]);
    assert_eq!(log.state.faults().fired(), 1);
    // Another process, which knows nothing but the ids, later, with others in between.
    append(&log.topic, &["order-9"]).await;
    let again = log.state.connect();
    let again = annals_core::Bus::new(again).with_clock(log.bus.clock().clone());
    let again = again.topic("orders").await.unwrap();
    assert_eq!(places(&again, two(), last.as_ref()).await, first);
    assert_eq!(
        all(&log.topic, None).await,
        ["order-0", "1", "2", "order-9"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_unconfirmed_is_resubmitted_as_what_it_was() {
    for (fault, effect, twice) in [
        (Fault::Lose { done: true }, Effect::Unknown, true),
        (Fault::Lose { done: false }, Effect::Unknown, false),
        (Fault::Disconnect, Effect::None, false),
    ] {
        let log = one_log().await;
        append(&log.topic, &["a-0"]).await;
        // The outage outlasts the retries.
        for _ in 0..200 {
            log.state.faults().inject(Call::Append, fault.clone());
        }
        let batch: Batch = ["a-1", "b-1", "a-2"].map(record).into();
        let failed = log.topic.append(batch.clone()).await.unwrap_err();
        assert_eq!(failed.effect(), effect, "{fault:?}");
        assert!(failed.retry() != annals_core::Retry::Never);
        log.state.faults().heal();
        let open = failed.unconfirmed();
        assert_eq!(open.submission(2), batch.submission(2));
        let stored = log.topic.append(open).await.unwrap();
        let duplicate = stored.records().iter().all(|stored| stored.duplicate);
        assert_eq!(duplicate, twice, "{fault:?}");
        let numbers: Vec<_> = stored
            .records()
            .iter()
            .map(|s| s.position.unwrap())
            .collect();
        let read = all(&log.topic, None).await;
        assert_eq!(read, ["a-0", "a-1", "b-1", "a-2"], "once, in order");
        assert_eq!(numbers[2].number_u64(), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_not_repeated_once_the_window_is_over() {
    let log = one_log().await;
    for _ in 0..200 {
        log.state
            .faults()
            .inject(Call::Append, Fault::Lose { done: true });
    }
    let failed = log.topic.append(record("a-1")).await.unwrap_err();
    log.state.faults().heal();
    tokio::time::advance(Duration::from_secs(301)).await;
    log.state
        .faults()
        .inject(Call::Append, Fault::Lose { done: true });
    let fired = log.state.faults().fired();
    let failed = log.topic.append(failed.unconfirmed()).await.unwrap_err();
    assert_eq!(failed.effect(), Effect::Unknown);
    assert_eq!(log.state.faults().fired(), fired + 1, "one attempt");
}
