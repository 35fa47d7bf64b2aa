//! What went wrong, as data: kind, effect, retry, operation, place; and the chain of causes.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::name::TopicName;
use crate::position::PartitionId;
use crate::signal::Gap;

/// `Result` with annals' [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// It answers without string matching: what ([`kind`](Error::kind)), may anything have happened
/// ([`effect`](Error::effect)), is trying again sensible ([`retry`](Error::retry)), during which
/// [`operation`](Error::operation) on which [`topic`](Error::topic). Cheap to clone; one pointer.
///
/// `Display` is one lower-case line: what happened, what to do. It never repeats its source, never
/// holds a secret or a payload. Walk [`source`](StdError::source) for the causes.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    effect: Effect,
    retry: Retry,
    message: String,
    operation: Option<Operation>,
    scheme: Option<&'static str>,
    topic: Option<TopicName>,
    partition: Option<PartitionId>,
    gap: Option<Gap>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure an [`Error`] is.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// The caller's input: a URL, a name, an option, a cursor of another topic.
    Config,
    /// The backend, as configured now, cannot do this. Nothing was sent.
    Unsupported,
    /// The topic, group or file is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// The service says that the caller may not.
    Denied,
    /// Over a limit of the service; the text names the limit.
    TooLarge,
    /// The service asks to slow down.
    Throttled,
    /// Not for now, by the state of things there and not by how often one asks: disk full, a memory
    /// alarm, a full buffer, a limit on what is in flight, a name that is still being deleted.
    Blocked,
    /// No answer in time.
    Timeout,
    /// The connection is gone.
    Disconnected,
    /// A condition did not hold: a rival was faster.
    Conflict,
    /// A later record of the same key was stored first; storing this one now would break the
    /// order of its key.
    Overtaken,
    /// No group would ever see the record. Not tried again by itself.
    NoGroup,
    /// A newer epoch or owner has taken over.
    Fenced,
    /// The lease, receipt or tenancy has run out.
    Expired,
    /// Records that were promised at a cursor are gone; see [`Error::gap`].
    Gap,
    /// Bytes that cannot be taken apart as what they should be.
    Decode,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The handle is closed, or its log must be reopened.
    Closed,
    /// A bug, here or in the service.
    Internal,
}

/// Whether the failed call may have changed anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// For certain nothing.
    None,
    /// Some of it for certain; the outcomes say which.
    Partial,
    /// It cannot be known.
    Unknown,
}

/// Whether trying again is sensible. It says nothing about duplicates: that is [`Effect`]'s.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retry {
    /// The same call will fail the same way.
    Never,
    /// Yes, with growing pauses.
    Backoff,
    /// Yes, not before this long.
    After(Duration),
}

/// What a call was doing.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Connecting to a backend.
    Connect,
    /// Opening or creating a topic, or asking what it can do.
    Open,
    /// Appending records.
    Append,
    /// Replaying or following.
    Read,
    /// Reading as a member of a group.
    Subscribe,
    /// Settling a delivery, or committing a group's cursor.
    Settle,
    /// Creating, describing, listing or deleting.
    Admin,
    /// Closing.
    Close,
}

