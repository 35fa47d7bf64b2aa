//! Removing old records by hand, which only this backend can: retention that does not wait.

use std::sync::Arc;

use annals_core::{Error, Operation, Position, Result, TopicName};

use crate::backend::Embedded;
use crate::error::blocking;
use crate::log::options::Keep;

impl Embedded {
    /// Removes every record before `keep_from`, which stays, and so do all behind it. Readers and
    /// groups that have not got so far are told a gap. The room on disk comes back by whole
    /// segments.
    ///
    /// Only for topics with a retention: one that keeps everything promises that to its readers.
    /// What was removed already, and a place before the oldest record, is no error and has no
    /// effect; a place past the end removes everything up to the end.
    ///
    /// # Errors
    /// `Unsupported` for a topic that keeps everything; `Denied` where another process writes;
    /// `NotFound`; `Closed`; `Config` for a position of another kind of log; the disk's.
    ///
    /// # Cancel safety
    /// Dropped, it may have happened, now or later, or not.
    pub async fn trim(&self, topic: &TopicName, keep_from: &Position) -> Result<()> {
        let trimmed = self.trim_to(topic, keep_from).await;
        trimmed.map_err(|e| e.during(Operation::Admin).on_topic(topic).by(self.name()))
    }

    async fn trim_to(&self, topic: &TopicName, keep_from: &Position) -> Result<()> {
        let number = keep_from.number_u64().ok_or_else(|| {
            Error::config("this position is of another kind of log; take one that this log gave")
        })?;
        let root = self.root();
        if root.topic(topic).await?.settings().keep == Keep::Forever {
            return Err(Error::unsupported(
                "the topic keeps every record; only one that was made with a retention is trimmed",
            ));
        }
        let claiming = Arc::clone(&root);
        blocking(move || claiming.claim()).await?;
        // Opened as its writer: before, it may have been a reader's view.
        let there = root.topic(topic).await?;
        blocking(move || there.trim(number)).await
    }
}
