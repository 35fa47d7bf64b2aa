use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{Need, Retention};
use annals_core::driver::{AppendOptions, Backend, Expect, Fetched, Room, Stop, TopicSpec};
use annals_core::{Batch, Effect, ErrorKind, Outcome, Record, Start, Stored, Timestamp};

use super::{Log, State};
use crate::models::faults::{Call, Fault};
use crate::models::testing::{
    ROOM, all, append, clock, create, letters, misses_only_what_was_asked_for, name, range,
    records, text,
};

async fn log() -> (State, Log) {
    let state = State::new(clock());
    let log = state.connect();
    create(&log, &TopicSpec::default()).await;
    (state, log)
}

async fn try_append(log: &Log, batch: &Batch, options: AppendOptions) -> Vec<Outcome> {
    let report = log.append(&name(), batch, &options).await.unwrap();
    report.into_outcomes()
}

fn kind(outcomes: &[Outcome]) -> Option<ErrorKind> {
    outcomes.first()?.error().map(annals_core::Error::kind)
}

async fn read(log: &Log, start: Start, stop: Stop) -> Vec<String> {
    let from = log.locate(&name(), &start).await.unwrap();
    let opened = log.read(&name(), &range(from, stop)).await.unwrap();
    all(opened.reader, ROOM).await
}

