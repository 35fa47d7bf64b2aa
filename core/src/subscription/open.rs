//! How a subscription is opened.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::ledger::{Ledger, Rules};
use super::news::News;
use super::session::Session;
use super::{Subscription, Tasks, keep, letters, receive, settle};
use crate::batch::Batch;
use crate::capability::{Attempts, GroupNames, Hold};
use crate::defaults;
use crate::driver::{AppendOptions, Room, Settling, SubscribeOptions};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::group;
use crate::name::{Group, TopicName};
use crate::pending::Pending;
use crate::replay::retry;
use crate::start::Start;
use crate::topic::Topic;

/// Joins a group: `topic.subscribe("billing").await?`.
///
/// Nothing happens before the first poll. It returns once the group's start is stored, so that a
/// new group that is killed before its first commit skips nothing. Where the service has groups of
/// its own, joining is tried again for [`RETRY_FOR`](crate::defaults::RETRY_FOR) where that can
/// heal.
///
/// # Errors
/// `Config` for a bad name or a bound of zero, and for
/// [`max_attempts`](Self::max_attempts) without [`dead_letters`](Self::dead_letters), and for
/// dead letters where this process may not append (the embedded log has one writer);
/// `Unsupported` for what the topic does not offer, before anything is sent; `NotFound` when the
/// dead-letter topic is not there.
///
/// # Cancel safety
/// Dropped, it may have made the group; opening again goes on from there.
#[derive(Debug)]
#[must_use = "a subscription is opened by awaiting this"]
pub struct OpenSubscription(Pending<Opening, Result<Subscription>>);

#[derive(Debug)]
struct Opening {
    topic: Topic,
    group: Result<Group>,
    start: Option<Start>,
    in_flight: Room,
    max_attempts: Option<u32>,
    dead_letters: Option<Result<TopicName>>,
    lease: Option<Duration>,
    grace: Duration,
    member: Option<Arc<str>>,
    commit_interval: Duration,
}

impl OpenSubscription {
    pub(crate) fn new(topic: Topic, group: Result<Group>) -> Self {
        Self(Pending::new(Opening {
            topic,
            group,
            start: None,
            in_flight: Room {
                records: defaults::IN_FLIGHT_RECORDS,
                bytes: defaults::IN_FLIGHT_BYTES,
            },
            max_attempts: None,
            dead_letters: None,
            lease: None,
            grace: defaults::GRACE,
            member: None,
            commit_interval: defaults::COMMIT_INTERVAL,
        }))
    }

    /// Where a new group starts; one that is there goes on at its commit. Unset: on a log at
    /// [`Start::Beginning`], on a queue at what the queue holds. `Unsupported` for a start that
    /// the capability `group_starts` does not have.
    pub fn start(mut self, start: impl Into<Start>) -> Self {
        let start = start.into();
        self.0.set(|opening| opening.start = Some(start));
        self
    }

    /// How much may be out unsettled: what handlers have, what waits for its retry and what waits
    /// for an earlier record of its key. One record over the bytes is handed out alone. A
    /// partition stops when this many records sixteen times over are settled behind one that is
    /// not. Readers fetch ahead as many bytes again, at most
    /// [`READ_BUFFER`](defaults::READ_BUFFER). Default
    /// [`IN_FLIGHT_RECORDS`](defaults::IN_FLIGHT_RECORDS) and
    /// [`IN_FLIGHT_BYTES`](defaults::IN_FLIGHT_BYTES).
    pub fn in_flight(mut self, records: usize, bytes: usize) -> Self {
        self.0
            .set(|opening| opening.in_flight = Room { records, bytes });
        self
    }

