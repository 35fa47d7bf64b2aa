//! The log engine: synchronous code over a [`Disk`](crate::disk::Disk), and a small asynchronous
//! door in [`queue`]. The bytes are described in `FORMAT.md`.

pub mod commit;
pub mod encode;
pub mod frame;
mod keys;
pub mod options;
mod presence;
pub mod queue;
pub mod read;
mod recover;
mod segment;
mod stamps;
pub mod tail;
mod topic;
pub mod verify;
mod walk;

pub use commit::{Answer, Answers, Request, Writer};
pub use encode::Encoded;
pub use options::{Condition, Dedupe, Settings, Sizes, TopicId};
pub use queue::TopicLog;
pub use read::{Fetch, Scan, StopAt};
pub use tail::End;
pub(crate) use topic::holds_topic;
pub use topic::{Place, Topic, create, exists};

#[cfg(test)]
mod tests;
