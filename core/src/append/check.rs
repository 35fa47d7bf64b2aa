//! What is refused before anything is sent.

use super::{Appending, Most};
use crate::batch::Batch;
use crate::capability::{Batching, Limits};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::outcome::{AppendError, Outcome};
use crate::record::Record;

fn too_large(message: String) -> Error {
    Error::new(ErrorKind::TooLarge, Effect::None, Retry::Never, message)
}

/// Whether one record is within the limits, as far as that can be seen before encoding.
pub(crate) fn check_record(record: &Record, limits: &Limits) -> Result<()> {
    let over = |what: &str, has: u64, limit: &str, most: Option<u64>| match most {
        Some(most) if has > most => Err(too_large(format!(
            "a record has {has} {what}, over {limit} of {most}; make it smaller, or store it elsewhere and append a reference"
        ))),
        _ => Ok(()),
    };
    let known = |claim: &crate::capability::Claim<Option<u64>>| claim.known().copied().flatten();
    let headers = record.header_list();
    if !headers.is_whole() {
        return Err(too_large(format!(
            "a header has a name over {} bytes or a value over 4 GiB; make it smaller",
            crate::headers::MAX_HEADER_NAME
        )));
    }
    over(
        "bytes",
        record.len_bytes() as u64,
        "limits.record_bytes",
        known(&limits.record_bytes),
    )?;
    over(
        "bytes of key",
        record.key_bytes().map_or(0, |key| key.len() as u64),
        "limits.key_bytes",
        known(&limits.key_bytes),
    )?;
    over(
        "headers",
        headers.len() as u64,
        "limits.headers",
        limits.headers.known().copied().flatten().map(u64::from),
    )
}

impl Appending {
    /// Refuses what the topic does not offer, and what is over its limits.
    pub(super) fn check(&self) -> Result<(), AppendError> {
        let refuse = |error: Error| {
            let error = self.topic.place(error, Operation::Append);
            AppendError::refused(self.batch.clone(), &error)
        };
        self.check_options().map_err(refuse)?;
        let limits = &self.topic.capabilities().limits;
        let mut wrong = self
            .batch
            .records()
            .iter()
            .map(|record| check_record(record, limits));
        if wrong.any(|checked| checked.is_err()) {
            let outcomes = self.batch.records().iter().map(|record| {
                check_record(record, limits).map_or_else(
                    |e| Outcome::Rejected(self.topic.place(e, Operation::Append)),
                    |()| Outcome::NotAttempted,
                )
            });
            return Err(AppendError::new(self.batch.clone(), outcomes.collect()));
        }
        if self.is_whole() {
            Most::of(limits).check(&self.batch).map_err(refuse)?;
        }
        Ok(())
    }

    fn check_options(&self) -> Result<()> {
        let has = &self.topic.capabilities().append;
        if self.options.expect.is_some() && !has.conditional.is(&true) {
            return Err(Error::unsupported(format!(
                "a conditional append needs append.conditional, which is {} here; use a topic that offers it, or one writer per key",
                has.conditional
            )));
        }
        if self.options.epoch.is_some() && !has.fenced.is(&true) {
            return Err(Error::unsupported(format!(
                "an append with an epoch needs append.fenced, which is {} here; use a topic that offers it",
                has.fenced
            )));
        }
        let atomic = match has.batch.known() {
            Some(Batching::Atomic) => true,
            Some(Batching::AtomicPerKey) => one_key(&self.batch),
            _ => self.batch.len() < 2,
        };
        if self.options.atomic && !atomic {
            return Err(Error::unsupported(format!(
                "an atomic append of this batch needs append.batch: Atomic (or AtomicPerKey and one key), which is {} here; append records one by one, or use a topic that offers it",
                has.batch
            )));
        }
        Ok(())
    }
}

/// Whether all records have one key.
fn one_key(batch: &Batch) -> bool {
    let mut keys = batch.records().iter().map(Record::key_bytes);
    match keys.next() {
        Some(Some(first)) => keys.all(|key| key == Some(first)),
        Some(None) => batch.len() < 2,
        None => true,
    }
}

impl Most {
    /// `TooLarge` when a batch that must not be split is over a limit of one request.
    fn check(&self, batch: &Batch) -> Result<()> {
        let over = |what: &str, has: usize, limit: &str, most: usize| {
            (has > most).then(|| {
                too_large(format!(
                    "the batch has {has} {what}, over {limit} of {most}, and an atomic or conditional append is never split; append fewer at a time"
                ))
            })
        };
        let error = over("records", batch.len(), "limits.batch_records", self.records)
            .or_else(|| over("bytes", batch.len_bytes(), "limits.batch_bytes", self.bytes));
        error.map_or(Ok(()), Err)
    }
}
