//! Saboteurs of *closed*.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annals_core::driver::{AppendOptions, Backend, Fetched, Reader, Room};
use annals_core::{AppendReport, Batch, Outcome, Recorded, Result, Stored, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "hangs_at_the_close",
        mirrors: "waits at its close for requests that never have an answer, whatever grace it was given, as rust-rdkafka #509",
        model: Model::Sharded,
        law: "closed",
        make: |acted| {
            Arc::new(Hangs {
                acted,
                under_way: AtomicUsize::new(0),
            })
        },
    },
    Saboteur {
        name: "reopens_itself",
        mirrors: "a closed client that connects again at the next call, and goes on as if nothing had been said",
        model: Model::Log,
        law: "closed",
        make: |acted| Arc::new(Reopens(acted)),
    },
    Saboteur {
        name: "says_stored_once_it_is_closed",
        mirrors: "an append to a closed client goes into a buffer that nobody sends any more, and is acknowledged",
        model: Model::Queue,
        law: "closed",
        make: |acted| {
            Arc::new(SaysStored {
                acted,
                closed: AtomicBool::new(false),
            })
        },
    },
    Saboteur {
        name: "readers_wait_on_after_the_close",
        mirrors: "a close that ends the connection and wakes nobody: who reads waits for ever",
        model: Model::Log,
        law: "closed",
        make: |acted| Arc::new(WaitsOn(acted, AtomicBool::new(false))),
    },
];

#[derive(Debug)]
struct Hangs {
    acted: Acted,
    under_way: AtomicUsize,
}

#[async_trait]
impl Hook for Hangs {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let told = below.append(topic, batch, options).await;
        if told.is_ok() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        told
    }

    async fn close(&self, below: &dyn Backend, grace: Duration) -> Result<()> {
        if self.under_way.load(Ordering::SeqCst) > 0 {
            self.acted.mark();
            return pending().await;
        }
        below.close(grace).await
    }
}

impl Sabotage for Hangs {}

#[derive(Debug)]
struct Reopens(Acted);

#[async_trait]
impl Hook for Reopens {
    async fn close(&self, _: &dyn Backend, _: Duration) -> Result<()> {
        self.0.mark();
        Ok(())
    }
}

impl Sabotage for Reopens {}

#[derive(Debug)]
struct SaysStored {
    acted: Acted,
    closed: AtomicBool,
}

#[async_trait]
impl Hook for SaysStored {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let told = below.append(topic, batch, options).await;
        if told.is_err() && self.closed.load(Ordering::SeqCst) {
            self.acted.mark();
            let stored = Outcome::Stored(Stored::somewhere());
            return Ok(AppendReport::all(batch.len(), &stored));
        }
        told
    }

    async fn close(&self, below: &dyn Backend, grace: Duration) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        below.close(grace).await
    }
}

impl Sabotage for SaysStored {}

#[derive(Debug)]
struct WaitsOn(Acted, AtomicBool);

#[async_trait]
impl Hook for WaitsOn {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await;
        if told.is_err() && self.1.load(Ordering::SeqCst) {
            self.0.mark();
            return pending().await;
        }
        told
    }

    async fn close(&self, below: &dyn Backend, grace: Duration) -> Result<()> {
        self.1.store(true, Ordering::SeqCst);
        below.close(grace).await
    }
}

impl Sabotage for WaitsOn {}
