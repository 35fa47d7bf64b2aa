//! Backends in memory, as small and plain as they can be: what an adapter's author reads
//! first, what core is driven over in tests, and what is broken on purpose to try the laws.
//!
//! | model | stands for | shape |
//! | --- | --- | --- |
//! | [`log`] | the embedded log | one partition, conditional append, local groups |
//! | [`sharded`] | Kinesis | shards that split and merge, partial batches, leased groups |
//! | [`queue`] | SQS FIFO behind SNS, quorum queues | no replay, deliveries lent and settled each |
//!
//! Each has a `State`, which is the service: it outlives its clients. `State::connect` gives a
//! client, which is the backend; dropping it, or [`Connection::kill`], is what a crash is. A
//! `State` takes a [`Clock`](annals_core::Clock) and a script of [`Faults`].

mod connection;
mod faults;
mod leases;
pub mod log;
pub mod queue;
mod requests;
mod service;
pub mod sharded;
#[cfg(test)]
mod testing;

pub use connection::Connection;
pub use faults::{Call, Fault, Faults};
pub(crate) use faults::{disconnected, no_answer, refused, throttled};
