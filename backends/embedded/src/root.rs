//! A log's directory as one process uses it: the writer's lock and the open topics.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::{Effect, Error, ErrorKind, Result, Retry, TopicName};
use tokio::sync::watch;

use crate::disk::{Disk, DiskLock};
use crate::error::{blocking, detached, of_io};
use crate::groups::Groups;
use crate::log::{Place, Sizes, Topic, TopicLog};
use crate::{index, retention};

/// How often, and how often at most, a lock that this very process is about to free is tried.
const OWN_LOCK_PAUSE: Duration = Duration::from_millis(10);
const OWN_LOCK_TRIES: u32 = 300;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::closed("the log is closed; connect again")
}

/// A log's directory.
pub(crate) struct Root {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) sizes: Sizes,
    owner: String,
    /// Taken by the first call that writes, held until the end: readers need none.
    lock: Mutex<Option<Box<dyn DiskLock>>>,
    topics: Mutex<HashMap<TopicName, Arc<Open>>>,
    /// Handles on it, the first one included; readers keep it alive without being one.
    pub(crate) handles: AtomicUsize,
    pub(crate) closed: AtomicBool,
}

/// What this process knows of a topic.
pub(crate) struct Open {
    pub(crate) groups: Groups,
    log: Mutex<Option<TopicLog>>,
    /// Held while the log is opened. Fair: appends that wait here keep their order.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// Appends that wait there; while there are some, others queue up behind them.
    waiting: AtomicUsize,
    /// Turns true when the topic is deleted or closed under its readers.
    gone: watch::Sender<bool>,
}

/// A place at the head of the line of those that wait for the log to open.
pub(crate) struct Turn {
    _waiting: Waiting,
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

/// Counts a waiting append even if it is dropped while it waits.
struct Waiting(Arc<Open>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Open {
    /// The log, if it is open and nobody waits for it to open.
    pub(crate) fn ready(&self) -> Option<TopicLog> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        lock(&self.log).clone()
    }

    /// Waits in line.
    pub(crate) async fn turn(self: Arc<Self>) -> Turn {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(Arc::clone(&self));
        let guard = Arc::clone(&self.opening).lock_owned().await;
        Turn {
            _waiting: waiting,
            _guard: guard,
        }
    }

    /// Turns true when nothing can be read any more.
    pub(crate) fn gone(&self) -> watch::Receiver<bool> {
        self.gone.subscribe()
    }
}

impl Root {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, sizes: Sizes) -> Arc<Self> {
        Arc::new(Self {
            disk,
            dir,
            sizes,
            owner: format!("pid {}", std::process::id()),
            lock: Mutex::default(),
            topics: Mutex::default(),
            handles: AtomicUsize::new(1),
            closed: AtomicBool::new(false),
        })
    }

    /// Where every call is `Closed`.
    pub(crate) fn shut() -> Arc<Self> {
        let disk = crate::disk::MemoryDisk::new(annals_core::Clock::system());
        let root = Self::new(Arc::new(disk), PathBuf::new(), Sizes::default());
        root.closed.store(true, Ordering::SeqCst);
        root
    }

