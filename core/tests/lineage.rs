//! What a replay over partitions that split and merge promises, against a scripted backend.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod script;

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Partitions;
use annals_core::driver::{Fetched, Partition, Stop};
use annals_core::*;

use script::*;

fn ended(id: u64, children: &[(u64, &[u64], bool)]) -> Act {
    let children: Vec<Partition> = children
        .iter()
        .map(|(id, parents, open)| partition(*id, parents, *open))
        .collect();
    Act::Say(Fetched::PartitionEnded {
        partition: PartitionId::new(id),
        children: children.into(),
        clear: None,
    })
}

/// The same, with a moment before which nothing of the children was stored.
fn ended_at(clear: i64, partition: u64, children: &[(u64, &[u64], bool)]) -> Act {
    let Act::Say(Fetched::PartitionEnded {
        partition,
        children,
        ..
    }) = ended(partition, children)
    else {
        unreachable!("an end is made");
    };
    Act::Say(Fetched::PartitionEnded {
        partition,
        children,
        clear: Some(Timestamp::from_millis(clear)),
    })
}

fn begun(clear: i64) -> Frontier {
    Frontier::Start {
        clear: Some(Timestamp::from_millis(clear)),
    }
}

const END: Act = Act::Say(Fetched::End);

fn id(partition: u64) -> PartitionId {
    PartitionId::new(partition)
}

/// Which partitions were opened, in order.
fn opened(script: &Script) -> Vec<u64> {
    let opened = script.opened.lock().unwrap();
    let one = |range: &driver::ReadRange| range.partitions.as_ref().unwrap()[0].get();
    opened.iter().map(one).collect()
}

/// Records as `partition:number`, and what else is said, until it ends or waits for an hour.
async fn said(replay: &mut Replay) -> Vec<String> {
    let mut said = Vec::new();
    let hour = Duration::from_secs(3_600);
    while let Ok(signal) = tokio::time::timeout(hour, replay.next_signal()).await {
        said.push(match signal.unwrap() {
            None => {
                said.push("end".to_owned());
                return said;
            }
            Some(Signal::Record(record)) => text(&record),
            Some(Signal::CaughtUp(_)) => "caught up".to_owned(),
            Some(Signal::Advanced(_)) => continue,
            Some(Signal::Gap(gap)) => format!("gap {}", gap.partition),
        });
    }
    said
}

#[tokio::test(start_paused = true)]
async fn a_child_is_opened_when_all_its_parents_have_ended_and_all_share_one_budget() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], false), (1, &[], false), (2, &[0, 1], true)]);
    let two: (u64, &[u64], bool) = (2, &[0, 1], true);
    script.play(0, [Act::Records(0, 1..=2), ended(0, &[two])]);
    let slow = Act::Sleep(Duration::from_secs(60));
    script.play(1, [slow, Act::Records(1, 1..=1), ended(1, &[two])]);
    script.play(
        2,
        [Act::Records(2, 1..=1), Act::Say(Fetched::CaughtUp), END],
    );
    let topic = script.topic().await;
    let mut replay = topic.replay(None).buffer(1_000).await.unwrap();
    for _ in 0..2 {
        replay.next().await.unwrap().unwrap();
    }
    // Shard 0 has ended by the time the other is heard, and the child waits for it.
    assert_eq!(
        text(&replay.next().await.unwrap().unwrap()),
        "1:1",
        "the slow one"
    );
    assert_eq!(opened(&script), [0, 1]);
    assert_eq!(said(&mut replay).await, ["2:1", "caught up", "end"]);
    assert_eq!(opened(&script), [0, 1, 2]);
    let opened = script.opened.lock().unwrap();
    let all = opened[0].budget.try_reserve(usize::MAX).unwrap();
    assert_eq!((all.bytes(), opened[2].budget.free()), (500, 0));
}

