//! The place of one record.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::error::{Effect, Error, ErrorKind, Result, Retry};

/// The number of a partition, unique within its topic for ever (Kinesis: the shard's number;
/// Kafka: the partition's; one-partition topics: 0).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u64);

impl PartitionId {
    /// The one partition of a topic that has one.
    pub const ONLY: Self = Self(0);

    /// The partition of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}

/// The place of one record: its partition, and its number there.
///
/// Opaque: numbers may have holes and differ in kind between backends. Positions of one partition
/// are ordered as their records are; positions of two partitions are not comparable
/// ([`partial_cmp`](PartialOrd::partial_cmp) is `None`).
///
/// `Display` and [`FromStr`] are each other's inverse: `0@42`, or `3@42.7` with a sub-index.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    partition: PartitionId,
    /// Most significant first, so that comparing the array compares the number.
    number: [u64; 4],
    sub: u32,
}

impl Position {
    /// Number `number` of `partition`.
    pub const fn new(partition: PartitionId, number: u64) -> Self {
        Self {
            partition,
            number: [0, 0, 0, number],
            sub: 0,
        }
    }

    /// A number of up to 256 bits, most significant word first, and an index among the records
    /// that travelled under it.
    pub const fn wide(partition: PartitionId, number: [u64; 4], sub: u32) -> Self {
        Self {
            partition,
            number,
            sub,
        }
    }

    /// The partition.
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The number, most significant word first.
    pub const fn number(&self) -> [u64; 4] {
        self.number
    }

    /// The number, where it fits 64 bits.
    pub const fn number_u64(&self) -> Option<u64> {
        match self.number {
            [0, 0, 0, low] => Some(low),
            _ => None,
        }
    }

    /// The index among the records that travelled under one number (Kinesis aggregates).
    pub const fn sub(&self) -> u32 {
        self.sub
    }

    /// The number in decimal digits, as services print it.
    pub fn decimal(&self) -> String {
        let mut words = self.number;
        let mut digits = Vec::new();
        loop {
            let mut rest: u128 = 0;
            for word in &mut words {
                let whole = (rest << 64) | u128::from(*word);
                // The quotient of a 68-bit number by ten fits the word it came from.
                *word = u64::try_from(whole / 10).unwrap_or(u64::MAX);
                rest = whole % 10;
            }
            digits.push(char::from(b'0' + u8::try_from(rest).unwrap_or(0)));
            if words == [0; 4] {
                return digits.into_iter().rev().collect();
            }
        }
    }

    /// Reads decimal digits into a number of up to 256 bits.
    ///
    /// # Errors
    /// `Decode` when it is no number or longer than 256 bits; it is never cut. A backend whose service
    /// gives such a number passes the error on from a read; in a receipt, where the record is
    /// stored, it leaves the position out ([`Stored::somewhere`](crate::Stored::somewhere)).
    pub fn parse_decimal(partition: PartitionId, digits: &str, sub: u32) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(
                ErrorKind::Decode,
                Effect::None,
                Retry::Never,
                format!("{digits:?} is no position: {why}"),
            )
        };
        if digits.is_empty() {
            return Err(wrong("it is empty"));
        }
        let mut words = [0u64; 4];
        for byte in digits.bytes() {
            if !byte.is_ascii_digit() {
                return Err(wrong("it is not made of decimal digits"));
            }
            let mut carry = u128::from(byte - b'0');
            for word in words.iter_mut().rev() {
                let whole = u128::from(*word) * 10 + carry;
                let low = whole & u128::from(u64::MAX);
                *word = u64::try_from(low).unwrap_or(u64::MAX);
                carry = whole >> 64;
            }
            if carry != 0 {
                return Err(wrong("it is longer than 256 bits"));
            }
        }
        Ok(Self {
            partition,
            number: words,
            sub,
        })
    }
}

impl PartialOrd for Position {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.partition == other.partition).then(|| {
            self.number
                .cmp(&other.number)
                .then(self.sub.cmp(&other.sub))
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.decimal())?;
        if self.sub != 0 {
            write!(f, ".{}", self.sub)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`Display`](fmt::Display) does not write is `Decode`.
impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(
                ErrorKind::Decode,
                Effect::None,
                Retry::Never,
                format!("{text:?} is no position; one looks like 0@42 or 3@42.7"),
            )
        };
        let (partition, rest) = text.split_once('@').ok_or_else(wrong)?;
        let partition = PartitionId(partition.parse().map_err(|_| wrong())?);
        let (number, sub) = match rest.split_once('.') {
            Some((number, sub)) => (number, sub.parse().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        Self::parse_decimal(partition, number, sub)
    }
}

const _: () = assert!(size_of::<Position>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_order() {
        let p = PartitionId::new(3);
        let big = "49590338271490256608559692538361571095921575989136588898";
        for (number, sub) in [("0", 0), ("42", 7), (big, 1)] {
            let position = Position::parse_decimal(p, number, sub).unwrap();
            assert_eq!(position.decimal(), number);
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
        let max = Position::wide(p, [u64::MAX; 4], 0).decimal();
        assert_eq!(
            Position::parse_decimal(p, &max, 0).unwrap().number(),
            [u64::MAX; 4]
        );
        for bad in ["", "x", "-1", &format!("{max}0")] {
            assert_eq!(
                Position::parse_decimal(p, bad, 0).unwrap_err().kind(),
                ErrorKind::Decode
            );
        }
        for bad in ["", "1", "@", "1@", "a@1", "1@1.x", "1@1.4294967296"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
        let a = Position::new(p, 9);
        let b = Position::parse_decimal(p, big, 0).unwrap();
        assert!(a < b && Position::wide(p, a.number(), 1) > a);
        assert_eq!(a.partial_cmp(&Position::new(PartitionId::ONLY, 9)), None);
    }
}
