//! What a member leaves without having told of it, its successor tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what went wrong by panicking"
)]

mod gone;
mod groups;

use std::time::Duration;

use annals_conformance::models::sharded::Sharded;
use annals_conformance::models::sharded::State;
use annals_core::driver::Backend;
use annals_core::{Clock, PartitionId, Subscription, Topic, TopicName, TopicSpec};

use gone::Gone;
use groups::{SOON, append, bus, clock, handle, numbered, text};

const SECOND: Duration = Duration::from_secs(1);

fn name() -> TopicName {
    TopicName::new("orders").unwrap()
}

/// A topic of one shard.
async fn world() -> (State, Sharded, Clock, Topic) {
    let clock = clock();
    let state = State::new(clock.clone());
    let backend = state.connect();
    let spec = TopicSpec {
        partitions: Some(1),
        ..TopicSpec::default()
    };
    let bus = bus(Gone(backend.clone(), true), &clock);
    let topic = bus.topic("orders").create_with(spec).await.unwrap();
    (state, backend, clock, topic)
}

/// Splits a shard, and leaves nothing of what was there before.
async fn replace(state: &State, backend: &Sharded, shard: PartitionId) -> PartitionId {
    let (left, _) = state.split(&name(), shard).unwrap();
    state.trim(&name(), 0).unwrap();
    let listed = backend.partitions(&name()).await.unwrap();
    assert!(listed.iter().all(|partition| partition.id != shard));
    left
}

/// Records, and gaps by their partition, until nothing comes any more.
async fn said(member: &Subscription) -> Vec<String> {
    let mut said = Vec::new();
    while let Ok(next) = tokio::time::timeout(SOON, member.next()).await {
        said.push(match next {
            Ok(Some(delivery)) => {
                let said = text(&delivery);
                delivery.done();
                said
            }
            Ok(None) => return said,
            Err(error) => format!("gap {}", error.gap().expect("a gap").partition),
        });
    }
    said
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_vanished_under_a_member_that_did_not_ask_is_told_to_the_next_one() {
    let (state, backend, clock, topic) = world().await;
    append(&topic, numbered("a", 3)).await;
    let first = topic.subscribe("billing").await.unwrap();
    assert_eq!(handle(&first, 1).await, ["a-1"]);
    first.close(SECOND).await.unwrap();
    // The rest of it goes unread, and what continues it has records.
    replace(&state, &backend, PartitionId::new(0)).await;
    append(&topic, ["a-4"]).await;

    for close in [true, false] {
        let silent = topic.subscribe("billing").await.unwrap();
        clock.sleep(SOON).await;
        silent.flush().await.unwrap();
        if close {
            silent.close(SECOND).await.unwrap();
        } else {
            drop(silent);
        }
        clock.sleep(SOON).await;
    }
    let last = topic.subscribe("billing").await.unwrap();
    assert_eq!(said(&last).await, ["gap 0", "a-4"]);
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_came_and_went_between_two_looks_is_told_as_gone() {
    let (state, backend, _, topic) = world().await;
    append(&topic, numbered("a", 1)).await;
    let first = topic.subscribe("billing").await.unwrap();
    assert_eq!(handle(&first, 1).await, ["a-1"]);
    first.close(SECOND).await.unwrap();
    // Nobody sees the shards that follow the first, nor what they held.
    let child = replace(&state, &backend, PartitionId::new(0)).await;
    append(&topic, numbered("a", 9)).await;
    append(&topic, numbered("b", 9)).await;
    replace(&state, &backend, child).await;
    append(&topic, ["a-10"]).await;
    let last = topic.subscribe("billing").await.unwrap();
    let mut said = said(&last).await;
    assert_eq!(said.pop().as_deref(), Some("a-10"));
    said.sort();
    assert_eq!(said[..2], ["gap 0".to_owned(), format!("gap {child}")]);
}

#[tokio::test(start_paused = true)]
async fn a_new_group_at_the_beginning_is_told_of_shards_that_went_before_it() {
    let (state, backend, _, topic) = world().await;
    append(&topic, numbered("a", 1)).await;
    replace(&state, &backend, PartitionId::new(0)).await;
    append(&topic, ["a-2"]).await;
    let member = topic.subscribe("billing").await.unwrap();
    assert_eq!(said(&member).await, ["gap 0", "a-2"]);
}
