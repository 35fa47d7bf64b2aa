//! A log of 4 GiB with a million keys: opening it, and replaying a GiB of it.

use std::hint::black_box;
use std::time::Instant;

use annals_core::{Record, Start};
use anyhow::{Result, ensure};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Log, TOPIC};
use crate::data::{Data, Source, forget};
use crate::report::Report;
use crate::rounds::{Effort, median};
use crate::{allocations, raw};

const GIB: u64 = 1 << 30;
/// Batches on their way at once while the log is written.
const IN_FLIGHT: usize = 8;

const IDS: [&str; 4] = [
    "replay_peak_mib",
    "open_ms_4gib",
    "open_ms_4gib_cold",
    "open_key_ms_4gib",
];

pub(super) fn run(
    effort: Effort,
    report: &mut Report,
    runtime: &Runtime,
    data: &Data,
) -> Result<()> {
    if !report.wants(&IDS) {
        return Ok(());
    }
    let dir = data.dir("open")?;
    let since = Instant::now();
    write(runtime, &dir)?;
    println!("4 GiB written in {:.0} s", since.elapsed().as_secs_f64());
    if report.wants(&["replay_peak_mib"]) {
        peak(report, runtime, &dir)?;
    }
    let mut source = Source::new();
    let mut record = || source.record();
    // Once, so that every later one finds a log that was closed.
    open(runtime, &dir, record())?;
    if report.wants(&["open_ms_4gib"]) {
        let times = (0..effort.repeats)
            .map(|_| open(runtime, &dir, record()))
            .collect::<Result<Vec<_>>>()?;
        report.count(
            "open_ms_4gib",
            median(&times),
            "ms until the first append is durable, page cache warm",
        );
    }
    if report.wants(&["open_ms_4gib_cold"]) {
        let times = (0..effort.repeats)
            .map(|_| {
                forget(dir.path())?;
                open(runtime, &dir, record())
            })
            .collect::<Result<Vec<_>>>()?;
        report.count(
            "open_ms_4gib_cold",
            median(&times),
            "ms, the same, every file dropped from the page cache (posix_fadvise)",
        );
    }
    if report.wants(&["open_key_ms_4gib"]) {
        let times = (0..effort.repeats)
            .map(|_| by_key(runtime, &dir))
            .collect::<Result<Vec<_>>>()?;
        report.count(
            "open_key_ms_4gib",
            median(&times),
            "ms until the first conditional append is answered, page cache warm",
        );
    }
    Ok(())
}

fn write(runtime: &Runtime, dir: &Data) -> Result<()> {
    let log = Log::open(runtime, dir.path())?;
    let mut source = Source::new();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut bytes = 0;
        while bytes < 4 * GIB {
            let batch = source.batches(1).pop().unwrap_or_default();
            bytes += raw::frame(&batch)?.len() as u64;
            let topic = log.topic.clone();
            tasks.spawn(async move { topic.append(batch).await });
            if tasks.len() >= IN_FLIGHT
                && let Some(done) = tasks.join_next().await
            {
                done??;
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })?;
    let segments = raw::segments(&dir.path().join(TOPIC))?;
    ensure!(
        segments.len() > 60,
        "there are only {} segments",
        segments.len()
    );
    log.close()
}

fn peak(report: &mut Report, runtime: &Runtime, dir: &Data) -> Result<()> {
    let log = Log::open(runtime, dir.path())?;
    allocations::start();
    let replayed = runtime.block_on(async {
        let mut replay = log.topic.replay(Start::Beginning).await?;
        let mut bytes = 0;
        while bytes < GIB
            && let Some(record) = replay.next().await?
        {
            bytes += record.len_bytes() as u64;
            black_box(&record);
        }
        anyhow::Ok(bytes)
    });
    let counted = allocations::stop();
    ensure!(replayed? >= GIB, "there was less than a GiB to replay");
    report.count(
        "replay_peak_mib",
        counted.peak as f64 / f64::from(1 << 20),
        "MiB of live heap at most, 1 GiB through next",
    );
    log.close()
}

/// Milliseconds from nothing to an append that is durable.
fn open(runtime: &Runtime, dir: &Data, record: Record) -> Result<f64> {
    let since = Instant::now();
    let log = Log::open(runtime, dir.path())?;
    runtime.block_on(log.topic.append(record))?;
    let took = since.elapsed();
    log.close()?;
    Ok(took.as_secs_f64() * 1e3)
}

/// The same, for an append that holds only if its key has no record.
fn by_key(runtime: &Runtime, dir: &Data) -> Result<f64> {
    let since = Instant::now();
    let log = Log::open(runtime, dir.path())?;
    let record = Record::new("settled").key("key-0000000017");
    let refused = runtime.block_on(log.topic.append(record).if_key_at("key-0000000017", None));
    let took = since.elapsed();
    ensure!(refused.is_err(), "a key that is there was not found");
    log.close()?;
    Ok(took.as_secs_f64() * 1e3)
}
