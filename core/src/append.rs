//! Appending: options, splitting to limits, the order of keys, and retries, round single attempts
//! of a backend.

mod check;
mod lanes;
mod progress;
mod retry;
mod split;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::batch::Batch;
use crate::capability::{Batching, Claim};
use crate::cursor::Cursor;
use crate::defaults;
use crate::driver::{AppendOptions, Expect};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::outcome::{AppendError, AppendReport, Appended, Outcome, Stored};
use crate::pending::Pending;
use crate::position::Position;
use crate::record::Key;
use crate::topic::Topic;

pub(crate) use check::check_record;
use lanes::Lanes;
use progress::Progress;
use retry::{Pauses, Repeats};
use split::Most;

impl Topic {
    /// Stores records durably; see [`Append`].
    pub fn append(&self, records: impl Into<Batch>) -> Append {
        Append(Pending::new(Appending {
            topic: self.clone(),
            batch: records.into(),
            options: AppendOptions::default(),
            allow_duplicates: false,
            retry_for: defaults::RETRY_FOR,
            refused: None,
        }))
    }
}

/// Stores records durably: `topic.append(records).await?`.
///
/// `Ok` means that *every* record is stored; anything else is an [`AppendError`] with one outcome
/// per record. An empty batch is `Ok` without I/O. Nothing happens before the first poll.
///
/// **Order.** It is fixed at the first poll: of two appends that are one request each, the one
/// polled first is stored first, where the capability `append.in_flight` is above one. Records of
/// one key keep their order, and a key has no holes: it stops at its first record that is not
/// stored, and its later ones are [`NotAttempted`](Outcome::NotAttempted). Records without a key
/// have no order to keep.
///
/// **Size.** A batch may have any size: it is sent in requests within the topic's limits, one
/// after another. Where a request's records can be stored singly (`append.batch` is `PerRecord`
/// or `Unordered`) no request carries two records of a key.
///
/// **Retries.** What is certainly not stored and can heal is tried again, with growing pauses, for
/// [`RETRY_FOR`](defaults::RETRY_FOR) since anything was last stored; the other keys of the batch
/// are sent on before it pauses. What may be stored
/// ([`Unknown`](Outcome::Unknown)) is tried again only where a repeat is recognised (capability
/// `append.resubmit`; or `append.dedupe`, where the record has an id) or duplicates are allowed.
///
/// **Repeats.** Where the topic recognises a repeated id (`append.dedupe`), such a record is not
/// stored again: its outcome is the place of the first one with `duplicate: true`, even if the
/// payload differs, and before any condition is looked at.
///
/// # Errors
/// Before anything is sent: `TooLarge`, naming the limit; `Unsupported` for an option that the
/// topic does not offer. After that what the backend says: `Conflict` for a condition that did not
/// hold, `Fenced` for an old epoch, `Overtaken` with [`allow_holes`](Self::allow_holes), `Timeout`
/// at the [`deadline`](Self::deadline), and others.
///
/// # Cancel safety
/// Dropped before the first poll it has no effect. Dropped later, each record may be stored; the
/// topic's handles go on working.
///
/// # Examples
/// ```no_run
/// # async fn ship(orders: annals_core::Topic) -> annals_core::Result<()> {
/// use annals_core::Record;
/// let stored = orders
///     .append([Record::new("placed").key("order-17"), Record::new("paid").key("order-17")])
///     .await?;
/// let place = stored.last().and_then(|last| last.position);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "records are stored by awaiting this"]
pub struct Append(Pending<Appending, Result<Appended, AppendError>>);

