//! The task that tells the service what was settled.

use std::sync::Arc;
use std::time::Duration;

use super::failure::{answer, is_over, silent, unanswered};
use super::pause::Pause;
use super::receive::{earlier, padded};
use super::session::Session;
use super::trouble::Trouble;
use crate::defaults::RETRY_FOR;
use crate::driver::{self, Commits, Mark, Settled, Settler, Settling, Tenancy};
use crate::error::{Error, Operation, Result};

/// The longest pause between attempts while the subscription closes: its grace runs.
const CLOSING_PAUSE: Duration = Duration::from_millis(200);

/// A call that was begun has at least so long, however little of a grace is left.
const LEAST: Duration = Duration::from_millis(200);

/// Commits and settles until the session has ended, and lets retries out when their time comes.
pub(crate) async fn settle(session: Arc<Session>) {
    let mut trouble = Trouble::new();
    let mut not_before = Duration::ZERO;
    loop {
        let began = session.now();
        if began >= not_before {
            let failed = match &session.settling {
                Settling::UpTo(commits) => commit(&session, commits.as_ref()).await,
                Settling::Each(settler) => each(&session, settler.as_ref()).await,
            };
            let pause = paused(&session, &mut trouble, began, failed);
            not_before = session.now().saturating_add(pause);
        }
        // Only after the commits have returned, and no later than the grace allows: what fails to
        // commit, of this partition or another, does not hold them up.
        if let Settling::UpTo(commits) = &session.settling {
            let leaving = session.ledger().release(session.now());
            for (tenancy, end) in leaving {
                let commits = Arc::clone(commits);
                let release = release(Arc::clone(&session), commits, tenancy, end);
                drop(tokio::spawn(Arc::clone(&session).guarded(release)));
            }
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
            let commit = ledger.commit_due().map(|due| due.max(not_before));
            let work = earlier(commit, ledger.release_due());
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
fn paused(
    session: &Session,
    trouble: &mut Trouble,
    began: Duration,
    failed: Option<Error>,
) -> Duration {
    let Some(error) = failed else {
        trouble.heals();
        return Duration::ZERO;
    };
    trouble.begins(began);
    let (pause, tell) = trouble.fails(&error, session.now());
    tracing::debug!(error = %error, ?pause, "settling failed and is tried again");
    if tell {
        session.ledger().commits_fail(&error);
        session.news.tell(error, Operation::Settle);
    }
    pause
}

/// What a call comes to within [`RETRY_FOR`], and before a revocation must be answered.
async fn in_time<T>(session: &Session, call: impl Future<Output = T>) -> Option<T> {
    let mut call = std::pin::pin!(call);
    let began = session.now();
    loop {
        let limit = began.saturating_add(RETRY_FOR);
        let answer = session.ledger().answer_due();
        let answer = answer.map(|due| due.max(began.saturating_add(LEAST)));
        let until = answer.map_or(limit, |due| due.min(limit));
        tokio::select! {
            biased;
            answer = &mut call => return Some(answer),
            // There may be a revocation now.
            () = session.work.notified() => {}
            () = session.clock().sleep(until.saturating_sub(session.now())) => return None,
        }
    }
}

/// Commits what is due.
async fn commit(session: &Session, commits: &dyn Commits) -> Option<Error> {
    let mut failed = None;
    let due = session.ledger().marks(session.now());
    if !due.is_empty() {
        let marks: Vec<Mark> = due.iter().map(|due| due.mark).collect();
        let answers = match in_time(session, commits.commit(&marks)).await {
            Some(Ok(answers)) => padded(answers, due.len(), || Err(unanswered())),
            Some(Err(error)) => vec![Err(error); due.len()],
            None => vec![Err(silent("commit")); due.len()],
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
    failed
}

/// Answers a revocation: tried until `end`, then the stay ends by itself.
async fn release(
    session: Arc<Session>,
    commits: Arc<dyn Commits>,
    tenancy: Tenancy,
    end: Duration,
) {
    let left = end
        .saturating_sub(session.now())
        .clamp(LEAST, RETRY_FOR.max(LEAST));
    let released = session.clock().timeout(left, commits.release(tenancy));
    match released.await.unwrap_or_else(|| Err(silent("release"))) {
        Ok(()) => session.ledger().lost(tenancy),
        // What the service has ended already needs no answer.
        Err(error) if is_over(&error) => session.ledger().lost(tenancy),
        Err(error) => {
            tracing::debug!(error = %error, "a stay could not be released");
            let now = session.now();
            let again = if error.is_retryable() {
                now.saturating_add(Pause::new().after(&error))
            } else {
                end
            };
            session.ledger().unreleased(tenancy, again);
            if again >= end {
                let error = session.place(error, Operation::Settle);
                let error = error.in_partition(tenancy.partition);
                session.news.tell(error, Operation::Settle);
            }
        }
    }
    session.work.notify_one();
    session.room.notify_one();
    session.news.ring();
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
    let answers = match in_time(session, settler.settle(&asked)).await {
        Some(Ok(answers)) => padded(answers, batch.len(), || Settled::Unknown(unanswered())),
        Some(Err(error)) => vec![Settled::Failed(error); batch.len()],
        None => vec![Settled::Unknown(silent("settlement")); batch.len()],
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
