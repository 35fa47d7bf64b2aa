//! The task that holds on to deliveries of a service that lends each for a while.

use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use crate::driver::{Settled, Settler};

/// Extends every hold each third of it, sooner where that failed, until the session has ended; a
/// delivery that is no longer held is forgotten.
pub(crate) async fn keep(session: Arc<Session>, settler: Arc<dyn Settler>, extend: bool) {
    let hold = session.lease;
    let mut wait = hold / 3;
    loop {
        session.clock().sleep(wait).await;
        wait = hold / 3;
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
            // What takes longer than a third would hold up the next round.
            let extended = session
                .clock()
                .timeout(hold / 3, settler.extend(&tokens, hold));
            let answers = match extended.await {
                Some(Ok(answers)) => answers,
                Some(Err(error)) => {
                    tracing::debug!(error = %error, "holding on to deliveries failed and is tried again");
                    Vec::new()
                }
                None => Vec::new(),
            };
            let held_on = |settled: &Settled| matches!(settled, Settled::Yes | Settled::Expired);
            if answers.len() < held.len() || !answers.iter().all(held_on) {
                wait = hold / 12;
            }
            let expired = held.iter().zip(answers);
            let expired = expired.filter(|(_, settled)| matches!(settled, Settled::Expired));
            lost.extend(expired.map(|((id, _), _)| *id));
        }
        let over = held
            .iter()
            .filter(|(_, token)| settler.held_for(*token) == Some(Duration::ZERO));
        lost.extend(over.map(|(id, _)| *id));
        if lost.is_empty() {
            continue;
        }
        let now = session.now();
        {
            let mut ledger = session.ledger();
            for id in lost {
                ledger.expire(id, now);
            }
        }
        session.news.ring();
        session.room.notify_one();
        session.work.notify_one();
    }
}
