//! Any backend as a harness: all that is asked for is a way to connect.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use annals_core::driver::{Backend, TopicSpec};
use annals_core::{Clock, Error, ErrorKind, Result, Timestamp, TopicName};
use async_trait::async_trait;
use tokio::sync::RwLock;

use super::{Cannot, Disturb, Gate, Harness, Meter, Time, Want};
use crate::tap::Tap;

/// The longest that a case is waited for by a real clock.
const LONGEST: Duration = Duration::from_secs(1);

type Connect =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>> + Send + Sync>;

/// A backend that can be connected to and administered. The service is not disturbed, killed or
/// trimmed; what goes wrong on the way to it does so in a [`Gate`] that every client goes through:
/// connections that are cut, slow and lost answers, refusals.
///
/// Topics are made through [`Backend::admin`], under a prefix, and removed by
/// [`clean`](Harness::clean). A backend that has no administration is taken at its word: where
/// every name is a topic, one that nobody has used is a new one, and stays.
pub struct Plain {
    name: String,
    service: (String, String),
    prefix: String,
    connect: Connect,
    time: Time,
    /// Made on the runtime, whose clock a virtual one is.
    gate: OnceLock<(Clock, Arc<Gate>)>,
    made: AtomicUsize,
    topics: Mutex<Vec<TopicName>>,
    /// Whether it makes no topics any more. Held for reading while one is made, so that none
    /// appears behind the back of who removes them.
    ended: RwLock<bool>,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Plain {
    /// A backend called `name`, whose topics begin with `prefix`; `connect` gives a new client.
    pub fn new<F>(
        name: impl Into<String>,
        prefix: impl Into<String>,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
    {
        let name = name.into();
        Self {
            service: (name.clone(), "unknown".into()),
            name,
            prefix: prefix.into(),
            connect: Box::new(move || Box::pin(connect())),
            time: Time::Real,
            gate: OnceLock::new(),
            made: AtomicUsize::new(0),
            topics: Mutex::default(),
            ended: RwLock::new(false),
        }
    }

    /// `stem` and eight random digits and a dash: a prefix that no other run has.
    pub fn prefix(stem: &str) -> String {
        format!("{stem}{:08x}-", fastrand::u32(..))
    }

    /// In virtual time, for a backend without threads, I/O and a clock of its own: what has to wait
    /// takes no time.
    #[must_use]
    pub fn in_virtual_time(mut self) -> Self {
        self.time = Time::Virtual;
        self
    }

    fn gate(&self) -> &(Clock, Arc<Gate>) {
        self.gate.get_or_init(|| {
            let clock = match self.time {
                Time::Real => Clock::system(),
                Time::Virtual => Clock::runtime(Timestamp::from_millis(1_000_000_000)),
            };
            let gate = Gate::new(clock.clone());
            (clock, Arc::new(gate))
        })
    }

    /// Which service, and which version of it.
    #[must_use]
    pub fn of_service(mut self, service: impl Into<String>, version: impl Into<String>) -> Self {
        self.service = (service.into(), version.into());
        self
    }

    /// Makes no topic from now on, waits for one that is being made, and removes all. What could
    /// not be removed is returned with the reason; call it again to try again.
    ///
    /// # Cancel safety
    /// Dropped, it has removed some; call it again to remove the rest.
    pub async fn end(&self) -> Vec<(TopicName, Error)> {
        *self.ended.write().await = true;
        self.remove().await
    }

    async fn remove(&self) -> Vec<(TopicName, Error)> {
        let topics = self.topics().clone();
        if topics.is_empty() {
            return Vec::new();
        }
        let all = |error: &Error| {
            let with = |topic: &TopicName| (topic.clone(), error.clone());
            topics.iter().map(with).collect()
        };
        let backend = match (self.connect)().await {
            Ok(backend) => backend,
            Err(error) => return all(&error),
        };
        let Some(admin) = backend.admin() else {
            return all(&Error::unsupported(
                "the backend removes no topics; use the service's own tools",
            ));
        };
        let mut left = Vec::new();
        for topic in topics {
            match admin.delete(&topic).await {
                Err(error) if error.kind() != ErrorKind::NotFound => left.push((topic, error)),
                _ => self.topics().retain(|there| *there != topic),
            }
        }
        left
    }

    fn topics(&self) -> MutexGuard<'_, Vec<TopicName>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Harness for Plain {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn service(&self) -> (String, String) {
        self.service.clone()
    }

    fn time(&self) -> Time {
        self.time
    }

    fn clock(&self) -> Clock {
        self.gate().0.clone()
    }

    async fn topic(&self, want: &Want) -> Result<TopicName, Cannot> {
        let ended = self.ended.read().await;
        if *ended {
            return Err(Cannot::new("the run was ended"));
        }
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let end = want.name.clone().unwrap_or_else(|| number.to_string());
        let name = TopicName::new(format!("{}{end}", self.prefix))?;
        let backend = (self.connect)().await?;
        let admin = backend.admin();
        if admin.is_none() && want.makes_demands() {
            return Err(Cannot::new("the backend makes no topics"));
        }
        // Noted before it is made: an answer that is lost leaves no topic behind.
        self.topics().push(name.clone());
        if let Some(admin) = &admin {
            let spec = TopicSpec {
                partitions: want.partitions,
                retention: want.retention,
                dedupe: want.dedupe,
                groups: want.groups.clone(),
                kind: None,
            };
            if !admin.create(&name, &spec).await? {
                return Err(Cannot::new(format!("there is a topic \"{name}\" already")));
            }
        }
        drop(ended);
        let has = match backend.capabilities(&name).await {
            Ok(has) => has,
            Err(_) if admin.is_none() => {
                self.topics().retain(|there| *there != name);
                return Err(Cannot::new("the backend makes no topics"));
            }
            Err(error) => return Err(error.into()),
        };
        match has.missing(&want.needs).first() {
            None => Ok(name),
            Some((need, why)) => Err(Cannot::new(format!("no topic with {need:?}: {why}"))),
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Backend>> {
        let client = (self.connect)().await?;
        Ok(Arc::new(Tap::new(client, self.gate().1.clone())))
    }

    async fn disturb(&self, _: &TopicName, what: Disturb) -> Result<(), Cannot> {
        let (clock, gate) = self.gate();
        match what {
            Disturb::Cut => gate.cut(true),
            Disturb::Delay(by) => gate.delay(by),
            Disturb::Heal => {
                gate.cut(false);
                gate.delay(Duration::ZERO);
                gate.faults().heal();
            }
            Disturb::Fault(call, fault) => {
                gate.faults().inject(call, fault);
            }
            Disturb::Pass(time) if time <= LONGEST || self.time == Time::Virtual => {
                clock.sleep(time).await;
            }
            Disturb::Pass(time) => {
                return Err(Cannot::new(format!("nobody waits for {time:?}")));
            }
            _ => return Err(Cannot::new("nothing is known of how to disturb it")),
        }
        Ok(())
    }

    fn fired(&self) -> usize {
        self.gate().1.fired()
    }

    async fn meter(&self, what: Meter) -> Result<u64, Cannot> {
        Ok(self.gate().1.read(what))
    }

    async fn clean(&self) {
        // What cannot be removed stays in the list for the next time.
        self.remove().await;
    }
}
