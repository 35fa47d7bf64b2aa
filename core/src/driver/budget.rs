//! Bytes that may be buffered, shared among the readers of one replay.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be buffered, shared by all who hold a clone.
///
/// A reader reserves before it asks its service for more and lets go when the records have been
/// pushed, so that sixteen shards of ten MiB each do not fill a buffer of one. One replay has one,
/// half of its [`buffer`](crate::OpenReplay::buffer), and so has one member of a group run over
/// leases: what may be [in flight](crate::OpenSubscription::in_flight), at most
/// [`READ_BUFFER`](crate::defaults::READ_BUFFER).
///
/// An answer that is larger than the whole takes all of it, and everybody else waits: a reader that
/// holds records for which its caller has no room drops them with their [`Reserved`] and reads them
/// again, where it can (the driver's rule 11). What each answer under way may bring over the bound
/// is [`slack_bytes`](crate::capability::Limits::slack_bytes), once for each reader.
#[derive(Clone, Debug)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    bytes: u32,
}

impl Budget {
    /// So many bytes; at least one, at most 1 GiB.
    pub fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, 1 << 30);
        Self {
            semaphore: Arc::new(Semaphore::new(bytes as usize)),
            bytes,
        }
    }

    /// The whole of it.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// What is free now.
    pub fn free(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// Waits for `bytes` (at most the whole budget, so that one large answer always fits). First
    /// come, first served.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped while waiting it reserves nothing and loses its place.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        let wanted = self.wanted(bytes);
        // The semaphore is never closed; without a permit nothing is counted, which is safe.
        let permit = Arc::clone(&self.semaphore)
            .acquire_many_owned(wanted)
            .await
            .ok();
        Reserved { permit }
    }

    /// Takes `bytes` if they are free.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permit = Arc::clone(&self.semaphore)
            .try_acquire_many_owned(self.wanted(bytes))
            .ok()?;
        Some(Reserved {
            permit: Some(permit),
        })
    }

    fn wanted(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }
}

/// Reserved bytes of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    permit: Option<OwnedSemaphorePermit>,
}

impl Reserved {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives all but `bytes` back.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_wish_is_cut_to_the_whole_and_given_back() {
        let budget = Budget::new(10);
        let mut all = budget.reserve(1_000).await;
        assert_eq!((all.bytes(), budget.free()), (10, 0));
        assert!(budget.try_reserve(1).is_none());
        all.shrink_to(4);
        assert_eq!(budget.free(), 6);
        drop(all);
        assert_eq!(budget.free(), 10);
    }
}