    /// `Closed` once it is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        Ok(())
    }

    pub(crate) fn place(&self, topic: &TopicName) -> Place {
        Place {
            disk: Arc::clone(&self.disk),
            root: self.dir.clone(),
            name: topic.clone(),
            sizes: self.sizes,
        }
    }

    /// What is known of a topic, which need not be there.
    pub(crate) fn open(&self, topic: &TopicName) -> Arc<Open> {
        let mut topics = lock(&self.topics);
        Arc::clone(topics.entry(topic.clone()).or_insert_with(|| {
            Arc::new(Open {
                groups: Groups::new(
                    Arc::clone(&self.disk),
                    self.dir.join(topic.as_str()),
                    self.owner.clone(),
                ),
                log: Mutex::default(),
                opening: Arc::default(),
                waiting: AtomicUsize::new(0),
                gone: watch::Sender::new(false),
            })
        }))
    }

    /// Opens a topic's log for writing. Call it with the topic's turn.
    pub(crate) async fn log(self: &Arc<Self>, topic: &TopicName, open: &Open) -> Result<TopicLog> {
        if let Some(log) = lock(&open.log).clone() {
            return Ok(log);
        }
        let (root, name) = (Arc::clone(self), topic.clone());
        let log = blocking(move || {
            root.claim()?;
            TopicLog::open(&root.place(&name))
        })
        .await
        .map_err(|e| e.on_topic(topic))?;
        self.check()?;
        *lock(&open.log) = Some(log.clone());
        retention::watch(log.topic());
        index::watch(log.topic());
        Ok(log)
    }

    /// A topic for reading: the writer's own view where this process writes.
    pub(crate) async fn topic(self: &Arc<Self>, topic: &TopicName) -> Result<Arc<Topic>> {
        self.check()?;
        let open = self.open(topic);
        if let Some(log) = lock(&open.log).clone() {
            return Ok(Arc::clone(log.topic()));
        }
        let writes_here = lock(&self.lock).is_some();
        if writes_here {
            let (root, name) = (Arc::clone(self), topic.clone());
            let opened = detached(async move {
                let turn = Arc::clone(&open).turn().await;
                let log = root.log(&name, &open).await;
                drop(turn);
                log
            });
            match opened.await {
                Ok(log) => return Ok(Arc::clone(log.topic())),
                // What a writer cannot go on from may still be read.
                Err(e) if e.kind() == ErrorKind::Corrupt => {}
                Err(e) => return Err(e),
            }
        }
        let (root, name) = (Arc::clone(self), topic.clone());
        blocking(move || Topic::open(&root.place(&name))).await
    }

    /// Becomes the writer of this directory, which is made if it is not there. Blocks.
    pub(crate) fn claim(&self) -> Result<()> {
        let mut held = lock(&self.lock);
        self.check()?;
        if held.is_some() {
            return Ok(());
        }
        make_dirs(&*self.disk, &self.dir).map_err(|e| of_io("making the log's directory", e))?;
        let path = self.dir.join(".lock");
        let mut tries = 0;
        loop {
            let taken = self
                .disk
                .lock(&path, &self.owner)
                .map_err(|e| of_io("locking the log's directory", e))?;
            match taken {
                Ok(taken) => {
                    *held = Some(taken);
                    break;
                }
                // An earlier handle of this process is still writing its last.
                Err(by) if by.owner == self.owner && tries < OWN_LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(OWN_LOCK_PAUSE);
                }
                Err(by) => {
                    let owner = if by.owner.is_empty() {
                        "another process"
                    } else {
                        &by.owner
                    };
                    return Err(Error::new(
                        ErrorKind::Denied,
                        Effect::None,
                        Retry::Never,
                        format!(
                            "the log is being written by {owner}; one process writes at a time, others may read and subscribe"
                        ),
                    ));
                }
            }
        }
        // Whoever was killed may have left names that are not durable yet: nothing is acknowledged
        // below them, and nothing is removed below their old ones, before they are.
        self.disk
            .sync_dir(&self.dir)
            .map_err(|e| of_io("syncing the log's directory", e))?;
        // What a crash left of creations and deletions.
        let left = self
            .disk
            .list(&self.dir)
            .map_err(|e| of_io("listing the log's directory", e))?;
        for entry in left {
            if entry.dir && (entry.name.starts_with(".old-") || entry.name.starts_with(".new-")) {
                remove_all(&*self.disk, &self.dir.join(&entry.name))
                    .map_err(|e| of_io("removing what a crash left", e))?;
            }
        }
        Ok(())
    }

    /// Deletes a topic: gone for good once its new name is durable; the rest is cleaning up, which
    /// the next writer does where this one could not. Call it with the topic's turn. Blocks.
    pub(crate) fn delete(&self, topic: &TopicName, open: &Open) -> Result<()> {
        self.claim()?;
        let fail = |e| of_io("deleting the topic", e).on_topic(topic);
        if !crate::log::exists(&*self.disk, &self.dir, topic)? {
            return Err(Error::not_found("there is no such topic").on_topic(topic));
        }
        if let Some(log) = lock(&open.log).take()
            && let Err(e) = log.close()
        {
            tracing::debug!(error = %e, "closing a topic that is being deleted failed");
        }
        open.groups.let_go();
        let old = self.dir.join(format!(".old-{topic}"));
        remove_all(&*self.disk, &old).map_err(fail)?;
        self.disk
            .rename(&self.dir.join(topic.as_str()), &old)
            .map_err(fail)?;
        self.disk.sync_dir(&self.dir).map_err(fail)?;
        open.gone.send_replace(true);
        lock(&self.topics).remove(topic);
        if let Err(e) = remove_all(&*self.disk, &old) {
            tracing::warn!(error = %e, "a deleted topic's files remain until the next start");
        }
        Ok(())
    }

    /// Answers what waits, syncs, and lets go of everything. Blocks. A second call does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        let topics: Vec<_> = lock(&self.topics).drain().map(|(_, open)| open).collect();
        let mut result = Ok(());
        for open in topics {
            open.groups.let_go();
            let log = lock(&open.log).take();
            if let Some(log) = log {
                let ended = log.close();
                result = result.and(ended);
            }
            open.gone.send_replace(true);
        }
        *lock(&self.lock) = None;
        result
    }
}

impl Drop for Root {
    /// Whoever dropped the last handle may be on an async worker: what is left to write is
    /// written elsewhere, and only then the lock goes.
    fn drop(&mut self) {
        let logs: Vec<TopicLog> = lock(&self.topics)
            .drain()
            .filter_map(|(_, open)| {
                open.gone.send_replace(true);
                lock(&open.log).take()
            })
            .collect();
        let held = lock(&self.lock).take();
        if logs.is_empty() {
            return;
        }
        let finish = move || {
            for log in logs {
                if let Err(e) = log.close() {
                    tracing::warn!(error = %e, "closing a log failed");
                }
            }
            drop(held);
        };
        if let Err(e) = std::thread::Builder::new()
            .name("annals-close".to_owned())
            .spawn(finish)
        {
            tracing::warn!(error = %e, "no thread to close a log; it recovers at its next start");
        }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Makes a directory and those above it, durably.
fn make_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let above = match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        // Whoever made it may have been killed before its name was durable.
        Ok(entries) if entries.is_empty() => {
            return match disk.sync_dir(above) {
                // Not this process's to make, then.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other,
            };
        }
        other => return other.map(|_| ()),
    }
    make_dirs(disk, above)?;
    match disk.create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| disk.sync_dir(above)),
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = dir.join(&entry.name);
        if entry.dir {
            remove_all(disk, &path)?;
        } else {
            match disk.remove(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    disk.remove(dir)
}
