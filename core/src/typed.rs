//! Events instead of bytes: what an application says happened, as a type of its own.

mod replay;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::append::Append;
use crate::batch::Batch;
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::record::{Key, Record};
use crate::recorded::Recorded;
use crate::start::Start;
use crate::topic::Topic;

pub use replay::{OpenTypedReplay, Typed, TypedRecords, TypedReplay};

/// The header in which an event's type travels, as UTF-8 text; of several the first counts. The
/// value beside it is the event as JSON.
pub const EVENT_TYPE: &str = "event-type";

/// What happened, as a type of the application: usually an enum with a case per event.
///
/// An event is stored as its JSON, under its key, with its type in the header [`EVENT_TYPE`]; so
/// a reader can tell from the header alone whether an event concerns it.
///
/// **Old readers and new events.** A record whose type the reader does not
/// [know](Self::knows), and one without a type, is no event to it: [`Recorded::event`] gives
/// `None`, and a [`TypedReplay`] passes over it, moves its cursor, and counts it. A type that the
/// reader knows and whose value is not such an event is an error of kind `Decode`: nothing that
/// concerns a reader is ever left out in silence.
///
/// # Examples
/// ```
/// use annals_core::{Event, Key, Record, Recorded};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// enum Order {
///     Placed { order: u32, total: u64 },
///     Shipped { order: u32 },
/// }
///
/// impl Event for Order {
///     fn event_type(&self) -> &str {
///         match self {
///             Self::Placed { .. } => "order-placed",
///             Self::Shipped { .. } => "order-shipped",
///         }
///     }
///     fn key(&self) -> Option<Key> {
///         let (Self::Placed { order, .. } | Self::Shipped { order }) = self;
///         Some(format!("order-{order}").into())
///     }
///     fn knows(event_type: &str) -> bool {
///         matches!(event_type, "order-placed" | "order-shipped")
///     }
/// }
///
/// # fn main() -> annals_core::Result<()> {
/// let placed = Order::Placed { order: 17, total: 250 };
/// let stored = Recorded::of(&Record::event(&placed)?, None, None)?;
/// assert_eq!(stored.event_type(), Some("order-placed"));
/// assert_eq!(stored.event::<Order>()?, Some(placed));
///
/// // Written by a newer service: not for this reader, and no reason to stop.
/// let newer = Record::new(r#"{"Returned":{"order":17}}"#).header("event-type", "order-returned");
/// assert_eq!(Recorded::of(&newer, None, None)?.event::<Order>()?, None);
/// # Ok(()) }
/// ```
pub trait Event: Serialize + DeserializeOwned {
    /// Its type, as it stands in the log for ever: a name that is given once, not the name of a
    /// Rust type that may change.
    fn event_type(&self) -> &str;

    /// What it is about: events of one key keep their order. `None`: it has no order to keep.
    fn key(&self) -> Option<Key>;

    /// Whether an event of this type can be read as this Rust type. Every type that
    /// [`event_type`](Self::event_type) gives is known.
    fn knows(event_type: &str) -> bool;
}

impl Record {
    /// A record of an event: its JSON, its key, its type in the header [`EVENT_TYPE`]. Add an id,
    /// headers or a timestamp, and append it as any other.
    ///
    /// # Errors
    /// `Config` when it cannot be written as JSON (a map whose keys are no text, say), or gives a
    /// type that it does not know: such an event could never be read.
    pub fn event<E: Event>(event: &E) -> Result<Self> {
        let event_type = event.event_type();
        if !E::knows(event_type) {
            return Err(Error::config(format!(
                "the event's type {event_type:?} is one that its Event::knows denies, so it could never be read; make them agree"
            )));
        }
        let mut record = Self::json(event)?.header(EVENT_TYPE, event_type);
        if let Some(key) = event.key() {
            record = record.key(key);
        }
        Ok(record)
    }
}

impl Recorded {
    /// The event type in the header [`EVENT_TYPE`]; `None` where there is none, or one without
    /// a value, and where it is no UTF-8 text, which [`event`](Self::event) tells from none.
    pub fn event_type(&self) -> Option<&str> {
        std::str::from_utf8(self.header(EVENT_TYPE)??).ok()
    }

