//! The task that tells the service what was settled, and the one that holds on to deliveries.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::{answer, late};
use super::pause::Pause;
use super::receive::{padded, unanswered};
use super::session::Session;
use crate::defaults::RETRY_FOR;
use crate::driver::{self, Commits, Mark, Settled, Settler, Settling};
use crate::error::{Error, ErrorKind, Operation};

/// Commits and settles until the session has ended, and lets retries out when their time comes.
pub(crate) async fn settle(session: Arc<Session>) {
    let mut trouble = Trouble::new();
    loop {
        let failed = match &session.settling {
            Settling::UpTo(commits) => commit(&session, commits.as_ref()).await,
            Settling::Each(settler) => each(&session, settler.as_ref()).await,
        };
        let pause = trouble.after(&session, failed);
        let due = {
            let now = session.now();
            let mut ledger = session.ledger();
            if ledger.ended {
                return;
            }
            ledger.wake(now);
            if ledger.is_ready() {
                session.news.notify_waiters();
            }
            ledger.next_due().map(|due| due.saturating_sub(now))
        };
        session.news.notify_waiters();
        match (pause, due) {
            (Some(pause), _) => session.clock().sleep(pause).await,
            (None, Some(due)) if due.is_zero() => tokio::task::yield_now().await,
            (None, Some(due)) => {
                tokio::select! {
                    biased;
                    () = session.work.notified() => {}
                    () = session.clock().sleep(due) => {}
                }
            }
            (None, None) => session.work.notified().await,
        }
    }
}

/// What went wrong lately, so that it is told once and not with every attempt.
struct Trouble {
    pause: Pause,
    since: Option<Duration>,
    told: Option<ErrorKind>,
}

impl Trouble {
    const fn new() -> Self {
        Self {
            pause: Pause::new(),
            since: None,
            told: None,
        }
    }

    /// How long to wait before the next attempt. What heals within [`RETRY_FOR`] is not told.
    fn after(&mut self, session: &Session, failed: Option<Error>) -> Option<Duration> {
        let Some(error) = failed else {
            *self = Self::new();
            return None;
        };
        let now = session.now();
        let since = *self.since.get_or_insert(now);
        let lasting = now.saturating_sub(since) >= RETRY_FOR;
        if (lasting || !error.is_retryable()) && self.told != Some(error.kind()) {
            self.told = Some(error.kind());
            session.tell(error.clone(), Operation::Settle);
        }
        Some(self.pause.after(&error))
    }
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
        let now = session.now();
        let mut ledger = session.ledger();
        for (due, answer) in due.iter().zip(answers) {
            let answer = answer.map_err(|e| session.place(e, Operation::Settle));
            if let Err(error) = &answer
                && !matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Expired)
            {
                failed = Some(error.clone());
            }
            ledger.committed(due, answer, now);
        }
    }
    let leaving = session.ledger().releasable(session.now());
    for tenancy in leaving {
        if let Err(error) = commits.release(tenancy).await {
            tracing::debug!(error = %error, "a stay could not be released and ends by itself");
        }
        session.ledger().released(tenancy);
    }
    failed
}

/// Settlements of one call.
const MOST: usize = 1_000;

async fn each(session: &Session, settler: &dyn Settler) -> Option<Error> {
    let batch = session.ledger().take_settlements(MOST);
    if batch.is_empty() {
        return None;
    }
    let asked: Vec<_> = batch.iter().map(|(_, s)| (s.token, s.verdict)).collect();
    let answers = match settler.settle(&asked).await {
        Ok(answers) => padded(answers, batch.len(), || Settled::Unknown(unanswered())),
        Err(error) => vec![Settled::Failed(error); batch.len()],
    };
    let mut failed = None;
    let mut again = Vec::new();
    let mut told = Vec::new();
    for ((id, settlement), settled) in batch.into_iter().zip(answers) {
        let result = answer(settled).map_err(|e| session.place(e, Operation::Settle));
        if let Err(error) = &result
            && error.is_retryable()
        {
            failed = Some(error.clone());
            again.push((id, settlement));
            continue;
        }
        match (settlement.waiter, result) {
            (Some(waiter), result) => {
                // Whoever stopped waiting does not want to know.
                let _ = waiter.send(result);
            }
            (None, Ok(())) => {}
            // What was to be handed out again will be, in any case.
            (None, Err(error)) if settlement.verdict == driver::Verdict::Done => told.push(error),
            (None, Err(error)) => {
                tracing::debug!(error = %error, "a delivery could not be given back and returns by itself");
            }
        }
    }
    let mut ledger = session.ledger();
    ledger.answered(again);
    for error in told {
        ledger.tell(error);
    }
    let room = ledger.has_settlements();
    drop(ledger);
    session.room.notify_one();
    if room && failed.is_none() {
        session.work.notify_one();
    }
    failed
}

/// Holds on to what is unsettled, every third of the hold, until the session has ended.
pub(crate) async fn keep(session: Arc<Session>, settler: Arc<dyn Settler>, extend: bool) {
    let hold = session.lease;
    loop {
        session.clock().sleep(hold / 3).await;
        let held = {
            let ledger = session.ledger();
            if ledger.ended {
                return;
            }
            ledger.tokens()
        };
        if held.is_empty() {
            continue;
        }
        let mut lost = Vec::new();
        if extend {
            let tokens: Vec<_> = held.iter().map(|(_, token)| *token).collect();
            match settler.extend(&tokens, hold).await {
                Ok(answers) => {
                    let expired = held.iter().zip(answers);
                    let expired =
                        expired.filter(|(_, settled)| matches!(settled, Settled::Expired));
                    lost.extend(expired.map(|((id, _), _)| *id));
                }
                Err(error) => {
                    tracing::debug!(error = %error, "holding on to deliveries failed and is tried again");
                }
            }
        }
        let over = held
            .iter()
            .filter(|(_, token)| settler.held_for(*token) == Some(Duration::ZERO));
        lost.extend(over.map(|(id, _)| *id));
        let mut ledger = session.ledger();
        for id in lost {
            if ledger.expire(id) {
                ledger.tell(session.place(late(), Operation::Settle));
            }
        }
        drop(ledger);
        session.news.notify_waiters();
        session.work.notify_one();
    }
}