    /// Hand a record out at most this often; then it becomes a dead letter. Default: no limit.
    /// What is counted the capability `attempts` says; where nothing is, this is `Unsupported`.
    /// Where attempts survive a crash, the first two records of a partition are handed out one
    /// after the other, and after a crash all that may have been in flight, each once its attempt
    /// is stored: so the one that ends its process is found, and those beside it are not counted
    /// with it. What was handled and not yet committed when a process ended counts once more;
    /// allow two attempts at least.
    ///
    /// Where a queue's count is an upper bound (`attempts` is `Taken`: it has also counted what
    /// was taken ahead and given back, and what came along with a record that ended its process),
    /// a record that comes over the limit is handed out once more, and becomes a dead letter only
    /// when that fails. One that ends its process each time is the service's to take away
    /// (capability `given_up_after`).
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.0.set(|opening| opening.max_attempts = Some(attempts));
        self
    }

    /// The topic on the same bus that takes records which were rejected or failed too often; the
    /// headers that say why are in [`letters`](crate::letters). It must be there.
    pub fn dead_letters(mut self, topic: impl AsRef<str>) -> Self {
        let topic = TopicName::new(topic);
        self.0.set(|opening| opening.dead_letters = Some(topic));
        self
    }

    /// For how long a member that says nothing keeps what it holds. Default
    /// [`LEASE`](defaults::LEASE), or what the service fixes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.0.set(|opening| opening.lease = Some(lease));
        self
    }

    /// How long a revocation, and the end of a run, waits for what handlers have. Default
    /// [`GRACE`](defaults::GRACE).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.0.set(|opening| opening.grace = grace);
        self
    }

    /// This member's name, where the service knows members by name. Unset: one that is unique.
    pub fn member(mut self, name: impl AsRef<str>) -> Self {
        let name = Arc::from(name.as_ref());
        self.0.set(|opening| opening.member = Some(name));
        self
    }

    /// How often settled progress is committed, where the service commits up to a record: what a
    /// crash repeats. Default [`COMMIT_INTERVAL`](defaults::COMMIT_INTERVAL).
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.0.set(|opening| opening.commit_interval = interval);
        self
    }
}

impl Future for OpenSubscription {
    type Output = Result<Subscription>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(cx, |opening| {
            let topic = opening.topic.clone();
            Box::pin(async move {
                let opened = opening.open().await;
                opened.map_err(|e| topic.place(e, Operation::Subscribe))
            })
        })
    }
}

impl Opening {
    /// What can be refused without asking anybody.
    fn check(&self, group: &Group) -> Result<Option<Hold>> {
        let offered = self.topic.capabilities();
        match offered.groups.names.known() {
            Some(GroupNames::None) => {
                return Err(Error::unsupported(
                    "this topic has no groups; replay or follow it instead",
                ));
            }
            Some(GroupNames::Only(only)) if only != group => {
                return Err(Error::unsupported(format!(
                    "this topic has the one group \"{only}\" and can have no \"{group}\"; subscribe to that one"
                )));
            }
            Some(GroupNames::Only(_) | GroupNames::Any(_)) | None => {}
        }
        if let (Some(start), Some(starts)) = (&self.start, offered.group_starts.known()) {
            let (offered, name) = match start {
                Start::Beginning => (starts.beginning, "Beginning"),
                Start::Earliest => (starts.earliest, "Earliest"),
                Start::Latest => (starts.latest, "Latest"),
                Start::After(_) => (starts.after, "After"),
                Start::Since(_) => (starts.since.is_some(), "Since"),
            };
            if !offered {
                return Err(Error::unsupported(format!(
                    "a group of this topic cannot start at {name}; group_starts says where it can"
                )));
            }
        }
        if self.in_flight.is_none() {
            return Err(Error::config(
                "in_flight of zero would hand out nothing; allow one record and one byte at least",
            ));
        }
        match (self.max_attempts, &self.dead_letters) {
            (Some(0), _) => {
                return Err(Error::config(
                    "max_attempts of zero would hand out nothing; allow one at least",
                ));
            }
            (Some(_), None) => {
                return Err(Error::config(
                    "max_attempts needs a place for what fails that often; name one with dead_letters(..)",
                ));
            }
            (Some(_), Some(_)) if offered.groups.attempts.is(&Attempts::None) => {
                return Err(Error::unsupported(
                    "this topic counts no attempts, so max_attempts cannot be kept; reject in the handler instead",
                ));
            }
            _ => {}
        }
        if let (Some(limit), Some(&Some(given_up))) =
            (self.max_attempts, offered.groups.given_up_after.known())
            && limit >= given_up
        {
            return Err(Error::unsupported(format!(
                "max_attempts of {limit} cannot be kept: the service itself takes a record away after {given_up} deliveries; ask for less, or raise the service's limit to ten times that"
            )));
        }
        let hold = offered.groups.hold.known().copied().flatten();
        if self.lease.is_some_and(|lease| lease.is_zero()) {
            return Err(Error::config("a lease of zero holds nothing; allow more"));
        }
        if let (Some(lease), Some(most)) = (self.lease, hold.and_then(|hold| hold.most))
            && lease > most
        {
            return Err(Error::unsupported(format!(
                "the service holds a delivery for {most:?} at most, and a lease of {lease:?} was asked for"
            )));
        }
        Ok(hold)
    }

