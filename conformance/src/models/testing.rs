//! What the models' own tests share.

use std::time::Duration;

use annals_core::driver::{Backend, Budget, Fetched, ReadRange, Reader, Room, Stop, TopicSpec};
use annals_core::{
    Batch, Clock, Cursor, Outcome, PartitionId, Record, Recorded, Start, Timestamp, TopicName,
};

/// Paused tokio time, counted from a day that is not the epoch.
pub(super) fn clock() -> Clock {
    Clock::runtime(Timestamp::from_millis(1_000_000))
}

pub(super) const ROOM: Room = Room {
    records: 1_000,
    bytes: 1 << 20,
};

pub(super) fn name() -> TopicName {
    TopicName::new("orders").unwrap()
}

pub(super) async fn create(backend: &dyn Backend, spec: &TopicSpec) {
    assert!(
        backend
            .admin()
            .unwrap()
            .create(&name(), spec)
            .await
            .unwrap()
    );
}

/// Records whose key is the text before the dash, where there is one.
pub(super) fn records(values: &[&str]) -> Batch {
    values
        .iter()
        .map(|value| {
            let record = Record::new(*value);
            match value.split_once('-') {
                Some((key, _)) => record.key(key),
                None => record,
            }
        })
        .collect()
}

pub(super) async fn append(backend: &dyn Backend, values: &[&str]) -> Vec<Outcome> {
    let options = annals_core::driver::AppendOptions::default();
    backend
        .append(&name(), &records(values), &options)
        .await
        .unwrap()
        .into_outcomes()
}

/// One letter per outcome: stored, rejected, unknown, not attempted.
pub(super) fn letters(outcomes: &[Outcome]) -> String {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Stored(_) => 'S',
            Outcome::Rejected(_) => 'R',
            Outcome::Unknown(_) => 'U',
            Outcome::NotAttempted => 'N',
        })
        .collect()
}

pub(super) fn range(from: Cursor, stop: Stop) -> ReadRange {
    ReadRange {
        from,
        stop,
        partitions: None,
        key: None,
        budget: Budget::new(1 << 20),
    }
}

pub(super) fn of_partition(mut range: ReadRange, partition: PartitionId) -> ReadRange {
    range.partitions = Some(vec![partition]);
    range
}

pub(super) fn text(record: &Recorded) -> String {
    String::from_utf8(record.value().to_vec()).unwrap()
}

/// Everything that a reader has to say until its range, or its partition, ends: values, and
/// signals in brackets.
pub(super) async fn all(mut reader: Box<dyn Reader>, room: Room) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let mut out = Vec::new();
        let fetched = reader.fetch(room, &mut out).await.unwrap();
        said.extend(out.iter().map(text));
        match fetched {
            Fetched::Records => assert!(!out.is_empty()),
            Fetched::CaughtUp => said.push("[caught up]".into()),
            Fetched::Advanced { .. } | Fetched::PartitionAdded(_) => {}
            Fetched::Gap { to, .. } => {
                said.push(to.map_or("[gap]".into(), |to| format!("[gap to {to}]")));
            }
            Fetched::PartitionEnded { children, .. } => {
                let ids: Vec<u64> = children.iter().map(|c| c.id.get()).collect();
                said.push(format!("[ended {ids:?}]"));
                return said;
            }
            Fetched::End => return said,
        }
    }
}

/// A reading up to a moment whose records are gone behind that moment alone, and one that ends and
/// is asked again: `trim` keeps the newest so many.
pub(super) async fn misses_only_what_was_asked_for(backend: &dyn Backend, trim: impl Fn(usize)) {
    let begin = backend.locate(&name(), &Start::Beginning).await.unwrap();
    append(backend, &["a-1"]).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let moment = Timestamp::from_millis(1_000_000 + 10_000);
    for value in ["a-2", "a-3", "a-4"] {
        append(backend, &[value]).await;
    }
    let open = async || {
        let range = of_partition(
            range(begin.clone(), Stop::Before(moment)),
            PartitionId::ONLY,
        );
        backend.read(&name(), &range).await.unwrap().reader
    };
    // Nothing is gone yet.
    let mut whole = open().await;
    let mut said = Vec::new();
    while said.last() != Some(&Fetched::End) {
        said.push(whole.fetch(ROOM, &mut Vec::new()).await.unwrap());
    }
    for _ in 0..9 {
        let more = whole.fetch(ROOM, &mut Vec::new()).await.unwrap();
        assert_eq!(more, Fetched::End, "the end is final");
    }
    let mut reader = open().await;
    let mut out = Vec::new();
    let first = reader.fetch(ROOM, &mut out).await.unwrap();
    assert_eq!((first, text(&out[0])), (Fetched::Records, "a-1".to_owned()));
    trim(1);
    for _ in 0..9 {
        let said = reader.fetch(ROOM, &mut out).await.unwrap();
        assert!(!matches!(said, Fetched::Gap { .. }), "{said:?}");
        if said == Fetched::End {
            break;
        }
    }
    append(backend, &["a-5", "a-6"]).await;
    trim(1);
    for _ in 0..9 {
        let said = reader.fetch(ROOM, &mut out).await.unwrap();
        assert_eq!(said, Fetched::End, "the end is final");
    }
    assert_eq!(out.len(), 1);
    // Opened now, the one that is asked for is gone.
    let said = reader_signals(open().await).await;
    assert!(
        matches!(said.first(), Some(Fetched::Gap { .. })),
        "{said:?}"
    );
}

async fn reader_signals(mut reader: Box<dyn Reader>) -> Vec<Fetched> {
    let mut said = Vec::new();
    while said.last() != Some(&Fetched::End) {
        said.push(reader.fetch(ROOM, &mut Vec::new()).await.unwrap());
    }
    said
}
