//! The embedded log.

mod append;
mod counts;
mod open;
mod overhead;
mod replay;

use std::path::Path;
use std::time::Duration;

use annals_core::{Bus, Topic};
use annals_embedded::Builder;
use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use crate::data::Data;
use crate::report::Report;
use crate::rounds::Effort;

/// Everything that is asked for.
pub(crate) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let data = Data::new()?;
    append::run(effort, report, &runtime, &data)?;
    replay::run(effort, report, &runtime, &data)?;
    counts::run(report, &runtime, &data)?;
    open::run(effort, report, &runtime, &data)?;
    overhead::run(effort, report, &runtime)
}

/// How long a log may take to close.
const GRACE: Duration = Duration::from_secs(60);

/// The name of every topic.
const TOPIC: &str = "bench";

/// A log in a directory.
struct Log<'r> {
    runtime: &'r Runtime,
    bus: Bus,
    topic: Topic,
}

impl<'r> Log<'r> {
    /// With one topic, which is made when it is not there.
    fn open(runtime: &'r Runtime, dir: &Path) -> Result<Self> {
        let bus = Bus::new(Builder::directory(dir).build()?);
        let topic = runtime.block_on(bus.topic(TOPIC).create_if_missing())?;
        Ok(Self {
            runtime,
            bus,
            topic,
        })
    }

    fn close(self) -> Result<()> {
        drop(self.topic);
        Ok(self.runtime.block_on(self.bus.close(GRACE))?)
    }
}
