//! The words, the contract and the users' handles of annals, one event log for Rust services.
//!
//! Applications depend on the crate `annals`, which re-exports all of this and knows the backends.
//!
//! | to | start at |
//! | --- | --- |
//! | open a topic | [`Bus::topic`], [`OpenTopic`] |
//! | store records durably | [`Topic::append`]; one by one from many tasks: [`Topic::appender`] |
//! | read a range in order, or for ever | [`Topic::replay`], [`Topic::follow`]; where: [`Start`], [`Until`], [`Cursor`] |
//! | share work in a group | [`Topic::subscribe`], [`Subscription::run`]; what failed too often: [`letters`] |
//! | write and read events of a type of one's own | [`Topic::typed`], [`Event`] |
//! | know what a topic promises, or insist on it | [`Topic::capabilities`], [`capability`], [`Need`] |
//! | know what went wrong, and what it left behind | [`Error`], [`AppendError`], [`Outcome`] |
//! | know what holds when nobody says otherwise | [`defaults`]: one table |
//! | limit or trace every attempt | [`layer`] |
//! | test code that uses annals | `mock` (feature `mock`), [`Clock`]; the embedded log's `Memory` |
//! | write a backend | [`driver`], which begins with the rules |
//!
//! Builders are futures: set options, then await; nothing happens before the first poll. Handles
//! are `Send` and `Sync`; [`Bus`], [`Topic`], [`Appender`] and [`Clock`] are cheap to clone. Bytes are counted in bytes, time in
//! [`Duration`](std::time::Duration)s and in [`Timestamp`]s of whole milliseconds, UTC.

pub mod address;
mod admin;
mod append;
mod appender;
mod batch;
mod bus;
pub mod capability;
mod clock;
mod cursor;
pub mod defaults;
mod delivery;
pub mod driver;
mod error;
mod group;
pub mod headers;
pub mod layer;
#[cfg(feature = "mock")]
pub mod mock;
mod name;
mod outcome;
mod pending;
mod position;
mod record;
mod recorded;
mod replay;
mod run;
mod signal;
mod start;
mod subscription;
mod time;
mod topic;
mod typed;

pub use address::Address;
pub use append::Append;
pub use appender::{Appender, Full, OpenAppender, Permit, Ticket};
pub use batch::{Batch, Submission};
pub use bus::Bus;
pub use capability::{Capabilities, Need};
pub use clock::Clock;
pub use cursor::{Cursor, Frontier, Origin, Rest};
pub use delivery::Delivery;
pub use driver::{Closed, Lag, TopicSpec};
pub use error::{Effect, Error, ErrorKind, Operation, Result, Retry};
pub use layer::Layer;
pub use name::{Group, MAX_NAME, TopicName};
pub use outcome::{AppendError, AppendReport, Appended, Outcome, Stored};
pub use position::{PartitionId, Position};
pub use record::{Key, Record, Value};
pub use recorded::{Buffer, Parts, Recorded};
pub use replay::{OpenReplay, RecordStream, Records, Replay};
pub use run::Run;
pub use signal::{Gap, Signal};
pub use start::{Start, Until};
pub use subscription::{OpenSubscription, Subscription, Verdict, letters};
pub use time::Timestamp;
pub use topic::{OpenTopic, Topic};
pub use typed::{EVENT_TYPE, Event, OpenTypedReplay, Typed, TypedRecords, TypedReplay, TypedTopic};