impl Append {
    /// Store only if `last` is still the last record of `key` (`None`: the key has no record);
    /// else `Conflict`, and nothing is stored. The last condition given holds. Needs the
    /// capability `append.conditional`, and a batch within the topic's limits.
    ///
    /// What is compared is the last record that is *kept*: of a key whose records retention has
    /// removed there is none. `None` then holds although the key has a history, and a `Conflict`
    /// over the position of a removed record need not mean that somebody else has written.
    #[expect(
        single_use_lifetimes,
        reason = "an anonymous lifetime is not allowed inside impl Trait"
    )]
    pub fn if_key_at<'p>(
        mut self,
        key: impl Into<Key>,
        last: impl Into<Option<&'p Position>>,
    ) -> Self {
        let expect = Expect::KeyAt {
            key: key.into(),
            last: last.into().copied(),
        };
        self.0.set(|a| a.options.expect = Some(expect));
        self
    }

    /// Store only if the topic still ends at `end`; else `Conflict`, and nothing is stored. The
    /// last condition given holds. Needs the capability `append.conditional`, and a batch within
    /// the topic's limits. A cursor of another topic is `Config`.
    pub fn if_end_at(mut self, end: &Cursor) -> Self {
        self.0
            .set(|a| a.options.expect = Some(Expect::End(end.clone())));
        self
    }

    /// Store only if no higher epoch has been seen on the topic; else `Fenced`. Needs the
    /// capability `append.fenced`.
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.0.set(|a| a.options.epoch = Some(epoch));
        self
    }

    /// All or nothing. Needs the capability `append.batch: Atomic` (or `AtomicPerKey`, when all
    /// records have one key) and a batch within the topic's limits. A single record is always
    /// atomic.
    pub fn atomic(mut self) -> Self {
        self.0.set(|a| a.options.atomic = true);
        self
    }

    /// Try records whose fate is unknown again although the topic may then hold them twice. It
    /// does not hold for conditional appends, whose repeat would conflict with itself.
    pub fn allow_duplicates(mut self) -> Self {
        self.0.set(|a| a.allow_duplicates = true);
        self
    }

    /// A record that cannot be stored no longer stops the later ones of its key. One that a later
    /// one of its key has passed is final, `Rejected` with `Overtaken`, so that order is never
    /// broken.
    pub fn allow_holes(mut self) -> Self {
        self.0.set(|a| a.options.allow_holes = true);
        self
    }

    /// Give up after this long, retries and pauses included: what may have been stored by then is
    /// `Unknown` with `Timeout`. Unset: no limit but the backend's own and the retry budget.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.0.set(|a| a.options.deadline = Some(deadline));
        self
    }

    /// It cannot be sent, because of `error`.
    pub(crate) fn refused(mut self, error: Error) -> Self {
        self.0.set(|a| a.refused = Some(error));
        self
    }

    /// For how long failing records are tried again.
    pub(crate) fn retry_for(mut self, retry_for: Duration) -> Self {
        self.0.set(|a| a.retry_for = retry_for);
        self
    }
}

impl Future for Append {
    type Output = Result<Appended, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut()
            .0
            .poll(cx, |appending| Box::pin(appending.run()))
    }
}

#[derive(Debug)]
struct Appending {
    topic: Topic,
    batch: Batch,
    options: AppendOptions,
    allow_duplicates: bool,
    retry_for: Duration,
    /// What was wrong with it before it was a batch.
    refused: Option<Error>,
}

impl Appending {
    /// Whether one request may carry several records of a key.
    fn keys_together(&self) -> bool {
        let batch = self.topic.capabilities().append.batch;
        keeps_prefix(batch) || (self.options.allow_holes && batch.is(&Batching::PerRecord))
    }

    /// Whether all of it goes in one request or not at all.
    fn is_whole(&self) -> bool {
        self.options.atomic || self.options.expect.is_some()
    }

    // Nothing is awaited before the backend's append is polled for the first time.
    async fn run(mut self) -> Result<Appended, AppendError> {
        if let Some(error) = &self.refused {
            let error = self.topic.place(error.clone(), Operation::Append);
            return Err(AppendError::refused(self.batch, &error));
        }
        if self.batch.is_empty() {
            return Ok(Appended::new(Vec::new()));
        }
        self.check()?;
        // Any service stores one record whole or not at all.
        self.options.atomic &= self.batch.len() > 1;
        let ends = self.options.deadline.map(|deadline| {
            let now = self.topic.bus().clock().elapsed();
            now.saturating_add(deadline)
        });
        let most = Most::of(&self.topic.capabilities().limits);
        let one_request = self.is_whole()
            || (most.holds(&self.batch)
                && (self.keys_together() || !lanes::has_repeats(&self.batch)));
        if !one_request {
            return Box::pin(self.go_on(None, most, ends)).await;
        }
        match self.attempt(&self.batch, ends).await {
            Ok(report) if all_stored(report.outcomes(), self.batch.len()) => {
                Ok(Appended::new(places(report.into_outcomes())))
            }
            // Boxed, for it is rare and large: every append would be moved with room for it.
            other => Box::pin(self.go_on(Some(other), most, ends)).await,
        }
    }

