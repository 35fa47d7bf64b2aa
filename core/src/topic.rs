//! An open topic, and how it is opened.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::bus::Bus;
use crate::capability::{Capabilities, Claim, Need, Tail};
use crate::cursor::Cursor;
use crate::driver::{Lag, TopicSpec};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::name::{Group, TopicName};
use crate::pending::Pending;
use crate::replay::retry;
use crate::start::Start;

/// A named, durable, append-only sequence of records. Cheap to clone.
///
/// A handle stands for the name: when the topic is deleted and created again, it writes to and
/// reads the new one. Cursors carry the topic's incarnation, so those of the old one are refused;
/// positions do not, and mean the new topic's records.
#[derive(Clone)]
pub struct Topic(Arc<Open>);

struct Open {
    bus: Bus,
    name: TopicName,
    capabilities: Capabilities,
}

impl Topic {
    pub(crate) fn open(bus: Bus, name: TopicName, capabilities: Capabilities) -> Self {
        Self(Arc::new(Open {
            bus,
            name,
            capabilities,
        }))
    }

    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.0.name
    }

    /// What it promised when it was opened; opening again reads again.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The bus that it was opened on.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Adds what is known of the place to an error.
    pub(crate) fn place(&self, error: Error, operation: Operation) -> Error {
        error
            .during(operation)
            .on_topic(self.name())
            .by(self.bus().scheme())
    }

    /// The place behind the last record now: at or after everything acknowledged before the call.
    /// What can heal is tried again for [`RETRY_FOR`](crate::defaults::RETRY_FOR).
    ///
    /// # Errors
    /// `Unsupported` where the capability `tail` is not `Exact` or `Observed`.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn end(&self) -> Result<Cursor> {
        if !matches!(
            self.capabilities().tail,
            Claim::Is(Tail::Exact | Tail::Observed)
        ) {
            let error = Error::unsupported(format!(
                "the end of this topic cannot be known (tail is {}); replay it to its end instead",
                self.capabilities().tail
            ));
            return Err(self.place(error, Operation::Read));
        }
        let backend = &self.bus().backend;
        let locate = || backend.locate(self.name(), &Start::Latest);
        let end = retry(self.bus().clock(), locate).await;
        end.map_err(|e| self.place(e, Operation::Read))
    }

    /// How far `cursor` is behind the end now, over all partitions: their [`sum`](Lag::sum).
    ///
    /// # Errors
    /// `Config` for a cursor of another topic, and for one behind the end where the backend can
    /// tell; `Unsupported` where the backend cannot say.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn lag(&self, cursor: &Cursor) -> Result<Lag> {
        let lags = async { self.bus().bare_admin()?.lag(self.name(), cursor).await };
        let lags = lags.await.map_err(|e| self.place(e, Operation::Read))?;
        Ok(Lag::sum(&lags))
    }

    /// How far `group` is behind the end now, over all partitions: their [`sum`](Lag::sum). Nobody
    /// has to be in the group for it, and asking joins nobody.
    ///
    /// # Errors
    /// `Config` for a bad name; `NotFound` when there is no such group; `Unsupported` where the
    /// backend cannot say.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn group_lag(&self, group: impl AsRef<str>) -> Result<Lag> {
        let group = Group::new(group);
        let lags = async {
            let admin = self.bus().bare_admin()?;
            admin.group_lag(self.name(), &group?).await
        };
        let lags = lags.await.map_err(|e| self.place(e, Operation::Read))?;
        Ok(Lag::sum(&lags))
    }
}

/// Where it is, not what it promises: every handle on a topic shows it in its own `Debug`.
impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", self.name())
            .field("scheme", &self.bus().scheme())
            .finish_non_exhaustive()
    }
}

