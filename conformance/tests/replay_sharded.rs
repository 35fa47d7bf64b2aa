//! Replay and follow over partitions that split and merge, through core's handles.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod reading;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_conformance::models::{Call, Fault};
use annals_core::capability::Retention;
use annals_core::driver::TopicSpec;
use annals_core::{Cursor, ErrorKind, Frontier, Rest, Signal, Start, Timestamp, Until};

use reading::*;

const SECOND: Duration = Duration::from_secs(1);

/// Shard 0 split into 1 and 2, 1 into 3 and 4, and 4 merged with 2 into 5. Of the six keys, k and s
/// go to shard 3, b and f to 4, a and c to 2.
async fn family() -> Shards {
    let shards = shards(1).await;
    for round in ["0", "1", "2", "3"] {
        match round {
            "1" => assert_eq!(shards.split(0), (1, 2)),
            "2" => assert_eq!(shards.split(1), (3, 4)),
            "3" => assert_eq!(shards.merge(4, 2), 5),
            _ => {}
        }
        let values: Vec<String> = ["a", "b", "c", "f", "k", "s"]
            .iter()
            .map(|key| format!("{key}-{round}"))
            .collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        append(&shards.topic, &values).await;
        tokio::time::advance(SECOND).await;
    }
    shards
}

const FAMILY: usize = 24;

