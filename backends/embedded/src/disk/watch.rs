//! Watches on real files: one inotify instance and thread per process, or else polling.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::DiskWatch;

type Wake = Arc<dyn Fn() + Send + Sync>;

/// Watches `path`, which must be there.
pub(super) fn watch(path: &Path, wake: Wake) -> io::Result<Box<dyn DiskWatch>> {
    #[cfg(target_os = "linux")]
    match inotify::watch(path, &wake) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
        Err(e) => {
            tracing::debug!(error = %e, "no inotify watch can be had; polling instead");
        }
        Ok(watch) => return Ok(watch),
    }
    poll(path, wake)
}

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(250);

struct Polled {
    path: PathBuf,
    seen: Option<Look>,
    wake: Wake,
    live: Arc<AtomicBool>,
}

/// What a change of a file or directory changes, as far as the clock of the file system shows it.
type Look = (u64, u64, i64, i64);

fn look(path: &Path) -> Option<Look> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

#[derive(Default)]
struct Poller {
    watches: Vec<Polled>,
    running: bool,
}

static POLLER: Mutex<Poller> = Mutex::new(Poller {
    watches: Vec::new(),
    running: false,
});

/// Wakes at every look, changed or not: two changes within one tick of the file system's clock
/// cannot be told apart. What has changed only decides how soon the next look is.
pub(super) fn poll(path: &Path, wake: Wake) -> io::Result<Box<dyn DiskWatch>> {
    fs::metadata(path)?;
    let live = Arc::new(AtomicBool::new(true));
    let mut poller = POLLER.lock().unwrap_or_else(PoisonError::into_inner);
    if !poller.running {
        thread::Builder::new()
            .name("annals-poll".to_owned())
            .spawn(run_poller)?;
        poller.running = true;
    }
    poller.watches.push(Polled {
        path: path.to_owned(),
        seen: look(path),
        wake,
        live: Arc::clone(&live),
    });
    Ok(Box::new(PollWatch(live)))
}

fn run_poller() {
    let mut pause = SHORTEST;
    loop {
        thread::sleep(pause);
        let mut wakes = Vec::new();
        let mut changed = false;
        {
            let mut poller = POLLER.lock().unwrap_or_else(PoisonError::into_inner);
            poller
                .watches
                .retain(|watch| watch.live.load(Ordering::SeqCst));
            if poller.watches.is_empty() {
                poller.running = false;
                return;
            }
            for watch in &mut poller.watches {
                let now = look(&watch.path);
                changed |= now != watch.seen;
                watch.seen = now;
                wakes.push(Arc::clone(&watch.wake));
            }
        }
        for wake in wakes {
            wake();
        }
        pause = if changed {
            SHORTEST
        } else {
            (pause * 2).min(LONGEST)
        };
    }
}

#[derive(Debug)]
struct PollWatch(Arc<AtomicBool>);

impl DiskWatch for PollWatch {}

impl Drop for PollWatch {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[cfg(target_os = "linux")]
mod inotify {
    use std::collections::HashMap;
    use std::fmt;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    use rustix::fs::inotify::remove_watch;
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    use rustix::io::Errno;

    use super::{Arc, AtomicBool, DiskWatch, Mutex, Ordering, Path, PoisonError, Wake, io, thread};

    /// All watches use the same events: watching a file twice gives the same descriptor, and the
    /// last set of events would win.
    fn events() -> WatchFlags {
        WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
    }

    struct Watcher {
        wake: Wake,
        live: AtomicBool,
    }

    type Watchers = HashMap<i32, Vec<Arc<Watcher>>>;

    struct Instance {
        fd: OwnedFd,
        watchers: Mutex<Watchers>,
    }

    /// The process's instance; none before the first watch, or while it cannot be had.
    static INSTANCE: Mutex<Option<Arc<Instance>>> = Mutex::new(None);

    fn instance() -> io::Result<Arc<Instance>> {
        let mut known = INSTANCE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = &*known {
            return Ok(Arc::clone(instance));
        }
        let instance = Arc::new(Instance {
            fd: init(CreateFlags::CLOEXEC)?,
            watchers: Mutex::default(),
        });
        let theirs = Arc::clone(&instance);
        thread::Builder::new()
            .name("annals-watch".to_owned())
            .spawn(move || theirs.run())?;
        *known = Some(Arc::clone(&instance));
        Ok(instance)
    }

    pub(super) fn watch(path: &Path, wake: &Wake) -> io::Result<Box<dyn DiskWatch>> {
        let instance = instance()?;
        let watcher = Arc::new(Watcher {
            wake: Arc::clone(wake),
            live: AtomicBool::new(true),
        });
        let descriptor = {
            // Under the lock, so that the last watch of a file is not removed just after this
            // one has got its descriptor.
            let mut watchers = instance.watchers();
            let descriptor = add_watch(&instance.fd, path, events())?;
            let list = watchers.entry(descriptor).or_default();
            list.push(Arc::clone(&watcher));
            descriptor
        };
        Ok(Box::new(InotifyWatch {
            instance,
            descriptor,
            watcher,
        }))
    }

    impl Instance {
        fn watchers(&self) -> std::sync::MutexGuard<'_, Watchers> {
            self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn run(&self) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(&self.fd, &mut buffer);
            loop {
                let mut due: Vec<Arc<Watcher>> = Vec::new();
                match reader.next() {
                    Ok(event) => {
                        let mut watchers = self.watchers();
                        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                            due.extend(watchers.values().flatten().cloned());
                        } else if let Some(list) = watchers.get(&event.wd()) {
                            due.extend(list.iter().cloned());
                        }
                        if event.events().contains(ReadFlags::IGNORED) {
                            watchers.remove(&event.wd());
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(e) => {
                        // Cannot happen on a descriptor that is ours alone; wake all, so that
                        // nobody waits for ever on what they could have read, and try again.
                        tracing::warn!(error = %e, "reading inotify events failed");
                        due.extend(self.watchers().values().flatten().cloned());
                        thread::sleep(super::LONGEST);
                    }
                }
                for watcher in due {
                    if watcher.live.load(Ordering::SeqCst) {
                        (watcher.wake)();
                    }
                }
            }
        }
    }

    struct InotifyWatch {
        instance: Arc<Instance>,
        descriptor: i32,
        watcher: Arc<Watcher>,
    }

    impl DiskWatch for InotifyWatch {}

    impl fmt::Debug for InotifyWatch {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("InotifyWatch")
                .field("descriptor", &self.descriptor)
                .finish_non_exhaustive()
        }
    }

    impl Drop for InotifyWatch {
        fn drop(&mut self) {
            self.watcher.live.store(false, Ordering::SeqCst);
            let mut watchers = self.instance.watchers();
            let Some(list) = watchers.get_mut(&self.descriptor) else {
                return;
            };
            list.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
            if list.is_empty() {
                watchers.remove(&self.descriptor);
                // It fails where the file is gone, and the watch with it.
                let _ = remove_watch(&self.instance.fd, self.descriptor);
            }
        }
    }
}
