//! Waiting for a topic to grow, whoever writes it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Result};
use tokio::sync::{Notify, watch};

use crate::disk::DiskWatch;
use crate::error::{blocking, of_io, runtime};
use crate::log::{End, Topic};

/// How long it waits at most before it looks again: at the clock, and at a topic that another
/// process may have deleted.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for records behind a position.
pub(super) struct Waiter {
    topic: Arc<Topic>,
    ends: watch::Receiver<End>,
    gone: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
    /// Where another process writes: a watch on its `tail`.
    tail: Option<(Box<dyn DiskWatch>, Arc<Notify>)>,
}

impl Waiter {
    /// `gone`: the topic is deleted, or the log closed; `ended`: the handle is closed that it reads
    /// for. Blocks.
    pub(super) fn new(
        topic: &Arc<Topic>,
        gone: watch::Receiver<bool>,
        ended: watch::Receiver<bool>,
    ) -> Result<Self> {
        let tail = if topic.is_written_here() {
            None
        } else {
            let notify = Arc::new(Notify::new());
            let wake = Arc::clone(&notify);
            let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || wake.notify_one());
            let disk = topic.disk();
            let watch = match disk.watch(&topic.dir().join("tail"), Arc::clone(&wake)) {
                // Lost; whoever writes next makes it anew.
                Err(e) if e.kind() == io::ErrorKind::NotFound => disk.watch(topic.dir(), wake),
                other => other,
            }
            .map_err(|e| of_io("watching the topic", e))?;
            Some((watch, notify))
        };
        Ok(Self {
            topic: Arc::clone(topic),
            ends: topic.watch(),
            gone,
            ended,
            tail,
        })
    }

    /// Returns when there may be records at or behind `next`, or after a second; after `most`, if
    /// that is shorter and not zero.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting and has no other effect.
    pub(super) async fn beyond(&mut self, next: u64, most: Option<Duration>) -> Result<()> {
        runtime()?;
        let look = most
            .filter(|most| !most.is_zero())
            .map_or(LOOK, |most| most.min(LOOK));
        if *self.gone.borrow() {
            return Err(Error::closed(
                "the topic was deleted, or the log closed, while it was being read",
            ));
        }
        self.check()?;
        let Some((_, notify)) = &self.tail else {
            let grown = self.ends.wait_for(|end| end.next > next);
            tokio::select! {
                _ = grown => {}
                _ = self.gone.changed() => {}
                () = ended(&mut self.ended) => {}
                () = tokio::time::sleep(look) => {}
            }
            return Ok(());
        };
        let timed_out = tokio::select! {
            () = notify.notified() => false,
            _ = self.gone.changed() => false,
            () = ended(&mut self.ended) => false,
            () = tokio::time::sleep(look) => true,
        };
        if timed_out {
            let topic = Arc::clone(&self.topic);
            if !blocking(move || topic.is_there()).await? {
                return Err(Error::not_found(
                    "the topic was deleted while it was being read",
                ));
            }
        }
        Ok(())
    }

    /// `Closed` once the handle is that it waits for.
    pub(super) fn check(&self) -> Result<()> {
        if *self.ended.borrow() {
            return Err(Error::closed(
                "this handle was closed while it was read by; connect again to go on",
            ));
        }
        Ok(())
    }
}

/// Returns when the handle is closed. One that was dropped is not: whoever reads goes on.
async fn ended(ended: &mut watch::Receiver<bool>) {
    if ended.wait_for(|ended| *ended).await.is_err() {
        std::future::pending::<()>().await;
    }
}
