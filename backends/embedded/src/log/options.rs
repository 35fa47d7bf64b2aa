//! What a topic is configured to do, and what a caller may ask of an append.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// Which topic this is: 16 random bytes, drawn when it is created. Its text, 32 hex digits, is
/// the topic's incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// What every frame of the topic carries.
    pub(crate) fn tag(&self) -> u64 {
        super::frame::u64_at(&self.0, 0)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// For how long a record's id keeps a repeat out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dedupe {
    /// Ids travel, repeats are stored again.
    #[default]
    Off,
    /// As long as the first one's append time, in the log, is not older than this before the
    /// repeat's; whole milliseconds.
    Window(Duration),
    /// As long as the first one is kept.
    Forever,
}

/// What is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// Everything.
    #[default]
    Forever,
    /// What is younger than this; whole milliseconds.
    Age(Duration),
    /// About this many bytes.
    Bytes(u64),
}

/// What a topic was created with; every segment's header holds a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Repeats.
    pub dedupe: Dedupe,
    /// Retention.
    pub keep: Keep,
}

/// Sizes of files and steps, in bytes where nothing else is said. Tests make them tiny.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// A segment is sealed when the next group would make it longer than this; a group that is
    /// longer itself has a segment of its own. Default 64 MiB, at most 1 GiB.
    pub segment: u64,
    /// A segment with so many records takes no more of them, unless one batch is longer: it bounds
    /// the memory that asking for its keys takes. Default 1,048,576.
    pub records: u64,
    /// The first reservation of room in a segment; it doubles. Default 64 KiB.
    pub reserve_first: u64,
    /// The largest reservation. Default 16 MiB.
    pub reserve_most: u64,
    /// The most bytes that become durable with one sync, unless one batch is longer. Default
    /// 8 MiB.
    pub group: u64,
    /// What a reader takes from the disk at once; more only for a longer record. Default 512 KiB.
    pub page: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment: 64 << 20,
            records: 1 << 20,
            reserve_first: 64 << 10,
            reserve_most: 16 << 20,
            group: 8 << 20,
            page: 512 << 10,
        }
    }
}

/// What must hold for an append to be stored.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The next position is this one.
    End(u64),
    /// The newest record of `key` has position `last`; `None`: the key has no record.
    KeyAt {
        /// The key.
        key: Bytes,
        /// Its newest record.
        last: Option<u64>,
    },
}

impl fmt::Debug for Condition {
    /// No key: keys may name people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::End(at) => write!(f, "End({at})"),
            Self::KeyAt { last, .. } => write!(f, "KeyAt({last:?})"),
        }
    }
}
