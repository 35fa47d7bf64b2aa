//! What a record of a run is known by.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use annals_core::{Record, Recorded};

/// The number of a key, from 1; its text is `k1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyNo(NonZeroU32);

impl KeyNo {
    /// The key of this number; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for KeyNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// What a record of a run is known by: its writer, its number there, and its key.
///
/// Its text is `3.17` or `3.17 k5`; a record's value begins with it, and may go on behind a
/// second blank (`3.17 - …` without a key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value {
    /// Who wrote it.
    pub writer: u32,
    /// Its number among what the writer wrote; greater than those of all it wrote before.
    pub counter: u64,
    /// The record's key.
    pub key: Option<KeyNo>,
}

impl Value {
    /// Without a key.
    pub const fn new(writer: u32, counter: u64) -> Self {
        Self {
            writer,
            counter,
            key: None,
        }
    }

    /// With the key of this number; 0 is none.
    #[must_use]
    pub const fn keyed(mut self, key: u32) -> Self {
        self.key = KeyNo::new(key);
        self
    }

    /// The record that carries it: key, value and, as its id, writer and counter.
    pub fn record(&self) -> Record {
        let record = Record::new(self.to_string()).id(format!("{}.{}", self.writer, self.counter));
        match self.key {
            Some(key) => record.key(key.to_string()),
            None => record,
        }
    }

    /// The same, its value filled up to `bytes` (longer only when the text itself is).
    pub fn record_of(&self, bytes: usize) -> Record {
        let mut text = self.to_string();
        if self.key.is_none() {
            text.push_str(" -");
        }
        text.push(' ');
        while text.len() < bytes {
            text.push('.');
        }
        let record = Record::new(text).id(format!("{}.{}", self.writer, self.counter));
        match self.key {
            Some(key) => record.key(key.to_string()),
            None => record,
        }
    }

    /// What the value of a record that was read says; `None` when no run writes such a one.
    pub fn of(record: &Recorded) -> Option<Self> {
        std::str::from_utf8(record.value()).ok()?.parse().ok()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.writer, self.counter)?;
        match self.key {
            Some(key) => write!(f, " {key}"),
            None => Ok(()),
        }
    }
}

/// A text that begins with no [`Value`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoValue;

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no value of a run; one looks like \"3.17 k5\"")
    }
}

impl std::error::Error for NoValue {}

impl FromStr for Value {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let mut words = text.split(' ');
        let (writer, counter) = words
            .next()
            .and_then(|word| word.split_once('.'))
            .ok_or(NoValue)?;
        let key = match words.next() {
            None | Some("-") => None,
            Some(word) => {
                let number = word.strip_prefix('k').ok_or(NoValue)?;
                let number = number.parse().map_err(|_| NoValue)?;
                Some(KeyNo::new(number).ok_or(NoValue)?)
            }
        };
        Ok(Self {
            writer: writer.parse().map_err(|_| NoValue)?,
            counter: counter.parse().map_err(|_| NoValue)?,
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_text() {
        for value in [
            Value::new(0, 0),
            Value::new(3, 17).keyed(5),
            Value::new(u32::MAX, u64::MAX).keyed(u32::MAX),
        ] {
            assert_eq!(value.to_string().parse(), Ok(value));
            let record = value.record_of(100);
            let bytes = record.value_bytes().unwrap();
            assert_eq!(bytes.len(), 100);
            assert_eq!(std::str::from_utf8(bytes).unwrap().parse(), Ok(value));
        }
    }

    #[test]
    fn what_no_run_wrote_is_no_value() {
        for text in [
            "", "3", "3.x", "3.17 5", "3.17 k0", "3.17 k", "-1.4", " 3.17",
        ] {
            assert_eq!(text.parse::<Value>(), Err(NoValue), "{text:?}");
        }
    }
}
