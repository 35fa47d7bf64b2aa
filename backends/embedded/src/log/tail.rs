//! The durable end: what the writer publishes after each sync, and readers never pass.

use annals_core::Timestamp;

use super::frame::{i64_at, put, u64_at};
use super::segment::Chain;
use crate::disk::BootId;

/// The durable end of a topic, as readers need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct End {
    /// The last segment: its first position.
    pub segment: u64,
    /// Where its data ends, in bytes.
    pub bytes: u64,
    /// The position that the next record will have.
    pub next: u64,
    /// The oldest position that is kept.
    pub earliest: u64,
}

/// What the `tail` file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tail {
    pub(crate) boot: BootId,
    /// Grows with each opening for writing.
    pub(crate) writer: u64,
    pub(crate) end: End,
    pub(crate) commit: u64,
    pub(crate) time: Timestamp,
    pub(crate) epoch: u64,
}

const LEN: usize = 80;

impl Tail {
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        put(&mut bytes, 0, &self.boot.0);
        for (at, number) in [
            (16, self.writer),
            (24, self.end.segment),
            (32, self.end.bytes),
            (40, self.end.next),
            (48, self.end.earliest),
            (56, self.commit),
            (64, self.time.as_millis().cast_unsigned()),
            (72, self.epoch),
        ] {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<LEN>()?;
        let mut boot = [0; 16];
        boot.copy_from_slice(bytes.get(..16)?);
        Some(Self {
            boot: BootId(boot),
            writer: u64_at(bytes, 16),
            end: End {
                segment: u64_at(bytes, 24),
                bytes: u64_at(bytes, 32),
                next: u64_at(bytes, 40),
                earliest: u64_at(bytes, 48),
            },
            commit: u64_at(bytes, 56),
            time: Timestamp::from_millis(i64_at(bytes, 64)),
            epoch: u64_at(bytes, 72),
        })
    }

    pub(crate) const fn chain(&self) -> Chain {
        Chain {
            next: self.end.next,
            commit: self.commit,
            time: self.time,
            epoch: self.epoch,
        }
    }
}
