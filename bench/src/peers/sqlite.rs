//! `SQLite`: a B-tree behind a write-ahead log.

use std::hint::black_box;
use std::path::Path;

use annals_core::Record;
use anyhow::Result;
use rusqlite::Connection;

use super::{Peer, all};
use crate::data::key_and_value;

/// One table by rowid.
pub(crate) struct Sqlite(Connection);

impl Sqlite {
    pub(crate) const SYNC: &str =
        "sqlite: WAL, synchronous=FULL, a transaction each batch; ours: fdatasync each batch";

    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE log (position INTEGER PRIMARY KEY, key BLOB, value BLOB NOT NULL)",
        )?;
        Ok(Self(connection))
    }
}

impl Peer for Sqlite {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO log (key, value) VALUES (?1, ?2)")?;
            for record in records {
                insert.execute(key_and_value(record))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&mut self, records: usize) -> Result<()> {
        let mut select = self
            .0
            .prepare_cached("SELECT key, value FROM log ORDER BY position LIMIT ?1")?;
        let mut rows = select.query([i64::try_from(records)?])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            black_box((row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?));
            found += 1;
        }
        all(found, records)
    }
}
