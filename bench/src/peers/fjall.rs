//! fjall: a log-structured store.

use std::hint::black_box;
use std::path::Path;

use annals_core::Record;
use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Peer, all};
use crate::data::key_and_value;

/// A keyspace by position; a value is the key's length, the key, the value.
pub(crate) struct Fjall {
    db: Database,
    log: Keyspace,
    next: u64,
}

impl Fjall {
    pub(crate) const SYNC: &str = "fjall: SyncData each batch; ours: fdatasync each batch";

    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let db = Database::builder(dir.join("fjall")).open()?;
        let log = db.keyspace("log", KeyspaceCreateOptions::default)?;
        Ok(Self { db, log, next: 0 })
    }
}

impl Peer for Fjall {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let batch = self.db.batch();
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for record in records {
            let (key, value) = key_and_value(record);
            let len = u16::try_from(key.len())?.to_be_bytes();
            batch.insert(
                &self.log,
                self.next.to_be_bytes(),
                [&len[..], key, value].concat(),
            );
            self.next += 1;
        }
        Ok(batch.commit()?)
    }

    fn read(&mut self, records: usize) -> Result<()> {
        let mut found = 0;
        for entry in self.log.iter().take(records) {
            let (_, value) = entry.into_inner()?;
            black_box(&value);
            found += 1;
        }
        all(found, records)
    }
}
