//! The administration that users hold: a backend's, whose errors say where they come from.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cursor::Cursor;
use crate::driver::{Admin, Description, GroupStatus, Lag, TopicSpec};
use crate::error::{Error, Operation, Result};
use crate::name::{Group, TopicName};
use crate::start::Start;

/// Adds operation, topic and scheme to every error, as the other handles do.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) inner: Arc<dyn Admin>,
    pub(crate) scheme: &'static str,
}

impl Placed {
    fn place(&self, topic: &TopicName) -> impl FnOnce(Error) -> Error {
        let scheme = self.scheme;
        move |error| {
            let error = error.during(Operation::Admin).on_topic(topic);
            error.by(scheme)
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for Placed {
    async fn create(&self, topic: &TopicName, spec: &TopicSpec) -> Result<bool> {
        let made = self.inner.create(topic, spec).await;
        made.map_err(self.place(topic))
    }

    async fn describe(&self, topic: &TopicName) -> Result<Description> {
        let described = self.inner.describe(topic).await;
        described.map_err(self.place(topic))
    }

    async fn topics(&self) -> Result<Vec<TopicName>> {
        let topics = self.inner.topics().await;
        topics.map_err(|e| e.during(Operation::Admin).by(self.scheme))
    }

    async fn delete(&self, topic: &TopicName) -> Result<()> {
        let deleted = self.inner.delete(topic).await;
        deleted.map_err(self.place(topic))
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupStatus>> {
        let groups = self.inner.groups(topic).await;
        groups.map_err(self.place(topic))
    }

    async fn create_group(
        &self,
        topic: &TopicName,
        group: &Group,
        start: Option<Start>,
    ) -> Result<bool> {
        let made = self.inner.create_group(topic, group, start).await;
        made.map_err(self.place(topic))
    }

    async fn delete_group(&self, topic: &TopicName, group: &Group) -> Result<()> {
        let deleted = self.inner.delete_group(topic, group).await;
        deleted.map_err(self.place(topic))
    }

    async fn lag(&self, topic: &TopicName, cursor: &Cursor) -> Result<Vec<Lag>> {
        let lags = self.inner.lag(topic, cursor).await;
        lags.map_err(self.place(topic))
    }

    async fn group_lag(&self, topic: &TopicName, group: &Group) -> Result<Vec<Lag>> {
        let lags = self.inner.group_lag(topic, group).await;
        lags.map_err(self.place(topic))
    }
}