fn text(record: &Recorded) -> String {
    String::from_utf8(record.value().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_says_caught_up_leaves_no_signal_of_it_behind() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    script.play(0, [Act::Records(0, 1..=1), ended(0, &[(1, &[0], true)])]);
    script.play(1, [Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    assert_eq!(follow.next_batch().await.unwrap().unwrap().len(), 1);
    let batch = follow.next_batch().await.unwrap().unwrap();
    assert!(batch.is_empty() && batch.caught_up());
    assert_eq!(said(&mut follow).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_other_parent_is_not_known_yet_is_named_only_after_a_listing() {
    // 1 split into 3 and 4 after the open, and 3 was merged with 0 into 5.
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true), (1, &[], true)]);
    let five: (u64, &[u64], bool) = (5, &[0, 3], true);
    let halves: [(u64, &[u64], bool); 2] = [(3, &[1], false), (4, &[1], true)];
    script.play(0, [ended(0, &[five])]);
    let slow = Act::Sleep(Duration::from_secs(60));
    script.play(1, [slow, Act::Records(1, 1..=1), ended(1, &halves)]);
    script.play(3, [Act::Records(3, 1..=1), ended(3, &[five])]);
    script.play(4, [Act::Hang]);
    script.play(5, [Act::Records(5, 1..=1), Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    let mut all = vec![(0, &[][..], false), (1, &[][..], false), five];
    all.extend(halves);
    script.list(&all);
    let Some(Signal::Advanced(cursor)) = follow.next_signal().await.unwrap() else {
        panic!("partition 0 ended and nothing else happened");
    };
    let named: Vec<u64> = cursor.places().map(|(id, _)| id.get()).collect();
    assert_eq!(
        named,
        [1, 3, 4, 5],
        "1 is unread and must not look finished"
    );
    assert_eq!(said(&mut follow).await, ["1:1", "caught up", "3:1", "5:1"]);
    assert_eq!(opened(&script), [0, 1, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_where_the_first_listing_calls_a_partition_open() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], false), (1, &[], true)]);
    // Its child was not listed yet, but was made before the open: it belongs to the end.
    script.play(0, [Act::Records(0, 1..=1), ended(0, &[(2, &[0], true)])]);
    // Closed after the open: its child holds nothing that is older.
    script.play(1, [Act::Records(1, 1..=1), ended(1, &[(3, &[1], true)])]);
    script.play(2, [Act::Records(2, 1..=1), END]);
    let mut replay = script.topic().await.replay(None).await.unwrap();
    let said = said(&mut replay).await;
    assert_eq!(said, ["0:1", "1:1", "2:1", "caught up", "end"]);
    assert_eq!(opened(&script), [0, 1, 2]);
    let next = replay.cursor();
    assert_eq!(next.frontier(id(3)), Some(&Frontier::START));
    assert_eq!(next.frontier(id(1)), None);
}

#[tokio::test(start_paused = true)]
async fn the_pinned_end_of_a_partition_stays_though_its_reader_is_opened_again() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(7, &[], true)]);
    let fails = (0..3).map(|_| Act::Fail(retryable()));
    script.play(7, [Act::Records(7, 1..=2)].into_iter().chain(fails));
    script.play(7, [END]);
    let until = Cursor::new(
        origin(),
        [(id(7), Frontier::after(at(7, 2)))],
        Rest::Outside,
    );
    *script.until.lock().unwrap() = Some(until.clone());
    let mut replay = script.topic().await.replay(None).await.unwrap();
    assert_eq!(said(&mut replay).await, ["7:1", "7:2", "caught up", "end"]);
    let opened = script.opened.lock().unwrap();
    assert_eq!(opened[0].stop, Stop::End);
    assert_eq!(opened[1].stop, Stop::Through(until));
    let from = Cursor::new(
        origin(),
        [(id(7), Frontier::after(at(7, 2)))],
        Rest::Outside,
    );
    assert_eq!(opened[1].from, from);
}

