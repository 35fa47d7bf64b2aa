//! How much a topic takes.

use serde::Serialize;

use super::Claim;

/// Limits, as the service counts them. Core checks and cuts by plain sizes
/// ([`Record::len_bytes`](crate::Record::len_bytes)); what encoding adds is the backend's to see to
/// (the driver's rule 3). A record over one is `TooLarge`, and so is a batch that has to
/// go whole; any other batch is split. `None`: no limit but memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// Bytes of one record as the service counts them.
    pub record_bytes: Claim<Option<u64>>,
    /// Records of one append call.
    pub batch_records: Claim<Option<u64>>,
    /// Bytes of one append call.
    pub batch_bytes: Claim<Option<u64>>,
    /// Headers of one record.
    pub headers: Claim<Option<u32>>,
    /// Bytes of a key.
    pub key_bytes: Claim<Option<u64>>,
    /// What one answer of the service may bring over a buffer's bound, in bytes.
    pub slack_bytes: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        record_bytes: Claim::Is(None),
        batch_records: Claim::Is(None),
        batch_bytes: Claim::Is(None),
        headers: Claim::Is(None),
        key_bytes: Claim::Is(None),
        slack_bytes: 0,
    };
}
