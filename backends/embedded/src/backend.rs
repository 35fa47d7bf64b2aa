//! The backend: the engine behind the contract.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use annals_core::capability::{
    AppendCapabilities, Attempts, Batching, ByKey, Dedupe, Durability, GapSignal,
    GroupCapabilities, GroupNames, History, Incarnation, Limits, LogTime, Members, NoGroup, Order,
    Partitions, Provision, Receipt, Replay, Retention, Settle, Starts, Tail,
};
use annals_core::driver::{
    Admin, AppendOptions, Backend, Inbound, Leases, Opened, Partition, ReadRange, SubscribeOptions,
};
use annals_core::{
    AppendReport, Batch, Capabilities, Clock, Cursor, Error, Group, Result, Start, TopicName,
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::admin::{dedupe_of, partition, retention_of};
use crate::config::{Config, Place};
use crate::disk::{Disk, MemoryDisk, RealDisk};
use crate::error::{blocking, runtime};
use crate::groups::Ended;
use crate::log::{Settings, Sizes};
use crate::root::{Root, lock};
use crate::{append, read};

/// The largest batch and record, by [`Record::len_bytes`](annals_core::Record::len_bytes).
const MAX_BYTES: u64 = 32 << 20;
/// The most records of a batch: what each adds must fit beside [`MAX_BYTES`].
const MAX_RECORDS: u64 = 500_000;

/// A log on local disk, or in memory.
///
/// One process writes to a directory at a time: the first call that creates, appends or deletes
/// takes the directory's lock, and holds it until [`close`](Backend::close) or until the last
/// handle is dropped. In another process such a call is `Denied` with a sentence that names the
/// writer; reading, following and subscribing work there. All handles of one process on one
/// directory share it, so they do not shut each other out; `close` on one ends only that one while
/// there are others.
///
/// Log time is the machine's clock, and never goes back in a topic. A reading that ends at a
/// moment has waited for every append stamped before it. In the writer's process no later append
/// is stamped before that moment, whatever becomes of the clock; where another process writes, the
/// reading trusts that the clock is not set back behind the moment afterwards.
///
/// Network file systems are not supported, nor are copies of the directory made while it is
/// written to.
///
/// Needs a tokio runtime with time enabled: outside a runtime calls are `Config`. Cheap to clone; clones are the same handle.
#[derive(Clone)]
pub struct Embedded(Arc<Handle>);

struct Handle {
    root: Mutex<Option<Arc<Root>>>,
    /// Stands in for the root once this handle is closed.
    closed: Arc<Root>,
    /// Turns true when this handle is closed under its readers.
    ended: watch::Sender<bool>,
    config: Config,
    memory: bool,
}

/// What can be set besides a URL; see [`Config`] for what each means.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    config: Config,
    clock: Clock,
    disk: Option<(Arc<dyn Disk>, PathBuf)>,
    sizes: Option<Sizes>,
}

