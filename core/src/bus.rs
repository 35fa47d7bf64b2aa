//! A connection to a backend, and the way to its topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::Placed;
use crate::clock::Clock;
use crate::driver::{Admin, Backend};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::layer::Layer;
use crate::name::TopicName;
use crate::topic::OpenTopic;

/// A connection to a backend. Cheap to clone; clones are the same connection.
///
/// Made by `annals::connect(url)`, or from a backend's own builder with [`new`](Bus::new).
/// Dropping the last clone ends the connection without waiting; [`close`](Bus::close) waits.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) clock: Clock,
    closed: Arc<AtomicBool>,
}

impl Bus {
    /// A bus over `backend` (also an `Arc<dyn Backend>`), by the system's clock. Nothing is sent.
    pub fn new(backend: impl Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            clock: Clock::system(),
            closed: Arc::default(),
        }
    }

    /// The same bus with another clock, for tests: retries, leases and lingering go by it. Layers
    /// that were given before keep the clock that they were given with.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same bus with `layer` round its backend; the last one given is the outermost. Topics
    /// that were opened before stay as they are.
    #[must_use]
    pub fn layer(mut self, layer: &dyn Layer) -> Self {
        self.backend = layer.wrap(self.backend, &self.clock);
        self
    }

    /// The backend's name, as it stands in cursors and errors.
    pub fn scheme(&self) -> &'static str {
        self.backend.scheme()
    }

    /// The backend itself, in its layers, as its author sees it: for tools that judge or wrap one.
    /// What goes through it is neither split nor tried again.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The clock that it goes by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Opens a topic; see [`OpenTopic`]. Nothing is asked before it is awaited, a bad name
    /// included.
    pub fn topic(&self, name: impl AsRef<str>) -> OpenTopic {
        OpenTopic::new(self.clone(), TopicName::new(name))
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// `Unsupported` where the backend has no administration; else what the service says. It is
    /// not tried again.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn topics(&self) -> Result<Vec<TopicName>> {
        self.admin()?.topics().await
    }

    /// The administration of topics and groups. Its calls are single attempts, not tried again;
    /// their errors carry operation, topic and scheme.
    ///
    /// # Errors
    /// `Unsupported` where the backend has none.
    pub fn admin(&self) -> Result<Arc<dyn Admin>> {
        let scheme = self.scheme();
        match self.bare_admin() {
            Ok(inner) => Ok(Arc::new(Placed { inner, scheme })),
            Err(error) => Err(error.during(Operation::Admin).by(scheme)),
        }
    }

    /// The same for core's own handles, which place errors in what they are doing.
    pub(crate) fn bare_admin(&self) -> Result<Arc<dyn Admin>> {
        self.backend.admin().ok_or_else(|| {
            Error::unsupported(
                "this backend cannot create, describe or delete topics; use the service's own tools",
            )
        })
    }

    /// Whether a clone of it was closed.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What later calls are.
    pub(crate) fn closed_error() -> Error {
        Error::closed("the bus was closed; connect again to go on")
    }

    /// Ends the connection for all clones within `grace`: accepted appends get their outcomes,
    /// later calls are `Closed`. Close appenders and subscriptions first: what waits in them is
    /// not the backend's yet. Once this has returned, subscriptions and replays hand out nothing
    /// more, what was read ahead included.
    ///
    /// # Errors
    /// `Timeout` when it did not end within `grace`, by this bus's clock and whatever the backend
    /// does. Refused with no effect ([`Effect::None`](crate::Effect::None)) it is not closed.
    ///
    /// # Cancel safety
    /// Dropping it leaves the connection closing; call it again to wait.
    pub async fn close(self, grace: Duration) -> Result<()> {
        let closed = self.clock.timeout(grace, self.backend.close(grace)).await;
        let closed = closed.unwrap_or_else(|| Err(late()));
        let refused = closed.as_ref().err().map(Error::effect) == Some(Effect::None);
        if !refused {
            self.closed.store(true, Ordering::Release);
        }
        closed.map_err(|e| e.during(Operation::Close).by(self.backend.scheme()))
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Backoff,
        "the backend did not close within the grace; close it again to wait longer",
    )
}
