//! The log's decoders over at least 100,000 inputs each; the index, whose file is opened each
//! time, over 5,000 without `ANNALS_DEPTH=full`. The same properties run under `cargo fuzz`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "helpers of tests fail their test; the fuzz targets are outside"
)]

#[path = "../../../../core/tests/decoders/bytes.rs"]
mod bytes;
#[path = "../../../../core/tests/decoders/inputs.rs"]
mod inputs;
mod properties;

use inputs::{INPUTS, try_inputs};

#[test]
fn entries() {
    try_inputs("entry", INPUTS, properties::entry);
}

#[test]
fn frames() {
    try_inputs("frame", INPUTS, properties::frame);
}

#[test]
fn indexes() {
    let full = std::env::var("ANNALS_DEPTH").is_ok_and(|depth| depth == "full");
    let inputs = if full { INPUTS } else { 5_000 };
    try_inputs("index", inputs, properties::index);
}
