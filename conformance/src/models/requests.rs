//! What an append request may carry.

use std::collections::HashSet;

use annals_core::driver::AppendOptions;
use annals_core::{Batch, Effect, Error, ErrorKind, Record, Result, Retry};
use bytes::Bytes;

/// The limits of a request, in records and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    pub(super) record_bytes: usize,
    pub(super) batch_records: usize,
    pub(super) batch_bytes: usize,
}

impl RequestLimits {
    /// Refuses what a service would refuse before it looked at any record.
    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        let largest = batch.records().iter().map(Record::len_bytes).max();
        for (what, is, limit) in [
            ("a record has", largest.unwrap_or(0), self.record_bytes),
            ("the batch has", batch.len_bytes(), self.batch_bytes),
        ] {
            if is > limit {
                return Err(too_large(&format!(
                    "{what} {is} bytes, the limit is {limit}"
                )));
            }
        }
        if batch.len() > self.batch_records {
            return Err(too_large(&format!(
                "the batch has {} records, the limit is {}",
                batch.len(),
                self.batch_records
            )));
        }
        Ok(())
    }
}

fn too_large(message: &str) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        Effect::None,
        Retry::Never,
        format!("{message}; send less at once"),
    )
}

/// Refuses options that a service without conditions, epochs and atomic batches cannot keep.
pub(super) fn plain_only(options: &AppendOptions) -> Result<()> {
    if options.expect.is_some() {
        return Err(Error::unsupported(
            "this service cannot append on a condition; use a log that claims `conditional`",
        ));
    }
    if options.epoch.is_some() {
        return Err(Error::unsupported(
            "this service does not fence appends by epoch; use a log that claims `fenced`",
        ));
    }
    if options.atomic {
        return Err(Error::unsupported(
            "this service stores each record by itself; an atomic batch needs `batch: Atomic`",
        ));
    }
    Ok(())
}

/// Which records may travel in one request: the first of each key, because a service that stores
/// each record by itself may refuse one and store the next. Records without a key have no order.
pub(super) fn first_of_each_key(batch: &Batch) -> Vec<bool> {
    let mut seen: HashSet<&Bytes> = HashSet::new();
    batch
        .records()
        .iter()
        .map(|record| record.key_bytes().is_none_or(|key| seen.insert(key)))
        .collect()
}

/// The same where a request keeps its order: all, if holes are allowed.
pub(super) fn travelling(batch: &Batch, options: &AppendOptions) -> Vec<bool> {
    if options.allow_holes {
        return vec![true; batch.len()];
    }
    first_of_each_key(batch)
}