impl Operation {
    /// One lower-case word: `append`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Open => "open",
            Self::Append => "append",
            Self::Read => "read",
            Self::Subscribe => "subscribe",
            Self::Settle => "settle",
            Self::Admin => "admin",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// An error whose kind, effect and retry were decided one by one: there are no defaults for
    /// these, because a forgotten one loses or repeats records.
    ///
    /// `message` is one lower-case line without a full stop: what happened, what to do; no
    /// secret, no payload.
    pub fn new(kind: ErrorKind, effect: Effect, retry: Retry, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            effect,
            retry,
            message: message.into(),
            operation: None,
            scheme: None,
            topic: None,
            partition: None,
            gap: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Config`]: no effect, never retried.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, Effect::None, Retry::Never, message)
    }

    /// [`ErrorKind::Unsupported`]: no effect, never retried.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, Effect::None, Retry::Never, message)
    }

    /// [`ErrorKind::NotFound`]: no effect, never retried.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, Effect::None, Retry::Never, message)
    }

    /// [`ErrorKind::Closed`]: no effect, never retried.
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed, Effect::None, Retry::Never, message)
    }

    /// [`ErrorKind::Gap`], carrying what is missing: no effect, never retried.
    pub fn of_gap(gap: Gap) -> Self {
        let mut error = Self::new(ErrorKind::Gap, Effect::None, Retry::Never, gap.to_string());
        let inner = error.inner_mut();
        inner.partition = Some(gap.partition);
        inner.gap = Some(gap);
        error
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// The same error, during `operation` unless it already names one.
    #[must_use]
    pub fn during(mut self, operation: Operation) -> Self {
        if self.0.operation.is_none() {
            self.inner_mut().operation = Some(operation);
        }
        self
    }

    /// The same error, on `topic` unless it already names one.
    #[must_use]
    pub fn on_topic(mut self, topic: &TopicName) -> Self {
        if self.0.topic.is_none() {
            self.inner_mut().topic = Some(topic.clone());
        }
        self
    }

    /// The same error, in `partition` unless it already names one.
    #[must_use]
    pub fn in_partition(mut self, partition: PartitionId) -> Self {
        if self.0.partition.is_none() {
            self.inner_mut().partition = Some(partition);
        }
        self
    }

    /// The same error, said by the backend of `scheme` unless it already names one.
    #[must_use]
    pub fn by(mut self, scheme: &'static str) -> Self {
        if self.0.scheme.is_none() {
            self.inner_mut().scheme = Some(scheme);
        }
        self
    }

    /// The same error with another effect, for a caller who knows more.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.inner_mut().effect = effect;
        self
    }

    /// The same error with another retry, for a caller who knows more.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.inner_mut().retry = retry;
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.inner_mut().source = Some(Arc::new(source));
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether anything may have happened.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Whether to try again, and when. A repeat can store a record twice unless
    /// [`effect`](Self::effect) is [`Effect::None`].
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether trying again is sensible at all.
    pub fn is_retryable(&self) -> bool {
        self.0.retry != Retry::Never
    }

    /// What the call was doing, where that is known.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The scheme of the backend that said so (`file`, `kafka`, …).
    pub fn scheme(&self) -> Option<&'static str> {
        self.0.scheme
    }

    /// The topic, where there is one.
    pub fn topic(&self) -> Option<&TopicName> {
        self.0.topic.as_ref()
    }

    /// The partition, where there is one.
    pub fn partition(&self) -> Option<PartitionId> {
        self.0.partition
    }

    /// What is missing, when the kind is [`ErrorKind::Gap`].
    pub fn gap(&self) -> Option<&Gap> {
        self.0.gap.as_ref()
    }

    /// The sentence without scheme, operation and topic.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The first cause of type `T`: the way to a vendor's own error.
    pub fn find_source<T: StdError + 'static>(&self) -> Option<&T> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = false;
        if let Some(scheme) = self.0.scheme {
            f.write_str(scheme)?;
            said = true;
        }
        if let Some(operation) = self.0.operation {
            if said {
                f.write_str(" ")?;
            }
            f.write_str(operation.as_str())?;
            said = true;
        }
        if let Some(topic) = &self.0.topic {
            if said {
                f.write_str(" ")?;
            }
            write!(f, "\"{topic}\"")?;
            said = true;
        }
        if said {
            f.write_str(": ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut block = f.debug_struct("Error");
        block
            .field("kind", &self.0.kind)
            .field("effect", &self.0.effect)
            .field("retry", &self.0.retry)
            .field("message", &self.to_string());
        if let Some(partition) = self.0.partition {
            block.field("partition", &partition);
        }
        let mut next = self.source();
        while let Some(error) = next {
            block.field("caused_by", &error.to_string());
            next = error.source();
        }
        block.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_scheme_operation_topic_and_message_but_not_its_source() {
        let error = Error::config("no such thing")
            .with_source(std::io::Error::other("inner"))
            .during(Operation::Append)
            .during(Operation::Read)
            .on_topic(&TopicName::new("orders").unwrap())
            .by("file");
        assert_eq!(error.to_string(), "file append \"orders\": no such thing");
        assert_eq!(
            error.find_source::<std::io::Error>().unwrap().to_string(),
            "inner"
        );
        assert!(format!("{error:?}").contains("inner"));
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }
}
