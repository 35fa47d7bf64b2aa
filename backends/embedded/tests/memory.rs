//! The log that tests of user code get: time and failures are in their hand.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use annals_core::capability::{Dedupe, Need};
use annals_core::driver::TopicSpec;
use annals_core::{Append, Effect, ErrorKind, Record, Start, Topic, defaults};
use annals_embedded::Memory;
use annals_embedded::disk::{Call, Fault};

const HOUR: Duration = Duration::from_secs(3600);

async fn orders(memory: &Memory) -> Topic {
    memory
        .bus
        .topic("orders")
        .create_if_missing()
        .await
        .unwrap()
}

async fn values(topic: &Topic) -> Vec<String> {
    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    let mut values = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        values.push(String::from_utf8(record.value().to_vec()).unwrap());
    }
    values
}

/// Moves the clock whenever the append waits for it.
async fn patiently(memory: &Memory, append: Append) -> Result<(), annals_core::AppendError> {
    let mut append = std::pin::pin!(append);
    loop {
        tokio::select! {
            biased;
            done = &mut append => return done.map(drop),
            asleep = memory.clock.asleep() => {
                assert!(asleep);
                memory.clock.advance(Duration::from_secs(1));
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_full_at_once_and_the_budget_ends_the_tries() {
    let memory = Memory::new().unwrap();
    let orders = orders(&memory).await;
    orders.append(Record::new("a")).await.unwrap();
    memory.faults.fill_disk();
    let started = memory.clock.elapsed();
    let failed = patiently(&memory, orders.append(Record::new("b")))
        .await
        .unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Blocked, Effect::None)
    );
    let waited = memory.clock.elapsed().saturating_sub(started);
    assert!(waited > defaults::RETRY_FOR / 2, "{waited:?}");
    assert_eq!(values(&orders).await, ["a"]);
    memory.faults.clear();
    orders.append(failed.unconfirmed()).await.unwrap();
    assert_eq!(values(&orders).await, ["a", "b"]);
}

#[tokio::test]
async fn a_throttled_append_comes_again_when_it_was_asked_to() {
    let memory = Memory::new().unwrap();
    let orders = orders(&memory).await;
    let after = Duration::from_secs(7);
    memory.faults.throttle(2, after);
    let started = memory.clock.elapsed();
    patiently(&memory, orders.append(Record::new("a")))
        .await
        .unwrap();
    assert!(memory.clock.elapsed().saturating_sub(started) >= 2 * after);
    assert_eq!(
        (memory.faults.fired(), values(&orders).await),
        (2, vec!["a".to_owned()])
    );
    // For longer than an append is tried: the caller sees it, without any waiting.
    memory.faults.throttle(1, HOUR);
    let failed = orders.append(Record::new("b")).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Throttled, Effect::None)
    );
}

#[tokio::test]
async fn a_lost_reply_is_unknown_unless_a_repeat_is_recognised() {
    let memory = Memory::new().unwrap();
    let spec = TopicSpec {
        dedupe: Some(HOUR),
        ..TopicSpec::default()
    };
    let orders = memory.bus.topic("orders").create_with(spec);
    let orders = orders.needs([Need::Dedupe(HOUR)]).await.unwrap();
    assert!(
        orders
            .capabilities()
            .append
            .dedupe
            .is(&Dedupe::Window(HOUR))
    );
    memory.faults.lose_replies(1);
    let failed = orders.append(Record::new("a")).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    memory.faults.lose_replies(1);
    patiently(&memory, orders.append(Record::new("b").id("1")))
        .await
        .unwrap();
    assert_eq!(memory.faults.fired(), 2);
    assert_eq!(values(&orders).await, ["a", "b"]);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_failed_sync_a_kill_and_a_power_loss() {
    let mut memory = Memory::new().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for seed in 0..6 {
        let orders = orders(&memory).await;
        let value = format!("kept-{seed}");
        orders.append(Record::new(value.as_str())).await.unwrap();
        acknowledged.push(value);
        memory.faults.fail_sync();
        let failed = orders.append(Record::new("lost")).await.unwrap_err();
        assert_eq!(failed.effect(), Effect::Unknown);
        let closed = orders.append(Record::new("late")).await.unwrap_err();
        assert_eq!(
            (closed.kind(), closed.effect()),
            (ErrorKind::Closed, Effect::None)
        );
        assert_eq!(memory.faults.fired(), 1);
        let next = if seed % 2 == 0 {
            memory.restart()
        } else {
            memory.power_loss(seed)
        };
        let next = next.unwrap();
        // The old process is no more.
        assert!(orders.append(Record::new("zombie")).await.is_err());
        assert_eq!(next.clock.now(), memory.clock.now());
        memory = next;
        let mut found = values(&self::orders(&memory).await).await;
        found.retain(|value| value != "lost");
        assert_eq!(found, acknowledged);
    }
}

#[tokio::test]
async fn the_clock_moves_log_time_and_any_call_of_the_disk_can_fail() {
    let memory = Memory::new().unwrap();
    let orders = orders(&memory).await;
    let first = memory.clock.now();
    orders.append(Record::new("a")).await.unwrap();
    memory.clock.advance(HOUR);
    orders.append(Record::new("b")).await.unwrap();
    let mut since = orders
        .replay(Start::Since(first.saturating_add(HOUR)))
        .await
        .unwrap();
    let record = since.next().await.unwrap().unwrap();
    assert_eq!(
        (record.value(), record.stored_at()),
        (&b"b"[..], Some(memory.clock.now()))
    );
    memory
        .faults
        .disk()
        .inject(Fault::new(Call::CreateDir).errno(13));
    let denied = memory
        .bus
        .topic("others")
        .create_if_missing()
        .await
        .unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let other = Memory::new().unwrap();
    assert!(other.bus.topics().await.unwrap().is_empty());
}
