//! The appender's own task: forms batches, sends them, hands out the outcomes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::queue::{Next, Shared};
use crate::append::Append;
use crate::outcome::{AppendError, Appended};

/// However the task ends, no ticket waits for ever.
pub(super) struct Guard(pub(super) Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

type Answered = (u64, Result<Appended, AppendError>);

/// Polls what is under way, the earliest first: so order is fixed in the order of sending.
fn poll_answers(sent: &mut Vec<(u64, Append)>, cx: &mut Context<'_>) -> Poll<Answered> {
    for at in 0..sent.len() {
        let Some((id, append)) = sent.get_mut(at) else {
            continue;
        };
        if let Poll::Ready(answer) = Pin::new(append).poll(cx) {
            let id = *id;
            drop(sent.remove(at));
            return Poll::Ready((id, answer));
        }
    }
    Poll::Pending
}

pub(super) async fn run(guard: Guard) {
    let shared = Arc::clone(&guard.0);
    let clock = shared.topic.bus().clock().clone();
    let mut sent: Vec<(u64, Append)> = Vec::new();
    loop {
        let linger = match shared.next(clock.elapsed()) {
            Next::Send(id, batch) => {
                let append = shared.topic.append(batch).retry_for(shared.retry_for);
                sent.push((id, append));
                // There may be more to send at once, after this one's first poll.
                shared.wake.notify_one();
                None
            }
            Next::Linger(left) => Some(left),
            Next::Wait => None,
            Next::End => break,
        };
        tokio::select! {
            biased;
            (id, answer) = std::future::poll_fn(|cx| poll_answers(&mut sent, cx)) => {
                shared.answer(id, answer);
            }
            () = async { clock.sleep(linger.unwrap_or_default()).await }, if linger.is_some() => {}
            () = shared.wake.notified() => {}
        }
    }
    drop(guard);
}