    /// The dead-letter topic, which must be there.
    async fn letters(&self) -> Result<Option<Topic>> {
        let Some(name) = &self.dead_letters else {
            return Ok(None);
        };
        let name = name.clone()?;
        if name == *self.topic.name() {
            return Err(Error::config(
                "a topic cannot take its own dead letters: they would come back for ever; name another",
            ));
        }
        match self.topic.bus().topic(&name).await {
            Ok(topic) => may_append(&topic).await.map(|()| Some(topic)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NotFound,
                Effect::None,
                Retry::Never,
                format!(
                    "there is no topic \"{name}\" for dead letters; create it first with bus.topic(\"{name}\").create_if_missing()"
                ),
            )
            .with_source(error)),
            Err(error) => Err(error),
        }
    }

    async fn open(self) -> Result<Subscription> {
        let group = self.group.clone()?;
        let hold = self.check(&group)?;
        let dead_letters = self.letters().await?;
        let lease = self
            .lease
            .or_else(|| hold.map(|hold| hold.lease))
            .unwrap_or(defaults::LEASE);
        let options = SubscribeOptions {
            start: self.start,
            member: self.member,
            in_flight: self.in_flight,
            lease,
            grace: self.grace,
        };
        let topic = self.topic;
        let backend = &topic.bus().backend;
        let news = Arc::new(News::default());
        let inbound = if let Some(leases) = backend.leases(topic.name()) {
            group::join(&topic, &group, leases, &options, Arc::clone(&news)).await?
        } else {
            let join = || backend.subscribe(topic.name(), &group, &options);
            retry(topic.bus().clock(), join).await?
        };
        tracing::debug!(topic = %topic.name(), group = %group, existed = inbound.existed, "joined");
        let offered = topic.capabilities();
        let up_to = matches!(inbound.settling, Settling::UpTo(_));
        let attempts = &offered.groups.attempts;
        let counted = attempts.is(&Attempts::Handed) || attempts.is(&Attempts::Taken);
        let rules = Rules {
            ordered: offered.orders_keys(),
            in_flight: self.in_flight,
            max_attempts: self.max_attempts,
            hold_most: hold.and_then(|hold| hold.most),
            at_most: !up_to && !attempts.is(&Attempts::Handed),
            counted,
            careful: up_to && self.max_attempts.is_some() && counted,
            commit_interval: self.commit_interval,
            grace: self.grace,
        };
        let ledger = Ledger::new(rules, Arc::clone(&news));
        let session = Arc::new(Session::new(
            topic,
            group,
            inbound.settling,
            dead_letters,
            hold.map_or(lease, |hold| hold.lease.min(lease)),
            ledger,
            news,
        ));
        let mut others = vec![
            spawn(&session, settle::settle(Arc::clone(&session))).abort_handle(),
            spawn(&session, letters::letters(Arc::clone(&session))).abort_handle(),
        ];
        if let Settling::Each(settler) = &session.settling {
            let extend = hold.is_some_and(|hold| hold.extend);
            let keep = keep::keep(Arc::clone(&session), Arc::clone(settler), extend);
            others.push(spawn(&session, keep).abort_handle());
        }
        let receive = receive::receive(Arc::clone(&session), inbound.source);
        let receive = spawn(&session, receive);
        Ok(Subscription {
            session,
            open: Some(Tasks { receive, others }),
            grace: self.grace,
        })
    }
}

fn spawn<T: Send + 'static>(
    session: &Arc<Session>,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(Arc::clone(session).guarded(task))
}

/// Whether this process may append dead letters: better known now than when there is one. An
/// empty batch tells, and stores nothing.
async fn may_append(letters: &Topic) -> Result<()> {
    let (backend, name) = (&letters.bus().backend, letters.name());
    let asked = backend
        .append(name, &Batch::new(Vec::new()), &AppendOptions::default())
        .await;
    match asked {
        Err(error) if error.kind() == ErrorKind::Denied => Err(Error::config(format!(
            "this process may not append to \"{name}\", so it could put no dead letter there: {}; subscribe where appending is allowed, or without dead_letters",
            error.message()
        ))
        .with_source(error)),
        // What can heal heals before the first letter, or is told then.
        _ => Ok(()),
    }
}
