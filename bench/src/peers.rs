//! The peers: embedded stores that applications keep their events in.
//!
//! Each is used in its best documented way for a log: records by position, the key beside the
//! value, a batch in one transaction that is durable when it returns. None keeps an index of keys
//! beside that, which ours does: in their favour.

mod fjall;
mod redb;
mod sqlite;

use annals_core::Record;
use anyhow::Result;

pub(crate) use fjall::Fjall;
pub(crate) use redb::Redb;
pub(crate) use sqlite::Sqlite;

/// A store of records in order.
pub(crate) trait Peer {
    /// Appends a batch durably.
    fn append(&mut self, records: &[Record]) -> Result<()>;

    /// Reads the first `records` records in order, key and value.
    fn read(&mut self, records: usize) -> Result<()>;
}

/// How many were read, when that is not what was to be read.
fn all(found: usize, wanted: usize) -> Result<()> {
    anyhow::ensure!(found == wanted, "{found} of {wanted} records were read");
    Ok(())
}
