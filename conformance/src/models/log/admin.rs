//! Topics and groups of the log as things.

use std::sync::Arc;

use annals_core::capability::Retention;
use annals_core::driver::{Admin, Description, GroupStatus, Lag, Lease, TopicSpec};
use annals_core::{
    Cursor, Effect, Error, ErrorKind, Frontier, Group, PartitionId, Result, Retry, Start, TopicName,
};
use async_trait::async_trait;

use super::groups::LogGroup;
use super::topic::{self, Topic};
use super::{Log, capabilities, the_partition};

#[derive(Debug)]
pub(super) struct LogAdmin(pub(super) Log);

/// The one row of a new group.
fn first_row(at: Frontier, epoch: u64) -> LogGroup {
    let row = Lease {
        partition: PartitionId::ONLY,
        owner: None,
        counter: 0,
        at,
        parents: Vec::new(),
        attempts: 0,
    };
    LogGroup::new(&[row], epoch)
}

impl LogAdmin {
    fn origin(&self, name: &TopicName, topic: &Topic) -> Arc<annals_core::Origin> {
        self.0.service.origin(name, &topic.incarnation)
    }

    fn lag_from(&self, topic: &Topic, from: &Frontier) -> Vec<Lag> {
        let (next, _) = topic.resume(from);
        let oldest = topic.get(next).and_then(annals_core::Recorded::stored_at);
        vec![Lag {
            partition: Some(PartitionId::ONLY),
            records: Some(topic.next().saturating_sub(next)),
            age: oldest.map(|oldest| self.0.service.clock.now().since(oldest)),
        }]
    }
}

fn committed(group: &LogGroup) -> Frontier {
    group
        .table
        .rows()
        .first()
        .map_or(Frontier::START, |row| row.at)
}

fn no_group() -> Error {
    Error::not_found("there is no such group")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for LogAdmin {
    async fn create(&self, name: &TopicName, spec: &TopicSpec) -> Result<bool> {
        self.0.connection.check()?;
        if spec.partitions.is_some_and(|n| n != 1) {
            return Err(Error::unsupported("this log has one partition a topic"));
        }
        if spec.kind.is_some() {
            return Err(Error::unsupported("this log has one kind of topic"));
        }
        let mut topics = self.0.service.lock();
        if let Some(there) = topics.by_name.get(name) {
            let retention = |wanted: Retention| wanted != there.retention;
            let differs = [
                ("retention", spec.retention.is_some_and(retention)),
                ("dedupe", spec.dedupe.is_some_and(|d| d != there.dedupe)),
            ];
            return match differs.iter().find(|(_, differs)| *differs) {
                None => Ok(false),
                Some((what, _)) => Err(Error::new(
                    ErrorKind::AlreadyExists,
                    Effect::None,
                    Retry::Never,
                    format!("the topic is there with another {what}; open it as it is"),
                )),
            };
        }
        let mut topic = Topic::new(topics.incarnation(), spec);
        for group in &spec.groups {
            let made = first_row(Frontier::START, self.0.service.epoch());
            topic.groups.insert(group.clone(), made);
        }
        topics.by_name.insert(name.clone(), topic);
        Ok(true)
    }

    async fn describe(&self, name: &TopicName) -> Result<Description> {
        self.0.on(name, |topic| {
            let end = topic.locate(&Start::Latest);
            Ok(Description {
                name: name.clone(),
                capabilities: capabilities(topic),
                partitions: vec![the_partition()],
                incarnation: Arc::clone(&topic.incarnation),
                end: Some(topic::cursor(self.origin(name, topic), end)),
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
            let origin = self.origin(name, topic);
            Ok(topic
                .groups
                .iter()
                .map(|(name, group)| GroupStatus {
                    group: name.clone(),
                    committed: Some(topic::cursor(Arc::clone(&origin), committed(group))),
                    members: group
                        .table
                        .rows()
                        .into_iter()
                        .filter(|_| group.is_owned())
                        .filter_map(|row| row.owner)
                        .collect(),
                })
                .collect())
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
                    topic::frontier_of(cursor).unwrap_or(Frontier::START)
                }
                Some(start) => topic.locate(start),
                None => Frontier::START,
            };
            // Stored as the place that it is now: what goes afterwards is a gap.
            let at = match at {
                Frontier::EARLIEST => topic::before(topic.first()),
                at => at,
            };
            let made = first_row(at, self.0.service.epoch());
            topic.groups.insert(group.clone(), made);
            Ok(true)
        })
    }

    async fn delete_group(&self, name: &TopicName, group: &Group) -> Result<()> {
        self.0.on(name, |topic| {
            if topic.groups.get(group).ok_or_else(no_group)?.is_owned() {
                return Err(Error::new(
                    ErrorKind::Blocked,
                    Effect::None,
                    Retry::Backoff,
                    "a member is in this group; close it first",
                ));
            }
            topic.groups.remove(group);
            Ok(())
        })
    }

    async fn lag(&self, name: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>> {
        self.0.on(name, |topic| {
            self.0.check_cursor(name, topic, cursor)?;
            let from = topic::frontier_of(cursor).unwrap_or(Frontier::START);
            Ok(self.lag_from(topic, &from))
        })
    }

    async fn group_lag(&self, name: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        self.0.on(name, |topic| {
            let group = topic.groups.get(group).ok_or_else(no_group)?;
            Ok(self.lag_from(topic, &committed(group)))
        })
    }
}
