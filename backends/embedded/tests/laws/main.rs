//! The laws, for the log on disk and for the one in memory.

#![allow(clippy::expect_used, reason = "a test may panic")]

mod harness;

use annals_conformance::laws;
use harness::{Kind, LocalHarness};

laws! { embedded => LocalHarness::new(Kind::Disk), refused: [lineage] }
laws! { memory => LocalHarness::new(Kind::Memory), refused: [durable, lineage] }