#[tokio::test(start_paused = true)]
async fn a_replay_reads_parents_before_children_and_each_key_in_order() {
    let shards = family().await;
    let mut replay = shards.topic.replay(None).await.unwrap();
    let mut order = Vec::new();
    let mut values = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        order.push(record.position().unwrap().partition().get());
        values.push(text(&record));
    }
    assert_eq!(values.len(), FAMILY);
    for (key, values) in by_key(&values) {
        let expected: Vec<String> = (0..4).map(|n| format!("{key}-{n}")).collect();
        assert_eq!(values, expected);
    }
    let first = |shard| order.iter().position(|s| *s == shard).unwrap();
    let last = |shard| order.iter().rposition(|s| *s == shard).unwrap();
    for (parent, child) in [(0, 1), (0, 2), (1, 3), (1, 4), (4, 5), (2, 5)] {
        assert!(last(parent) < first(child), "{parent} before {child}");
    }
    // Only what is not finished is named.
    let named: Vec<u64> = replay.cursor().places().map(|(id, _)| id.get()).collect();
    assert_eq!(named, [3, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_from_every_cursor_also_after_the_shards_changed_again() {
    let shards = family().await;
    let (values, cursors) = cuts(shards.topic.replay(None).await.unwrap()).await;
    for change in 0..3 {
        match change {
            1 => drop(shards.split(5)),
            2 => drop(shards.merge(3, 6)),
            _ => {}
        }
        let mut whole = values.clone();
        for round in 0..change {
            let later = format!("a-{}", 4 + round);
            if round + 1 == change {
                append(&shards.topic, &[later.as_str()]).await;
            }
            whole.push(later);
        }
        for (cut, cursor) in cursors.iter().enumerate() {
            let rest = all(&shards.topic, &through_text(cursor)).await;
            let mut read = values[..cut].to_vec();
            read.extend(rest);
            assert_eq!(by_key(&read), by_key(&whole), "cut {cut}: {cursor}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_range_between_two_cursors_is_what_was_read_between_them() {
    let shards = family().await;
    let (values, cursors) = cuts(shards.topic.replay(None).await.unwrap()).await;
    for (i, from) in cursors.iter().enumerate() {
        for (j, to) in cursors.iter().enumerate() {
            let read = between(&shards.topic, from.into(), Until::Through(to.clone())).await;
            let expected = values.get(i..j).unwrap_or_default();
            assert_eq!(by_key(&read), by_key(expected), "{from} to {to}");
        }
    }
    // A cursor that no reading gave, but a listing: it names what is open, and no more.
    let end = shards.topic.end().await.unwrap();
    append(&shards.topic, &["a-later"]).await;
    let read = between(&shards.topic, Start::Beginning, Until::Through(end)).await;
    assert_eq!(by_key(&read), by_key(&values));
}

#[tokio::test(start_paused = true)]
async fn before_and_since_a_moment_are_the_whole_once() {
    let shards = family().await;
    let values = all(&shards.topic, None).await;
    let mut kept = Vec::new();
    for millis in (0..5_000).step_by(500) {
        let moment = Timestamp::from_millis(1_000_000 + millis);
        let mut read = between(&shards.topic, Start::Beginning, Until::Before(moment)).await;
        kept.push(read.len());
        read.extend(all(&shards.topic, Start::Since(moment)).await);
        assert_eq!(by_key(&read), by_key(&values), "at {moment}");
    }
    assert_eq!(kept, [0, 6, 6, 12, 12, 18, 18, 24, 24, 24]);
}

#[tokio::test(start_paused = true)]
async fn a_moment_to_come_ends_a_replay_once_it_has_come_in_the_children_too() {
    let shards = shards(1).await;
    append(&shards.topic, &["a-1"]).await;
    let moment = Timestamp::from_millis(1_000_000 + 60_000);
    let replay = shards.topic.replay(None).until(Until::Before(moment));
    let mut replay = replay.await.unwrap();
    assert_eq!(text(&replay.next().await.unwrap().unwrap()), "a-1");
    shards.split(0);
    append(&shards.topic, &["a-2", "b-2", "c-2"]).await;
    assert_eq!(rest(&mut replay).await.len(), 3);
    assert_eq!(shards.bus.clock().now(), moment);
}

#[tokio::test(start_paused = true)]
async fn chosen_partitions_are_read_in_order_without_what_continues_them() {
    let shards = family().await;
    let chosen = shards.topic.replay(None).partitions([id(4), id(0)]);
    let mut replay = chosen.await.unwrap();
    let (values, cursors) = {
        let mut values = Vec::new();
        let mut cursors = vec![replay.cursor().clone()];
        while let Some(record) = replay.next().await.unwrap() {
            values.push((record.position().unwrap().partition().get(), text(&record)));
            cursors.push(replay.cursor().clone());
        }
        (values, cursors)
    };
    let zero = values.iter().filter(|(shard, _)| *shard == 0).count();
    assert_eq!(zero, 6);
    assert!(values.len() > 6, "shard 4 has records");
    assert!(values[6..].iter().all(|(shard, _)| *shard == 4));
    // When each was closed.
    let ended = [(0, 1_001_000), (4, 1_003_000)].map(|(shard, closed)| {
        let clear = Some(Timestamp::from_millis(closed));
        (id(shard), Frontier::Ended { clear })
    });
    let end = Cursor::new(replay.cursor().origin().clone(), ended, Rest::Outside);
    assert_eq!(replay.cursor(), &end);
    let values: Vec<String> = values.into_iter().map(|(_, value)| value).collect();
    for (cut, cursor) in cursors.iter().enumerate() {
        let rest = all(&shards.topic, &through_text(cursor)).await;
        assert_eq!(rest, values[cut..], "{cursor}");
    }
    // A follower of ended partitions has nothing to wait for.
    let mut follow = shards.topic.follow(&end).await.unwrap();
    assert!(follow.next().await.unwrap().is_none());
    let unknown = shards.topic.replay(None).partitions([id(9)]).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_slice_of_what_is_left_behind_a_cursor_is_that_part_of_it() {
    let shards = family().await;
    let mut replay = shards.topic.replay(None).await.unwrap();
    let mut cursors = vec![replay.cursor().clone()];
    let mut read = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        read.push((record.position().unwrap().partition().get(), text(&record)));
        cursors.push(replay.cursor().clone());
    }
    cursors.push(shards.topic.end().await.unwrap());
    for (cut, cursor) in cursors.iter().enumerate() {
        for shard in 0..6 {
            let left = read.get(cut..).unwrap_or_default().iter();
            let left = left.filter(|(of, _)| *of == shard);
            let left: Vec<String> = left.map(|(_, value)| value.clone()).collect();
            let slice = shards.topic.replay(cursor).partitions([id(shard)]);
            assert_eq!(rest(&mut slice.await.unwrap()).await, left, "{cursor}");
        }
    }
    let latest = shards.topic.follow(Start::Latest).partitions([id(0)]);
    assert!(latest.await.unwrap().next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_finished_stays_so_though_shards_between_held_nothing() {
    let shards = shards(1).await;
    append(&shards.topic, &["a-0", "a-1"]).await;
    let (low, high) = shards.split(0);
    shards.merge(low, high);
    append(&shards.topic, &["a-2"]).await;
    let end = shards.topic.end().await.unwrap();
    shards.trim(1);
    assert_eq!(all(&shards.topic, &end).await, [""; 0]);
    assert_eq!(all(&shards.topic, Start::Earliest).await, ["a-1", "a-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_scan_for_a_key_reads_it_in_every_shard_and_its_cursor_moves_past_others() {
    let shards = family().await;
    let refused = shards.topic.replay(None).key("c").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let whole = shards.topic.replay(None).scan_key("c").await.unwrap();
    let (values, cursors) = cuts(whole).await;
    assert_eq!(values, ["c-0", "c-1", "c-2", "c-3"]);
    for (cut, cursor) in cursors.iter().enumerate() {
        let replay = shards.topic.replay(cursor).scan_key("c");
        assert_eq!(rest(&mut replay.await.unwrap()).await, values[cut..]);
    }
    let mut none = shards.topic.follow(None).scan_key("nobody").await.unwrap();
    let mut moves = 0;
    while !none.next_batch().await.unwrap().unwrap().caught_up() {
        moves += 1;
    }
    assert!(moves > 5, "a long scan shows how far it came");
    let mut none = shards.topic.replay(None).scan_key("nobody").await.unwrap();
    assert!(none.next().await.unwrap().is_none());
    let behind = none.cursor().clone();
    let left = all(&shards.topic, &behind).await;
    assert_eq!(left, [""; 0], "what was passed over is behind the cursor");
}

#[tokio::test(start_paused = true)]
async fn the_end_is_that_of_the_open_though_shards_go_on_to_split() {
    let shards = family().await;
    let mut replay = shards.topic.replay(None).await.unwrap();
    let mut seen = Vec::new();
    let mut open = vec![3, 5];
    let mut number = 0;
    while let Some(record) = replay.next().await.unwrap() {
        seen.push(text(&record));
        // A writer that is faster than the reader.
        number += 1;
        append(&shards.topic, &[&format!("a-later{number}"), "g-later"]).await;
        let (low, high) = shards.split(open.remove(0));
        open.extend([low, high]);
        assert!(number < 1_000, "it runs after the writer");
    }
    let before = |value: &&String| !value.contains("later");
    assert_eq!(seen.iter().filter(before).count(), FAMILY);
    let cursor = replay.cursor().clone();
    seen.extend(all(&shards.topic, &cursor).await);
    assert_eq!(by_key(&seen), by_key(&all(&shards.topic, None).await));
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_caught_up_once_after_all_that_was_there_and_goes_on_into_children() {
    for changes in 0..2 {
        let shards = family().await;
        let mut follow = shards.topic.follow(None).await.unwrap();
        if changes == 1 {
            // What was open at the open ends before it is read.
            shards.split(5);
            append(&shards.topic, &["a-4", "b-4"]).await;
        }
        let said = signals(&mut follow).await;
        let caught_up = said.iter().position(|said| said == "[caught up]").unwrap();
        let before = |said: &&String| !said.ends_with('4') && **said != "[caught up]";
        assert_eq!(said[..caught_up].iter().filter(before).count(), FAMILY);
        shards.split(3);
        append(&shards.topic, &["a-5", "b-5", "c-5"]).await;
        assert_eq!(sorted(&signals(&mut follow).await), ["a-5", "b-5", "c-5"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_from_latest_gets_every_later_record_once() {
    let shards = family().await;
    let mut follow = shards.topic.follow(Start::Latest).await.unwrap();
    shards.merge(3, 5);
    append(&shards.topic, &["a-4", "b-4"]).await;
    shards.split(6);
    append(&shards.topic, &["a-5", "b-5"]).await;
    let said = signals(&mut follow).await;
    assert_eq!(said[0], "[caught up]");
    assert_eq!(
        by_key(&said[1..]),
        by_key(&["a-4", "b-4", "a-5", "b-5"].map(String::from))
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_the_parent_that_lags() {
    let shards = shards(2).await;
    let [zero, one] = <[String; 2]>::try_from(shards.keys(&[0, 1])).unwrap();
    for n in 0..4 {
        append(
            &shards.topic,
            &[&format!("{zero}-{n}"), &format!("{one}-{n}")],
        )
        .await;
    }
    let child = shards.merge(0, 1);
    append(&shards.topic, &[&format!("{zero}-4"), &format!("{one}-4")]).await;
    // The first answer of shard 0 takes an hour.
    let hour = Duration::from_secs(3_600);
    shards
        .state
        .faults()
        .inject(Call::Fetch, Fault::Delay(hour));
    let mut replay = shards.topic.replay(None).await.unwrap();
    let opened = tokio::time::Instant::now();
    let mut seen = Vec::new();
    let mut cursors = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        let shard = record.position().unwrap().partition().get();
        seen.push((shard, text(&record)));
        cursors.push(replay.cursor().clone());
        // Nobody waits for the slow one but its child.
        assert_eq!(opened.elapsed() >= hour, shard != 1, "{shard}");
    }
    let order: Vec<u64> = seen.iter().map(|(shard, _)| *shard).collect();
    assert_eq!(order, [1, 1, 1, 1, 0, 0, 0, 0, child, child]);
    // Shard 1 has ended, and shard 0 is named although nothing of it was read.
    let values: Vec<String> = seen.into_iter().map(|(_, value)| value).collect();
    for (cut, cursor) in cursors.iter().enumerate() {
        let rest = all(&shards.topic, &through_text(cursor)).await;
        assert_eq!(by_key(&rest), by_key(&values[cut + 1..]), "{cursor}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_merge_with_the_child_of_one_that_lags_loses_nothing() {
    // Shard 1 is split after the open, and one half merged with shard 0, which ends first: at that
    // moment nobody has told of the other parent yet.
    let shards = shards(2).await;
    let [zero, one] = <[String; 2]>::try_from(shards.keys(&[0, 1])).unwrap();
    append(&shards.topic, &[&format!("{zero}-0"), &format!("{one}-0")]).await;
    let slow = Duration::from_secs(3_600);
    shards
        .state
        .faults()
        .pass(Call::Fetch)
        .inject(Call::Fetch, Fault::Delay(slow));
    let mut follow = shards.topic.follow(None).await.unwrap();
    let first = follow.next().await.unwrap().unwrap();
    assert_eq!(text(&first), format!("{zero}-0"));
    let (low, high) = shards.split(1);
    append(&shards.topic, &[&format!("{one}-1")]).await;
    let child = shards.merge(0, low);
    append(&shards.topic, &[&format!("{zero}-2"), &format!("{one}-2")]).await;
    // Told that shard 0 has ended, and nothing of shard 1.
    let moved = loop {
        match follow.next_signal().await.unwrap().unwrap() {
            Signal::Advanced(cursor) if cursor.frontier(id(child)).is_some() => break cursor,
            Signal::Advanced(_) | Signal::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    };
    for shard in [1, low, high, child] {
        assert!(moved.frontier(id(shard)).is_some(), "{moved} names {shard}");
    }
    let left = [
        format!("{one}-0"),
        format!("{one}-1"),
        format!("{zero}-2"),
        format!("{one}-2"),
    ];
    let read = all(&shards.topic, &through_text(&moved)).await;
    assert_eq!(by_key(&read), by_key(&left));
    let said = signals(&mut follow).await;
    let said: Vec<String> = said.into_iter().filter(|s| s != "[caught up]").collect();
    assert_eq!(by_key(&said), by_key(&left));
}

#[tokio::test(start_paused = true)]
async fn what_vanished_unread_is_told_before_what_continues_it() {
    let shards = family().await;
    let (values, cursors) = cuts(shards.topic.replay(None).await.unwrap()).await;
    shards.trim(0);
    append(&shards.topic, &["a-4", "b-4", "c-4", "f-4", "k-4", "s-4"]).await;
    let read = all(&shards.topic, None).await;
    let gaps = read.iter().filter(|said| said.starts_with("[gap")).count();
    assert_eq!(read.len(), gaps + 6);
    let open_gaps = read
        .iter()
        .filter(|s| ["[gap 3]", "[gap 5]"].contains(&s.as_str()));
    assert_eq!(open_gaps.count(), 2, "{read:?}");
    assert!(gaps > 2, "the vanished are told too: {read:?}");
    // Knowingly accepted.
    let earliest = all(&shards.topic, Start::Earliest).await;
    assert_eq!(earliest.len(), 6, "{earliest:?}");
    for (cut, cursor) in cursors.iter().enumerate() {
        let read = all(&shards.topic, &through_text(cursor)).await;
        let gap = read.iter().position(|said| said.starts_with("[gap"));
        for key in by_key(&values[cut..]).into_keys() {
            let later = format!("{key}-4");
            let later = read.iter().position(|said| *said == later);
            assert!(gap.is_some() && gap < later, "{cursor}: {read:?}");
        }
        let records = read.iter().filter(|said| !said.starts_with("[gap"));
        assert_eq!(records.count(), 6);
    }
    let behind = all(&shards.topic, &cursors[FAMILY]).await;
    assert_eq!(behind.len(), 6, "nothing of it is gone: {behind:?}");
    // Since a moment at which the vanished had records: told; after them: not.
    let since = |millis: i64| Start::Since(Timestamp::from_millis(1_000_000 + millis));
    let early = all(&shards.topic, since(500)).await;
    assert!(early.contains(&"[gap 1]".to_owned()), "{early:?}");
    assert_eq!(all(&shards.topic, since(3_500)).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn earliest_is_pinned_at_the_open_for_shards_that_wait_for_their_parents_too() {
    let shards = shards(1).await;
    append(&shards.topic, &["a-0", "a-1", "a-2"]).await;
    shards.split(0);
    append(&shards.topic, &["a-3", "a-4", "a-5"]).await;
    shards.trim(2);
    let mut replay = shards.topic.replay(Start::Earliest).await.unwrap();
    let cursor = through_text(replay.cursor());
    // Retention goes on behind the open: what it takes now was promised.
    shards.trim(1);
    assert_eq!(
        rest(&mut replay).await,
        ["[gap 0]", "a-2", "[gap 2]", "a-5"]
    );
    assert_eq!(
        all(&shards.topic, &cursor).await,
        ["[gap 0]", "a-2", "[gap 2]", "a-5"]
    );
    assert_eq!(all(&shards.topic, Start::Earliest).await, ["a-2", "a-5"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_retention_overtakes_gets_the_gap_before_any_later_record() {
    let spec = TopicSpec {
        partitions: Some(1),
        retention: Some(Retention::Age(Duration::from_secs(60))),
        ..TopicSpec::default()
    };
    let shards = shards_like(spec).await;
    append(&shards.topic, &["a-0", "a-1", "a-2", "a-3", "a-4"]).await;
    let mut follow = shards.topic.follow(None).await.unwrap();
    assert_eq!(text(&follow.next().await.unwrap().unwrap()), "a-0");
    let held = follow.cursor().clone();
    tokio::time::advance(Duration::from_secs(40)).await;
    shards.split(0);
    append(&shards.topic, &["a-5"]).await;
    tokio::time::advance(Duration::from_secs(40)).await;
    append(&shards.topic, &["a-6"]).await;
    // From a cursor that was stored before it, all of it is told.
    let said = all(&shards.topic, &through_text(&held)).await;
    assert_eq!(said, ["[gap 0]", "a-5", "a-6"]);
    // One answer had been read ahead.
    let said = signals(&mut follow).await;
    assert_eq!(said[..2], ["a-1", "a-2"]);
    let said: Vec<&str> = said[2..].iter().map(String::as_str).collect();
    assert_eq!(said, ["[gap 0]", "[caught up]", "a-5", "a-6"]);
}

#[tokio::test(start_paused = true)]
async fn faults_while_reading_lose_and_repeat_nothing() {
    let faults = [
        Fault::Throttle(SECOND),
        Fault::Disconnect,
        Fault::Delay(SECOND),
        Fault::Lose { done: true },
        Fault::Lose { done: false },
    ];
    let whole = all(&family().await.topic, None).await;
    for fault in &faults {
        for every in 1..4 {
            let shards = family().await;
            for n in 0..60 {
                if n % every == 0 {
                    shards.state.faults().inject(Call::Fetch, fault.clone());
                } else {
                    shards.state.faults().pass(Call::Fetch);
                }
            }
            let read = all(&shards.topic, None).await;
            assert_eq!(by_key(&read), by_key(&whole), "{fault:?} every {every}");
            assert!(shards.state.faults().fired() > 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_poll_loses_nothing() {
    let whole = all(&family().await.topic, None).await;
    for dropped in 0..40 {
        let shards = family().await;
        for _ in 0..10 {
            shards
                .state
                .faults()
                .inject(Call::Fetch, Fault::Delay(SECOND));
        }
        let mut follow = shards.topic.follow(None).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..dropped {
            let mut cx = Context::from_waker(Waker::noop());
            let mut next = std::pin::pin!(follow.next());
            if let Poll::Ready(record) = next.as_mut().poll(&mut cx) {
                seen.push(text(&record.unwrap().unwrap()));
            }
            tokio::time::advance(Duration::from_millis(300)).await;
        }
        let said = signals(&mut follow).await;
        seen.extend(said.into_iter().filter(|said| said != "[caught up]"));
        assert_eq!(by_key(&seen), by_key(&whole), "dropped {dropped} times");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_and_the_lag_count_every_shard() {
    let shards = family().await;
    let end = shards.topic.end().await.unwrap();
    assert_eq!(shards.topic.lag(&end).await.unwrap().records, Some(0));
    let mut replay = shards.topic.replay(None).await.unwrap();
    let mut left = FAMILY as u64;
    loop {
        let lag = replay.lag().await.unwrap();
        assert_eq!(lag.records, Some(left), "{}", replay.cursor());
        assert_eq!(lag.age.is_some(), left > 0);
        if replay.next().await.unwrap().is_none() {
            break;
        }
        left -= 1;
    }
    assert_eq!(left, 0);
    let stored = append(&shards.topic, &["a-9"]).await;
    let later = shards.topic.end().await.unwrap();
    assert_eq!(later.covers(&stored[0].position.unwrap()), Some(true));
    assert_eq!(end.covers(&stored[0].position.unwrap()), Some(false));
    shards.split(5);
    assert_eq!(shards.topic.lag(&end).await.unwrap().records, Some(1));
}

#[tokio::test(start_paused = true)]
async fn cursors_of_another_topic_or_incarnation_are_refused() {
    let shards = family().await;
    let end = shards.topic.end().await.unwrap();
    let other = shards
        .bus
        .topic("others")
        .create_if_missing()
        .await
        .unwrap();
    let start = other.replay(&end).await.unwrap_err();
    let stop = other.replay(None).until(Until::Through(end.clone())).await;
    assert_eq!(start.kind(), ErrorKind::Config);
    assert_eq!(stop.unwrap_err().kind(), ErrorKind::Config);
    shards.bus.admin().unwrap().delete(&name()).await.unwrap();
    let again = shards
        .bus
        .topic("orders")
        .create_if_missing()
        .await
        .unwrap();
    let start = again.follow(&end).await.unwrap_err();
    let stop = again.replay(None).until(Until::Through(end)).await;
    assert_eq!(start.kind(), ErrorKind::Config);
    assert_eq!(stop.unwrap_err().kind(), ErrorKind::Config);
}
