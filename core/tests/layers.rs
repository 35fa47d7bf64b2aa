//! What layers do round single attempts to append.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod scripted;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_core::capability::Batching;
use annals_core::driver::{AppendOptions, Backend};
use annals_core::layer::{Timeout, Trace};
use annals_core::{Bus, Clock, Effect, ErrorKind, Layer, Timestamp, Topic, TopicName};
use scripted::{Answer, Say, Scripted, capabilities, records, shown};

const LIMIT: Duration = Duration::from_secs(5);

async fn topic(backend: &Scripted) -> Topic {
    let bus = Bus::new(backend.clone())
        .with_clock(Clock::runtime(Timestamp::EPOCH))
        .layer(&Timeout::new(LIMIT))
        .layer(&Trace::new());
    bus.topic("scripted").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_append_past_the_limit_is_unknown_for_every_record() {
    let backend = Scripted::new(capabilities(Batching::Prefix), [Answer::Hang]);
    let topic = topic(&backend).await;
    let started = topic.bus().clock().elapsed();
    let failed = topic.append(records("a1 b1 a2")).await.unwrap_err();
    assert_eq!(
        topic.bus().clock().elapsed().checked_sub(started),
        Some(LIMIT)
    );
    assert_eq!(shown(failed.outcomes()), "unknown unknown unknown");
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    let text = failed.to_string();
    assert!(text.contains("one attempt within 5s"), "{text}");
    let sent = backend.sent();
    assert_eq!(sent.first().unwrap().options.deadline, Some(LIMIT));
}

#[tokio::test(start_paused = true)]
async fn the_layer_answers_with_outcomes_not_with_an_error() {
    let clock = Clock::runtime(Timestamp::EPOCH);
    let hangs = Scripted::new(capabilities(Batching::Prefix), [Answer::Hang]);
    let backend = Timeout::new(LIMIT).wrap(Arc::new(hangs), &clock);
    let (name, batch) = (TopicName::new("scripted").unwrap(), records("a1 b1"));
    let options = AppendOptions::default();
    let report = backend.append(&name, &batch, &options).await.unwrap();
    assert_eq!(shown(report.outcomes()), "unknown unknown");
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_one_attempts_and_core_tries_again_where_it_may() {
    let script = [Answer::Hang, Answer::All(Say::Lose), Answer::Hang];
    let backend = Scripted::new(capabilities(Batching::Prefix), script);
    let topic = topic(&backend).await;
    topic
        .append(records("a1"))
        .allow_duplicates()
        .await
        .unwrap();
    assert_eq!(backend.requests(), ["a1", "a1", "a1", "a1"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deadline_of_the_caller_goes_first() {
    let backend = Scripted::new(capabilities(Batching::Prefix), [Answer::Hang]);
    let topic = topic(&backend).await;
    let append = topic.append(records("a1")).deadline(LIMIT / 5);
    let failed = append.await.unwrap_err();
    assert!(
        failed.to_string().contains("deadline of the append"),
        "{failed}"
    );
    assert_eq!(
        backend.sent().first().unwrap().options.deadline,
        Some(LIMIT / 5)
    );
}

#[tokio::test(start_paused = true)]
async fn order_is_fixed_at_the_first_poll() {
    let backend = Scripted::gated(capabilities(Batching::Prefix), []);
    let topic = topic(&backend).await;
    let mut first = pin!(topic.append(records("a1")));
    let mut second = pin!(topic.append(records("a2")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(first.as_mut().poll(&mut cx), Poll::Pending));
    assert!(matches!(second.as_mut().poll(&mut cx), Poll::Pending));
    // Both have reached the backend, though nothing else has been polled.
    assert_eq!(backend.requests(), ["a1", "a2"]);
    backend.let_through(2);
    second.await.unwrap();
    first.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_append_drops_its_attempt_and_the_topic_works_on() {
    let backend = Scripted::new(capabilities(Batching::Prefix), [Answer::Hang]);
    let topic = topic(&backend).await;
    {
        let mut append = pin!(topic.append(records("a1")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(append.as_mut().poll(&mut cx).is_pending());
    }
    topic.append(records("a2")).await.unwrap();
    assert_eq!(backend.stored(), ["a2"]);
}
