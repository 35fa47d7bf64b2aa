//! redb: a copy-on-write B-tree.

use std::hint::black_box;
use std::path::Path;

use annals_core::Record;
use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Peer, all};
use crate::data::key_and_value;

/// By position: key and value.
const LOG: TableDefinition<'_, u64, (&[u8], &[u8])> = TableDefinition::new("log");

/// One table.
pub(crate) struct Redb {
    db: Database,
    next: u64,
}

impl Redb {
    pub(crate) const SYNC: &str =
        "redb: Durability::Immediate each batch; ours: fdatasync each batch";

    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let db = Database::create(dir.join("redb"))?;
        Ok(Self { db, next: 0 })
    }
}

impl Peer for Redb {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut log = transaction.open_table(LOG)?;
            for record in records {
                log.insert(self.next, key_and_value(record))?;
                self.next += 1;
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&mut self, records: usize) -> Result<()> {
        let log = self.db.begin_read()?.open_table(LOG)?;
        let mut found = 0;
        for entry in log.range(..records as u64)? {
            let (_, value) = entry?;
            black_box(value.value());
            found += 1;
        }
        all(found, records)
    }
}
