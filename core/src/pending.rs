//! Builders that are futures: the options first, the work from the first poll on.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

/// A boxed future that can be sent to another task.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A builder until its first poll, the future it started from then on.
///
/// The running future sits in a mutex that is never contended (`&mut self` reaches past it), so
/// that the builder is `Sync` although the future need not be.
pub(crate) enum Pending<B, T> {
    Building(Option<B>),
    Running(Mutex<BoxFuture<T>>),
}

impl<B, T> Pending<B, T> {
    pub(crate) const fn new(builder: B) -> Self {
        Self::Building(Some(builder))
    }

    /// Changes the options; nothing after the first poll.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut B)) {
        if let Self::Building(Some(builder)) = self {
            change(builder);
        }
    }

    /// Starts the work at the first poll, goes on with it at later ones.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        start: impl FnOnce(B) -> BoxFuture<T>,
    ) -> Poll<T> {
        if let Self::Building(builder) = self
            && let Some(builder) = builder.take()
        {
            *self = Self::Running(Mutex::new(start(builder)));
        }
        match self {
            Self::Running(future) => future
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                .poll(cx),
            // Unreachable: `Building(None)` lasts only while `start` runs.
            Self::Building(_) => Poll::Pending,
        }
    }
}

impl<B: fmt::Debug, T> fmt::Debug for Pending<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Building(builder) => builder.fmt(f),
            Self::Running(_) => f.write_str("Running"),
        }
    }
}
