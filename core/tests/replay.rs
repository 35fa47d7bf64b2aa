//! What a replay promises, against a scripted backend.

mod script;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_core::capability::Partitions;
use annals_core::driver::Fetched;
use annals_core::*;

use script::*;

fn cursor_at(number: u64) -> Cursor {
    let place = (PartitionId::ONLY, Frontier::after(at(0, number)));
    Cursor::new(origin(), [place], Rest::FromStart)
}

fn number(record: &Recorded) -> u64 {
    record
        .position()
        .and_then(|p| p.number_u64())
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_replay_gives_everything_in_order_and_its_cursor_is_what_was_handed_out() {
    let script = Script::new(Partitions::One);
    script.play(
        None,
        [
            Act::Records(0, 1..=3),
            Act::Records(0, 4..=5),
            Act::Say(Fetched::CaughtUp),
            Act::Say(Fetched::End),
        ],
    );
    let mut replay = script.topic().await.replay(Start::Beginning).await.unwrap();
    assert_eq!(replay.cursor(), &Cursor::start(origin()));
    for expected in 1..=5 {
        let record = replay.next().await.unwrap().unwrap();
        assert_eq!(number(&record), expected);
        assert_eq!(replay.cursor(), &cursor_at(expected));
    }
    assert!(replay.next().await.unwrap().is_none());
    assert!(replay.next().await.unwrap().is_none());
    assert_eq!(replay.cursor(), &cursor_at(5));
}

#[tokio::test(start_paused = true)]
async fn caught_up_is_told_once_after_the_records_before_it() {
    let script = Script::new(Partitions::One);
    let acts = [
        Act::Records(0, 1..=2),
        Act::Say(Fetched::CaughtUp),
        Act::Records(0, 3..=3),
        Act::Say(Fetched::CaughtUp),
        Act::Say(Fetched::End),
    ];
    script.play(None, acts.clone());
    let mut replay = script.topic().await.follow(None).await.unwrap();
    let mut seen = Vec::new();
    while let Some(signal) = replay.next_signal().await.unwrap() {
        seen.push(match signal {
            Signal::Record(record) => number(&record).to_string(),
            Signal::CaughtUp(cursor) => {
                assert_eq!(cursor, cursor_at(2));
                "caught up".to_owned()
            }
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["1", "2", "caught up", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_once_and_reading_goes_on_behind_it() {
    let gap = Fetched::Gap {
        partition: PartitionId::ONLY,
        from: Frontier::START,
        to: Some(at(0, 4)),
    };
    let script = Script::new(Partitions::One);
    script.play(
        None,
        [
            Act::Say(gap.clone()),
            Act::Fail(retryable()),
            Act::Fail(retryable()),
            Act::Fail(retryable()),
        ],
    );
    // Opened again before anything was read, the reader has to tell it again; the user knows.
    script.play(
        None,
        [
            Act::Say(gap),
            Act::Records(0, 4..=4),
            Act::Say(Fetched::End),
        ],
    );
    let mut replay = script.topic().await.replay(Start::Beginning).await.unwrap();
    let error = replay.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert_eq!(error.gap().unwrap().to, Some(at(0, 4)));
    assert_eq!(number(&replay.next().await.unwrap().unwrap()), 4);
    assert!(replay.next().await.unwrap().is_none());
    assert_eq!(script.opened.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_can_heal_heals_and_a_dead_reader_is_opened_again_from_the_cursor() {
    let script = Script::new(Partitions::One);
    let fails = (0..3).map(|_| Act::Fail(retryable()));
    script.play(None, [Act::Records(0, 1..=2)].into_iter().chain(fails));
    script.play(None, [Act::Records(0, 1..=4), Act::Say(Fetched::End)]);
    script.failing_reads.lock().unwrap().push(retryable());
    *script.until.lock().unwrap() = Some(cursor_at(4));
    let mut replay = script.topic().await.replay(Start::Beginning).await.unwrap();
    let mut seen = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        seen.push(number(&record));
        if seen.len() == 2 {
            let mut failing = script.failing_reads.lock().unwrap();
            failing.extend([retryable(), retryable()]);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4]);
    let opened = script.opened.lock().unwrap();
    assert_eq!(opened[1].from, cursor_at(2));
    // The end stays where it was at the first open.
    assert_eq!(opened[1].stop, driver::Stop::Through(cursor_at(4)));
}

#[tokio::test(start_paused = true)]
async fn a_final_error_comes_after_the_records_before_it_and_stays() {
    let script = Script::new(Partitions::One);
    let denied = Error::new(ErrorKind::Denied, Effect::None, Retry::Never, "not yours");
    script.play(None, [Act::Records(0, 1..=1), Act::Fail(denied)]);
    let mut replay = script.topic().await.follow(None).await.unwrap();
    assert!(replay.next().await.unwrap().is_some());
    for _ in 0..2 {
        let error = replay.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.operation(), Some(Operation::Read));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_carry_the_cursor_behind_them_and_may_be_empty() {
    let script = Script::new(Partitions::One);
    let clear = Frontier::After {
        position: at(0, 2),
        clear: Some(Timestamp::from_millis(9)),
    };
    script.play(
        None,
        [
            Act::Said(vec![record(0, 1), record(0, 2)], Fetched::CaughtUp),
            Act::Say(Fetched::Advanced {
                partition: PartitionId::ONLY,
                to: clear,
            }),
            Act::Say(Fetched::End),
        ],
    );
    let mut replay = script.topic().await.follow(None).await.unwrap();
    let batch = replay.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.len(), 2);
    assert_eq!(batch.cursor(), &cursor_at(2));
    assert!(batch.caught_up());
    let batch = replay.next_batch().await.unwrap().unwrap();
    assert!(batch.is_empty());
    assert_eq!(batch.cursor().frontier(PartitionId::ONLY), Some(&clear));
    assert!(replay.next_batch().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_nothing_is_lost() {
    for polls in 0..12 {
        let script = Script::new(Partitions::One);
        script.play(
            None,
            [
                Act::Records(0, 1..=2),
                Act::Sleep(Duration::from_secs(1)),
                Act::Fail(retryable()),
                Act::Records(0, 3..=4),
                Act::Sleep(Duration::from_secs(1)),
                Act::Say(Fetched::End),
            ],
        );
        let mut replay = script.topic().await.follow(None).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..polls {
            let mut next = std::pin::pin!(replay.next());
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(Some(record))) = next.as_mut().poll(&mut cx) {
                seen.push(number(&record));
            }
            tokio::time::advance(Duration::from_millis(300)).await;
        }
        while let Some(record) = replay.next().await.unwrap() {
            seen.push(number(&record));
        }
        assert_eq!(seen, [1, 2, 3, 4], "dropped {polls} times");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_come_before_anything_is_sent_and_name_the_way_out() {
    let script = Script::new(Partitions::One);
    let topic = script.topic().await;
    let error = topic.replay(Start::Beginning).key("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("scan_key"), "{error}");

    let foreign = Origin {
        topic: TopicName::new("u").unwrap(),
        ..(*origin()).clone()
    };
    let foreign = Cursor::start(foreign.into());
    let error = topic.follow(&foreign).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let through = topic.replay(None).until(Until::Through(foreign));
    assert_eq!(through.await.unwrap_err().kind(), ErrorKind::Config);

    let has = script.capabilities.lock().unwrap().clone().unwrap();
    let mut none = has.clone();
    none.replay = capability::Replay::None.into();
    let mut starts = has;
    starts.starts = capability::Starts {
        latest: true,
        ..capability::Starts::NONE
    }
    .into();
    for (capabilities, names) in [(none, "journal"), (starts, "Latest")] {
        *script.capabilities.lock().unwrap() = Some(capabilities);
        let error = script.topic().await.replay(None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(names), "{error}");
    }
    assert_eq!(*script.located.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_scan_for_a_key_and_chosen_partitions_reach_the_backend() {
    let script = Script::new(Partitions::Fixed(3));
    script.list(&[(0, &[], true), (1, &[], true), (2, &[], true)]);
    script.play(None, [Act::Records(2, 7..=7), Act::Say(Fetched::End)]);
    let topic = script.topic().await;
    let unknown = topic.replay(None).partitions([PartitionId::new(9)]).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Config);
    let [zero, two] = [0, 2].map(PartitionId::new);
    let open = topic.replay(None).partitions([two, zero]).scan_key("k");
    let mut replay = open.await.unwrap();
    assert!(replay.next().await.unwrap().is_some());
    let places = [(zero, Frontier::START), (two, Frontier::after(at(2, 7)))];
    let expected = Cursor::new(origin(), places, Rest::Outside);
    assert_eq!(replay.cursor(), &expected);
    let range = script.opened.lock().unwrap()[0].clone();
    assert_eq!(range.partitions, Some(vec![zero, two]));
    assert_eq!(range.key.as_deref(), Some(&b"k"[..]));
    // Going on from that cursor reads those two and no others.
    script.play(None, [Act::Say(Fetched::End)]);
    topic.replay(&expected).await.unwrap();
    let range = script.opened.lock().unwrap()[1].clone();
    assert_eq!(range.partitions, Some(vec![zero, two]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_behind_a_gap_and_ends() {
    use futures_core::Stream;
    let script = Script::new(Partitions::One);
    script.play(
        None,
        [
            Act::Records(0, 1..=1),
            Act::Say(Fetched::Gap {
                partition: PartitionId::ONLY,
                from: Frontier::after(at(0, 1)),
                to: None,
            }),
            Act::Records(0, 5..=5),
            Act::Say(Fetched::End),
        ],
    );
    let replay = script.topic().await.replay(None).await.unwrap();
    let mut stream = std::pin::pin!(replay.into_stream());
    let mut seen = Vec::new();
    while let Some(item) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        seen.push(item.map_or(0, |record| number(&record)));
    }
    assert_eq!(seen, [1, 0, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_replay_closes_its_reader_though_it_waits() {
    let script = Script::new(Partitions::One);
    script.play(None, [Act::Records(0, 1..=1), Act::Hang]);
    let mut replay = script.topic().await.follow(None).await.unwrap();
    replay.next().await.unwrap().unwrap();
    let waiting = tokio::time::timeout(Duration::from_secs(1), replay.next()).await;
    assert!(waiting.is_err());
    replay.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(*script.closed.lock().unwrap(), 1);
}

#[test]
fn handles_can_be_shared_and_sent() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Replay>();
    check::<OpenReplay>();
    check::<RecordStream>();
}

#[tokio::test(start_paused = true)]
async fn more_that_has_gone_since_a_gap_was_told_is_told_too() {
    let script = Script::new(Partitions::One);
    let gap = |to| {
        Act::Say(Fetched::Gap {
            partition: PartitionId::ONLY,
            from: Frontier::START,
            to: Some(at(0, to)),
        })
    };
    let acts = [gap(10), gap(10), gap(20), gap(15), Act::Say(Fetched::End)];
    script.play(None, acts);
    let mut replay = script.topic().await.replay(Start::Beginning).await.unwrap();
    for to in [10, 20] {
        let error = replay.next().await.unwrap_err();
        assert_eq!(error.gap().unwrap().to, Some(at(0, to)));
    }
    assert!(replay.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_scan_for_a_key_moves_the_cursor_in_every_partition_that_an_answer_had() {
    let script = Script::new(Partitions::Fixed(2));
    let records = vec![record(0, 5), record(1, 7)];
    let acts = [Act::Said(records, Fetched::Records), Act::Say(Fetched::End)];
    script.play(None, acts);
    let topic = script.topic().await;
    let mut replay = topic
        .replay(Start::Beginning)
        .scan_key("nobody")
        .await
        .unwrap();
    assert!(replay.next().await.unwrap().is_none());
    for (partition, number) in [(0, 5), (1, 7)] {
        let reached = replay.cursor().covers(&at(partition, number));
        assert_eq!(reached, Some(true), "partition {partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_panics_is_an_error_and_never_an_end() {
    let script = Script::new(Partitions::One);
    script.play(None, [Act::Records(0, 1..=2), Act::Panic]);
    let mut replay = script.topic().await.replay(Start::Beginning).await.unwrap();
    for expected in [1, 2] {
        assert_eq!(number(&replay.next().await.unwrap().unwrap()), expected);
    }
    for _ in 0..2 {
        let error = replay.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_read_ahead_is_handed_out_once_the_bus_is_closed() {
    use futures_core::Stream;
    let script = Script::new(Partitions::One);
    let mut closed = Vec::new();
    let topic = script.topic().await;
    for _ in 0..4 {
        script.play(None, [Act::Records(0, 1..=3), Act::Hang]);
        let mut replay = topic.replay(None).await.unwrap();
        replay.next().await.unwrap().unwrap();
        closed.push(replay);
    }
    let cursor = cursor_at(1);
    topic.bus().clone().close(Duration::ZERO).await.unwrap();
    let is_closed = |error: Error| assert_eq!(error.kind(), ErrorKind::Closed);
    let mut replays = closed.into_iter();
    let mut replay = || replays.next().unwrap();
    let mut one = replay();
    for _ in 0..2 {
        is_closed(one.next().await.unwrap_err());
    }
    assert_eq!(one.cursor(), &cursor);
    is_closed(replay().next_batch().await.unwrap_err());
    is_closed(replay().next_signal().await.unwrap_err());
    let mut stream = std::pin::pin!(replay().into_stream());
    let next = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx));
    is_closed(next.await.unwrap().unwrap_err());
}