fn gone() -> Error {
    Error::not_found("there is no such partition")
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_neither_found_nor_listed_is_a_gap_before_what_continues_it() {
    // The parent of 1 is listed no more.
    let script = Script::new(Partitions::Lineage);
    script.list(&[(1, &[0], true)]);
    script.play(1, [Act::Records(1, 1..=1), END]);
    let read = async |start: Start| {
        if start != Start::Beginning {
            *script.failing_reads.lock().unwrap() = vec![gone(), gone()];
        }
        let mut replay = script.topic().await.replay(start).await.unwrap();
        said(&mut replay).await
    };
    let expected = ["gap 0", "1:1", "caught up", "end"];
    assert_eq!(read(Start::Beginning).await, expected);
    // Named by a cursor that was given while it was there.
    script.play(1, [Act::Records(1, 1..=1), END]);
    let place = (id(0), Frontier::after(at(0, 4)));
    let cursor = Cursor::new(origin(), [place], Rest::FromStart);
    assert_eq!(read(cursor.into()).await, expected);
    // Finished by what the cursor names.
    script.play(1, [END]);
    script.failing_reads.lock().unwrap().clear();
    let cursor = Cursor::new(origin(), [(id(1), Frontier::START)], Rest::FromStart);
    let mut replay = script.topic().await.replay(cursor).await.unwrap();
    assert_eq!(said(&mut replay).await, ["caught up", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_vanishes_while_it_is_read_is_a_gap_where_it_stood() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], false), (1, &[0], true)]);
    script.play(0, [Act::Records(0, 1..=2), Act::Fail(gone())]);
    script.play(1, [Act::Records(1, 1..=1), END]);
    let mut replay = script.topic().await.replay(None).await.unwrap();
    script.list(&[(1, &[0], true)]);
    for _ in 0..2 {
        replay.next().await.unwrap().unwrap();
    }
    let error = replay.next().await.unwrap_err();
    let gap = error.gap().unwrap();
    assert_eq!(
        (gap.partition, gap.from),
        (id(0), Frontier::after(at(0, 2)))
    );
    assert_eq!(said(&mut replay).await, ["1:1", "caught up", "end"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_and_not_found_is_an_error_and_so_is_a_topic_that_is_gone() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    script.play(0, [Act::Records(0, 1..=1), Act::Fail(gone())]);
    let mut replay = script.topic().await.replay(None).await.unwrap();
    replay.next().await.unwrap().unwrap();
    for _ in 0..2 {
        let error = replay.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.partition(), Some(id(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_finds_added_partitions_and_children_that_were_told_late() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    script.play(0, [Act::Say(Fetched::CaughtUp), ended(0, &[])]);
    script.play(1, [Act::Records(1, 1..=1), Act::Hang]);
    script.play(2, [Act::Records(2, 1..=1), Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    assert_eq!(said(&mut follow).await, ["caught up"]);
    assert_eq!(follow.cursor().frontier(id(0)), Some(&Frontier::ENDED));
    script.list(&[(0, &[], false), (1, &[0], true), (2, &[], true)]);
    assert_eq!(said(&mut follow).await, ["1:1", "2:1"]);
    let places = [1, 2].map(|n| (id(n), Frontier::after(at(n, 1))));
    let expected = Cursor::new(origin(), places, Rest::FromStart);
    assert_eq!(follow.cursor(), &expected);
}

#[tokio::test(start_paused = true)]
async fn a_range_through_a_cursor_opens_only_what_lies_in_it() {
    let script = Script::new(Partitions::Lineage);
    let listing: [(u64, &[u64], bool); 4] = [
        (0, &[], false),
        (1, &[0], false),
        (2, &[0], true),
        (3, &[1], true),
    ];
    script.list(&listing);
    script.play(0, [Act::Records(0, 1..=1), ended(0, &listing[1..3])]);
    script.play(1, [Act::Records(1, 1..=1), END]);
    // 2 is not begun, and 3 neither.
    let places = [(id(1), Frontier::after(at(1, 1))), (id(2), Frontier::START)];
    let to = Cursor::new(origin(), places, Rest::FromStart);
    let topic = script.topic().await;
    let replay = topic.replay(None).until(Until::Through(to.clone()));
    let mut replay = replay.await.unwrap();
    assert_eq!(said(&mut replay).await, ["0:1", "1:1", "end"]);
    assert_eq!(opened(&script), [0, 1]);
    let opened = script.opened.lock().unwrap();
    assert_eq!(opened[0].stop, Stop::Never, "to its end");
    assert_eq!(opened[1].stop, Stop::Through(to));
}

#[tokio::test(start_paused = true)]
async fn a_closed_replay_closes_its_readers_though_a_listing_waits() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true), (1, &[], true)]);
    script.play(0, [Act::Hang]);
    script.play(1, [Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    assert_eq!(said(&mut follow).await, [""; 0]);
    follow.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(*script.closed.lock().unwrap(), 2);
    assert_eq!(Arc::strong_count(&script), 1, "nothing goes on behind it");
}

/// Where each partition was opened, in order.
fn opened_at(script: &Script) -> Vec<(u64, Frontier)> {
    let opened = script.opened.lock().unwrap();
    let places = opened.iter().flat_map(|range| range.from.places());
    places.map(|(id, at)| (id.get(), *at)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_child_is_opened_with_the_evidence_of_its_parents() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], false), (1, &[], false), (2, &[0, 1], true)]);
    let two: (u64, &[u64], bool) = (2, &[0, 1], true);
    script.play(0, [ended_at(70, 0, &[two])]);
    script.play(1, [ended_at(60, 1, &[two])]);
    script.play(2, [Act::Records(2, 1..=1), END]);
    let mut replay = script.topic().await.replay(None).await.unwrap();
    said(&mut replay).await;
    let start = Frontier::START;
    assert_eq!(
        opened_at(&script),
        [(0, start), (1, start), (2, begun(70))],
        "the best that any parent gives"
    );
}

#[tokio::test(start_paused = true)]
async fn a_moment_before_a_childs_beginning_asks_for_all_of_it_and_earliest_stays() {
    for (start, wanted) in [
        (Start::Since(Timestamp::from_millis(50)), begun(60)),
        (
            Start::Since(Timestamp::from_millis(61)),
            Frontier::Since(Timestamp::from_millis(61)),
        ),
        (Start::Earliest, Frontier::EARLIEST),
    ] {
        let script = Script::new(Partitions::Lineage);
        let one: (u64, &[u64], bool) = (1, &[0], true);
        script.list(&[(0, &[], false), one]);
        script.play(0, [ended_at(60, 0, &[one])]);
        // `Earliest` is pinned at the open, and once more by the reading itself.
        script.play(1, [END]);
        script.play(1, [END]);
        let mut replay = script.topic().await.replay(start).await.unwrap();
        said(&mut replay).await;
        assert_eq!(opened_at(&script).last(), Some(&(1, wanted)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_evidence_outlives_the_reader_in_its_cursor() {
    // Split after the open: the children lie behind the end, and the parent is named no more.
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    let children: [(u64, &[u64], bool); 2] = [(1, &[0], true), (2, &[0], true)];
    script.play(0, [Act::Records(0, 1..=1), ended_at(60, 0, &children)]);
    let topic = script.topic().await;
    let mut replay = topic.replay(None).await.unwrap();
    said(&mut replay).await;
    let cursor: Cursor = replay.cursor().to_string().parse().unwrap();
    let places: Vec<_> = cursor.places().map(|(id, at)| (id.get(), *at)).collect();
    assert_eq!(places, [(1, begun(60)), (2, begun(60))]);

    // Ended with no child known yet: the next life learns of it.
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], false)]);
    script.play(0, [ended_at(60, 0, &[])]);
    let topic = script.topic().await;
    let mut replay = topic.replay(None).await.unwrap();
    said(&mut replay).await;
    let cursor: Cursor = replay.cursor().to_string().parse().unwrap();
    script.list(&[(0, &[], false), (1, &[0], true)]);
    script.play(1, [END]);
    let mut replay = topic.replay(&cursor).await.unwrap();
    said(&mut replay).await;
    assert_eq!(opened_at(&script).last(), Some(&(1, begun(60))));
}

/// The middle of 0, its child 1 and what continues that, 3: 1 and what was left of 0 went between
/// two listings.
fn vanish(script: &Script) {
    script.list(&[(3, &[1], true)]);
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_vanishes_between_two_listings_is_a_gap_before_what_continues_it() {
    // Its parent went with it, while it was read.
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    script.play(0, [Act::Records(0, 1..=1), Act::Fail(gone())]);
    script.play(3, [Act::Records(3, 1..=1), Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    vanish(&script);
    let expected = ["0:1", "gap 0", "gap 1", "3:1"];
    let said_all = said(&mut follow).await;
    let said_all: Vec<_> = said_all.iter().filter(|s| *s != "caught up").collect();
    assert_eq!(said_all, expected);

    // Its parent was read to its end, and knows of it, or not.
    for children in [&[(1, &[0][..], false)][..], &[]] {
        let script = Script::new(Partitions::Lineage);
        script.list(&[(0, &[], true)]);
        script.play(0, [Act::Records(0, 1..=1), ended(0, children)]);
        script.play(3, [Act::Records(3, 1..=1), Act::Hang]);
        if !children.is_empty() {
            script.play(1, [Act::Fail(gone())]);
        }
        let mut follow = script.topic().await.follow(None).await.unwrap();
        vanish(&script);
        let said = said(&mut follow).await;
        let said: Vec<_> = said.iter().filter(|s| *s != "caught up").collect();
        assert_eq!(said, ["0:1", "gap 1", "3:1"], "{children:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_lacks_a_generation_does_not_end_what_is_read_before_it() {
    let script = Script::new(Partitions::Lineage);
    script.list(&[(0, &[], true)]);
    let slow = || Act::Sleep(Duration::from_secs(600));
    let one: (u64, &[u64], bool) = (1, &[0], false);
    script.play(
        0,
        [
            Act::Records(0, 1..=1),
            slow(),
            Act::Records(0, 2..=2),
            ended(0, &[one]),
        ],
    );
    script.play(3, [Act::Records(3, 1..=1), Act::Hang]);
    let mut follow = script.topic().await.follow(None).await.unwrap();
    assert_eq!(
        follow.next().await.unwrap().map(|r| text(&r)),
        Some("0:1".to_owned())
    );
    vanish(&script);
    let said = said(&mut follow).await;
    let said: Vec<_> = said.iter().filter(|s| *s != "caught up").collect();
    assert_eq!(said, ["gap 1", "3:1", "0:2"]);
}
