//! The words, the contract and the users' handles of annals.

mod batch;
mod clock;
mod cursor;
mod error;
pub mod headers;
mod name;
mod outcome;
mod position;
mod record;
mod recorded;
mod signal;
mod start;
mod time;

pub use batch::{Batch, Submission};
pub use clock::Clock;
pub use cursor::{Cursor, Frontier, Origin, Rest};
pub use error::{Effect, Error, ErrorKind, Operation, Result, Retry};
pub use name::{Group, MAX_NAME, TopicName};
pub use outcome::{AppendError, AppendReport, Appended, Outcome, Stored};
pub use position::{PartitionId, Position};
pub use record::{Key, Record, Value};
pub use recorded::{Parts, Recorded};
pub use signal::{Gap, Signal};
pub use start::{Start, Until};
pub use time::Timestamp;
