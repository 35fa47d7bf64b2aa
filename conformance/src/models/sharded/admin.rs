//! Topics and groups of the sharded log as things.

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::Retention;
use annals_core::driver::{Admin, Description, GroupStatus, Lag, TopicSpec};
use annals_core::{
    Cursor, Effect, Error, ErrorKind, Frontier, Group, PartitionId, Recorded, Rest, Result, Retry,
    Start, TopicName,
};
use async_trait::async_trait;

use super::topic::Topic;
use super::{Sharded, capabilities};
use crate::models::leases::Table;

/// Unless a topic was made with others.
const SHARDS: u32 = 2;
const RETENTION: Retention = Retention::Age(Duration::from_secs(24 * 60 * 60));

#[derive(Debug)]
pub(super) struct ShardedAdmin(pub(super) Sharded);

impl ShardedAdmin {
    /// How far each listed shard is read by `at`.
    fn lags(&self, topic: &Topic, at: impl Fn(PartitionId) -> Option<Frontier>) -> Vec<Lag> {
        let now = self.0.service.clock.now();
        topic
            .listed()
            .into_iter()
            .filter_map(|listed| {
                let (shard, at) = (topic.shard(listed.id)?, at(listed.id)?);
                let oldest = shard.after(&at).next().and_then(Recorded::stored_at);
                Some(Lag {
                    partition: Some(listed.id),
                    records: Some(shard.after(&at).count() as u64),
                    age: oldest.map(|oldest| now.since(oldest)),
                })
            })
            .collect()
    }

    fn place(&self, name: &TopicName, topic: &Topic, table: &Table) -> Cursor {
        let origin = self.0.service.origin(name, &topic.incarnation);
        let places = table.rows().into_iter().map(|row| (row.partition, row.at));
        Cursor::new(origin, places, Rest::FromStart)
    }

    /// How far a cursor has read a shard: what it does not name lies before what it names and is
    /// read, or comes behind it and is not.
    fn frontier(topic: &Topic, cursor: &Cursor, id: PartitionId) -> Option<Frontier> {
        match (cursor.frontier(id), cursor.rest()) {
            (Some(at), _) => Some(*at),
            (None, _) if topic.is_before(id, cursor) => Some(Frontier::ENDED),
            (None, Rest::FromStart) => Some(Frontier::START),
            (None, Rest::Outside) => None,
        }
    }
}

fn no_group() -> Error {
    Error::not_found("there is no such group")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for ShardedAdmin {
    async fn create(&self, name: &TopicName, spec: &TopicSpec) -> Result<bool> {
        self.0.connection.check()?;
        if spec.dedupe.is_some() || spec.kind.is_some() {
            return Err(Error::unsupported(
                "a sharded log recognises no ids and has one kind of topic; leave both unset",
            ));
        }
        let mut topics = self.0.service.lock();
        if let Some(there) = topics.by_name.get(name) {
            if spec
                .retention
                .is_some_and(|wanted| wanted != there.retention)
            {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    Effect::None,
                    Retry::Never,
                    "the topic is there with another retention; open it as it is",
                ));
            }
            return Ok(false);
        }
        let retention = spec.retention.unwrap_or(RETENTION);
        let shards = spec.partitions.unwrap_or(SHARDS);
        let mut topic = Topic::new(topics.incarnation(), retention, shards);
        let origin = self.0.service.origin(name, &topic.incarnation);
        let first = topic.first_rows(&Cursor::start(origin))?;
        for group in &spec.groups {
            let table = Table::new(&first, self.0.service.epoch());
            topic.groups.insert(group.clone(), table);
        }
        topics.by_name.insert(name.clone(), topic);
        Ok(true)
    }

    async fn describe(&self, name: &TopicName) -> Result<Description> {
        self.0.on(name, |topic| {
            let origin = self.0.service.origin(name, &topic.incarnation);
            Ok(Description {
                name: name.clone(),
                capabilities: capabilities(topic),
                partitions: topic.listed(),
                incarnation: Arc::clone(&topic.incarnation),
                end: Some(topic.locate(origin, &Start::Latest)),
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
            let status = |(name_of, table): (&Group, &Table)| GroupStatus {
                group: name_of.clone(),
                committed: Some(self.place(name, topic, table)),
                members: table.rows().into_iter().filter_map(|r| r.owner).collect(),
            };
            Ok(topic.groups.iter().map(status).collect())
        })
    }

    async fn create_group(
        &self,
        name: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool> {
        self.0.on(name, |topic| {
            if topic.groups.contains_key(group) {
                return Ok(false);
            }
            let at = match &start {
                Some(Start::After(cursor)) => {
                    self.0.check_cursor(name, topic, cursor)?;
                    cursor.clone()
                }
                start => {
                    let origin = self.0.service.origin(name, &topic.incarnation);
                    topic.locate(origin, start.as_ref().unwrap_or(&Start::Beginning))
                }
            };
            let table = Table::new(&topic.first_rows(&at)?, self.0.service.epoch());
            topic.groups.insert(group.clone(), table);
            Ok(true)
        })
    }

    async fn delete_group(&self, name: &TopicName, group: &Group) -> Result<()> {
        self.0.on(name, |topic| {
            let table = topic.groups.get(group).ok_or_else(no_group)?;
            if table.rows().iter().any(|row| row.owner.is_some()) {
                return Err(Error::new(
                    ErrorKind::Blocked,
                    Effect::None,
                    Retry::Backoff,
                    "a lease of this group names a holder; close its members first",
                ));
            }
            topic.groups.remove(group);
            Ok(())
        })
    }

    async fn lag(&self, name: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>> {
        self.0.on(name, |topic| {
            self.0.check_cursor(name, topic, cursor)?;
            Ok(self.lags(topic, |id| Self::frontier(topic, cursor, id)))
        })
    }

    async fn group_lag(&self, name: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        self.0.on(name, |topic| {
            let table = topic.groups.get(group).ok_or_else(no_group)?;
            let at = self.place(name, topic, table);
            Ok(self.lags(topic, |id| Self::frontier(topic, &at, id)))
        })
    }
}
