//! What is counted exactly: allocations and descriptors.

use std::fs;
use std::hint::black_box;

use annals_core::{Bus, Start};
use annals_embedded::Builder;
use anyhow::Result;
use tokio::runtime::Runtime;

use super::{GRACE, Log};
use crate::allocations;
use crate::data::{BATCH, Data, Source};
use crate::report::Report;

/// Batches that are counted, after as many that are not.
const BATCHES: usize = 100;
const TOPICS: usize = 1_000;

pub(super) fn run(report: &mut Report, runtime: &Runtime, data: &Data) -> Result<()> {
    if report.wants(&["alloc_append", "alloc_replay"]) {
        allocated(report, runtime, &data.dir("alloc")?)?;
    }
    if report.wants(&["fds_1000_topics"]) {
        descriptors(report, runtime, &data.dir("fds")?)?;
    }
    Ok(())
}

fn allocated(report: &mut Report, runtime: &Runtime, dir: &Data) -> Result<()> {
    let unit = "allocations a record, 1,000 records a batch, all threads";
    let records = (BATCHES * BATCH) as f64;
    let log = Log::open(runtime, dir.path())?;
    let mut source = Source::new();
    let append = |batches| {
        runtime.block_on(async {
            for batch in batches {
                log.topic.append(batch).await?;
            }
            anyhow::Ok(())
        })
    };
    append(source.batches(BATCHES))?;
    let batches = source.batches(BATCHES);
    allocations::start();
    let appended = append(batches);
    let counted = allocations::stop();
    appended?;
    report.count("alloc_append", counted.calls as f64 / records, unit);

    // From the open to the end, over both halves.
    allocations::start();
    let replayed = runtime.block_on(async {
        let mut replay = log.topic.replay(Start::Beginning).await?;
        while let Some(record) = replay.next().await? {
            black_box(&record);
        }
        anyhow::Ok(())
    });
    let counted = allocations::stop();
    replayed?;
    report.count("alloc_replay", counted.calls as f64 / (2.0 * records), unit);
    log.close()
}

fn descriptors(report: &mut Report, runtime: &Runtime, dir: &Data) -> Result<()> {
    let bus = Bus::new(Builder::directory(dir.path()).build()?);
    let mut source = Source::new();
    let open = runtime.block_on(async {
        let mut topics = Vec::with_capacity(TOPICS);
        for number in 0..TOPICS {
            let name = format!("topic-{number:04}");
            let topic = bus.topic(name).create_if_missing().await?;
            topic.append(source.record()).await?;
            topics.push(topic);
        }
        anyhow::Ok(topics)
    })?;
    let descriptors = fs::read_dir("/proc/self/fd")?.count();
    report.count(
        "fds_1000_topics",
        descriptors as f64,
        "descriptors of the process, 1,000 topics appended to",
    );
    drop(open);
    Ok(runtime.block_on(bus.close(GRACE))?)
}
