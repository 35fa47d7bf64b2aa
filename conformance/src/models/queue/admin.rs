//! Topics and groups of the queue as things.

use std::sync::Arc;

use annals_core::driver::{Admin, Description, GroupStatus, Lag, TopicSpec};
use annals_core::{
    Cursor, Effect, Error, ErrorKind, Group, Recorded, Result, Retry, Start, TopicName,
};
use async_trait::async_trait;

use super::backlog::Backlog;
use super::{Queue, Topic, capabilities, no_group, no_replay};

#[derive(Debug)]
pub(super) struct QueueAdmin(pub(super) Queue);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for QueueAdmin {
    async fn create(&self, name: &TopicName, spec: &TopicSpec) -> Result<bool> {
        self.0.connection.check()?;
        let asked = [
            spec.partitions.is_some(),
            spec.retention.is_some(),
            spec.kind.is_some(),
        ];
        if asked.contains(&true) {
            return Err(Error::unsupported(
                "a queue has no partitions, keeps what is not settled and has one kind of topic; leave them unset",
            ));
        }
        let mut topics = self.0.service.lock();
        if let Some(there) = topics.by_name.get(name) {
            if spec.dedupe.is_some() && spec.dedupe != there.dedupe {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    Effect::None,
                    Retry::Never,
                    "the topic is there and drops repeated ids for another time; take it as it is, or choose another name",
                ));
            }
            return Ok(false);
        }
        let groups = spec.groups.iter().cloned();
        let topic = Topic {
            groups: groups.map(|group| (group, Backlog::default())).collect(),
            dedupe: spec.dedupe,
            ..Topic::default()
        };
        topics.by_name.insert(name.clone(), topic);
        Ok(true)
    }

    async fn describe(&self, name: &TopicName) -> Result<Description> {
        self.0.on(name, |topic| {
            Ok(Description {
                name: name.clone(),
                capabilities: capabilities(topic.dedupe),
                partitions: Vec::new(),
                incarnation: Arc::from(""),
                end: None,
                details: Vec::new(),
            })
        })
    }

    async fn topics(&self) -> Result<Vec<TopicName>> {
        self.0.connection.check()?;
        Ok(self.0.service.lock().by_name.keys().cloned().collect())
    }

    async fn delete(&self, name: &TopicName) -> Result<()> {
        self.0.on(name, |_| Ok(()))?;
        self.0.service.lock().by_name.remove(name);
        self.0.service.changed();
        Ok(())
    }

    async fn groups(&self, name: &TopicName) -> Result<Vec<GroupStatus>> {
        self.0.on(name, |topic| {
            let status = |group: &Group| GroupStatus {
                group: group.clone(),
                committed: None,
                members: Vec::new(),
            };
            Ok(topic.groups.keys().map(status).collect())
        })
    }

    /// A group sees what is appended after it was made, and can be asked for nothing else.
    async fn create_group(
        &self,
        name: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool> {
        if !matches!(start, None | Some(Start::Latest)) {
            return Err(no_replay());
        }
        self.0.on(name, |topic| {
            let there = topic.groups.contains_key(group);
            topic.groups.entry(group.clone()).or_default();
            Ok(!there)
        })
    }

    async fn delete_group(&self, name: &TopicName, group: &Group) -> Result<()> {
        let removed = self.0.on(name, |topic| Ok(topic.groups.remove(group)))?;
        self.0.service.changed();
        removed.map(|_| ()).ok_or_else(no_group)
    }

    async fn lag(&self, _: &TopicName, _: &Cursor) -> Result<Vec<Lag>> {
        Err(no_replay())
    }

    async fn group_lag(&self, name: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        let now = self.0.service.clock.now();
        self.0.on_group(name, group, |backlog| {
            let oldest = backlog.oldest().and_then(Recorded::stored_at);
            vec![Lag {
                partition: None,
                records: Some(backlog.len()),
                age: oldest.map(|oldest| now.since(oldest)),
            }]
        })
    }
}
