use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::{AppendOptions, Backend, Room, Stop, TopicSpec};
use annals_core::{Cursor, ErrorKind, PartitionId, Start};

use super::{Sharded, State};
use crate::models::faults::{Call, Fault};
use crate::models::testing::{
    ROOM, all, append, clock, create, letters, misses_only_what_was_asked_for, name, of_partition,
    range, records,
};

async fn sharded(shards: u32) -> (State, Sharded) {
    let state = State::new(clock());
    let client = state.connect();
    let spec = TopicSpec {
        partitions: Some(shards),
        ..TopicSpec::default()
    };
    create(&client, &spec).await;
    (state, client)
}

async fn read(client: &Sharded, from: Cursor, shard: u64, stop: Stop) -> Vec<String> {
    let range = of_partition(range(from, stop), PartitionId::new(shard));
    all(client.read(&name(), &range).await.unwrap().reader, ROOM).await
}

async fn start(client: &Sharded, start: Start) -> Cursor {
    client.locate(&name(), &start).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_stored_in_part_and_says_which() {
    let (state, client) = sharded(1).await;
    state.faults().inject(Call::Append, Fault::Refuse(vec![1]));
    let batch = ["a-1", "b-1", "c-1", "b-2", "a-2"];
    // Two records of a key never travel together: the first might be refused, the second stored.
    assert_eq!(letters(&append(&client, &batch).await), "SRSNN");
    state.faults().inject(Call::Append, Fault::Refuse(vec![1]));
    let holes = AppendOptions {
        allow_holes: true,
        ..AppendOptions::default()
    };
    let report = client
        .append(&name(), &records(&batch), &holes)
        .await
        .unwrap();
    assert_eq!(
        letters(report.outcomes()),
        "SRSNN",
        "nor if holes are allowed"
    );
    let begin = start(&client, Start::Beginning).await;
    assert_eq!(
        read(&client, begin, 0, Stop::End).await,
        ["a-1", "c-1", "a-1", "c-1", "[caught up]"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_unknown_whether_stored_or_not() {
    let (state, client) = sharded(1).await;
    for done in [true, false] {
        state.faults().inject(Call::Append, Fault::Lose { done });
        assert_eq!(letters(&append(&client, &["a-1"]).await), "U");
    }
    let refused = client
        .append(
            &name(),
            &records(&["x"]),
            &AppendOptions {
                atomic: true,
                ..AppendOptions::default()
            },
        )
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let begin = start(&client, Start::Beginning).await;
    assert_eq!(
        read(&client, begin, 0, Stop::End).await,
        ["a-1", "[caught up]"]
    );
    assert_eq!(state.faults().fired(), 2);
}

#[tokio::test(start_paused = true)]
async fn shards_split_and_merge_and_a_closed_one_names_its_children() {
    let (state, client) = sharded(1).await;
    append(&client, &["a-1", "b-1", "c-1", "d-1"]).await;
    let before = start(&client, Start::Latest).await;
    let (low, high) = state.split(&name(), PartitionId::new(0)).unwrap();
    append(&client, &["a-2", "b-2", "c-2", "d-2"]).await;
    let child = state.merge(&name(), low, high).unwrap();
    append(&client, &["a-3"]).await;

    let begin = start(&client, Start::Beginning).await;
    assert_eq!(
        read(&client, begin.clone(), 0, Stop::End).await,
        ["a-1", "b-1", "c-1", "d-1", "[ended [1, 2]]"]
    );
    let mut both = read(&client, begin.clone(), 1, Stop::End).await;
    assert_eq!(both.pop().unwrap(), "[ended [3]]");
    both.extend(read(&client, begin.clone(), 2, Stop::Never).await);
    both.sort();
    assert_eq!(both, ["[ended [3]]", "a-2", "b-2", "c-2", "d-2"]);
    assert_eq!(
        read(&client, begin.clone(), child.get(), Stop::End).await,
        ["a-3", "[caught up]"]
    );
    assert_eq!(
        read(&client, begin.clone(), 0, Stop::Through(before.clone())).await,
        ["a-1", "b-1", "c-1", "d-1", "[ended [1, 2]]"],
        "the stop is the shard's end"
    );
    assert_eq!(
        read(&client, before, 0, Stop::End).await,
        ["[ended [1, 2]]"]
    );
    // What a cursor does not name lies behind what it names, or before it.
    let late = start(&client, Start::Latest).await;
    assert_eq!(
        read(&client, begin.clone(), 0, Stop::Through(late))
            .await
            .len(),
        5
    );
    let early = begin.clone();
    assert_eq!(read(&client, begin, 3, Stop::Through(early)).await, [""; 0]);

    let listed = client.partitions(&name()).await.unwrap();
    let open: Vec<u64> = listed
        .iter()
        .filter(|p| p.open)
        .map(|p| p.id.get())
        .collect();
    assert_eq!((listed.len(), open), (4, vec![3]));
    assert_eq!(listed[3].parents, [low, high]);
}

#[tokio::test(start_paused = true)]
async fn every_room_reads_the_same_and_many_shards_at_once_are_refused() {
    let (_, client) = sharded(1).await;
    for n in 0..10 {
        append(&client, &[&format!("k-{n}")]).await;
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let begin = start(&client, Start::Beginning).await;
    let whole = read(&client, begin.clone(), 0, Stop::End).await;
    assert_eq!(whole.len(), 11);
    for room in [
        Room {
            records: 1,
            bytes: 9,
        },
        Room {
            records: 9,
            bytes: 1,
        },
    ] {
        let one = of_partition(range(begin.clone(), Stop::End), PartitionId::new(0));
        let opened = client.read(&name(), &one).await.unwrap();
        assert_eq!(all(opened.reader, room).await, whole);
    }
    let refused = client
        .read(&name(), &range(begin, Stop::End))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn retention_leaves_a_gap_and_in_the_end_unlists_closed_shards() {
    let state = State::new(clock());
    let client = state.connect();
    let spec = TopicSpec {
        partitions: Some(1),
        retention: Some(Retention::Age(Duration::from_secs(60))),
        ..TopicSpec::default()
    };
    create(&client, &spec).await;
    append(&client, &["a-1"]).await;
    let at_first = start(&client, Start::Latest).await;
    tokio::time::advance(Duration::from_secs(40)).await;
    append(&client, &["a-2", "b-2"]).await;
    state.split(&name(), PartitionId::new(0)).unwrap();
    tokio::time::advance(Duration::from_secs(40)).await;

    let begin = start(&client, Start::Beginning).await;
    let said = read(&client, begin.clone(), 0, Stop::End).await;
    assert!(said[0].starts_with("[gap to 0@"), "{said:?}");
    assert_eq!(said[1..], ["a-2", "b-2", "[ended [1, 2]]"]);
    let kept = ["a-2", "b-2", "[ended [1, 2]]"];
    let earliest = start(&client, Start::Earliest).await;
    assert_eq!(read(&client, earliest, 0, Stop::End).await, kept);
    assert_eq!(read(&client, at_first, 0, Stop::End).await, kept);

    tokio::time::advance(Duration::from_secs(40)).await;
    assert_eq!(
        read(&client, begin, 0, Stop::End).await,
        ["[gap]", "[ended [1, 2]]"]
    );
    let listed = client.partitions(&name()).await.unwrap();
    assert_eq!(
        listed.iter().map(|p| p.id.get()).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_behind_the_stop_is_no_gap_and_an_end_is_final() {
    let (state, client) = sharded(1).await;
    misses_only_what_was_asked_for(&client, |keep| state.trim(&name(), keep).unwrap()).await;
}