impl Builder {
    /// From a whole configuration.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clock: Clock::system(),
            disk: None,
            sizes: None,
        }
    }

    /// A log in this directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::new(Config::new(Place::Directory(path.into())))
    }

    /// A log in memory of one's own.
    pub fn memory() -> Self {
        Self::new(Config::new(Place::Memory(None)))
    }

    /// The size of a segment file in bytes. Default: 64 MiB; from 64 KiB to 1 GiB.
    pub fn segment(mut self, bytes: u64) -> Self {
        self.config.segment = bytes;
        self
    }

    /// What a reader takes from the disk at once, in bytes. Default: 512 KiB; from 4 KiB to
    /// 64 MiB.
    pub fn chunk(mut self, bytes: usize) -> Self {
        self.config.chunk = bytes;
        self
    }

    /// For new topics that do not say: how long a repeated id is recognised. Default: not at all.
    pub fn dedupe(mut self, dedupe: Dedupe) -> Self {
        self.config.dedupe = dedupe;
        self
    }

    /// For new topics that do not say: what is kept. Default: everything.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.config.retention = retention;
        self
    }

    /// Where log time comes from. Default: the system's clock. Only for logs of one's own: a
    /// shared one (`memory:NAME`, a directory that is open in this process) goes by the clock of
    /// whoever opened it first.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Another disk, and the directory there; the configuration's place is then only a name. For
    /// tests: the handle shares nothing with others.
    pub fn disk(mut self, disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Self {
        self.disk = Some((disk, root.into()));
        self
    }

    /// All sizes of files and steps, unchecked: for tests that want tiny ones.
    pub fn sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// Makes the handle. Touches no file: a directory that is not there is made by the first
    /// call that writes.
    ///
    /// # Errors
    /// `Config` for values out of bounds, and for a directory or a name that is open in this
    /// process with other sizes.
    pub fn build(self) -> Result<Embedded> {
        self.config.check()?;
        let sizes = self.sizes.unwrap_or(Sizes {
            segment: self.config.segment,
            page: self.config.chunk,
            ..Sizes::default()
        });
        let memory = matches!(self.config.place, Place::Memory(_));
        let root = match (self.disk, &self.config.place) {
            (Some((disk, dir)), _) => Root::new(disk, dir, sizes),
            (None, Place::Memory(None)) => {
                Root::new(Arc::new(MemoryDisk::new(self.clock)), PathBuf::new(), sizes)
            }
            (None, Place::Memory(Some(name))) => shared(Key::Memory(name.clone()), sizes, || {
                Root::new(Arc::new(MemoryDisk::new(self.clock)), PathBuf::new(), sizes)
            })?,
            (None, Place::Directory(dir)) => {
                let dir = absolute(dir)?;
                shared(Key::Directory(dir.clone()), sizes, || {
                    Root::new(Arc::new(RealDisk::new(self.clock)), dir, sizes)
                })?
            }
        };
        Ok(Embedded(Arc::new(Handle {
            closed: Root::shut(),
            ended: watch::Sender::new(false),
            root: Mutex::new(Some(root)),
            config: self.config,
            memory,
        })))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Memory(String),
    Directory(PathBuf),
}

/// The logs that are open in this process, so that two handles on one are one.
static ROOTS: Mutex<Option<HashMap<Key, Weak<Root>>>> = Mutex::new(None);

fn shared(key: Key, sizes: Sizes, new: impl FnOnce() -> Arc<Root>) -> Result<Arc<Root>> {
    let mut roots = lock(&ROOTS);
    let roots = roots.get_or_insert_default();
    roots.retain(|_, root| root.strong_count() > 0);
    if let Some(root) = roots.get(&key).and_then(Weak::upgrade)
        && !root.closed.load(Ordering::SeqCst)
    {
        if root.sizes != sizes {
            return Err(Error::config(
                "the log is open in this process with another segment or chunk size; use the same",
            ));
        }
        root.handles.fetch_add(1, Ordering::SeqCst);
        return Ok(root);
    }
    let root = new();
    roots.insert(key, Arc::downgrade(&root));
    Ok(root)
}

/// Ends one handle; whether it was the last, which then closes the log.
fn leave(root: &Root) -> bool {
    // Under the lock, so that nobody joins a log that is about to close.
    let _roots = lock(&ROOTS);
    let last = root.handles.fetch_sub(1, Ordering::SeqCst) == 1;
    if last {
        root.closed.store(true, Ordering::SeqCst);
    }
    last
}

/// One spelling for one directory, also where it is still to be made.
fn absolute(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir)
        .map_err(|e| Error::config("the log's path cannot be made absolute").with_source(e))?;
    let mut missing = Vec::new();
    let mut there = dir.as_path();
    loop {
        if let Ok(mut found) = there.canonicalize() {
            found.extend(missing.iter().rev());
            return Ok(found);
        }
        match (there.file_name(), there.parent()) {
            (Some(name), Some(parent)) => {
                missing.push(name.to_owned());
                there = parent;
            }
            _ => return Ok(dir),
        }
    }
}

impl Embedded {
    pub(crate) fn root(&self) -> Arc<Root> {
        lock(&self.0.root)
            .clone()
            .unwrap_or_else(|| Arc::clone(&self.0.closed))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn in_memory(&self) -> bool {
        self.0.memory
    }

    /// The scheme in cursors and errors.
    pub(crate) fn name(&self) -> &'static str {
        if self.0.memory { "memory" } else { "file" }
    }
}

impl Embedded {
    /// Another handle on the same log, as a second one on the same directory is: what is closed or
    /// dropped of one does not end the other. (A clone is the same handle.)
    ///
    /// # Errors
    /// `Closed` once this handle is.
    pub fn another(&self) -> Result<Self> {
        let root = lock(&self.0.root).clone().ok_or_else(|| {
            Error::closed("this handle is closed; connect again to go on").by(self.name())
        })?;
        {
            // Under the lock, so that nobody joins a log that is about to close.
            let _roots = lock(&ROOTS);
            if root.closed.load(Ordering::SeqCst) {
                return Err(
                    Error::closed("the log is closed; connect again to go on").by(self.name())
                );
            }
            root.handles.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Self(Arc::new(Handle {
            closed: Arc::clone(&self.0.closed),
            ended: watch::Sender::new(false),
            root: Mutex::new(Some(root)),
            config: self.0.config.clone(),
            memory: self.0.memory,
        })))
    }
}

