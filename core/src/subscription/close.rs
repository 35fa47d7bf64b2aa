//! Leaving a group.

use std::sync::Arc;
use std::time::Duration;

use super::Tasks;
use super::session::Session;
use crate::driver::{Closed, Settling};
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};

/// Ends a session within `grace`.
pub(crate) async fn close(session: Arc<Session>, tasks: Tasks, grace: Duration) -> Result<Closed> {
    let clock = session.clock().clone();
    let deadline = clock.elapsed().saturating_add(grace);
    let left = || deadline.saturating_sub(clock.elapsed());
    // The service gets a fifth for itself, and half of that after the last commit.
    let share = grace / 5;
    session.begin_close();
    let mut receive = tasks.receive;
    give_back(&session, false);
    let _ = clock
        .timeout(left().saturating_sub(share), idle(&session))
        .await;
    give_back(&session, true);
    let mut failed = None;
    let flushed = clock
        .timeout(
            left().saturating_sub(share / 2),
            flush(&session, &mut failed),
        )
        .await;
    if flushed.is_none() {
        failed.get_or_insert_with(|| late(&session));
    }
    session.ledger().leaving = true;
    session.room.notify_one();
    let source = clock.timeout(left(), &mut receive).await;
    receive.abort();
    for task in &tasks.others {
        task.abort();
    }
    let mut result = end(&session);
    session.news.ring();
    if let Some(Ok(source)) = source {
        match clock.timeout(left(), source.close(left())).await {
            Some(Ok(closed)) => {
                result.returned = result.returned.saturating_add(closed.returned);
                result.left = result.left.saturating_add(closed.left);
                result.within = result.within.max(closed.within);
            }
            Some(Err(error)) => {
                failed.get_or_insert(session.place(error, Operation::Close));
            }
            None => {
                failed.get_or_insert_with(|| late(&session));
            }
        }
    }
    failed.map_or(Ok(result), Err)
}

fn give_back(session: &Session, all: bool) {
    session.ledger().give_all_back(all, session.now());
    session.work.notify_one();
}

/// Nothing can be settled from here on: what was given back, and what could not be.
fn end(session: &Session) -> Closed {
    let mut ledger = session.ledger();
    let (partitioned, tokens) = ledger.leftover();
    let result = Closed {
        // They go with their partition.
        returned: ledger.returned.saturating_add(partitioned),
        left: u64::try_from(tokens.len()).unwrap_or(u64::MAX),
        within: match &session.settling {
            Settling::Each(settler) if !tokens.is_empty() => {
                let held = tokens.iter().map(|token| settler.held_for(*token));
                held.map(|held| held.unwrap_or(session.lease)).max()
            }
            _ => None,
        },
    };
    ledger.end();
    result
}

/// Waits until everything settled has been committed, or cannot be; keeps the first failure.
async fn flush(session: &Session, failed: &mut Option<Error>) {
    while let Err(error) = session.flush().await {
        let passing = super::is_passing(&error);
        failed.get_or_insert(error);
        if !passing {
            return;
        }
    }
}

/// Waits until no handler has anything, and no letter is to be written.
async fn idle(session: &Session) {
    loop {
        let bell = session.news.bell.notified();
        let mut bell = std::pin::pin!(bell);
        bell.as_mut().enable();
        let is_idle = {
            let ledger = session.ledger();
            ledger.handed() == 0 && ledger.letter_due().is_none()
        };
        if is_idle {
            return;
        }
        bell.await;
    }
}

fn late(session: &Session) -> Error {
    let error = Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Never,
        "the service did not answer within the grace of the close; what was not committed comes again",
    );
    session.place(error, Operation::Close)
}
