//! Appending record by record, batched behind the caller's back.

mod permit;
mod queue;
mod task;
mod ticket;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::append::check_record;
use crate::defaults;
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::outcome::Stored;
use crate::pending::Pending;
use crate::record::Record;
use crate::topic::Topic;

use permit::cost;
pub use permit::{Full, Permit};
use queue::Shared;
pub use ticket::Ticket;

impl Topic {
    /// Opens an appender: many single records, few requests; see [`Appender`].
    pub fn appender(&self) -> OpenAppender {
        OpenAppender(Pending::new(Opening {
            topic: self.clone(),
            linger: defaults::LINGER,
            batch_records: defaults::BATCH_RECORDS,
            batch_bytes: defaults::BATCH_BYTES,
            bytes_in_flight: defaults::APPENDER_BYTES,
            retry_for: defaults::RETRY_FOR,
        }))
    }
}

/// Opens an [`Appender`]: `topic.appender().linger(Duration::ZERO).await?`. Defaults stand in
/// [`defaults`].
///
/// Nothing happens before the first poll, and nothing is sent before the first record. Times go by
/// the bus's clock.
///
/// # Errors
/// `Config` for a bound of zero, or outside of a tokio runtime.
///
/// # Cancel safety
/// Dropping it has no effect.
#[derive(Debug)]
#[must_use = "an appender is opened by awaiting this"]
pub struct OpenAppender(Pending<Opening, Result<Appender>>);

#[derive(Debug)]
struct Opening {
    topic: Topic,
    linger: Duration,
    batch_records: usize,
    batch_bytes: usize,
    bytes_in_flight: usize,
    retry_for: Duration,
}

impl OpenAppender {
    /// How long a record waits for company; zero: not at all. Default [`defaults::LINGER`].
    pub fn linger(mut self, linger: Duration) -> Self {
        self.0.set(|opening| opening.linger = linger);
        self
    }

    /// When a batch waits no longer: at so many records or bytes. What one request of the topic
    /// may carry is a limit besides. Defaults [`defaults::BATCH_RECORDS`],
    /// [`defaults::BATCH_BYTES`].
    pub fn batch(mut self, records: usize, bytes: usize) -> Self {
        self.0.set(|opening| {
            opening.batch_records = records;
            opening.batch_bytes = bytes;
        });
        self
    }

    /// How many bytes may be accepted and not settled, a fixed cost per record included; more
    /// than 1 GiB is cut to that. Beyond them [`Appender::submit`] waits. One record always fits. Default
    /// [`defaults::APPENDER_BYTES`].
    pub fn bytes_in_flight(mut self, bytes: usize) -> Self {
        self.0.set(|opening| opening.bytes_in_flight = bytes);
        self
    }

    /// For how long failing records are tried again. Default [`defaults::RETRY_FOR`].
    pub fn retry_for(mut self, retry_for: Duration) -> Self {
        self.0.set(|opening| opening.retry_for = retry_for);
        self
    }
}

impl Future for OpenAppender {
    type Output = Result<Appender>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut()
            .0
            .poll(cx, |opening| Box::pin(std::future::ready(opening.open())))
    }
}

impl Opening {
    fn open(self) -> Result<Appender> {
        let place = |error| self.topic.place(error, Operation::Open);
        if self.batch_records == 0 || self.batch_bytes == 0 || self.bytes_in_flight == 0 {
            return Err(place(Error::config(
                "an appender's batch and bytes_in_flight must be above zero",
            )));
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| {
            place(
                Error::config("an appender needs a tokio runtime to run in; open it inside of one")
                    .with_source(e),
            )
        })?;
        let shared = Arc::new(Shared::new(
            self.topic,
            self.linger,
            self.batch_records,
            self.batch_bytes,
            self.bytes_in_flight,
            self.retry_for,
        ));
        let task = runtime.spawn(task::run(task::Guard(Arc::clone(&shared))));
        Ok(Appender(Arc::new(Handle {
            shared,
            task: task.abort_handle(),
        })))
    }
}

