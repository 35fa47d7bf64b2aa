//! Dead letters: records that could not be handled, with the reason.
//!
//! A letter is the record with headers that say where it comes from and why it is here. Where they
//! do not fit the reason is left out, then all of them. A record that does not fit even so
//! (`TooLarge`, `Unsupported`) is told and handed out again after the default delay, whatever its
//! attempts: it is not lost, and its key waits until a handler settles it.

use std::collections::HashMap;
use std::sync::Arc;

use super::ledger::Letter;
use super::session::Session;
use super::trouble::Trouble;
use crate::append::check_record;
use crate::batch::{Batch, unique_number};
use crate::capability::{Claim, Dedupe};
use crate::defaults::{REDELIVERY_DELAY, RETRY_FOR};
use crate::driver::AppendOptions;
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::outcome::{AppendError, Outcome};
use crate::time::Timestamp;
use crate::topic::Topic;

/// The header that names the topic a dead letter came from.
pub const TOPIC: &str = "annals-dead-letter-topic";
/// The header that names the group that could not handle it.
pub const GROUP: &str = "annals-dead-letter-group";
/// The header with the record's [`Position`](crate::Position) as text, where it had one: its
/// partition and its number there.
pub const POSITION: &str = "annals-dead-letter-position";
/// The header with the reason: the handler's text, cut to [`MAX_REASON`] bytes.
pub const REASON: &str = "annals-dead-letter-reason";
/// The header with the number of times that it was handed out, in decimal digits.
pub const ATTEMPTS: &str = "annals-dead-letter-attempts";
/// The header with the record's own id, where the letter has another. On a topic that drops
/// repeated ids, or may, no two letters have one id: it is made of topic, group, position and log
/// time, so that a letter that had to be sent twice is stored once. A record without a position
/// gives its letter an id of its own; after a crash there may be two letters of it.
pub const ID: &str = "annals-dead-letter-id";
/// The longest [`REASON`], in bytes.
pub const MAX_REASON: usize = 1_024;

/// Writes dead letters until the session has ended. A record is settled only once its letter is
/// stored.
pub(crate) async fn letters(session: Arc<Session>) {
    // A letter that failed is the same submission when it is sent again.
    let mut tried: HashMap<u64, (Form, Batch)> = HashMap::new();
    let mut trouble = Trouble::new();
    loop {
        let now = session.now();
        let (letter, due) = {
            let ledger = session.ledger();
            if ledger.ended {
                return;
            }
            tried.retain(|id, _| ledger.is_rejected(*id));
            (ledger.letter(now), ledger.letter_due())
        };
        let Some(letter) = letter else {
            match due {
                None => session.letters.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = session.letters.notified() => {}
                        () = session.clock().sleep(at.saturating_sub(now)) => {}
                    }
                }
            }
            continue;
        };
        match &session.dead_letters {
            None => {
                session.ledger().reprieve(letter.id, now);
                session.news.tell(nowhere(), Operation::Settle);
            }
            Some(topic) => {
                let (form, batch) = tried
                    .entry(letter.id)
                    .or_insert_with(|| (Form::Whole, write(&session, topic, &letter, Form::Whole)))
                    .clone();
                let sent = session
                    .clock()
                    .timeout(RETRY_FOR, send(topic, &batch))
                    .await;
                let now = session.now();
                match sent.unwrap_or_else(|| Err(unanswered(topic))) {
                    Ok(()) => {
                        trouble.heals();
                        session.ledger().buried(letter.id, now);
                    }
                    Err(error) if can_never_be(&error) => {
                        if let Some(less) = form.less() {
                            let batch = write(&session, topic, &letter, less);
                            tried.insert(letter.id, (less, batch));
                            continue;
                        }
                        session.ledger().reprieve(letter.id, now);
                        session.news.tell(unfit(topic, &error), Operation::Settle);
                    }
                    Err(error) => {
                        let (pause, tell) = trouble.fails(&error, now);
                        let at = now.saturating_add(pause.max(REDELIVERY_DELAY));
                        session.ledger().unburied(letter.id, at);
                        if tell {
                            session.news.tell(error, Operation::Settle);
                        }
                    }
                }
            }
        }
        session.work.notify_one();
        session.news.ring();
        session.room.notify_one();
    }
}

