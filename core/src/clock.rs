//! Where time comes from, so that a test can move it.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
            state: Mutex::default(),
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

    /// Waits. On a moved clock until it has been moved that far; on the others at least that long,
    /// to tokio's millisecond, in a tokio runtime with time enabled.
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
                    id: None,
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
            let mut state = moved.state();
            state.elapsed = state.elapsed.saturating_add(by);
            std::mem::take(&mut state.sleepers)
        };
        for (_, waker) in woken {
            waker.wake();
        }
        true
    }

    /// Ready once somebody waits for a moved clock to be moved: how a test knows that the code
    /// under test has gone as far as it can. On other clocks it is ready at once and says
    /// `false`.
    ///
    /// Background tasks wait too (a subscription keeps its leases so): it tells most where one
    /// call is under way.
    ///
    /// # Cancel safety
    /// Dropping it stops waiting and has no other effect.
    pub async fn asleep(&self) -> bool {
        let Source::Moved(moved) = &self.0 else {
            return false;
        };
        std::future::poll_fn(|cx| {
            let mut state = moved.state();
            if !state.sleepers.is_empty() {
                return Poll::Ready(true);
            }
            if !state.watchers.iter().any(|w| w.will_wake(cx.waker())) {
                state.watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
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

#[derive(Default)]
struct State {
    elapsed: Duration,
    /// Those who wait for the clock, by the number of their sleep.
    sleepers: BTreeMap<u64, Waker>,
    next: u64,
    /// Those who wait for a sleeper.
    watchers: Vec<Waker>,
}

impl Moved {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> Duration {
        self.state().elapsed
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
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.moved.state();
        if state.elapsed >= this.until {
            return Poll::Ready(());
        }
        let id = *this.id.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        state.sleepers.insert(id, cx.waker().clone());
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        for watcher in watchers {
            watcher.wake();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    /// Whoever stopped waiting no longer counts as asleep.
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.moved.state().sleepers.remove(&id);
        }
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

    #[tokio::test]
    async fn asleep_tells_that_somebody_waits_and_forgets_who_gave_up() {
        let clock = Clock::moved(Timestamp::EPOCH);
        let second = Duration::from_secs(1);
        let watcher = tokio::spawn({
            let clock = clock.clone();
            async move { clock.asleep().await }
        });
        tokio::task::yield_now().await;
        assert!(!watcher.is_finished());
        let mut sleep = Box::pin(clock.sleep(second));
        assert!(poll(sleep.as_mut()).is_pending());
        assert!(watcher.await.unwrap());
        drop(sleep);
        assert!(poll(std::pin::pin!(clock.asleep())).is_pending());
        let mut sleep = Box::pin(clock.sleep(second));
        assert!(poll(sleep.as_mut()).is_pending());
        clock.advance(second);
        assert!(poll(std::pin::pin!(clock.asleep())).is_pending());
        assert!(poll(sleep.as_mut()).is_ready());
        assert!(!Clock::system().asleep().await);
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
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
