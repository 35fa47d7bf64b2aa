//! A topic with one client of it.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{AppendOptions, Backend};
use annals_core::{
    Batch, Bus, Capabilities, Cursor, ErrorKind, Gap, Outcome, PartitionId, Recorded, Replay,
    Start, Topic, TopicName, Until,
};

use super::{During, Judged, Stop};
use crate::harness::Harness;

/// A topic, and one client of it: the driver itself and the users' handles over it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The topic's name.
    pub name: TopicName,
    /// The client, as core sees it.
    pub backend: Arc<dyn Backend>,
    /// The same client, as users see it.
    pub bus: Bus,
    /// The topic, as users see it.
    pub topic: Topic,
}

/// What a bounded reading gave.
#[derive(Debug, Default)]
pub struct Reading {
    /// The records, in the order in which they were read.
    pub records: Vec<Recorded>,
    /// The gaps that were told, each with how many records came before it.
    pub gaps: Vec<(usize, Gap)>,
    /// Where it ended.
    pub cursor: Option<Cursor>,
}

/// A reading that gives more than this many records more than it can have never ends.
const RUNAWAY: usize = 1_000_000;

impl Stage {
    pub(super) async fn open(harness: &Arc<dyn Harness>, name: &TopicName) -> Judged<Self> {
        let backend = harness.connect().await.during("connecting")?;
        let bus = Bus::new(Arc::clone(&backend)).with_clock(harness.clock());
        let topic = bus.topic(name.as_str()).await.during("opening the topic")?;
        Ok(Self {
            name: name.clone(),
            backend,
            bus,
            topic,
        })
    }

    /// What the topic promised when it was opened.
    pub fn capabilities(&self) -> &Capabilities {
        self.topic.capabilities()
    }

    /// One raw attempt to append, beside core's splitting and retrying.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn attempt(&self, batch: &Batch, options: &AppendOptions) -> Judged<Vec<Outcome>> {
        let report = self.backend.append(&self.name, batch, options).await?;
        let outcomes = report.into_outcomes();
        if outcomes.len() == batch.len() {
            return Ok(outcomes);
        }
        Err(Stop::broken(format!(
            "{} records were appended and {} outcomes came back",
            batch.len(),
            outcomes.len()
        )))
    }

    /// Reads a range to its end, through the users' handle; gaps are noted and read past.
    ///
    /// # Errors
    /// What the backend says; a reading that does not end.
    pub async fn read(&self, from: impl Into<Start>, until: Until) -> Judged<Reading> {
        let replay = self
            .topic
            .replay(from)
            .until(until)
            .await
            .during("opening a replay")?;
        read_out(replay).await
    }

    /// The whole topic as it is kept now: from the oldest record that is kept to the end.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub async fn read_all(&self) -> Judged<Vec<Recorded>> {
        let start = if self
            .capabilities()
            .starts
            .known()
            .is_some_and(|s| s.earliest)
        {
            Start::Earliest
        } else {
            Start::Beginning
        };
        Ok(self.read(start, Until::End).await?.records)
    }

    /// The partitions that are listed now.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn partitions(&self) -> Judged<Vec<PartitionId>> {
        let listed = self.backend.partitions(&self.name).await?;
        Ok(listed.iter().map(|partition| partition.id).collect())
    }

    /// Closes the client.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn close(self, grace: Duration) -> Judged<()> {
        drop(self.topic);
        Ok(self.bus.close(grace).await?)
    }
}

/// Reads a replay that ends to its end; gaps are noted and read past.
///
/// # Errors
/// What the backend says; a reading that does not end.
pub async fn read_out(mut replay: Replay) -> Judged<Reading> {
    let mut reading = Reading::default();
    loop {
        match replay.next().await {
            Ok(Some(record)) => reading.records.push(record),
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::Gap => {
                let gap = error.gap().cloned();
                let gap = gap.ok_or_else(|| Stop::broken("a gap's error says no gap"))?;
                reading.gaps.push((reading.records.len(), gap));
            }
            Err(error) => return Err(error).during("reading"),
        }
        if reading.records.len() + reading.gaps.len() > RUNAWAY {
            return Err(Stop::broken("a bounded reading does not end"));
        }
    }
    reading.cursor = Some(replay.cursor().clone());
    Ok(reading)
}
