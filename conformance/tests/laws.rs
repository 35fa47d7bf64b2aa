//! The laws, for each of the models.

use annals_conformance::harness::{LogHarness, QueueHarness, ShardedHarness};
use annals_conformance::laws;

laws! { model_log => LogHarness::new(), refused: [lineage] }
laws! { model_sharded => ShardedHarness::new(), refused: [condition, atomic_batch, dedupe] }
laws! { model_queue => QueueHarness::new(), refused: [located, repeatable, range, timed, sliced, lineage, no_skip, seam, end, gap_told, cursor_round_trip, condition, atomic_batch, rebuilt] }
