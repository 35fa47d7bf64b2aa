//! Something that fails again and again: how long to wait, and when to say so.

use std::time::Duration;

use super::pause::Pause;
use crate::defaults::RETRY_FOR;
use crate::error::{Error, ErrorKind};

/// What goes wrong lately in one place, so that it is told once and not with every attempt.
#[derive(Debug)]
pub(crate) struct Trouble {
    pause: Pause,
    since: Option<Duration>,
    told: Option<ErrorKind>,
}

impl Trouble {
    pub(crate) const fn new() -> Self {
        Self {
            pause: Pause::new(),
            since: None,
            told: None,
        }
    }

    /// It worked.
    pub(crate) fn heals(&mut self) {
        *self = Self::new();
    }

    /// What fails next has begun by then.
    pub(crate) fn begins(&mut self, at: Duration) {
        self.since.get_or_insert(at);
    }

    /// It failed at `now`: how long to wait before the next attempt, and whether to tell. What
    /// heals within [`RETRY_FOR`] is not told.
    pub(crate) fn fails(&mut self, error: &Error, now: Duration) -> (Duration, bool) {
        let since = *self.since.get_or_insert(now);
        let lasts = now.saturating_sub(since) >= RETRY_FOR || !error.is_retryable();
        let tell = lasts && self.told != Some(error.kind());
        if tell {
            self.told = Some(error.kind());
        }
        (self.pause.after(error), tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Effect, Retry};

    fn error(kind: ErrorKind, retry: Retry) -> Error {
        Error::new(kind, Effect::None, retry, "it failed")
    }

    #[test]
    fn what_heals_soon_is_not_told_and_what_lasts_once() {
        let mut trouble = Trouble::new();
        let lost = error(ErrorKind::Disconnected, Retry::Backoff);
        let (first, tell) = trouble.fails(&lost, Duration::ZERO);
        assert!(!tell);
        let (second, tell) = trouble.fails(&lost, RETRY_FOR / 2);
        assert!(!tell && second > first, "pauses grow");
        assert!(trouble.fails(&lost, RETRY_FOR).1, "it lasts");
        assert!(!trouble.fails(&lost, RETRY_FOR * 2).1, "it was told");
        trouble.heals();
        assert!(!trouble.fails(&lost, RETRY_FOR * 3).1, "a new one");
    }

    #[test]
    fn what_cannot_heal_by_itself_is_told_at_once() {
        let mut trouble = Trouble::new();
        let denied = error(ErrorKind::Denied, Retry::Never);
        assert!(trouble.fails(&denied, Duration::ZERO).1);
        assert!(!trouble.fails(&denied, Duration::ZERO).1);
    }
}