/// Takes single records and appends them in batches. Cheap to clone; clones are one appender.
///
/// A task of its own sends a batch when it is full, when its oldest record has lingered, or at a
/// [`flush`](Self::flush). Up to `append.parallel` batches are under way at once, no key in
/// two of them.
///
/// **Order.** Records of one key are stored in the order in which they were accepted: one is sent
/// only when all earlier ones of its key are stored, or with them. When one is finally not stored,
/// or unknown, those of its key that wait behind it are refused too; a record accepted after that
/// is sent.
///
/// **Bounds.** [`submit`](Self::submit) waits for room in `bytes_in_flight`.
///
/// **End.** [`close`](Self::close) sends what was accepted. So does dropping all clones, without
/// telling; dropping a [`Ticket`] cancels nothing.
///
/// # Examples
/// ```no_run
/// # async fn fill(orders: annals_core::Topic) -> annals_core::Result<()> {
/// use annals_core::Record;
/// let appender = orders.appender().await?;
/// for n in 0..10_000 {
///     appender.submit(Record::new(n.to_string())).await?;
/// }
/// appender.flush().await?; // all stored, or the first failure
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Appender(Arc<Handle>);

/// What all clones and permits share; its drop is the end of accepting.
struct Handle {
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop_accepting();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("topic", self.shared.topic.name())
            .field("free_bytes", &self.shared.budget.free())
            .finish_non_exhaustive()
    }
}

impl Appender {
    /// Stores one record and waits until it is: [`submit`](Self::submit) and its ticket.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Ticket`].
    ///
    /// # Cancel safety
    /// Dropped while it waits for room it has no effect; dropped later the record is still sent.
    pub async fn append(&self, record: Record) -> Result<Stored> {
        self.submit(record).await?.await
    }

    /// Accepts a record once there is room for it.
    ///
    /// # Errors
    /// `TooLarge`, naming the limit; `Closed`. Neither has an effect.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room it has no effect and loses its place.
    pub async fn submit(&self, record: Record) -> Result<Ticket> {
        self.check(&record)?;
        let room = self.0.shared.budget.reserve(cost(&record)).await;
        self.0.shared.accept(record, room).map_err(Error::from)
    }

    /// Accepts a record if there is room for it now, else gives it back.
    ///
    /// # Errors
    /// [`Full`], of kind `Blocked` when there is no room, `TooLarge` or `Closed`.
    pub fn try_submit(&self, record: Record) -> Result<Ticket, Full> {
        let shared = &self.0.shared;
        if let Err(error) = self.check(&record) {
            return Err(Full::new(record, error));
        }
        if shared.is_closed() {
            return Err(Full::new(record, shared.closed_error()));
        }
        let Some(room) = shared.budget.try_reserve(cost(&record)) else {
            let error = Error::new(
                ErrorKind::Blocked,
                Effect::None,
                Retry::Backoff,
                "the appender has no room for the record now; wait for a ticket, or use submit",
            );
            return Err(Full::new(
                record,
                shared.topic.place(error, Operation::Append),
            ));
        };
        shared.accept(record, room)
    }

    /// Waits for room for a record of so many bytes (by [`Record::len_bytes`]), which is kept
    /// until the permit is used or dropped.
    ///
    /// # Errors
    /// `Closed`.
    ///
    /// # Cancel safety
    /// Dropped while waiting it has no effect and loses its place.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit> {
        let shared = &self.0.shared;
        let room = shared.budget.reserve(permit::with_overhead(bytes)).await;
        if shared.is_closed() {
            return Err(shared.closed_error());
        }
        Ok(Permit::new(self.clone(), bytes, room))
    }

    /// Sends at once what was accepted before the call, through any clone, and waits until all of
    /// it has an outcome.
    ///
    /// # Errors
    /// The first failure of a record since the last flush or close that told one: each is told
    /// once, whoever flushes.
    ///
    /// # Cancel safety
    /// Dropped, everything is still sent; call it again to wait.
    pub async fn flush(&self) -> Result<()> {
        self.0.shared.settled().await;
        self.0.shared.first_failure()
    }

    /// Ends accepting for all clones, sends what was accepted and waits for its outcomes, for at
    /// most `grace`. What is under way by then is `Timeout` with unknown effect; what was never
    /// sent is `Timeout` without effect. Waiting submitters and later calls are `Closed`.
    ///
    /// # Errors
    /// `Timeout` at the end of the grace; else as [`flush`](Self::flush).
    ///
    /// # Cancel safety
    /// Dropped, the appender goes on closing without a limit; call it again to wait.
    pub async fn close(&self, grace: Duration) -> Result<()> {
        let shared = &self.0.shared;
        shared.stop_accepting();
        let clock = shared.topic.bus().clock();
        let in_time = clock.timeout(grace, shared.settled()).await.is_some();
        if !in_time {
            shared.abandon();
            self.0.task.abort();
        }
        shared.first_failure()
    }

    fn check(&self, record: &Record) -> Result<()> {
        let topic = &self.0.shared.topic;
        check_record(record, &topic.capabilities().limits)
            .map_err(|e| topic.place(e, Operation::Append))
    }
}