#[tokio::test(start_paused = true)]
async fn a_condition_holds_once_and_does_not_conflict_with_itself() {
    let (_, log) = log().await;
    let end = log.locate(&name(), &Start::Latest).await.unwrap();
    let at_end = || AppendOptions {
        expect: Some(Expect::End(end.clone())),
        ..AppendOptions::default()
    };
    let first = Batch::from(Record::new("first").key("k").id("1"));
    let stored = try_append(&log, &first, at_end()).await[0]
        .stored()
        .copied()
        .unwrap();
    let rival = Batch::from(Record::new("rival"));
    assert_eq!(
        kind(&try_append(&log, &rival, at_end()).await),
        Some(ErrorKind::Conflict)
    );
    // The same ids in another call, as an application would repeat after a crash.
    let again = Batch::from(Record::new("first").key("k").id("1"));
    let repeated = try_append(&log, &again, at_end()).await[0]
        .stored()
        .copied();
    assert_eq!(repeated, Some(stored.as_duplicate()));

    let key_at = |last| AppendOptions {
        expect: Some(Expect::KeyAt {
            key: "k".into(),
            last,
        }),
        ..AppendOptions::default()
    };
    let rival = || Batch::from(Record::new("next").key("k"));
    assert_eq!(
        kind(&try_append(&log, &rival(), key_at(None)).await),
        Some(ErrorKind::Conflict)
    );
    assert_eq!(
        kind(&try_append(&log, &rival(), key_at(stored.position)).await),
        None
    );
    assert_eq!(
        kind(&try_append(&log, &rival(), key_at(stored.position)).await),
        Some(ErrorKind::Conflict)
    );
    assert_eq!(
        read(&log, Start::Beginning, Stop::End).await,
        ["first", "next", "[caught up]"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_retention_took_can_be_appended_to() {
    let (state, log) = log().await;
    let report = append(&log, &["k-1", "other"]).await;
    let last = report[0].stored().unwrap().position;
    state.trim(&name(), 1).unwrap();
    for last in [None, last] {
        let options = AppendOptions {
            expect: Some(Expect::KeyAt {
                key: "k".into(),
                last,
            }),
            ..AppendOptions::default()
        };
        assert_eq!(
            kind(&try_append(&log, &records(&["j"]), options).await),
            None
        );
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_are_known_for_the_window_and_a_rejected_id_is_not_remembered() {
    let (state, log) = log().await;
    state.faults().inject(Call::Append, Fault::Refuse(vec![0]));
    let one = || Batch::from(Record::new("a").id("1"));
    let plain = AppendOptions::default;
    assert_eq!(
        kind(&try_append(&log, &one(), plain()).await),
        Some(ErrorKind::Throttled)
    );
    let first = try_append(&log, &one(), plain()).await[0]
        .stored()
        .copied()
        .unwrap();
    assert!(!first.duplicate);
    tokio::time::advance(Duration::from_secs(300)).await;
    let within = try_append(&log, &one(), plain()).await[0].stored().copied();
    assert_eq!(within, Some(first.as_duplicate()));
    tokio::time::advance(Duration::from_millis(1)).await;
    let after = try_append(&log, &one(), plain()).await[0]
        .stored()
        .copied()
        .unwrap();
    assert!(!after.duplicate && after.position > first.position);

    // The same submission, without an id.
    state
        .faults()
        .inject(Call::Append, Fault::Lose { done: true });
    let batch = Batch::from(Record::new("b"));
    let lost = try_append(&log, &batch, plain()).await;
    assert!(matches!(&lost[0], Outcome::Unknown(e) if e.effect() == Effect::Unknown));
    let again = try_append(&log, &batch, plain()).await[0].stored().copied();
    assert!(again.is_some_and(|stored: Stored| stored.duplicate));
}

#[tokio::test(start_paused = true)]
async fn a_newer_epoch_fences_and_a_repeat_is_told_the_truth() {
    let (_, log) = log().await;
    let epoch = |epoch| AppendOptions {
        epoch: Some(epoch),
        ..AppendOptions::default()
    };
    let first = Batch::from(Record::new("old").id("1"));
    assert_eq!(kind(&try_append(&log, &first, epoch(1)).await), None);
    assert_eq!(
        kind(&try_append(&log, &records(&["new"]), epoch(2)).await),
        None
    );
    assert_eq!(
        kind(&try_append(&log, &records(&["zombie"]), epoch(1)).await),
        Some(ErrorKind::Fenced)
    );
    let repeated = try_append(&log, &first, epoch(1)).await;
    assert!(repeated[0].stored().is_some_and(|s| s.duplicate));
}

#[tokio::test(start_paused = true)]
async fn every_range_and_room_reads_the_same() {
    let (_, log) = log().await;
    append(&log, &["a-1", "b-1", "a-2"]).await;
    let middle = log.locate(&name(), &Start::Latest).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    append(&log, &["b-2", "a-3"]).await;
    let later = Timestamp::from_millis(1_001_000);
    let whole = ["a-1", "b-1", "a-2", "b-2", "a-3", "[caught up]"];
    assert_eq!(read(&log, Start::Beginning, Stop::End).await, whole);
    assert_eq!(
        read(&log, Start::Beginning, Stop::Through(middle.clone())).await,
        whole[..3]
    );
    assert_eq!(
        read(&log, Start::After(middle.clone()), Stop::End).await,
        whole[3..]
    );
    assert_eq!(
        read(&log, Start::Beginning, Stop::Before(later)).await,
        whole[..3]
    );
    assert_eq!(read(&log, Start::Since(later), Stop::End).await, whole[3..]);

    let mut of_key = range(
        log.locate(&name(), &Start::Beginning).await.unwrap(),
        Stop::End,
    );
    of_key.key = Some("a".into());
    let opened = log.read(&name(), &of_key).await.unwrap();
    let narrow = Room {
        records: 5,
        bytes: 1,
    };
    assert_eq!(
        all(opened.reader, narrow).await,
        ["a-1", "a-2", "a-3", "[caught up]"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_bounded_reading_ends_when_its_moment_comes_and_a_follower_waits() {
    let (_, log) = log().await;
    append(&log, &["a"]).await;
    let soon = Timestamp::from_millis(1_005_000);
    let reading = tokio::spawn({
        let log = log.clone();
        async move { read(&log, Start::Beginning, Stop::Before(soon)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    append(&log, &["b"]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    append(&log, &["c"]).await;
    assert_eq!(reading.await.unwrap(), ["a", "[caught up]", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_before_a_moment_to_come_is_not_read() {
    let (_, log) = log().await;
    let reading = tokio::spawn({
        let (log, from) = (log.clone(), Timestamp::from_millis(1_001_000));
        let until = Timestamp::from_millis(1_003_000);
        async move { read(&log, Start::Since(from), Stop::Before(until)).await }
    });
    tokio::task::yield_now().await;
    append(&log, &["early"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    append(&log, &["late"]).await;
    assert_eq!(reading.await.unwrap(), ["[caught up]", "late"]);
}

#[tokio::test(start_paused = true)]
async fn a_trim_is_told_before_any_later_record() {
    let (state, log) = log().await;
    assert_eq!(
        log.capabilities(&name())
            .await
            .unwrap()
            .missing(&[Need::FullHistory]),
        []
    );
    append(&log, &["a", "b", "c", "d"]).await;
    let from = log.locate(&name(), &Start::Beginning).await.unwrap();
    let mut follower = log
        .read(&name(), &range(from, Stop::Never))
        .await
        .unwrap()
        .reader;
    let mut out = Vec::new();
    let one = Room {
        records: 1,
        bytes: 1,
    };
    assert_eq!(
        follower.fetch(one, &mut out).await.unwrap(),
        Fetched::Records
    );
    state.trim(&name(), 1).unwrap();
    let gap = follower.fetch(Room::NONE, &mut out).await.unwrap();
    assert!(matches!(gap, Fetched::Gap { to: Some(to), .. } if to.number_u64() == Some(3)));
    assert_eq!(
        follower.fetch(ROOM, &mut out).await.unwrap(),
        Fetched::Records
    );
    assert_eq!(out.iter().map(text).collect::<Vec<_>>(), ["a", "d"]);
    assert_eq!(
        read(&log, Start::Beginning, Stop::End).await,
        ["[gap to 0@3]", "d", "[caught up]"]
    );
    assert_eq!(
        read(&log, Start::Earliest, Stop::End).await,
        ["d", "[caught up]"]
    );
    let missing = log.capabilities(&name()).await.unwrap();
    assert_eq!(missing.missing(&[Need::FullHistory]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_what_it_says() {
    let state = State::new(clock());
    let log = state.connect();
    let spec = TopicSpec {
        retention: Some(Retention::Bytes(2)),
        ..TopicSpec::default()
    };
    create(&log, &spec).await;
    append(&log, &["a", "b", "c"]).await;
    assert_eq!(
        read(&log, Start::Beginning, Stop::End).await,
        ["[gap to 0@1]", "b", "c", "[caught up]"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_foreign_cursor_is_refused_and_a_killed_client_is_closed() {
    let (state, log) = log().await;
    let old = log.locate(&name(), &Start::Latest).await.unwrap();
    let admin = log.admin().unwrap();
    admin.delete(&name()).await.unwrap();
    create(&log, &TopicSpec::default()).await;
    let refused = log
        .locate(&name(), &Start::After(old.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    let refused = log.read(&name(), &range(old, Stop::End)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);

    let other = state.connect();
    let from = log.locate(&name(), &Start::Latest).await.unwrap();
    let mut reader = log
        .read(&name(), &range(from, Stop::Never))
        .await
        .unwrap()
        .reader;
    assert_eq!(
        reader.fetch(ROOM, &mut Vec::new()).await.unwrap(),
        Fetched::CaughtUp
    );
    let waiting = tokio::spawn(async move { reader.fetch(ROOM, &mut Vec::new()).await });
    tokio::task::yield_now().await;
    log.connection().kill();
    let closed = waiting.await.unwrap().unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
    assert_eq!(letters(&append(&other, &["alive"]).await), "S");
}

#[tokio::test(start_paused = true)]
async fn a_batch_over_a_limit_has_no_effect() {
    let (_, log) = log().await;
    let many: Batch = (0..1_001).map(|n| Record::new(n.to_string())).collect();
    let refused = log.append(&name(), &many, &AppendOptions::default()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(
        read(&log, Start::Beginning, Stop::End).await,
        ["[caught up]"]
    );
    assert_eq!(letters(&append(&log, &[]).await), "");
}

#[tokio::test(start_paused = true)]
async fn one_process_owns_a_group_at_a_time() {
    let (state, first) = log().await;
    let second = state.connect();
    let group = annals_core::Group::new("billing").unwrap();
    first
        .admin()
        .unwrap()
        .create_group(&name(), &group, None)
        .await
        .unwrap();
    let (mine, theirs) = (
        first.leases(&name()).unwrap(),
        second.leases(&name()).unwrap(),
    );
    let seen = || async { mine.load(&group).await.unwrap().unwrap().remove(0) };
    let by: Arc<str> = "m".into();
    let held = mine
        .take(&group, &seen().await, &by)
        .await
        .unwrap()
        .unwrap();
    let row = seen().await;
    assert_eq!(
        theirs.take(&group, &row, &by).await.unwrap(),
        None,
        "its owner lives"
    );
    let again = mine.take(&group, &row, &by).await.unwrap().unwrap();
    assert!(
        again.epoch > held.epoch,
        "within the process members compete"
    );
    first.connection().kill();
    let row = theirs.load(&group).await.unwrap().unwrap().remove(0);
    assert!(theirs.take(&group, &row, &by).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_behind_the_stop_is_no_gap_and_an_end_is_final() {
    let (state, log) = log().await;
    misses_only_what_was_asked_for(&log, |keep| state.trim(&name(), keep).unwrap()).await;
}
