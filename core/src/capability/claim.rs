//! A promise, or that nobody can say.

use std::fmt;

use serde::Serialize;

/// A promise, or the admission that the service would not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Claim<T> {
    /// It is so.
    Is(T),
    /// The service does not say (RabbitMQ policies without its management API, say). A
    /// [`Need`](super::Need) for it fails.
    Unverified,
}

impl<T> Claim<T> {
    /// The promise, where there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unverified => None,
        }
    }
}

impl<T: PartialEq> Claim<T> {
    /// Whether exactly this is promised.
    pub fn is(&self, value: &T) -> bool {
        self.known() == Some(value)
    }
}

impl<T> From<T> for Claim<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

impl<T: fmt::Debug> fmt::Display for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => value.fmt(f),
            Self::Unverified => f.write_str("Unverified"),
        }
    }
}
