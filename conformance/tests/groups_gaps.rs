//! What a member leaves without having told of it, its successor tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what went wrong by panicking"
)]

mod groups;

use std::time::Duration;

use annals_conformance::models::sharded::State;
use annals_core::driver::Backend;
use annals_core::{ErrorKind, PartitionId, TopicName, TopicSpec};

use groups::{SOON, append, bus, clock, handle, numbered};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_shard_that_vanished_under_a_member_that_did_not_ask_is_told_to_the_next_one() {
    let clock = clock();
    let state = State::new(clock.clone());
    let backend = state.connect();
    let spec = TopicSpec {
        partitions: Some(1),
        ..TopicSpec::default()
    };
    let bus = bus(backend.clone(), &clock);
    let topic = bus.topic("orders").create_with(spec).await.unwrap();
    append(&topic, numbered("a", 3)).await;
    let first = topic.subscribe("billing").await.unwrap();
    assert_eq!(handle(&first, 1).await, ["a-1"]);
    first.close(SECOND).await.unwrap();
    // The rest of it goes unread, and what continues it has records.
    let name = TopicName::new("orders").unwrap();
    state.split(&name, PartitionId::new(0)).unwrap();
    state.trim(&name, 0).unwrap();
    append(&topic, ["a-4"]).await;
    assert_eq!(backend.partitions(&name).await.unwrap().len(), 2);

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
    let told = tokio::time::timeout(SOON, last.next()).await.unwrap();
    let error = told.expect_err("the gap is not told");
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert_eq!(handle(&last, 1).await, ["a-4"]);
}
