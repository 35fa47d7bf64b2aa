//! What core adds to an append: its handle against the backend's own method, on a disk in memory.

use std::time::Instant;

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{Batch, Bus, Record};
use annals_embedded::Builder;
use anyhow::Result;
use tokio::runtime::Runtime;

use super::TOPIC;
use crate::data::Source;
use crate::report::Report;
use crate::rounds::{Effort, Rate, in_turn, quantile};

/// Appends of one round.
const APPENDS: usize = 200;

pub(super) fn run(effort: Effort, report: &mut Report, runtime: &Runtime) -> Result<()> {
    for (id, size, unit) in [
        (
            "core_overhead_ns",
            1,
            "ns a record that core adds, 1 a batch, in memory",
        ),
        (
            "core_overhead_ns_100",
            100,
            "ns a record that core adds, 100 a batch, in memory",
        ),
    ] {
        if report.wants(&[id]) {
            let added = added(effort, runtime, size)?;
            report.count(id, added, unit);
        }
    }
    Ok(())
}

/// In ns a record.
fn added(effort: Effort, runtime: &Runtime, size: usize) -> Result<f64> {
    let backend = Builder::memory().build()?;
    let bus = Bus::new(backend.clone());
    let topic = runtime.block_on(bus.topic(TOPIC).create_if_missing())?;
    let name = topic.name().clone();
    let (mut here, mut there) = (Source::new(), Source::new());
    let prepare = |source: &mut Source| -> Vec<Vec<Record>> {
        (0..APPENDS).map(|_| source.records(size)).collect()
    };
    let pairs = in_turn(
        effort.rounds * 2,
        || {
            let batches = prepare(&mut here);
            runtime.block_on(async {
                let since = Instant::now();
                for batch in batches {
                    topic.append(batch).await?;
                }
                Ok(Rate::of(APPENDS * size, since.elapsed()))
            })
        },
        || {
            let batches = prepare(&mut there);
            runtime.block_on(async {
                let options = AppendOptions::default();
                let since = Instant::now();
                for batch in batches {
                    let report = backend.append(&name, &Batch::from(batch), &options).await?;
                    drop(report);
                }
                Ok(Rate::of(APPENDS * size, since.elapsed()))
            })
        },
    )?;
    // The best quarter of each: what disturbs an append of microseconds only adds to it.
    let ours = 1e9 / quantile(&pairs.ours(), 0.75);
    Ok(ours - 1e9 / quantile(&pairs.theirs(), 0.75))
}
