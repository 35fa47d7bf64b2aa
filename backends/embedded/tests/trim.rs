//! Removing old records by hand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::{Bus, ErrorKind, Record, Start, TopicSpec, Until};
use annals_embedded::Builder;

async fn log(retention: Retention) -> (annals_embedded::Embedded, annals_core::Topic) {
    let log = Builder::memory().retention(retention).build().unwrap();
    let bus = Bus::new(log.another().unwrap());
    let topic = bus
        .topic("orders")
        .create_with(TopicSpec::default())
        .await
        .unwrap();
    (log, topic)
}

#[tokio::test]
async fn what_lies_before_goes_and_its_readers_are_told() {
    let (log, topic) = log(Retention::Age(Duration::from_secs(3_600))).await;
    let stored = topic
        .append([Record::new("a"), Record::new("b"), Record::new("c")])
        .await
        .unwrap();
    let second = stored.records()[1].position.unwrap();
    log.trim(topic.name(), &second).await.unwrap();
    let mut replay = topic
        .replay(Start::Beginning)
        .until(Until::End)
        .await
        .unwrap();
    let gap = replay.next().await.unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::Gap);
    assert_eq!(gap.gap().unwrap().to, Some(second));
    assert_eq!(replay.next().await.unwrap().unwrap().value(), b"b");
    // Nothing that is gone comes back, and the end is no obstacle.
    log.trim(topic.name(), &stored.records()[0].position.unwrap())
        .await
        .unwrap();
    assert_eq!(replay.next().await.unwrap().unwrap().value(), b"c");
}

#[tokio::test]
async fn a_topic_that_keeps_everything_is_not_trimmed() {
    let (log, topic) = log(Retention::Forever).await;
    let stored = topic
        .append([Record::new("a"), Record::new("b")])
        .await
        .unwrap();
    let told = log
        .trim(topic.name(), &stored.records()[1].position.unwrap())
        .await;
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Unsupported);
    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    assert_eq!(replay.next().await.unwrap().unwrap().value(), b"a");
}

#[tokio::test]
async fn another_handle_outlives_the_first() {
    let (log, topic) = log(Retention::Forever).await;
    let another = log.another().unwrap();
    topic
        .bus()
        .clone()
        .close(Duration::from_secs(1))
        .await
        .unwrap();
    let bus = Bus::new(another);
    bus.topic("orders")
        .await
        .unwrap()
        .append([Record::new("a")])
        .await
        .unwrap();
    bus.close(Duration::from_secs(1)).await.unwrap();
    let closed = log.another().map(drop);
    assert!(closed.is_ok(), "the first handle is open still");
    Bus::new(log.clone())
        .close(Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(
        log.another().map(drop).unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn the_first_call_of_a_process_may_be_a_trim() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Builder::directory(dir.path());
        builder
            .retention(Retention::Age(Duration::from_secs(3_600)))
            .build()
            .unwrap()
    };
    let bus = Bus::new(open());
    let topic = bus
        .topic("orders")
        .create_with(TopicSpec::default())
        .await
        .unwrap();
    let stored = topic
        .append([Record::new("a"), Record::new("b")])
        .await
        .unwrap();
    bus.close(Duration::from_secs(5)).await.unwrap();
    let second = stored.records()[1].position.unwrap();
    let log = open();
    log.trim(topic.name(), &second).await.unwrap();
    let bus = Bus::new(log);
    let topic = bus.topic("orders").await.unwrap();
    let mut replay = topic.replay(Start::Earliest).await.unwrap();
    assert_eq!(replay.next().await.unwrap().unwrap().value(), b"b");
}
