//! What comes back: a record as the log has it.

mod buffer;
mod spans;

use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;

use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::headers::{HeaderIter, Headers};
use crate::position::{PartitionId, Position};
use crate::record::{Record, Value};
use crate::time::Timestamp;

pub use buffer::Buffer;
use spans::{ABSENT, Span, Spans};

/// Which parts of a record's place there are.
const HAS_POSITION: u8 = 1;
const HAS_TIMESTAMP: u8 = 2;
const HAS_STORED_AT: u8 = 4;

/// Stands where there is no time.
const NO_TIME: Timestamp = Timestamp::from_millis(0);

/// A record as the log has it: what was written, where it stands and when the log took it.
///
/// It is one reference to a buffer that it shares with its neighbours, and ranges into it: no
/// allocation per record. A record that is kept for long keeps the whole buffer (a chunk of the
/// log) alive; [`detach`](Recorded::detach) gives it one of its own.
// A record is moved some five times on its way to the application, so it is kept small, and copied
// in equal steps (flags that are `bool`s would be copied apart, and the processor would wait): the
// parts of its place lie here one by one, and `has` says which are there.
#[derive(Clone)]
pub struct Recorded {
    buffer: Buffer,
    key: Span,
    value: Span,
    id: Span,
    headers: Span,
    partition: PartitionId,
    number: [u64; 4],
    timestamp: Timestamp,
    stored_at: Timestamp,
    sub: u32,
    has: u8,
}

/// Where the parts of a record lie in a buffer, for [`Recorded::within`].
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The key; `None`: no key.
    pub key: Option<Range<usize>>,
    /// The value; `None`: null.
    pub value: Option<Range<usize>>,
    /// The id; `None`: no id.
    pub id: Option<Range<usize>>,
    /// Headers as [`Headers::as_encoded`] writes them; `None`: none.
    pub headers: Option<Range<usize>>,
    /// The writer's timestamp.
    pub timestamp: Option<Timestamp>,
    /// When the log took it.
    pub stored_at: Option<Timestamp>,
    /// Where it stands; `None` on queues.
    pub position: Option<Position>,
}

impl Recorded {
    /// A record whose parts lie in `buffer`, which it shares: give records of one buffer clones of
    /// one [`Buffer`].
    ///
    /// # Errors
    /// `Decode` when a range lies outside the buffer or the buffer is 4 GiB or more. Headers are
    /// taken as they are: check foreign bytes with
    /// [`check_encoded`](crate::headers::check_encoded).
    #[expect(clippy::needless_pass_by_value, reason = "parts are made for the call")]
    pub fn within(buffer: impl Into<Buffer>, parts: Parts) -> Result<Self> {
        let buffer = buffer.into();
        let spans = Spans::of(&parts, buffer.len()).ok_or_else(outside)?;
        Ok(Self::made(buffer, spans, &parts))
    }

    /// Pushes a record onto `out` for each of `parts`, all of which lie in `buffer`: for a log that
    /// makes many, since each is made where it is to lie and not moved there.
    ///
    /// # Errors
    /// As [`within`](Self::within); nothing was pushed.
    #[inline]
    pub fn extend_within(
        out: &mut Vec<Self>,
        buffer: &Buffer,
        parts: impl Iterator<Item = Parts>,
    ) -> Result<()> {
        let (had, len) = (out.len(), buffer.len());
        let mut lie = true;
        out.extend(parts.map(|parts| {
            let spans = Spans::of(&parts, len);
            lie &= spans.is_some();
            Self::made(buffer.clone(), spans.unwrap_or(Spans::NONE), &parts)
        }));
        if !lie {
            out.truncate(had);
            return Err(outside());
        }
        Ok(())
    }

    #[inline]
    fn made(buffer: Buffer, spans: Spans, parts: &Parts) -> Self {
        let position = parts.position.as_ref();
        let has = if position.is_some() { HAS_POSITION } else { 0 }
            | if parts.timestamp.is_some() {
                HAS_TIMESTAMP
            } else {
                0
            }
            | if parts.stored_at.is_some() {
                HAS_STORED_AT
            } else {
                0
            };
        Self {
            buffer,
            key: spans.key,
            value: spans.value,
            id: spans.id,
            headers: spans.headers,
            partition: position.map_or(PartitionId::ONLY, Position::partition),
            number: position.map_or([0; 4], Position::number),
            timestamp: parts.timestamp.unwrap_or(NO_TIME),
            stored_at: parts.stored_at.unwrap_or(NO_TIME),
            sub: position.map_or(0, Position::sub),
            has,
        }
    }

