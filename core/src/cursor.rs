//! A place in a whole topic.

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::name::TopicName;
use crate::position::{PartitionId, Position};
use crate::time::Timestamp;

/// How far one partition has been read.
///
/// [`Start`](Self::Start) and [`EARLIEST`](Self::EARLIEST) differ where records are gone: reading
/// on from the first tells the [`Gap`](crate::Gap), the second accepts it knowingly.
///
/// Alone it has no text of its own: keep it as a [`Cursor`] with this one place.
///
/// Three of them carry `clear`: everything stored before this moment of the log's clock has been
/// read, although no record says so. It is evidence against a false gap, never a place to read
/// from: it moves an idle partition's cursor, so that it does not age out, and it comes down from
/// a partition that has ended to those that continue it, which hold nothing older.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Frontier {
    /// Not at all.
    Start {
        /// Nothing was stored here before this moment: it is read up to it.
        clear: Option<Timestamp>,
    },
    /// From the first record whose log time is at or after this moment.
    Since(Timestamp),
    /// Up to and including the record at `position`.
    After {
        /// The last record read.
        position: Position,
        /// Everything stored before this moment has been read.
        clear: Option<Timestamp>,
    },
    /// To its end: the partition takes no more records.
    Ended {
        /// Nothing that continues it was stored before this moment.
        clear: Option<Timestamp>,
    },
}

impl Frontier {
    /// Not at all, with no evidence of when the first record was stored.
    pub const START: Self = Self::Start { clear: None };

    /// To its end, with no evidence of when what continues it began.
    pub const ENDED: Self = Self::Ended { clear: None };

    /// Before the oldest record that is kept when the reading opens; what was gone by then is no
    /// [`Gap`](crate::Gap). A group that starts here opens here again until its first commit. It is
    /// the least moment there is, and stands in a cursor's text as such.
    pub const EARLIEST: Self = Self::Since(Timestamp::MIN);

    /// After the record at `position`.
    pub const fn after(position: Position) -> Self {
        Self::After {
            position,
            clear: None,
        }
    }

    /// Whether the partition has been read to its end.
    pub const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }

    /// The same place of a partition that holds nothing stored before `clear`. `EARLIEST` stays:
    /// what it misses is accepted.
    pub(crate) fn begun(self, begun: Option<Timestamp>) -> Self {
        match (self, begun) {
            (Self::Start { clear }, begun) => Self::Start {
                clear: clear.max(begun),
            },
            // All of it is asked for: not a moment, by which a record with a wrong one is missed.
            (Self::Since(time), Some(clear)) if self != Self::EARLIEST && time <= clear => {
                Self::Start { clear: begun }
            }
            (at, _) => at,
        }
    }

    /// The last record read, where one is named.
    pub const fn position(&self) -> Option<&Position> {
        match self {
            Self::After { position, .. } => Some(position),
            _ => None,
        }
    }

    /// Whether the record at `position` of this partition has been read; `None` where a moment
    /// cannot tell.
    pub fn covers(&self, position: &Position) -> Option<bool> {
        match self {
            Self::Start { .. } => Some(false),
            Self::Since(_) => None,
            Self::After { position: at, .. } => {
                position.partial_cmp(at).map(std::cmp::Ordering::is_le)
            }
            Self::Ended { .. } => Some(true),
        }
    }
}

/// What holds for the partitions that a [`Cursor`] does not name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rest {
    /// They are read from their start, unless they are ancestors of a named one: those are
    /// finished.
    FromStart,
    /// They are not read.
    Outside,
}

/// Which topic a [`Cursor`] belongs to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The backend, not the URL scheme (`amqps:` and `amqp:` are one).
    pub scheme: Arc<str>,
    /// The topic.
    pub topic: TopicName,
    /// Which topic of that name: a recreated one is another. Empty where the service does not
    /// show it (capability `incarnation: Absent`).
    pub incarnation: Arc<str>,
}

/// A place in a whole topic: a [`Frontier`] per partition, and which topic it belongs to.
///
/// Readers give cursors, appends do not. Store one beside what was made of the records before it,
/// in the same transaction, and go on from it with [`Start::After`](crate::Start::After). It
/// prints, parses and serialises as one line of text; a cursor of another topic, another backend
/// or a recreated topic is refused with `Config`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    origin: Arc<Origin>,
    places: BTreeMap<PartitionId, Frontier>,
    rest: Rest,
}

impl Cursor {
    /// The place before everything: no partition named, all read from their start.
    pub fn start(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            places: BTreeMap::new(),
            rest: Rest::FromStart,
        }
    }

    /// A place with these frontiers.
    pub fn new(
        origin: Arc<Origin>,
        places: impl IntoIterator<Item = (PartitionId, Frontier)>,
        rest: Rest,
    ) -> Self {
        Self {
            origin,
            places: places.into_iter().collect(),
            rest,
        }
    }

    /// Which topic it belongs to.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The named partitions and how far each has been read, by partition.
    pub fn places(&self) -> impl ExactSizeIterator<Item = (PartitionId, &Frontier)> {
        self.places.iter().map(|(id, frontier)| (*id, frontier))
    }

    /// How far a partition has been read, if the cursor names it.
    pub fn frontier(&self, partition: PartitionId) -> Option<&Frontier> {
        self.places.get(&partition)
    }

    /// What holds for the partitions it does not name.
    pub fn rest(&self) -> Rest {
        self.rest
    }

    /// Whether the record at `position` lies before this place: read-your-writes. `None` where it
    /// cannot be told (a frontier that is a moment; a partition that is not named and may be a
    /// finished ancestor).
    ///
    /// ```
    /// # use annals_core::{Cursor, Frontier, Origin, PartitionId, Position, Rest, TopicName};
    /// # use std::sync::Arc;
    /// # let origin = Arc::new(Origin { scheme: "file".into(), topic: TopicName::new("t")?, incarnation: "1".into() });
    /// let at = |n| Position::new(PartitionId::ONLY, n);
    /// let cursor = Cursor::new(origin, [(PartitionId::ONLY, Frontier::after(at(7)))], Rest::FromStart);
    /// assert_eq!(cursor.covers(&at(7)), Some(true));
    /// assert_eq!(cursor.covers(&at(8)), Some(false));
    /// # Ok::<(), annals_core::Error>(())
    /// ```
    pub fn covers(&self, position: &Position) -> Option<bool> {
        match self.places.get(&position.partition()) {
            Some(frontier) => frontier.covers(position),
            None if self.places.is_empty() && self.rest == Rest::FromStart => Some(false),
            None => None,
        }
    }

    /// Moves one partition's frontier.
    pub fn set(&mut self, partition: PartitionId, frontier: Frontier) {
        self.places.insert(partition, frontier);
    }

    /// Forgets a partition, which then falls under [`rest`](Self::rest).
    pub fn remove(&mut self, partition: PartitionId) -> Option<Frontier> {
        self.places.remove(&partition)
    }

    /// The same place, with another rule for unnamed partitions.
    #[must_use]
    pub fn with_rest(mut self, rest: Rest) -> Self {
        self.rest = rest;
        self
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}
