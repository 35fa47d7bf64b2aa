//! What holds when nobody says otherwise, in one place.
//!
//! | constant | value | meaning |
//! | --- | --- | --- |
//! | [`READ_BUFFER`] | 4 MiB | what one replay may buffer ([`OpenReplay::buffer`](crate::OpenReplay::buffer)) |
//! | [`LISTING_INTERVAL`] | 30 s | how often a follow looks for partitions that no ended one told of, where they split and merge |
//! | [`IN_FLIGHT_RECORDS`], [`IN_FLIGHT_BYTES`] | 1,000, 16 MiB | what a subscription may hand out unsettled |
//! | [`LEASE`] | 10 s | for how long a member that says nothing keeps what it holds |
//! | [`GRACE`] | 10 s | how long a revocation, a close or the end of `run` waits for what is in flight |
//! | [`COMMIT_INTERVAL`] | 1 s | how often settled progress is committed: what a crash repeats |
//! | [`REDELIVERY_DELAY`] | 1 s | how long a delivery that was dropped or retried without a delay waits |
//! | [`LINGER`] | 2 ms | how long an appender waits for company for a record |
//! | [`BATCH_RECORDS`], [`BATCH_BYTES`] | 1,000, 1 MiB | when an appender waits no longer |
//! | [`APPENDER_BYTES`] | 16 MiB | what an appender may hold unconfirmed |
//! | [`RETRY_FOR`] | 30 s | for how long a failing append, or the opening of a replay, is tried again, and what is waited for one answer to a commit |
//! | [`RETRY_FIRST`], [`RETRY_MOST`] | 50 ms, 5 s | the first pause between attempts, doubled up to the second, with jitter |
//! | [`CONCURRENCY`] | 1 | handlers of one `run` at a time |
//!
//! What has no number:
//!
//! | option | unset means |
//! | --- | --- |
//! | [`OpenReplay::until`](crate::OpenReplay::until) | a replay ends at the end as it was at the open; a follow never ends |
//! | [`OpenSubscription::start`](crate::OpenSubscription::start) | a new group starts at the beginning of a log, and at what a queue holds |
//! | [`OpenSubscription::max_attempts`](crate::OpenSubscription::max_attempts) | no limit |
//! | [`Append::deadline`](crate::Append::deadline) | none but the backend's own, and the retry budget |
//! | a [`TopicSpec`](crate::TopicSpec)'s fields | the backend's defaults |

use std::time::Duration;

/// What one replay may buffer, in bytes.
pub const READ_BUFFER: usize = 4 << 20;
/// How often a follow lists partitions that split and merge.
pub const LISTING_INTERVAL: Duration = Duration::from_secs(30);
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
/// For how long a failing append, or a call that only opens, is tried again, and for how long one
/// answer to a commit is waited for.
pub const RETRY_FOR: Duration = Duration::from_secs(30);
/// The first pause between attempts.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
pub const RETRY_MOST: Duration = Duration::from_secs(5);
/// Handlers of one `run` at a time.
pub const CONCURRENCY: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: usize) -> String {
        match (bytes >> 20, bytes % (1 << 20)) {
            (mib, 0) if mib > 0 => format!("{mib} MiB"),
            _ => format!("{bytes} B"),
        }
    }

    fn count(count: usize) -> String {
        match count {
            0..1_000 => count.to_string(),
            _ => format!("{},{:03}", count / 1_000, count % 1_000),
        }
    }

    fn time(time: Duration) -> String {
        match time.as_millis() {
            millis if millis % 1_000 == 0 => format!("{} s", millis / 1_000),
            millis => format!("{millis} ms"),
        }
    }

    #[test]
    fn the_table_says_what_the_constants_are() {
        let constants = [
            ("READ_BUFFER", bytes(READ_BUFFER)),
            ("LISTING_INTERVAL", time(LISTING_INTERVAL)),
            ("IN_FLIGHT_RECORDS", count(IN_FLIGHT_RECORDS)),
            ("IN_FLIGHT_BYTES", bytes(IN_FLIGHT_BYTES)),
            ("LEASE", time(LEASE)),
            ("GRACE", time(GRACE)),
            ("COMMIT_INTERVAL", time(COMMIT_INTERVAL)),
            ("REDELIVERY_DELAY", time(REDELIVERY_DELAY)),
            ("LINGER", time(LINGER)),
            ("BATCH_RECORDS", count(BATCH_RECORDS)),
            ("BATCH_BYTES", bytes(BATCH_BYTES)),
            ("APPENDER_BYTES", bytes(APPENDER_BYTES)),
            ("RETRY_FOR", time(RETRY_FOR)),
            ("RETRY_FIRST", time(RETRY_FIRST)),
            ("RETRY_MOST", time(RETRY_MOST)),
            ("CONCURRENCY", count(CONCURRENCY)),
        ];
        let source = include_str!("defaults.rs");
        let declared = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub const "));
        let declared: Vec<&str> = declared.filter_map(|line| line.split(':').next()).collect();
        assert_eq!(declared, constants.each_ref().map(|(name, _)| *name));
        // A row may have several constants, their values in the same order.
        let rows = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | [`"));
        let mut told = Vec::new();
        for row in rows {
            let mut cells = row.split(" | ");
            let (names, values) = (cells.next().unwrap(), cells.next().unwrap());
            let names: Vec<&str> = names
                .split(", [`")
                .map(|n| n.trim_end_matches("`]"))
                .collect();
            let expected: Vec<&str> = names
                .iter()
                .filter_map(|name| constants.iter().find(|(n, _)| n == name))
                .map(|(_, value)| value.as_str())
                .collect();
            if expected.is_empty() {
                continue;
            }
            assert_eq!(values, expected.join(", "), "{names:?}");
            told.extend(names);
        }
        assert_eq!(told, declared, "each constant has its place in the table");
    }
}
