//! What the three services have in common: named topics behind one lock, and a bell that rings
//! when something changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::{Clock, Cursor, Error, Origin, Result, TopicName};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::connection::Connection;
use super::faults::{Call, Fault, Faults, disconnected, no_answer, throttled};

/// A service with topics of kind `T`.
#[derive(Debug)]
pub(super) struct Service<T> {
    pub(super) scheme: &'static str,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    topics: Mutex<Topics<T>>,
    /// No two groups' stays, or members, of the service have one epoch, whatever was deleted and
    /// made again between them.
    epochs: AtomicU64,
    /// Wakes in the order of waiting, which a channel would draw at random.
    changes: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct Topics<T> {
    pub(super) by_name: BTreeMap<TopicName, T>,
    /// How many were ever made: a recreated topic is another one.
    made: u64,
}

impl<T> Topics<T> {
    /// An incarnation for a new topic.
    pub(super) fn incarnation(&mut self) -> Arc<str> {
        self.made += 1;
        self.made.to_string().into()
    }

    pub(super) fn get(&mut self, topic: &TopicName) -> Result<&mut T> {
        self.by_name
            .get_mut(topic)
            .ok_or_else(|| Error::not_found("there is no such topic"))
    }
}

impl<T> Service<T> {
    pub(super) fn new(scheme: &'static str, clock: Clock) -> Self {
        Self {
            scheme,
            clock,
            faults: Faults::default(),
            topics: Mutex::new(Topics {
                by_name: BTreeMap::new(),
                made: 0,
            }),
            epochs: AtomicU64::new(0),
            changes: Arc::default(),
        }
    }

    /// The epoch behind which those of a new group, or of a new member, begin.
    pub(super) fn epoch(&self) -> u64 {
        self.epochs.fetch_add(1 << 32, Ordering::Relaxed)
    }

    pub(super) fn connect(&self) -> Connection {
        Connection::new(Arc::clone(&self.changes))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Topics<T>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody who waits.
    pub(super) fn changed(&self) {
        self.changes.notify_waiters();
    }

    /// A bell that also rings for changes made after this call and before it
    /// is awaited: get it first, look second, wait third.
    pub(super) fn bell(&self) -> OwnedNotified {
        Arc::clone(&self.changes).notified_owned()
    }

    /// What the script has for this call, where it fails as a whole without effect; any other
    /// fault is returned for the caller to act on.
    pub(super) fn fault(&self, call: Call) -> Result<Option<Fault>> {
        match self.faults.take(call) {
            Some(Fault::Disconnect) => Err(disconnected()),
            Some(Fault::Throttle(after)) => Err(throttled(after)),
            fault => Ok(fault),
        }
    }

    /// [`fault`](Self::fault) for calls that carry no list: waits a delay out, and loses or
    /// refuses the call as a whole.
    pub(super) async fn fault_whole(&self, call: Call) -> Result<Lost> {
        match self.fault(call)? {
            None => Ok(Lost::No),
            Some(Fault::Delay(delay)) => {
                self.clock.sleep(delay).await;
                Ok(Lost::No)
            }
            Some(Fault::Lose { done: true }) => Ok(Lost::Reply),
            Some(Fault::Lose { done: false }) => Err(no_answer()),
            Some(_) => Err(disconnected()),
        }
    }

    /// Whose cursors a topic takes.
    pub(super) fn origin(&self, topic: &TopicName, incarnation: &Arc<str>) -> Arc<Origin> {
        Arc::new(Origin {
            scheme: self.scheme.into(),
            topic: topic.clone(),
            incarnation: Arc::clone(incarnation),
        })
    }
}

/// Refuses a cursor of another topic, backend or incarnation.
pub(super) fn check_cursor(cursor: &Cursor, origin: &Origin) -> Result<()> {
    let theirs = &**cursor.origin();
    if theirs == origin {
        return Ok(());
    }
    let what = if theirs.scheme != origin.scheme {
        format!("belongs to the backend {}", theirs.scheme)
    } else if theirs.topic != origin.topic {
        format!("belongs to the topic \"{}\"", theirs.topic)
    } else {
        "belongs to an earlier topic of this name, which was deleted".to_owned()
    };
    Err(Error::config(format!(
        "this cursor {what}; start at Beginning or Earliest instead"
    )))
}

/// Whether the answer to a call that happened gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    No,
    Reply,
}

impl Lost {
    /// The answer, unless it gets lost.
    pub(super) fn answer<R>(self, answer: R) -> Result<R> {
        match self {
            Self::No => Ok(answer),
            Self::Reply => Err(no_answer()),
        }
    }
}

/// Waits until the service changes, or for `at_most`.
pub(super) async fn changed(bell: OwnedNotified, clock: &Clock, at_most: Option<Duration>) {
    match at_most {
        None => bell.await,
        Some(limit) => {
            let _ = clock.timeout(limit, bell).await;
        }
    }
}
