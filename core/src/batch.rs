//! Records that are appended in one call, and who they are across retries.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::record::Record;
use crate::time::Timestamp;

/// One record's submission: which append call, and which of its records. It is the same in every
/// retry, so a service that knows submissions recognises them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Submission {
    /// The append call, unique across processes.
    pub batch: u128,
    /// The record's place in that call.
    pub index: u32,
}

/// A new number, of an append call say: random per process, counted up per call.
pub(crate) fn unique_number() -> u128 {
    static PROCESS: OnceLock<[u8; 8]> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| {
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            // No random source: the time and this process's id are still unlikely to repeat.
            let now = Timestamp::now().as_millis().unsigned_abs();
            seed = (now ^ (u64::from(std::process::id()) << 40)).to_le_bytes();
        }
        seed
    });
    (u128::from(u64::from_le_bytes(*process)) << 64)
        | u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Records that are appended in one call, of any number up to `u32::MAX`: core splits to a
/// service's limits.
///
/// Made from a record, an array, a vector or any iterator of records. A part of it
/// ([`select`](Batch::select)) keeps the submissions of its records.
#[derive(Clone)]
pub struct Batch {
    records: Vec<Record>,
    id: u128,
    /// The index in the call that made them; `None`: their own index.
    indices: Option<Vec<u32>>,
    first_tried: Arc<OnceLock<Timestamp>>,
}

impl Batch {
    /// A new submission of these records.
    pub fn new(records: Vec<Record>) -> Self {
        Self {
            records,
            id: unique_number(),
            indices: None,
            first_tried: Arc::default(),
        }
    }

    /// The records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, taken out.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The sum of [`Record::len_bytes`].
    pub fn len_bytes(&self) -> usize {
        self.records.iter().map(Record::len_bytes).sum()
    }

    /// Which submission record `index` is; `None` past the end.
    pub fn submission(&self, index: usize) -> Option<Submission> {
        let index = match &self.indices {
            Some(indices) => *indices.get(index)?,
            None if index < self.records.len() => u32::try_from(index).ok()?,
            None => return None,
        };
        Some(Submission {
            batch: self.id,
            index,
        })
    }

    /// The records at `indices` (those past the end are left out), in that order, with their
    /// submissions. Payloads are shared, not copied.
    #[must_use]
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let mut records = Vec::new();
        let mut submissions = Vec::new();
        for index in indices {
            if let (Some(record), Some(submission)) =
                (self.records.get(index), self.submission(index))
            {
                records.push(record.clone());
                submissions.push(submission.index);
            }
        }
        Self {
            records,
            id: self.id,
            indices: Some(submissions),
            first_tried: Arc::clone(&self.first_tried),
        }
    }

    /// When the first attempt of any part of this call left, if one has: services that recognise a
    /// repeat do so for a time counted from there.
    pub fn first_tried(&self) -> Option<Timestamp> {
        self.first_tried.get().copied()
    }

    /// Notes that an attempt leaves at `now`; only the first note counts. Core calls it.
    pub fn tried(&self, now: Timestamp) -> Timestamp {
        *self.first_tried.get_or_init(|| now)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("records", &self.records.len())
            .field("bytes", &self.len_bytes())
            .finish_non_exhaustive()
    }
}

impl From<Record> for Batch {
    fn from(record: Record) -> Self {
        Self::new(vec![record])
    }
}

impl From<Vec<Record>> for Batch {
    fn from(records: Vec<Record>) -> Self {
        Self::new(records)
    }
}

impl<const N: usize> From<[Record; N]> for Batch {
    fn from(records: [Record; N]) -> Self {
        Self::new(records.into())
    }
}

impl FromIterator<Record> for Batch {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self::new(records.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_submissions_and_first_try() {
        let batch = Batch::from([Record::new("a"), Record::new("b"), Record::new("c")]);
        let part = batch.select([2, 1, 9]);
        let again = part.select([1]);
        assert_eq!(again.records(), [Record::new("b")]);
        assert_eq!(again.submission(0), batch.submission(1));
        assert_eq!(again.submission(1), None);
        assert_eq!(batch.first_tried(), None);
        part.tried(Timestamp::from_millis(1));
        batch.tried(Timestamp::from_millis(2));
        assert_eq!(again.first_tried(), Some(Timestamp::from_millis(1)));
        assert_ne!(
            Batch::from(Record::new("a")).submission(0),
            batch.submission(0)
        );
    }
}
