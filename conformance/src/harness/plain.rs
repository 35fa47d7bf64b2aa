//! Any backend as a harness: all that is asked for is a way to connect.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::driver::{Backend, TopicSpec};
use annals_core::{Clock, ErrorKind, Result, TopicName};
use async_trait::async_trait;

use super::{Cannot, Disturb, Harness, Meter, Time, Want};

type Connect =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>> + Send + Sync>;

/// A backend that can be connected to and administered, and not disturbed: no case with a fault is
/// exercised.
///
/// Topics are made through [`Backend::admin`], under a prefix, and removed by
/// [`clean`](Harness::clean).
pub struct Plain {
    name: String,
    service: (String, String),
    prefix: String,
    connect: Connect,
    made: AtomicUsize,
    topics: Mutex<Vec<TopicName>>,
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
            made: AtomicUsize::new(0),
            topics: Mutex::default(),
        }
    }

    /// Which service, and which version of it.
    #[must_use]
    pub fn of_service(mut self, service: impl Into<String>, version: impl Into<String>) -> Self {
        self.service = (service.into(), version.into());
        self
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
        Time::Real
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    async fn topic(&self, want: &Want) -> Result<TopicName, Cannot> {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let end = want.name.clone().unwrap_or_else(|| number.to_string());
        let name = TopicName::new(format!("{}{end}", self.prefix))?;
        let backend = (self.connect)().await?;
        let admin = backend
            .admin()
            .ok_or_else(|| Cannot::new("the backend makes no topics"))?;
        let spec = TopicSpec {
            partitions: want.partitions,
            retention: want.retention,
            dedupe: want.dedupe,
            groups: want.groups.clone(),
            kind: None,
        };
        admin.create(&name, &spec).await?;
        {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.push(name.clone());
        }
        let has = backend.capabilities(&name).await?;
        match has.missing(&want.needs).first() {
            None => Ok(name),
            Some((need, why)) => Err(Cannot::new(format!("no topic with {need:?}: {why}"))),
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Backend>> {
        (self.connect)().await
    }

    async fn disturb(&self, _: &TopicName, what: Disturb) -> Result<(), Cannot> {
        match what {
            Disturb::Pass(time) if time <= Duration::from_secs(1) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Disturb::Heal => Ok(()),
            _ => Err(Cannot::new("nothing is known of how to disturb it")),
        }
    }

    fn fired(&self) -> usize {
        0
    }

    async fn meter(&self, _: Meter) -> Result<u64, Cannot> {
        Err(Cannot::new("nobody counts it"))
    }

    async fn clean(&self) {
        let topics = {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *topics)
        };
        let Ok(backend) = (self.connect)().await else {
            return;
        };
        let Some(admin) = backend.admin() else { return };
        for topic in topics {
            // What cannot be removed stays in the list for the next time.
            if let Err(error) = admin.delete(&topic).await
                && error.kind() != ErrorKind::NotFound
            {
                let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
                topics.push(topic);
            }
        }
    }
}
