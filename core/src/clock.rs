//! Where time comes from, so that a test can move it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// Where annals' own time comes from: the wall clock for log time, pauses for retries and leases.
///
/// Cheap to clone; clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Runtime { epoch: Timestamp, start: Instant },
    Moved(Arc<Moved>),
}

impl Clock {
    /// The system's clocks.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// The tokio runtime's time, counted from `epoch`: under `tokio::time::pause` it stands still
    /// until every task waits, and a test is deterministic. Not for backends with threads of
    /// their own: a paused runtime jumps over the time that they work in.
    pub fn runtime(epoch: Timestamp) -> Self {
        Self(Source::Runtime {
            epoch,
            start: Instant::now(),
        })
    }

    /// A clock that stands at `epoch` and moves only by [`advance`](Clock::advance).
    pub fn moved(epoch: Timestamp) -> Self {
        Self(Source::Moved(Arc::new(Moved {
            epoch,
            state: Mutex::new(State {
                elapsed: Duration::ZERO,
                sleepers: Vec::new(),
            }),
        })))
    }

    /// The moment now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Runtime { epoch, start } => epoch.saturating_add(start.elapsed()),
            Source::Moved(moved) => moved.epoch.saturating_add(moved.elapsed()),
        }
    }

    /// Time that never goes back, for measuring how long something took. Only differences of two
    /// readings of one clock mean anything.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System => {
                static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
                START.get_or_init(std::time::Instant::now).elapsed()
            }
            Source::Runtime { start, .. } => start.elapsed(),
            Source::Moved(moved) => moved.elapsed(),
        }
    }

    /// Waits. On a moved clock until it has been moved that far.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting and has no other effect.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System | Source::Runtime { .. } => tokio::time::sleep(duration).await,
            Source::Moved(moved) => {
                let until = moved.elapsed().saturating_add(duration);
                Sleep {
                    moved: Arc::clone(moved),
                    until,
                }
                .await;
            }
        }
    }

    /// Runs `future` for at most `limit`; `None` when it did not end by then.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        let mut sleep = std::pin::pin!(self.sleep(limit));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Moves a moved clock on and wakes who waited for it; on others it does nothing and says
    /// `false`.
    pub fn advance(&self, by: Duration) -> bool {
        let Source::Moved(moved) = &self.0 else {
            return false;
        };
        let woken = {
            let mut state = moved.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.elapsed = state.elapsed.saturating_add(by);
            std::mem::take(&mut state.sleepers)
        };
        for waker in woken {
            waker.wake();
        }
        true
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

struct Moved {
    epoch: Timestamp,
    state: Mutex<State>,
}

struct State {
    elapsed: Duration,
    sleepers: Vec<Waker>,
}

impl Moved {
    fn elapsed(&self) -> Duration {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed
    }
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moved")
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

struct Sleep {
    moved: Arc<Moved>,
    until: Duration,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self
            .moved
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if state.elapsed >= self.until {
            return Poll::Ready(());
        }
        if !state
            .sleepers
            .iter()
            .any(|waker| waker.will_wake(cx.waker()))
        {
            state.sleepers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moved_clock_wakes_its_sleepers_when_it_has_gone_far_enough() {
        let clock = Clock::moved(Timestamp::EPOCH);
        let second = Duration::from_secs(1);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(2 * second).await }
        });
        tokio::task::yield_now().await;
        clock.advance(second);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(second);
        sleeper.await.unwrap();
        assert_eq!(clock.now(), Timestamp::from_millis(2_000));
        assert_eq!(clock.elapsed(), 2 * second);
        assert!(!Clock::system().advance(second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_runtime_clock_follows_paused_time_and_times_out() {
        let clock = Clock::runtime(Timestamp::EPOCH);
        let late = clock
            .timeout(Duration::from_secs(5), std::future::pending::<()>())
            .await;
        assert_eq!(late, None);
        assert_eq!(clock.now(), Timestamp::from_millis(5_000));
        assert_eq!(clock.timeout(Duration::ZERO, async { 1 }).await, Some(1));
    }
}
