//! How much one request may carry.

use crate::batch::Batch;
use crate::capability::{Claim, Limits};

/// The most that one request may carry. One record always fits: a larger one was refused before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Most {
    pub(super) fn of(limits: &Limits) -> Self {
        let most = |claim: &Claim<Option<u64>>| {
            let limit = claim.known().copied().flatten();
            limit.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX).max(1)
            })
        };
        Self {
            records: most(&limits.batch_records),
            bytes: most(&limits.batch_bytes),
        }
    }

    /// Whether the whole batch goes in one request.
    pub(super) fn holds(&self, batch: &Batch) -> bool {
        batch.len() <= self.records && (self.bytes == usize::MAX || batch.len_bytes() <= self.bytes)
    }
}
