//! The leases that a member holds.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::found;
use crate::cursor::Frontier;
use crate::driver::{Commits, Lease, Leases, Mark, Partition, Tenancy};
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::name::Group;
use crate::position::PartitionId;
use crate::subscription::News;
use crate::topic::Topic;

/// What happened to this member's leases.
#[derive(Debug)]
pub(super) enum Turn {
    /// It has one more; this is what its row said, and it may be read from that moment on.
    Taken(Tenancy, Lease, Duration),
    /// It has one less.
    Lost(Tenancy),
    /// Nothing more will happen.
    Failed(Error),
}

/// The leases of one member.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) topic: Topic,
    pub(super) group: Group,
    pub(super) leases: Arc<dyn Leases>,
    pub(super) news: Arc<News>,
    /// What it holds, and when that was last known to be so.
    tenancies: Mutex<BTreeMap<PartitionId, (Tenancy, Duration)>>,
    turns: mpsc::UnboundedSender<Turn>,
    /// Something changed: look at the table now.
    pub(super) wake: Notify,
}

impl Held {
    /// What is said of them comes out of the receiver: at most a few turns a lease wait there.
    pub(super) fn new(
        topic: Topic,
        group: Group,
        leases: Arc<dyn Leases>,
        news: Arc<News>,
    ) -> (Self, mpsc::UnboundedReceiver<Turn>) {
        let (turns, received) = mpsc::unbounded_channel();
        let held = Self {
            topic,
            group,
            leases,
            news,
            tenancies: Mutex::default(),
            turns,
            wake: Notify::new(),
        };
        (held, received)
    }

    /// The group's table.
    pub(super) async fn load(&self) -> Result<Vec<Lease>> {
        self.leases.load(&self.group).await?.ok_or_else(|| {
            Error::not_found(format!(
                "the group \"{}\" was deleted while it was in use; subscribe again to make a new one",
                self.group
            ))
        })
    }

    fn tenancies(&self) -> MutexGuard<'_, BTreeMap<PartitionId, (Tenancy, Duration)>> {
        self.tenancies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, turn: Turn) {
        // Nobody hears it once the membership has ended.
        let _ = self.turns.send(turn);
    }

    /// Everything that is held.
    pub(super) fn all(&self) -> Vec<Tenancy> {
        let held = self.tenancies();
        held.values().map(|(tenancy, _)| *tenancy).collect()
    }

    /// One more, which holds from when it was asked for.
    pub(super) fn took(&self, tenancy: Tenancy, asked: Duration, row: Lease, from: Duration) {
        self.tenancies().insert(tenancy.partition, (tenancy, asked));
        self.say(Turn::Taken(tenancy, row, from));
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
    pub(super) fn run_out(&self, lease: Duration) {
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

    /// For how long from now everything that is held is surely held.
    pub(super) fn holds_for(&self, lease: Duration) -> Option<Duration> {
        let now = self.topic.bus().clock().elapsed();
        let oldest = self.tenancies().values().map(|(_, since)| *since).min()?;
        Some(oldest.saturating_add(lease).saturating_sub(now))
    }

    pub(super) async fn renew(&self) -> Result<()> {
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

    /// Adds rows for `children`, for every other partition that is listed and still to be read,
    /// and for parents of these that vanished before anybody came to them: one that has no row
    /// would count as finished. Says whether there were any.
    pub(super) async fn grow(&self, rows: &[Lease], children: &[Partition]) -> Result<bool> {
        let backend = &self.topic.bus().backend;
        let listed = backend.partitions(self.topic.name()).await?;
        let known: HashSet<PartitionId> = rows.iter().map(|row| row.partition).collect();
        let mut finished = found::ancestors(known.iter().copied(), &listed);
        // What a row continues was finished before the group was made, listed or not.
        finished.extend(rows.iter().flat_map(|row| row.parents.iter().copied()));
        let new = |partition: &&Partition| {
            !known.contains(&partition.id) && !finished.contains(&partition.id)
        };
        // The children last: whoever sees their rows sees those of their parents.
        let mut more: Vec<&Partition> = listed.iter().filter(new).collect();
        more.retain(|listed| children.iter().all(|child| child.id != listed.id));
        more.extend(children.iter().filter(|child| !known.contains(&child.id)));
        let mut rows: Vec<Lease> = more
            .into_iter()
            .map(|partition| found::row(partition, Frontier::START))
            .collect();
        found::add_vanished_parents(&mut rows, &known, &finished, &listed);
        if !rows.is_empty() {
            self.leases.add(&self.group, &rows).await?;
        }
        Ok(!rows.is_empty())
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
                Ok(()) if mark.to.is_ended() => {
                    // Nothing of it is left to hold; its children can be taken now.
                    if let Err(error) = self.release(mark.tenancy).await {
                        tracing::debug!(error = %error, "the lease of an ended partition was not released");
                    }
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
