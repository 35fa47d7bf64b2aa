//! The task that tells the service what was settled.

use std::sync::Arc;
use std::time::Duration;

use super::failure::{answer, is_over, unanswered};
use super::receive::{earlier, padded};
use super::session::Session;
use super::trouble::Trouble;
use crate::driver::{self, Commits, Mark, Settled, Settler, Settling};
use crate::error::{Error, Operation, Result};

/// The longest pause between attempts while the subscription closes: its grace runs.
const CLOSING_PAUSE: Duration = Duration::from_millis(200);

/// Commits and settles until the session has ended, and lets retries out when their time comes.
pub(crate) async fn settle(session: Arc<Session>) {
    let mut trouble = Trouble::new();
    let mut not_before = Duration::ZERO;
    loop {
        if session.now() >= not_before {
            let failed = match &session.settling {
                Settling::UpTo(commits) => commit(&session, commits.as_ref()).await,
                Settling::Each(settler) => each(&session, settler.as_ref()).await,
            };
            let pause = paused(&session, &mut trouble, failed);
            not_before = session.now().saturating_add(pause);
        }
        let now = session.now();
        let wait = {
            let mut ledger = session.ledger();
            if ledger.ended {
                return;
            }
            if ledger.closing {
                not_before = not_before.min(now.saturating_add(CLOSING_PAUSE));
            }
            ledger.wake(now);
            let work = ledger.work_due().map(|due| due.max(not_before));
            let due = earlier(work, ledger.retry_due());
            due.map(|due| due.saturating_sub(now))
        };
        session.news.ring();
        match wait {
            Some(wait) if wait.is_zero() => tokio::task::yield_now().await,
            Some(wait) => {
                tokio::select! {
                    biased;
                    () = session.work.notified() => {}
                    () = session.clock().sleep(wait) => {}
                }
            }
            None => session.work.notified().await,
        }
    }
}

/// How long to wait after this round.
fn paused(session: &Session, trouble: &mut Trouble, failed: Option<Error>) -> Duration {
    let Some(error) = failed else {
        trouble.heals();
        return Duration::ZERO;
    };
    let (pause, tell) = trouble.fails(&error, session.now());
    tracing::debug!(error = %error, ?pause, "settling failed and is tried again");
    if tell {
        session.ledger().commits_fail(&error);
        session.news.tell(error, Operation::Settle);
    }
    pause
}

/// Commits what is due and answers revocations.
async fn commit(session: &Session, commits: &dyn Commits) -> Option<Error> {
    let mut failed = None;
    let due = session.ledger().marks(session.now());
    if !due.is_empty() {
        let marks: Vec<Mark> = due.iter().map(|due| due.mark).collect();
        let answers = match commits.commit(&marks).await {
            Ok(answers) => padded(answers, due.len(), || Err(unanswered())),
            Err(error) => vec![Err(error); due.len()],
        };
        let mut ledger = session.ledger();
        for (due, answer) in due.iter().zip(answers) {
            let answer = answer.map_err(|e| session.place(e, Operation::Settle));
            if let Err(error) = &answer
                && !is_over(error)
            {
                failed = Some(error.clone());
            }
            ledger.committed(due, answer);
        }
    }
    // Only after the commits have returned: what comes after the answer has no effect.
    let leaving = session.ledger().releasable(session.now());
    for tenancy in leaving {
        if let Err(error) = commits.release(tenancy).await {
            tracing::debug!(error = %error, "a stay could not be released and ends by itself");
        }
        session.ledger().lost(tenancy);
    }
    failed
}

/// Settlements of one call.
const MOST: usize = 1_000;

async fn each(session: &Session, settler: &dyn Settler) -> Option<Error> {
    // There is no interval: what is settled is told at once.
    let batch = {
        let mut ledger = session.ledger();
        let _ = ledger.marks(session.now());
        ledger.outbox.take(MOST)
    };
    if batch.is_empty() {
        return None;
    }
    let asked: Vec<_> = batch.iter().map(|s| (s.token, s.verdict)).collect();
    let answers = match settler.settle(&asked).await {
        Ok(answers) => padded(answers, batch.len(), || Settled::Unknown(unanswered())),
        Err(error) => vec![Settled::Failed(error); batch.len()],
    };
    let mut failed = None;
    let mut again = Vec::new();
    let mut returned = 0;
    for (settlement, settled) in batch.into_iter().zip(answers) {
        let result = answer(settled).map_err(|e| session.place(e, Operation::Settle));
        if let Err(error) = &result
            && error.is_retryable()
        {
            failed = Some(error.clone());
            again.push(settlement);
            continue;
        }
        returned += u64::from(result.is_ok() && settlement.verdict == driver::Verdict::Return);
        match settlement.waiter {
            // Whoever stopped waiting does not want to know.
            Some(waiter) => drop(waiter.send(result)),
            None => report(session, settlement.verdict, result),
        }
    }
    let mut ledger = session.ledger();
    ledger.returned += returned;
    ledger.outbox.answered(again);
    drop(ledger);
    session.room.notify_one();
    failed
}

/// What was to be handed out again will be, in any case; what was done and is not settled is told.
fn report(session: &Session, verdict: driver::Verdict, result: Result<()>) {
    let Err(error) = result else {
        return;
    };
    if verdict == driver::Verdict::Done {
        session.news.tell(error, Operation::Settle);
    } else {
        tracing::debug!(error = %error, "a delivery could not be given back and returns by itself");
    }
}
