//! Saboteurs of *fenced*.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Holder, Lease, Leases, Mark, Room, Settled,
    Settler, Source, Tenancy, Token, Verdict,
};
use annals_core::{
    AppendReport, Batch, Effect, Error, ErrorKind, Group, PartitionId, Result, Retry, TopicName,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "fence_in_memory",
        mirrors: "remembers the newest epoch in the process and not with the log: a restart lets the old writer in",
        model: Model::Log,
        law: "fenced",
        make: |acted| Arc::new(InMemory(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_condition_opens_the_fence",
        mirrors: "a conditional append goes by a path of its own that asks for no epoch",
        model: Model::Log,
        law: "fenced",
        make: |acted| Arc::new(Conditional(acted)),
    },
    Saboteur {
        name: "fenced_and_stored",
        mirrors: "looks at the epoch after it has written: the refusal is told, and the record is there",
        model: Model::Log,
        law: "fenced",
        make: |acted| Arc::new(StoredAllTheSame(acted)),
    },
    Saboteur {
        name: "zombie_commits",
        mirrors: "a commit is not conditional on the stay: who was replaced moves the group's place (kafka-python without a generation)",
        model: Model::Sharded,
        law: "fenced",
        make: |acted| Arc::new(Zombie(acted, Mutex::default())),
    },
    Saboteur {
        name: "zombie_is_told_yes",
        mirrors: "swallows the refusal of a commit, so that who was replaced believes to have settled",
        model: Model::Log,
        law: "fenced",
        make: |acted| Arc::new(Swallowed(acted)),
    },
    Saboteur {
        name: "zombie_releases",
        mirrors: "a release is not conditional on the stay: who was replaced frees the lease of who replaced it",
        model: Model::Sharded,
        law: "fenced",
        make: |acted| Arc::new(Frees(acted, Mutex::default())),
    },
    Saboteur {
        name: "an_old_receipt_is_told_yes",
        mirrors: "says yes to the delete by an old receipt handle, of a message that another consumer has by now: SQS' DeleteMessage",
        model: Model::Queue,
        law: "fenced",
        make: |acted| Arc::new(OldReceipt(acted, Mutex::default())),
    },
];

/// The newest epoch of each topic, until the process ends.
#[derive(Debug)]
struct InMemory(Acted, Mutex<BTreeMap<TopicName, u64>>);

fn fence() -> Error {
    Error::new(
        ErrorKind::Fenced,
        Effect::None,
        Retry::Never,
        "a newer epoch has taken over; stop this writer",
    )
}

#[async_trait]
impl Hook for InMemory {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let mut options = options.clone();
        if let Some(epoch) = options.epoch.take() {
            self.0.mark();
            let mut newest = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = newest.entry(topic.clone()).or_default();
            if epoch < *newest {
                return Err(fence());
            }
            *newest = epoch;
        }
        below.append(topic, batch, &options).await
    }
}

#[async_trait]
impl Sabotage for InMemory {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        if matches!(what, Disturb::Restart | Disturb::Kill) {
            self.1
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
        below.disturb(topic, what).await
    }
}

#[derive(Debug)]
struct Conditional(Acted);

#[async_trait]
impl Hook for Conditional {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let mut options = options.clone();
        if options.epoch.is_some() && options.expect.is_some() {
            self.0.mark();
            options.epoch = None;
        }
        below.append(topic, batch, &options).await
    }
}

impl Sabotage for Conditional {}

#[derive(Debug)]
struct StoredAllTheSame(Acted);

#[async_trait]
impl Hook for StoredAllTheSame {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await;
        let is_fenced = match &report {
            Err(error) => error.kind() == ErrorKind::Fenced,
            Ok(report) => report
                .outcomes()
                .iter()
                .filter_map(annals_core::Outcome::error)
                .any(|error| error.kind() == ErrorKind::Fenced),
        };
        if is_fenced {
            self.0.mark();
            let plain = AppendOptions {
                epoch: None,
                ..options.clone()
            };
            let _ = below.append(topic, batch, &plain).await?;
        }
        report
    }
}

impl Sabotage for StoredAllTheSame {}

/// The newest stay of each partition.
type Newest = Mutex<BTreeMap<(Group, PartitionId), Tenancy>>;

fn newest(of: &Newest, group: &Group, tenancy: Tenancy) -> Option<Tenancy> {
    let newest = of.lock().unwrap_or_else(PoisonError::into_inner);
    newest.get(&(group.clone(), tenancy.partition)).copied()
}

async fn taken(
    of: &Newest,
    below: &dyn Leases,
    group: &Group,
    seen: &Lease,
    by: &Arc<str>,
) -> Result<Option<Tenancy>> {
    let taken = below.take(group, seen, by).await?;
    if let Some(tenancy) = taken {
        let mut newest = of.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert((group.clone(), seen.partition), tenancy);
    }
    Ok(taken)
}

#[derive(Debug)]
struct Zombie(Acted, Newest);

#[async_trait]
impl Hook for Zombie {
    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        taken(&self.1, below, group, seen, by).await
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let mut told = below.commit(group, marks).await?;
        for (mark, told) in marks.iter().zip(&mut told) {
            if told.is_err()
                && let Some(tenancy) = newest(&self.1, group, mark.tenancy)
            {
                self.0.mark();
                let mark = Mark { tenancy, ..*mark };
                // The refusal is told, and it is stored all the same.
                below.commit(group, &[mark]).await?;
            }
        }
        Ok(told)
    }
}

impl Sabotage for Zombie {}

#[derive(Debug)]
struct Swallowed(Acted);

#[async_trait]
impl Hook for Swallowed {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let told = below.commit(group, marks).await?;
        let swallow = |told: Result<()>| {
            if told.is_err() {
                self.0.mark();
            }
            Ok(())
        };
        Ok(told.into_iter().map(swallow).collect())
    }
}

impl Sabotage for Swallowed {}

#[derive(Debug)]
struct Frees(Acted, Newest);

#[async_trait]
impl Hook for Frees {
    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        taken(&self.1, below, group, seen, by).await
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        match newest(&self.1, group, tenancy) {
            Some(newest) if newest != tenancy => {
                self.0.mark();
                below.release(group, newest).await
            }
            _ => below.release(group, tenancy).await,
        }
    }
}

impl Sabotage for Frees {}

/// Which token each record was lent by last, and who lent it.
#[derive(Default, Debug)]
struct Receipts {
    of: BTreeMap<(u64, u64), Vec<u8>>,
    newest: BTreeMap<Vec<u8>, Token>,
}

/// Says yes to who settles with a token of a record that was lent again since.
#[derive(Debug)]
struct OldReceipt(Acted, Mutex<Receipts>);

#[async_trait]
impl Hook for OldReceipt {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        let mut receipts = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        for delivered in out.iter().skip(before) {
            if let Holder::Token(token) = delivered.holder {
                let value = delivered.record.value().to_vec();
                receipts.of.insert((token.epoch, token.slot), value.clone());
                receipts.newest.insert(value, token);
            }
        }
        told
    }

    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        let mut told = below.settle(settlements).await?;
        for ((token, verdict), told) in settlements.iter().zip(&mut told) {
            let known = {
                let receipts = self.1.lock().unwrap_or_else(PoisonError::into_inner);
                let value = receipts.of.get(&(token.epoch, token.slot));
                value.is_some_and(|value| receipts.newest.get(value) != Some(token))
            };
            if known && *verdict == Verdict::Done && matches!(told, Settled::Expired) {
                self.0.mark();
                *told = Settled::Yes;
            }
        }
        Ok(told)
    }
}

impl Sabotage for OldReceipt {}
