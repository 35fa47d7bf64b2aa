//! The laws, for the backend that the guide walks through.

#[path = "../examples/small_backend/backend.rs"]
mod backend;

use std::sync::Arc;

use annals_conformance::harness::Plain;
use annals_conformance::laws;
use annals_core::driver::Backend;
use backend::Small;

fn harness() -> Plain {
    let log = Small::default();
    let plain = Plain::new("small", Plain::prefix("law-"), move || {
        let client: Arc<dyn Backend> = Arc::new(log.another());
        async move { Ok(client) }
    });
    plain.in_virtual_time()
}

laws! {
    small => harness(),
    refused: [
        durable, timed, lineage, condition, dedupe, fenced, fan_out, group_start, competing, redelivery,
        resume, poison, rebuilt,
    ],
}
