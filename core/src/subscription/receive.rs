//! The task that owns a source and brings what arrives into the ledger.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::session::Session;
use super::trouble::Trouble;
use crate::cursor::Frontier;
use crate::driver::{Arrived, Delivered, Room, Settling, Source};
use crate::error::{Error, Operation};

/// Fetches as far as there is room, and signals alone while the subscription closes, until all is
/// settled; gives the source back.
pub(crate) async fn receive(session: Arc<Session>, mut source: Box<dyn Source>) -> Box<dyn Source> {
    let mut out = Vec::new();
    let mut trouble = Trouble::new();
    loop {
        let (room, holds) = {
            let mut ledger = session.ledger();
            if ledger.leaving {
                return source;
            }
            let room = wanted(&session.settling, &ledger);
            ledger.starved = room.is_none();
            (room, ledger.holds())
        };
        for (partition, held) in holds {
            source.hold(partition, held);
        }
        let fetched = tokio::select! {
            biased;
            fetched = source.fetch(room, &mut out) => Some(fetched),
            () = session.room.notified() => None,
        };
        let mut news = !out.is_empty();
        arrive(&session, &mut out);
        // A source that always has something to say leaves the thread to others now and then.
        tokio::task::consume_budget().await;
        match fetched {
            None => {}
            Some(Ok(arrived)) => {
                trouble.heals();
                news |= arrived != Arrived::CaughtUp;
                signal(&session, &arrived);
            }
            Some(Err(error)) if error.is_retryable() => {
                rest(&session, &error, &mut trouble).await;
            }
            Some(Err(error)) => {
                session.ledger().failed = Some(session.place(error, Operation::Subscribe));
            }
        }
        // An end of it may also have been found in what arrived.
        if session.ledger().failed.is_some() {
            session.news.ring();
            return closing(&session, source).await;
        }
        if news {
            announce(&session);
        }
    }
}

/// What a service shares out is taken only for those who wait for it: whoever takes more keeps it
/// from other members.
fn wanted(settling: &Settling, ledger: &Ledger) -> Room {
    let room = ledger.room();
    match settling {
        Settling::UpTo(_) => room,
        Settling::Each(_) if ledger.is_ready() => Room::NONE,
        Settling::Each(_) => Room {
            records: room.records.min(ledger.wanted),
            bytes: room.bytes,
        },
    }
}

fn arrive(session: &Session, out: &mut Vec<Delivered>) {
    if out.is_empty() {
        return;
    }
    let now = session.now();
    let mut ledger = session.ledger();
    for delivered in out.drain(..) {
        ledger.arrive(delivered, now);
    }
    if ledger.closing {
        ledger.give_all_back(false, now);
    }
}

fn signal(session: &Session, arrived: &Arrived) {
    let now = session.now();
    let mut ledger = session.ledger();
    match *arrived {
        Arrived::Deliveries | Arrived::CaughtUp => {}
        Arrived::Assigned {
            tenancy,
            from,
            attempts,
        } => ledger.assigned(tenancy, from, attempts),
        Arrived::Revoking { tenancy, grace } => {
            ledger.revoking(tenancy, grace, now);
        }
        Arrived::Lost { tenancy } => ledger.lost(tenancy),
        Arrived::Advanced { tenancy, to } => ledger.advanced(tenancy, to, now),
        Arrived::Ended { tenancy, clear } => {
            ledger.advanced(tenancy, Frontier::Ended { clear }, now);
        }
        Arrived::Gap { tenancy, from, to } => ledger.skipped(tenancy, from, to),
    }
}

/// Wakes whoever can go on by what arrived.
fn announce(session: &Session) {
    let (work, letters) = {
        let ledger = session.ledger();
        (ledger.work_due(), ledger.letter_due())
    };
    session.news.ring();
    if work.is_some() {
        session.work.notify_one();
    }
    if letters.is_some() {
        session.letters.notify_one();
    }
}

/// Waits before the next attempt, unless the source is to be given back.
async fn rest(session: &Session, error: &Error, trouble: &mut Trouble) {
    tracing::debug!(error = %error, "receiving failed and is tried again");
    let now = session.now();
    let (pause, tell) = trouble.fails(error, now);
    if tell {
        session.news.tell(error.clone(), Operation::Subscribe);
    }
    let until = now.saturating_add(pause);
    while !session.ledger().leaving {
        let left = until.saturating_sub(session.now());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            () = session.room.notified() => {}
            () = session.clock().sleep(left) => {}
        }
    }
}

/// Nothing arrives any more; gives the source back once it is wanted.
async fn closing(session: &Session, source: Box<dyn Source>) -> Box<dyn Source> {
    while !session.ledger().leaving {
        session.room.notified().await;
    }
    source
}

/// Results in the order of what was asked; a missing one is an error.
pub(crate) fn padded<T>(mut answers: Vec<T>, asked: usize, missing: impl Fn() -> T) -> Vec<T> {
    answers.truncate(asked);
    answers.resize_with(asked.max(answers.len()), missing);
    answers
}

/// How long a sleep may be that nobody needs to end.
pub(crate) fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}
