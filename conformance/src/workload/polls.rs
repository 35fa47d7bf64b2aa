//! Calls that are dropped after so many polls.

use std::pin::pin;
use std::task::Poll;

use crate::trial::{Judged, Trial};

/// Polls `future` so many times, each time it is woken, and drops it; what it gave if it was ready
/// by then.
///
/// # Errors
/// [`Stop::Broken`](crate::trial::Stop), naming `what`, when it is not woken in time.
pub async fn polled<F: Future + Send>(
    trial: &Trial,
    what: &str,
    polls: usize,
    future: F,
) -> Judged<Option<F::Output>>
where
    F::Output: Send,
{
    if polls == 0 {
        drop(future);
        return Ok(None);
    }
    let mut future = pin!(future);
    let mut left = polls;
    let some = std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                return Poll::Ready(None);
            }
            Poll::Pending
        }
    });
    trial.soon(what, some).await
}

/// How often a call was dropped, and at which polls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drops {
    /// How many calls were dropped.
    pub dropped: usize,
    /// How many came to their end.
    pub ready: usize,
    /// How many of the dropped ones had been polled.
    pub begun: usize,
    next: usize,
}

/// A call that is not ready after so many polls is waited for.
const MOST: usize = 40;

impl Drops {
    /// Makes the call with no poll, one, two and so on, each time dropped, until one is ready; goes
    /// on from there with the next. `None`: it was dropped.
    ///
    /// # Errors
    /// As for [`polled`].
    pub async fn turn<F: Future + Send>(
        &mut self,
        trial: &Trial,
        what: &str,
        call: F,
    ) -> Judged<Option<F::Output>>
    where
        F::Output: Send,
    {
        let polls = if self.next > MOST {
            usize::MAX
        } else {
            self.next
        };
        let told = polled(trial, what, polls, call).await?;
        if told.is_some() {
            self.ready += 1;
            self.next = 0;
        } else {
            self.dropped += 1;
            self.begun += usize::from(self.next > 0);
            self.next += 1;
        }
        Ok(told)
    }
}
