//! The task that owns a source and brings what arrives into the ledger.

use std::sync::Arc;

use super::pause::Pause;
use super::session::Session;
use crate::driver::{Arrived, Delivered, Room, Settling, Source};
use crate::error::{Error, Operation};
use crate::signal::Gap;

/// Fetches as far as there is room, until the subscription closes; gives the source back.
pub(crate) async fn receive(session: Arc<Session>, mut source: Box<dyn Source>) -> Box<dyn Source> {
    let mut out = Vec::new();
    let mut pause = Pause::new();
    loop {
        let (room, holds) = {
            let mut ledger = session.ledger();
            if ledger.closing {
                return source;
            }
            (ledger.room(), ledger.holds())
        };
        for (partition, held) in holds {
            source.hold(partition, held);
        }
        let room = wanted(&session, room);
        let full = room.is_none();
        let fetched = {
            let wake = async {
                if full {
                    session.room.notified().await;
                } else {
                    session.stop.notified().await;
                }
            };
            tokio::select! {
                biased;
                fetched = source.fetch(room, &mut out) => Some(fetched),
                () = wake => None,
            }
        };
        arrive(&session, &mut out);
        match fetched {
            None => {}
            Some(Ok(arrived)) => {
                pause.reset();
                signal(&session, &arrived);
            }
            Some(Err(error)) => {
                let goes_on = fails(&session, error, &mut pause).await;
                if !goes_on {
                    return source;
                }
            }
        }
        announce(&session);
    }
}

/// What a service shares out is taken only for those who wait for it: whoever takes more keeps it
/// from other members.
fn wanted(session: &Session, room: Room) -> Room {
    match &session.settling {
        Settling::UpTo(_) => room,
        Settling::Each(_) if session.ledger().is_ready() => Room::NONE,
        Settling::Each(_) => Room {
            records: room.records.min(session.wanted()),
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
            // A part of the grace is for the commit.
            let until = now.saturating_add(grace.saturating_sub(grace / 5));
            ledger.revoking(tenancy, until);
        }
        Arrived::Lost { tenancy } => ledger.lost(tenancy),
        Arrived::Advanced { tenancy, to } => ledger.advanced(tenancy, to, now),
        Arrived::Ended { tenancy } => {
            ledger.advanced(tenancy, crate::cursor::Frontier::Ended, now);
            // Children wait for it.
            ledger.hurry();
        }
        Arrived::Gap { tenancy, from, to } => {
            let gap = Error::of_gap(Gap {
                partition: tenancy.partition,
                from,
                to,
            });
            ledger.tell(session.place(gap, Operation::Subscribe));
        }
    }
}

/// Wakes whoever can go on by what arrived.
fn announce(session: &Session) {
    let (work, letters) = {
        let ledger = session.ledger();
        (ledger.next_due(), ledger.next_letter())
    };
    session.news.notify_waiters();
    if work.is_some() {
        session.work.notify_one();
    }
    if letters.is_some() {
        session.letters.notify_one();
    }
}

/// `false`: the subscription was closed meanwhile.
async fn fails(session: &Session, error: Error, pause: &mut Pause) -> bool {
    let error = session.place(error, Operation::Subscribe);
    if error.is_retryable() {
        tracing::debug!(error = %error, "receiving failed and is tried again");
        let wait = pause.after(&error);
        tokio::select! {
            biased;
            () = session.stop.notified() => return false,
            () = session.clock().sleep(wait) => return true,
        }
    }
    session.ledger().failed = Some(error);
    session.news.notify_waiters();
    if !session.ledger().closing {
        session.stop.notified().await;
    }
    false
}

/// Results in the order of what was asked; a missing one is an error.
pub(crate) fn padded<T>(mut answers: Vec<T>, asked: usize, missing: impl Fn() -> T) -> Vec<T> {
    answers.truncate(asked);
    while answers.len() < asked {
        answers.push(missing());
    }
    answers
}

pub(crate) fn unanswered() -> Error {
    Error::new(
        crate::error::ErrorKind::Internal,
        crate::error::Effect::Unknown,
        crate::error::Retry::Backoff,
        "the backend answered fewer settlements than it was asked for",
    )
}
