//! What a queue takes and what it refuses, through core's handles.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod reading;

use std::sync::Arc;
use std::time::Duration;

use annals_conformance::models::{Call, Fault, queue};
use annals_core::{
    Batch, Bus, Cursor, Effect, Error, ErrorKind, Group, Need, Origin, Outcome, Retry, Start, Topic,
};

use reading::{by_key, clock, name, record, text};

struct Queues {
    state: queue::State,
    bus: Bus,
    topic: Topic,
}

async fn queues(groups: &[&str]) -> Queues {
    let clock = clock();
    let state = queue::State::new(clock.clone());
    let bus = Bus::new(state.connect()).with_clock(clock);
    let open = bus.topic("orders").create_if_missing();
    let topic = open.groups(groups.iter().copied()).await.unwrap();
    Queues { state, bus, topic }
}

fn assert_refused(error: &Error, ways_out: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(
        (error.effect(), error.retry()),
        (Effect::None, Retry::Never)
    );
    for way in ways_out {
        assert!(error.to_string().contains(way), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_again_is_refused_with_the_ways_out() {
    let queues = queues(&["billing"]).await;
    let topic = &queues.topic;
    let ways = ["subscribe", "journal"];
    for start in [Start::Beginning, Start::Earliest, Start::Latest] {
        assert_refused(&topic.replay(start.clone()).await.unwrap_err(), &ways);
        assert_refused(&topic.follow(start).await.unwrap_err(), &ways);
    }
    assert_refused(&topic.replay(None).key("k").await.unwrap_err(), &ways);
    assert_refused(&topic.end().await.unwrap_err(), &[]);
    let origin = Origin {
        scheme: "model-queue".into(),
        topic: name(),
        incarnation: "1".into(),
    };
    let cursor = Cursor::start(Arc::new(origin));
    assert_refused(&topic.lag(&cursor).await.unwrap_err(), &[]);
    let needs = [Need::Replay, Need::FullHistory, Need::ReplayByKey];
    let error = queues.bus.topic("orders").needs(needs).await.unwrap_err();
    assert_refused(&error, &[]);
}

#[tokio::test(start_paused = true)]
async fn one_record_is_atomic_by_itself_and_several_are_refused() {
    let queues = queues(&["billing"]).await;
    queues.topic.append(record("a-1")).atomic().await.unwrap();
    let two: Batch = ["a-2", "b-1"].map(record).into();
    let refused = queues.topic.append(two).atomic().await.unwrap_err();
    assert_refused(&refused.into(), &["append.batch"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_group_would_ever_see_is_rejected_and_taken_once_there_is_one() {
    let queues = queues(&[]).await;
    let batch: Batch = ["a-1", "b-1", "a-2", "4"].map(record).into();
    let failed = queues.topic.append(batch).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::NoGroup, Effect::None)
    );
    assert_eq!(failed.retry(), Retry::Never);
    for outcome in failed.outcomes() {
        match outcome {
            Outcome::Rejected(error) => assert_eq!(error.kind(), ErrorKind::NoGroup),
            other => assert!(matches!(other, Outcome::NotAttempted), "{other:?}"),
        }
    }
    assert_eq!(failed.unconfirmed().len(), 4);
    let billing = Group::new("billing").unwrap();
    let admin = queues.bus.admin().unwrap();
    admin
        .create_group(&name(), &billing, Some(Start::Latest))
        .await
        .unwrap();
    queues.topic.append(failed.unconfirmed()).await.unwrap();
    let lag = admin.group_lag(&name(), &billing).await.unwrap();
    assert_eq!(lag[0].records, Some(4));
}

#[tokio::test(start_paused = true)]
async fn conditions_epochs_and_atomic_batches_are_refused_before_anything_is_sent() {
    let queues = queues(&["billing"]).await;
    let two = || Batch::from(["a-1", "a-2"].map(record));
    let topic = &queues.topic;
    queues
        .state
        .faults()
        .inject(Call::Append, Fault::Disconnect);
    for failed in [
        topic.append(two()).if_key_at("a", None).await.unwrap_err(),
        topic.append(two()).epoch(1).await.unwrap_err(),
        topic.append(two()).atomic().await.unwrap_err(),
    ] {
        assert_refused(failed.error(), &[]);
    }
    assert_eq!(queues.state.faults().fired(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_partly_refused_batch_keeps_the_order_of_each_key() {
    for refused in [vec![0], vec![1, 2], vec![0, 3, 4]] {
        let queues = queues(&["billing"]).await;
        for _ in 0..3 {
            let refuse = Fault::Refuse(refused.clone());
            queues.state.faults().inject(Call::Append, refuse);
        }
        // Over the ten of one request.
        let values: Vec<String> = (0..40).map(|n| format!("k{}-{n:02}", n % 7)).collect();
        let batch: Batch = values.iter().map(|value| record(value)).collect();
        queues.topic.append(batch).await.unwrap();
        assert_eq!(queues.state.faults().fired(), 3);
        let billing = queues.topic.subscribe("billing").await.unwrap();
        let mut read = Vec::new();
        while read.len() < values.len() {
            let delivery = billing.next().await.unwrap().unwrap();
            read.push(text(&delivery));
            delivery.done();
        }
        assert_eq!(by_key(&read), by_key(&values));
        billing.close(Duration::from_secs(1)).await.unwrap();
    }
}
