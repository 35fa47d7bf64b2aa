//! Replays of a log that is in the page cache.

use std::hint::black_box;
use std::time::Instant;

use annals_core::Start;
use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use super::{Log, TOPIC};
use crate::data::{BATCH, Data, Source};
use crate::peers::{Fjall, Peer, Redb, Sqlite};
use crate::raw;
use crate::report::Report;
use crate::rounds::{Effort, Rate, in_turn, timed};

/// Batches of the log.
const BATCHES: usize = 300;
const RECORDS: usize = BATCHES * BATCH;

const SYNC: &str = "none: nothing is written";

const IDS: [&str; 5] = [
    "replay_raw",
    "replay_batch_raw",
    "replay_redb",
    "replay_sqlite",
    "replay_fjall",
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
    let dir = data.dir("replay")?;
    let log = Log::open(runtime, dir.path())?;
    for batch in Source::new().batches(BATCHES) {
        runtime.block_on(log.topic.append(batch))?;
    }
    let segments = raw::segments(&dir.path().join(TOPIC))?;
    let mut file = || {
        timed(RECORDS, || {
            let found = raw::read(&segments)?;
            ensure!(found == RECORDS, "{found} entries were found");
            Ok(())
        })
    };
    let peer = "raw file, each entry checked";
    for (id, batches) in [("replay_raw", false), ("replay_batch_raw", true)] {
        if report.wants(&[id]) {
            let pairs = in_turn(effort.rounds, || replay(&log, batches), &mut file)?;
            report.row(id, peer, SYNC, &pairs);
        }
    }
    for id in ["replay_redb", "replay_sqlite", "replay_fjall"] {
        if !report.wants(&[id]) {
            continue;
        }
        let dir = data.dir(id)?;
        let (peer, mut store): (_, Box<dyn Peer>) = match id {
            "replay_redb" => ("redb", Box::new(Redb::new(dir.path())?)),
            "replay_sqlite" => ("sqlite", Box::new(Sqlite::new(dir.path())?)),
            _ => ("fjall", Box::new(Fjall::new(dir.path())?)),
        };
        for batch in Source::new().batches(BATCHES) {
            store.append(&batch)?;
        }
        let pairs = in_turn(
            effort.rounds,
            || replay(&log, false),
            || timed(RECORDS, || store.read(RECORDS)),
        )?;
        report.row(id, peer, SYNC, &pairs);
    }
    log.close()
}

/// The whole log, record by record or batch by batch.
fn replay(log: &Log<'_>, batches: bool) -> Result<Rate> {
    log.runtime.block_on(async {
        let since = Instant::now();
        let mut replay = log.topic.replay(Start::Beginning).await?;
        let mut found = 0;
        if batches {
            while let Some(records) = replay.next_batch().await? {
                for record in &records {
                    black_box(record);
                }
                found += records.len();
            }
        } else {
            while let Some(record) = replay.next().await? {
                black_box(&record);
                found += 1;
            }
        }
        ensure!(found == RECORDS, "{found} records were replayed");
        Ok(Rate::of(RECORDS, since.elapsed()))
    })
}
