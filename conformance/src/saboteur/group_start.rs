//! Saboteurs of *group start*.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::driver::{
    AppendOptions, Backend, Holder, Inbound, Lease, Leases, Mark, Room, Settling, SubscribeOptions,
    Verdict,
};
use annals_core::{
    AppendReport, Batch, Frontier, Group, Outcome, PartitionId, Position, Result, Start, Stored,
    TopicName,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "every_group_starts_at_the_beginning",
        mirrors: "makes a group without the start that was asked for: Kafka's auto.offset.reset where the option is not passed on",
        model: Model::Sharded,
        law: "group_start",
        make: |acted| Arc::new(Founded(acted, |_| Frontier::START)),
    },
    Saboteur {
        name: "a_group_starts_one_too_far",
        mirrors: "a cursor names the last record read, and is taken for the next one to read",
        model: Model::Log,
        law: "group_start",
        make: |acted| {
            Arc::new(Founded(acted, |at| match at.position() {
                Some(position) => match position.number_u64() {
                    Some(number) => {
                        Frontier::after(Position::new(position.partition(), number + 1))
                    }
                    None => at,
                },
                None => at,
            }))
        },
    },
    Saboteur {
        name: "latest_is_resolved_when_it_is_read",
        mirrors: "a group that has committed nothing starts at the end as it is now: what came while its first member was dead is skipped (auto.offset.reset=latest)",
        model: Model::Log,
        law: "group_start",
        make: |acted| Arc::new(LateStart(acted, Mutex::default())),
    },
    Saboteur {
        name: "stores_into_the_void",
        mirrors: "says a record is stored that no queue is bound for: AMQP without mandatory, SNS without subscription",
        model: Model::Queue,
        law: "group_start",
        make: |acted| Arc::new(Void(acted)),
    },
    Saboteur {
        name: "a_late_group_is_made_in_silence",
        mirrors: "declares the queue of a group that is not there, after records were published that it will never see",
        model: Model::Queue,
        law: "group_start",
        make: |acted| Arc::new(Silent(acted)),
    },
    Saboteur {
        name: "latest_purges_an_old_group",
        mirrors: "an old group that is opened with Latest skips what waits for it: a seek to the end at every start",
        model: Model::Queue,
        law: "group_start",
        make: |acted| Arc::new(Purges(acted)),
    },
    Saboteur {
        name: "a_last_group_is_remembered",
        mirrors: "a topic that once had a group takes records for nobody: the answer to whether there is one is cached",
        model: Model::Queue,
        law: "group_start",
        make: |acted| Arc::new(Remembers(acted, Mutex::default())),
    },
];

#[derive(Debug)]
struct Founded(Acted, fn(Frontier) -> Frontier);

#[async_trait]
impl Hook for Founded {
    async fn found(&self, below: &dyn Leases, group: &Group, first: &[Lease]) -> Result<bool> {
        let mut first = first.to_vec();
        for row in &mut first {
            let at = (self.1)(row.at);
            if at != row.at {
                self.0.mark();
            }
            row.at = at;
        }
        below.found(group, &first).await
    }
}

impl Sabotage for Founded {}

/// Remembers which groups have committed something, and what was committed last by any.
#[derive(Debug)]
struct LateStart(Acted, Mutex<Seen>);

#[derive(Default, Debug)]
struct Seen {
    committed: BTreeSet<(Group, PartitionId)>,
    end: Option<Position>,
}

#[async_trait]
impl Hook for LateStart {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let last = report.outcomes().iter().rev().find_map(Outcome::stored);
        let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        seen.end = last.and_then(|stored| stored.position).or(seen.end);
        Ok(report)
    }

    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let mut rows = below.load(group).await?;
        let seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows.iter_mut().flatten() {
            let is_new = !seen.committed.contains(&(group.clone(), row.partition));
            let waits = row.owner.is_none() && row.counter > 0;
            if let (true, true, Some(end), Frontier::After { .. }) =
                (is_new, waits, seen.end, row.at)
            {
                self.0.mark();
                row.at = Frontier::after(end);
            }
        }
        Ok(rows)
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        {
            let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let marks = marks.iter().map(|mark| mark.tenancy.partition);
            seen.committed
                .extend(marks.map(|partition| (group.clone(), partition)));
        }
        below.commit(group, marks).await
    }
}

impl Sabotage for LateStart {}

#[derive(Debug)]
struct Void(Acted);

#[async_trait]
impl Hook for Void {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let outcomes = report
            .into_outcomes()
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Rejected(error) if error.kind() == annals_core::ErrorKind::NoGroup => {
                    self.0.mark();
                    Outcome::Stored(Stored::somewhere())
                }
                outcome => outcome,
            });
        Ok(AppendReport::new(outcomes.collect()))
    }
}

impl Sabotage for Void {}

#[derive(Debug)]
struct Silent(Acted);

#[async_trait]
impl Hook for Silent {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        match below.subscribe(topic, group, options).await {
            Err(error) if error.kind() == annals_core::ErrorKind::NotFound => {
                self.0.mark();
                let mut options = options.clone();
                options.start = Some(Start::Latest);
                below.subscribe(topic, group, &options).await
            }
            inbound => inbound,
        }
    }
}

impl Sabotage for Silent {}

#[derive(Debug)]
struct Purges(Acted);

#[async_trait]
impl Hook for Purges {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let mut inbound = below.subscribe(topic, group, options).await?;
        if !inbound.existed || options.start != Some(Start::Latest) {
            return Ok(inbound);
        }
        let room = Room {
            records: 1_000,
            bytes: 1 << 20,
        };
        let mut old = Vec::new();
        let wait = Duration::from_millis(1);
        while let Ok(Ok(_)) = tokio::time::timeout(wait, inbound.source.fetch(room, &mut old)).await
        {
        }
        let old: Vec<_> = old
            .iter()
            .filter_map(|delivered| match delivered.holder {
                Holder::Token(token) => Some((token, Verdict::Done)),
                Holder::Tenancy(_) => None,
            })
            .collect();
        if let (Settling::Each(settler), false) = (&inbound.settling, old.is_empty()) {
            self.0.mark();
            settler.settle(&old).await?;
        }
        Ok(inbound)
    }
}

impl Sabotage for Purges {}

/// The topics that took a record.
#[derive(Debug)]
struct Remembers(Acted, Mutex<BTreeSet<TopicName>>);

#[async_trait]
impl Hook for Remembers {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let report = below.append(topic, batch, options).await?;
        let mut had = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let is_void = report.outcomes().iter().any(|outcome| {
            let kind = outcome.error().map(annals_core::Error::kind);
            kind == Some(annals_core::ErrorKind::NoGroup)
        });
        if !is_void {
            had.insert(topic.clone());
        } else if had.contains(topic) {
            self.0.mark();
            let stored = Outcome::Stored(Stored::somewhere());
            return Ok(AppendReport::all(batch.len(), &stored));
        }
        Ok(report)
    }
}

impl Sabotage for Remembers {}
