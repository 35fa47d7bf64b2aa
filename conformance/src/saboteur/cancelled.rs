//! Saboteurs of *cancelled*.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Delivered, Fetched, Inbound, Leases, Mark, Partition, Reader,
    Room, Source, SubscribeOptions,
};
use annals_core::{AppendReport, Batch, Group, Recorded, Result, TopicName};
use async_trait::async_trait;
use tokio::task::yield_now;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "takes_then_awaits",
        mirrors: "takes a page off the wire and awaits once more before it hands it over: whoever selects over a fetch loses it",
        model: Model::Log,
        law: "cancelled",
        make: |acted| Arc::new(TakesThenAwaits(acted)),
    },
    Saboteur {
        name: "leaks_a_permit",
        mirrors: "takes a permit for each request by hand and gives it back when the answer is there, which of a dropped one never is",
        model: Model::Sharded,
        law: "cancelled",
        make: |acted| {
            Arc::new(Leaks {
                acted,
                out: AtomicUsize::new(0),
            })
        },
    },
    Saboteur {
        name: "sends_a_dropped_append_again",
        mirrors: "keeps what has no answer yet and sends it once more with the next request, also what nobody waits for any more",
        model: Model::Sharded,
        law: "cancelled",
        make: |acted| {
            Arc::new(SendsAgain {
                acted,
                open: Mutex::default(),
            })
        },
    },
    Saboteur {
        name: "a_dropped_subscribe_keeps_the_name",
        mirrors: "registers a consumer's name before the broker has answered, so that nobody can join by it again when the call was dropped",
        model: Model::Queue,
        law: "cancelled",
        make: |acted| {
            Arc::new(KeepsName {
                acted,
                joining: Mutex::default(),
            })
        },
    },
    Saboteur {
        name: "a_dropped_listing_keeps_its_lock",
        mirrors: "guards a refresh of its metadata by a flag, which a dropped one leaves set, and everybody waits for it",
        model: Model::Log,
        law: "cancelled",
        make: |acted| {
            Arc::new(KeepsLock {
                acted,
                refreshing: AtomicUsize::new(0),
            })
        },
    },
    Saboteur {
        name: "passes_over_a_dropped_delivery",
        mirrors: "a fetch that is dropped while it decodes leaves what it took with the service for ever, as a receiver does that renews whatever it once received",
        model: Model::Queue,
        law: "cancelled",
        make: |acted| Arc::new(PassesOver(acted)),
    },
    Saboteur {
        name: "a_dropped_commit_keeps_its_turn",
        mirrors: "lets one commit after the other through by a flag, which a dropped one leaves set, and all behind it wait for ever",
        model: Model::Sharded,
        law: "cancelled",
        make: |acted| Arc::new(KeepsTurn(acted, AtomicUsize::new(0))),
    },
];

#[derive(Debug)]
struct TakesThenAwaits(Acted);

#[async_trait]
impl Hook for TakesThenAwaits {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let mut page = Vec::new();
        let told = below.fetch(room, &mut page).await;
        if !page.is_empty() {
            self.0.mark();
            yield_now().await;
        }
        out.append(&mut page);
        told
    }
}

impl Sabotage for TakesThenAwaits {}

/// How many requests a client makes at a time.
const PERMITS: usize = 64;

#[derive(Debug)]
struct Leaks {
    acted: Acted,
    out: AtomicUsize,
}

#[async_trait]
impl Hook for Leaks {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        if self.out.fetch_add(1, Ordering::SeqCst) >= PERMITS {
            self.acted.mark();
            return std::future::pending().await;
        }
        yield_now().await;
        let told = below.append(topic, batch, options).await;
        self.out.fetch_sub(1, Ordering::SeqCst);
        told
    }
}

impl Sabotage for Leaks {}

#[derive(Debug)]
struct SendsAgain {
    acted: Acted,
    open: Mutex<Vec<Batch>>,
}

impl SendsAgain {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Batch>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for SendsAgain {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let unanswered = std::mem::take(&mut *self.open());
        for again in unanswered {
            self.acted.mark();
            let _ = below.append(topic, &again, options).await;
        }
        let told = below.append(topic, batch, options).await?;
        self.open().push(batch.clone());
        yield_now().await;
        self.open().pop();
        Ok(told)
    }
}

impl Sabotage for SendsAgain {}

#[derive(Debug)]
struct KeepsName {
    acted: Acted,
    joining: Mutex<Vec<(TopicName, Group)>>,
}

impl KeepsName {
    fn joining(&self) -> std::sync::MutexGuard<'_, Vec<(TopicName, Group)>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for KeepsName {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let name = (topic.clone(), group.clone());
        if self.joining().contains(&name) {
            self.acted.mark();
            return Err(annals_core::Error::config("somebody joins by this name"));
        }
        self.joining().push(name.clone());
        yield_now().await;
        let told = below.subscribe(topic, group, options).await;
        self.joining().retain(|other| *other != name);
        told
    }
}

impl Sabotage for KeepsName {}

#[derive(Debug)]
struct KeepsLock {
    acted: Acted,
    refreshing: AtomicUsize,
}

#[async_trait]
impl Hook for KeepsLock {
    async fn partitions(&self, below: &dyn Backend, topic: &TopicName) -> Result<Vec<Partition>> {
        if self.refreshing.swap(1, Ordering::SeqCst) == 1 {
            self.acted.mark();
            return std::future::pending().await;
        }
        yield_now().await;
        let told = below.partitions(topic).await;
        self.refreshing.store(0, Ordering::SeqCst);
        told
    }
}

impl Sabotage for KeepsLock {}

#[derive(Debug)]
struct PassesOver(Acted);

#[async_trait]
impl Hook for PassesOver {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let mut page = Vec::new();
        let told = below.fetch(room, &mut page).await;
        // What comes again was renewed once too often.
        page.retain(|delivered| delivered.attempt == 1);
        if !page.is_empty() {
            self.0.mark();
            yield_now().await;
        }
        out.append(&mut page);
        told
    }
}

impl Sabotage for PassesOver {}

#[derive(Debug)]
struct KeepsTurn(Acted, AtomicUsize);

#[async_trait]
impl Hook for KeepsTurn {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        if self.1.swap(1, Ordering::SeqCst) == 1 {
            self.0.mark();
            return std::future::pending().await;
        }
        yield_now().await;
        let told = below.commit(group, marks).await;
        self.1.store(0, Ordering::SeqCst);
        told
    }
}

impl Sabotage for KeepsTurn {}
