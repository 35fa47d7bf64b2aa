//! A group's row as bytes: what stands in its cursor file.

use std::sync::Arc;

use annals_core::driver::Lease;
use annals_core::{Frontier, PartitionId, Position, Timestamp};

use crate::slot::MAX_VALUE;

const VERSION: u8 = 1;

/// The longest name of an owner that is kept, in bytes; longer ones are cut.
const MAX_OWNER: usize = 200;

/// A group's one row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// Grows with every take.
    pub(super) epoch: u64,
    /// Grows with every take, commit and release; renewals are counted in memory.
    pub(super) counter: u64,
    pub(super) attempts: u32,
    pub(super) at: Frontier,
    pub(super) owner: Option<Arc<str>>,
}

impl Row {
    pub(super) fn of(lease: &Lease) -> Self {
        Self {
            epoch: 0,
            counter: lease.counter,
            attempts: lease.attempts,
            at: lease.at,
            owner: lease.owner.clone(),
        }
    }

    pub(super) fn lease(&self) -> Lease {
        Lease {
            partition: PartitionId::ONLY,
            owner: self.owner.clone(),
            counter: self.counter,
            at: self.at,
            parents: Vec::new(),
            attempts: self.attempts,
        }
    }

    /// Version, kind of frontier, whether `clear` and an owner are there; then five numbers and
    /// the owner's name.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, number, clear) = match self.at {
            Frontier::Start { clear } => (0, 0, clear),
            Frontier::Since(time) => (1, time.as_millis().cast_unsigned(), None),
            Frontier::After { position, clear } => {
                (2, position.number_u64().unwrap_or(u64::MAX), clear)
            }
            Frontier::Ended { clear } => (3, 0, clear),
        };
        let mut bytes = vec![
            VERSION,
            kind,
            u8::from(clear.is_some()),
            u8::from(self.owner.is_some()),
        ];
        bytes.extend(self.attempts.to_le_bytes());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.counter.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(clear.map_or(0, Timestamp::as_millis).to_le_bytes());
        let owner = self.owner.as_deref().unwrap_or_default();
        let cut = owner.floor_char_boundary(MAX_OWNER);
        bytes.extend_from_slice(owner.get(..cut).unwrap_or_default().as_bytes());
        bytes
    }

    /// `None`: these bytes are no row of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[VERSION, kind, clear, owned, ..] = bytes else {
            return None;
        };
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let number = u64_at(24)?;
        let time = u64_at(32)?.cast_signed();
        let clear = (clear != 0).then(|| Timestamp::from_millis(time));
        let at = match kind {
            0 => Frontier::Start { clear },
            1 => Frontier::Since(Timestamp::from_millis(number.cast_signed())),
            2 => Frontier::After {
                position: Position::new(PartitionId::ONLY, number),
                clear,
            },
            3 => Frontier::Ended { clear },
            _ => return None,
        };
        let owner = str::from_utf8(bytes.get(40..)?).ok()?;
        Some(Self {
            epoch: u64_at(8)?,
            counter: u64_at(16)?,
            attempts: u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?),
            at,
            owner: (owned != 0).then(|| Arc::from(owner)),
        })
    }
}

/// Whether going from `old` to `new` would hand out again what is settled.
pub(super) fn goes_back(old: &Frontier, new: &Frontier) -> bool {
    let rank = |frontier: &Frontier| match frontier {
        Frontier::Start { .. } => 0,
        Frontier::Since(_) => 1,
        Frontier::After { .. } => 2,
        Frontier::Ended { .. } => 3,
    };
    match (old, new) {
        (Frontier::Since(old), Frontier::Since(new)) => new < old,
        (Frontier::After { position: old, .. }, Frontier::After { position: new, .. }) => {
            !new.partial_cmp(old).is_some_and(std::cmp::Ordering::is_ge)
        }
        _ => rank(new) < rank(old),
    }
}

const _: () = assert!(40 + MAX_OWNER <= MAX_VALUE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_bytes() {
        let at = |n| Position::new(PartitionId::ONLY, n);
        for frontier in [
            Frontier::START,
            Frontier::Since(Timestamp::from_millis(-5)),
            Frontier::after(at(7)),
            Frontier::After {
                position: at(u64::MAX),
                clear: Some(Timestamp::from_millis(-1)),
            },
            Frontier::ENDED,
            Frontier::Start {
                clear: Some(Timestamp::from_millis(1)),
            },
            Frontier::Ended {
                clear: Some(Timestamp::from_millis(2)),
            },
        ] {
            for owner in [None, Some(Arc::from("")), Some(Arc::from("member 1"))] {
                let row = Row {
                    epoch: 3,
                    counter: u64::MAX,
                    attempts: 9,
                    at: frontier,
                    owner,
                };
                assert_eq!(Row::decode(&row.encode()), Some(row));
            }
        }
        assert_eq!(Row::decode(b""), None);
        assert_eq!(Row::decode(&[2; 60]), None);
    }

    #[test]
    fn frontiers_go_forward_only() {
        let at = |n| Frontier::after(Position::new(PartitionId::ONLY, n));
        let since = |n| Frontier::Since(Timestamp::from_millis(n));
        let order = [
            Frontier::START,
            since(1),
            since(2),
            at(0),
            at(9),
            Frontier::ENDED,
        ];
        for (i, old) in order.iter().enumerate() {
            for (j, new) in order.iter().enumerate() {
                assert_eq!(goes_back(old, new), j < i, "{old:?} {new:?}");
            }
        }
    }
}
