//! Dead letters: records that could not be handled, with the reason.

use std::collections::HashMap;
use std::sync::Arc;

use super::ledger::Letter;
use super::session::Session;
use super::trouble::Trouble;
use crate::batch::Batch;
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
/// The header with the record's own id, where the letter has another: on a topic that drops
/// repeated ids a letter's id is made of topic, group, position and log time, so that a letter
/// that had to be sent twice is stored once, and the letters of two groups are two.
pub const ID: &str = "annals-dead-letter-id";
/// The longest [`REASON`], in bytes.
pub const MAX_REASON: usize = 1_024;

/// Writes dead letters until the session has ended. A record is settled only once its letter is
/// stored.
pub(crate) async fn letters(session: Arc<Session>) {
    // A letter that failed is the same submission when it is sent again.
    let mut tried: HashMap<u64, Batch> = HashMap::new();
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
                let batch = tried
                    .entry(letter.id)
                    .or_insert_with(|| write(&session, topic, &letter))
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

fn nowhere() -> Error {
    Error::config(
        "a delivery was rejected, but the subscription has no dead_letters(..); it stays unsettled and comes again",
    )
}

/// The letter: the record as it was, and why it is here.
fn write(session: &Session, topic: &Topic, letter: &Letter) -> Batch {
    let record = &letter.record;
    let mut written = record.clone().into_record();
    let mut reason = letter.reason.clone();
    while reason.len() > MAX_REASON {
        reason.pop();
    }
    written = written
        .header(TOPIC, session.topic.name().as_str())
        .header(GROUP, session.group.as_str())
        .header(REASON, reason)
        .header(ATTEMPTS, letter.attempts.to_string());
    if let Some(position) = record.position() {
        written = written.header(POSITION, position.to_string());
        let drops_repeats = matches!(
            topic.capabilities().append.dedupe,
            Claim::Is(Dedupe::Window(_) | Dedupe::Forever)
        );
        if drops_repeats {
            if let Some(id) = record.id() {
                written = written.header(ID, id);
            }
            let stored_at = record.stored_at().map_or(0, Timestamp::as_millis);
            written = written.id(format!(
                "{}/{}/{position}/{stored_at}",
                session.topic.name(),
                session.group
            ));
        }
    }
    Batch::from(written)
}

async fn send(topic: &Topic, batch: &Batch) -> Result<()> {
    let bus = topic.bus();
    batch.tried(bus.clock().now());
    let options = AppendOptions::default();
    let report = bus.backend.append(topic.name(), batch, &options).await;
    let place = |error| topic.place(error, Operation::Append);
    let outcomes = report.map_err(place)?.into_outcomes();
    if matches!(outcomes.as_slice(), [Outcome::Stored(_)]) {
        return Ok(());
    }
    Err(place(AppendError::new(batch.clone(), outcomes).into()))
}
