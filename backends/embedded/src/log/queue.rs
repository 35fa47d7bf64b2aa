//! The asynchronous door: a bounded queue per topic, drained by at most one blocking job.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use annals_core::{
    AppendReport, Batch, Effect, Error, ErrorKind, Operation, Outcome, Result, Retry,
};
use tokio::sync::oneshot;

use super::commit::{Answer, Request, Writer};
use super::encode::{Encoded, measure};
use super::options::Condition;
use super::topic::{Place, Topic, lock};
use crate::error::runtime;

/// The most bytes that wait in one topic's queue; a longer batch waits alone.
pub const QUEUE_BYTES: usize = 64 << 20;
/// How long a job that has answered waits for who comes back, and how long for one more of them:
/// no longer than a sync takes.
const LINGER: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_micros(30);
/// How long a job stays when nothing waits.
const IDLE: Duration = Duration::from_millis(2);
/// How long after a commit the durable end is synced.
const TAIL_SYNC: Duration = Duration::from_secs(1);
/// Buffers that are kept for the next appends, and how long each may be.
const KEPT: usize = 4;
const KEPT_BYTES: usize = 1 << 20;

/// A topic that is open for writing, shared by all who append to it.
#[derive(Clone)]
pub struct TopicLog(Arc<Inner>);

struct Inner {
    topic: Arc<Topic>,
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// How many wait encoded, to be looked at without the queue's lock.
    ready: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
    /// [`QUEUE_BYTES`]; tests have less.
    room: usize,
}

#[derive(Default)]
struct Queue {
    /// Encoded, and how many bytes of these there are, those being committed included.
    waiting: VecDeque<Request>,
    bytes: usize,
    /// What came when the queue was full: as the caller has it, not encoded.
    late: VecDeque<Late>,
    job: bool,
    /// The job waits for `arrived`: to notify it costs a system call, also where it does not.
    idle: bool,
    timer: bool,
    closed: bool,
}

struct Late {
    batch: Arc<Batch>,
    condition: Condition,
    epoch: Option<u64>,
    answer: oneshot::Sender<Answer>,
}

impl Queue {
    /// Whether `bytes` more may wait encoded.
    const fn has_room(&self, bytes: usize, room: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= room
    }
}

fn closed() -> Error {
    Error::closed("the log is closed; open it again").during(Operation::Append)
}

impl TopicLog {
    /// Opens a topic for writing. Blocks: call it on a blocking thread. The caller holds the
    /// root's lock.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open(place: &Place) -> Result<Self> {
        Self::with_room(place, QUEUE_BYTES)
    }

    /// As [`TopicLog::open`], with `room` for bytes that wait.
    pub(super) fn with_room(place: &Place, room: usize) -> Result<Self> {
        let writer = Writer::open(place)?;
        Ok(Self(Arc::new(Inner {
            topic: Arc::clone(writer.topic()),
            writer: Mutex::new(writer),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            ready: AtomicUsize::new(0),
            spare: Mutex::default(),
            room,
        })))
    }

    /// The topic, for readers.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.0.topic
    }

    /// Appends a batch as one frame: all of it or none of it, duplicates aside. Waits for its turn
    /// while [`QUEUE_BYTES`] wait already.
    ///
    /// Order is fixed at the first poll. Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    /// Nothing was stored: `TooLarge`, `Config` for no records and outside a runtime, `Closed`. All else is in the
    /// report: `Conflict`, `Fenced`, `Blocked` on a full disk and, conditional on a key, while more
    /// than one index of keys is missing; `Unknown` after a failed sync.
    ///
    /// # Cancel safety
    /// Dropped after its first poll, the batch may be stored all the same.
    pub async fn append(
        &self,
        batch: &Batch,
        condition: Condition,
        epoch: Option<u64>,
    ) -> Result<AppendReport> {
        let inner = &self.0;
        let bytes = measure(batch).map_err(|e| e.on_topic(inner.topic.name()))?;
        let answer = inner.enqueue(batch, bytes, condition, epoch)?;
        let answer = answer.await.unwrap_or_else(|_| {
            Answer::All(Outcome::Unknown(Error::new(
                ErrorKind::Closed,
                Effect::Unknown,
                Retry::Never,
                "the runtime went away before the log answered; reopen the log to find out",
            )))
        });
        Ok(answer.into_report(batch.len()))
    }

    /// Nothing is committed while it is held; for tests.
    #[cfg(test)]
    pub(super) fn stand_still(&self) -> MutexGuard<'_, Writer> {
        self.0.writer()
    }

    /// Bytes that wait encoded, and appends that wait as they came; for tests.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        let queue = lock(&self.0.queue);
        (queue.bytes, queue.late.len())
    }

    /// Answers everything that waits, gives spare room back and syncs. Blocks: call it on a
    /// blocking thread. Appends that come later are `Closed`. A second call does nothing.
    ///
    /// # Errors
    /// The disk's; nothing that was acknowledged depends on it.
    pub fn close(&self) -> Result<()> {
        let inner = &self.0;
        lock(&inner.queue).closed = true;
        let mut writer = inner.writer();
        inner.commit_waiting(&mut writer);
        writer.close()
    }
}

