//! The task that keeps a member's leases: renews, takes, and lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::found;
use super::table::Seen;
use crate::cursor::Frontier;
use crate::driver::{Commits, Lease, Leases, Mark, Tenancy};
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::name::Group;
use crate::position::PartitionId;
use crate::topic::Topic;

/// What happened to this member's leases.
#[derive(Debug)]
pub(super) enum Turn {
    /// It has one more; this is what its row said.
    Taken(Tenancy, Lease),
    /// It has one less.
    Lost(Tenancy),
    /// Nothing more will happen.
    Failed(Error),
}

/// A look for new partitions every so many turns.
const LOOK: u32 = 6;

/// The leases of one member.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) topic: Topic,
    pub(super) group: Group,
    pub(super) leases: Arc<dyn Leases>,
    /// What it holds, and when that was last known to be so.
    tenancies: Mutex<BTreeMap<PartitionId, (Tenancy, Duration)>>,
    turns: mpsc::UnboundedSender<Turn>,
    /// Something changed: look at the table now.
    wake: Notify,
}

/// Starts the task. What it says comes out of the receiver: at most a few turns a lease wait there.
pub(super) fn start(
    topic: Topic,
    group: Group,
    leases: Arc<dyn Leases>,
    member: Arc<str>,
    lease: Duration,
    growing: bool,
) -> (Arc<Held>, mpsc::UnboundedReceiver<Turn>, AbortHandle) {
    let (turns, received) = mpsc::unbounded_channel();
    let held = Arc::new(Held {
        topic,
        group,
        leases,
        tenancies: Mutex::default(),
        turns,
        wake: Notify::new(),
    });
    let task = tokio::spawn(keep(Arc::clone(&held), member, lease, growing));
    (held, received, task.abort_handle())
}

async fn keep(held: Arc<Held>, member: Arc<str>, lease: Duration, growing: bool) {
    let clock = held.topic.bus().clock().clone();
    let mut seen = Seen::default();
    let mut round = 0;
    loop {
        let look = growing && round % LOOK == LOOK - 1;
        round = (round + 1) % LOOK;
        // A table that does not answer must not keep a lease alive that has run out.
        held.run_out(lease);
        let turn = turn(&held, &mut seen, &member, lease, look);
        let result = clock.timeout(lease / 4, turn).await;
        held.run_out(lease);
        let wait = match result {
            Some(Ok(())) => lease / 3,
            Some(Err(_)) | None => lease / 12,
        };
        if let Some(Err(error)) = result {
            if !error.is_retryable() {
                held.say(Turn::Failed(error));
                return;
            }
            tracing::debug!(error = %error, "the table of leases is looked at again soon");
        }
        tokio::select! {
            biased;
            () = held.wake.notified() => {}
            () = clock.sleep(wait) => {}
        }
    }
}

/// Renews what is held and takes what is this member's share.
async fn turn(
    held: &Held,
    seen: &mut Seen,
    member: &Arc<str>,
    lease: Duration,
    look: bool,
) -> Result<()> {
    let clock = held.topic.bus().clock();
    held.renew().await?;
    let Some(mut rows) = held.leases.load(&held.group).await? else {
        return Err(Error::not_found(format!(
            "the group \"{}\" was deleted while it was in use; subscribe again to make a new one",
            held.group
        )));
    };
    if look
        && held.grow(&rows).await?
        && let Some(more) = held.leases.load(&held.group).await?
    {
        rows = more;
    }
    let now = clock.elapsed();
    seen.look(&rows, now);
    let mine: BTreeSet<PartitionId> = held.tenancies().keys().copied().collect();
    for row in seen.wanted(&rows, &mine, lease, now) {
        // It holds from when it was asked for.
        let asked = clock.elapsed();
        if let Some(tenancy) = held.leases.take(&held.group, row, member).await? {
            held.tenancies().insert(tenancy.partition, (tenancy, asked));
            held.say(Turn::Taken(tenancy, row.clone()));
        }
    }
    Ok(())
}

