//! The rules of appending, each against a backend that answers as the rule's case needs it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unchecked_time_subtraction,
    reason = "a test may panic"
)]

mod scripted;

use std::time::Duration;

use annals_core::capability::{Batching, Capabilities, Dedupe};
use annals_core::{
    Batch, Cursor, Effect, Error, ErrorKind, Origin, PartitionId, Position, Record, Retry,
    TopicName, defaults,
};
use scripted::{
    Answer, REFUSE, Say, Scripted, THROTTLE, capabilities, each, error, record, records, shown,
};

fn singly() -> Capabilities {
    capabilities(Batching::PerRecord)
}

fn prefix() -> Capabilities {
    capabilities(Batching::Prefix)
}

/// What the caller sees of one append.
async fn outcome(backend: &Scripted, batch: Batch) -> String {
    match backend.topic().await.append(batch).await {
        Ok(stored) => format!("ok {}", stored.records().len()),
        Err(failed) => shown(failed.outcomes()),
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_batch_is_ok_without_io() {
    let backend = Scripted::new(singly(), []);
    assert_eq!(outcome(&backend, records("")).await, "ok 0");
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn singly_stored_requests_never_carry_two_records_of_a_key() {
    let backend = Scripted::new(singly(), []);
    assert_eq!(
        outcome(&backend, records("a1 a2 b1 -1 -2 a3 b2")).await,
        "ok 7"
    );
    assert_eq!(backend.requests(), ["a1 b1 -1 -2", "a2 b2", "a3"]);
    let backend = Scripted::new(prefix(), []);
    assert_eq!(outcome(&backend, records("a1 a2 b1 a3")).await, "ok 4");
    assert_eq!(backend.requests(), ["a1 a2 b1 a3"]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_record_is_tried_again_before_the_next_of_its_key() {
    let backend = Scripted::new(singly(), [each([THROTTLE, Say::Store])]);
    assert_eq!(outcome(&backend, records("a1 a2 b1 b2")).await, "ok 4");
    assert_eq!(backend.requests(), ["a1 b1", "b2", "a1", "a2"]);
    let backend = Scripted::new(
        prefix(),
        [each([Say::Store, THROTTLE, Say::Skip, Say::Skip])],
    );
    assert_eq!(outcome(&backend, records("a1 a2 b1 a3")).await, "ok 4");
    assert_eq!(backend.stored(), ["a1", "b1", "a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_stops_at_its_first_record_that_is_not_stored() {
    let backend = Scripted::new(singly(), [each([REFUSE])]);
    assert_eq!(
        outcome(&backend, records("a1 a2 b1 b2 a3")).await,
        "Throttled not stored stored not"
    );
    assert_eq!(backend.stored(), ["b1", "b2"]);
    let backend = Scripted::new(prefix(), [each([Say::Store, REFUSE, Say::Skip, Say::Skip])]);
    assert_eq!(
        outcome(&backend, records("a1 a2 a3 b1")).await,
        "stored Throttled not stored"
    );
}

#[tokio::test(start_paused = true)]
async fn the_unknown_is_not_tried_again_where_no_repeat_is_recognised() {
    let backend = Scripted::new(singly(), [each([Say::Lose])]);
    let topic = backend.topic().await;
    let batch = records("a1 a2 b1");
    let submitted = batch.submission(0);
    let failed = topic.append(batch).await.unwrap_err();
    assert_eq!(shown(failed.outcomes()), "unknown not stored");
    assert_eq!(failed.effect(), Effect::Unknown);
    assert_eq!(backend.requests(), ["a1 b1"]);
    let open = failed.unconfirmed();
    assert_eq!(open.submission(0), submitted);
    assert_eq!(open.records(), [record("a1"), record("a2")]);
}

#[tokio::test(start_paused = true)]
async fn the_unknown_is_resubmitted_as_the_same_submission_within_the_window() {
    let mut has = singly();
    has.append.resubmit = Some(Duration::from_secs(60)).into();
    let backend = Scripted::new(has.clone(), [Answer::All(Say::Lose)]);
    assert_eq!(outcome(&backend, records("a1 a2")).await, "ok 2");
    let sent = backend.sent();
    assert_eq!(backend.requests(), ["a1", "a1", "a2"]);
    assert_eq!(sent[0].submissions, sent[1].submissions);

    // The window is over before the first pause is.
    has.append.resubmit = Some(Duration::from_millis(10)).into();
    let backend = Scripted::new(has, [Answer::All(Say::Lose)]);
    assert_eq!(outcome(&backend, records("a1 a2")).await, "unknown not");
    assert_eq!(backend.requests(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn the_window_counts_from_the_first_try_of_an_earlier_append() {
    let mut has = singly();
    has.append.resubmit = Some(Duration::from_secs(60)).into();
    let backend = Scripted::new(
        has,
        [Answer::Fail(Error::config("no")), Answer::All(Say::Lose)],
    );
    let topic = backend.topic().await;
    let failed = topic.append(record("a1")).await.unwrap_err();
    tokio::time::advance(Duration::from_secs(60)).await;
    let failed = topic.append(failed.unconfirmed()).await.unwrap_err();
    assert_eq!(shown(failed.outcomes()), "unknown");
}

#[tokio::test(start_paused = true)]
async fn deduplication_covers_only_records_with_an_id() {
    let mut has = prefix();
    has.append.dedupe = Dedupe::Window(Duration::from_secs(60)).into();
    let backend = Scripted::new(has, [Answer::All(Say::Lose)]);
    let batch = Batch::from([
        record("a1").id("1"),
        record("a2"),
        record("a3").id("3"),
        record("b1").id("4"),
        record("c1"),
    ]);
    assert_eq!(
        outcome(&backend, batch).await,
        "stored unknown unknown stored unknown"
    );
    assert_eq!(backend.requests(), ["a1 a2 a3 b1 c1", "a1 b1"]);
}

#[tokio::test(start_paused = true)]
async fn duplicates_may_be_allowed() {
    let backend = Scripted::new(singly(), [Answer::All(Say::Lose)]);
    let topic = backend.topic().await;
    topic.append(record("a1")).allow_duplicates().await.unwrap();
    assert_eq!(backend.requests(), ["a1", "a1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_unknown_once_stays_unknown_until_it_is_stored() {
    let mut has = singly();
    has.append.resubmit = Some(Duration::from_secs(60)).into();
    let backend = Scripted::new(has, [Answer::All(Say::Lose), Answer::All(REFUSE)]);
    assert_eq!(outcome(&backend, records("a1 a2")).await, "unknown not");
}

#[tokio::test(start_paused = true)]
async fn with_holes_a_passed_record_is_overtaken_and_never_sent_again() {
    let answer = each([THROTTLE, Say::Store, REFUSE, Say::Store, THROTTLE]);
    let backend = Scripted::new(singly(), [answer]);
    let topic = backend.topic().await;
    let failed = topic
        .append(records("a1 a2 b1 b2 a3"))
        .allow_holes()
        .await
        .unwrap_err();
    assert_eq!(
        shown(failed.outcomes()),
        "Overtaken stored Throttled stored stored"
    );
    assert_eq!(backend.requests(), ["a1 a2 b1 b2 a3", "a3"]);
    assert_eq!(backend.stored(), ["a2", "b2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn with_holes_too_a_service_without_order_gets_one_record_of_a_key_at_a_time() {
    let backend = Scripted::new(
        capabilities(Batching::Unordered),
        [each([REFUSE, Say::Store])],
    );
    let topic = backend.topic().await;
    let holes = topic.append(records("a1 b1 a2 a3")).allow_holes();
    let failed = holes.await.unwrap_err();
    assert_eq!(shown(failed.outcomes()), "Throttled stored stored stored");
    assert_eq!(backend.requests(), ["a1 b1", "a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn with_holes_a_record_that_may_have_been_passed_is_not_sent_again() {
    let mut has = singly();
    has.append.resubmit = Some(Duration::from_secs(60)).into();
    let backend = Scripted::new(has, [each([THROTTLE, Say::Lose])]);
    let topic = backend.topic().await;
    let failed = topic
        .append(records("a1 a2"))
        .allow_holes()
        .await
        .unwrap_err();
    assert_eq!(shown(failed.outcomes()), "Overtaken stored");
    assert_eq!(backend.requests(), ["a1 a2", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_to_the_limits() {
    let mut has = prefix();
    has.limits.batch_records = Some(3).into();
    has.limits.batch_bytes = Some(9).into();
    let backend = Scripted::new(has, []);
    // Three bytes each: "a1" and its key.
    assert_eq!(
        outcome(&backend, records("a1 a2 a3 b1 a4 a5 -1")).await,
        "ok 7"
    );
    assert_eq!(backend.requests(), ["a1 a2 a3", "b1 a4 a5", "-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_edge_of_a_request_holds_the_rest_of_its_key_back() {
    let mut has = prefix();
    has.limits.batch_records = Some(2).into();
    let backend = Scripted::new(has, [each([Say::Store, THROTTLE])]);
    assert_eq!(outcome(&backend, records("a1 a2 a3 b1")).await, "ok 4");
    assert_eq!(backend.requests(), ["a1 a2", "b1", "a2 a3"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_over_a_limit_is_refused_before_anything_is_sent() {
    let mut has = singly();
    has.limits.record_bytes = Some(20).into();
    has.limits.key_bytes = Some(2).into();
    has.limits.headers = Some(1).into();
    let backend = Scripted::new(has, []);
    let topic = backend.topic().await;
    for (wrong, named) in [
        (Record::new("x".repeat(21)), "limits.record_bytes of 20"),
        (Record::new("").key("abc"), "limits.key_bytes of 2"),
        (
            Record::new("").headers({
                let mut headers = annals_core::headers::Headers::new();
                headers.push("", None);
                headers.push("", None);
                headers
            }),
            "limits.headers of 1",
        ),
    ] {
        let failed = topic.append([record("a1"), wrong]).await.unwrap_err();
        assert_eq!(shown(failed.outcomes()), "not TooLarge");
        assert_eq!(failed.effect(), Effect::None);
        assert!(failed.to_string().contains(named), "{failed}");
        assert!(
            failed
                .to_string()
                .starts_with("scripted append \"scripted\": ")
        );
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_split_is_too_large_and_what_is_not_offered_unsupported() {
    let mut has = capabilities(Batching::Atomic);
    has.append.conditional = true.into();
    has.limits.batch_records = Some(2).into();
    let backend = Scripted::new(has, []);
    let topic = backend.topic().await;
    let failed = topic
        .append(records("a1 b1 c1"))
        .atomic()
        .await
        .unwrap_err();
    assert_eq!(shown(failed.outcomes()), "TooLarge TooLarge TooLarge");
    let failed = topic.append(records("a1 b1 c1")).if_key_at("a", None).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::TooLarge);
    let failed = topic.append(record("a1")).epoch(1).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unsupported);
    assert_eq!(backend.requests().len(), 0);

    let mut has = capabilities(Batching::AtomicPerKey);
    has.append.fenced = true.into();
    let backend = Scripted::new(has, []);
    let topic = backend.topic().await;
    let origin = Origin {
        scheme: "scripted".into(),
        topic: TopicName::new("scripted").unwrap(),
        incarnation: "".into(),
    };
    let failed = topic
        .append(record("a1"))
        .if_end_at(&Cursor::start(origin.into()))
        .await
        .unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unsupported);
    let failed = topic.append(records("a1 b1")).atomic().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unsupported);
    topic
        .append(records("a1 a2"))
        .atomic()
        .epoch(7)
        .await
        .unwrap();
    assert_eq!(backend.requests(), ["a1 a2"]);
    let options = backend.sent()[0].options.clone();
    assert_eq!((options.epoch, options.atomic), (Some(7), true));
}

#[tokio::test(start_paused = true)]
async fn a_condition_goes_with_all_records_and_is_never_tried_in_parts() {
    let mut has = prefix();
    has.append.conditional = true.into();
    let script = [
        each([THROTTLE, Say::Skip]),
        Answer::All(Say::RefuseAs(ErrorKind::Conflict)),
        each([Say::Store, THROTTLE]),
        Answer::All(Say::Lose),
    ];
    let backend = Scripted::new(has, script);
    let topic = backend.topic().await;
    let at = Position::new(PartitionId::ONLY, 7);
    let conditional = || topic.append(records("a1 a2")).if_key_at("a", &at);
    let failed = conditional().await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect()),
        (ErrorKind::Conflict, Effect::None)
    );
    let failed = conditional().await.unwrap_err();
    assert_eq!(shown(failed.outcomes()), "stored Throttled");
    let failed = conditional().allow_duplicates().await.unwrap_err();
    assert_eq!(shown(failed.outcomes()), "unknown unknown");
    assert_eq!(backend.requests(), ["a1 a2"; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_error_means_that_nothing_was_stored_and_is_tried_again_for_the_budget() {
    let gone = error(ErrorKind::Disconnected, Effect::None, Retry::Backoff);
    let script = vec![Answer::Fail(gone); 1_000];
    let backend = Scripted::new(singly(), script);
    let begun = tokio::time::Instant::now();
    assert_eq!(
        outcome(&backend, records("a1 b1")).await,
        "Disconnected Disconnected"
    );
    assert!(begun.elapsed() <= defaults::RETRY_FOR);
    assert!(begun.elapsed() >= defaults::RETRY_FOR - 2 * defaults::RETRY_MOST);
    let sent = backend.sent();
    assert!((8..30).contains(&sent.len()), "{} attempts", sent.len());
    let first = sent[1].at - sent[0].at;
    assert!(first >= defaults::RETRY_FIRST && first <= 2 * defaults::RETRY_FIRST);

    let never = Error::config("no");
    let backend = Scripted::new(singly(), [Answer::Fail(never)]);
    assert_eq!(outcome(&backend, records("a1 b1")).await, "Config Config");
    let lying = error(ErrorKind::Timeout, Effect::Unknown, Retry::Backoff);
    let backend = Scripted::new(singly(), [Answer::Fail(lying)]);
    assert_eq!(outcome(&backend, records("a1")).await, "unknown");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_names_a_pause_is_left_alone_for_it() {
    let pause = Duration::from_secs(7);
    let backend = Scripted::new(singly(), [each([Say::Refuse(Retry::After(pause))])]);
    assert_eq!(outcome(&backend, records("a1 a2 b1")).await, "ok 3");
    let sent = backend.sent();
    assert_eq!(backend.requests(), ["a1 b1", "a1", "a2"]);
    assert!(sent[1].at - sent[0].at >= pause);
    let long = Duration::from_secs(3_600);
    let backend = Scripted::new(singly(), [each([Say::Refuse(Retry::After(long))])]);
    assert_eq!(outcome(&backend, records("a1")).await, "Throttled");
}

#[tokio::test(start_paused = true)]
async fn a_report_of_another_length_says_nothing() {
    for length in [0, 1, 3] {
        let backend = Scripted::new(singly(), [Answer::Length(length)]);
        assert_eq!(outcome(&backend, records("a1 b1")).await, "unknown unknown");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_is_under_way_is_unknown_and_the_rest_is_not_sent() {
    let backend = Scripted::new(singly(), [Answer::All(Say::Store), Answer::Hang]);
    let topic = backend.topic().await;
    let begun = tokio::time::Instant::now();
    let failed = topic
        .append(records("a1 a2 a3"))
        .deadline(Duration::from_secs(2))
        .await
        .unwrap_err();
    assert_eq!(shown(failed.outcomes()), "stored unknown not");
    assert_eq!(failed.kind(), ErrorKind::Timeout);
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(
        backend.sent()[0].options.deadline,
        Some(Duration::from_secs(2))
    );
}

#[tokio::test(start_paused = true)]
async fn order_is_fixed_at_the_first_poll() {
    let backend = Scripted::gated(singly(), []);
    let topic = backend.topic().await;
    let mut appends: Vec<_> = (1..=5)
        .map(|n| topic.append(record(&format!("a{n}"))))
        .collect();
    // Made in one order, polled in another.
    appends.reverse();
    std::future::poll_fn(|cx| {
        for append in &mut appends {
            assert!(std::pin::Pin::new(append).poll(cx).is_pending());
        }
        std::task::Poll::Ready(())
    })
    .await;
    assert_eq!(backend.requests(), ["a5", "a4", "a3", "a2", "a1"]);
    backend.let_through(5);
    for append in appends {
        append.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_append_leaves_the_topic_working() {
    let backend = Scripted::new(singly(), [Answer::Hang]);
    let topic = backend.topic().await;
    drop(topic.append(record("a0")));
    assert_eq!(backend.requests().len(), 0, "never polled, never sent");
    let hanging = topic.append(record("a1"));
    tokio::time::timeout(Duration::from_secs(1), hanging)
        .await
        .unwrap_err();
    topic.append(record("a2")).await.unwrap();
    assert_eq!(backend.stored(), ["a2"]);
}

#[tokio::test]
async fn a_topic_shows_where_it_is_in_one_line_and_no_more() {
    let topic = Scripted::new(singly(), []).topic().await;
    assert_eq!(
        format!("{topic:?}"),
        "Topic { name: \"scripted\", scheme: \"scripted\", .. }"
    );
}
