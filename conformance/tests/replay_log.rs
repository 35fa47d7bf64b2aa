//! Replay and follow over one partition, through core's handles.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod reading;

use std::time::Duration;

use annals_conformance::models::{Call, Fault};
use annals_core::{ErrorKind, Start, Timestamp, Until};

use reading::*;

const SECOND: Duration = Duration::from_secs(1);

/// Eight records of three keys, a second apart.
async fn eight() -> OneLog {
    let log = one_log().await;
    for value in ["a-0", "b-1", "a-2", "3", "b-4", "a-5", "c-6", "a-7"] {
        append(&log.topic, &[value]).await;
        tokio::time::advance(SECOND).await;
    }
    log
}

fn number(value: &str) -> i64 {
    let number = value.rsplit('-').next().unwrap();
    number.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_range_between_two_cursors_is_what_lies_between_them() {
    let log = eight().await;
    let (values, cursors) = cuts(log.topic.replay(None).await.unwrap()).await;
    assert_eq!(values.len(), 8);
    for (i, from) in cursors.iter().enumerate() {
        let from = through_text(from);
        assert_eq!(all(&log.topic, &from).await, values[i..]);
        for (j, to) in cursors.iter().enumerate() {
            let read = between(&log.topic, (&from).into(), Until::Through(to.clone())).await;
            let expected = values.get(i..j).unwrap_or_default();
            assert_eq!(read, expected, "{from} to {to}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn before_and_since_a_moment_are_the_whole_once() {
    let log = eight().await;
    let values = all(&log.topic, None).await;
    for millis in (0..10_000).step_by(500) {
        let moment = Timestamp::from_millis(1_000_000 + millis);
        let mut read = between(&log.topic, Start::Beginning, Until::Before(moment)).await;
        let older = |value: &&String| number(value) * 1_000 < millis;
        assert_eq!(read.len(), values.iter().filter(older).count());
        read.extend(all(&log.topic, Start::Since(moment)).await);
        assert_eq!(read, values, "at {moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_found_by_index_and_gone_on_with_from_every_cursor() {
    let log = eight().await;
    let (values, cursors) = cuts(log.topic.replay(None).key("a").await.unwrap()).await;
    assert_eq!(values, ["a-0", "a-2", "a-5", "a-7"]);
    for (cut, cursor) in cursors.iter().enumerate() {
        let cursor = through_text(cursor);
        let mut rest_of_key = log.topic.replay(&cursor).key("a").await.unwrap();
        assert_eq!(rest(&mut rest_of_key).await, values[cut..]);
    }
    let mut none = log.topic.replay(None).scan_key("nobody").await.unwrap();
    assert!(none.next().await.unwrap().is_none());
    assert_eq!(all(&log.topic, none.cursor()).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_once_before_any_later_record_and_only_where_something_is_missing() {
    let log = eight().await;
    let (values, cursors) = cuts(log.topic.replay(None).await.unwrap()).await;
    log.state.trim(&name(), 3).unwrap();
    let error = {
        let mut replay = log.topic.replay(Start::Beginning).await.unwrap();
        replay.next().await.unwrap_err()
    };
    assert_eq!(error.kind(), ErrorKind::Gap);
    let to = error.gap().unwrap().to.unwrap();
    assert_eq!(to.number_u64(), Some(5), "the first one read");
    for (cut, cursor) in cursors.iter().enumerate() {
        let mut expected = values[cut.max(5)..].to_vec();
        if cut < 5 {
            expected.insert(0, "[gap 0]".to_owned());
        }
        assert_eq!(all(&log.topic, cursor).await, expected, "cut {cut}");
        // Nothing is missing in a range that asks for nothing.
        let nothing = Until::Through(cursor.clone());
        let read = between(&log.topic, cursor.into(), nothing).await;
        assert_eq!(read, [""; 0], "cut {cut}");
    }
    assert_eq!(all(&log.topic, Start::Earliest).await, values[5..]);
    let since = |second: i64| Start::Since(Timestamp::from_millis(1_000_000 + second * 1_000));
    assert_eq!(all(&log.topic, since(4)).await[0], "[gap 0]");
    assert_eq!(all(&log.topic, since(5)).await, values[5..]);
    let whole = log
        .bus
        .topic("orders")
        .needs([annals_core::Need::FullHistory]);
    assert_eq!(whole.await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_caught_up_once_and_overtaken_with_a_gap() {
    let log = eight().await;
    let mut follow = log.topic.follow(None).await.unwrap();
    append(&log.topic, &["a-8"]).await;
    let said = signals(&mut follow).await;
    let caught_up = said.iter().filter(|said| *said == "[caught up]").count();
    assert_eq!((said.len(), caught_up), (10, 1));
    assert!(said.iter().position(|said| said == "[caught up]") >= Some(8));
    append(&log.topic, &["a-9", "a-10", "a-11"]).await;
    log.state.trim(&name(), 1).unwrap();
    assert_eq!(signals(&mut follow).await, ["[gap 0]", "a-11"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_that_of_the_open_and_the_lag_counts_down_to_it() {
    let log = eight().await;
    let mut replay = log.topic.replay(None).await.unwrap();
    for left in (0..8).rev() {
        replay.next().await.unwrap().unwrap();
        assert_eq!(replay.lag().await.unwrap().records, Some(left));
    }
    let stored = append(&log.topic, &["a-8"]).await[0].position.unwrap();
    assert_eq!(replay.lag().await.unwrap().records, Some(1));
    assert!(replay.next().await.unwrap().is_none(), "it was not there");
    let end = log.topic.end().await.unwrap();
    assert_eq!(end.covers(&stored), Some(true));
    assert_eq!(replay.cursor().covers(&stored), Some(false));
    assert_eq!(log.topic.lag(&end).await.unwrap().records, Some(0));
}

#[tokio::test(start_paused = true)]
async fn faults_while_reading_lose_and_repeat_nothing() {
    for fault in [
        Fault::Throttle(SECOND),
        Fault::Disconnect,
        Fault::Delay(SECOND),
        Fault::Lose { done: true },
    ] {
        let log = eight().await;
        let values = all(&log.topic, None).await;
        for _ in 0..5 {
            log.state.faults().inject(Call::Fetch, fault.clone());
        }
        let mut replay = log.topic.replay(None).buffer(20).await.unwrap();
        assert_eq!(rest(&mut replay).await, values, "{fault:?}");
        assert_eq!(log.state.faults().fired(), 5);
    }
}
