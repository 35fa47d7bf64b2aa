//! What the application writes.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::headers::Headers;
use crate::time::Timestamp;

macro_rules! bytes_like {
    ($name:ident) => {
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::from(Bytes::copy_from_slice(text.as_bytes()))
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(Bytes::from(text))
            }
        }
        impl From<&String> for $name {
            fn from(text: &String) -> Self {
                Self::from(text.as_str())
            }
        }
        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self::from(Bytes::copy_from_slice(bytes))
            }
        }
        impl<const N: usize> From<[u8; N]> for $name {
            fn from(bytes: [u8; N]) -> Self {
                Self::from(Bytes::copy_from_slice(&bytes))
            }
        }
        impl<const N: usize> From<&[u8; N]> for $name {
            fn from(bytes: &[u8; N]) -> Self {
                Self::from(Bytes::copy_from_slice(bytes))
            }
        }
        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self::from(Bytes::from(bytes))
            }
        }
    };
}

/// A record's key: what it is about. Records of one key keep their order. Any bytes, empty ones
/// too; what is borrowed is copied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, taken out.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

bytes_like!(Key);

impl fmt::Debug for Key {
    /// The length only: keys may name people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A record's value: any bytes, or null (a *tombstone*, which is not the same as empty).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Value(Option<Bytes>);

impl Value {
    /// No value: what Kafka calls a tombstone.
    pub const NULL: Self = Self(None);

    /// The bytes, or `None` for null.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        self.0.as_ref()
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self(Some(bytes))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}

bytes_like!(Value);

impl fmt::Debug for Value {
    /// The length only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(bytes) => write!(f, "Value({} bytes)", bytes.len()),
            None => f.write_str("Value(null)"),
        }
    }
}

/// What the application writes: a value and, where it wants them, a key, an id, headers and a
/// timestamp.
///
/// What a topic takes (bytes of a record and of a key, headers) its capability
/// [`limits`](crate::capability::Limits) says; it is checked when the record is appended. Cloning
/// shares key, value and id, and copies headers.
///
/// ```
/// use annals_core::Record;
/// let placed = Record::new("placed").key("order-17").header("trace", "4bf92f35");
/// assert_eq!(placed.key_bytes().unwrap(), "order-17".as_bytes());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    value: Value,
    key: Option<Key>,
    id: Option<Bytes>,
    headers: Headers,
    timestamp: Option<Timestamp>,
}

impl Record {
    /// A record of this value; `Value::NULL` makes a tombstone.
    pub fn new(value: impl Into<Value>) -> Self {
        Self {
            value: value.into(),
            key: None,
            id: None,
            headers: Headers::new(),
            timestamp: None,
        }
    }

    /// A record whose value is `value` as JSON.
    ///
    /// # Errors
    /// `Config` when `value` cannot be written as JSON (a map whose keys are no text, say).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::to_vec(value).map(Self::new).map_err(|e| {
            Error::config("the value cannot be written as JSON; see the cause").with_source(e)
        })
    }

    /// Sets the key. Records of one key keep their order; without a key a record has no order
    /// to keep.
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the id by which the log recognises a repeat, where it can (capability `dedupe`).
    /// None is ever made up. It travels with the record in any case.
    #[must_use]
    pub fn id(mut self, id: impl Into<Key>) -> Self {
        self.id = Some(id.into().into_bytes());
        self
    }

    /// [`Record::id`] when there is one; else the record has none, whatever was set before.
    #[must_use]
    pub fn maybe_id(mut self, id: Option<impl Into<Key>>) -> Self {
        self.id = id.map(|id| id.into().into_bytes());
        self
    }

    /// Adds a header at the end; names may repeat, values may be null. With a name over
    /// [`MAX_HEADER_NAME`](crate::headers::MAX_HEADER_NAME) bytes, or a value over 4 GiB, the
    /// append is `TooLarge`.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.headers
            .push(name.as_ref(), value.as_bytes().map(AsRef::as_ref));
        self
    }

    /// Replaces all headers.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the moment that the writer gives it: what happened when. It says nothing about log
    /// time, and neither [`Start::Since`](crate::Start) nor retention goes by it.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The value's bytes, or `None` for null.
    pub fn value_bytes(&self) -> Option<&Bytes> {
        self.value.as_bytes()
    }

    /// The key's bytes.
    pub fn key_bytes(&self) -> Option<&Bytes> {
        self.key.as_ref().map(Key::as_bytes)
    }

    /// The id's bytes.
    pub fn id_bytes(&self) -> Option<&Bytes> {
        self.id.as_ref()
    }

    /// The headers.
    pub fn header_list(&self) -> &Headers {
        &self.headers
    }

    /// The writer's timestamp.
    pub fn written_at(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// The bytes of key, value, id and encoded headers: what buffers count. What a service counts
    /// against its limits is the backend's to know.
    pub fn len_bytes(&self) -> usize {
        self.value_bytes().map_or(0, Bytes::len)
            + self.key_bytes().map_or(0, Bytes::len)
            + self.id.as_ref().map_or(0, Bytes::len)
            + self.headers.as_encoded().len()
    }
}

impl fmt::Debug for Record {
    /// Lengths only; no payload reaches a log through `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("value", &self.value)
            .field("id", &self.id.as_ref().map(Bytes::len))
            .field("headers", &self.headers)
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_not_empty_and_debug_shows_no_payload() {
        assert_ne!(Value::from(""), Value::NULL);
        assert_eq!(Record::new(None::<&str>), Record::new(Value::NULL));
        let record = Record::new("secret").key("private").header("h", "hidden");
        let shown = format!("{record:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("private") && !shown.contains("hidden")
        );
        assert_eq!(record.len_bytes(), 6 + 7 + (2 + 1 + 4 + 6));
    }
}
