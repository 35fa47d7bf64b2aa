//! Where the records of each key lie, in memory: for a segment that still grows, and for a group
//! that is being made.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::Posting;

const NONE: u32 = u32::MAX;

/// Key hashes to records, newest first.
///
/// It takes 16 bytes a record with a key, and 9 bytes a slot of the hash table, of which at least
/// 7 in 16 are in use: with growth by doubling at most 53 bytes for a key of one record, 32 for
/// each further record.
#[derive(Debug, Default)]
pub(in crate::log) struct Table {
    newest: HashMap<u32, u32, BuildHasherDefault<Spread>>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    posting: Posting,
    /// The record before it with the same hash.
    before: u32,
}

/// A key's hash is one already; the table wants all 64 bits of it.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, hash: u32) {
        self.0 = (self.0 ^ u64::from(hash)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Table {
    /// Takes in a record; ordinals must ascend.
    pub(in crate::log) fn insert(&mut self, hash: u32, posting: Posting) {
        let Ok(index) = u32::try_from(self.links.len()) else {
            return;
        };
        let before = self.newest.insert(hash, index).unwrap_or(NONE);
        self.links.push(Link { posting, before });
    }

    /// The newest record with this hash of those before ordinal `below`.
    pub(in crate::log) fn newest(&self, hash: u32, below: u32) -> Option<Posting> {
        self.back(hash).find(|posting| posting.ordinal < below)
    }

    /// The first `most` records with this hash from ordinal `from` up to `below`, in order, and
    /// whether there are more.
    pub(super) fn from(
        &self,
        hash: u32,
        from: u32,
        below: u32,
        most: usize,
    ) -> (Vec<Posting>, bool) {
        let mut found = VecDeque::new();
        let mut more = false;
        for posting in self.back(hash) {
            if posting.ordinal < from {
                break;
            }
            if posting.ordinal < below {
                found.push_front(posting);
                if found.len() > most {
                    found.pop_back();
                    more = true;
                }
            }
        }
        (found.into(), more)
    }

    fn back(&self, hash: u32) -> impl Iterator<Item = Posting> + '_ {
        let mut index = self.newest.get(&hash).copied();
        std::iter::from_fn(move || {
            let link = self.links.get(index? as usize)?;
            index = Some(link.before);
            Some(link.posting)
        })
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>() + self.newest.capacity() * 8 / 7 * 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posting(ordinal: u32) -> Posting {
        Posting {
            ordinal,
            frame: 0,
            entry: 0,
        }
    }

    #[test]
    fn answers_in_order_from_either_end() {
        let mut table = Table::default();
        for ordinal in 0..9 {
            table.insert(ordinal % 2, posting(ordinal));
        }
        assert_eq!(table.newest(1, 9), Some(posting(7)));
        assert_eq!(table.newest(1, 7), Some(posting(5)));
        assert_eq!(table.newest(1, 1), None);
        assert_eq!(table.newest(2, 9), None);
        let two = (vec![posting(2), posting(4)], true);
        assert_eq!(table.from(0, 1, 9, 2), two);
        let two = (vec![posting(2), posting(4)], false);
        assert_eq!(table.from(0, 1, 6, 2), two);
        assert_eq!(table.from(3, 0, 9, 2), (Vec::new(), false));
    }

    #[test]
    fn a_key_takes_no_more_than_it_says() {
        let mut table = Table::default();
        for ordinal in 0..150_000_u32 {
            table.insert(ordinal.wrapping_mul(0x9e37_79b1), posting(ordinal));
            if ordinal > 1000 {
                assert!(table.bytes() <= 53 * (ordinal as usize + 1), "{ordinal}");
            }
        }
    }
}