    /// The event that it is; `None` when it has no event type, or one that `E` does not
    /// [know](Event::knows).
    ///
    /// # Errors
    /// `Decode` when `E` knows the type and the value is no such event; it names the type and the
    /// position, never the payload. `Decode` too when the header is there and is no UTF-8 text: it
    /// is not known of what type the record is.
    pub fn event<E: Event>(&self) -> Result<Option<E>> {
        if let Some(Some(bytes)) = self.header(EVENT_TYPE)
            && std::str::from_utf8(bytes).is_err()
        {
            return Err(self.placed(broken(format!(
                "the event type in the header {EVENT_TYPE:?} is no UTF-8 text; read the record as it is, and have its writer mended"
            ))));
        }
        let Some(event_type) = self.event_type().filter(|event_type| E::knows(event_type)) else {
            return Ok(None);
        };
        self.json().map(Some).map_err(|cause| {
            self.placed(broken(format!(
                "an event of type {event_type:?} cannot be read: {}",
                cause.message()
            )))
        })
    }

    fn placed(&self, error: Error) -> Error {
        match self.position() {
            Some(position) => error.in_partition(position.partition()),
            None => error,
        }
    }
}

fn broken(message: String) -> Error {
    Error::new(ErrorKind::Decode, Effect::None, Retry::Never, message)
}

/// A [`Topic`] whose records are events of one type. Cheap to clone.
///
/// There is no typed subscription: a delivery is a [`Recorded`], so `delivery.event::<E>()` reads
/// it.
///
/// # Examples
/// ```no_run
/// # use annals_core::{Event, Start, Topic};
/// # async fn tell<E: Event>(topic: Topic, placed: E, paid: E) -> annals_core::Result<()> {
/// let orders = topic.typed::<E>();
/// orders.append([placed, paid]).await?;
/// let mut replay = orders.replay(Start::Beginning).await?;
/// while let Some(event) = replay.next().await? {
///     println!("{} at {:?}", event.event_type(), event.record().position());
/// }
/// # Ok(()) }
/// ```
pub struct TypedTopic<E> {
    topic: Topic,
    /// It gives and takes events and holds none.
    event: PhantomData<fn(E) -> E>,
}

impl Topic {
    /// The same topic, written and read as events.
    pub fn typed<E: Event>(&self) -> TypedTopic<E> {
        TypedTopic {
            topic: self.clone(),
            event: PhantomData,
        }
    }
}

impl<E: Event> TypedTopic<E> {
    /// The topic below it.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Stores events durably, in order, each as [`Record::event`] makes it; all that
    /// [`Append`] says holds, its conditions and options too. Events are borrowed where that is
    /// enough (`append(&events)`).
    ///
    /// # Errors
    /// `Config`, before anything is sent, when an event cannot be written as JSON; the text says
    /// the how-manieth, counted from 0. [`outcomes`](crate::AppendError::outcomes) and
    /// [`unconfirmed`](crate::AppendError::unconfirmed) are empty then: nothing was stored. Else
    /// as [`Append`].
    pub fn append<I>(&self, events: I) -> Append
    where
        I: IntoIterator,
        I::Item: Borrow<E>,
    {
        let records: Result<Vec<Record>> = events
            .into_iter()
            .enumerate()
            .map(|(index, event)| {
                Record::event(event.borrow()).map_err(|cause| {
                    Error::config(format!(
                        "event {index} of the append cannot be written: {}",
                        cause.message()
                    ))
                    .with_source(cause)
                })
            })
            .collect();
        match records {
            Ok(records) => self.topic.append(records),
            Err(error) => self.topic.append(Batch::new(Vec::new())).refused(error),
        }
    }

    /// Reads the events of a range in order, up to the end as it is at the open unless
    /// [`until`](OpenTypedReplay::until) says otherwise; as [`Topic::replay`].
    pub fn replay(&self, start: impl Into<Start>) -> OpenTypedReplay<E> {
        OpenTypedReplay::new(self.topic.clone(), self.topic.replay(start))
    }

    /// Reads events in order, for ever; as [`Topic::follow`].
    pub fn follow(&self, start: impl Into<Start>) -> OpenTypedReplay<E> {
        OpenTypedReplay::new(self.topic.clone(), self.topic.follow(start))
    }
}

impl<E> Clone for TypedTopic<E> {
    fn clone(&self) -> Self {
        Self {
            topic: self.topic.clone(),
            event: PhantomData,
        }
    }
}

impl<E> fmt::Debug for TypedTopic<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedTopic")
            .field(self.topic.name())
            .finish()
    }
}
