//! Topics and groups as things.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{Dedupe, Retention};
use annals_core::driver::{Admin, Description, GroupStatus, Lag, Partition, Room, TopicSpec};
use annals_core::{
    Cursor, Effect, Error, ErrorKind, Frontier, Group, PartitionId, Result, Retry, Start, TopicName,
};
use async_trait::async_trait;

use crate::append::incarnation;
use crate::backend::{Embedded, capabilities};
use crate::config::{check_dedupe, check_retention};
use crate::error::{blocking, detached, of_io};
use crate::log::options::Keep;
use crate::log::{self, Scan, Settings, StopAt, Topic, TopicId};
use crate::read::{before, check_end, check_origin, cursor, frontier, locate, next_of};

/// The settings of a new topic.
fn settings(dedupe: Dedupe, retention: Retention) -> Settings {
    Settings {
        dedupe: match dedupe {
            Dedupe::None => log::Dedupe::Off,
            Dedupe::Window(window) => log::Dedupe::Window(window),
            Dedupe::Forever => log::Dedupe::Forever,
        },
        keep: match retention {
            Retention::Forever => Keep::Forever,
            Retention::Age(age) => Keep::Age(age),
            Retention::Bytes(bytes) => Keep::Bytes(bytes),
        },
    }
}

pub(crate) fn dedupe_of(settings: &Settings) -> Dedupe {
    match settings.dedupe {
        log::Dedupe::Off => Dedupe::None,
        log::Dedupe::Window(window) => Dedupe::Window(window),
        log::Dedupe::Forever => Dedupe::Forever,
    }
}

pub(crate) fn retention_of(settings: &Settings) -> Retention {
    match settings.keep {
        Keep::Forever => Retention::Forever,
        Keep::Age(age) => Retention::Age(age),
        Keep::Bytes(bytes) => Retention::Bytes(bytes),
    }
}

/// Times are kept in whole milliseconds.
fn whole(retention: Retention) -> Retention {
    match retention {
        Retention::Age(age) => Retention::Age(millis(age)),
        other => other,
    }
}

fn millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1))
}

pub(crate) fn partition() -> Partition {
    Partition {
        id: PartitionId::ONLY,
        name: "0".into(),
        parents: Vec::new(),
        open: true,
    }
}

fn new_id() -> Result<TopicId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            Effect::None,
            Retry::Backoff,
            format!("no random number for a new topic can be had: {e}"),
        )
    })?;
    Ok(TopicId(id))
}

impl Embedded {
    fn check_spec(spec: &TopicSpec) -> Result<()> {
        if let Some(n) = spec.partitions.filter(|n| *n != 1) {
            return Err(Error::unsupported(format!(
                "a topic of the embedded log has one partition, not {n}"
            )));
        }
        if let Some(kind) = &spec.kind {
            return Err(Error::unsupported(format!(
                "the embedded log has one kind of topic, none called {kind:?}"
            )));
        }
        spec.dedupe
            .map_or(Ok(()), |window| check_dedupe(Dedupe::Window(window)))?;
        spec.retention.map_or(Ok(()), check_retention)
    }

    /// What is there and differs from what is asked for.
    fn difference(topic: &Topic, spec: &TopicSpec) -> Option<String> {
        let there = topic.settings();
        if let Some(asked) = spec.retention.map(whole)
            && asked != retention_of(&there)
        {
            return Some(format!("its retention is {:?}", retention_of(&there)));
        }
        if let Some(asked) = spec.dedupe.map(millis)
            && Dedupe::Window(asked) != dedupe_of(&there)
        {
            return Some(format!("its dedupe is {:?}", dedupe_of(&there)));
        }
        None
    }

    async fn existing(&self, topic: &TopicName) -> Result<Option<Arc<Topic>>> {
        match self.root().topic(topic).await {
            Ok(topic) => Ok(Some(topic)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn lag_from(&self, topic: &TopicName, place: Frontier) -> Result<Vec<Lag>> {
        let topic = self.root().topic(topic).await?;
        blocking(move || {
            let end = topic.refresh()?;
            check_end(&place, &end)?;
            let next = match place {
                Frontier::Start { .. } => 0,
                Frontier::Since(time) => topic.position_at(time)?,
                Frontier::After { position, .. } => next_of(&position)?,
                Frontier::Ended { .. } => end.next,
            };
            let next = next.max(end.earliest);
            let records = end.next.saturating_sub(next);
            let mut age = None;
            if records > 0 {
                let mut first = Vec::new();
                let room = Room {
                    records: 1,
                    bytes: 1,
                };
                let mut scan = Scan::new(Arc::clone(&topic), next, StopAt::Never);
                // A step may find nothing but the way; a gap in between is no matter here.
                for _ in 0..4 {
                    if first.is_empty() {
                        match scan.fetch(room, &mut first) {
                            // How many there are is known even where the first one is lost.
                            Err(e) if e.kind() == ErrorKind::Corrupt => break,
                            fetched => fetched?,
                        };
                    }
                }
                let now = topic.disk().now();
                age = first
                    .first()
                    .and_then(annals_core::Recorded::stored_at)
                    .map(|stored| now.since(stored));
            }
            Ok(vec![Lag {
                partition: Some(PartitionId::ONLY),
                records: Some(records),
                age,
            }])
        })
        .await
    }
}

#[async_trait]
impl Admin for Embedded {
    async fn create(&self, topic: &TopicName, spec: &TopicSpec) -> Result<bool> {
        Self::check_spec(spec)?;
        let mut made = false;
        let there = if let Some(there) = self.existing(topic).await? {
            there
        } else {
            let dedupe = spec.dedupe.map_or(self.config().dedupe, |window| {
                Dedupe::Window(millis(window))
            });
            let retention = spec.retention.unwrap_or(self.config().retention);
            let settings = settings(dedupe, whole(retention));
            let open = self.root().open(topic);
            let (root, name) = (self.root(), topic.clone());
            made = detached(async move {
                let _turn = open.turn().await;
                blocking(move || {
                    root.claim()?;
                    match log::create(&*root.disk, &root.dir, &name, new_id()?, settings) {
                        Ok(()) => Ok(true),
                        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
                        Err(e) => Err(e),
                    }
                })
                .await
            })
            .await?;
            self.root().topic(topic).await?
        };
        if let Some(difference) = Self::difference(&there, spec) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                Effect::None,
                Retry::Never,
                format!("the topic is there and not as asked for: {difference}"),
            )
            .on_topic(topic));
        }
        for group in &spec.groups {
            self.create_group(topic, group, None).await?;
        }
        Ok(made)
    }

