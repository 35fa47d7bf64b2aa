//! Wrappers round a backend: what every call shall do besides.
//!
//! A [`Layer`] sees *single attempts*: core's splitting, retries and merging lie above it, so a
//! batch that is tried three times passes it three times.
//!
//! | layer | does |
//! | --- | --- |
//! | [`Timeout`] | ends an attempt that takes too long |
//! | [`Trace`] | makes each attempt a [`tracing`] span with OpenTelemetry's names |
//!
//! ```no_run
//! # fn layered(bus: annals_core::Bus) -> annals_core::Bus {
//! use std::time::Duration;
//! use annals_core::layer::{Timeout, Trace};
//! // The last one is the outermost: here a span ends when its attempt is given up.
//! bus.layer(&Timeout::new(Duration::from_secs(5))).layer(&Trace::new())
//! # }
//! ```

mod attempt;
mod timeout;
mod trace;
mod wrap;
mod wrap_group;

use std::fmt;
use std::sync::Arc;

use crate::clock::Clock;
use crate::driver::Backend;

pub use timeout::Timeout;
pub use trace::Trace;

/// A wrapper round a backend, given to [`Bus::layer`](crate::Bus::layer).
///
/// A layer sees single attempts: core's splitting and retrying lie above it. It may not await
/// before the inner append's first poll, because order is fixed there. What it wraps it wraps
/// whole: a backend's readers, sources, settlers, leases and administration too.
pub trait Layer: fmt::Debug {
    /// Wraps `inner`. `clock` is the bus's: what the layer measures, it measures by that.
    fn wrap(&self, inner: Arc<dyn Backend>, clock: &Clock) -> Arc<dyn Backend>;
}
