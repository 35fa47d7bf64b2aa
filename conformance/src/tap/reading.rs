//! A reading with a hook at each fetch.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Fetched, Reader, Room};
use annals_core::{Recorded, Result};
use async_trait::async_trait;

use super::{Hook, Passage};

#[derive(Debug)]
pub(super) struct TapReader {
    below: Box<dyn Reader>,
    hook: Arc<dyn Hook>,
    passage: Passage,
}

impl TapReader {
    pub(super) fn new(below: Box<dyn Reader>, hook: Arc<dyn Hook>, passage: Passage) -> Self {
        Self {
            below,
            hook,
            passage,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Reader for TapReader {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Recorded>) -> Result<Fetched> {
        let before = out.len();
        self.passage.fetches += 1;
        let below = &mut *self.below;
        let told = self.hook.fetch(&mut self.passage, below, room, out).await;
        self.passage.passed += out.len().saturating_sub(before);
        told
    }

    async fn close(self: Box<Self>, grace: Duration) -> Result<()> {
        self.below.close(grace).await
    }
}
