//! The embedded log as the suite reaches it: over a disk in memory that can be killed and lose its
//! power, by a clock that runs faster than the one on the wall.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use annals_conformance::harness::Gate;
use annals_conformance::tap::Tap;
use annals_conformance::{Cannot, Disturb, Harness, Meter, Time, Want};
use annals_core::capability::Retention;
use annals_core::driver::{Backend, TopicSpec};
use annals_core::{Bus, Clock, Result, Start, Timestamp, TopicName, Until};
use annals_embedded::disk::FaultyDisk;
use annals_embedded::log::options::Sizes;
use annals_embedded::{Builder, Embedded};
use async_trait::async_trait;

/// How much faster the clock runs: leases of ten seconds are waited for, and a machine that is busy
/// for a moment must not lose one.
const FASTER: u32 = 10;
/// Retention that no law outlives.
const LONG: Retention = Retention::Age(Duration::from_secs(3_650 * 24 * 3_600));
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The log on disk. A kill takes the power as well, every other time.
    Disk,
    /// The log in memory, which ends with its process.
    Memory,
}

/// One log and its clients.
#[derive(Debug)]
pub(crate) struct LocalHarness {
    kind: Kind,
    log: OnceLock<Log>,
    topics: AtomicUsize,
}

#[derive(Debug)]
struct Log {
    clock: Clock,
    gate: Arc<Gate>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    disk: FaultyDisk,
    /// Never closed, so that the log outlives each client.
    first: Embedded,
    clients: Vec<Embedded>,
    kills: u64,
}

/// Small files and pages, so that a few records cross every edge.
fn sizes() -> Sizes {
    Sizes {
        segment: 8 << 10,
        reserve_first: 1 << 10,
        reserve_most: 4 << 10,
        page: 4 << 10,
        ..Sizes::default()
    }
}

fn build(kind: Kind, disk: &FaultyDisk) -> Result<Embedded> {
    let builder = match kind {
        Kind::Disk => Builder::directory("log"),
        Kind::Memory => Builder::memory(),
    };
    builder
        .disk(Arc::new(disk.clone()), "log")
        .sizes(sizes())
        .build()
}

impl LocalHarness {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            log: OnceLock::new(),
            topics: AtomicUsize::new(0),
        }
    }

    fn log(&self) -> &Log {
        self.log.get_or_init(|| {
            let clock = Clock::moved(Timestamp::from_millis(1_000_000_000));
            run(clock.clone());
            let disk = FaultyDisk::new(clock.clone());
            let first = build(self.kind, &disk).expect("a log on an empty disk");
            Log {
                gate: Arc::new(Gate::new(clock.clone())),
                clock,
                open: Mutex::new(Open {
                    disk,
                    first,
                    clients: Vec::new(),
                    kills: 0,
                }),
            }
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        let open = self.log().open.lock();
        open.unwrap_or_else(PoisonError::into_inner)
    }

    /// The log goes on from what is left of its disk.
    fn kill(&self) -> Result<(), Cannot> {
        if self.kind == Kind::Memory {
            return Err(Cannot::new("the log in memory ends with its process"));
        }
        let mut open = self.open();
        open.kills += 1;
        let disk = if open.kills.is_multiple_of(2) {
            open.disk.after_kill()
        } else {
            open.disk.after_power_loss(open.kills)
        };
        // What is left of the killed process does no harm to the new one's disk.
        open.disk.faults().cut();
        open.first = build(self.kind, &disk)?;
        open.clients.clear();
        open.disk = disk;
        Ok(())
    }

    async fn restart(&self) -> Result<(), Cannot> {
        if self.kind == Kind::Memory {
            return Err(Cannot::new("the log in memory ends with its process"));
        }
        let (first, clients) = {
            let mut open = self.open();
            let clients = std::mem::take(&mut open.clients);
            (open.first.clone(), clients)
        };
        for client in clients.iter().chain([&first]) {
            client.close(Duration::from_secs(5)).await?;
        }
        let mut open = self.open();
        open.first = build(self.kind, &open.disk)?;
        Ok(())
    }

    async fn trim(&self, topic: &TopicName, keep: usize) -> Result<(), Cannot> {
        let first = self.open().first.clone();
        let bus = Bus::new(first.another()?);
        let mut replay = bus
            .topic(topic.as_str())
            .await?
            .replay(Start::Earliest)
            .until(Until::End)
            .await?;
        let mut positions = Vec::new();
        while let Some(record) = replay.next().await? {
            positions.extend(record.position());
        }
        let from = positions.len().saturating_sub(keep).max(1);
        let place = positions.get(from).or(positions.last());
        let place = place.ok_or_else(|| Cannot::new("there is no record to trim"))?;
        Ok(first.trim(topic, place).await?)
    }
}

/// Moves the clock for as long as somebody holds it, by a task of the law's own runtime: where that
/// is starved, time stands still too.
fn run(clock: Clock) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            clock.advance(TICK * FASTER);
        }
    });
}

#[async_trait]
impl Harness for LocalHarness {
    fn name(&self) -> String {
        match self.kind {
            Kind::Disk => "embedded",
            Kind::Memory => "memory",
        }
        .into()
    }

    fn service(&self) -> (String, String) {
        (self.name(), env!("CARGO_PKG_VERSION").into())
    }

    fn time(&self) -> Time {
        Time::Real
    }

    fn clock(&self) -> Clock {
        self.log().clock.clone()
    }

    async fn topic(&self, want: &Want) -> Result<TopicName, Cannot> {
        let number = self.topics.fetch_add(1, Ordering::SeqCst);
        let name = want.name.clone();
        let name = TopicName::new(name.unwrap_or_else(|| format!("topic-{number}")))?;
        let client = self.open().first.another()?;
        let admin = client
            .admin()
            .ok_or_else(|| Cannot::new("no administration"))?;
        let spec = TopicSpec {
            partitions: want.partitions,
            // What keeps everything cannot be trimmed; this keeps everything for as long as a law
            // takes, and is asked of what must be full.
            retention: want.retention.or(want.needs.is_empty().then_some(LONG)),
            dedupe: want.dedupe,
            groups: want.groups.clone(),
            kind: None,
        };
        admin.create(&name, &spec).await?;
        let has = client.capabilities(&name).await?;
        match has.missing(&want.needs).first() {
            None => Ok(name),
            Some((need, why)) => Err(Cannot::new(format!("no topic with {need:?}: {why}"))),
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Backend>> {
        let mut open = self.open();
        let client = open.first.another()?;
        open.clients.push(client.clone());
        Ok(Arc::new(Tap::new(
            Arc::new(client),
            self.log().gate.clone(),
        )))
    }

    async fn disturb(&self, topic: &TopicName, what: Disturb) -> Result<(), Cannot> {
        let gate = &self.log().gate;
        match what {
            Disturb::Kill => return self.kill(),
            Disturb::Restart => return self.restart().await,
            Disturb::Trim { keep } => return self.trim(topic, keep).await,
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
            Disturb::Pass(time) => self.clock().sleep(time).await,
            Disturb::Split(_) | Disturb::Merge(..) => {
                return Err(Cannot::new("a topic has one partition"));
            }
        }
        Ok(())
    }

    fn fired(&self) -> usize {
        self.log().gate.fired()
    }

    async fn meter(&self, what: Meter) -> Result<u64, Cannot> {
        Ok(self.log().gate.read(what))
    }

    async fn clean(&self) {
        self.open().clients.clear();
    }
}