    /// One attempt; `Err` says that nothing of it was stored.
    async fn attempt(&self, batch: &Batch, ends: Option<Duration>) -> Result<AppendReport> {
        let bus = self.topic.bus();
        batch.tried(bus.clock().now());
        let name = self.topic.name();
        let Some(ends) = ends else {
            return bus.backend.append(name, batch, &self.options).await;
        };
        let left = ends.saturating_sub(bus.clock().elapsed());
        let options = AppendOptions {
            deadline: Some(left),
            ..self.options.clone()
        };
        let attempt = bus.backend.append(name, batch, &options);
        match bus.clock().timeout(left, attempt).await {
            Some(answer) => answer,
            None => Ok(AppendReport::all(
                batch.len(),
                &Outcome::Unknown(too_late(Effect::Unknown)),
            )),
        }
    }

    /// Everything but the case that one request stores all: several requests, failures, retries.
    async fn go_on(
        self,
        first: Option<Result<AppendReport>>,
        most: Most,
        ends: Option<Duration>,
    ) -> Result<Appended, AppendError> {
        let clock = self.topic.bus().clock();
        let whole = self.is_whole();
        let append = &self.topic.capabilities().append;
        let may_pass = self.options.allow_holes && !keeps_prefix(append.batch);
        let mut progress = Progress::new(self.batch.len(), self.options.allow_holes, may_pass);
        let mut lanes = Lanes::new(&self.batch, self.keys_together());
        let mut pauses = Pauses::new(self.retry_for, ends);
        // A condition that was met by the first attempt would refuse the second.
        let anyhow = self.allow_duplicates && self.options.expect.is_none();
        let repeats = Repeats::of(append, anyhow);
        let place = |error| self.topic.place(error, Operation::Append);
        let mut request: Vec<usize> = (0..self.batch.len()).collect();
        let mut next = first;
        if next.is_some() {
            lanes.clear();
        }
        loop {
            let answer = if let Some(answer) = next.take() {
                answer
            } else {
                if !whole {
                    lanes.take(&self.batch, &most, &mut request);
                }
                if request.is_empty() {
                    break;
                }
                if ends.is_some_and(|ends| clock.elapsed() >= ends) {
                    progress.refuse(&request, &place(too_late(Effect::None)));
                    break;
                }
                if request.len() == self.batch.len() {
                    self.attempt(&self.batch, ends).await
                } else {
                    let part = self.batch.select(request.iter().copied());
                    self.attempt(&part, ends).await
                }
            };
            if whole {
                if progress.take_whole(&request, answer, place) {
                    for index in &request {
                        lanes.hold(*index);
                    }
                } else {
                    break;
                }
            } else {
                progress.take(&request, answer, &mut lanes, place);
            }
            let now = clock.elapsed();
            if progress.moved() {
                pauses.reset();
            }
            for index in lanes.held() {
                pauses.hold(now, progress.error(*index));
            }
            lanes.bar(progress.doubtful(), |index| {
                repeats.covers(&self.batch, index, clock.now())
            });
            if progress.moved() && lanes.any_ready() {
                continue;
            }
            if !lanes.any_held(whole) {
                if !whole && lanes.any_ready() {
                    continue;
                }
                break;
            }
            let Some(pause) = pauses.next(now) else {
                break;
            };
            pauses.tell(
                self.topic.name(),
                lanes.held().len(),
                pause,
                progress.last_error(),
            );
            clock.sleep(pause).await;
            lanes.bar(progress.doubtful(), |index| {
                repeats.covers(&self.batch, index, clock.now())
            });
            if !lanes.any_held(whole) && !lanes.any_ready() {
                break;
            }
            lanes.release();
        }
        progress.finish(self.batch)
    }
}

/// Whether no record of a request is stored without those of its key before it.
fn keeps_prefix(batch: Claim<Batching>) -> bool {
    matches!(
        batch,
        Claim::Is(Batching::Atomic | Batching::AtomicPerKey | Batching::Prefix)
    )
}

fn all_stored(outcomes: &[Outcome], records: usize) -> bool {
    outcomes.len() == records && outcomes.iter().all(|o| matches!(o, Outcome::Stored(_)))
}

/// The places of what is stored; made in the memory of the outcomes.
fn places(outcomes: Vec<Outcome>) -> Vec<Stored> {
    outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            Outcome::Stored(stored) => Some(stored),
            _ => None,
        })
        .collect()
}

/// The deadline has passed.
fn too_late(effect: Effect) -> Error {
    Error::new(
        ErrorKind::Timeout,
        effect,
        Retry::Backoff,
        "no answer before the deadline of the append; set a longer one, or look at the service",
    )
}