    /// A record of its own, as a log would hold it: for tests and for backends whose service
    /// hands out records one by one.
    ///
    /// # Errors
    /// `Decode` when it is 4 GiB or more.
    pub fn of(
        record: &Record,
        position: Option<Position>,
        stored_at: Option<Timestamp>,
    ) -> Result<Self> {
        let mut buffer = BytesMut::with_capacity(record.len_bytes());
        let mut put = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| {
                let start = buffer.len();
                buffer.extend_from_slice(bytes);
                start..buffer.len()
            })
        };
        let headers = record.header_list().as_encoded();
        let parts = Parts {
            key: put(record.key_bytes().map(AsRef::as_ref)),
            value: put(record.value_bytes().map(AsRef::as_ref)),
            id: put(record.id_bytes().map(AsRef::as_ref)),
            headers: put((!headers.is_empty()).then_some(headers)),
            timestamp: record.written_at(),
            stored_at,
            position,
        };
        Self::within(buffer.freeze(), parts)
    }

    #[inline]
    fn part(&self, span: Span) -> Option<&[u8]> {
        span.range().and_then(|range| self.buffer.get(range))
    }

    /// The key, where there is one.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.part(self.key)
    }

    /// The key as text, where there is one.
    ///
    /// # Errors
    /// `Decode` when it is not UTF-8, naming the position, never the key.
    pub fn key_str(&self) -> Result<Option<&str>> {
        self.text("key", self.key())
    }

    /// The key as shared bytes.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key.range().map(|range| self.buffer.0.slice(range))
    }

    /// The value; empty for a tombstone, which [`is_tombstone`](Self::is_tombstone) tells from an
    /// empty value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.part(self.value).unwrap_or_default()
    }

    /// The value as text; `None` for a tombstone.
    ///
    /// # Errors
    /// `Decode` when it is not UTF-8, naming the position, never the payload.
    pub fn value_str(&self) -> Result<Option<&str>> {
        self.text("value", self.part(self.value))
    }

    /// The value as shared bytes; `None` for a tombstone.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value.range().map(|range| self.buffer.0.slice(range))
    }

    /// Whether the value is null.
    pub fn is_tombstone(&self) -> bool {
        self.value == ABSENT
    }

    /// The headers, in the order in which they were written, taken apart as they are asked for.
    pub fn headers(&self) -> HeaderIter<'_> {
        HeaderIter::over(self.part(self.headers).unwrap_or_default())
    }

    /// The value of the first header of this name (the inner `None` is a null value).
    pub fn header(&self, name: &str) -> Option<Option<&[u8]>> {
        self.headers()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// The value of the first header of this name as text; `None` where there is no such header or
    /// its value is null, which [`header`](Self::header) tells apart.
    ///
    /// # Errors
    /// `Decode` when it is not UTF-8, naming the position, never the value.
    pub fn header_str(&self, name: &str) -> Result<Option<&str>> {
        self.text("value of a header", self.header(name).flatten())
    }

    /// The id that the application gave it.
    pub fn id(&self) -> Option<&[u8]> {
        self.part(self.id)
    }

    /// The id as text, where there is one.
    ///
    /// # Errors
    /// `Decode` when it is not UTF-8, naming the position, never the id.
    pub fn id_str(&self) -> Result<Option<&str>> {
        self.text("id", self.id())
    }

    /// A part as text. That it is none is an error, and not `None` nor text with holes: nobody
    /// shall take a record that holds something for one that holds nothing, or two for the same.
    fn text<'a>(&self, what: &str, bytes: Option<&'a [u8]>) -> Result<Option<&'a str>> {
        let text = bytes.map(std::str::from_utf8).transpose();
        text.map_err(|e| {
            let place = self.place();
            decode(format!(
                "the {what}{place} is not UTF-8 behind its byte {}; read it as bytes",
                e.valid_up_to()
            ))
        })
    }

    /// Where it stands, for a sentence.
    fn place(&self) -> String {
        self.position()
            .map_or_else(String::new, |position| format!(" at {position}"))
    }

    /// Where it stands; `None` on queues, which have no places.
    #[inline]
    pub fn position(&self) -> Option<Position> {
        (self.has & HAS_POSITION != 0)
            .then(|| Position::wide(self.partition, self.number, self.sub))
    }

    /// The partition of its position, for who asks each record.
    #[inline]
    pub(crate) fn partition(&self) -> Option<PartitionId> {
        (self.has & HAS_POSITION != 0).then_some(self.partition)
    }

    /// The writer's timestamp, if it gave one.
    pub fn timestamp(&self) -> Option<Timestamp> {
        (self.has & HAS_TIMESTAMP != 0).then_some(self.timestamp)
    }

    /// When the log took it (log time), where the log knows (capability `log_time`).
    #[inline]
    pub fn stored_at(&self) -> Option<Timestamp> {
        (self.has & HAS_STORED_AT != 0).then_some(self.stored_at)
    }

    /// The value read as JSON. A tombstone is none.
    ///
    /// # Errors
    /// `Decode`, naming the position, never the payload.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.value()).map_err(|e| {
            // serde_json's text quotes the input ("invalid type: string \"…\""): its place and
            // category say enough, and nothing of the payload.
            let place = self.place();
            decode(format!(
                "the value{place} is not the JSON that was asked for ({:?} error at line {} column {})",
                e.classify(),
                e.line(),
                e.column()
            ))
        })
    }

    /// The bytes of key, value, id and encoded headers, as [`Record::len_bytes`] counts them: what
    /// buffers count.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        let len = |span: Span| (span.end - span.start) as usize;
        len(self.key) + len(self.value) + len(self.id) + len(self.headers)
    }

    /// The same record in a buffer of its own, so that keeping it keeps no neighbours alive.
    #[must_use]
    pub fn detach(&self) -> Self {
        let mut buffer = BytesMut::with_capacity(self.len_bytes());
        let mut put = |span: Span| {
            self.part(span).map(|bytes| {
                let start = buffer.len();
                buffer.extend_from_slice(bytes);
                start..buffer.len()
            })
        };
        let parts = Parts {
            key: put(self.key),
            value: put(self.value),
            id: put(self.id),
            headers: put(self.headers),
            timestamp: self.timestamp(),
            stored_at: self.stored_at(),
            position: self.position(),
        };
        // Only parts that overlap could outgrow the buffer that they came from; then share it.
        Self::within(buffer.freeze(), parts).unwrap_or_else(|_| self.clone())
    }

    /// As something to append again: key, value, id, headers and the writer's timestamp.
    pub fn into_record(self) -> Record {
        let mut headers = Headers::new();
        for (name, value) in self.headers() {
            headers.push(name, value);
        }
        let mut record = Record::new(Value::from(self.value_bytes())).headers(headers);
        if let Some(key) = self.key_bytes() {
            record = record.key(key);
        }
        if let Some(timestamp) = self.timestamp() {
            record = record.timestamp(timestamp);
        }
        record.maybe_id(self.id.range().map(|range| self.buffer.0.slice(range)))
    }
}

fn decode(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, Effect::None, Retry::Never, message)
}

#[cold]
fn outside() -> Error {
    decode("a part of the record lies outside its buffer, or the buffer is 4 GiB or more")
}

impl PartialEq for Recorded {
    /// Equal in every part and place, whatever buffer they lie in.
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
            && self.part(self.value) == other.part(other.value)
            && self.id() == other.id()
            && self.part(self.headers) == other.part(other.headers)
            && self.position() == other.position()
            && self.timestamp() == other.timestamp()
            && self.stored_at() == other.stored_at()
    }
}

impl Eq for Recorded {}

impl fmt::Debug for Recorded {
    /// Lengths only; no payload reaches a log through `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("position", &self.position())
            .field("key_len", &self.key().map(<[u8]>::len))
            .field("value_len", &self.part(self.value).map(<[u8]>::len))
            .field("stored_at", &self.stored_at())
            .finish_non_exhaustive()
    }
}

const _: () = assert!(size_of::<Recorded>() <= 104);

#[cfg(test)]
mod tests;