fn unanswered(topic: &Topic) -> Error {
    let error = Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Backoff,
        "a dead letter was not answered in time; it is sent again",
    );
    topic.place(error, Operation::Append)
}

/// Whether the topic takes no such record, now or later.
fn can_never_be(error: &Error) -> bool {
    let unfit = matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unsupported);
    unfit && error.effect() == Effect::None
}

fn unfit(topic: &Topic, error: &Error) -> Error {
    let told = Error::new(
        error.kind(),
        Effect::None,
        Retry::Never,
        format!(
            "a record could not become a dead letter, not even as it was, and is handed out again; settle it, or take a topic that has room for it: {}",
            error.message()
        ),
    );
    topic.place(told.with_source(error.clone()), Operation::Append)
}

fn nowhere() -> Error {
    Error::config(
        "a delivery was rejected, but the subscription has no dead_letters(..); it stays unsettled and comes again",
    )
}

/// How much a letter says besides the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Whole,
    WithoutReason,
    Bare,
}

impl Form {
    /// The next smaller one, for a record that leaves no room for this.
    fn less(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::WithoutReason),
            Self::WithoutReason => Some(Self::Bare),
            Self::Bare => None,
        }
    }
}

/// The letter: the record as it was, and why it is here.
fn write(session: &Session, topic: &Topic, letter: &Letter, form: Form) -> Batch {
    let record = &letter.record;
    let mut written = record.clone().into_record();
    let drops_repeats = topic.capabilities().append.dedupe != Claim::Is(Dedupe::None);
    if drops_repeats {
        if let Some(id) = record.id().filter(|_| form != Form::Bare) {
            written = written.header(ID, id);
        }
        let place = record.position().map_or_else(
            || unique_number().to_string(),
            |position| {
                let stored_at = record.stored_at().map_or(0, Timestamp::as_millis);
                format!("{position}/{stored_at}")
            },
        );
        let (topic, group) = (session.topic.name(), &session.group);
        written = written.id(format!("{topic}/{group}/{place}"));
    }
    if form != Form::Bare {
        written = written
            .header(TOPIC, session.topic.name().as_str())
            .header(GROUP, session.group.as_str())
            .header(ATTEMPTS, letter.attempts.to_string());
        if let Some(position) = record.position() {
            written = written.header(POSITION, position.to_string());
        }
    }
    if form == Form::Whole {
        let mut reason = letter.reason.clone();
        while reason.len() > MAX_REASON {
            reason.pop();
        }
        written = written.header(REASON, reason);
    }
    Batch::from(written)
}

async fn send(topic: &Topic, batch: &Batch) -> Result<()> {
    let limits = &topic.capabilities().limits;
    for record in batch.records() {
        check_record(record, limits)?;
    }
    let bus = topic.bus();
    batch.tried(bus.clock().now());
    let options = AppendOptions::default();
    let report = bus.backend.append(topic.name(), batch, &options).await;
    let place = |error| topic.place(error, Operation::Append);
    let outcomes = report.map_err(place)?.into_outcomes();
    if matches!(outcomes.as_slice(), [Outcome::Stored(_)]) {
        return Ok(());
    }
    if outcomes.len() != 1 {
        return Err(place(Error::new(
            ErrorKind::Internal,
            Effect::Unknown,
            Retry::Backoff,
            format!(
                "the backend gave {} outcomes for one dead letter; it is sent again",
                outcomes.len()
            ),
        )));
    }
    Err(place(AppendError::new(batch.clone(), outcomes).into()))
}
