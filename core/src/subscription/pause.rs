//! Pauses between attempts.

use std::time::Duration;

use crate::defaults::{RETRY_FIRST, RETRY_MOST};
use crate::error::{Error, Retry};

/// Pauses that double from [`RETRY_FIRST`] to [`RETRY_MOST`].
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) const fn new() -> Self {
        Self(RETRY_FIRST)
    }

    /// How long to wait after this error: at least as long as it says.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        let pause = self.0;
        self.0 = pause.saturating_mul(2).min(RETRY_MOST);
        match error.retry() {
            Retry::After(least) => pause.max(least),
            Retry::Never | Retry::Backoff => pause,
        }
    }
}
