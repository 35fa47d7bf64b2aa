//! What holds when nobody says otherwise, in one place.
//!
//! | constant | value | meaning |
//! | --- | --- | --- |
//! | [`READ_BUFFER`] | 4 MiB | what one replay may buffer ([`OpenReplay::buffer`](crate::OpenReplay::buffer)) |
//! | [`IN_FLIGHT_RECORDS`], [`IN_FLIGHT_BYTES`] | 1,000, 16 MiB | what a subscription may hand out unsettled |
//! | [`LEASE`] | 10 s | for how long a member that says nothing keeps what it holds |
//! | [`GRACE`] | 10 s | how long a revocation, a close or the end of `run` waits for what is in flight |
//! | [`COMMIT_INTERVAL`] | 1 s | how often settled progress is committed: what a crash repeats |
//! | [`REDELIVERY_DELAY`] | 1 s | how long a delivery that was dropped or retried without a delay waits |
//! | [`LINGER`] | 2 ms | how long an appender waits for company for a record |
//! | [`BATCH_RECORDS`], [`BATCH_BYTES`] | 1,000, 1 MiB | when an appender waits no longer |
//! | [`APPENDER_BYTES`] | 16 MiB | what an appender may hold unconfirmed |
//! | [`RETRY_FOR`] | 30 s | for how long a failing append is tried again |
//! | [`RETRY_FIRST`], [`RETRY_MOST`] | 50 ms, 5 s | the first pause between attempts, doubled up to the second, with jitter |
//! | [`CONCURRENCY`] | 1 | handlers of one `run` at a time |

use std::time::Duration;

/// What one replay may buffer, in bytes.
pub const READ_BUFFER: usize = 4 << 20;
/// Records that a subscription may hand out unsettled.
pub const IN_FLIGHT_RECORDS: usize = 1_000;
/// Bytes that a subscription may hand out unsettled.
pub const IN_FLIGHT_BYTES: usize = 16 << 20;
/// For how long a member that says nothing keeps what it holds.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a revocation, a close or the end of `run` waits for what is in flight.
pub const GRACE: Duration = Duration::from_secs(10);
/// How often settled progress is committed.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a delivery that was dropped, or retried without a delay, waits.
pub const REDELIVERY_DELAY: Duration = Duration::from_secs(1);
/// How long an appender waits for company for a record.
pub const LINGER: Duration = Duration::from_millis(2);
/// Records that an appender sends without waiting for more.
pub const BATCH_RECORDS: usize = 1_000;
/// Bytes that an appender sends without waiting for more.
pub const BATCH_BYTES: usize = 1 << 20;
/// Bytes that an appender may hold unconfirmed.
pub const APPENDER_BYTES: usize = 16 << 20;
/// For how long a failing append is tried again.
pub const RETRY_FOR: Duration = Duration::from_secs(30);
/// The first pause between attempts.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
pub const RETRY_MOST: Duration = Duration::from_secs(5);
/// Handlers of one `run` at a time.
pub const CONCURRENCY: usize = 1;
