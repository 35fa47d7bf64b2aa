//! What is refused of topics and groups as things, by every model, through core's handles.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reading;

use annals_conformance::models::{log, queue, sharded};
use annals_core::{Bus, ErrorKind, TopicSpec};

use reading::{clock, name};

fn buses() -> [Bus; 3] {
    let clock = clock();
    [
        Bus::new(log::State::new(clock.clone()).connect()),
        Bus::new(sharded::State::new(clock.clone()).connect()),
        Bus::new(queue::State::new(clock).connect()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_nobody_knows_is_refused_and_makes_nothing() {
    for bus in buses() {
        let spec = TopicSpec {
            kind: Some(["compac", "ted"].concat().into()),
            ..TopicSpec::default()
        };
        let error = bus.topic(name()).create_with(spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(bus.topics().await.unwrap().is_empty(), "{bus:?}");
    }
}