/// Opens a topic: `bus.topic("orders").create_if_missing().await?`.
///
/// Nothing happens before the first poll. Asking what it offers is tried again for
/// [`RETRY_FOR`](crate::defaults::RETRY_FOR) where that can heal; creating is not.
///
/// # Errors
/// `Config` for a bad name; `NotFound` when there is no such topic and none was to be created;
/// `AlreadyExists` when it is there and differs from the spec, naming what differs; `Unsupported`
/// when a need is not met, naming all that are not.
///
/// # Cancel safety
/// Dropped, it may have created the topic or some of its groups; opening again goes on from there.
///
/// # Examples
/// ```no_run
/// # async fn open(bus: annals_core::Bus) -> annals_core::Result<()> {
/// use annals_core::Need;
/// let orders = bus.topic("orders").create_if_missing().needs([Need::FullHistory]).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a topic is opened by awaiting this"]
pub struct OpenTopic(Pending<Opening, Result<Topic>>);

#[derive(Debug)]
struct Opening {
    bus: Bus,
    name: Result<TopicName>,
    needs: Vec<Need>,
    create: Option<TopicSpec>,
    groups: Result<Vec<Group>>,
}

impl OpenTopic {
    pub(crate) fn new(bus: Bus, name: Result<TopicName>) -> Self {
        let opening = Opening {
            bus,
            name,
            needs: Vec::new(),
            create: None,
            groups: Ok(Vec::new()),
        };
        Self(Pending::new(opening))
    }

    /// What the application cannot do without, checked before a record can be sent. A topic that
    /// had to be created to know what it offers stays.
    pub fn needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.0.set(|opening| opening.needs.extend(needs));
        self
    }

    /// Creates the topic with the backend's defaults if it is not there. One that is there stays
    /// as it is.
    pub fn create_if_missing(mut self) -> Self {
        self.0.set(|opening| {
            opening.create.get_or_insert_default();
        });
        self
    }

    /// Creates the topic as `spec` says if it is not there; one that is there and differs is
    /// `AlreadyExists`.
    pub fn create_with(mut self, spec: TopicSpec) -> Self {
        self.0.set(|opening| opening.create = Some(spec));
        self
    }

    /// Makes these groups if they are not there, starting at the beginning: on queues a group
    /// sees only what is appended after it was made.
    pub fn groups<I, S>(mut self, groups: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let groups: Result<Vec<Group>> = groups.into_iter().map(Group::new).collect();
        self.0.set(|opening| match (&mut opening.groups, groups) {
            (Ok(all), Ok(more)) => all.extend(more),
            (all @ Ok(_), Err(error)) => *all = Err(error),
            (Err(_), _) => {}
        });
        self
    }
}

impl Future for OpenTopic {
    type Output = Result<Topic>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut()
            .0
            .poll(cx, |opening| Box::pin(opening.open()))
    }
}

impl Opening {
    async fn open(self) -> Result<Topic> {
        let scheme = self.bus.scheme();
        let name = self
            .name
            .clone()
            .map_err(|e| e.during(Operation::Open).by(scheme))?;
        let opened = self.make(&name).await;
        opened.map_err(|e| e.during(Operation::Open).on_topic(&name).by(scheme))
    }

    async fn make(self, name: &TopicName) -> Result<Topic> {
        let groups = self.groups?;
        let mut missing = groups.clone();
        if let Some(mut spec) = self.create {
            spec.groups.extend(groups);
            if self.bus.bare_admin()?.create(name, &spec).await? {
                missing.clear();
            } else {
                missing = spec.groups;
            }
        }
        let ask = || self.bus.backend.capabilities(name);
        let capabilities = retry(&self.bus.clock, ask)
            .await
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    Effect::None,
                    Retry::Never,
                    "there is no such topic; create it, or open it with create_if_missing()",
                )
                .with_source(e),
                _ => e,
            })?;
        let unmet = capabilities.missing(&self.needs);
        if !unmet.is_empty() {
            let list: Vec<String> = unmet
                .iter()
                .map(|(need, why)| format!("{need:?} ({why})"))
                .collect();
            return Err(Error::unsupported(format!(
                "this topic does not offer what is needed: {}",
                list.join(", ")
            )));
        }
        for group in missing {
            self.bus
                .bare_admin()?
                .create_group(name, &group, None)
                .await?;
        }
        Ok(Topic::open(self.bus, name.clone(), capabilities))
    }
}