impl Drop for Handle {
    /// The log itself ends with its last user: a reader may still be one.
    fn drop(&mut self) {
        if let Some(root) = lock(&self.root).take() {
            root.handles.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// What a topic with these settings promises.
pub(crate) fn capabilities(settings: &Settings, memory: bool) -> Capabilities {
    let retention = retention_of(settings);
    let dedupe = match (dedupe_of(settings), retention) {
        // An id is known as long as its record is kept.
        (Dedupe::Window(window), Retention::Age(age)) => Dedupe::Window(window.min(age)),
        (Dedupe::Forever, Retention::Age(age)) => Dedupe::Window(age),
        // By bytes nobody can say for how long that is.
        (_, Retention::Bytes(_)) => Dedupe::None,
        (dedupe, _) => dedupe,
    };
    Capabilities {
        replay: match retention {
            Retention::Forever => Replay::Full,
            limit => Replay::Retained(limit),
        }
        .into(),
        source: Provision::Native.into(),
        history: History::Every.into(),
        order: Order::Total.into(),
        keys_move: false.into(),
        starts: Starts::ALL.into(),
        group_starts: Starts::ALL.into(),
        log_time: LogTime::Arrival.into(),
        skew: Duration::ZERO.into(),
        tail: Tail::Exact.into(),
        gap: GapSignal::Exact.into(),
        incarnation: Incarnation::Exact.into(),
        by_key: ByKey::Indexed.into(),
        append: AppendCapabilities {
            batch: Batching::Atomic.into(),
            receipt: Receipt::Position.into(),
            conditional: true.into(),
            fenced: true.into(),
            dedupe: dedupe.into(),
            resubmit: None.into(),
            in_flight: 1024,
            parallel: 1024,
            no_group: NoGroup::Kept.into(),
        },
        durability: if memory {
            Durability::Memory
        } else {
            Durability::Fsynced
        }
        .into(),
        groups: GroupCapabilities {
            names: GroupNames::Any(u32::MAX).into(),
            members: Members::Local.into(),
            settle: Settle::UpTo.into(),
            hold: None.into(),
            attempts: Attempts::Taken.into(),
            fenced: true.into(),
            forgotten_after: None.into(),
            share_reads: false.into(),
            kept: retention.into(),
            given_up_after: None.into(),
        },
        partitions: Partitions::One.into(),
        limits: Limits {
            record_bytes: Some(MAX_BYTES).into(),
            batch_records: Some(MAX_RECORDS).into(),
            batch_bytes: Some(MAX_BYTES).into(),
            ..Limits::NONE
        },
    }
}

#[async_trait]
impl Backend for Embedded {
    fn scheme(&self) -> &'static str {
        self.name()
    }

    async fn capabilities(&self, topic: &TopicName) -> Result<Capabilities> {
        let topic = self.root().topic(topic).await?;
        Ok(capabilities(&topic.settings(), self.0.memory))
    }

    async fn append(
        &self,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        append::append(&self.root(), self.name(), topic, batch, options).await
    }

    async fn locate(&self, topic: &TopicName, start: &Start) -> Result<Cursor> {
        read::locate(&self.root(), self.name(), topic, start).await
    }

    async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>> {
        self.root().topic(topic).await?;
        Ok(vec![partition()])
    }

    async fn read(&self, topic: &TopicName, range: &ReadRange) -> Result<Opened> {
        let ended = self.0.ended.subscribe();
        read::open(&self.root(), self.name(), topic, range, ended).await
    }

    fn leases(&self, topic: &TopicName) -> Option<Arc<dyn Leases>> {
        let root = self.root();
        if root.closed.load(Ordering::SeqCst) {
            return Some(Arc::new(Ended));
        }
        Some(Arc::new(root.open(topic).groups.clone()))
    }

    async fn subscribe(
        &self,
        _topic: &TopicName,
        _group: &Group,
        _options: &SubscribeOptions,
    ) -> Result<Inbound> {
        Err(Error::unsupported(
            "groups of the embedded log are run over its leases",
        ))
    }

    fn admin(&self) -> Option<Arc<dyn Admin>> {
        Some(Arc::new(self.clone()))
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        runtime()?;
        let Some(root) = lock(&self.0.root).take() else {
            return Ok(());
        };
        self.0.ended.send_replace(true);
        if !leave(&root) {
            // Others in this process go on.
            return Ok(());
        }
        let closing = blocking(move || root.close());
        match tokio::time::timeout(grace, closing).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                annals_core::ErrorKind::Timeout,
                annals_core::Effect::None,
                annals_core::Retry::Backoff,
                "the disk did not finish in time; what was accepted is still being written",
            )),
        }
    }
}
