//! No attempt takes longer than this.

use std::sync::Arc;
use std::time::Duration;

use super::Layer;
use super::attempt::{Answer, Around, Attempt};
use super::wrap::Wrapped;
use crate::clock::Clock;
use crate::driver::Backend;
use crate::error::{Error, ErrorKind, Result, Retry};

/// Ends every single attempt that takes longer than a limit, by the bus's clock.
///
/// An append that is ended so is [`Unknown`](crate::Outcome::Unknown) for each of its records,
/// never `Err`: the request may have left. So are settlements. Every other call is an error of
/// kind `Timeout`, of effect `None` where it only asks and `Unknown` where it changes something.
/// All may be retried, and core does so as for any other failure: the limit is one attempt's, and
/// what bounds an append with its retries is [`Append::deadline`](crate::Append::deadline).
///
/// **What may wait.** A follower's fetch, and a member's, wait until there is something to say and
/// have no limit. The fetch of a replay that stops at the end or at a cursor has one: until then
/// there is always something. Closing has its own grace.
///
/// **Order.** The inner append's first poll is within the layer's own.
///
/// # Cancel safety
/// As the backend's: an attempt that is ended is dropped, and a call that is dropped drops its
/// attempt.
///
/// # Examples
/// ```no_run
/// # fn limited(bus: annals_core::Bus) -> annals_core::Bus {
/// use std::time::Duration;
/// use annals_core::layer::Timeout;
/// bus.layer(&Timeout::new(Duration::from_secs(5)))
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// An attempt takes `limit` at most. There is no default: it is what the service usually
    /// needs, several times over.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl Layer for Timeout {
    fn wrap(&self, inner: Arc<dyn Backend>, clock: &Clock) -> Arc<dyn Backend> {
        let by = Limited {
            limit: self.limit,
            clock: clock.clone(),
        };
        Arc::new(Wrapped { inner, by })
    }
}

#[derive(Clone, Debug)]
struct Limited {
    limit: Duration,
    clock: Clock,
}

impl Around for Limited {
    fn limit(&self) -> Option<Duration> {
        Some(self.limit)
    }

    async fn around<T: Answer>(
        &self,
        attempt: Attempt<'_>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if attempt.waits {
            return call.await;
        }
        if let Some(answer) = self.clock.timeout(self.limit, call).await {
            return answer;
        }
        let text = format!(
            "no answer to one attempt within {:?}; set a longer time-out, or look at the service",
            self.limit
        );
        let error = Error::new(ErrorKind::Timeout, attempt.effect, Retry::Backoff, text);
        T::late(error, &attempt)
    }
}
