//! Saboteurs of *isolated*.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{AppendOptions, Backend, Inbound, Lease, Leases, Mark, SubscribeOptions};
use annals_core::{AppendReport, Batch, Frontier, Group, PartitionId, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::Hook;

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "topic_and_group_are_joined_by_a_dot",
        mirrors: "calls the queue of a group topic.group, so that `a.b` + `c` and `a` + `b.c` are one: names joined with what they may hold",
        model: Model::Queue,
        law: "isolated",
        make: |acted| Arc::new(Joined(acted, Mutex::default())),
    },
    Saboteur {
        name: "commits_outlive_the_topic",
        mirrors: "finds the commits of a group of that name and goes on there, though its topic is another one: franz-go's after a topic was made again (#1426)",
        model: Model::Log,
        law: "isolated",
        make: |acted| Arc::new(Outlive(acted, Mutex::default())),
    },
    Saboteur {
        name: "names_do_not_differ_by_case",
        mirrors: "keeps topics in directories of a file system that knows no upper case",
        model: Model::Sharded,
        law: "isolated",
        make: |acted| Arc::new(CaseFolds(acted)),
    },
    Saboteur {
        name: "long_names_are_cut",
        mirrors: "cuts the names of topics to what the service has room for, and finds another one there: identifiers that PostgreSQL cuts to 63 bytes",
        model: Model::Log,
        law: "isolated",
        make: |acted| Arc::new(Cut(acted, Mutex::default())),
    },
];

/// The first topic of each name that is cut to what there is room for.
#[derive(Debug)]
struct Cut(Acted, Mutex<BTreeMap<String, TopicName>>);

#[async_trait]
impl Hook for Cut {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let first = {
            let mut topics = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let cut = topic.as_str().chars().take(32).collect();
            topics.entry(cut).or_insert_with(|| topic.clone()).clone()
        };
        if first != *topic {
            self.0.mark();
        }
        below.append(&first, batch, options).await
    }
}

impl Sabotage for Cut {}

/// The first topic and group of each joined name.
#[derive(Debug)]
struct Joined(Acted, Mutex<BTreeMap<String, (TopicName, Group)>>);

#[async_trait]
impl Hook for Joined {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let (at, of) = {
            let mut queues = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let first = queues.entry(format!("{topic}.{group}"));
            first
                .or_insert_with(|| (topic.clone(), group.clone()))
                .clone()
        };
        if (&at, &of) != (topic, group) {
            self.0.mark();
        }
        below.subscribe(&at, &of, options).await
    }
}

impl Sabotage for Joined {}

/// The last commit of each group, by its name alone.
#[derive(Debug)]
struct Outlive(Acted, Mutex<BTreeMap<(Group, PartitionId), Frontier>>);

impl Outlive {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Group, PartitionId), Frontier>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for Outlive {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let mut table = below.load(group).await?;
        let commits = self.lock();
        for lease in table.iter_mut().flatten() {
            let old = commits.get(&(group.clone(), lease.partition));
            if let (Frontier::Start { .. }, Some(old)) = (lease.at, old) {
                self.0.mark();
                lease.at = *old;
            }
        }
        Ok(table)
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        {
            let mut commits = self.lock();
            for mark in marks {
                commits.insert((group.clone(), mark.tenancy.partition), mark.to);
            }
        }
        below.commit(group, marks).await
    }
}

impl Sabotage for Outlive {}

#[derive(Debug)]
struct CaseFolds(Acted);

#[async_trait]
impl Hook for CaseFolds {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let lower = TopicName::new(topic.as_str().to_ascii_lowercase())?;
        if lower != *topic && below.capabilities(&lower).await.is_ok() {
            self.0.mark();
            return below.append(&lower, batch, options).await;
        }
        below.append(topic, batch, options).await
    }
}

impl Sabotage for CaseFolds {}
