//! The three models as harnesses, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use annals_core::driver::{Backend, TopicSpec};
use annals_core::{Clock, Result, Timestamp, TopicName};
use async_trait::async_trait;

use super::gate::Gate;
use super::{Cannot, Disturb, Harness, Meter, Time, Want};
use crate::models::{Connection, log, queue, sharded};
use crate::tap::Tap;

/// What is made on the runtime, since its clock is the runtime's.
#[derive(Debug)]
struct Service<S> {
    state: S,
    clock: Clock,
    gate: Arc<Gate>,
}

/// One model and its clients.
#[derive(Debug)]
struct Model<S> {
    name: &'static str,
    make: fn(Clock) -> S,
    service: OnceLock<Service<S>>,
    clients: Mutex<Vec<Connection>>,
    topics: AtomicUsize,
}

impl<S: Send + Sync> Model<S> {
    fn new(name: &'static str, make: fn(Clock) -> S) -> Self {
        Self {
            name,
            make,
            service: OnceLock::new(),
            clients: Mutex::default(),
            topics: AtomicUsize::new(0),
        }
    }

    fn service(&self) -> &Service<S> {
        self.service.get_or_init(|| {
            // Not the epoch, so that a time that was never set does not pass for one.
            let clock = Clock::runtime(Timestamp::from_millis(1_000_000_000));
            Service {
                state: (self.make)(clock.clone()),
                gate: Arc::new(Gate::new(clock.clone())),
                clock,
            }
        })
    }

    fn connected(&self, connection: Connection, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(connection);
        Arc::new(Tap::new(backend, self.service().gate.clone()))
    }

    fn kill(&self) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients.drain(..) {
            client.kill();
        }
    }

    /// Makes the topic, then looks whether it promises what it must.
    async fn topic(
        &self,
        backend: Arc<dyn Backend>,
        partitions: Option<u32>,
        want: &Want,
    ) -> Result<TopicName, Cannot> {
        let number = self.topics.fetch_add(1, Ordering::SeqCst);
        let name = want.name.clone();
        let name = name.unwrap_or_else(|| format!("topic-{number}"));
        let name = TopicName::new(name)?;
        let spec = TopicSpec {
            partitions: want.partitions.or(partitions),
            retention: want.retention,
            dedupe: want.dedupe,
            groups: want.groups.clone(),
            kind: None,
        };
        let admin = backend
            .admin()
            .ok_or_else(|| Cannot::new("no administration"))?;
        admin.create(&name, &spec).await?;
        let has = backend.capabilities(&name).await?;
        match has.missing(&want.needs).first() {
            None => Ok(name),
            Some((need, why)) => Err(Cannot::new(format!("no topic with {need:?}: {why}"))),
        }
    }

    /// What all models can.
    async fn disturb(&self, what: Disturb) -> Result<(), Cannot> {
        let service = self.service();
        match what {
            // The service outlives its clients; that it ends and starts again is all they see.
            Disturb::Restart | Disturb::Kill => self.kill(),
            Disturb::Cut => service.gate.cut(true),
            Disturb::Heal => {
                service.gate.cut(false);
                service.gate.delay(std::time::Duration::ZERO);
            }
            Disturb::Delay(by) => service.gate.delay(by),
            Disturb::Pass(time) => service.clock.sleep(time).await,
            Disturb::Trim { .. } => {
                return Err(Cannot::new("it keeps nothing that could be trimmed"));
            }
            Disturb::Split(_) | Disturb::Merge(..) => {
                return Err(Cannot::new("its partitions do not change"));
            }
            Disturb::Fault(..) => return Err(Cannot::new("it takes no faults")),
        }
        Ok(())
    }
}

macro_rules! harness {
    (
        $(#[$doc:meta])* $harness:ident, $name:literal, $model:ident, partitions: $partitions:expr,
        disturb($state:ident, $topic:ident): { $($what:pat => $do:expr,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $harness(Model<$model::State>);

        impl $harness {
            /// A service of its own.
            pub fn new() -> Self {
                Self(Model::new($name, $model::State::new))
            }

            /// The service itself. Asked on the runtime.
            pub fn state(&self) -> &$model::State {
                &self.0.service().state
            }
        }

        impl Default for $harness {
            fn default() -> Self {
                Self::new()
            }
        }

        #[async_trait]
        impl Harness for $harness {
            fn name(&self) -> String {
                self.0.name.into()
            }

            fn service(&self) -> (String, String) {
                (self.0.name.into(), env!("CARGO_PKG_VERSION").into())
            }

            fn time(&self) -> Time {
                Time::Virtual
            }

            fn clock(&self) -> Clock {
                self.0.service().clock.clone()
            }

            async fn topic(&self, want: &Want) -> Result<TopicName, Cannot> {
                let client: Arc<dyn Backend> = Arc::new(self.state().connect());
                self.0.topic(client, $partitions, want).await
            }

            async fn connect(&self) -> Result<Arc<dyn Backend>> {
                let client = self.state().connect();
                let connection = client.connection().clone();
                Ok(self.0.connected(connection, Arc::new(client)))
            }

            async fn disturb(&self, $topic: &TopicName, what: Disturb) -> Result<(), Cannot> {
                let $state = self.state();
                match what {
                    $($what => $do,)*
                    Disturb::Fault(call, fault) => {
                        $state.faults().inject(call, fault);
                        Ok(())
                    }
                    Disturb::Heal => {
                        $state.faults().heal();
                        self.0.disturb(Disturb::Heal).await
                    }
                    what => self.0.disturb(what).await,
                }
            }

            fn fired(&self) -> usize {
                self.state().faults().fired() + self.0.service().gate.fired()
            }

            async fn meter(&self, what: Meter) -> Result<u64, Cannot> {
                Ok(self.0.service().gate.read(what))
            }

            async fn clean(&self) {
                self.0.kill();
            }
        }
    };
}

harness! {
    /// The log model: [`models::log`](crate::models::log).
    LogHarness, "model-log", log, partitions: None,
    disturb(state, topic): {
        Disturb::Trim { keep } => state.trim(topic, keep).map_err(Cannot::from),
    }
}

harness! {
    /// The sharded model, with two shards unless a case wants another number:
    /// [`models::sharded`](crate::models::sharded).
    ShardedHarness, "model-sharded", sharded, partitions: Some(2),
    disturb(state, topic): {
        Disturb::Trim { keep } => state.trim(topic, keep).map_err(Cannot::from),
        Disturb::Split(shard) => state.split(topic, shard).map(drop).map_err(Cannot::from),
        Disturb::Merge(one, other) => state.merge(topic, one, other).map(drop).map_err(Cannot::from),
    }
}

harness! {
    /// The queue model: [`models::queue`](crate::models::queue).
    QueueHarness, "model-queue", queue, partitions: None,
    disturb(state, _topic): {}
}
