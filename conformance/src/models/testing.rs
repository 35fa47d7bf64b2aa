//! What the models' own tests share.

use annals_core::driver::{Backend, Budget, Fetched, ReadRange, Reader, Room, Stop, TopicSpec};
use annals_core::{
    Batch, Clock, Cursor, Outcome, PartitionId, Record, Recorded, Timestamp, TopicName,
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
