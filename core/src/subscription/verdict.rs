//! What a handler says of a record.

use std::fmt;
use std::time::Duration;

/// What a handler says of a record it was given. (What a service is told of a delivery is
/// [`driver::Verdict`](crate::driver::Verdict).)
///
/// `()` is [`Done`](Verdict::Done); an `Err` is a retry with its text as the reason, and `Ok`
/// holds another verdict, so a handler may return `()`, `Result<(), E>`, `Verdict` or
/// `Result<Verdict, E>`.
///
/// ```
/// use annals_core::Verdict;
/// assert_eq!(Verdict::from(Ok::<(), String>(())), Verdict::Done);
/// assert_eq!(Verdict::from(Err::<(), _>("no route")), Verdict::Retry { after: None, reason: Some("no route".into()) });
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is handled.
    Done,
    /// It is to be handed out again; at the limit of attempts it becomes a dead letter instead.
    Retry {
        /// Not before this long, or the longest that the service can hold it (capability
        /// `hold.most`); `None`: [`REDELIVERY_DELAY`](crate::defaults::REDELIVERY_DELAY).
        after: Option<Duration>,
        /// Why, for the dead letter.
        reason: Option<String>,
    },
    /// It can never be handled: it becomes a dead letter now.
    Reject {
        /// Why, for the dead letter.
        reason: String,
    },
}

impl Verdict {
    /// Again, after the default delay.
    pub const fn retry() -> Self {
        Self::Retry {
            after: None,
            reason: None,
        }
    }

    /// Again, not before `delay`.
    pub const fn retry_after(delay: Duration) -> Self {
        Self::Retry {
            after: Some(delay),
            reason: None,
        }
    }

    /// The same with this reason, for the dead letter: of a retry or a rejection, whose own it
    /// replaces. [`Done`](Self::Done) needs none and stays as it is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals_core::Verdict;
    /// let delay = Duration::from_secs(5);
    /// let verdict = Verdict::retry_after(delay).because("the bank is closed");
    /// assert_eq!(
    ///     verdict,
    ///     Verdict::Retry { after: Some(delay), reason: Some("the bank is closed".into()) }
    /// );
    /// assert_eq!(Verdict::reject("odd").because("no payment"), Verdict::reject("no payment"));
    /// assert_eq!(Verdict::Done.because("well"), Verdict::Done);
    /// ```
    #[must_use]
    pub fn because(self, reason: impl fmt::Display) -> Self {
        match self {
            Self::Done => Self::Done,
            Self::Retry { after, .. } => Self::Retry {
                after,
                reason: Some(reason.to_string()),
            },
            Self::Reject { .. } => Self::reject(reason),
        }
    }

    /// Never again: a dead letter.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject {
            reason: reason.to_string(),
        }
    }
}

impl fmt::Debug for Verdict {
    /// Without reasons: an application's texts may quote payloads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Retry { after, .. } => write!(f, "Retry({after:?})"),
            Self::Reject { .. } => f.write_str("Reject"),
        }
    }
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Done
    }
}

impl<T: Into<Self>, E: fmt::Display> From<Result<T, E>> for Verdict {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(verdict) => verdict.into(),
            Err(error) => Self::Retry {
                after: None,
                reason: Some(error.to_string()),
            },
        }
    }
}
