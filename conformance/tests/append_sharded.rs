//! Appends of which any part may be stored, through core's handles: outcomes are true, and each
//! key keeps its order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod reading;

use std::collections::BTreeSet;
use std::time::Duration;

use annals_conformance::models::{Call, Fault};
use annals_core::{AppendError, Batch, Effect, ErrorKind, Outcome};

use reading::*;

const BATCH: [&str; 7] = ["a-1", "b-1", "a-2", "c-1", "b-2", "a-3", "7"];

/// Whether each key's values ascend.
fn assert_ascending(read: &[String]) {
    for (key, values) in by_key(read) {
        let mut ascending = values.clone();
        ascending.sort();
        assert!(key.is_empty() || values == ascending, "{values:?}");
    }
}

fn letters(failed: &AppendError) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Stored(_) => 'S',
        Outcome::Rejected(_) => 'R',
        Outcome::Unknown(_) => 'U',
        Outcome::NotAttempted => 'N',
    };
    failed.outcomes().iter().map(letter).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_sent_again_before_the_next_of_its_key() {
    for refused in [vec![0], vec![1], vec![0, 1, 2], vec![3]] {
        for times in 1..4 {
            let shards = shards(2).await;
            for _ in 0..times {
                let refuse = Fault::Refuse(refused.clone());
                shards.state.faults().inject(Call::Append, refuse);
            }
            append(&shards.topic, &BATCH).await;
            let read = all(&shards.topic, None).await;
            assert_eq!(by_key(&read), by_key(&BATCH.map(String::from)));
            assert!(shards.state.faults().fired() == times);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_holes_too_nothing_is_overtaken_where_requests_have_no_order() {
    let shards = shards(1).await;
    let refuse = Fault::Refuse(vec![0]);
    shards.state.faults().inject(Call::Append, refuse);
    let batch = ["a-1", "a-2"].map(|value| annals_core::Record::new(value).key("a"));
    shards.topic.append(batch).allow_holes().await.unwrap();
    assert_eq!(all(&shards.topic, None).await, ["a-1", "a-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_though_its_shard_splits_between_two_attempts() {
    for fault in [
        Fault::Throttle(Duration::from_secs(2)),
        Fault::Refuse(vec![0]),
        Fault::Disconnect,
    ] {
        let shards = shards(1).await;
        shards.state.faults().inject(Call::Append, fault);
        let topic = shards.topic.clone();
        let appending = tokio::spawn(async move { append(&topic, &BATCH).await });
        tokio::task::yield_now().await;
        shards.split(0);
        appending.await.unwrap();
        let read = all(&shards.topic, None).await;
        assert_eq!(by_key(&read), by_key(&BATCH.map(String::from)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_unknown_and_stops_its_keys() {
    for done in [true, false] {
        let shards = shards(2).await;
        shards
            .state
            .faults()
            .inject(Call::Append, Fault::Lose { done });
        let batch: Batch = BATCH.map(record).into();
        let failed = shards.topic.append(batch).await.unwrap_err();
        // The first of each key had left; no repeat is recognised here.
        assert_eq!(letters(&failed), "UUNUNNU");
        assert_eq!(
            (failed.kind(), failed.effect()),
            (ErrorKind::Timeout, Effect::Unknown)
        );
        let read = all(&shards.topic, None).await;
        assert_eq!(read.len(), if done { 4 } else { 0 });
        // Resubmitted by a caller who can bear repeats: all is there, each key in order of first
        // occurrence.
        shards.topic.append(failed.unconfirmed()).await.unwrap();
        let read = all(&shards.topic, None).await;
        let mut first = Vec::new();
        for value in read {
            if !first.contains(&value) {
                first.push(value);
            }
        }
        assert_eq!(by_key(&first), by_key(&BATCH.map(String::from)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_later_request_leaves_the_earlier_ones_stored() {
    let shards = shards(2).await;
    // Over the limit of one request: the first takes 500 records.
    let values: Vec<String> = (0..900).map(|n| format!("k{}-{n:04}", n % 700)).collect();
    let faults = shards.state.faults();
    faults
        .pass(Call::Append)
        .inject(Call::Append, Fault::Lose { done: true });
    let batch: Batch = values.iter().map(|value| record(value)).collect();
    let failed = shards.topic.append(batch).await.unwrap_err();
    let outcomes = letters(&failed);
    assert!(outcomes.starts_with(&"S".repeat(500)), "{outcomes}");
    assert_eq!(outcomes.matches('U').count(), 400, "{outcomes}");
    let read = all(&shards.topic, None).await;
    assert_ascending(&read);
    assert_eq!(read.len(), 900);
}

fn key_of(value: &str) -> &str {
    value.split_once('-').unwrap().0
}

/// A splitmix64 die.
fn roll(dice: &mut u64, sides: usize) -> usize {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_true_and_keys_ascend_whatever_goes_wrong() {
    let mut unknown = 0;
    for seed in 0..100 {
        let mut dice = seed;
        let shards = shards(2).await;
        let (mut stored, mut never) = (BTreeSet::new(), BTreeSet::new());
        let mut stopped: BTreeSet<String> = BTreeSet::new();
        for call in 0..6 {
            for _ in 0..roll(&mut dice, 4) {
                let faults = shards.state.faults();
                match roll(&mut dice, 7) {
                    0 => faults.pass(Call::Append),
                    1 => faults.inject(Call::Append, Fault::Disconnect),
                    2 => faults.inject(Call::Append, Fault::Throttle(Duration::from_secs(1))),
                    3 => faults.inject(
                        Call::Append,
                        Fault::Lose {
                            done: call % 2 == 0,
                        },
                    ),
                    4 => faults.inject(Call::Append, Fault::Refuse(vec![0])),
                    5 => faults.inject(Call::Append, Fault::Refuse(vec![1, 2])),
                    _ => faults.inject(Call::Append, Fault::Delay(Duration::from_secs(1))),
                };
            }
            // A key that stopped is left alone, as a writer who cares for order does.
            let values: Vec<String> = (0..8)
                .map(|n| format!("k{}-{call}{n}", roll(&mut dice, 4)))
                .filter(|value| !stopped.contains(key_of(value)))
                .collect();
            let batch: Batch = values.iter().map(|value| record(value)).collect();
            let outcomes = match shards.topic.append(batch).await {
                Ok(appended) => appended
                    .records()
                    .iter()
                    .map(|s| Outcome::Stored(*s))
                    .collect(),
                Err(failed) => failed.outcomes().to_vec(),
            };
            for (value, outcome) in values.iter().zip(&outcomes) {
                let key = key_of(value).to_owned();
                match outcome {
                    Outcome::Stored(_) => {
                        assert!(!stopped.contains(&key), "seed {seed}: {value} after a hole");
                        stored.insert(value.clone());
                    }
                    Outcome::Unknown(_) => {
                        unknown += 1;
                        stopped.insert(key);
                    }
                    Outcome::Rejected(_) | Outcome::NotAttempted => {
                        never.insert(value.clone());
                        stopped.insert(key);
                    }
                }
            }
            if roll(&mut dice, 3) == 0 {
                let open = shards.open().await;
                shards.split(open[0].get());
            }
        }
        shards.state.faults().heal();
        let read = all(&shards.topic, None).await;
        assert_ascending(&read);
        let read: BTreeSet<String> = read.into_iter().collect();
        assert!(stored.is_subset(&read), "seed {seed}");
        assert!(never.is_disjoint(&read), "seed {seed}");
    }
    assert!(unknown > 50, "{unknown}");
}