impl Held {
    fn tenancies(&self) -> MutexGuard<'_, BTreeMap<PartitionId, (Tenancy, Duration)>> {
        self.tenancies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, turn: Turn) {
        // Nobody hears it once the membership has ended.
        let _ = self.turns.send(turn);
    }

    /// Everything that is held.
    pub(super) fn all(&self) -> Vec<Tenancy> {
        let held = self.tenancies();
        held.values().map(|(tenancy, _)| *tenancy).collect()
    }

    /// Forgets a stay; whether it was held.
    fn forget(&self, tenancy: Tenancy) -> bool {
        let mut held = self.tenancies();
        let is_it = held
            .get(&tenancy.partition)
            .is_some_and(|(held, _)| *held == tenancy);
        if is_it {
            held.remove(&tenancy.partition);
        }
        is_it
    }

    fn lose(&self, tenancy: Tenancy) {
        if self.forget(tenancy) {
            self.say(Turn::Lost(tenancy));
        }
    }

    /// Gives up what could not be renewed in time: by now others may have it.
    fn run_out(&self, lease: Duration) {
        let now = self.topic.bus().clock().elapsed();
        let over: Vec<Tenancy> = self
            .tenancies()
            .values()
            .filter(|(_, since)| now.saturating_sub(*since) >= lease)
            .map(|(tenancy, _)| *tenancy)
            .collect();
        for tenancy in over {
            self.lose(tenancy);
        }
    }

    async fn renew(&self) -> Result<()> {
        let held = self.all();
        if held.is_empty() {
            return Ok(());
        }
        let asked = self.topic.bus().clock().elapsed();
        let answers = self.leases.renew(&self.group, &held).await?;
        for (tenancy, answer) in held.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    if let Some((now, since)) = self.tenancies().get_mut(&tenancy.partition)
                        && *now == tenancy
                    {
                        *since = asked;
                    }
                }
                Err(error) if is_over(&error) => self.lose(tenancy),
                Err(error) => {
                    tracing::debug!(error = %error, "a lease could not be renewed and is tried again");
                }
            }
        }
        Ok(())
    }

    /// Adds rows for partitions that came without a parent's end being told; whether there were
    /// any.
    async fn grow(&self, rows: &[Lease]) -> Result<bool> {
        let backend = &self.topic.bus().backend;
        let listed = backend.partitions(self.topic.name()).await?;
        let known: BTreeSet<PartitionId> = rows.iter().map(|row| row.partition).collect();
        let mut finished = found::ancestors(known.iter().copied(), &listed);
        // What a row continues was finished before the group was made, listed or not.
        finished.extend(rows.iter().flat_map(|row| row.parents.iter().copied()));
        let new = |id: &PartitionId| !known.contains(id) && !finished.contains(id);
        let more: Vec<Lease> = listed
            .iter()
            .filter(|partition| new(&partition.id))
            .map(|partition| found::row(partition, Frontier::Start))
            .collect();
        if !more.is_empty() {
            self.leases.add(&self.group, &more).await?;
        }
        Ok(!more.is_empty())
    }
}

fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Expired)
}

#[async_trait]
impl Commits for Held {
    async fn commit(&self, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let answers = self.leases.commit(&self.group, marks).await?;
        for (mark, answer) in marks.iter().zip(&answers) {
            match answer {
                Ok(()) if mark.to == Frontier::Ended => {
                    // Nothing of it is left to hold; its children can be taken now.
                    self.release(mark.tenancy).await?;
                    self.wake.notify_one();
                }
                Err(error) if is_over(error) => self.lose(mark.tenancy),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(answers)
    }

    async fn release(&self, tenancy: Tenancy) -> Result<()> {
        if !self.forget(tenancy) {
            return Ok(());
        }
        match self.leases.release(&self.group, tenancy).await {
            Err(error) if is_over(&error) => Ok(()),
            result => result,
        }
    }
}

pub(super) fn over() -> Error {
    Error::new(
        ErrorKind::Closed,
        Effect::None,
        Retry::Never,
        "the membership has ended; subscribe again",
    )
}
