//! Backends broken on purpose, each in one small way: what proves that the suite can catch a liar.
//!
//! A saboteur breaks a model through a [`Hook`] at one crossing, or its harness where only a
//! restart shows it. Each says which real bug it mirrors, and which law is meant to catch it.

mod alive;
mod atomic_batch;
mod bounded;
mod bytes;
mod cancelled;
mod closed;
mod competing;
mod condition;
mod cursor_round_trip;
mod declared;
mod dedupe;
mod durable;
mod end;
mod fan_out;
mod fenced;
mod gap_told;
mod group_start;
mod isolated;
mod key_order;
mod lineage;
mod located;
mod matrix;
mod no_skip;
mod outcome_per_record;
mod poison;
mod range;
mod rebuilt;
mod redelivery;
mod repeatable;
mod resume;
mod seam;
mod sliced;
mod timed;
mod truthful;
mod whole;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_core::driver::Backend;
use annals_core::{Clock, Result, TopicName};
use async_trait::async_trait;
use serde::Serialize;

use crate::harness::{
    Cannot, Disturb, Harness, LogHarness, Meter, QueueHarness, ShardedHarness, Time, Want,
};
use crate::tap::{Hook, Tap};

pub use matrix::{Kill, matrix, meant};

/// Which model a saboteur breaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// The log.
    Log,
    /// The sharded log.
    Sharded,
    /// The queue.
    Queue,
}

impl Model {
    /// The model unbroken.
    pub fn harness(self) -> Arc<dyn Harness> {
        match self {
            Self::Log => Arc::new(LogHarness::new()),
            Self::Sharded => Arc::new(ShardedHarness::new()),
            Self::Queue => Arc::new(QueueHarness::new()),
        }
    }
}

/// How often a saboteur did its harm: one that never could shows nothing by surviving.
#[derive(Clone, Debug, Default)]
pub struct Acted(Arc<AtomicUsize>);

impl Acted {
    /// It did it once more.
    pub fn mark(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How often so far.
    pub fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What is broken: the crossings of [`Hook`], and what only a harness sees.
#[async_trait]
pub trait Sabotage: Hook {
    /// A disturbance.
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        below.disturb(topic, what).await
    }

    /// A new client.
    async fn connect(&self, below: &dyn Harness) -> Result<Arc<dyn Backend>> {
        below.connect().await
    }
}

/// One way to break a model.
#[derive(Clone, Copy)]
pub struct Saboteur {
    /// Its name, in snake case.
    pub name: &'static str,
    /// What it does, and the real bug that does the same.
    pub mirrors: &'static str,
    /// What it breaks.
    pub model: Model,
    /// The law that is meant to catch it.
    pub law: &'static str,
    /// A new one.
    pub make: fn(Acted) -> Arc<dyn Sabotage>,
}

impl fmt::Debug for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({:?}, meant for {})",
            self.name, self.model, self.law
        )
    }
}

/// All saboteurs.
pub fn all() -> Vec<Saboteur> {
    [
        durable::ALL,
        truthful::ALL,
        outcome_per_record::ALL,
        located::ALL,
        repeatable::ALL,
        range::ALL,
        timed::ALL,
        sliced::ALL,
        key_order::ALL,
        lineage::ALL,
        no_skip::ALL,
        seam::ALL,
        end::ALL,
        gap_told::ALL,
        cursor_round_trip::ALL,
        condition::ALL,
        atomic_batch::ALL,
        dedupe::ALL,
        fenced::ALL,
        fan_out::ALL,
        group_start::ALL,
        competing::ALL,
        redelivery::ALL,
        resume::ALL,
        poison::ALL,
        rebuilt::ALL,
        bytes::ALL,
        alive::ALL,
        cancelled::ALL,
        bounded::ALL,
        closed::ALL,
        isolated::ALL,
        declared::ALL,
        whole::ALL,
    ]
    .concat()
}

/// A harness whose backend is broken.
#[derive(Debug)]
pub struct Sabotaged {
    below: Arc<dyn Harness>,
    sabotage: Arc<dyn Sabotage>,
    acted: Acted,
}

impl Sabotaged {
    /// Breaks a new model.
    pub fn new(saboteur: &Saboteur) -> Self {
        Self::over(saboteur, saboteur.model.harness())
    }

    /// Breaks any backend.
    pub fn over(saboteur: &Saboteur, below: Arc<dyn Harness>) -> Self {
        let acted = Acted::default();
        Self {
            below,
            sabotage: (saboteur.make)(acted.clone()),
            acted,
        }
    }

    /// How often it did its harm.
    pub fn acted(&self) -> &Acted {
        &self.acted
    }
}

#[async_trait]
impl Harness for Sabotaged {
    fn name(&self) -> String {
        self.below.name()
    }

    fn service(&self) -> (String, String) {
        self.below.service()
    }

    fn time(&self) -> Time {
        self.below.time()
    }

    fn clock(&self) -> Clock {
        self.below.clock()
    }

    async fn topic(&self, want: &Want) -> Result<TopicName, Cannot> {
        self.below.topic(want).await
    }

    async fn connect(&self) -> Result<Arc<dyn Backend>> {
        let below = self.sabotage.connect(&*self.below).await?;
        let hook: Arc<dyn Hook> = self.sabotage.clone();
        Ok(Arc::new(Tap::new(below, hook)))
    }

    async fn disturb(&self, topic: &TopicName, what: Disturb) -> Result<(), Cannot> {
        self.sabotage.disturb(&*self.below, topic, what).await
    }

    fn fired(&self) -> usize {
        self.below.fired()
    }

    async fn meter(&self, what: Meter) -> Result<u64, Cannot> {
        self.below.meter(what).await
    }

    async fn clean(&self) {
        self.below.clean().await;
    }
}
