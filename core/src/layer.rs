//! Wrappers round a backend: what every call shall do besides.

use std::fmt;
use std::sync::Arc;

use crate::driver::Backend;

/// A wrapper round a backend, given to [`Bus::layer`](crate::Bus::layer).
///
/// A layer sees single attempts: core's splitting and retrying lie above it. It may not await
/// before the inner append's first poll, because order is fixed there.
pub trait Layer: fmt::Debug {
    /// Wraps `inner`.
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend>;
}
