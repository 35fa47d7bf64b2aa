//! What is refused of topics and groups as things, by every model, through core's handles.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reading;

use annals_conformance::models::{log, queue, sharded};
use annals_core::{Bus, Error, ErrorKind, Group, Lag, Operation, Record, TopicSpec};

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

#[tokio::test(start_paused = true)]
async fn what_fails_says_where() {
    for bus in buses() {
        let placed = |error: &Error, operation| {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            let place = (error.operation(), error.topic(), error.scheme());
            let topic = name();
            assert_eq!(place, (Some(operation), Some(&topic), Some(bus.scheme())));
        };
        let admin = bus.admin().unwrap();
        let group = Group::new("billing").unwrap();
        let failed = [
            admin.describe(&name()).await.unwrap_err(),
            admin.delete(&name()).await.unwrap_err(),
            admin.groups(&name()).await.unwrap_err(),
            admin.create_group(&name(), &group, None).await.unwrap_err(),
            admin.delete_group(&name(), &group).await.unwrap_err(),
            admin.group_lag(&name(), &group).await.unwrap_err(),
        ];
        for error in &failed {
            placed(error, Operation::Admin);
        }
        let topic = bus.topic(name()).create_if_missing().await.unwrap();
        placed(
            &topic.group_lag("billing").await.unwrap_err(),
            Operation::Read,
        );
        let error = topic.group_lag("a/b").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.operation()),
            (ErrorKind::Config, Some(Operation::Read))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn how_far_a_group_is_behind_is_known_to_who_is_not_in_it() {
    for bus in buses() {
        let groups = ["billing"];
        let opening = bus.topic(name()).create_if_missing().groups(groups);
        let topic = opening.await.unwrap();
        topic
            .append(["a", "b", "c"].map(Record::new))
            .await
            .unwrap();
        let lag = topic.group_lag("billing").await.unwrap();
        assert_eq!((lag.partition, lag.records), (None, Some(3)), "{bus:?}");
        let (admin, group) = (bus.admin().unwrap(), Group::new("billing").unwrap());
        let lags = admin.group_lag(&name(), &group).await.unwrap();
        assert_eq!(Lag::sum(&lags).records, Some(3));
    }
}
