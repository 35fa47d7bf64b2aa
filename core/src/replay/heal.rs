//! How long to wait before a failed call is made again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::clock::Clock;
use crate::defaults::{RETRY_FIRST, RETRY_FOR, RETRY_MOST};
use crate::error::{Error, Result, Retry};

/// After so many failures in a row a reader is opened anew.
pub(super) const REOPEN_AFTER: u32 = 3;

/// The pause before try number `failures` (from one on), which the error may ask to be longer.
pub(super) fn pause(clock: &Clock, error: &Error, failures: u32) -> Duration {
    // Seeded by the clock: a test that stops time sees the same pauses each time.
    let seed = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut steps = ExponentialBuilder::new()
        .with_min_delay(RETRY_FIRST)
        .with_max_delay(RETRY_MOST)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(seed)
        .build();
    // Past sixteen doublings it is the longest pause in any case.
    let step = failures.saturating_sub(1).min(16) as usize;
    let own = steps.nth(step).unwrap_or(RETRY_MOST);
    match error.retry() {
        Retry::After(least) => own.max(least),
        Retry::Backoff | Retry::Never => own,
    }
}

/// Makes a call that only opens or asks again while it fails retryably, for [`RETRY_FOR`].
pub(crate) async fn retry<T, F>(clock: &Clock, mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let started = clock.elapsed();
    let mut failures = 0;
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => error,
        };
        failures += 1;
        let wait = pause(clock, &error, failures);
        if clock.elapsed().saturating_sub(started) + wait > RETRY_FOR {
            return Err(error);
        }
        tracing::debug!(%error, ?wait, "opening failed; trying again");
        clock.sleep(wait).await;
    }
}
