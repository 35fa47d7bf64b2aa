//! Durable appends: whole batches by one writer, single records by one and by many.

use annals_core::{Record, Topic};
use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Log;
use crate::data::{BATCH, Data, Source};
use crate::peers::{Fjall, Peer, Redb, Sqlite};
use crate::raw::{Room, Writer, frame};
use crate::report::Report;
use crate::rounds::{Effort, Rate, in_turn, timed};

/// Batches of one round.
const BATCHES: usize = 16;
/// Single records of one round, of one writer, and of each of many.
const SINGLES: usize = 128;
const EACH: usize = 32;

const SYNC: &str = "fdatasync each append, both";

pub(super) fn run(
    effort: Effort,
    report: &mut Report,
    runtime: &Runtime,
    data: &Data,
) -> Result<()> {
    for (id, peer, room) in [
        ("append_batch_raw", "raw file, room ahead", Room::Ahead),
        ("append_batch_grow", "raw file, growing", Room::Grow),
    ] {
        if report.wants(&[id]) {
            raw(effort, report, runtime, &data.dir(id)?, (id, peer, room))?;
        }
    }
    for (id, peer) in [
        ("append_batch_fjall", "fjall"),
        ("append_batch_redb", "redb"),
        ("append_batch_sqlite", "sqlite"),
    ] {
        if report.wants(&[id]) {
            let dir = data.dir(id)?;
            let (mut store, sync): (Box<dyn Peer>, _) = match peer {
                "fjall" => (Box::new(Fjall::new(dir.path())?), Fjall::SYNC),
                "redb" => (Box::new(Redb::new(dir.path())?), Redb::SYNC),
                _ => (Box::new(Sqlite::new(dir.path())?), Sqlite::SYNC),
            };
            let log = Log::open(runtime, dir.path())?;
            let (mut here, mut there) = (Source::new(), Source::new());
            let pairs = in_turn(
                effort.rounds,
                || batches(&log, &mut here),
                || {
                    let batches = there.batches(BATCHES);
                    timed(BATCHES * BATCH, || {
                        batches.iter().try_for_each(|batch| store.append(batch))
                    })
                },
            )?;
            report.row(id, peer, sync, &pairs);
            log.close()?;
        }
    }
    for (id, writers) in [
        ("append_1_writer", 1),
        ("append_64_writers", 64),
        ("append_256_writers", 256),
    ] {
        if report.wants(&[id]) {
            singles(effort, report, runtime, &data.dir(id)?, (id, writers))?;
        }
    }
    Ok(())
}

/// One round of batches, one after another.
fn batches(log: &Log<'_>, source: &mut Source) -> Result<Rate> {
    let batches = source.batches(BATCHES);
    // What the application made is freed outside of what is timed, as on the other side.
    let _kept = batches.clone();
    log.runtime.block_on(async {
        let since = std::time::Instant::now();
        for batch in batches {
            log.topic.append(batch).await?;
        }
        Ok(Rate::of(BATCHES * BATCH, since.elapsed()))
    })
}

/// Batches against the bytes of the same batches.
fn raw(
    effort: Effort,
    report: &mut Report,
    runtime: &Runtime,
    dir: &Data,
    (id, peer, room): (&'static str, &'static str, Room),
) -> Result<()> {
    let log = Log::open(runtime, dir.path())?;
    let mut file = Writer::new(&dir.path().join("raw"), room)?;
    let (mut here, mut there) = (Source::new(), Source::new());
    let pairs = in_turn(
        effort.rounds,
        || batches(&log, &mut here),
        || {
            let frames = there.batches(BATCHES);
            let frames: Vec<_> = frames.iter().map(|b| frame(b)).collect::<Result<_>>()?;
            timed(BATCHES * BATCH, || {
                frames.iter().try_for_each(|bytes| file.append(bytes))
            })
        },
    )?;
    report.row(id, peer, SYNC, &pairs);
    log.close()
}

/// Single records of `writers` tasks, against one writer of a growing file.
fn singles(
    effort: Effort,
    report: &mut Report,
    runtime: &Runtime,
    dir: &Data,
    (id, writers): (&'static str, usize),
) -> Result<()> {
    let log = Log::open(runtime, dir.path())?;
    let mut file = Writer::new(&dir.path().join("raw"), Room::Grow)?;
    let (mut here, mut there) = (Source::new(), Source::new());
    let pairs = in_turn(
        effort.rounds,
        || {
            if writers == 1 {
                let records = here.records(SINGLES);
                return runtime.block_on(async {
                    let since = std::time::Instant::now();
                    one_by_one(&log.topic, records).await?;
                    Ok(Rate::of(SINGLES, since.elapsed()))
                });
            }
            let shares: Vec<_> = (0..writers).map(|_| here.records(EACH)).collect();
            runtime.block_on(async {
                let since = std::time::Instant::now();
                let mut tasks = JoinSet::new();
                for records in shares {
                    let topic = log.topic.clone();
                    tasks.spawn(async move { one_by_one(&topic, records).await });
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
                Ok(Rate::of(writers * EACH, since.elapsed()))
            })
        },
        || {
            let frames: Vec<_> = (0..SINGLES)
                .map(|_| frame(&[there.record()]))
                .collect::<Result<_>>()?;
            timed(SINGLES, || {
                frames.iter().try_for_each(|bytes| file.append(bytes))
            })
        },
    )?;
    report.row(id, "raw file, growing, one writer", SYNC, &pairs);
    log.close()
}

async fn one_by_one(topic: &Topic, records: Vec<Record>) -> Result<()> {
    for record in records {
        topic.append(record).await?;
    }
    Ok(())
}
