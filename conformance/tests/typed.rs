//! Events written and read as a type, over the model log.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use annals_conformance::models::log;
use annals_core::{
    Bus, Clock, EVENT_TYPE, ErrorKind, Event, Key, Record, Start, Timestamp, Topic, TypedTopic,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
enum Order {
    Placed(u32),
    Shipped(u32),
}

impl Event for Order {
    fn event_type(&self) -> &str {
        match self {
            Self::Placed(_) => "placed",
            Self::Shipped(_) => "shipped",
        }
    }
    fn key(&self) -> Option<Key> {
        let (Self::Placed(order) | Self::Shipped(order)) = self;
        Some(format!("order-{order}").into())
    }
    fn knows(event_type: &str) -> bool {
        matches!(event_type, "placed" | "shipped")
    }
}

async fn orders() -> (Topic, TypedTopic<Order>) {
    let clock = Clock::runtime(Timestamp::EPOCH);
    let log = log::State::new(clock.clone()).connect();
    let bus = Bus::new(log).with_clock(clock);
    let topic = bus.topic("orders").create_if_missing().await.unwrap();
    let typed = topic.typed();
    (topic, typed)
}

fn newer() -> Record {
    Record::new("{}")
        .key("order-1")
        .header(EVENT_TYPE, "returned")
}

fn broken() -> Record {
    Record::new("{\"Placed\":\"confidential\"}").header(EVENT_TYPE, "placed")
}

#[tokio::test(start_paused = true)]
async fn events_come_back_with_their_records() {
    const fn shared<T: Send + Sync + 'static>(_: &T) {}
    let (topic, orders) = orders().await;
    shared(&orders);
    shared(&orders.replay(Start::Beginning));
    let events = [Order::Placed(1), Order::Shipped(1)];
    orders.append(&events).await.unwrap();
    orders
        .append([Order::Placed(2)])
        .if_key_at("order-2", None)
        .await
        .unwrap();
    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    shared(&replay);
    let mut seen = Vec::new();
    while let Some(event) = replay.next().await.unwrap() {
        assert_eq!(
            event.record().key(),
            event.key().unwrap().as_bytes().get(..)
        );
        assert_eq!(event.record().event_type(), Some(event.event_type()));
        assert_eq!(
            replay.cursor().covers(&event.record().position().unwrap()),
            Some(true)
        );
        seen.push(event.into_event());
    }
    assert_eq!(
        seen,
        [Order::Placed(1), Order::Shipped(1), Order::Placed(2)]
    );
    assert_eq!(replay.skipped(), 0);
    assert_eq!(*replay.cursor(), topic.end().await.unwrap());
    let mut one = orders
        .replay(Start::Beginning)
        .scan_key("order-2")
        .await
        .unwrap();
    assert_eq!(*one.next().await.unwrap().unwrap(), Order::Placed(2));
    assert!(one.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_type_moves_the_cursor_and_is_counted() {
    let (topic, orders) = orders().await;
    topic
        .append([newer(), Record::new("no event")])
        .await
        .unwrap();
    orders.append([Order::Placed(1)]).await.unwrap();
    topic.append(newer()).await.unwrap();
    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    assert_eq!(*replay.next().await.unwrap().unwrap(), Order::Placed(1));
    assert_eq!(replay.skipped(), 2);
    assert!(replay.next().await.unwrap().is_none());
    assert_eq!(replay.skipped(), 3);
    let end = topic.end().await.unwrap();
    assert_eq!(*replay.cursor(), end);
    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    let mut cursor = replay.cursor().clone();
    let (mut events, mut caught_up) = (0, false);
    while let Some(batch) = replay.next_batch().await.unwrap() {
        events += batch.len();
        caught_up = batch.caught_up();
        cursor = batch.cursor().clone();
    }
    assert_eq!((events, caught_up, cursor), (1, true, end));
}

#[tokio::test(start_paused = true)]
async fn denied_unknown_types_are_told_in_their_place() {
    let (topic, orders) = orders().await;
    topic
        .append([newer(), Record::new("no event")])
        .await
        .unwrap();
    orders.append([Order::Placed(1)]).await.unwrap();
    let mut replay = orders
        .replay(Start::Beginning)
        .deny_unknown()
        .await
        .unwrap();
    for text in ["\"returned\"", EVENT_TYPE] {
        let error = replay.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.message().contains(text), "{error}");
    }
    assert_eq!(*replay.next().await.unwrap().unwrap(), Order::Placed(1));
    assert_eq!(replay.skipped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_known_event_that_cannot_be_read_is_told_once_and_not_passed_before() {
    let (topic, orders) = orders().await;
    orders.append([Order::Placed(1)]).await.unwrap();
    let bad = topic
        .append(broken())
        .await
        .unwrap()
        .last()
        .unwrap()
        .position
        .unwrap();
    orders.append([Order::Placed(2)]).await.unwrap();

    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    replay.next().await.unwrap().unwrap();
    let error = replay.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(error.topic(), Some(topic.name()));
    assert_eq!(error.partition(), Some(bad.partition()));
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains(&bad.to_string()) && !shown.contains("confidential"),
        "{shown}"
    );
    assert_eq!(replay.cursor().covers(&bad), Some(false));
    assert_eq!(*replay.next().await.unwrap().unwrap(), Order::Placed(2));
    assert_eq!(replay.cursor().covers(&bad), Some(true));

    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    let batch = replay.next_batch().await.unwrap().unwrap();
    assert_eq!(*batch[0], Order::Placed(1));
    assert_eq!((batch.len(), batch.cursor().covers(&bad)), (1, Some(false)));
    assert_eq!(
        replay.next_batch().await.unwrap_err().kind(),
        ErrorKind::Decode
    );
    assert_eq!(replay.cursor().covers(&bad), Some(false));
    // Whoever stores the cursor now meets the error again, and no later event before it.
    let mut again = orders.replay(replay.cursor()).await.unwrap();
    assert_eq!(again.next().await.unwrap_err().kind(), ErrorKind::Decode);
    let batch = replay.next_batch().await.unwrap().unwrap();
    assert_eq!(*batch[0], Order::Placed(2));
    assert_eq!(*batch.cursor(), topic.end().await.unwrap());
}

#[derive(Serialize, Deserialize)]
struct Odd(std::collections::BTreeMap<(u8, u8), u8>);

impl Event for Odd {
    fn event_type(&self) -> &str {
        if self.0.len() > 1 { "denied" } else { "odd" }
    }
    fn key(&self) -> Option<Key> {
        None
    }
    fn knows(event_type: &str) -> bool {
        event_type == "odd"
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_written_stores_none() {
    let (topic, _) = orders().await;
    let pairs = |n: u8| Odd((0..n).map(|i| ((i, i), i)).collect());
    for (wrong, text) in [(1, "JSON"), (2, "knows")] {
        let error = topic
            .typed()
            .append([pairs(0), pairs(wrong)])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("event 1 ") && error.to_string().contains(text),
            "{error}"
        );
        assert!(error.unconfirmed().is_empty());
    }
    assert!(
        topic
            .replay(Start::Beginning)
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_no_text_is_told_and_not_passed_over_as_none() {
    let (topic, orders) = orders().await;
    let foreign = Record::new("\"confidential\"").header(EVENT_TYPE, &b"\xff"[..]);
    topic.append(foreign).await.unwrap();
    orders.append([Order::Placed(1)]).await.unwrap();
    let mut replay = orders.replay(Start::Beginning).await.unwrap();
    let told = replay.next().await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Decode);
    assert!(!told.to_string().contains("confidential"), "{told}");
    let next = replay.next().await.unwrap().unwrap();
    assert_eq!(*next, Order::Placed(1));
    assert_eq!(replay.skipped(), 0);
}