impl Inner {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = poisoned.into_inner();
            writer.give_up();
            writer
        })
    }

    fn encode(&self, batch: &Batch) -> Result<Encoded> {
        let spare = lock(&self.spare).pop().unwrap_or_default();
        Encoded::new(batch, spare)
    }

    fn enqueue(
        self: &Arc<Self>,
        batch: &Batch,
        bytes: usize,
        condition: Condition,
        epoch: Option<u64>,
    ) -> Result<oneshot::Receiver<Answer>> {
        // Asked for first: what is queued, some job has to take.
        let runtime = runtime()?;
        let (answer, receiver) = oneshot::channel();
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(closed());
        }
        if queue.late.is_empty() && queue.has_room(bytes, self.room) {
            queue.bytes += bytes;
            drop(queue);
            let batch = self.encode(batch);
            queue = lock(&self.queue);
            let batch = match batch {
                Ok(batch) if !queue.closed => batch,
                other => {
                    queue.bytes = queue.bytes.saturating_sub(bytes);
                    return Err(other.err().unwrap_or_else(closed));
                }
            };
            queue.waiting.push_back(Request {
                batch,
                condition,
                epoch,
                answer,
            });
            self.ready.store(queue.waiting.len(), Ordering::Release);
        } else {
            queue.late.push_back(Late {
                batch: Arc::new(batch.clone()),
                condition,
                epoch,
                answer,
            });
        }
        if queue.job {
            let idle = std::mem::take(&mut queue.idle);
            drop(queue);
            if idle {
                self.arrived.notify_one();
            }
        } else {
            queue.job = true;
            let inner = Arc::clone(self);
            drop(queue);
            runtime.spawn_blocking(move || inner.drain());
        }
        Ok(receiver)
    }

    /// Encodes the late ones for which there is room now; those that nobody waits for any more
    /// are dropped. Only the one who holds the writer calls it, so the first stays the first.
    fn admit(&self) {
        loop {
            let batch = {
                let mut queue = lock(&self.queue);
                while queue
                    .late
                    .front()
                    .is_some_and(|late| late.answer.is_closed())
                {
                    queue.late.pop_front();
                }
                match queue.late.front() {
                    Some(late) => Arc::clone(&late.batch),
                    None => return,
                }
            };
            let bytes = measure(&batch).unwrap_or(0);
            if !lock(&self.queue).has_room(bytes, self.room) {
                return;
            }
            let encoded = self.encode(&batch);
            let mut queue = lock(&self.queue);
            let Some(late) = queue.late.pop_front() else {
                return;
            };
            match encoded {
                Ok(batch) => {
                    queue.bytes += bytes;
                    queue.waiting.push_back(Request {
                        batch,
                        condition: late.condition,
                        epoch: late.epoch,
                        answer: late.answer,
                    });
                }
                Err(error) => {
                    let _ = late.answer.send(Answer::rejected(error));
                }
            }
        }
    }

    /// After so many answers waits a little for the writers to come back with their next batches:
    /// the first of them would otherwise have a group, and a sync, alone, and the others wait for
    /// it. Also spares a lone writer who is fast the waking of this thread. Others that are ready
    /// to run go first.
    fn gather(&self, answered: usize) {
        if answered == 0 {
            return;
        }
        let mut ready = self.ready.load(Ordering::Acquire);
        let all = answered + ready;
        let since = Instant::now();
        let mut grown = since;
        while ready < all {
            let now = Instant::now();
            if now - since > LINGER || (ready > 0 && now - grown > PAUSE) {
                return;
            }
            std::thread::yield_now();
            let before = std::mem::replace(&mut ready, self.ready.load(Ordering::Acquire));
            if ready != before {
                grown = now;
            }
        }
    }

    /// Takes all that waits, group after group.
    fn commit_waiting(&self, writer: &mut Writer) {
        let mut answered = 0;
        loop {
            self.gather(answered);
            self.admit();
            let mut requests = {
                let mut queue = lock(&self.queue);
                self.ready.store(0, Ordering::Release);
                std::mem::take(&mut queue.waiting)
            };
            if requests.is_empty() {
                return;
            }
            answered = requests.len();
            while !requests.is_empty() {
                let before: usize = requests.iter().map(|r| r.batch.len_bytes()).sum();
                let answers = writer.commit(&mut requests, |buffer| {
                    if buffer.capacity() <= KEPT_BYTES {
                        let mut spare = lock(&self.spare);
                        if spare.len() < KEPT {
                            spare.push(buffer);
                        }
                    }
                });
                answers.give();
                let after: usize = requests.iter().map(|r| r.batch.len_bytes()).sum();
                let mut queue = lock(&self.queue);
                queue.bytes = queue.bytes.saturating_sub(before - after);
            }
        }
    }

    /// The job: drains the queue, ends after a short idle.
    fn drain(self: Arc<Self>) {
        // Should anything in it panic, the next append starts another job.
        struct Panicked<'a>(&'a Inner);
        impl Drop for Panicked<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    lock(&self.0.queue).job = false;
                }
            }
        }
        let _guard = Panicked(&self);
        loop {
            {
                let mut writer = self.writer();
                self.commit_waiting(&mut writer);
            }
            let queue = lock(&self.queue);
            let (mut queue, _) = self
                .arrived
                .wait_timeout_while(queue, IDLE, |queue| {
                    queue.idle = queue.waiting.is_empty() && queue.late.is_empty();
                    queue.idle
                })
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            queue.idle = false;
            if queue.waiting.is_empty() && queue.late.is_empty() {
                // Under the lock, so that no append can count on a job that has gone.
                queue.job = false;
                let owes = !queue.timer && !queue.closed;
                queue.timer |= owes;
                drop(queue);
                // Whoever writes again by now opens it again.
                if let Ok(mut writer) = self.writer.try_lock() {
                    writer.rest();
                }
                if owes {
                    sync_later(Arc::downgrade(&self));
                }
                return;
            }
        }
    }
}

/// Syncs the durable end a second from now, and again as long as commits go on.
fn sync_later(inner: Weak<Inner>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        tokio::time::sleep(TAIL_SYNC).await;
        let sync = move || {
            let Some(inner) = inner.upgrade() else { return };
            lock(&inner.queue).timer = false;
            let mut writer = inner.writer();
            writer.sync_tail();
            writer.rest();
        };
        let _ = tokio::task::spawn_blocking(sync).await;
    });
}

impl fmt::Debug for TopicLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicLog")
            .field("topic", self.0.topic.name())
            .field("end", &self.0.topic.end())
            .finish_non_exhaustive()
    }
}
