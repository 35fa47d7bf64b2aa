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
    let source = clock
        .timeout(left().saturating_sub(share), &mut receive)
        .await;
    let mut result = Closed {
        returned: session.ledger().give_all_back(),
        ..Closed::default()
    };
    session.work.notify_one();
    let handled = clock
        .timeout(left().saturating_sub(share), idle(&session))
        .await;
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
    for task in &tasks.others {
        task.abort();
    }
    receive.abort();
    {
        let mut ledger = session.ledger();
        if handled.is_none() {
            let held = u64::try_from(ledger.handed()).unwrap_or(u64::MAX);
            match &session.settling {
                // They go with their partition.
                Settling::UpTo(_) => result.returned = result.returned.saturating_add(held),
                Settling::Each(_) => {
                    result.left = result.left.saturating_add(held);
                    result.within = Some(session.lease);
                }
            }
        }
        ledger.end();
    }
    session.news.notify_waiters();
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

/// Waits until everything settled has been committed, or cannot be; keeps the first failure. Gaps
/// are nothing that closing could fail by.
async fn flush(session: &Session, failed: &mut Option<Error>) {
    loop {
        match session.flush().await {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::Gap => {}
            Err(error) => {
                let passing = super::is_passing(&error);
                failed.get_or_insert(error);
                if !passing {
                    return;
                }
            }
        }
    }
}

/// Waits until no handler has anything.
async fn idle(session: &Session) {
    loop {
        let news = session.news.notified();
        let mut news = std::pin::pin!(news);
        news.as_mut().enable();
        if session.ledger().handed() == 0 {
            return;
        }
        news.await;
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
