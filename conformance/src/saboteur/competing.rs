//! Saboteurs of *competing*.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Lease, Leases, Room, Source, Tenancy,
};
use annals_core::{
    AppendReport, Batch, Group, Key, PartitionId, Record, Recorded, Result, TopicName, Value,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "keys_are_not_locked",
        mirrors: "one key's messages go to two consumers at once, as from a queue without message groups: sqs-consumer #124",
        model: Model::Queue,
        law: "competing",
        make: |acted| Arc::new(Unlocked(acted)),
    },
    Saboteur {
        name: "a_lease_is_given_to_two",
        mirrors: "takes a lease without a condition, so that two members have the same one: a put instead of a conditional put",
        model: Model::Sharded,
        law: "competing",
        make: |acted| Arc::new(Shared::new(acted)),
    },
    Saboteur {
        name: "two_processes_own_a_group",
        mirrors: "the lock on a group does not exclude another process, as on a network file system without locks",
        model: Model::Log,
        law: "competing",
        make: |acted| Arc::new(Shared::new(acted)),
    },
];

/// Keeps keys from the queue, in a header, and gives them back to who receives.
#[derive(Debug)]
struct Unlocked(Acted);

const KEY: &str = "saboteur-key";

#[async_trait]
impl Hook for Unlocked {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let hidden: Batch = batch.records().iter().map(hide).collect();
        below.append(topic, &hidden, options).await
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        for delivered in out.iter_mut().skip(before) {
            let old = &delivered.record;
            let Some(Some(key)) = old.header(KEY) else {
                continue;
            };
            self.0.mark();
            let record = old.clone().into_record();
            let record = with_headers(&record, |name| name != KEY).key(Key::from(key.to_vec()));
            delivered.record = Recorded::of(&record, old.position(), old.stored_at())?;
        }
        Ok(told)
    }
}

fn hide(record: &Record) -> Record {
    match record.key_bytes() {
        None => record.clone(),
        Some(key) => with_headers(record, |_| true).header(KEY, key.to_vec()),
    }
}

/// The record without its key, and with these headers of it.
fn with_headers(record: &Record, keep: fn(&str) -> bool) -> Record {
    let value = record.value_bytes().cloned();
    let mut copy = Record::new(Value::from(value));
    for (name, value) in record.header_list() {
        if keep(name) {
            copy = copy.header(name, Value::from(value.map(<[u8]>::to_vec)));
        }
    }
    copy = copy.maybe_id(record.id_bytes().cloned());
    match record.written_at() {
        Some(at) => copy.timestamp(at),
        None => copy,
    }
}

impl Sabotage for Unlocked {}

/// Shows every lease as free, and gives whoever asks the stay of who has it.
#[derive(Debug)]
struct Shared {
    acted: Acted,
    stays: Mutex<BTreeMap<(Group, PartitionId), Tenancy>>,
}

impl Shared {
    fn new(acted: Acted) -> Self {
        Self {
            acted,
            stays: Mutex::default(),
        }
    }
}

#[async_trait]
impl Hook for Shared {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let mut rows = below.load(group).await?;
        for row in rows.iter_mut().flatten() {
            row.owner = None;
        }
        Ok(rows)
    }

    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        let taken = below.take(group, seen, by).await?;
        let mut stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (group.clone(), seen.partition);
        if let Some(tenancy) = taken {
            stays.insert(key, tenancy);
            return Ok(Some(tenancy));
        }
        let other = stays.get(&key).copied();
        if other.is_some() {
            self.acted.mark();
        }
        Ok(other)
    }
}

impl Sabotage for Shared {}
