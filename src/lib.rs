#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! Delays, budgets, leases, buffers and batches that nobody sets stand in one table:
//! [`defaults`]. What a topic promises is in [`capability`], what wraps every attempt in
//! [`layer`], what a backend implements in [`driver`]. Code that uses annals is tested with
//! `Memory` (feature `embedded`, on by default) and with the doubles in `mock` (feature `mock`).

mod registry;

pub use annals_core::*;
/// The embedded log, with builders besides URLs; and a log in memory for tests.
#[cfg(feature = "embedded")]
pub use annals_embedded::{self as embedded, Memory};
pub use registry::Registry;

/// Connects to the backend that `url` names: `file:PATH`, `memory:`, `memory:NAME`.
///
/// Which schemes there are is decided by the enabled features; see [`Registry`].
///
/// # Errors
/// `Config` for a malformed address, an unknown scheme (the text lists the known ones and names
/// the feature to enable) and unknown options; else what the backend says. The address is never
/// repeated: it may hold a password.
///
/// # Cancel safety
/// Dropping it drops the connection that was being made.
pub async fn connect(url: &str) -> Result<Bus> {
    Registry::default().connect(url).await
}