    async fn describe(&self, topic: &TopicName) -> Result<Description> {
        let there = self.root().topic(topic).await?;
        let (name, scheme, memory) = (topic.clone(), self.name(), self.in_memory());
        blocking(move || {
            let end = there.refresh()?;
            let sealed = there.sealed();
            let bytes: u64 = sealed.iter().map(|(_, bytes, _)| bytes).sum();
            Ok(Description {
                name,
                capabilities: capabilities(&there.settings(), memory),
                partitions: vec![partition()],
                incarnation: incarnation(there.id()),
                end: Some(cursor(scheme, &there, before(end.next))),
                details: vec![
                    ("segments", (sealed.len() + 1).to_string()),
                    ("bytes", bytes.saturating_add(end.bytes).to_string()),
                    ("earliest", end.earliest.to_string()),
                ],
            })
        })
        .await
    }

    async fn topics(&self) -> Result<Vec<TopicName>> {
        let root = self.root();
        root.check()?;
        blocking(move || {
            let entries = match root.disk.list(&root.dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(of_io("listing the log's directory", e)),
            };
            let mut topics: Vec<_> = entries
                .into_iter()
                .filter(|entry| entry.dir)
                .filter_map(|entry| TopicName::new(entry.name).ok())
                // What cannot be looked into may be one: whoever opens it is told why.
                .filter(|name| {
                    let dir = root.dir.join(name.as_str());
                    log::holds_topic(&*root.disk, &dir).unwrap_or(true)
                })
                .collect();
            topics.sort();
            Ok(topics)
        })
        .await
    }

    async fn delete(&self, topic: &TopicName) -> Result<()> {
        let open = self.root().open(topic);
        let (root, name) = (self.root(), topic.clone());
        detached(async move {
            let _turn = Arc::clone(&open).turn().await;
            blocking(move || root.delete(&name, &open)).await
        })
        .await
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupStatus>> {
        let there = self.root().topic(topic).await?;
        let groups = self.root().open(topic).groups.clone();
        let scheme = self.name();
        blocking(move || {
            let rows = groups
                .list()?
                .into_iter()
                .map(|(group, lease)| match lease {
                    Ok(lease) => GroupStatus {
                        group,
                        committed: Some(cursor(scheme, &there, lease.at)),
                        members: lease.owner.into_iter().collect(),
                    },
                    // The others are as they are; asked for its lag, it says what is wrong.
                    Err(_) => GroupStatus {
                        group,
                        committed: None,
                        members: Vec::new(),
                    },
                });
            Ok(rows.collect())
        })
        .await
    }

    async fn create_group(
        &self,
        topic: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool> {
        let start = start.unwrap_or(Start::Beginning);
        let at = locate(&self.root(), self.name(), topic, &start).await?;
        let at = frontier(&at).ok_or_else(|| {
            Error::config("the cursor leaves out the topic's one partition; a group reads it")
        })?;
        let there = self.root().topic(topic).await?;
        let groups = self.root().open(topic).groups.clone();
        let group = group.clone();
        blocking(move || {
            // Stored as the place that it is now: what goes afterwards is a gap.
            let at = match at {
                Frontier::EARLIEST => before(there.earliest_now()?),
                at => at,
            };
            groups.create(&group, at)
        })
        .await
    }

    async fn delete_group(&self, topic: &TopicName, group: &Group) -> Result<()> {
        self.root().topic(topic).await?;
        let groups = self.root().open(topic).groups.clone();
        let group = group.clone();
        blocking(move || groups.delete(&group)).await
    }

    async fn lag(&self, topic: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>> {
        let there = self.root().topic(topic).await?;
        check_origin(cursor, self.name(), topic, there.id())?;
        match frontier(cursor) {
            Some(place) => self.lag_from(topic, place).await,
            None => Ok(Vec::new()),
        }
    }

    async fn group_lag(&self, topic: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        self.root().topic(topic).await?;
        let groups = self.root().open(topic).groups.clone();
        let of = group.clone();
        let lease = blocking(move || groups.find(&of)).await?.ok_or_else(|| {
            Error::not_found(format!("there is no group \"{group}\"")).on_topic(topic)
        })?;
        self.lag_from(topic, lease.at).await
    }
}
