//! Headers: an ordered list of names and values, repeats and nulls included, in one buffer.
//!
//! The same encoding stands in a [`Record`](crate::Record), in a
//! [`Recorded`](crate::Recorded)'s shared buffer and in the embedded log's entries, so that none
//! of them takes headers apart before somebody asks: name length (u16), name (UTF-8), value length
//! (u32, all ones for null), value; all little-endian.

use std::fmt;

use crate::error::{Effect, Error, ErrorKind, Result, Retry};

const NULL: u32 = u32::MAX;

/// The longest header name in bytes.
pub const MAX_HEADER_NAME: usize = u16::MAX as usize;

/// Owned headers of a record that is about to be written.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers {
    encoded: Vec<u8>,
    count: u32,
    /// A name that was too long to encode: kept as a mark, refused at append.
    broken: bool,
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self {
            encoded: Vec::new(),
            count: 0,
            broken: false,
        }
    }

    /// Adds one at the end; a name may come again, a value may be null.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        let (Ok(name_len), Ok(value_len)) = (
            u16::try_from(name.len()),
            u32::try_from(value.map_or(0, <[u8]>::len)),
        ) else {
            self.broken = true;
            return;
        };
        self.encoded.extend_from_slice(&name_len.to_le_bytes());
        self.encoded.extend_from_slice(name.as_bytes());
        self.encoded
            .extend_from_slice(&value.map_or(NULL, |_| value_len).to_le_bytes());
        self.encoded.extend_from_slice(value.unwrap_or_default());
        self.count = self.count.saturating_add(1);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded form, for backends that store it as it is.
    pub fn as_encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// In the order in which they were added.
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter {
            rest: &self.encoded,
        }
    }

    /// The value of the first header of this name (the inner `None` is a null value).
    pub fn get(&self, name: &str) -> Option<Option<&[u8]>> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Whether every header could be kept: false after a name over [`MAX_HEADER_NAME`] bytes or a
    /// value over 4 GiB. Core refuses such a record before any backend sees it.
    pub fn is_whole(&self) -> bool {
        !self.broken
    }

    /// Takes encoded headers over after checking them.
    ///
    /// # Errors
    /// `Decode` when they are not what [`Headers::as_encoded`] gives.
    pub fn from_encoded(encoded: Vec<u8>) -> Result<Self> {
        let count = check_encoded(&encoded)?;
        Ok(Self {
            encoded,
            count,
            broken: false,
        })
    }
}

/// Counts encoded headers.
///
/// # Errors
/// `Decode` when the bytes are not encoded headers from beginning to end.
pub fn check_encoded(encoded: &[u8]) -> Result<u32> {
    let mut iter = HeaderIter { rest: encoded };
    let mut count = 0;
    while !iter.rest.is_empty() {
        if iter.next().is_none() {
            return Err(Error::new(
                ErrorKind::Decode,
                Effect::None,
                Retry::Never,
                "these bytes are not encoded headers",
            ));
        }
        count += 1;
    }
    Ok(count)
}

impl fmt::Debug for Headers {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// Headers one by one: name, and value or null.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
}

impl<'a> HeaderIter<'a> {
    /// Reads encoded headers; stops early where they are broken.
    pub fn over(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_len, rest) = self.rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_len) as usize)?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let name = std::str::from_utf8(name).ok()?;
        let (value, rest) = match u32::from_le_bytes(*value_len) {
            NULL => (None, rest),
            len => {
                let (value, rest) = rest.split_at_checked(len as usize)?;
                (Some(value), rest)
            }
        };
        self.rest = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_nulls_and_empties_survive() {
        let mut headers = Headers::new();
        headers.push("a", Some(b"1"));
        headers.push("a", None);
        headers.push("", Some(b""));
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(
            all,
            [("a", Some(&b"1"[..])), ("a", None), ("", Some(&b""[..]))]
        );
        assert_eq!(headers.len(), 3);
        assert_eq!(
            Headers::from_encoded(headers.as_encoded().to_vec()).unwrap(),
            headers
        );
        assert!(
            !format!("{headers:?}").contains('1'),
            "values stay out of Debug"
        );
    }

    #[test]
    fn broken_bytes_are_refused_and_a_long_name_is_marked() {
        let mut headers = Headers::new();
        headers.push("name", Some(b"value"));
        for cut in 1..headers.as_encoded().len() {
            assert!(Headers::from_encoded(headers.as_encoded()[..cut].to_vec()).is_err());
        }
        assert!(headers.is_whole());
        headers.push(&"x".repeat(MAX_HEADER_NAME + 1), None);
        assert!(!headers.is_whole());
        assert_eq!(headers.len(), 1);
    }
}
