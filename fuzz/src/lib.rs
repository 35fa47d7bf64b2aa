//! The properties of the decoders, where the ordinary tests have them, for the fuzz targets.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "as in the tests that they are of")]

#[path = "../../core/tests/decoders/bytes.rs"]
mod bytes;
#[path = "../../core/tests/decoders/properties.rs"]
mod core;
#[path = "../../backends/embedded/tests/decoders/properties.rs"]
mod embedded;

pub use crate::core::{address, cursor, envelope, headers};
pub use crate::embedded::{entry, frame, index};
