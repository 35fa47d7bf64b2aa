//! Decoders over at least 100,000 inputs each: made from the corpora of the fuzz targets, and by
//! chance. The same properties run under `cargo fuzz`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "helpers of tests fail their test; the fuzz targets are outside"
)]

mod bytes;
mod inputs;
mod properties;

use inputs::{INPUTS, try_inputs};

#[test]
fn cursors() {
    try_inputs("cursor", INPUTS, properties::cursor);
}

#[test]
fn addresses() {
    try_inputs("address", INPUTS, properties::address);
}

#[test]
fn headers() {
    try_inputs("headers", INPUTS, properties::headers);
}

#[test]
fn envelopes() {
    try_inputs("envelope", INPUTS, properties::envelope);
}
